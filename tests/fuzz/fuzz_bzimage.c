/*
 * bzImages: setup header and packed payload. What makes a file a bzImage at all
 * is given, the rest is foreign; the payload begins at a known place, so that
 * the fuzzer finds the decoders.
 */
#include "boot_target.h"

#include "base/bytes.h"

enum { SETUP = 2 * 512, PAYLOAD = SETUP + 16 };

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int
LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static u8 file[(1 << 16) + 16];
	/* The header counts the kernel in units of 16 bytes. */
	size_t units = (size - SETUP + 15) / 16, whole = SETUP + units * 16;

	if (size < PAYLOAD + 16 || size > 1 << 16)
		return 0;
	memcpy(file, data, size);
	memset(file + size, 0, whole - size);
	put_le16(file + 0x1fe, 0xaa55);
	put_le32(file + 0x202, 0x53726448);
	if (file[0] & 1) { /* mostly sound, else foreign throughout */
		file[0x1f1] = 1;
		put_le32(file + 0x1f4, (u32)units);
		file[0x201] = 0x66;
		put_le16(file + 0x206, 0x20f);
		file[0x211] |= 1;
		put_le32(file + 0x230, 0x200000);
		file[0x234] = 1;
		put_le32(file + 0x248, PAYLOAD - SETUP);
		put_le32(file + 0x24c, (u32)(size - PAYLOAD));
		put_le64(file + 0x258, 0x1000000);
		put_le32(file + 0x260, 0);
		put_le32(file + size - 4, get_le32(file + size - 4) & 0xfffff); /* unpacked size */
	}
	boot_target_run(file, whole);
	return 0;
}
