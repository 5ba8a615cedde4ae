/*
 * Descriptors of the GDT and LDT (AMD64 APM 2, 4.7 and 4.8) and what the TSS
 * says about stacks. Table accesses are the CPU's own: supervisor ones at any
 * CPL. Functions return 0, HELPER_FAULT (recorded) or HELPER_EXIT.
 */
#ifndef TRANSLATOR_DESCRIPTOR_H
#define TRANSLATOR_DESCRIPTOR_H

#include "engine/translator/mmu.h"
#include "engine/translator/vcpu.h"

enum descriptor_type { /* system segments and gates, S = 0 */
		       DESCRIPTOR_TSS16 = 1,
		       DESCRIPTOR_LDT = 2,
		       DESCRIPTOR_CALL16 = 4,
		       DESCRIPTOR_TASK = 5,
		       DESCRIPTOR_INT16 = 6,
		       DESCRIPTOR_TRAP16 = 7,
		       DESCRIPTOR_TSS = 9, /* 32 or, in long mode, 64 bits */
		       DESCRIPTOR_CALL = 12,
		       DESCRIPTOR_INT = 14,
		       DESCRIPTOR_TRAP = 15,
		       DESCRIPTOR_TSS_BUSY = 2, /* this bit of a TSS type */
};

struct descriptor {
	struct segment seg; /* selector as given, base, limit and attr decoded */
	u64 address;	    /* linear, of the descriptor */
	u32 low, high;	    /* as in memory */
};

enum { DESCRIPTOR_OUTSIDE = 1 };

static inline bool
selector_null(u16 selector)
{
	return (selector & ~3u) == 0;
}

static inline u8
segment_dpl(const struct segment *seg)
{
	return (seg->attr >> SEGMENT_DPL_SHIFT) & 3;
}

static inline bool
segment_is_code(const struct segment *seg)
{
	return (seg->attr & (SEGMENT_S | 8)) == (SEGMENT_S | 8);
}

static inline bool
segment_is_conforming(const struct segment *seg)
{
	return (seg->attr & (SEGMENT_S | 12)) == (SEGMENT_S | 12);
}

static inline bool
segment_is_writable(const struct segment *seg) /* writable data, as a stack must be */
{
	return (seg->attr & (SEGMENT_S | 8 | 2)) == (SEGMENT_S | 2);
}

static inline bool
segment_is_readable(const struct segment *seg)
{
	return (seg->attr & SEGMENT_S) && (!(seg->attr & 8) || (seg->attr & 2));
}

static inline u8
segment_system_type(const struct segment *seg)
{
	return seg->attr & SEGMENT_TYPE;
}

/* A linear address as the mode has it: 32 bits outside long mode. */
static inline u64
descriptor_linear(const struct vcpu *v, u64 linear)
{
	return vcpu_long_mode(v) ? linear : (u32)linear;
}

void descriptor_decode(struct descriptor *d);

/* DESCRIPTOR_OUTSIDE if SELECTOR is beyond its table. */
int descriptor_read(struct vcpu *v, u16 selector, struct descriptor *d);
/* The same, but what lies outside raises VECTOR(selector | ext). */
int descriptor_fetch(struct vcpu *v, u16 selector, struct descriptor *d, u8 vector, bool ext);
/* Upper half of a 16-byte descriptor in long mode: base bits 63 to 32 (DESCRIPTOR_OUTSIDE, or
 * DESCRIPTOR_OUTSIDE too if its type bits are not zero). */
int descriptor_read_upper(struct vcpu *v, const struct descriptor *d, u32 *upper);
/* Sets the accessed bit in memory and in D if it is clear. */
int descriptor_set_accessed(struct vcpu *v, struct descriptor *d);
/* Writes the type byte's busy bit. */
int descriptor_set_busy(struct vcpu *v, struct descriptor *d, bool busy);

/* Raises VECTOR with a selector as error code. */
int descriptor_fault(struct vcpu *v, u8 vector, u16 selector, bool ext);

/* The null segment that a register holds after loading SELECTOR 0 to 3; DPL kept for SS. */
struct segment segment_null(u16 selector, u8 dpl);
/* What real (or, with V86, virtual 8086) mode loads for SELECTOR into a register that was OLD. */
struct segment segment_real(const struct segment *old, u16 selector, bool code, bool v86);

/* Is [offset, offset + len) inside? Expand-down and P considered; not for 64-bit mode. */
bool segment_covers(const struct segment *seg, u64 offset, unsigned len);

/* Outer returns: data segments that the new CPL may not keep become null. */
void segment_drop_privileged(struct vcpu *v, u8 cpl);

/* Puts the selector's segment into SEG and tells the translator if code is affected. */
void segment_commit(struct vcpu *v, enum cpu_segment seg, const struct segment *value);

/* Stack of level CPL from the TSS: legacy modes (SS descriptor checked, #TS/#SS) */
int tss_legacy_stack(struct vcpu *v, u8 cpl, bool ext, struct descriptor *ss, u64 *sp);
/* and long mode: RSP0 to RSP2, or IST 1 to 7. */
int tss_long_stack(struct vcpu *v, u8 cpl, unsigned ist, bool ext, u64 *rsp);

#endif
