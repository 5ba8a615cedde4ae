/*
 * Linux, by its boot protocol (Documentation/x86/boot.rst): a setup header in
 * the bzImage says where the kernel wants to be; boot_params ("zero page")
 * tells it the memory map, command line and initial RAM disk.
 *
 * A bzImage is mostly a packed vmlinux. If it can be unpacked here, its
 * segments are put where they belong and entered directly, with the same
 * boot_params as the unpacking code would hand on; the kernel then is at its
 * link address (no KASLR). If anything about it is unusual, the whole image is
 * loaded and unpacks itself.
 */
#include "boot/loader.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "boot/elf.h"
#include "boot/unpack.h"

/* Offsets in a bzImage and, the same, in boot_params. */
enum {
	HDR_FIRST = 0x1f1,
	HDR_SETUP_SECTS = 0x1f1,
	HDR_SYSSIZE = 0x1f4,
	HDR_BOOT_FLAG = 0x1fe,
	HDR_JUMP = 0x201, /* its operand: the header's length from 0x202 */
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_TYPE_OF_LOADER = 0x210,
	HDR_LOADFLAGS = 0x211,
	HDR_CODE32_START = 0x214,
	HDR_RAMDISK_IMAGE = 0x218,
	HDR_RAMDISK_SIZE = 0x21c,
	HDR_CMD_LINE_PTR = 0x228,
	HDR_INITRD_ADDR_MAX = 0x22c,
	HDR_ALIGNMENT = 0x230,
	HDR_RELOCATABLE = 0x234,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_PAYLOAD_OFFSET = 0x248,
	HDR_PAYLOAD_LENGTH = 0x24c,
	HDR_SETUP_DATA = 0x250,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
	HDR_END_MIN = 0x264,
	HDR_END_MAX = 0x290,

	BP_RSDP = 0x070,
	BP_E820_ENTRIES = 0x1e8,
	BP_E820_TABLE = 0x2d0,
	BP_SIZE = 4096,

	LINUX_BOOT_FLAG = 0xaa55,
	LINUX_MAGIC = 0x53726448, /* "HdrS" */
	LINUX_VERSION_MIN = 0x206,
	LINUX_VERSION_PREF = 0x20a,    /* has pref_address, init_size */
	LINUX_VERSION_XLOAD = 0x20c,   /* has xloadflags */
	LINUX_LOADER_UNDEFINED = 0xff, /* type_of_loader */
	LOADFLAG_HIGH = BIT(0),
	LOADFLAG_KASLR = BIT(1),
	LOADFLAG_HEAP = BIT(7),
	XLOADFLAG_64 = BIT(0),
	LINUX_ENTRY_64 = 0x200,
	LINUX_INITRD_MAX_ELF = 0x7fffffff,
	LINUX_CMDLINE_MAX = 2047,
};

#define LINUX_UNPACKED_MAX (1ull << 30)

struct linux_image {
	u8 params[BP_SIZE]; /* the setup header in its place, the rest zero */
	u16 version;
	bool is64;
	u64 kernel_offset, kernel_size; /* in the file: what follows the setup sectors */
	u64 load, init_size;
	u32 initrd_max, cmdline_max;
};

bool
linux_recognises(const u8 *head, u64 size)
{
	return size >= HDR_END_MIN && get_le16(head + HDR_BOOT_FLAG) == LINUX_BOOT_FLAG &&
	       get_le32(head + HDR_MAGIC) == LINUX_MAGIC;
}

/* Fills boot_params behind the header and writes it; the rest of the way is the caller's. */
static int
linux_finish_params(struct boot_loader *l, u8 *params)
{
	struct e820_entry map[E820_MAX];
	unsigned count = e820_build(l->mem, map);
	u8 *at = params + BP_E820_TABLE;

	params[HDR_TYPE_OF_LOADER] = LINUX_LOADER_UNDEFINED;
	params[HDR_LOADFLAGS] &= (u8) ~(LOADFLAG_HEAP | LOADFLAG_KASLR);
	put_le32(params + HDR_RAMDISK_IMAGE, (u32)l->initrd_base);
	put_le32(params + HDR_RAMDISK_SIZE, (u32)l->initrd_size);
	put_le32(params + HDR_CMD_LINE_PTR, LOADER_CMDLINE);
	put_le64(params + HDR_SETUP_DATA, 0);
	put_le64(params + BP_RSDP, l->config->rsdp);
	params[BP_E820_ENTRIES] = (u8)count;
	for (unsigned i = 0; i < count; i++, at += 20) {
		put_le64(at, map[i].base);
		put_le64(at + 8, map[i].size);
		put_le32(at + 16, map[i].type);
	}
	if (memory_write(l->mem, LOADER_INFO, params, BP_SIZE) < 0)
		return loader_fail(l, -ENOMEM, "the VM's memory is too small to load a kernel");
	l->bsp->gpr[CPU_RSI] = LOADER_INFO;
	return 0;
}

