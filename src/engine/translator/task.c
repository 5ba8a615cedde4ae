/*
 * Hardware task switches of legacy modes (AMD64 APM 2, 12.2 and 12.3), with
 * TSSs of 16 and 32 bits. Memory is written first, the link and the busy bits
 * last; from task_load on the vCPU is the new task, and what fails then is a
 * fault of the new task.
 */
#include <string.h>

#include "base/bytes.h"
#include "engine/translator/control.h"
#include "engine/translator/far.h"
#include "engine/translator/system.h"

enum {
	TSS32_CR3 = 0x1c,
	TSS32_EIP = 0x20,
	TSS32_LDT = 0x60,
	TSS32_TRAP = 0x64,
	TSS32_SIZE = 0x68,
	TSS16_IP = 0x0e,
	TSS16_LDT = 0x2a,
	TSS16_SIZE = 0x2c,
};

/* What a TSS holds of a task. */
struct task {
	u32 cr3, eip, eflags, gpr[8];
	u16 selector[CPU_SEGMENTS], ldt;
	bool trap;
};

static bool
task_is_wide(const struct segment *tss)
{
	return tss->attr & 8;
}

static void
task_decode32(struct task *task, const u8 *raw)
{
	task->cr3 = get_le32(raw + TSS32_CR3);
	task->eip = get_le32(raw + TSS32_EIP);
	task->eflags = get_le32(raw + TSS32_EIP + 4);
	for (unsigned i = 0; i < 8; i++)
		task->gpr[i] = get_le32(raw + TSS32_EIP + 8 + 4 * i);
	for (unsigned i = 0; i < CPU_SEGMENTS; i++)
		task->selector[i] = get_le16(raw + TSS32_EIP + 40 + 4 * i);
	task->ldt = get_le16(raw + TSS32_LDT);
	task->trap = raw[TSS32_TRAP] & 1;
}

static void
task_decode16(struct task *task, const u8 *raw)
{
	memset(task, 0, sizeof(*task));
	task->eip = get_le16(raw + TSS16_IP);
	task->eflags = get_le16(raw + TSS16_IP + 2);
	for (unsigned i = 0; i < 8; i++)
		task->gpr[i] = get_le16(raw + TSS16_IP + 4 + 2 * i) | 0xffff0000;
	for (unsigned i = CPU_ES; i <= CPU_DS; i++)
		task->selector[i] = get_le16(raw + TSS16_IP + 20 + 2 * i);
	task->ldt = get_le16(raw + TSS16_LDT);
}

/* The task that runs now into its TSS, as it is to resume. */
static int
task_save(struct vcpu *v, u64 next_rip, u64 rflags)
{
	bool wide = task_is_wide(&v->tr);
	unsigned step = wide ? 4 : 2, at = wide ? TSS32_EIP : TSS16_IP;
	unsigned segments = wide ? CPU_SEGMENTS : CPU_DS + 1, len = 0;
	u8 raw[TSS32_SIZE] = {0};

	put_le32(raw + len, (u32)next_rip);
	len += step;
	put_le32(raw + len, (u32)rflags);
	len += step;
	for (unsigned i = 0; i < 8; i++, len += step)
		put_le32(raw + len, (u32)v->gpr[i]);
	for (unsigned i = 0; i < segments; i++, len += step)
		put_le32(raw + len, v->seg[i].selector);
	if (at + len - 1 > v->tr.limit)
		return descriptor_fault(v, VECTOR_TS, v->tr.selector, false);
	return mmu_write(v, (u32)(v->tr.base + at), raw, len, MMU_SUPERVISOR);
}

