/*
 * See convert.h.
 */
#include "engine/kvm/convert.h"

#include <string.h>

#include "base/bytes.h"

/* Local APIC registers by offset / 16. */
enum {
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_LVT_TIMER = 0x32,
	REG_TIMER_INITIAL = 0x38,
	REG_TIMER_CURRENT = 0x39,
	REG_TIMER_DIVIDE = 0x3e,
	LVT_MASKED = BIT(16),
	TIMER_PERIODIC = BIT(17),
	TIMER_TSC_DEADLINE = BIT(18),
	LAPIC_VERSION = 0x00050014,
};

enum {
	XSAVE_MXCSR = 24,
	XSAVE_SOFTWARE = 464,
	XSAVE_HEADER = 512,
	XSAVE_EXTENDED = 576,
	XSAVE_COMPONENTS = 7, /* x87, SSE, AVX */
};

void
convert_to_regs(const struct cpu_state *s, struct kvm_regs *r)
{
	*r = (struct kvm_regs){
		.rax = s->gpr[CPU_RAX],
		.rbx = s->gpr[CPU_RBX],
		.rcx = s->gpr[CPU_RCX],
		.rdx = s->gpr[CPU_RDX],
		.rsi = s->gpr[CPU_RSI],
		.rdi = s->gpr[CPU_RDI],
		.rsp = s->gpr[CPU_RSP],
		.rbp = s->gpr[CPU_RBP],
		.r8 = s->gpr[8],
		.r9 = s->gpr[9],
		.r10 = s->gpr[10],
		.r11 = s->gpr[11],
		.r12 = s->gpr[12],
		.r13 = s->gpr[13],
		.r14 = s->gpr[14],
		.r15 = s->gpr[15],
		.rip = s->rip,
		.rflags = s->rflags | RFLAGS_FIXED,
	};
}

void
convert_from_regs(const struct kvm_regs *r, struct cpu_state *s)
{
	const u64 gpr[CPU_GPRS] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
				   r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};

	memcpy(s->gpr, gpr, sizeof(gpr));
	s->rip = r->rip;
	s->rflags = r->rflags;
}

static struct kvm_segment
convert_to_segment(const struct segment *s)
{
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->attr & SEGMENT_TYPE,
		.s = (s->attr & SEGMENT_S) != 0,
		.dpl = (s->attr >> SEGMENT_DPL_SHIFT) & 3,
		.present = (s->attr & SEGMENT_P) != 0,
		.avl = (s->attr & SEGMENT_AVL) != 0,
		.l = (s->attr & SEGMENT_L) != 0,
		.db = (s->attr & SEGMENT_DB) != 0,
		.g = (s->attr & SEGMENT_G) != 0,
		.unusable = (s->attr & SEGMENT_P) == 0,
	};
}

static struct segment
convert_from_segment(const struct kvm_segment *k)
{
	u32 attr = (k->type & 15u) | (k->s ? SEGMENT_S : 0) | (k->dpl & 3u) << SEGMENT_DPL_SHIFT |
		   (k->present && !k->unusable ? SEGMENT_P : 0) | (k->avl ? SEGMENT_AVL : 0) |
		   (k->l ? SEGMENT_L : 0) | (k->db ? SEGMENT_DB : 0) | (k->g ? SEGMENT_G : 0);

	return (struct segment){
		.base = k->base, .limit = k->limit, .selector = k->selector, .attr = (u16)attr};
}

void
convert_to_sregs(const struct cpu_state *s, struct kvm_sregs *k)
{
	*k = (struct kvm_sregs){
		.cs = convert_to_segment(&s->seg[CPU_CS]),
		.ds = convert_to_segment(&s->seg[CPU_DS]),
		.es = convert_to_segment(&s->seg[CPU_ES]),
		.fs = convert_to_segment(&s->seg[CPU_FS]),
		.gs = convert_to_segment(&s->seg[CPU_GS]),
		.ss = convert_to_segment(&s->seg[CPU_SS]),
		.tr = convert_to_segment(&s->tr),
		.ldt = convert_to_segment(&s->ldt),
		.gdt = {.base = s->gdt.base, .limit = s->gdt.limit},
		.idt = {.base = s->idt.base, .limit = s->idt.limit},
		.cr0 = s->cr0 | CR0_ET,
		.cr2 = s->cr2,
		.cr3 = s->cr3,
		.cr4 = s->cr4,
		.cr8 = s->cr8,
		.efer = s->msr.efer,
		.apic_base = s->lapic.base_msr,
	};
	/* A CPU pays no heed to L outside long mode, and KVM refuses it. */
	k->cs.l &= (s->msr.efer & EFER_LMA) != 0;
}

