/*
 * What the loaders share: the load under way, the one way to place bytes in
 * guest memory, and the processor states that kernels are entered in.
 *
 * Loaders keep their own structures (command line, tables, information for the
 * kernel) in one area below the EBDA; no kernel is loaded over it.
 *
 *	0x80000		descriptor table
 *	0x81000		boot_params, hvm_start_info or multiboot information
 *	0x86000		page tables: one PML4, one PDPT, four page directories
 *	0x8f000		top of a small stack
 *	0x90000		command lines, up to the EBDA
 */
#ifndef BOOT_LOADER_H
#define BOOT_LOADER_H

#include "boot/boot.h"
#include "boot/e820.h"

#define LOADER_AREA 0x80000ull
#define LOADER_GDT 0x80000ull
#define LOADER_INFO 0x81000ull
#define LOADER_INFO_SIZE 0x5000ull
#define LOADER_TABLES 0x86000ull
#define LOADER_STACK 0x8f000ull
#define LOADER_CMDLINE 0x90000ull
#define LOADER_CMDLINE_SIZE (E820_EBDA - LOADER_CMDLINE)

/* Bytes of a kernel: a file, or memory it was unpacked to. */
struct boot_source {
	int fd;
	const u8 *data; /* not NULL: these, not FD */
	u64 size;
};

struct boot_loader {
	struct memory *mem;
	const struct boot_config *config;
	struct cpu_state *bsp;
	const char *name; /* the kernel's, for messages */
	struct boot_source kernel;
	u64 kernel_end; /* behind all that the kernel occupies */
	u64 initrd_base, initrd_size;
	char *why;
	size_t why_size;
};

/* Writes WHY and returns ERROR (negative). */
int loader_fail(struct boot_loader *l, int error, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* All LEN bytes of a source, or a failure that says so. */
int loader_read(struct boot_loader *l, const struct boot_source *from, u64 offset, void *buf,
		u64 len);

/* Host address for a part of the kernel at GPA, if it may be there; else NULL with WHY
 * written. Moves kernel_end. */
u8 *loader_place(struct boot_loader *l, u64 gpa, u64 len);
/* LEN bytes at OFFSET of the source to GPA, then zeros up to TOTAL. */
int loader_fill(struct boot_loader *l, const struct boot_source *from, u64 offset, u64 len, u64 gpa,
		u64 total);

/* All initial RAM disks one behind the other, each padded to 4 bytes, as high as may be
 * below LIMIT: sets initrd_base and initrd_size. */
int loader_initrds(struct boot_loader *l, u64 limit);
/* The size of file I of the initial RAM disks. */
int loader_initrd_size(struct boot_loader *l, unsigned i, u64 *size);
/* File I to GPA. */
int loader_initrd_read(struct boot_loader *l, unsigned i, u64 gpa, u64 size);

/* The command line to LOADER_CMDLINE, at most MAX bytes without its end. */
int loader_cmdline(struct boot_loader *l, u64 max);

/* Entry in 64-bit mode with the first 4 GiB identity-mapped; segments as the Linux boot
 * protocol has them (code 0x10, data 0x18). */
int loader_enter_64(struct boot_loader *l, u64 entry);
/* Entry in flat 32-bit protected mode without paging, same selectors. */
int loader_enter_32(struct boot_loader *l, u64 entry);

/* The kinds of kernel. HEAD holds the first HEAD_SIZE bytes of the file. */
enum { LOADER_HEAD = 8192 };

bool linux_recognises(const u8 *head, u64 size);
int linux_load(struct boot_loader *l, const u8 *head, u64 size);
/* A vmlinux without header of its own. */
int linux_load_elf(struct boot_loader *l);
bool multiboot_recognises(const u8 *head, u64 size);
int multiboot_load(struct boot_loader *l, const u8 *head, u64 size);
/* Enters a kernel that is in memory by its PVH note. */
int pvh_enter(struct boot_loader *l, u64 entry);

#endif
