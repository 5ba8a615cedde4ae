/*
 * Delivery of exceptions and interrupts (AMD64 APM 2, chapter 8): real mode,
 * protected mode, virtual 8086 mode and long mode.
 *
 * One delivery is an attempt: it reads tables and checks everything, then
 * stores the frame, then changes the vCPU. If it fails, v->event holds the
 * fault that came up and nothing else changed; if it needs an MMIO answer, the
 * whole delivery is begun again from the original event, so that the answers
 * come in the same order.
 */
#include <errno.h>

#include "base/bytes.h"
#include "engine/translator/far.h"
#include "engine/translator/privileged.h"
#include "engine/translator/system.h"

struct delivery {
	u8 vector;
	bool software; /* INT n, INT3, INTO: the gate's DPL counts */
	bool ext;      /* not by an instruction of the guest: EXT bit of error codes */
	bool benign;   /* an interrupt or trap whatever its number: never part of a double fault */
	bool has_code;
	u32 code;
	u64 rip;    /* return address */
	u64 rflags; /* as pushed */
};

struct gate {
	u8 type, dpl;
	unsigned size; /* bytes of a value on the stack: 2, 4, 8 */
	unsigned ist;
	bool present, trap;
	u16 selector;
	u64 offset;
};

/* Where a gate leads: the new code segment, stack and CPL. */
struct target {
	struct descriptor cs, ss;
	struct stack stack;
	u8 cpl;
	bool inner;
};

static int
interrupt_gate_fault(struct vcpu *v, const struct delivery *d, u8 vector)
{
	return vcpu_raise_code(v, vector, (u32)d->vector << 3 | 2 | (d->ext ? 1 : 0));
}

static int
interrupt_read_gate(struct vcpu *v, const struct delivery *d, struct gate *gate)
{
	bool wide = vcpu_long_mode(v);
	unsigned len = wide ? 16 : 8;
	u32 offset = d->vector * len;
	u8 raw[16];
	int r;

	if (offset + len - 1 > v->idt.limit)
		return interrupt_gate_fault(v, d, VECTOR_GP);
	r = mmu_read(v, descriptor_linear(v, v->idt.base + offset), raw, len, MMU_SUPERVISOR);
	if (r)
		return r;
	gate->selector = get_le16(raw + 2);
	gate->type = raw[5] & 0x1f; /* with S, which must be clear */
	gate->dpl = (raw[5] >> 5) & 3;
	gate->present = raw[5] & 0x80;
	gate->trap = gate->type & 1;
	gate->offset = get_le16(raw) | (u32)get_le16(raw + 6) << 16;
	gate->ist = wide ? raw[4] & 7 : 0;
	gate->size = wide ? 8 : gate->type & 8 ? 4 : 2;
	if (wide)
		gate->offset |= (u64)get_le32(raw + 8) << 32;
	else if (gate->size == 2)
		gate->offset &= 0xffff;
	return 0;
}

static int
interrupt_check_gate(struct vcpu *v, const struct delivery *d, const struct gate *gate)
{
	bool known;

	switch (gate->type) {
	case DESCRIPTOR_INT:
	case DESCRIPTOR_TRAP:
		known = true;
		break;
	case DESCRIPTOR_INT16:
	case DESCRIPTOR_TRAP16:
	case DESCRIPTOR_TASK:
		known = !vcpu_long_mode(v);
		break;
	default:
		known = false;
		break;
	}
	if (!known || (d->software && gate->dpl < v->cpl))
		return interrupt_gate_fault(v, d, VECTOR_GP);
	if (!gate->present)
		return interrupt_gate_fault(v, d, VECTOR_NP);
	return 0;
}

/* The code segment behind the gate (8.7 and 8.9): sets target->cs, cpl and inner. */
static int
interrupt_target_cs(struct vcpu *v, const struct delivery *d, const struct gate *gate,
		    struct target *t)
{
	struct segment *cs = &t->cs.seg;
	u8 dpl;
	int r;

