/*
 * Guest memory by linear address, for C helpers. Every function returns 0, or
 * HELPER_FAULT (exception recorded) or HELPER_EXIT (the machine must answer an
 * MMIO access first; the instruction runs again). All checks of a write are
 * made before any byte of it is stored.
 */
#ifndef TRANSLATOR_MMU_H
#define TRANSLATOR_MMU_H

#include "engine/translator/vcpu.h"

enum mmu_flags {
	MMU_SUPERVISOR = 1, /* an implicit access by the CPU itself: descriptor tables, TSS */
	MMU_LOCKED = 2,
	MMU_WRITE_INTENT =
		4, /* a read that will be followed by a write of the same bytes: check both */
};

/* Linear addresses. LEN up to 4096, may cross a page. */
int mmu_read(struct vcpu *v, u64 linear, void *buf, unsigned len, unsigned flags);
int mmu_write(struct vcpu *v, u64 linear, const void *buf, unsigned len, unsigned flags);
/* Would a write of LEN bytes fault? 0 or HELPER_FAULT. */
int mmu_check_write(struct vcpu *v, u64 linear, unsigned len, unsigned flags);

/* Segment plus offset to linear: limit, type, canonical and null checks of an access,
 * raising #GP or #SS. In 64-bit mode only FS and GS have a base. */
int mmu_linear(struct vcpu *v, enum cpu_segment seg, u64 offset, unsigned len, bool write,
	       u64 *linear);

/* Offset and segment: the linear address of IN's memory operand. */
int mmu_operand(struct vcpu *v, const struct insn *in, unsigned len, bool write, u64 *linear);

/* Guest-physical RAM (PDPTEs, kvmclock): 0, or -EFAULT if any byte is not RAM. A write
 * ends in memory_written. */
int mmu_read_physical(struct vcpu *v, u64 gpa, void *buf, unsigned len);
int mmu_write_physical(struct vcpu *v, u64 gpa, const void *buf, unsigned len);

static inline int
mmu_read16(struct vcpu *v, u64 linear, u16 *value, unsigned flags)
{
	return mmu_read(v, linear, value, 2, flags);
}

static inline int
mmu_read32(struct vcpu *v, u64 linear, u32 *value, unsigned flags)
{
	return mmu_read(v, linear, value, 4, flags);
}

static inline int
mmu_read64(struct vcpu *v, u64 linear, u64 *value, unsigned flags)
{
	return mmu_read(v, linear, value, 8, flags);
}

/* The two halves of a store on the bounce buffer: may LEN bytes be written, and where do they go (a
 * gpa a page)? Then, when the instruction has taken effect, the store itself, which cannot fail;
 * MMIO is queued. */
int mmu_check_store(struct vcpu *v, u64 linear, unsigned len, u64 gpa[2]);
void mmu_commit(struct vcpu *v, u64 linear, const void *buf, unsigned len, const u64 gpa[2]);

/* What system instructions do to translations. */
void mmu_set_cr3(struct vcpu *v, u64 value); /* honours PCID and bit 63; PAE pdptes were loaded */
void mmu_flush_all(struct vcpu *v);	     /* global ones too */
void mmu_flush_local(struct vcpu *v);	     /* all but global ones, all PCIDs */
void mmu_invlpg(struct vcpu *v, u64 linear);
/* INVPCID types 0 to 3 (AMD64 APM 3, INVPCID). */
void mmu_invpcid(struct vcpu *v, unsigned type, u16 pcid, u64 linear);

/* Port I/O by replay: 0 and *value, or HELPER_EXIT. Size 1, 2 or 4. */
int mmu_port_read(struct vcpu *v, u16 port, unsigned size, u32 *value);
int mmu_port_write(struct vcpu *v, u16 port, unsigned size, u32 value);

#endif