/* Command line, initial RAM disks and boot_params for a kernel that is in its place. */
static int
linux_hand_over(struct boot_loader *l, u8 *params, u64 cmdline_max, u64 initrd_max)
{
	int rc = loader_cmdline(l, cmdline_max);

	if (rc == 0)
		rc = loader_initrds(l, initrd_max + 1);
	if (rc == 0)
		rc = linux_finish_params(l, params);
	return rc;
}

static int
linux_enter(struct boot_loader *l, bool is64, u64 entry)
{
	return is64 ? loader_enter_64(l, entry) : loader_enter_32(l, entry);
}

/* Where the kernel is to be: where it prefers if that fits, else low. */
static int
linux_choose_address(struct boot_loader *l, struct linux_image *image)
{
	u64 alignment = get_le32(image->params + HDR_ALIGNMENT), preferred;

	image->load = E820_ONE_MIB;
	image->init_size = image->kernel_size;
	if (!image->params[HDR_RELOCATABLE])
		return 0;
	if (alignment < MEMORY_PAGE || alignment > (1u << 30) || (alignment & (alignment - 1)))
		return loader_fail(l, -ENOEXEC, "kernel %s is damaged: impossible alignment",
				   l->name);
	image->load = align_up(E820_ONE_MIB, alignment);
	if (image->version < LINUX_VERSION_PREF)
		return 0;
	preferred = get_le64(image->params + HDR_PREF_ADDRESS);
	if (get_le32(image->params + HDR_INIT_SIZE) > image->init_size)
		image->init_size = get_le32(image->params + HDR_INIT_SIZE);
	if (preferred >= E820_ONE_MIB && preferred < memory_low_size(l->mem) &&
	    memory_low_size(l->mem) - preferred >= image->init_size)
		image->load = preferred;
	return 0;
}

static int
linux_parse(struct boot_loader *l, const u8 *head, u64 size, struct linux_image *image)
{
	u64 sectors = head[HDR_SETUP_SECTS] ? head[HDR_SETUP_SECTS] : 4;
	u64 header_end = HDR_MAGIC + head[HDR_JUMP], claimed;

	memset(image, 0, sizeof(*image));
	image->version = get_le16(head + HDR_VERSION);
	if (image->version < LINUX_VERSION_MIN || !(head[HDR_LOADFLAGS] & LOADFLAG_HIGH))
		return loader_fail(l, -ENOEXEC,
				   "kernel %s is too old: boot protocol %u.%02u, 2.06 is needed",
				   l->name, image->version >> 8, image->version & 0xff);
	if (header_end < HDR_CMDLINE_SIZE + 4 || header_end > size)
		return loader_fail(l, -ENOEXEC, "kernel %s is damaged: impossible header", l->name);
	if (header_end > HDR_END_MAX)
		header_end = HDR_END_MAX;
	memcpy(image->params + HDR_FIRST, head + HDR_FIRST, header_end - HDR_FIRST);
	if (image->version >= LINUX_VERSION_XLOAD)
		image->is64 = image->params[HDR_XLOADFLAGS] & XLOADFLAG_64;
	image->cmdline_max = get_le32(image->params + HDR_CMDLINE_SIZE);
	image->initrd_max = get_le32(image->params + HDR_INITRD_ADDR_MAX);
	image->kernel_offset = (sectors + 1) * 512;
	claimed = (u64)get_le32(image->params + HDR_SYSSIZE) * 16;
	if (claimed == 0 || l->kernel.size <= image->kernel_offset ||
	    l->kernel.size - image->kernel_offset + 15 < claimed)
		return loader_fail(l, -ENOEXEC,
				   "kernel %s is truncated: %llu bytes of %llu; copy it again",
				   l->name, (unsigned long long)l->kernel.size,
				   (unsigned long long)(image->kernel_offset + claimed));
	image->kernel_size = l->kernel.size - image->kernel_offset;
	if (image->kernel_size > claimed)
		image->kernel_size = claimed;
	return linux_choose_address(l, image);
}