	if (selector_null(gate->selector))
		return vcpu_raise_code(v, VECTOR_GP, d->ext);
	r = descriptor_fetch(v, gate->selector, &t->cs, VECTOR_GP, d->ext);
	if (r)
		return r;
	dpl = segment_dpl(cs);
	t->cpl = segment_is_conforming(cs) ? v->cpl : dpl;
	t->inner = t->cpl < v->cpl;
	if (!segment_is_code(cs) || dpl > v->cpl ||
	    (vcpu_long_mode(v) && (cs->attr & (SEGMENT_L | SEGMENT_DB)) != SEGMENT_L) ||
	    ((v->rflags & RFLAGS_VM) && t->cpl != 0))
		return descriptor_fault(v, VECTOR_GP, gate->selector, d->ext);
	if (!(cs->attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_NP, gate->selector, d->ext);
	cs->selector = (u16)((cs->selector & ~3u) | t->cpl);
	return descriptor_set_accessed(v, &t->cs);
}

static int
interrupt_target_stack(struct vcpu *v, const struct delivery *d, const struct gate *gate,
		       struct target *t)
{
	bool wide = vcpu_long_mode(v);
	int r = 0;

	t->stack = stack_current(v);
	t->stack.flat = wide;
	t->stack.code = d->ext;
	t->ss.seg = v->seg[CPU_SS];
	if (v->cpl == 3 && t->cpl < 3)
		t->stack.flags = MMU_SUPERVISOR;
	if (wide) {
		if (t->inner || gate->ist)
			r = tss_long_stack(v, t->cpl, gate->ist, d->ext, &t->stack.sp);
		t->stack.sp &= ~15ull;
		if (t->inner)
			t->ss.seg = segment_null(t->cpl, t->cpl);
	} else if (t->inner) {
		r = tss_legacy_stack(v, t->cpl, d->ext, &t->ss, &t->stack.sp);
		t->stack.code = (t->ss.seg.selector & 0xfffcu) | d->ext;
	}
	t->stack.ss = t->ss.seg;
	return r;
}

static int
interrupt_push_frame(struct vcpu *v, const struct delivery *d, const struct gate *gate,
		     struct target *t)
{
	bool vm = v->rflags & RFLAGS_VM;
	u64 frame[10];
	unsigned n = 0;

