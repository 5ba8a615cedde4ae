/*
 * Multiboot Specification, version 0.6.96. The header is looked for in the
 * first 8 KiB; the image is an ELF program, or anything at all whose header
 * says where it goes ("a.out kludge"). Entered in flat 32-bit protected mode
 * with EAX = 0x2badb002 and EBX = the information structure.
 *
 *	+0x000	information
 *	+0x080	modules, 16 bytes each
 *	+0x200	memory map
 *	+0x400	strings of the modules, to the end of the area
 */
#include "boot/loader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "boot/elf.h"

enum {
	MB_MAGIC = 0x1badb002,
	MB_ALIGN_MODULES = BIT(0),
	MB_MEMORY = BIT(1),
	MB_VIDEO = BIT(2),
	MB_KNOWN = MB_ALIGN_MODULES | MB_MEMORY | MB_VIDEO,
	MB_MANDATORY = 0xffff,
	MB_ADDRESSES = BIT(16),
	MB_HEADER = 12,
	MB_HEADER_ADDRESSES = 32,

	INFO_MEMORY = BIT(0),
	INFO_CMDLINE = BIT(2),
	INFO_MODULES = BIT(3),
	INFO_MAP = BIT(6),
	INFO_LOADER_NAME = BIT(9),
	INFO_MODULE_LIST = 0x80,
	INFO_MEMORY_MAP = 0x200,
	INFO_STRINGS = 0x400,
	INFO_MODULE_SIZE = 16,
	INFO_MAP_ENTRY = 24,
};

static const char mb_loader_name[] = "Biga";

/* Offset of the header, or UINT64_MAX. */
static u64
multiboot_find(const u8 *head, u64 size)
{
	for (u64 at = 0; at + MB_HEADER <= size; at += 4) {
		if (get_le32(head + at) == MB_MAGIC &&
		    MB_MAGIC + get_le32(head + at + 4) + get_le32(head + at + 8) == 0)
			return at;
	}
	return UINT64_MAX;
}

bool
multiboot_recognises(const u8 *head, u64 size)
{
	return multiboot_find(head, size) != UINT64_MAX;
}

/* The header's own addresses (3.1.3). */
static int
multiboot_load_addresses(struct boot_loader *l, const u8 *header, u64 at, u64 *entry)
{
	u64 header_addr = get_le32(header + 12), load = get_le32(header + 16);
	u64 load_end = get_le32(header + 20), bss_end = get_le32(header + 24);
	u64 offset, length;

	*entry = get_le32(header + 28);
	if (load > header_addr || header_addr - load > at)
		return loader_fail(l, -ENOEXEC,
				   "kernel %s is damaged: impossible multiboot addresses", l->name);
	offset = at - (header_addr - load);
	length = load_end ? load_end - load : l->kernel.size - offset;
	if ((load_end && load_end < load) || (bss_end && bss_end < load + length))
		return loader_fail(l, -ENOEXEC,
				   "kernel %s is damaged: impossible multiboot addresses", l->name);
	return loader_fill(l, &l->kernel, offset, length, load, bss_end ? bss_end - load : length);
}

static int
multiboot_load_kernel(struct boot_loader *l, const u8 *head, u64 size, u64 *entry)
{
	u64 at = multiboot_find(head, size);
	u32 flags = get_le32(head + at + 4);
	struct elf_image elf = {0};
	int rc;

	if (flags & MB_MANDATORY & ~(u32)MB_KNOWN)
		return loader_fail(l, -ENOTSUP,
				   "kernel %s needs multiboot features %#x that no loader has",
				   l->name, flags & MB_MANDATORY & ~(u32)MB_KNOWN);
	if (flags & MB_ADDRESSES) {
		if (at + MB_HEADER_ADDRESSES > size)
			return loader_fail(l, -ENOEXEC, "kernel %s is truncated; copy it again",
					   l->name);
		return multiboot_load_addresses(l, head + at, at, entry);
	}
	if (!elf_recognises(head, size))
		return loader_fail(
			l, -ENOEXEC,
			"kernel %s has a multiboot header, but neither addresses nor ELF", l->name);
	rc = elf_load(l, &l->kernel, &elf);
	*entry = elf.entry;
	return rc;
}

