/*
 * Instructions on RFLAGS that depend on privilege: CLI, STI, PUSHF, POPF,
 * CLAC, STAC (AMD64 APM 3), with the virtual interrupt flag of CR4.VME and
 * CR4.PVI (APM 2, 8.11).
 */
#include "engine/translator/operand.h"
#include "engine/translator/privileged.h"
#include "engine/translator/stack.h"

static unsigned
flags_iopl(const struct vcpu *v)
{
	return (v->rflags >> 12) & 3;
}

static bool
flags_v86(const struct vcpu *v)
{
	return (v->cr0 & CR0_PE) && (v->rflags & RFLAGS_VM);
}

/* Which flag CLI and STI mean: IF, VIF, or 0 where they raise #GP. */
static u64
flags_interrupt_flag(const struct vcpu *v)
{
	if (v->cpl <= flags_iopl(v))
		return RFLAGS_IF;
	if (v->cpl == 3 && (v->cr4 & (flags_v86(v) ? CR4_VME : CR4_PVI)))
		return RFLAGS_VIF;
	return 0;
}

int
flags_cli(struct vcpu *v, const struct insn *in)
{
	u64 flag = flags_interrupt_flag(v);

	(void)in;
	if (!flag)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	v->rflags &= ~flag;
	return 0;
}

int
flags_sti(struct vcpu *v, const struct insn *in)
{
	u64 flag = flags_interrupt_flag(v);

	(void)in;
	if (!flag || (flag == RFLAGS_VIF && (v->rflags & RFLAGS_VIP)))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	if (flag == RFLAGS_IF && !(v->rflags & RFLAGS_IF))
		v->shadow = true;
	v->rflags |= flag;
	return 0;
}

int
flags_pushf(struct vcpu *v, const struct insn *in)
{
	u64 image = v->rflags & ~(u64)(RFLAGS_VM | RFLAGS_RF);
	struct stack stack = stack_current(v);
	int r;

	if (flags_v86(v) && flags_iopl(v) < 3) {
		if (!(v->cr4 & CR4_VME) || in->opsize != 2)
			return vcpu_raise_code(v, VECTOR_GP, 0);
		image = (image | RFLAGS_IOPL) & ~(u64)RFLAGS_IF;
		if (image & RFLAGS_VIF)
			image |= RFLAGS_IF;
	}
	r = stack_push(v, &stack, &image, 1, in->opsize);
	if (!r)
		operand_set_gpr(v, CPU_RSP, operand_stack_size(v), stack.sp);
	return r;
}

/* POPF of virtual 8086 mode below IOPL 3 with VME: IF means VIF. 0 or #GP. */
static int
flags_pop_virtual(struct vcpu *v, u64 *image, u64 *mask)
{
	if ((*image & RFLAGS_TF) || ((*image & RFLAGS_IF) && (v->rflags & RFLAGS_VIP)))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	*image &= ~(u64)RFLAGS_VIF;
	if (*image & RFLAGS_IF)
		*image |= RFLAGS_VIF;
	*mask = RFLAGS_ARITH | RFLAGS_DF | RFLAGS_NT | RFLAGS_TF | RFLAGS_VIF;
	return 0;
}

/* What POPF may change here. */
static u64
flags_pop_mask(const struct vcpu *v, unsigned size)
{
	u64 mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;

	if (size > 2)
		mask |= RFLAGS_AC | RFLAGS_ID;
	if (v->cpl <= flags_iopl(v))
		mask |= RFLAGS_IF;
	if (v->cpl == 0)
		mask |= RFLAGS_IOPL;
	return mask;
}

int
flags_popf(struct vcpu *v, const struct insn *in)
{
	struct stack stack = stack_current(v);
	u64 image, mask = flags_pop_mask(v, in->opsize), old = v->rflags;
	bool virtual = flags_v86(v) && flags_iopl(v) < 3;
	int r;

	if (virtual && (!(v->cr4 & CR4_VME) || in->opsize != 2))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = stack_pop(v, &stack, &image, 1, in->opsize);
	if (!r && virtual)
		r = flags_pop_virtual(v, &image, &mask);
	if (r)
		return r;
	v->rflags = ((old & ~mask) | (image & mask) | RFLAGS_FIXED) & ~(u64)RFLAGS_RF;
	operand_set_gpr(v, CPU_RSP, operand_stack_size(v), stack.sp);
	if ((old ^ v->rflags) & (RFLAGS_AC | RFLAGS_TF | RFLAGS_RF))
		vcpu_mode_changed(v);
	return 0;
}

int
flags_ac(struct vcpu *v, const struct insn *in)
{
	u64 value = in->modrm == 0xcb ? RFLAGS_AC : 0;

	if (v->cpl != 0 || !cpu_model_has(v->model, 7, 0, 1, 20))
		return vcpu_raise(v, VECTOR_UD);
	if ((v->rflags & RFLAGS_AC) != value) {
		v->rflags ^= RFLAGS_AC;
		vcpu_mode_changed(v);
	}
	return 0;
}
