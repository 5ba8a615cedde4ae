/*
 * Power-off by PM1a: SLP_TYP of \_S5 as the DSDT says, SLP_EN.
 */
#include "lib/acpi.h"
#include "lib/cpu.h"

/* The first number of \_S5's package (ACPI 6.5, 20.2.5.4), 0 as a fallback. */
static u8
poweroff_type(void)
{
	const struct acpi_header *dsdt = (void *)(uptr)acpi_u32(acpi_find("FACP"), 40);
	const u8 *aml = (const u8 *)dsdt;

	for (u32 i = sizeof(*dsdt); i + 12 < dsdt->length; i++) {
		if (memcmp(aml + i, "_S5_\x12", 5) != 0)
			continue;
		aml += i + 5;
		aml += (*aml >> 6) + 2; /* package length, number of elements */
		return *aml == 0x0a ? aml[1] : *aml <= 1 ? *aml : 0;
	}
	CHECK(false);
	return 0;
}

void
guest_main(void)
{
	u8 type = poweroff_type();

	CHECK(acpi_pm1a_control() != 0);
	print("ending now\n");
	outw(acpi_pm1a_control(), (u16)(type << 10 | 1 << 13));
	for (volatile int i = 0; i < 100000000; i++)
		cpu_pause();
	print("FAIL: still here\n");
}
