/*
 * Puts a kernel into a new VM: fills guest memory and the bootstrap
 * processor's state, and nothing else. The kind of file is found by its
 * content:
 *
 *	bzImage		Linux boot protocol 2.06 or newer, 64-bit entry if it has one
 *			(Documentation/x86/boot.rst); a compressed kernel inside is
 *			unpacked here if possible, which is quicker than in the guest
 *	ELF		with a PVH note (XEN_ELFNOTE_PHYS32_ENTRY), or a Linux vmlinux
 *	multiboot 1	header in the first 8 KiB (Multiboot Specification 0.6.96)
 *
 * All bytes of all files are hostile. Descriptors are read by pread and stay
 * the caller's. Called once, before any vCPU runs.
 */
#ifndef BOOT_BOOT_H
#define BOOT_BOOT_H

#include "base/types.h"
#include "cpu/cpu_state.h"
#include "memory/memory.h"

enum { BOOT_INITRDS_MAX = 16 };

struct boot_file {
	int fd;
	const char *name; /* for messages and a multiboot module's string; may be NULL */
};

struct boot_config {
	struct boot_file kernel;
	const struct boot_file *initrds; /* Linux, PVH: concatenated; multiboot: a module each */
	unsigned initrd_count;
	const char *cmdline; /* NULL: empty */
	u64 rsdp;	     /* gpa of the ACPI root pointer, 0 if there is none */
	unsigned phys_bits;  /* of the CPU model, for memory types */
	bool keep_packed;    /* a compressed kernel unpacks itself in the guest */
};

/*
 * Loads what CONFIG says into MEM and sets *BSP (reset first) to the entry.
 * The ranges of boot/e820.h that are not RAM are left alone. 0 or -errno with one
 * line in WHY that names the file, the trouble and what to do.
 */
int boot_load(struct memory *mem, const struct boot_config *config, struct cpu_state *bsp,
	      char *why, size_t why_size);

#endif
