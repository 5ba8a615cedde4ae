/*
 * Far CALL, JMP and RET, directly and through call and task gates (AMD64 APM
 * 2, 4.11; APM 3, CALL far, JMP far, RET far). AMD processors ignore REX.W of a
 * far pointer in memory.
 */
#include "engine/translator/far.h"

#include "base/bytes.h"
#include "engine/translator/operand.h"
#include "engine/translator/privileged.h"
#include "engine/translator/vendor.h"

struct far_transfer {
	u16 selector;
	u64 offset;
	unsigned size; /* operand size */
	bool call;
	u64 next_rip;
};

int
far_check_rip(struct vcpu *v, const struct segment *cs, u64 rip, bool ext)
{
	bool wide = vcpu_long_mode(v) && (cs->attr & SEGMENT_L);

	if (wide ? vcpu_canonical(rip) : rip <= cs->limit)
		return 0;
	return vcpu_raise_code(v, VECTOR_GP, ext);
}

void
far_enter(struct vcpu *v, const struct segment *cs, u64 rip, const struct segment *ss)
{
	v->seg[CPU_CS] = *cs;
	v->rip = rip;
	if (!(v->cr0 & CR0_PE))
		v->cpl = 0;
	else
		v->cpl = v->rflags & RFLAGS_VM ? 3 : cs->selector & 3;
	if (ss)
		v->seg[CPU_SS] = *ss;
	if (vcpu_64bit(v))
		v->seg[CPU_CS].base = 0; /* whatever the descriptor says */
	vcpu_mode_changed(v);
}

/* L and D together are reserved in long mode. */
static bool
far_bad_long_code(const struct vcpu *v, const struct segment *cs)
{
	return vcpu_long_mode(v) && (cs->attr & SEGMENT_L) && (cs->attr & SEGMENT_DB);
}

