/*
 * Helpers for user-level instructions that translated code does not re-encode:
 * rare.c (one-byte leftovers of 16- and 32-bit code, general stack forms),
 * vector_mem.c (masked and gathered vector memory), string.c, xstate.c. All
 * are full helpers, right in every mode; system_helper() hands them out.
 *
 * Of string instructions and MASKMOV, IN->seg is the override where
 * INSN_SEG is set and otherwise not looked at. Of gathers, the vector index is read from IN->raw.
 */
#ifndef TRANSLATOR_RARE_H
#define TRANSLATOR_RARE_H

#include "engine/translator/vcpu.h"

/* rare.c, opcode map 0 */
int rare_bcd(struct vcpu *v,
	     const struct insn *in); /* 27 2F 37 3F D4 D5: DAA DAS AAA AAS AAM AAD */
int rare_pusha(struct vcpu *v, const struct insn *in); /* 60 */
int rare_popa(struct vcpu *v, const struct insn *in);  /* 61 */
int rare_bound(struct vcpu *v, const struct insn *in); /* 62, not 64-bit */
int rare_salc(struct vcpu *v, const struct insn *in);  /* D6, not 64-bit */
int rare_enter(struct vcpu *v, const struct insn *in); /* C8 */
int rare_leave(struct vcpu *v, const struct insn *in); /* C9 */
int rare_xlat(struct vcpu *v, const struct insn *in);  /* D7 */
int rare_push(struct vcpu *v, const struct insn *in);  /* 50+r 68 6A FF/6 */
int rare_pop(struct vcpu *v, const struct insn *in);   /* 58+r 8F/0 */
int rare_call(struct vcpu *v, const struct insn *in);  /* E8 FF/2 */
int rare_jmp(struct vcpu *v, const struct insn *in);   /* E9 EB FF/4 */
int rare_ret(struct vcpu *v, const struct insn *in);   /* C2 C3 */
int rare_loop(struct vcpu *v, const struct insn *in);  /* E0 E1 E2 E3: LOOPNE LOOPE LOOP JrCXZ */

/* vector_mem.c */
int vector_maskmov_bytes(struct vcpu *v,
			 const struct insn *in); /* 0F F7: MASKMOVQ, (V)MASKMOVDQU */
int vector_maskmov(struct vcpu *v,
		   const struct insn *in); /* VEX 0F38 2C-2F 8C 8E: VMASKMOV, VPMASKMOV */
int vector_gather(struct vcpu *v, const struct insn *in); /* VEX 0F38 90-93: VGATHER, VPGATHER */

int vector_zero(struct vcpu *v,
		const struct insn *in); /* VEX 0F 77: VZEROUPPER VZEROALL; re-encoded it
					 * would clear YMM8 to 15 of 32-bit code too */

/* string.c: with and without REP, all sizes. They return HELPER_AGAIN every few elements, and
 * after each one while RFLAGS.TF is set; registers are exact whenever they return. */
int string_movs(struct vcpu *v, const struct insn *in); /* A4 A5 */
int string_cmps(struct vcpu *v, const struct insn *in); /* A6 A7 */
int string_stos(struct vcpu *v, const struct insn *in); /* AA AB */
int string_lods(struct vcpu *v, const struct insn *in); /* AC AD */
int string_scas(struct vcpu *v, const struct insn *in); /* AE AF */
int string_ins(struct vcpu *v, const struct insn *in);	/* 6C 6D */
int string_outs(struct vcpu *v, const struct insn *in); /* 6E 6F */

/* xstate.c, memory forms only */
int xstate_fxsave(struct vcpu *v, const struct insn *in);   /* 0F AE /0 */
int xstate_fxrstor(struct vcpu *v, const struct insn *in);  /* 0F AE /1 */
int xstate_ldmxcsr(struct vcpu *v, const struct insn *in);  /* 0F AE /2, VEX too */
int xstate_stmxcsr(struct vcpu *v, const struct insn *in);  /* 0F AE /3, VEX too */
int xstate_xsave(struct vcpu *v, const struct insn *in);    /* 0F AE /4 */
int xstate_xrstor(struct vcpu *v, const struct insn *in);   /* 0F AE /5 */
int xstate_xsaveopt(struct vcpu *v, const struct insn *in); /* 0F AE /6, no 66 or F3 prefix */
int xstate_xsavec(struct vcpu *v, const struct insn *in);   /* 0F C7 /4 */
int xstate_fldenv(struct vcpu *v, const struct insn *in);   /* D9 /4 */
int xstate_fnstenv(struct vcpu *v, const struct insn *in);  /* D9 /6 */
int xstate_frstor(struct vcpu *v, const struct insn *in);   /* DD /4 */
int xstate_fnsave(struct vcpu *v, const struct insn *in);   /* DD /6 */

/* leaf/leaf_string.c: the fast twin of MOVS STOS LODS SCAS CMPS, up to some pages at a time; a
 * leaf_fn (leaf/leaf.h). Wants the host's DF clear, like all C code. */
int leaf_string(struct vcpu *v, const struct insn *in);

#endif