/* Loads the packed kernel's segments: 0 with its entry, or -errno for "do it the long way". */
static int
linux_load_unpacked(struct boot_loader *l, const u8 *packed, u64 size, bool is64, u64 *entry)
{
	struct unpacked unpacked;
	struct boot_source source;
	struct elf_image elf;
	u64 limit = memory_low_size(l->mem);
	int rc;

	rc = unpack(packed, size, limit < LINUX_UNPACKED_MAX ? limit : LINUX_UNPACKED_MAX,
		    &unpacked);
	if (rc < 0)
		return rc;
	source = (struct boot_source){.fd = -1, .data = unpacked.data, .size = unpacked.size};
	rc = elf_recognises(source.data, source.size) ? elf_load(l, &source, &elf) : -ENOEXEC;
	if (rc == 0 && elf.is64 != is64)
		rc = -ENOEXEC;
	if (rc == 0)
		*entry = elf.entry;
	unpack_free(&unpacked);
	return rc;
}

/* Tries to unpack the kernel here: 0 if it is in its place, else -errno. */
static int
linux_try_unpack(struct boot_loader *l, const struct linux_image *image, u64 *entry)
{
	u64 offset = get_le32(image->params + HDR_PAYLOAD_OFFSET);
	u64 length = get_le32(image->params + HDR_PAYLOAD_LENGTH);
	u64 preferred = get_le64(image->params + HDR_PREF_ADDRESS);
	u8 *packed;
	int rc;

	if (l->config->keep_packed || image->version < LINUX_VERSION_PREF || length == 0 ||
	    image->load != preferred || offset > image->kernel_size ||
	    length > image->kernel_size - offset)
		return -ENOTSUP;
	packed = unpack_alloc(length);
	if (!packed)
		return -ENOMEM;
	rc = loader_read(l, &l->kernel, image->kernel_offset + offset, packed, length);
	if (rc == 0)
		rc = linux_load_unpacked(l, packed, length, image->is64, entry);
	unpack_release(packed, length);
	return rc;
}

int
linux_load(struct boot_loader *l, const u8 *head, u64 size)
{
	struct linux_image image;
	u64 entry = 0;
	int rc;

	rc = linux_parse(l, head, size, &image);
	if (rc < 0)
		return rc;
	if (linux_try_unpack(l, &image, &entry) < 0) {
		l->kernel_end = 0;
		entry = image.load + (image.is64 ? LINUX_ENTRY_64 : 0);
		rc = loader_fill(l, &l->kernel, image.kernel_offset, image.kernel_size, image.load,
				 image.kernel_size);
		if (rc < 0)
			return rc;
	}
	if (!loader_place(l, image.load, image.init_size)) /* room for what it grows to */
		return -ENOMEM;
	put_le32(image.params + HDR_CODE32_START, (u32)image.load);
	rc = linux_hand_over(l, image.params, image.cmdline_max, image.initrd_max);
	return rc < 0 ? rc : linux_enter(l, image.is64, entry);
}

int
linux_load_elf(struct boot_loader *l)
{
	u8 params[BP_SIZE] = {0};
	struct elf_image elf;
	int rc;

	rc = elf_load(l, &l->kernel, &elf);
	if (rc < 0)
		return rc;
	if (elf.has_pvh)
		return pvh_enter(l, elf.pvh_entry);
	put_le16(params + HDR_BOOT_FLAG, LINUX_BOOT_FLAG);
	put_le32(params + HDR_MAGIC, LINUX_MAGIC);
	put_le16(params + HDR_VERSION, LINUX_VERSION_XLOAD);
	params[HDR_LOADFLAGS] = LOADFLAG_HIGH;
	put_le32(params + HDR_ALIGNMENT, 2u << 20);
	rc = linux_hand_over(l, params, LINUX_CMDLINE_MAX, LINUX_INITRD_MAX_ELF);
	return rc < 0 ? rc : linux_enter(l, elf.is64, elf.entry);
}
