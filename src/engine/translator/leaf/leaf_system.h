/*
 * The system call path of 64-bit mode without saving vector state: what is
 * common is done here, everything else answers LEAF_SLOW and falls to
 * syscall.c and interrupt.c. After LEAF_JUMP the caller derives the mode anew
 * (CPL, CS, SS and RFLAGS changed) and polls for interrupts if IF is set.
 */
#ifndef TRANSLATOR_LEAF_SYSTEM_H
#define TRANSLATOR_LEAF_SYSTEM_H

#include "engine/translator/leaf/leaf.h"

/* SYSCALL and SYSRET of 64-bit code (operand size 64). */
int leaf_syscall(struct vcpu *v, const struct insn *in);
int leaf_sysret(struct vcpu *v, const struct insn *in);
/* IRETQ to the same CPL or from CPL 0 to 3, to 64-bit code. */
int leaf_iretq(struct vcpu *v, const struct insn *in);
/* SWAPGS, CLI, STI (without VIF) and others that only touch the vCPU. LEAF_DONE or LEAF_SLOW. */
int leaf_swapgs(struct vcpu *v, const struct insn *in);
int leaf_cli(struct vcpu *v, const struct insn *in);
int leaf_sti(struct vcpu *v, const struct insn *in);
int leaf_rdtsc(struct vcpu *v, const struct insn *in);

/* The leaf for IN, or NULL if only the full helper does it. */
leaf_fn *leaf_system(const struct insn *in);

#endif
