/*
 * PVH direct boot (Xen's docs/misc/pvh.pandoc and include/public/arch-x86/hvm/
 * start_info.h): flat 32-bit protected mode, EBX = address of hvm_start_info.
 *
 *	+0x000	hvm_start_info, version 1
 *	+0x040	one module: the initial RAM disks, concatenated
 *	+0x080	the memory map
 */
#include "boot/loader.h"

#include <errno.h>

#include "base/bytes.h"

enum {
	PVH_MAGIC = 0x336ec578,
	PVH_VERSION = 1,
	PVH_MODULES = 0x40,
	PVH_MEMMAP = 0x80,
	PVH_MEMMAP_ENTRY = 24,
	PVH_SIZE = PVH_MEMMAP + E820_MAX * PVH_MEMMAP_ENTRY,
};

int
pvh_enter(struct boot_loader *l, u64 entry)
{
	struct e820_entry map[E820_MAX];
	unsigned count = e820_build(l->mem, map);
	u8 info[PVH_SIZE] = {0};
	u8 *at = info + PVH_MEMMAP;
	int rc;

	rc = loader_cmdline(l, LOADER_CMDLINE_SIZE);
	if (rc == 0)
		rc = loader_initrds(l, UINT32_MAX);
	if (rc < 0)
		return rc;
	put_le32(info, PVH_MAGIC);
	put_le32(info + 4, PVH_VERSION);
	put_le32(info + 12, l->initrd_size ? 1 : 0);
	put_le64(info + 16, l->initrd_size ? LOADER_INFO + PVH_MODULES : 0);
	put_le64(info + 24, LOADER_CMDLINE);
	put_le64(info + 32, l->config->rsdp);
	put_le64(info + 40, LOADER_INFO + PVH_MEMMAP);
	put_le32(info + 48, count);
	put_le64(info + PVH_MODULES, l->initrd_base);
	put_le64(info + PVH_MODULES + 8, l->initrd_size);
	for (unsigned i = 0; i < count; i++, at += PVH_MEMMAP_ENTRY) {
		put_le64(at, map[i].base);
		put_le64(at + 8, map[i].size);
		put_le32(at + 16, map[i].type);
	}
	rc = memory_write(l->mem, LOADER_INFO, info, sizeof(info));
	if (rc < 0)
		return loader_fail(l, rc, "the VM's memory is too small to load a kernel");
	l->bsp->gpr[CPU_RBX] = LOADER_INFO;
	return loader_enter_32(l, entry);
}
