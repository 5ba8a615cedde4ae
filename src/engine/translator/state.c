/*
 * A vCPU to and from cpu_state, and what RESET#, INIT and SIPI make of it
 * (AMD64 APM 2, 14.1). A state that comes in is judged whole before anything
 * is taken: it may come from a file.
 */
#include "engine/translator/state.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "cpu/control.h"
#include "engine/translator/control.h"
#include "engine/translator/descriptor.h"
#include "engine/translator/operand.h"
#include "engine/translator/pvclock.h"
#include "engine/translator/stub.h"
#include "engine/translator/system.h"
#include "engine/translator/translation.h"

enum {
	STATE_RFLAGS = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT |
		       RFLAGS_RF | RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID,
	STATE_XSAVE_HEADER = 512,
	STATE_XSAVE_AREA = 576,
	STATE_MXCSR = 24,
};
#define STATE_XSTATE (XSTATE_X87 | XSTATE_SSE | XSTATE_AVX)

static void
state_get_events(const struct vcpu *v, struct cpu_events *events)
{
	const struct pending_event *event = &v->event;

	*events = (struct cpu_events){
		.nmi_pending = v->nmi_pending,
		.nmi_masked = v->nmi_masked,
		.shadow = v->shadow || v->shadow_ss,
	};
	if (!event->pending)
		return;
	if (event->vector >= 32) {
		events->interrupt_pending = true;
		events->interrupt_vector = event->vector;
		return;
	}
	events->exception_pending = true;
	events->exception_has_code = event->has_code;
	events->exception_vector = event->vector;
	events->exception_code = event->code;
}

void
vcpu_get_state(struct vcpu *v, struct cpu_state *state, u64 host_tsc)
{
	memset(state, 0, sizeof(*state));
	memcpy(state->gpr, v->gpr, sizeof(state->gpr));
	state->rip = v->rip;
	state->rflags = v->rflags;
	memcpy(state->seg, v->seg, sizeof(state->seg));
	if (v->cr0 & CR0_PE) {
		u16 *ss = &state->seg[CPU_SS].attr;

		*ss = (u16)((*ss & ~(3u << SEGMENT_DPL_SHIFT)) | (u32)v->cpl << SEGMENT_DPL_SHIFT);
	}
	state->tr = v->tr;
	state->ldt = v->ldt;
	state->gdt = v->gdt;
	state->idt = v->idt;
	state->cr0 = v->cr0;
	state->cr2 = v->cr2;
	state->cr3 = v->cr3;
	state->cr4 = v->cr4;
	state->cr8 = lapic_get_cr8(&v->lapic);
	memcpy(state->dr, v->dr, sizeof(state->dr));
	state->dr6 = v->dr6;
	state->dr7 = v->dr7;
	state->xcr0 = v->xcr0;
	state->tsc = host_tsc + (u64)v->tsc_offset;
	state->kvmclock = pvclock_ns(v, state->tsc);
	state->host_tsc = host_tsc;
	state->msr = v->msr;
	state_get_events(v, &state->events);
	state->run_state = v->run_state;
	lapic_get(&v->lapic, &state->lapic);
	memcpy(state->xsave, v->xsave, sizeof(state->xsave));
}

static bool
state_valid(const struct vcpu *v, const struct cpu_state *s)
{
	if (!cpu_control_consistent(s->cr0, s->cr4, s->msr.efer) ||
	    (s->cr4 & ~cpu_control_cr4(v->model)) || (s->msr.efer & ~cpu_control_efer(v->model)) ||
	    !cpu_control_xcr0(v->model, s->xcr0))
		return false;
	/* No descriptor holds more; in 64-bit mode none is used. */
	if ((s->seg[CPU_CS].base >> 32) &&
	    !((s->msr.efer & EFER_LMA) && (s->seg[CPU_CS].attr & SEGMENT_L)))
		return false;
	if ((s->rflags & RFLAGS_VM) && (!(s->cr0 & CR0_PE) || (s->msr.efer & EFER_LMA)))
		return false;
	return s->run_state <= CPU_WAIT_SIPI && s->cr8 <= 15 && !(s->dr6 >> 32) &&
	       !(s->dr7 >> 32) && vcpu_canonical(s->gdt.base) && vcpu_canonical(s->idt.base) &&
	       vcpu_canonical(s->tr.base) && vcpu_canonical(s->ldt.base) &&
	       vcpu_canonical(s->msr.lstar) && vcpu_canonical(s->msr.cstar) &&
	       vcpu_canonical(s->msr.sysenter_eip) && vcpu_canonical(s->msr.sysenter_esp) &&
	       vcpu_canonical(s->msr.kernel_gs_base) && vcpu_canonical(s->seg[CPU_FS].base) &&
	       vcpu_canonical(s->seg[CPU_GS].base);
}

/* The host's XRSTOR loads this image: nothing in it may raise #GP there. */
static void
state_set_xsave(struct vcpu *v, const u8 *image)
{
	u64 bv = get_le64(image + STATE_XSAVE_HEADER) & STATE_XSTATE;

	memcpy(v->xsave, image, sizeof(v->xsave));
	memset(v->xsave + STATE_XSAVE_HEADER, 0, STATE_XSAVE_AREA - STATE_XSAVE_HEADER);
	put_le64(v->xsave + STATE_XSAVE_HEADER, bv);
	if (!stub_host_has_xsave()) /* FXRSTOR does not look at XSTATE_BV */
		operand_xstate_init(v->xsave, ~bv & STATE_XSTATE);
	put_le32(v->xsave + STATE_MXCSR, get_le32(image + STATE_MXCSR) & 0xffff);
}

