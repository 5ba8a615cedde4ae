/*
 * ACPI tables as a guest finds them.
 */
#ifndef GUEST_ACPI_H
#define GUEST_ACPI_H

#include "lib/guest.h"

struct acpi_header {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem[6], oem_table[8];
	u32 oem_revision, creator, creator_revision;
} PACKED;

/* The RSDP: what PVH's start_info names, or by a search of E0000h to FFFFFh and the EBDA. */
const u8 *acpi_rsdp(void);
/* The first table with SIGNATURE, or NULL. */
const struct acpi_header *acpi_find(const char *signature);
/* Whether LEN bytes add up to 0. */
bool acpi_sum_good(const void *bytes, size_t len);

/* From the FADT: the PM1a event and control blocks and the PM timer, 0 if there are none. */
u16 acpi_pm1a_event(void);
u16 acpi_pm1a_control(void);
u16 acpi_pm_timer(void);

/* Little-endian field at OFFSET of a table. */
u32 acpi_u32(const void *table, size_t offset);
u64 acpi_u64(const void *table, size_t offset);

#endif
