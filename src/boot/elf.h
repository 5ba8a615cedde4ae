/*
 * ELF executables for x86, 32 and 64 bits (System V ABI, "Object Files"), as
 * far as a loader needs them: segments by physical address, and notes.
 */
#ifndef BOOT_ELF_H
#define BOOT_ELF_H

#include "boot/loader.h"

struct elf_image {
	bool is64;
	u64 entry; /* physical: translated where a segment holds it as a virtual address */
	bool has_pvh;
	u64 pvh_entry; /* XEN_ELFNOTE_PHYS32_ENTRY */
};

bool elf_recognises(const u8 *head, u64 size);

/* Loads every PT_LOAD segment of FROM to its physical address and tells the entries.
 * 0 or -errno with WHY written. */
int elf_load(struct boot_loader *l, const struct boot_source *from, struct elf_image *image);

#endif
