/*
 * ELF kernels: segments, notes, PVH. The magic is given, the rest is foreign.
 */
#include "boot_target.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int
LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static u8 file[1 << 16];

	if (size < 6 || size > sizeof(file))
		return 0;
	memcpy(file, data, size);
	memcpy(file, "\177ELF", 4);
	file[4] = file[4] & 1 ? 1 : 2; /* either class */
	file[5] = 1;
	boot_target_run(file, size);
	return 0;
}
