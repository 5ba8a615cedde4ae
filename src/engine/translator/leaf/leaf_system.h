/*
 * System instructions of 64-bit code without saving vector state: what is
 * common is done here, everything else answers LEAF_SLOW and falls to the full
 * helper. After LEAF_JUMP the caller derives the mode anew (CPL, CS, SS and
 * RFLAGS changed) and polls for interrupts if IF is set.
 */
#ifndef TRANSLATOR_LEAF_SYSTEM_H
#define TRANSLATOR_LEAF_SYSTEM_H

#include "engine/translator/leaf/leaf.h"

/* SYSCALL and SYSRET of 64-bit code (operand size 64). */
int leaf_syscall(struct vcpu *v, const struct insn *in);
int leaf_sysret(struct vcpu *v, const struct insn *in);
/* IRETQ from CPL 0 to CPL 0 or 3, to 64-bit code. */
int leaf_iretq(struct vcpu *v, const struct insn *in);
/* These go on behind the instruction. */
int leaf_swapgs(struct vcpu *v, const struct insn *in);
int leaf_fsgsbase(struct vcpu *v, const struct insn *in);
int leaf_cli(struct vcpu *v, const struct insn *in);
int leaf_sti(struct vcpu *v, const struct insn *in);
int leaf_pushf(struct vcpu *v, const struct insn *in);
int leaf_popf(struct vcpu *v, const struct insn *in);
int leaf_ac(struct vcpu *v, const struct insn *in);	/* CLAC, STAC */
int leaf_rdtsc(struct vcpu *v, const struct insn *in);	/* RDTSCP too */
int leaf_verify(struct vcpu *v, const struct insn *in); /* VERR, VERW */
int leaf_mov_from_segment(struct vcpu *v, const struct insn *in);
int leaf_mov_to_segment(struct vcpu *v, const struct insn *in); /* null into DS, ES */

/* The leaf for IN, or NULL if only the full helper does it. */
leaf_fn *leaf_system(const struct insn *in);

#endif
