/*
 * Finding ACPI tables (see acpi.h; ACPI 6.5, 5.2).
 */
#include "lib/acpi.h"

#ifdef __x86_64__
#define PVH_MAGIC 0x336ec578u
#endif

u32
acpi_u32(const void *table, size_t offset)
{
	u32 value;

	memcpy(&value, (const u8 *)table + offset, 4);
	return value;
}

u64
acpi_u64(const void *table, size_t offset)
{
	u64 value;

	memcpy(&value, (const u8 *)table + offset, 8);
	return value;
}

bool
acpi_sum_good(const void *bytes, size_t len)
{
	const u8 *b = bytes;
	u8 sum = 0;

	while (len--)
		sum = (u8)(sum + *b++);
	return sum == 0;
}

static const u8 *
acpi_search(uptr from, uptr to)
{
	for (uptr at = from; at < to; at += 16)
		if (memcmp((const void *)at, "RSD PTR ", 8) == 0 &&
		    acpi_sum_good((const void *)at, 20))
			return (const u8 *)at;
	return NULL;
}

/* Address from memory that the compiler takes for a null object. */
static u16
acpi_low_word(uptr address)
{
	__asm__("" : "+r"(address));
	return *(volatile u16 *)address;
}

const u8 *
acpi_rsdp(void)
{
	uptr ebda = (uptr)acpi_low_word(0x40e) << 4;
	const u8 *rsdp = NULL;

#ifdef __x86_64__
	const u8 *info = (const u8 *)(uptr)guest_boot_ebx;

	if (acpi_u32(info, 0) == PVH_MAGIC && acpi_u64(info, 32))
		return (const u8 *)(uptr)acpi_u64(info, 32);
#endif
	if (ebda >= 0x80000 && ebda < 0xa0000)
		rsdp = acpi_search(ebda, ebda + 1024);
	return rsdp ? rsdp : acpi_search(0xe0000, 0x100000);
}

static const struct acpi_header *
acpi_find_in(const struct acpi_header *root, size_t entry, const char *signature)
{
	for (size_t at = sizeof(*root); at + entry <= root->length; at += entry) {
		u64 address = entry == 8 ? acpi_u64(root, at) : acpi_u32(root, at);
		const struct acpi_header *table = (const struct acpi_header *)(uptr)address;

		if (memcmp(table->signature, signature, 4) == 0)
			return table;
	}
	return NULL;
}

const struct acpi_header *
acpi_find(const char *signature)
{
	const u8 *rsdp = acpi_rsdp();

	if (!rsdp)
		return NULL;
	if (rsdp[15] >= 2 && acpi_u64(rsdp, 24))
		return acpi_find_in((const struct acpi_header *)(uptr)acpi_u64(rsdp, 24), 8,
				    signature);
	return acpi_find_in((const struct acpi_header *)(uptr)acpi_u32(rsdp, 16), 4, signature);
}

static u16
acpi_fadt_port(size_t offset)
{
	const struct acpi_header *fadt = acpi_find("FACP");

	return fadt ? (u16)acpi_u32(fadt, offset) : 0;
}

u16
acpi_pm1a_event(void)
{
	return acpi_fadt_port(56);
}

u16
acpi_pm1a_control(void)
{
	return acpi_fadt_port(64);
}

u16
acpi_pm_timer(void)
{
	return acpi_fadt_port(76);
}
