/*
 * The simplest 64-bit guest: what PVH hands over, then the end.
 */
#include "lib/acpi.h"
#include "lib/cpu.h"
#include "lib/guest.h"

void
guest_main(void)
{
	print("hello\n");
	CHECK_EQ(acpi_u32((void *)(uptr)guest_boot_ebx, 0), 0x336ec578);
	CHECK(cpu_read_msr(MSR_EFER) & EFER_LMA);
}
