/*
 * Stacks as privileged transfers use them: a stack that may not be the current
 * one yet. Frames are checked whole before a byte is stored, so that a fault
 * leaves nothing behind.
 */
#ifndef TRANSLATOR_STACK_H
#define TRANSLATOR_STACK_H

#include "engine/translator/mmu.h"

enum { STACK_FRAME_MAX = 40 }; /* values: a call gate's 31 parameters and the frame */

struct stack {
	struct segment ss;
	u64 sp;
	bool flat;	/* 64-bit mode: no base, no limit, 64 bits wide */
	unsigned flags; /* mmu flags of its accesses */
	u32 code;	/* error code of its #SS */
};

/* The stack in use. */
struct stack stack_current(const struct vcpu *v);

/* Pushes VALUES in order, SIZE bytes each (2, 4, 8). Sets stack->sp on success. */
int stack_push(struct vcpu *v, struct stack *stack, const u64 *values, unsigned count,
	       unsigned size);
/* Pops COUNT values, the top first. */
int stack_pop(struct vcpu *v, struct stack *stack, u64 *values, unsigned count, unsigned size);
/* Moves SP by BYTES (wrapping as its size does). */
void stack_release(struct stack *stack, u64 bytes);
/* SP as RSP is written with it: the part outside a 16-bit stack's SP stays OLD's. */
u64 stack_rsp(const struct stack *stack, u64 old);

#endif
