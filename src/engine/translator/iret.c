/*
 * IRET in all modes (AMD64 APM 2, 8.8, 8.9.5 and 8.11; APM 3, IRET). Every
 * value is popped and checked before the first register changes.
 */
#include "engine/translator/far.h"
#include "engine/translator/privileged.h"
#include "engine/translator/system.h"

/* RF means something to instruction breakpoints only; without any, it would just make every
 * return from a fault run an instruction singly. */
static u64
iret_rf(const struct vcpu *v)
{
	return v->dr7 & 0xff ? RFLAGS_RF : 0;
}

/* Flags that IRET may change here, by operand size. */
static u64
iret_mask(const struct vcpu *v, unsigned size)
{
	u64 mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
	unsigned iopl = (v->rflags >> 12) & 3;

	if (size > 2)
		mask |= iret_rf(v) | RFLAGS_AC | RFLAGS_ID;
	if (v->cpl <= iopl)
		mask |= RFLAGS_IF;
	if (v->cpl == 0) {
		mask |= RFLAGS_IOPL;
		if (size > 2)
			mask |= RFLAGS_VIF | RFLAGS_VIP;
	}
	return mask;
}

static int
iret_done(struct vcpu *v)
{
	v->nmi_masked = false;
	vcpu_mode_changed(v);
	return HELPER_JUMP;
}

static u64
iret_merge(u64 old, u64 image, u64 mask)
{
	return (old & ~(mask | RFLAGS_RF)) | (image & mask) | RFLAGS_FIXED;
}

/* Real mode, and virtual 8086 mode with IOPL 3: MASK is what the image may change. */
static int
iret_simple(struct vcpu *v, unsigned size, u64 mask)
{
	struct stack stack = stack_current(v);
	struct segment cs;
	u64 frame[3];
	int r = stack_pop(v, &stack, frame, 3, size);

	if (r)
		return r;
	cs = segment_real(&v->seg[CPU_CS], (u16)frame[1], true, v->rflags & RFLAGS_VM);
	r = far_check_rip(v, &cs, frame[0], false);
	if (r)
		return r;
	v->gpr[CPU_RSP] = stack_rsp(&stack, v->gpr[CPU_RSP]);
	v->rflags = iret_merge(v->rflags, frame[2], mask);
	far_enter(v, &cs, frame[0], NULL);
	return iret_done(v);
}

static int
iret_real(struct vcpu *v, unsigned size)
{
	u64 mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT;

	if (size > 2)
		mask |= iret_rf(v) | RFLAGS_AC | RFLAGS_ID;
	return iret_simple(v, size, mask);
}

/* Virtual mode extensions: IF of the image goes to VIF. */
static int
iret_vme(struct vcpu *v)
{
	u64 mask = RFLAGS_ARITH | RFLAGS_DF | RFLAGS_NT;
	struct stack stack = stack_current(v);
	u64 frame[3], image;
	int r = stack_pop(v, &stack, frame, 3, 2);

	if (r)
		return r;
	image = frame[2];
	if ((image & RFLAGS_TF) || ((image & RFLAGS_IF) && (v->rflags & RFLAGS_VIP)))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = iret_simple(v, 2, mask | RFLAGS_TF);
	if (r != HELPER_JUMP)
		return r;
	v->rflags &= ~(u64)RFLAGS_VIF;
	if (image & RFLAGS_IF)
		v->rflags |= RFLAGS_VIF;
	return r;
}

static int
iret_v86(struct vcpu *v, unsigned size)
{
	u64 mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_NT;

	if ((v->rflags & RFLAGS_IOPL) != RFLAGS_IOPL) {
		if ((v->cr4 & CR4_VME) && size == 2)
			return iret_vme(v);
		return vcpu_raise_code(v, VECTOR_GP, 0);
	}
	if (size > 2)
		mask |= iret_rf(v) | RFLAGS_AC | RFLAGS_ID;
	return iret_simple(v, size, mask);
}

/* From CPL 0 into virtual 8086 mode: STACK stands behind EFLAGS. */
static int
iret_to_v86(struct vcpu *v, struct stack *stack, const u64 *frame)
{
	static const u8 order[] = {CPU_SS, CPU_ES, CPU_DS, CPU_FS, CPU_GS};
	u64 rest[6]; /* ESP, then selectors in this order */
	struct segment cs;
	int r = stack_pop(v, stack, rest, 6, 4);

	if (r)
		return r;
	cs = segment_real(&v->seg[CPU_CS], (u16)frame[1], true, true);
	r = far_check_rip(v, &cs, frame[0] & 0xffff, false);
	if (r)
		return r;
	v->rflags = iret_merge(v->rflags, frame[2], iret_mask(v, 4) | RFLAGS_VM);
	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		v->seg[order[i]] = segment_real(NULL, (u16)rest[i + 1], false, true);
	v->gpr[CPU_RSP] = rest[0];
	far_enter(v, &cs, frame[0] & 0xffff, NULL);
	return iret_done(v);
}

/* To an outer level, or (in 64-bit mode always) with SS:RSP from the stack. */
static int
iret_with_stack(struct vcpu *v, struct stack *stack, unsigned size, const u64 *frame,
		const struct segment *cs)
{
	struct descriptor ss = {0};
	struct stack outer;
	u64 rest[2]; /* RSP, SS */
	u8 cpl = cs->selector & 3, old = v->cpl;
	int r = stack_pop(v, stack, rest, 2, size);

	if (!r)
		r = far_return_ss(v, (u16)rest[1], cs, &ss);
	if (!r)
		r = far_check_rip(v, cs, frame[0], false);
	if (r)
		return r;
	outer = (struct stack){
		.ss = ss.seg, .sp = rest[0], .flat = vcpu_long_mode(v) && (cs->attr & SEGMENT_L)};
	v->rflags = iret_merge(v->rflags, frame[2], iret_mask(v, size));
	v->gpr[CPU_RSP] = stack_rsp(&outer, v->gpr[CPU_RSP]);
	far_enter(v, cs, frame[0], &ss.seg);
	if (cpl > old)
		segment_drop_privileged(v, cpl);
	return iret_done(v);
}

static int
iret_protected(struct vcpu *v, const struct insn *in)
{
	struct stack stack = stack_current(v);
	unsigned size = in->opsize;
	struct descriptor cs;
	u64 frame[3];
	int r = stack_pop(v, &stack, frame, 3, size);

	if (r)
		return r;
	if (size == 4 && !vcpu_long_mode(v) && (frame[2] & RFLAGS_VM) && v->cpl == 0)
		return iret_to_v86(v, &stack, frame);
	r = far_return_cs(v, (u16)frame[1], &cs);
	if (r)
		return r;
	if ((cs.seg.selector & 3) > v->cpl || vcpu_64bit(v))
		return iret_with_stack(v, &stack, size, frame, &cs.seg);
	r = far_check_rip(v, &cs.seg, frame[0], false);
	if (r)
		return r;
	v->rflags = iret_merge(v->rflags, frame[2], iret_mask(v, size));
	v->gpr[CPU_RSP] = stack_rsp(&stack, v->gpr[CPU_RSP]);
	far_enter(v, &cs.seg, frame[0], NULL);
	return iret_done(v);
}

int
interrupt_iret(struct vcpu *v, const struct insn *in)
{
	if (!(v->cr0 & CR0_PE))
		return iret_real(v, in->opsize);
	if (v->rflags & RFLAGS_VM)
		return iret_v86(v, in->opsize);
	if (!(v->rflags & RFLAGS_NT))
		return iret_protected(v, in);
	if (vcpu_long_mode(v))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	return task_return(v, (u32)(v->rip + in->len));
}