static void
state_set_events(struct vcpu *v, const struct cpu_events *events)
{
	v->nmi_pending = events->nmi_pending;
	v->nmi_masked = events->nmi_masked;
	v->shadow = events->shadow;
	v->shadow_ss = false;
	v->event = (struct pending_event){0};
	if (events->exception_pending)
		v->event = (struct pending_event){
			.pending = true,
			.has_code = events->exception_has_code,
			.vector = events->exception_vector,
			.code = events->exception_code,
		};
	else if (events->interrupt_pending)
		v->event =
			(struct pending_event){.pending = true, .vector = events->interrupt_vector};
}

static void
state_set_segments(struct vcpu *v, const struct cpu_state *s)
{
	memcpy(v->seg, s->seg, sizeof(v->seg));
	v->tr = s->tr;
	v->ldt = s->ldt;
	v->gdt = s->gdt;
	v->idt = s->idt;
	if (!(s->cr0 & CR0_PE))
		v->cpl = 0;
	else
		v->cpl = s->rflags & RFLAGS_VM ? 3 : segment_dpl(&s->seg[CPU_SS]);
	if (vcpu_64bit(v))
		v->seg[CPU_CS].base = 0;
}

static void
state_set_control(struct vcpu *v, const struct cpu_state *s)
{
	v->cr0 = s->cr0 | CR0_ET;
	v->cr2 = s->cr2;
	v->cr4 = s->cr4;
	v->msr = s->msr;
	v->xcr0 = s->xcr0;
	memcpy(v->dr, s->dr, sizeof(v->dr));
	v->dr6 = (s->dr6 & 0xe00f) | 0xffff0ff0;
	v->dr7 = (s->dr7 & 0xffff23ff) | 0x400;
	if (control_pae_paging(v->cr0, v->cr4, v->msr.efer) &&
	    mmu_read_physical(v, s->cr3 & 0xffffffe0, v->pdpte, sizeof(v->pdpte)))
		memset(v->pdpte, 0, sizeof(v->pdpte));
	mmu_set_cr3(v, s->cr3);
}

/* What belonged to an instruction under way, or was still to be told. */
static void
state_forget(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	v->replay.count = v->replay.next = 0;
	v->delivered = false;
	t->mmio_writes_count = t->mmio_writes_next = 0;
	t->answer_due = t->writing_later = t->halt_told = t->again = false;
	t->watch_hits = 0;
	t->eoi_any = false;
	memset(t->eoi, 0, sizeof(t->eoi));
}

int
vcpu_set_state(struct vcpu *v, const struct cpu_state *state, u64 host_tsc)
{
	if (!state_valid(v, state))
		return -EINVAL;
	memcpy(v->gpr, state->gpr, sizeof(v->gpr));
	v->rip = state->rip;
	v->rflags = (state->rflags & STATE_RFLAGS) | RFLAGS_FIXED;
	state_set_control(v, state);
	state_set_segments(v, state);
	v->tsc_offset = (i64)(state->tsc - host_tsc);
	v->clock_tsc = state->kvmclock ? state->tsc : state->msr.tsc_adjust;
	v->clock_ns = state->kvmclock;
	state_set_events(v, &state->events);
	v->run_state = state->run_state;
	state_forget(v);
	lapic_set(&v->lapic, &state->lapic);
	if (lapic_get_cr8(&v->lapic) != state->cr8)
		lapic_set_cr8(&v->lapic, state->cr8);
	state_set_xsave(v, state->xsave);
	mmu_flush_all(v);
	vcpu_mode_changed(v);
	pvclock_publish(v);
	return 0;
}

/* INIT leaves alone: caches' control bits, FPU state, MSRs but EFER, XCR0, the TSC. */
void
system_init(struct vcpu *v)
{
	bool bootstrap = v->lapic.s.base_msr & BIT(8);
	u64 cr0 = (v->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
	struct cpu_state reset;
	u32 leaf[4];

	cpu_state_reset(&reset, v->index);
	cpu_model_cpuid(v->model, v->index, 0, v->xcr0, 1, 0, leaf);
	memset(v->gpr, 0, sizeof(v->gpr));
	v->gpr[CPU_RDX] = leaf[0];
	v->rip = reset.rip;
	v->rflags = reset.rflags;
	v->cr0 = cr0;
	v->cr2 = v->cr4 = 0;
	v->msr.efer = 0;
	v->cpl = 0;
	memcpy(v->seg, reset.seg, sizeof(v->seg));
	v->tr = reset.tr;
	v->ldt = reset.ldt;
	v->gdt = reset.gdt;
	v->idt = reset.idt;
	memset(v->dr, 0, sizeof(v->dr));
	v->dr6 = reset.dr6;
	v->dr7 = reset.dr7;
	state_set_events(v, &reset.events);
	v->replay.count = v->replay.next = 0;
	vcpu_translation(v)->halt_told = false;
	vcpu_translation(v)->watch_hits = 0;
	lapic_reset(&v->lapic);
	v->run_state = bootstrap ? CPU_RUNNING : CPU_WAIT_SIPI;
	mmu_set_cr3(v, 0);
	mmu_flush_all(v);
	vcpu_mode_changed(v);
}

void
system_sipi(struct vcpu *v, u8 vector)
{
	if (v->run_state != CPU_WAIT_SIPI)
		return;
	v->seg[CPU_CS] = segment_real(&v->seg[CPU_CS], (u16)(vector << 8), true, false);
	v->rip = 0;
	v->run_state = CPU_RUNNING;
	vcpu_mode_changed(v);
}