int
far_return_cs(struct vcpu *v, u16 selector, struct descriptor *cs)
{
	u8 rpl = selector & 3, dpl;
	int r;

	if (selector_null(selector))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = descriptor_fetch(v, selector, cs, VECTOR_GP, false);
	if (r)
		return r;
	dpl = segment_dpl(&cs->seg);
	if (!segment_is_code(&cs->seg) || rpl < v->cpl || far_bad_long_code(v, &cs->seg) ||
	    (segment_is_conforming(&cs->seg) ? dpl > rpl : dpl != rpl))
		return descriptor_fault(v, VECTOR_GP, selector, false);
	if (!(cs->seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_NP, selector, false);
	return descriptor_set_accessed(v, cs);
}

int
far_return_ss(struct vcpu *v, u16 selector, const struct segment *cs, struct descriptor *ss)
{
	u8 cpl = cs->selector & 3;
	int r;

	if (selector_null(selector)) {
		bool wide = vcpu_long_mode(v) && (cs->attr & SEGMENT_L);

		if (!wide || cpl == 3 || (selector & 3) != cpl)
			return vcpu_raise_code(v, VECTOR_GP, 0);
		ss->seg = segment_null(selector, cpl);
		return 0;
	}
	r = descriptor_fetch(v, selector, ss, VECTOR_GP, false);
	if (r)
		return r;
	if ((selector & 3) != cpl || segment_dpl(&ss->seg) != cpl || !segment_is_writable(&ss->seg))
		return descriptor_fault(v, VECTOR_GP, selector, false);
	if (!(ss->seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_SS, selector, false);
	return descriptor_set_accessed(v, ss);
}

static int
far_push_return(struct vcpu *v, const struct far_transfer *t, unsigned size)
{
	struct stack stack = stack_current(v);
	u64 frame[2] = {v->seg[CPU_CS].selector, t->next_rip};
	int r = stack_push(v, &stack, frame, 2, size);

	if (!r)
		operand_set_gpr(v, CPU_RSP, operand_stack_size(v), stack.sp);
	return r;
}

static int
far_real(struct vcpu *v, const struct far_transfer *t)
{
	struct segment cs = segment_real(&v->seg[CPU_CS], t->selector, true, v->rflags & RFLAGS_VM);
	int r = far_check_rip(v, &cs, t->offset, false);

	if (!r && t->call)
		r = far_push_return(v, t, t->size);
	if (r)
		return r;
	far_enter(v, &cs, t->offset, NULL);
	return HELPER_JUMP;
}

static int
far_to_code(struct vcpu *v, const struct far_transfer *t, struct descriptor *cs)
{
	u8 rpl = t->selector & 3, dpl = segment_dpl(&cs->seg);
	int r;

	if (far_bad_long_code(v, &cs->seg) ||
	    (segment_is_conforming(&cs->seg) ? dpl > v->cpl : rpl > v->cpl || dpl != v->cpl))
		return descriptor_fault(v, VECTOR_GP, t->selector, false);
	if (!(cs->seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_NP, t->selector, false);
	r = far_check_rip(v, &cs->seg, t->offset, false);
	if (!r)
		r = descriptor_set_accessed(v, cs);
	if (!r && t->call)
		r = far_push_return(v, t, t->size);
	if (r)
		return r;
	cs->seg.selector = (u16)((t->selector & ~3u) | v->cpl);
	far_enter(v, &cs->seg, t->offset, NULL);
	return HELPER_JUMP;
}

struct call_gate {
	u16 selector;
	u64 offset;
	unsigned size; /* of a stack value */
	unsigned params;
};

static int
far_read_gate(struct vcpu *v, const struct far_transfer *t, const struct descriptor *d,
	      struct call_gate *gate)
{
	u32 upper = 0;
	int r = 0;

	if (segment_dpl(&d->seg) < v->cpl || (t->selector & 3) > segment_dpl(&d->seg))
		return descriptor_fault(v, VECTOR_GP, t->selector, false);
	if (vcpu_long_mode(v))
		r = descriptor_read_upper(v, d, &upper);
	if (r == DESCRIPTOR_OUTSIDE)
		return descriptor_fault(v, VECTOR_GP, t->selector, false);
	if (r)
		return r;
	if (!(d->seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_NP, t->selector, false);
	gate->selector = (u16)(d->low >> 16);
	gate->offset = (d->low & 0xffff) | (d->high & 0xffff0000) | (u64)upper << 32;
	gate->params = d->high & 31;
	gate->size = 4;
	if (vcpu_long_mode(v)) {
		gate->size = 8;
		gate->params = 0;
	} else if (segment_system_type(&d->seg) == DESCRIPTOR_CALL16) {
		gate->size = 2;
		gate->offset &= 0xffff;
	}
	return 0;
}

static int
far_gate_cs(struct vcpu *v, const struct call_gate *gate, struct descriptor *cs, bool call)
{
	int r;
	u8 dpl;

	if (selector_null(gate->selector))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = descriptor_fetch(v, gate->selector, cs, VECTOR_GP, false);
	if (r)
		return r;
	dpl = segment_dpl(&cs->seg);
	if (!segment_is_code(&cs->seg) || dpl > v->cpl ||
	    (!call && !segment_is_conforming(&cs->seg) && dpl != v->cpl) ||
	    (vcpu_long_mode(v) && (cs->seg.attr & (SEGMENT_L | SEGMENT_DB)) != SEGMENT_L))
		return descriptor_fault(v, VECTOR_GP, gate->selector, false);
	if (!(cs->seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_NP, gate->selector, false);
	r = far_check_rip(v, &cs->seg, gate->offset, false);
	return r ? r : descriptor_set_accessed(v, cs);
}

/* CALL through a gate to an inner level: new stack, old SS:RSP and parameters on it. */
static int
far_call_inner(struct vcpu *v, const struct far_transfer *t, const struct call_gate *gate,
	       struct segment *cs)
{
	struct stack old = stack_current(v), stack = {.flat = vcpu_long_mode(v)};
	struct descriptor ss = {0};
	u8 cpl = segment_dpl(cs);
	u64 frame[STACK_FRAME_MAX], params[31];
	unsigned n = 0;
	int r;

	if (stack.flat) {
		ss.seg = segment_null(cpl, cpl);
		r = tss_long_stack(v, cpl, 0, false, &stack.sp);
	} else {
		r = tss_legacy_stack(v, cpl, false, &ss, &stack.sp);
		stack.code = ss.seg.selector & 0xfffcu;
	}
	if (!r && gate->params)
		r = stack_pop(v, &old, params, gate->params, gate->size);
	if (r)
		return r;
	frame[n++] = v->seg[CPU_SS].selector;
	frame[n++] = v->gpr[CPU_RSP];
	for (unsigned i = gate->params; i > 0; i--)
		frame[n++] = params[i - 1];
	frame[n++] = v->seg[CPU_CS].selector;
	frame[n++] = t->next_rip;
	stack.ss = ss.seg;
	stack.flags = v->cpl == 3 ? MMU_SUPERVISOR : 0;
	r = stack_push(v, &stack, frame, n, gate->size);
	if (r)
		return r;
	cs->selector = (u16)((cs->selector & ~3u) | cpl);
	v->gpr[CPU_RSP] = stack_rsp(&stack, v->gpr[CPU_RSP]);
	far_enter(v, cs, gate->offset, &ss.seg);
	return HELPER_JUMP;
}

static int
far_through_gate(struct vcpu *v, const struct far_transfer *t, const struct descriptor *d)
{
	struct call_gate gate = {0};
	struct descriptor cs;
	int r = far_read_gate(v, t, d, &gate);

	if (!r)
		r = far_gate_cs(v, &gate, &cs, t->call);
	if (r)
		return r;
	if (t->call && !segment_is_conforming(&cs.seg) && segment_dpl(&cs.seg) < v->cpl)
		return far_call_inner(v, t, &gate, &cs.seg);
	if (t->call)
		r = far_push_return(v, t, gate.size);
	if (r)
		return r;
	cs.seg.selector = (u16)((gate.selector & ~3u) | v->cpl);
	far_enter(v, &cs.seg, gate.offset, NULL);
	return HELPER_JUMP;
}

static int
far_to_task(struct vcpu *v, const struct far_transfer *t, const struct descriptor *d)
{
	u16 selector = t->selector;
	int r;

	if (segment_dpl(&d->seg) < v->cpl || (selector & 3) > segment_dpl(&d->seg))
		return descriptor_fault(v, VECTOR_GP, selector, false);
	if (segment_system_type(&d->seg) == DESCRIPTOR_TASK) {
		r = task_gate(v, d, &selector);
		if (r)
			return r;
	}
	return task_switch(v, selector, t->call ? TASK_CALL : TASK_JUMP, t->next_rip, false);
}

static int
far_transfer(struct vcpu *v, const struct far_transfer *t)
{
	struct descriptor d;
	int r;

	if (!vcpu_protected(v))
		return far_real(v, t);
	if (selector_null(t->selector))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = descriptor_fetch(v, t->selector, &d, VECTOR_GP, false);
	if (r)
		return r;
	if (segment_is_code(&d.seg))
		return far_to_code(v, t, &d);
	if (d.seg.attr & SEGMENT_S)
		return descriptor_fault(v, VECTOR_GP, t->selector, false);
	switch (segment_system_type(&d.seg)) {
	case DESCRIPTOR_CALL:
		return far_through_gate(v, t, &d);
	case DESCRIPTOR_CALL16:
		if (!vcpu_long_mode(v))
			return far_through_gate(v, t, &d);
		break;
	case DESCRIPTOR_TSS16:
	case DESCRIPTOR_TSS:
	case DESCRIPTOR_TASK:
		if (!vcpu_long_mode(v))
			return far_to_task(v, t, &d);
		break;
	default:
		break;
	}
	return descriptor_fault(v, VECTOR_GP, t->selector, false);
}

/* The far pointer of IN: in the instruction, or in memory. */
static int
far_pointer(struct vcpu *v, const struct insn *in, struct far_transfer *t)
{
	unsigned size = in->opsize;
	u64 linear;
	u8 raw[10];
	int r;

	if (size == 8 && !vendor_is_intel(v))
		size = 4;
	t->size = size;
	t->next_rip = v->rip + in->len;
	if (!vcpu_64bit(v))
		t->next_rip = (u32)t->next_rip;
	if (in->opcode != 0xff) {
		t->offset = in->imm & operand_mask(size);
		t->selector = (u16)in->imm2;
		return 0;
	}
	if (!in->mem)
		return vcpu_raise(v, VECTOR_UD);
	r = mmu_operand(v, in, size + 2, false, &linear);
	if (!r)
		r = mmu_read(v, linear, raw, size + 2, 0);
	if (r)
		return r;
	t->offset = size == 2 ? get_le16(raw) : size == 4 ? get_le32(raw) : get_le64(raw);
	t->selector = get_le16(raw + size);
	return 0;
}

int
far_call(struct vcpu *v, const struct insn *in)
{
	struct far_transfer t = {.call = true};
	int r = far_pointer(v, in, &t);

	return r ? r : far_transfer(v, &t);
}

int
far_jump(struct vcpu *v, const struct insn *in)
{
	struct far_transfer t = {.call = false};
	int r = far_pointer(v, in, &t);

	return r ? r : far_transfer(v, &t);
}

/* RET to an outer level: SS:RSP stand behind the parameters. */
static int
far_return_outer(struct vcpu *v, struct stack *stack, const struct insn *in, const u64 *frame,
		 const struct segment *cs, u64 bytes)
{
	struct descriptor ss = {0};
	struct stack outer;
	u64 rest[2]; /* RSP, SS */
	int r;

	stack_release(stack, bytes);
	r = stack_pop(v, stack, rest, 2, in->opsize);
	if (!r)
		r = far_return_ss(v, (u16)rest[1], cs, &ss);
	if (!r)
		r = far_check_rip(v, cs, frame[0], false);
	if (r)
		return r;
	outer = (struct stack){
		.ss = ss.seg, .sp = rest[0], .flat = vcpu_long_mode(v) && (cs->attr & SEGMENT_L)};
	stack_release(&outer, bytes);
	v->gpr[CPU_RSP] = stack_rsp(&outer, v->gpr[CPU_RSP]);
	far_enter(v, cs, frame[0], &ss.seg);
	segment_drop_privileged(v, v->cpl);
	return HELPER_JUMP;
}

int
far_return(struct vcpu *v, const struct insn *in)
{
	struct stack stack = stack_current(v);
	u64 bytes = in->opcode == 0xca ? in->imm & 0xffff : 0;
	unsigned width = operand_stack_size(v);
	struct descriptor cs;
	u64 frame[2];
	int r = stack_pop(v, &stack, frame, 2, in->opsize);

	if (r)
		return r;
	if (vcpu_protected(v)) {
		r = far_return_cs(v, (u16)frame[1], &cs);
		if (r)
			return r;
		if ((cs.seg.selector & 3) > v->cpl)
			return far_return_outer(v, &stack, in, frame, &cs.seg, bytes);
	} else {
		cs.seg = segment_real(&v->seg[CPU_CS], (u16)frame[1], true, v->rflags & RFLAGS_VM);
	}
	r = far_check_rip(v, &cs.seg, frame[0], false);
	if (r)
		return r;
	stack_release(&stack, bytes);
	operand_set_gpr(v, CPU_RSP, width, stack.sp);
	far_enter(v, &cs.seg, frame[0], NULL);
	return HELPER_JUMP;
}
