/*
 * Leaf helpers: called from translated code with vector and x87 state still in
 * the host's registers. Everything in leaf/ is compiled with
 * -mgeneral-regs-only and calls nothing outside leaf/. As for full helpers,
 * gpr[], rip (of the instruction) and rflags are in the vCPU.
 */
#ifndef TRANSLATOR_LEAF_H
#define TRANSLATOR_LEAF_H

#include "engine/translator/vcpu.h"

enum leaf_result {
	LEAF_DONE = 0,	/* go on behind the instruction */
	LEAF_SLOW = 1,	/* nothing was changed: the full helper does it */
	LEAF_AGAIN = 2, /* part is done: run the same instruction again */
	LEAF_JUMP = 3,	/* vcpu->rip was set, CPL, IF and mode may differ: go on there */
};

typedef int leaf_fn(struct vcpu *v, const struct insn *in);

#endif
