/*
 * The segments that system call instructions load: fixed, not from a table
 * (AMD64 APM 2, 6.1). Inline, for leaf and full helpers alike.
 */
#ifndef TRANSLATOR_FLAT_H
#define TRANSLATOR_FLAT_H

#include "cpu/cpu_state.h"

/* RFLAGS that SYSRET takes from R11: RF and VM cleared. */
#define FLAT_SYSRET_FLAGS 0x3c7fd7u

static inline struct segment
flat_code(u16 selector, unsigned dpl, bool wide)
{
	return (struct segment){
		.selector = (u16)((selector & ~3u) | dpl),
		.limit = 0xffffffff,
		.attr = (u16)(SEGMENT_P | SEGMENT_S | 11 | dpl << SEGMENT_DPL_SHIFT | SEGMENT_G |
			      (wide ? SEGMENT_L : SEGMENT_DB)),
	};
}

static inline struct segment
flat_data(u16 selector, unsigned dpl)
{
	return (struct segment){
		.selector = (u16)((selector & ~3u) | dpl),
		.limit = 0xffffffff,
		.attr = (u16)(SEGMENT_P | SEGMENT_S | 3 | dpl << SEGMENT_DPL_SHIFT | SEGMENT_G |
			      SEGMENT_DB),
	};
}

/* SS after SYSRET: Intel loads it whole, AMD leaves what was cached of it but for the level. */
static inline struct segment
flat_sysret_stack(const struct segment *old, u16 selector, bool intel)
{
	struct segment ss = flat_data(selector, 3);

	if (!intel) {
		ss.base = old->base;
		ss.limit = old->limit;
		ss.attr = (u16)(old->attr | 3 << SEGMENT_DPL_SHIFT);
	}
	return ss;
}

#endif
