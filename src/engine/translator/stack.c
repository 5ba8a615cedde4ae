/*
 * Frames on stacks (AMD64 APM 2, 4.7.3 and 8.9). The usual frame is one
 * contiguous range; only one that wraps around its segment is taken value by
 * value.
 */
#include "engine/translator/stack.h"

#include <string.h>

#include "engine/translator/descriptor.h"

struct stack
stack_current(const struct vcpu *v)
{
	return (struct stack){.ss = v->seg[CPU_SS], .sp = v->gpr[CPU_RSP], .flat = vcpu_64bit(v)};
}

static u64
stack_mask(const struct stack *stack)
{
	if (stack->flat)
		return ~0ull;
	return stack->ss.attr & SEGMENT_DB ? 0xffffffffu : 0xffffu;
}

static int
stack_linear(struct vcpu *v, const struct stack *stack, u64 offset, unsigned len, u64 *linear)
{
	if (stack->flat) {
		*linear = offset;
		if (vcpu_canonical(offset) && vcpu_canonical(offset + len - 1))
			return 0;
	} else {
		*linear = (u32)(stack->ss.base + offset);
		if (segment_covers(&stack->ss, offset, len))
			return 0;
	}
	return vcpu_raise_code(v, VECTOR_SS, stack->code);
}

/* One value at a time, for a frame that wraps: every place is checked first. */
static int
stack_push_singly(struct vcpu *v, struct stack *stack, const u64 *values, unsigned count,
		  unsigned size)
{
	u64 mask = stack_mask(stack), sp = stack->sp, linear;
	int r = 0;

	for (unsigned i = 0; i < count && !r; i++) {
		sp = (sp - size) & mask;
		r = stack_linear(v, stack, sp, size, &linear);
		if (!r)
			r = mmu_check_write(v, linear, size, stack->flags);
	}
	sp = stack->sp;
	for (unsigned i = 0; i < count && !r; i++) {
		sp = (sp - size) & mask;
		r = stack_linear(v, stack, sp, size, &linear);
		if (!r)
			r = mmu_write(v, linear, &values[i], size, stack->flags);
	}
	if (!r)
		stack->sp = sp;
	return r;
}

int
stack_push(struct vcpu *v, struct stack *stack, const u64 *values, unsigned count, unsigned size)
{
	u64 sp = stack->sp & stack_mask(stack), linear;
	u8 frame[STACK_FRAME_MAX * 8];
	unsigned total = count * size;
	int r;

	if (sp < total)
		return stack_push_singly(v, stack, values, count, size);
	for (unsigned i = 0; i < count; i++)
		memcpy(frame + (count - 1 - i) * size, &values[i], size);
	r = stack_linear(v, stack, sp - total, total, &linear);
	if (r)
		return r;
	r = mmu_write(v, linear, frame, total, stack->flags);
	if (!r)
		stack->sp = sp - total;
	return r;
}

int
stack_pop(struct vcpu *v, struct stack *stack, u64 *values, unsigned count, unsigned size)
{
	u64 mask = stack_mask(stack), sp = stack->sp & mask, linear;
	int r = 0;

	for (unsigned i = 0; i < count && !r; i++) {
		values[i] = 0;
		r = stack_linear(v, stack, sp, size, &linear);
		if (!r)
			r = mmu_read(v, linear, &values[i], size, stack->flags);
		sp = (sp + size) & mask;
	}
	if (!r)
		stack->sp = sp;
	return r;
}

void
stack_release(struct stack *stack, u64 bytes)
{
	stack->sp = (stack->sp + bytes) & stack_mask(stack);
}

u64
stack_rsp(const struct stack *stack, u64 old)
{
	u64 mask = stack_mask(stack);

	if (mask == 0xffff)
		return (u32)((old & ~mask) | (stack->sp & mask));
	return stack->sp & mask;
}
