/*
 * ELF loading. Both classes are read into one form first. All offsets and sizes
 * are the file's claims: loader_read and loader_place refuse what is not there.
 */
#include "boot/elf.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"

enum {
	ELF_SEGMENTS_MAX = 128,
	ELF_NOTE_PHYS32_ENTRY = 18,
};

struct elf_segment {
	u32 type;
	u64 offset, vaddr, paddr, filesz, memsz;
};

bool
elf_recognises(const u8 *head, u64 size)
{
	return size >= sizeof(Elf32_Ehdr) && memcmp(head, ELFMAG, SELFMAG) == 0;
}

static int
elf_damaged(struct boot_loader *l, const char *what)
{
	return loader_fail(l, -ENOEXEC, "kernel %s is not an ELF program for x86: %s", l->name,
			   what);
}

/* The file header, 32-bit ones widened. */
static int
elf_read_header(struct boot_loader *l, const struct boot_source *from, Elf64_Ehdr *header)
{
	Elf32_Ehdr h32;
	int rc = loader_read(l, from, 0, &h32, sizeof(h32));

	if (rc < 0)
		return rc;
	if (h32.e_ident[EI_DATA] != ELFDATA2LSB)
		return elf_damaged(l, "not little-endian");
	if (h32.e_ident[EI_CLASS] == ELFCLASS64) {
		if (h32.e_machine != EM_X86_64)
			return elf_damaged(l, "another machine's");
		return loader_read(l, from, 0, header, sizeof(*header));
	}
	if (h32.e_ident[EI_CLASS] != ELFCLASS32 ||
	    (h32.e_machine != EM_386 && h32.e_machine != EM_X86_64))
		return elf_damaged(l, "another machine's");
	memcpy(header->e_ident, h32.e_ident, sizeof(header->e_ident));
	header->e_type = h32.e_type;
	header->e_entry = h32.e_entry;
	header->e_phoff = h32.e_phoff;
	header->e_phentsize = h32.e_phentsize;
	header->e_phnum = h32.e_phnum;
	return 0;
}

static int
elf_read_segment(struct boot_loader *l, const struct boot_source *from, const Elf64_Ehdr *header,
		 unsigned i, struct elf_segment *segment)
{
	bool is64 = header->e_ident[EI_CLASS] == ELFCLASS64;
	u64 at = header->e_phoff + (u64)i * header->e_phentsize;
	Elf64_Phdr p64 = {0};
	Elf32_Phdr p32 = {0};
	int rc;

	*segment = (struct elf_segment){0};
	if (at < header->e_phoff)
		return elf_damaged(l, "segment table out of bounds");
	if (is64) {
		rc = loader_read(l, from, at, &p64, sizeof(p64));
		*segment = (struct elf_segment){p64.p_type,  p64.p_offset, p64.p_vaddr,
						p64.p_paddr, p64.p_filesz, p64.p_memsz};
	} else {
		rc = loader_read(l, from, at, &p32, sizeof(p32));
		*segment = (struct elf_segment){p32.p_type,  p32.p_offset, p32.p_vaddr,
						p32.p_paddr, p32.p_filesz, p32.p_memsz};
	}
	return rc;
}

/* Goes through notes (name and descriptor padded to 4 bytes each) for Xen's entry. */
static void
elf_scan_notes(const u8 *notes, u64 size, struct elf_image *image)
{
	u64 name_size, desc_size, desc, next;

	for (u64 at = 0; size - at >= 12 && at <= size; at = next) {
		name_size = get_le32(notes + at);
		desc_size = get_le32(notes + at + 4);
		desc = at + 12 + align_up(name_size, 4);
		next = desc + align_up(desc_size, 4);
		if (desc > size || desc_size > size - desc)
			return;
		if (get_le32(notes + at + 8) == ELF_NOTE_PHYS32_ENTRY && name_size == 4 &&
		    memcmp(notes + at + 12, "Xen", 4) == 0 && desc_size >= 4) {
			image->has_pvh = true;
			image->pvh_entry =
				desc_size >= 8 ? get_le64(notes + desc) : get_le32(notes + desc);
			return;
		}
		if (next > size)
			return;
	}
}

static int
elf_read_notes(struct boot_loader *l, const struct boot_source *from,
	       const struct elf_segment *segment, struct elf_image *image)
{
	u8 notes[4096]; /* of notes, more are not looked at */
	u64 size = segment->filesz;
	int rc;

	if (size > sizeof(notes))
		size = sizeof(notes);
	rc = loader_read(l, from, segment->offset, notes, size);
	if (rc == 0)
		elf_scan_notes(notes, size, image);
	return rc;
}

static int
elf_load_segment(struct boot_loader *l, const struct boot_source *from,
		 const struct elf_segment *segment, u64 entry, struct elf_image *image)
{
	if (segment->type == PT_NOTE)
		return elf_read_notes(l, from, segment, image);
	if (segment->type != PT_LOAD)
		return 0;
	if (entry >= segment->vaddr && entry - segment->vaddr < segment->memsz)
		image->entry = entry - segment->vaddr + segment->paddr;
	return loader_fill(l, from, segment->offset, segment->filesz, segment->paddr,
			   segment->memsz);
}

int
elf_load(struct boot_loader *l, const struct boot_source *from, struct elf_image *image)
{
	struct elf_segment segment;
	Elf64_Ehdr header = {0};
	u64 least;
	int rc;

	memset(image, 0, sizeof(*image));
	rc = elf_read_header(l, from, &header);
	if (rc < 0)
		return rc;
	image->is64 = header.e_ident[EI_CLASS] == ELFCLASS64;
	image->entry = header.e_entry;
	least = image->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
		return elf_damaged(l, "not an executable");
	if (header.e_phnum == 0 || header.e_phnum > ELF_SEGMENTS_MAX || header.e_phentsize < least)
		return elf_damaged(l, "no usable segment table");
	for (unsigned i = 0; i < header.e_phnum; i++) {
		rc = elf_read_segment(l, from, &header, i, &segment);
		if (rc == 0)
			rc = elf_load_segment(l, from, &segment, header.e_entry, image);
		if (rc < 0)
			return rc;
	}
	if (l->kernel_end == 0)
		return elf_damaged(l, "nothing to load");
	return 0;
}
