/*
 * Multiboot files: the header is made valid where the input says, the rest is
 * foreign.
 */
#include "boot_target.h"

#include "base/bytes.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int
LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static u8 file[1 << 16];
	u64 at;

	if (size < 64 || size > sizeof(file))
		return 0;
	memcpy(file, data, size);
	at = (get_le16(data) % (size - 32)) & ~3ull;
	if (at >= 4) {
		put_le32(file + at, 0x1badb002);
		put_le32(file + at + 8, 0u - 0x1badb002u - get_le32(file + at + 4));
	}
	if (data[2] & 1)
		memcpy(file, "\177ELF\1\1", 6);
	boot_target_run(file, size);
	return 0;
}
