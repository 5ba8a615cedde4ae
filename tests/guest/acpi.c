/*
 * ACPI tables: found, checksummed, and saying what the machine is.
 */
#include "lib/acpi.h"
#include "lib/cpu.h"

static void
acpi_check_table(const char *signature, u32 least)
{
	const struct acpi_header *table = acpi_find(signature);

	CHECK(table != NULL);
	if (!table) {
		print("     no %s\n", signature);
		return;
	}
	CHECK(table->length >= least);
	CHECK(acpi_sum_good(table, table->length));
}

static unsigned
acpi_count_cpus(const struct acpi_header *madt, bool *ioapic)
{
	const u8 *at = (const u8 *)madt + 44, *end = (const u8 *)madt + madt->length;
	unsigned cpus = 0;

	for (; at + 2 <= end && at[1] >= 2; at += at[1]) {
		if ((at[0] == 0 && (at[4] & 1)) || (at[0] == 9 && (at[8] & 1)))
			cpus++;
		if (at[0] == 1 && acpi_u32(at, 4) == 0xfec00000)
			*ioapic = true;
	}
	CHECK(at == end);
	return cpus;
}

void
guest_main(void)
{
	const u8 *rsdp = acpi_rsdp();
	const struct acpi_header *table;
	bool ioapic = false;

	CHECK(rsdp != NULL);
	if (!rsdp)
		return;
	CHECK(memcmp(rsdp, "RSD PTR ", 8) == 0);
	CHECK(acpi_sum_good(rsdp, 20));
	if (rsdp[15] >= 2)
		CHECK(acpi_sum_good(rsdp, acpi_u32(rsdp, 20)));
	acpi_check_table("FACP", 116);
	acpi_check_table("APIC", 44);
	acpi_check_table("HPET", 56);
	acpi_check_table("MCFG", 60);
	table = acpi_find("APIC");
	if (table) {
		u32 cpus = cpu_cpuid(1, 0).b >> 16 & 0xff;

		CHECK_EQ(acpi_count_cpus(table, &ioapic), cpus ? cpus : 1);
		CHECK(ioapic);
		CHECK_EQ(acpi_u32(table, 36), 0xfee00000);
	}
	table = acpi_find("FACP");
	if (table) {
		const struct acpi_header *dsdt = (void *)(uptr)acpi_u32(table, 40);

		CHECK(memcmp(dsdt->signature, "DSDT", 4) == 0);
		CHECK(acpi_sum_good(dsdt, dsdt->length));
		CHECK(acpi_pm1a_control() != 0);
		CHECK(acpi_pm_timer() != 0);
	}
	table = acpi_find("HPET");
	if (table)
		CHECK_EQ(acpi_u64(table, 44), 0xfed00000);
	table = acpi_find("MCFG");
	if (table) { /* the host bridge answers in ECAM */
		volatile u32 *ecam = (volatile u32 *)(uptr)acpi_u64(table, 44);

		outl(0xcf8, 0x80000000);
		CHECK_EQ(ecam[0], inl(0xcfc));
		CHECK(ecam[0] != 0xffffffff);
	}
}