	if (vm) {
		frame[n++] = v->seg[CPU_GS].selector;
		frame[n++] = v->seg[CPU_FS].selector;
		frame[n++] = v->seg[CPU_DS].selector;
		frame[n++] = v->seg[CPU_ES].selector;
	}
	if (t->inner || vcpu_long_mode(v)) {
		frame[n++] = v->seg[CPU_SS].selector;
		frame[n++] = v->gpr[CPU_RSP];
	}
	frame[n++] = d->rflags;
	frame[n++] = v->seg[CPU_CS].selector;
	frame[n++] = d->rip;
	if (d->has_code)
		frame[n++] = d->code;
	return stack_push(v, &t->stack, frame, n, gate->size);
}

static void
interrupt_enter(struct vcpu *v, const struct gate *gate, const struct target *t)
{
	bool vm = v->rflags & RFLAGS_VM;

	v->rflags &= ~(u64)(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);
	if (!gate->trap)
		v->rflags &= ~(u64)RFLAGS_IF;
	if (vm) {
		v->seg[CPU_GS] = v->seg[CPU_FS] = segment_null(0, 0);
		v->seg[CPU_DS] = v->seg[CPU_ES] = segment_null(0, 0);
	}
	v->gpr[CPU_RSP] = t->stack.flat ? t->stack.sp : stack_rsp(&t->stack, v->gpr[CPU_RSP]);
	far_enter(v, &t->cs.seg, gate->offset, t->inner ? &t->ss.seg : NULL);
}

static int
interrupt_task_gate(struct vcpu *v, const struct delivery *d, const struct gate *gate)
{
	struct stack stack;
	u64 code = d->code;
	int r = task_switch(v, gate->selector, TASK_INTERRUPT, d->rip, d->ext);

	if (r != HELPER_JUMP || !d->has_code)
		return r == HELPER_JUMP ? 0 : r;
	stack = stack_current(v);
	stack.code = d->ext;
	r = stack_push(v, &stack, &code, 1, v->tr.attr & 8 ? 4 : 2);
	if (!r)
		v->gpr[CPU_RSP] = stack_rsp(&stack, v->gpr[CPU_RSP]);
	return r;
}

static int
interrupt_protected(struct vcpu *v, const struct delivery *d)
{
	struct target target = {0};
	struct gate gate = {0};
	int r = interrupt_read_gate(v, d, &gate);

	if (!r)
		r = interrupt_check_gate(v, d, &gate);
	if (r)
		return r;
	if (gate.type == DESCRIPTOR_TASK)
		return interrupt_task_gate(v, d, &gate);
	r = interrupt_target_cs(v, d, &gate, &target);
	if (!r)
		r = interrupt_target_stack(v, d, &gate, &target);
	if (!r)
		r = far_check_rip(v, &target.cs.seg, gate.offset, d->ext);
	if (!r)
		r = interrupt_push_frame(v, d, &gate, &target);
	if (!r)
		interrupt_enter(v, &gate, &target);
	return r;
}

/* Real mode, and a redirected INT n of virtual 8086 mode (8.6, 8.11.4). */
static int
interrupt_through_vectors(struct vcpu *v, const struct delivery *d, u64 table)
{
	struct stack stack = stack_current(v);
	u64 frame[3] = {d->rflags, v->seg[CPU_CS].selector, d->rip};
	struct segment cs;
	u32 entry;
	int r = mmu_read32(v, (u32)(table + d->vector * 4u), &entry, 0);

	if (r)
		return r;
	cs = segment_real(&v->seg[CPU_CS], (u16)(entry >> 16), true, v->rflags & RFLAGS_VM);
	r = far_check_rip(v, &cs, entry & 0xffff, d->ext);
	if (!r)
		r = stack_push(v, &stack, frame, 3, 2);
	if (r)
		return r;
	v->gpr[CPU_RSP] = (v->gpr[CPU_RSP] & ~0xffffull) | (stack.sp & 0xffff);
	far_enter(v, &cs, entry & 0xffff, NULL);
	return 0;
}

static int
interrupt_real(struct vcpu *v, const struct delivery *d)
{
	int r;

	if (d->vector * 4u + 3 > v->idt.limit)
		return interrupt_gate_fault(v, d, VECTOR_GP);
	r = interrupt_through_vectors(v, d, v->idt.base);
	if (!r)
		v->rflags &= ~(u64)(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
	return r;
}

static int
interrupt_attempt(struct vcpu *v, const struct delivery *d)
{
	int r = v->cr0 & CR0_PE ? interrupt_protected(v, d) : interrupt_real(v, d);

	if (r)
		return r;
	v->shadow = v->shadow_ss = false;
	v->delivered = true;
	if (d->vector == VECTOR_DB)
		v->dr7 &= ~(u64)BIT(13); /* GD: the handler may use the debug registers */
	vcpu_mode_changed(v);
	return 0;
}

/* Classes of 8.2.9, Double fault. */
static bool
interrupt_is_contributory(u8 vector)
{
	return vector == VECTOR_DE || (vector >= VECTOR_TS && vector <= VECTOR_GP);
}

static bool
interrupt_makes_double(const struct delivery *first, u8 second)
{
	if (first->software || first->benign)
		return false;
	if (first->vector == VECTOR_PF)
		return second == VECTOR_PF || interrupt_is_contributory(second);
	return interrupt_is_contributory(first->vector) && interrupt_is_contributory(second);
}

/* RF in the image of a fault keeps an instruction breakpoint from firing again (13.1.3). */
static bool
interrupt_is_fault(u8 vector)
{
	switch (vector) {
	case VECTOR_DB:
	case VECTOR_NMI:
	case VECTOR_BP:
	case VECTOR_OF:
	case VECTOR_MC:
		return false;
	default:
		return vector < 32;
	}
}

static struct delivery
interrupt_from_event(const struct vcpu *v)
{
	const struct pending_event *event = &v->event;
	struct delivery d = {
		.vector = event->vector,
		.software = event->software,
		.ext = !event->software,
		.has_code = event->has_code && (v->cr0 & CR0_PE),
		.code = event->code,
		.rip = v->rip,
		.rflags = v->rflags,
	};

	if (!event->software && interrupt_is_fault(event->vector))
		d.rflags |= RFLAGS_RF;
	return d;
}

/* Delivers D, and what comes up meanwhile in its place, until something arrives. */
static int
interrupt_deliver(struct vcpu *v, struct delivery d)
{
	for (;;) {
		int r;

		v->event.pending = false;
		r = interrupt_attempt(v, &d);
		if (r != HELPER_FAULT)
			return r;
		if (d.vector == VECTOR_DF && !d.software && !d.benign)
			return -ESHUTDOWN;
		if (interrupt_makes_double(&d, v->event.vector))
			v->event = (struct pending_event){.has_code = true, .vector = VECTOR_DF};
		d = interrupt_from_event(v);
	}
}

int
interrupt_deliver_event(struct vcpu *v)
{
	struct pending_event original = v->event;
	int r = interrupt_deliver(v, interrupt_from_event(v));

	v->event.pending = false;
	if (r == HELPER_EXIT)
		v->event = original;
	return r;
}

int
interrupt_deliver_vector(struct vcpu *v, u8 vector)
{
	struct delivery d = {
		.vector = vector, .ext = true, .benign = true, .rip = v->rip, .rflags = v->rflags};
	int r = interrupt_deliver(v, d);

	/* It was taken from its controller already: it waits as an event. */
	v->event = (struct pending_event){.pending = r == HELPER_EXIT, .vector = vector};
	return r;
}

int
interrupt_deliver_nmi(struct vcpu *v)
{
	int r = interrupt_deliver_vector(v, VECTOR_NMI);

	if (r != -ESHUTDOWN)
		v->nmi_masked = true;
	return r;
}

int
interrupt_debug_trap(struct vcpu *v, u64 dr6_bits)
{
	/* The four condition bits are this trap's, the others stay until software clears them. */
	v->dr6 = (v->dr6 & ~0xfull) | dr6_bits;
	return interrupt_deliver_vector(v, VECTOR_DB);
}

/* Virtual 8086 mode with IOPL below 3 (8.11): the bitmap below the I/O bitmap says whether
 * the 8086 program handles INT n itself. 1 if it does, 0 if not, or a fault. */
static int
interrupt_vme_redirects(struct vcpu *v, u8 vector)
{
	u16 base;
	u8 bits;
	int r;

	if (!(v->cr4 & CR4_VME))
		return 0;
	if (v->tr.limit < 0x67)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = mmu_read16(v, descriptor_linear(v, v->tr.base + 0x66), &base, MMU_SUPERVISOR);
	if (r)
		return r;
	if (base < 32 || base - 32u + vector / 8u > v->tr.limit)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = mmu_read(v, descriptor_linear(v, v->tr.base + base - 32u + vector / 8u), &bits, 1,
		     MMU_SUPERVISOR);
	if (r)
		return r;
	return !((bits >> (vector & 7)) & 1);
}

static int
interrupt_vme(struct vcpu *v, struct delivery *d)
{
	bool virtual_if = (v->rflags & RFLAGS_IOPL) != RFLAGS_IOPL;
	int r;

	if (virtual_if) {
		d->rflags = (d->rflags | RFLAGS_IOPL) & ~(u64)RFLAGS_IF;
		if (v->rflags & RFLAGS_VIF)
			d->rflags |= RFLAGS_IF;
	}
	r = interrupt_through_vectors(v, d, 0);
	if (r)
		return r;
	v->delivered = true;
	v->rflags &= ~(u64)(RFLAGS_TF | RFLAGS_RF | (virtual_if ? RFLAGS_VIF : RFLAGS_IF));
	vcpu_mode_changed(v);
	return 0;
}

static int
interrupt_int_v86(struct vcpu *v, struct delivery *d)
{
	int r = interrupt_vme_redirects(v, d->vector);

	if (r < 0)
		return r;
	if (r)
		return interrupt_vme(v, d);
	if ((v->rflags & RFLAGS_IOPL) != RFLAGS_IOPL)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	return interrupt_attempt(v, d);
}

int
interrupt_int(struct vcpu *v, const struct insn *in)
{
	struct delivery d = {.software = true, .rip = v->rip + in->len, .rflags = v->rflags};
	int r;

	switch (in->opcode) {
	case 0xcc:
		d.vector = VECTOR_BP;
		break;
	case 0xce:
		if (!(v->rflags & RFLAGS_OF))
			return HELPER_NEXT;
		d.vector = VECTOR_OF;
		break;
	case 0xf1: /* ICEBP: like a trap of the debug unit, but DR6 stays */
		d.vector = VECTOR_DB;
		d.software = false;
		d.ext = true;
		break;
	default:
		d.vector = (u8)in->imm;
		break;
	}
	if (vcpu_64bit(v) == 0)
		d.rip = (u32)d.rip;
	if (in->opcode == 0xcd && (v->cr0 & CR0_PE) && (v->rflags & RFLAGS_VM))
		r = interrupt_int_v86(v, &d);
	else
		r = interrupt_attempt(v, &d);
	return r ? r : HELPER_JUMP;
}
