/*
 * Full helpers of privileged and system instructions, by the file they are in.
 * system_helper() (table.c) hands them out; system.h has those that other
 * parts of the translator call.
 */
#ifndef TRANSLATOR_PRIVILEGED_H
#define TRANSLATOR_PRIVILEGED_H

#include "engine/translator/vcpu.h"

/* segment.c: segment registers */
int segment_mov_to(struct vcpu *v, const struct insn *in);   /* 8E */
int segment_mov_from(struct vcpu *v, const struct insn *in); /* 8C */
int segment_push(struct vcpu *v, const struct insn *in);     /* 06 0E 16 1E 0FA0 0FA8 */
int segment_pop(struct vcpu *v, const struct insn *in);	     /* 07 17 1F 0FA1 0FA9 */
int segment_load_far(struct vcpu *v, const struct insn *in); /* C4 C5 0FB2 0FB4 0FB5 */
int segment_swapgs(struct vcpu *v, const struct insn *in);   /* 0F01F8 */
int segment_fsgsbase(struct vcpu *v, const struct insn *in); /* F3 0FAE /0 to /3, registers */

/* table_regs.c: descriptor tables, and questions about selectors */
int table_group6(struct vcpu *v, const struct insn *in);  /* 0F00: SLDT STR LLDT LTR VERR VERW */
int table_store(struct vcpu *v, const struct insn *in);	  /* 0F01 /0 /1: SGDT SIDT */
int table_load(struct vcpu *v, const struct insn *in);	  /* 0F01 /2 /3: LGDT LIDT */
int table_lar_lsl(struct vcpu *v, const struct insn *in); /* 0F02 0F03 */
int table_arpl(struct vcpu *v, const struct insn *in);	  /* 63, not 64-bit */

/* far.c */
int far_call(struct vcpu *v, const struct insn *in);   /* 9A FF/3 */
int far_jump(struct vcpu *v, const struct insn *in);   /* EA FF/5 */
int far_return(struct vcpu *v, const struct insn *in); /* CA CB */

/* syscall.c */
int syscall_syscall(struct vcpu *v, const struct insn *in);  /* 0F05 */
int syscall_sysret(struct vcpu *v, const struct insn *in);   /* 0F07 */
int syscall_sysenter(struct vcpu *v, const struct insn *in); /* 0F34 */
int syscall_sysexit(struct vcpu *v, const struct insn *in);  /* 0F35 */

/* control.c: control and debug registers, XCR0, TLB */
int control_mov_cr(struct vcpu *v, const struct insn *in);  /* 0F20 0F22 */
int control_mov_dr(struct vcpu *v, const struct insn *in);  /* 0F21 0F23 */
int control_clts(struct vcpu *v, const struct insn *in);    /* 0F06 */
int control_smsw(struct vcpu *v, const struct insn *in);    /* 0F01 /4 */
int control_lmsw(struct vcpu *v, const struct insn *in);    /* 0F01 /6 */
int control_invlpg(struct vcpu *v, const struct insn *in);  /* 0F01 /7 */
int control_invpcid(struct vcpu *v, const struct insn *in); /* 66 0F38 82 */
int control_xgetbv(struct vcpu *v, const struct insn *in);  /* 0F01D0 */
int control_xsetbv(struct vcpu *v, const struct insn *in);  /* 0F01D1 */
int control_wbinvd(struct vcpu *v, const struct insn *in);  /* 0F08 0F09: INVD WBINVD */
int control_clflush(struct vcpu *v, const struct insn *in); /* 0FAE /7 and 66 /6 /7 */

/* flags.c */
int flags_cli(struct vcpu *v, const struct insn *in);	/* FA */
int flags_sti(struct vcpu *v, const struct insn *in);	/* FB */
int flags_pushf(struct vcpu *v, const struct insn *in); /* 9C */
int flags_popf(struct vcpu *v, const struct insn *in);	/* 9D */
int flags_ac(struct vcpu *v, const struct insn *in);	/* 0F01CA 0F01CB: CLAC STAC */

/* port.c */
int port_in(struct vcpu *v, const struct insn *in);  /* E4 E5 EC ED */
int port_out(struct vcpu *v, const struct insn *in); /* E6 E7 EE EF */

/* instance.c: what identifies, times and stops this processor */
int instance_cpuid(struct vcpu *v, const struct insn *in);  /* 0FA2 */
int instance_rdtsc(struct vcpu *v, const struct insn *in);  /* 0F31 */
int instance_rdtscp(struct vcpu *v, const struct insn *in); /* 0F01F9 */
int instance_rdpid(struct vcpu *v, const struct insn *in);  /* F3 0FC7 /7 */
int instance_rdpmc(struct vcpu *v, const struct insn *in);  /* 0F33 */
int instance_hlt(struct vcpu *v, const struct insn *in);    /* F4 */
int instance_vmcall(struct vcpu *v, const struct insn *in); /* 0F01C1 0F01D9 */
int instance_rdmsr(struct vcpu *v, const struct insn *in);  /* 0F32 */
int instance_wrmsr(struct vcpu *v, const struct insn *in);  /* 0F30 */
int instance_ud(struct vcpu *v, const struct insn *in);	    /* what no guest of ours has */

#endif
