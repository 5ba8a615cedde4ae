/*
 * The map of guest memory as firmware tells it (ACPI 6.5, 15.1), the same for
 * every loader and for fw_cfg.
 *
 *	0x00000000 .. 0x0009fc00	RAM
 *	0x0009fc00 .. 0x000a0000	reserved: extended BIOS data area
 *	0x000e0000 .. 0x00100000	reserved: ACPI tables, root pointer
 *	0x00100000 .. low RAM's end	RAM
 *	0xb0000000 .. 0xc0000000	reserved: PCI configuration space (ECAM)
 *	4 GiB      .. high RAM's end	RAM
 */
#ifndef BOOT_E820_H
#define BOOT_E820_H

#include "base/types.h"
#include "memory/memory.h"

enum { E820_RAM = 1, E820_RESERVED = 2 };
enum { E820_MAX = 8 };

#define E820_EBDA 0x9fc00ull
#define E820_VIDEO 0xa0000ull
#define E820_TABLES 0xe0000ull
#define E820_ONE_MIB 0x100000ull
#define E820_ECAM MEMORY_PCI_HOLE
#define E820_ECAM_SIZE 0x10000000ull

struct e820_entry {
	u64 base, size;
	u32 type;
};

/* Fills MAP in ascending order and returns how many entries it has. */
unsigned e820_build(const struct memory *mem, struct e820_entry map[E820_MAX]);

#endif