void
convert_from_sregs(const struct kvm_sregs *k, struct cpu_state *s)
{
	s->seg[CPU_CS] = convert_from_segment(&k->cs);
	s->seg[CPU_DS] = convert_from_segment(&k->ds);
	s->seg[CPU_ES] = convert_from_segment(&k->es);
	s->seg[CPU_FS] = convert_from_segment(&k->fs);
	s->seg[CPU_GS] = convert_from_segment(&k->gs);
	s->seg[CPU_SS] = convert_from_segment(&k->ss);
	s->tr = convert_from_segment(&k->tr);
	s->ldt = convert_from_segment(&k->ldt);
	s->gdt = (struct descriptor_table){k->gdt.base, k->gdt.limit};
	s->idt = (struct descriptor_table){k->idt.base, k->idt.limit};
	s->cr0 = k->cr0;
	s->cr2 = k->cr2;
	s->cr3 = k->cr3;
	s->cr4 = k->cr4;
	s->cr8 = k->cr8;
	s->msr.efer = k->efer;
	s->lapic.base_msr = k->apic_base;
}

void
convert_to_events(const struct cpu_state *s, struct kvm_vcpu_events *k)
{
	const struct cpu_events *e = &s->events;
	/* STI's shadow with interrupts off is a state that Intel's CPUs refuse to enter. */
	u8 shadow = s->rflags & RFLAGS_IF ? KVM_X86_SHADOW_INT_STI : KVM_X86_SHADOW_INT_MOV_SS;

	memset(k, 0, sizeof(*k));
	k->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	if (e->exception_pending) {
		k->exception.injected = 1;
		k->exception.nr = e->exception_vector;
		k->exception.has_error_code = e->exception_has_code;
		k->exception.error_code = e->exception_has_code ? e->exception_code : 0;
	} else if (e->interrupt_pending) {
		k->interrupt.injected = 1;
		k->interrupt.nr = e->interrupt_vector;
	}
	k->interrupt.shadow = e->shadow ? shadow : 0;
	k->nmi.pending = e->nmi_pending;
	k->nmi.masked = e->nmi_masked;
}

void
convert_from_events(const struct kvm_vcpu_events *k, struct cpu_state *s)
{
	struct cpu_events *e = &s->events;

	memset(e, 0, sizeof(*e));
	if (k->exception.injected || k->exception.pending) {
		e->exception_pending = true;
		e->exception_vector = k->exception.nr;
		e->exception_has_code = k->exception.has_error_code;
		e->exception_code = k->exception.has_error_code ? k->exception.error_code : 0;
	} else if (k->interrupt.injected && !k->interrupt.soft) {
		/* A software interrupt comes again when its instruction is executed again. */
		e->interrupt_pending = true;
		e->interrupt_vector = k->interrupt.nr;
	}
	e->shadow = k->interrupt.shadow != 0;
	/* One whose delivery had begun is to be delivered again, and has masked nothing yet. */
	e->nmi_pending = k->nmi.pending || k->nmi.injected;
	e->nmi_masked = k->nmi.masked && !k->nmi.injected;
}

u32
convert_to_mp_state(enum cpu_run_state run_state)
{
	switch (run_state) {
	case CPU_HALTED:
		return KVM_MP_STATE_HALTED;
	case CPU_WAIT_INIT:
		return KVM_MP_STATE_UNINITIALIZED;
	case CPU_WAIT_SIPI:
		return KVM_MP_STATE_INIT_RECEIVED;
	case CPU_RUNNING:
		break;
	}
	return KVM_MP_STATE_RUNNABLE;
}

enum cpu_run_state
convert_from_mp_state(u32 mp_state)
{
	switch (mp_state) {
	case KVM_MP_STATE_HALTED:
		return CPU_HALTED;
	case KVM_MP_STATE_UNINITIALIZED:
		return CPU_WAIT_INIT;
	case KVM_MP_STATE_INIT_RECEIVED:
		return CPU_WAIT_SIPI;
	default:
		return CPU_RUNNING;
	}
}

void
convert_to_debug(const struct cpu_state *s, struct kvm_debugregs *k)
{
	memset(k, 0, sizeof(*k));
	memcpy(k->db, s->dr, sizeof(k->db));
	k->dr6 = (s->dr6 & 0xe00f) | 0xffff0ff0;
	k->dr7 = (s->dr7 & 0xffff23ff) | 0x400;
}

void
convert_from_debug(const struct kvm_debugregs *k, struct cpu_state *s)
{
	memcpy(s->dr, k->db, sizeof(s->dr));
	s->dr6 = k->dr6;
	s->dr7 = k->dr7;
}

/* What neither side may pass on: reserved header fields, components that no model has, the bytes
 * of the legacy area that the CPU leaves to software, MXCSR bits that raise #GP. */
static void
convert_clean_xsave(u8 *image)
{
	u64 components = get_le64(image + XSAVE_HEADER) & XSAVE_COMPONENTS;

	memset(image + XSAVE_SOFTWARE, 0, XSAVE_EXTENDED - XSAVE_SOFTWARE);
	put_le64(image + XSAVE_HEADER, components);
	put_le32(image + XSAVE_MXCSR, get_le32(image + XSAVE_MXCSR) & 0xffff);
}