/* "name rest" as multiboot strings are; returns the bytes used with the end. */
static size_t
multiboot_string(char *to, size_t room, const char *name, const char *rest)
{
	int n = snprintf(to, room, "%s%s%s", name ? name : "", rest[0] ? " " : "", rest);

	return n < 0 || (size_t)n >= room ? room : (size_t)n + 1;
}

/* Each initial RAM disk behind the kernel, on a page of its own. */
static int
multiboot_modules(struct boot_loader *l, u8 *info)
{
	u8 *entry = info + INFO_MODULE_LIST;
	size_t string = INFO_STRINGS;
	u64 gpa, size;
	int rc;

	for (unsigned i = 0; i < l->config->initrd_count; i++, entry += INFO_MODULE_SIZE) {
		rc = loader_initrd_size(l, i, &size);
		if (rc < 0)
			return rc;
		gpa = align_up(l->kernel_end, MEMORY_PAGE);
		if (gpa < E820_ONE_MIB)
			gpa = E820_ONE_MIB;
		rc = loader_initrd_read(l, i, gpa, size);
		if (rc < 0)
			return rc;
		l->kernel_end = gpa + size;
		put_le32(entry, (u32)gpa);
		put_le32(entry + 4, (u32)(gpa + size));
		put_le32(entry + 8, (u32)(LOADER_INFO + string));
		string += multiboot_string((char *)info + string, LOADER_INFO_SIZE - string - 1,
					   l->config->initrds[i].name, "");
	}
	put_le32(info + 20, l->config->initrd_count);
	put_le32(info + 24, LOADER_INFO + INFO_MODULE_LIST);
	return 0;
}

static void
multiboot_memory(struct boot_loader *l, u8 *info)
{
	struct e820_entry map[E820_MAX];
	unsigned count = e820_build(l->mem, map);
	u8 *at = info + INFO_MEMORY_MAP;
	u64 low = memory_low_size(l->mem);

	put_le32(info + 4, (u32)(E820_EBDA >> 10));
	put_le32(info + 8, low > E820_ONE_MIB ? (u32)((low - E820_ONE_MIB) >> 10) : 0);
	put_le32(info + 44, count * INFO_MAP_ENTRY);
	put_le32(info + 48, LOADER_INFO + INFO_MEMORY_MAP);
	for (unsigned i = 0; i < count; i++, at += INFO_MAP_ENTRY) {
		put_le32(at, INFO_MAP_ENTRY - 4); /* the size field does not count itself */
		put_le64(at + 4, map[i].base);
		put_le64(at + 12, map[i].size);
		put_le32(at + 20, map[i].type);
	}
}

/* Kernels take the first word for their own name, as loaders give it. */
static int
multiboot_cmdline(struct boot_loader *l)
{
	const char *text = l->config->cmdline ? l->config->cmdline : "";
	char line[4096];

	if (strlen(l->name) + strlen(text) + 2 > sizeof(line))
		return loader_fail(l, -E2BIG, "the kernel's command line is too long: %zu bytes",
				   strlen(text));
	multiboot_string(line, sizeof(line), l->name, text);
	return memory_write(l->mem, LOADER_CMDLINE, line, strlen(line) + 1);
}

int
multiboot_load(struct boot_loader *l, const u8 *head, u64 size)
{
	u8 info[LOADER_INFO_SIZE] = {0};
	u64 entry = 0;
	int rc;

	rc = multiboot_load_kernel(l, head, size, &entry);
	if (rc == 0)
		rc = multiboot_cmdline(l);
	if (rc == 0)
		rc = multiboot_modules(l, info);
	if (rc < 0)
		return rc;
	multiboot_memory(l, info);
	put_le32(info, INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MAP | INFO_LOADER_NAME);
	put_le32(info + 16, LOADER_CMDLINE);
	put_le32(info + 64, LOADER_INFO + LOADER_INFO_SIZE - sizeof(mb_loader_name));
	memcpy(info + LOADER_INFO_SIZE - sizeof(mb_loader_name), mb_loader_name,
	       sizeof(mb_loader_name));
	rc = memory_write(l->mem, LOADER_INFO, info, sizeof(info));
	if (rc < 0)
		return loader_fail(l, rc, "the VM's memory is too small to load a kernel");
	l->bsp->gpr[CPU_RAX] = 0x2badb002;
	l->bsp->gpr[CPU_RBX] = LOADER_INFO;
	return loader_enter_32(l, entry);
}