static int
task_check_tss(struct vcpu *v, u16 selector, enum task_cause cause, bool ext, struct descriptor *d)
{
	u8 vector = cause == TASK_IRET ? VECTOR_TS : VECTOR_GP, type;
	bool busy = cause == TASK_IRET;
	int r;

	if (selector_null(selector) || (selector & 4))
		return descriptor_fault(v, vector, selector, ext);
	r = descriptor_fetch(v, selector, d, vector, ext);
	if (r)
		return r;
	type = d->seg.attr & (SEGMENT_S | SEGMENT_TYPE);
	if ((type & ~(DESCRIPTOR_TSS_BUSY | 8)) != DESCRIPTOR_TSS16 ||
	    ((type & DESCRIPTOR_TSS_BUSY) != 0) != busy)
		return descriptor_fault(v, vector, selector, ext);
	if (!(d->seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_NP, selector, ext);
	if (d->seg.limit < (task_is_wide(&d->seg) ? TSS32_SIZE : TSS16_SIZE) - 1u)
		return descriptor_fault(v, VECTOR_TS, selector, ext);
	return 0;
}

static int
task_read(struct vcpu *v, const struct descriptor *d, struct task *task)
{
	bool wide = task_is_wide(&d->seg);
	u8 raw[TSS32_SIZE];
	int r = mmu_read(v, d->seg.base, raw, wide ? TSS32_SIZE : TSS16_SIZE, MMU_SUPERVISOR);

	if (r)
		return r;
	if (wide)
		task_decode32(task, raw);
	else
		task_decode16(task, raw);
	return 0;
}

/* The old task's TSS is free again after JMP and IRET. */
static int
task_free_old(struct vcpu *v)
{
	struct descriptor old;
	int r = descriptor_read(v, v->tr.selector, &old);

	if (r == DESCRIPTOR_OUTSIDE)
		return 0;
	return r ? r : descriptor_set_busy(v, &old, false);
}

static int
task_write_links(struct vcpu *v, struct descriptor *d, enum task_cause cause)
{
	int r = 0;

	if (cause == TASK_CALL || cause == TASK_INTERRUPT)
		r = mmu_write(v, d->seg.base, &v->tr.selector, 2, MMU_SUPERVISOR);
	else
		r = task_free_old(v);
	if (!r && cause != TASK_IRET)
		r = descriptor_set_busy(v, d, true);
	return r;
}

static int
task_load_ldt(struct vcpu *v, u16 selector)
{
	struct descriptor d;
	int r;

	v->ldt = segment_null(selector, 0);
	if (selector_null(selector))
		return 0;
	if (selector & 4)
		return descriptor_fault(v, VECTOR_TS, selector, false);
	r = descriptor_fetch(v, selector, &d, VECTOR_TS, false);
	if (r)
		return r;
	if ((d.seg.attr & (SEGMENT_P | SEGMENT_S | SEGMENT_TYPE)) != (SEGMENT_P | DESCRIPTOR_LDT))
		return descriptor_fault(v, VECTOR_TS, selector, false);
	v->ldt = d.seg;
	return 0;
}

/* A segment of the new task; what JMP and MOV answer with #GP is #TS here. */
static bool
task_segment_allowed(const struct vcpu *v, enum cpu_segment seg, const struct segment *s)
{
	u8 rpl = s->selector & 3, dpl = segment_dpl(s);

	if (seg == CPU_CS)
		return segment_is_code(s) && (segment_is_conforming(s) ? dpl <= rpl : dpl == rpl);
	if (seg == CPU_SS)
		return segment_is_writable(s) && dpl == v->cpl && rpl == v->cpl;
	return segment_is_readable(s) &&
	       (segment_is_conforming(s) || (rpl <= dpl && v->cpl <= dpl));
}

static int
task_load_segment(struct vcpu *v, enum cpu_segment seg)
{
	u16 selector = v->seg[seg].selector;
	struct descriptor d;
	int r;

	if (selector_null(selector)) {
		if (seg == CPU_CS || seg == CPU_SS)
			return descriptor_fault(v, VECTOR_TS, selector, false);
		return 0;
	}
	r = descriptor_fetch(v, selector, &d, VECTOR_TS, false);
	if (r)
		return r;
	if (!task_segment_allowed(v, seg, &d.seg))
		return descriptor_fault(v, VECTOR_TS, selector, false);
	if (!(d.seg.attr & SEGMENT_P))
		return descriptor_fault(v, seg == CPU_SS ? VECTOR_SS : VECTOR_NP, selector, false);
	r = descriptor_set_accessed(v, &d);
	if (!r)
		v->seg[seg] = d.seg;
	return r;
}

static int
task_load_segments(struct vcpu *v, const struct task *task)
{
	static const u8 order[] = {CPU_CS, CPU_SS, CPU_ES, CPU_DS, CPU_FS, CPU_GS};
	int r = task_load_ldt(v, task->ldt);

	if (v->rflags & RFLAGS_VM)
		return r;
	for (unsigned i = 0; i < ARRAY_LEN(order) && !r; i++)
		r = task_load_segment(v, order[i]);
	return r;
}

/* The vCPU becomes the new task; its segments hold selectors only, yet. */
static void
task_load(struct vcpu *v, const struct task *task, const struct descriptor *d)
{
	bool vm = task_is_wide(&d->seg) && (task->eflags & RFLAGS_VM);

	v->tr = d->seg;
	v->tr.attr |= DESCRIPTOR_TSS_BUSY;
	v->cr0 |= CR0_TS;
	v->dr7 &= ~0x155ull; /* local breakpoints are the old task's */
	v->rip = task->eip;
	v->rflags = (task->eflags & 0x277fd5) | RFLAGS_FIXED;
	v->cpl = vm ? 3 : task->selector[CPU_CS] & 3;
	for (unsigned i = 0; i < 8; i++)
		v->gpr[i] = task->gpr[i];
	for (unsigned i = 0; i < CPU_SEGMENTS; i++)
		v->seg[i] = vm ? segment_real(NULL, task->selector[i], i == CPU_CS, true)
			       : segment_null(task->selector[i], i == CPU_SS ? v->cpl : 0);
}

/* Faults from here on belong to the new task; an answer from MMIO cannot be waited for. */
static int
task_begin(struct vcpu *v, const struct task *task)
{
	int r = task_load_segments(v, task);

	if (!r && !(v->rflags & RFLAGS_VM))
		r = far_check_rip(v, &v->seg[CPU_CS], v->rip, false);
	if (r == HELPER_EXIT)
		r = descriptor_fault(v, VECTOR_TS, v->tr.selector, false);
	vcpu_mode_changed(v);
	if (!r && task->trap)
		r = interrupt_debug_trap(v, BIT(15));
	return r ? r : HELPER_JUMP;
}

/* CR3 of the new task; PAE tables are judged before anything is changed. */
static int
task_prepare_cr3(struct vcpu *v, const struct task *task, const struct descriptor *d, u64 pdpte[4])
{
	if (!task_is_wide(&d->seg) || !control_pae_paging(v->cr0, v->cr4, v->msr.efer))
		return 0;
	if (control_read_pdptes(v, task->cr3, pdpte))
		return descriptor_fault(v, VECTOR_TS, d->seg.selector, false);
	return 0;
}

static void
task_set_cr3(struct vcpu *v, const struct task *task, const struct descriptor *d,
	     const u64 pdpte[4])
{
	if (!task_is_wide(&d->seg) || !(v->cr0 & CR0_PG))
		return;
	if (control_pae_paging(v->cr0, v->cr4, v->msr.efer))
		memcpy(v->pdpte, pdpte, sizeof(v->pdpte));
	mmu_set_cr3(v, task->cr3);
}

int
task_switch(struct vcpu *v, u16 selector, enum task_cause cause, u64 next_rip, bool ext)
{
	u64 rflags = v->rflags, pdpte[4] = {0};
	struct descriptor d;
	struct task task;
	int r = task_check_tss(v, selector, cause, ext, &d);

	if (!r)
		r = task_read(v, &d, &task);
	if (!r)
		r = task_prepare_cr3(v, &task, &d, pdpte);
	if (cause == TASK_IRET)
		rflags &= ~(u64)RFLAGS_NT;
	if (!r)
		r = task_save(v, next_rip, rflags);
	if (!r)
		r = task_write_links(v, &d, cause);
	if (r)
		return r;
	if (cause == TASK_CALL || cause == TASK_INTERRUPT)
		task.eflags |= RFLAGS_NT;
	task_load(v, &task, &d);
	task_set_cr3(v, &task, &d, pdpte);
	return task_begin(v, &task);
}

int
task_return(struct vcpu *v, u64 next_rip)
{
	u16 link;
	int r = mmu_read16(v, (u32)v->tr.base, &link, MMU_SUPERVISOR);

	if (r)
		return r;
	r = task_switch(v, link, TASK_IRET, next_rip, false);
	if (r == HELPER_JUMP)
		v->nmi_masked = false;
	return r;
}

int
task_gate(struct vcpu *v, const struct descriptor *gate, u16 *selector)
{
	if (!(gate->seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_NP, gate->seg.selector, false);
	*selector = (u16)(gate->low >> 16);
	return 0;
}