void
convert_to_xsave(const struct cpu_state *s, struct kvm_xsave *k)
{
	_Static_assert(sizeof(k->region) == CPU_XSAVE_SIZE, "one page of state");
	memcpy(k->region, s->xsave, CPU_XSAVE_SIZE);
	convert_clean_xsave((u8 *)k->region);
}

void
convert_from_xsave(const struct kvm_xsave *k, struct cpu_state *s)
{
	memcpy(s->xsave, k->region, CPU_XSAVE_SIZE);
	convert_clean_xsave(s->xsave);
}

/* The timer counts at 1 GHz on both sides: the length of a count in ns. */
static unsigned
convert_timer_shift(const struct cpu_lapic *lapic)
{
	u32 divide = lapic->regs[REG_TIMER_DIVIDE];
	u32 power = (divide & 3) | (divide >> 1 & 4);

	return (power + 1) & 7; /* 0: by 2 .. 6: by 128, 7: by 1 */
}

static u32
convert_timer_left(const struct cpu_lapic *lapic, u64 now)
{
	u64 period = (u64)lapic->regs[REG_TIMER_INITIAL] << convert_timer_shift(lapic);
	u64 gone = now > lapic->timer_start_ns ? now - lapic->timer_start_ns : 0;
	u64 left;

	if (period == 0 || lapic->timer_start_ns == 0)
		return 0;
	if (lapic->regs[REG_LVT_TIMER] & TIMER_PERIODIC)
		gone %= period;
	else if (gone >= period)
		return 0;
	left = (period - gone) >> convert_timer_shift(lapic);
	return left ? (u32)left : 1;
}

void
convert_to_lapic(const struct cpu_state *s, u64 now, struct kvm_lapic_state *k)
{
	struct cpu_lapic lapic = s->lapic;
	u32 lvt = lapic.regs[REG_LVT_TIMER];

	if ((lapic.regs[REG_TPR] >> 4) != s->cr8)
		lapic.regs[REG_TPR] = (u32)s->cr8 << 4;
	lapic.regs[REG_TIMER_CURRENT] = convert_timer_left(&s->lapic, now);
	/* KVM takes a single count of which nothing is left for one that has ended just now, and
	 * sends its interrupt; one that stands still must not have an initial count. */
	if (!(lvt & (TIMER_PERIODIC | TIMER_TSC_DEADLINE | LVT_MASKED)) &&
	    lapic.timer_start_ns == 0)
		lapic.regs[REG_TIMER_INITIAL] = 0;
	memset(k, 0, sizeof(*k));
	for (unsigned i = 0; i < ARRAY_LEN(lapic.regs); i++)
		put_le32((u8 *)k->regs + i * 16, lapic.regs[i]);
}

static u32
convert_lapic_reg(const struct kvm_lapic_state *k, unsigned reg)
{
	return get_le32((const u8 *)k->regs + reg * 16);
}

/* When the count began, if it is known how much of it is left. */
static u64
convert_timer_start(const struct cpu_lapic *lapic, u64 now)
{
	unsigned shift = convert_timer_shift(lapic);
	u64 period = (u64)lapic->regs[REG_TIMER_INITIAL] << shift;
	u64 left = (u64)lapic->regs[REG_TIMER_CURRENT] << shift, gone;

	if (period == 0 || (lapic->regs[REG_LVT_TIMER] & TIMER_TSC_DEADLINE))
		return 0;
	gone = period > left ? period - left : 0;
	return now > gone ? now - gone : 1;
}

/* A single count of which nothing is left. */
static bool
convert_timer_ended(const struct kvm_lapic_state *k)
{
	u32 mode = convert_lapic_reg(k, REG_LVT_TIMER) & (TIMER_PERIODIC | TIMER_TSC_DEADLINE);

	return mode == 0 && convert_lapic_reg(k, REG_TIMER_INITIAL) != 0 &&
	       convert_lapic_reg(k, REG_TIMER_CURRENT) == 0;
}

bool
convert_timer_passed(const struct kvm_lapic_state *before, const struct kvm_lapic_state *after)
{
	u32 had = convert_lapic_reg(before, REG_TIMER_CURRENT);
	u32 left = convert_lapic_reg(after, REG_TIMER_CURRENT);

	if (convert_lapic_reg(after, REG_TIMER_INITIAL) == 0)
		return false;
	switch (convert_lapic_reg(after, REG_LVT_TIMER) & (TIMER_PERIODIC | TIMER_TSC_DEADLINE)) {
	case 0:
		return had && !left;
	case TIMER_PERIODIC:
		return left > had || !left;
	default: /* a deadline stays in its MSR until its interrupt is in the IRR */
		return false;
	}
}

void
convert_from_lapic(const struct kvm_lapic_state *k, u64 now, struct cpu_state *s)
{
	struct cpu_lapic *lapic = &s->lapic;

	for (unsigned i = 0; i < ARRAY_LEN(lapic->regs); i++)
		lapic->regs[i] = convert_lapic_reg(k, i);
	lapic->regs[REG_VERSION] = LAPIC_VERSION;
	lapic->timer_start_ns = convert_timer_ended(k) ? 0 : convert_timer_start(lapic, now);
}
