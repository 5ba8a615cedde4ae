/*
 * The map of guest memory. Every hole in it is where something else than RAM
 * answers, or RAM that firmware keeps for itself.
 */
#include "boot/e820.h"

unsigned
e820_build(const struct memory *mem, struct e820_entry map[E820_MAX])
{
	u64 low = memory_low_size(mem), high = memory_high_size(mem);
	unsigned n = 0;

	map[n++] = (struct e820_entry){0, E820_EBDA, E820_RAM};
	map[n++] = (struct e820_entry){E820_EBDA, E820_VIDEO - E820_EBDA, E820_RESERVED};
	map[n++] = (struct e820_entry){E820_TABLES, E820_ONE_MIB - E820_TABLES, E820_RESERVED};
	if (low > E820_ONE_MIB)
		map[n++] = (struct e820_entry){E820_ONE_MIB, low - E820_ONE_MIB, E820_RAM};
	map[n++] = (struct e820_entry){E820_ECAM, E820_ECAM_SIZE, E820_RESERVED};
	if (high > 0)
		map[n++] = (struct e820_entry){MEMORY_HIGH, high, E820_RAM};
	return n;
}
