/*
 * Loading and reading segment registers (AMD64 APM 2, 4.5 and 4.10). CS is
 * loaded by far transfers only. A load checks everything, then sets the
 * accessed bit, then the register.
 */
#include "base/bytes.h"
#include "engine/translator/descriptor.h"
#include "engine/translator/operand.h"
#include "engine/translator/privileged.h"
#include "engine/translator/stack.h"
#include "engine/translator/system.h"

static int
segment_load_null(struct vcpu *v, enum cpu_segment seg, u16 selector)
{
	struct segment null = segment_null(selector, 0);

	if (seg == CPU_SS) {
		if (!vcpu_64bit(v) || v->cpl == 3 || (selector & 3) != v->cpl)
			return vcpu_raise_code(v, VECTOR_GP, 0);
		null = segment_null(selector, v->cpl);
	}
	segment_commit(v, seg, &null);
	return 0;
}

/* Whether the descriptor may go into the register (4.10): 0 or #GP, #NP, #SS raised. */
static int
segment_check(struct vcpu *v, enum cpu_segment seg, const struct descriptor *d)
{
	u16 selector = d->seg.selector;
	u8 rpl = selector & 3, dpl = segment_dpl(&d->seg);
	bool allowed;

	if (seg == CPU_SS)
		allowed = rpl == v->cpl && dpl == v->cpl && segment_is_writable(&d->seg);
	else
		allowed = segment_is_readable(&d->seg) &&
			  (segment_is_conforming(&d->seg) || (rpl <= dpl && v->cpl <= dpl));
	if (!allowed)
		return descriptor_fault(v, VECTOR_GP, selector, false);
	if (!(d->seg.attr & SEGMENT_P))
		return descriptor_fault(v, seg == CPU_SS ? VECTOR_SS : VECTOR_NP, selector, false);
	return 0;
}

int
segment_load(struct vcpu *v, enum cpu_segment seg, u16 selector)
{
	struct descriptor d;
	int r;

	if (!vcpu_protected(v)) {
		struct segment real =
			segment_real(&v->seg[seg], selector, false, v->rflags & RFLAGS_VM);

		segment_commit(v, seg, &real);
		return 0;
	}
	if (selector_null(selector))
		return segment_load_null(v, seg, selector);
	r = descriptor_fetch(v, selector, &d, VECTOR_GP, false);
	if (!r)
		r = segment_check(v, seg, &d);
	if (!r)
		r = descriptor_set_accessed(v, &d);
	if (!r)
		segment_commit(v, seg, &d.seg);
	return r;
}

int
segment_mov_to(struct vcpu *v, const struct insn *in)
{
	unsigned seg = in->reg & 7;
	u16 selector;
	int r;

	if (seg == CPU_CS || seg >= CPU_SEGMENTS)
		return vcpu_raise(v, VECTOR_UD);
	if (in->mem) {
		u64 linear;

		r = mmu_operand(v, in, 2, false, &linear);
		if (!r)
			r = mmu_read16(v, linear, &selector, 0);
		if (r)
			return r;
	} else {
		selector = (u16)v->gpr[in->rm];
	}
	r = segment_load(v, seg, selector);
	if (!r && seg == CPU_SS)
		v->shadow_ss = true;
	return r;
}

int
segment_mov_from(struct vcpu *v, const struct insn *in)
{
	unsigned seg = in->reg & 7;
	u64 linear;
	int r;

	if (seg >= CPU_SEGMENTS)
		return vcpu_raise(v, VECTOR_UD);
	if (!in->mem) {
		operand_set_gpr(v, in->rm, in->opsize, v->seg[seg].selector);
		return 0;
	}
	r = mmu_operand(v, in, 2, true, &linear);
	return r ? r : mmu_write(v, linear, &v->seg[seg].selector, 2, 0);
}

/* The register that a one-byte or 0F-map PUSH or POP names in bits 3 to 5. */
static enum cpu_segment
segment_of_opcode(const struct insn *in)
{
	return (enum cpu_segment)((in->opcode >> 3) & 7);
}

int
segment_push(struct vcpu *v, const struct insn *in)
{
	struct stack stack = stack_current(v);
	u64 value = v->seg[segment_of_opcode(in)].selector;
	int r = stack_push(v, &stack, &value, 1, in->opsize);

	if (!r)
		operand_set_gpr(v, CPU_RSP, operand_stack_size(v), stack.sp);
	return r;
}

int
segment_pop(struct vcpu *v, const struct insn *in)
{
	struct stack stack = stack_current(v);
	unsigned width = operand_stack_size(v);
	enum cpu_segment seg = segment_of_opcode(in);
	u64 value;
	int r = stack_pop(v, &stack, &value, 1, in->opsize);

	if (!r)
		r = segment_load(v, seg, (u16)value);
	if (r)
		return r;
	operand_set_gpr(v, CPU_RSP, width, stack.sp);
	if (seg == CPU_SS)
		v->shadow_ss = true;
	return 0;
}

static enum cpu_segment
segment_of_far_load(const struct insn *in)
{
	if (in->map == 0)
		return in->opcode == 0xc4 ? CPU_ES : CPU_DS;
	return in->opcode == 0xb2 ? CPU_SS : in->opcode == 0xb4 ? CPU_FS : CPU_GS;
}

int
segment_load_far(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->opsize;
	u64 linear;
	u8 raw[10];
	int r;

	if (!in->mem)
		return vcpu_raise(v, VECTOR_UD);
	r = mmu_operand(v, in, size + 2, false, &linear);
	if (!r)
		r = mmu_read(v, linear, raw, size + 2, 0);
	if (!r)
		r = segment_load(v, segment_of_far_load(in), get_le16(raw + size));
	if (r)
		return r;
	operand_set_gpr(v, in->reg, size,
			size == 2   ? get_le16(raw)
			: size == 4 ? get_le32(raw)
				    : get_le64(raw));
	return 0;
}

int
segment_swapgs(struct vcpu *v, const struct insn *in)
{
	u64 base = v->seg[CPU_GS].base;

	(void)in;
	if (!vcpu_64bit(v))
		return vcpu_raise(v, VECTOR_UD);
	if (v->cpl != 0)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	v->seg[CPU_GS].base = v->msr.kernel_gs_base;
	v->msr.kernel_gs_base = base;
	vcpu_mode_changed(v);
	return 0;
}

int
segment_fsgsbase(struct vcpu *v, const struct insn *in)
{
	unsigned which = (in->modrm >> 3) & 7;
	struct segment *seg = &v->seg[which & 1 ? CPU_GS : CPU_FS];
	u64 value;

	if (!vcpu_64bit(v) || !(v->cr4 & CR4_FSGSBASE) || in->mem || which > 3)
		return vcpu_raise(v, VECTOR_UD);
	if (which < 2) {
		operand_set_gpr(v, in->rm, in->opsize == 8 ? 8 : 4, seg->base);
		return 0;
	}
	value = v->gpr[in->rm] & operand_mask(in->opsize == 8 ? 8 : 4);
	if (!vcpu_canonical(value))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	seg->base = value;
	vcpu_mode_changed(v);
	return 0;
}
