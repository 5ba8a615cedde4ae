/*
 * The page-table walk (AMD64 APM 2, 5.2 to 5.6): 32-bit, PAE and 4-level long
 * mode tables, with accessed and dirty bits set as a CPU sets them.
 */
#ifndef CPU_WALK_H
#define CPU_WALK_H

#include "base/types.h"

struct walk_context {
	u64 cr0, cr3, cr4, efer;
	u64 pdpte[4];  /* PAE: loaded at MOV CR3 */
	u64 phys_mask; /* bits of a physical address that exist, e.g. 2^40 - 1 */
	void *opaque;
	/* Host address of the 8-byte aligned entry at GPA, or NULL if it is not RAM
	 * (the walk then reads all ones). WRITABLE entries are followed by written(). */
	void *(*entry)(void *opaque, u64 gpa);
	void (*written)(void *opaque, u64 gpa, unsigned len); /* may be NULL */
};

enum { WALK_WRITE = 1, WALK_USER = 2, WALK_EXEC = 4, WALK_AC = 8 /* SMAP lifted by RFLAGS.AC */ };

struct walk_result {
	u64 gpa;       /* of the byte asked for */
	u64 page_size; /* 4 KiB, 2 MiB, 4 MiB or 1 GiB; 2^52 without paging */
	bool global;
	bool user;     /* user pages */
	bool writable; /* by the tables, all levels (WP not considered) */
	bool exec;     /* no NX at any level */
	bool dirty;    /* the D bit is now set */
	u32 error;     /* page fault error code if the walk failed */
};

/* 0, or -EFAULT with result->error set (A and D bits of a failed walk untouched at the leaf). */
int walk(const struct walk_context *ctx, u64 va, unsigned access, struct walk_result *result);

#endif
