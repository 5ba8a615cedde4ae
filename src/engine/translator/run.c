/*
 * One turn of the loop is at an instruction boundary: mail is read, an
 * interrupt taken if one may be, then guest code runs until something leaves it.
 */
#include "engine/translator/run.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/loop.h"
#include "engine/translator/access.h"
#include "engine/translator/block.h"
#include "engine/translator/build.h"
#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/mmio.h"
#include "engine/translator/mode.h"
#include "engine/translator/pages.h"
#include "engine/translator/signals.h"
#include "engine/translator/stub.h"
#include "engine/translator/system.h"

/* What a step of the loop tells it. */
enum { RUN_ON = 0, RUN_LEAVE = 1 };

static int
run_exit(struct vcpu *v, enum engine_exit_kind kind)
{
	v->exit = (struct engine_exit){.kind = kind};
	return RUN_LEAVE;
}

static int
run_failed(struct vcpu *v, const char *why)
{
	v->exit = (struct engine_exit){.kind = EXIT_FAILED};
	snprintf(v->exit.failed.why, sizeof(v->exit.failed.why), "%s at %04x:%016llx", why,
		 v->seg[CPU_CS].selector, (unsigned long long)v->rip);
	return RUN_LEAVE;
}

/* After an attempt to deliver something. */
static int
run_delivered(struct vcpu *v, int result)
{
	if (result == HELPER_EXIT)
		return RUN_LEAVE;
	v->replay.count = v->replay.next = 0;
	if (result == -ESHUTDOWN)
		return run_exit(v, EXIT_SHUTDOWN);
	return RUN_ON;
}

static int
run_deliver_event(struct vcpu *v)
{
	v->replay.next = 0;
	return run_delivered(v, interrupt_deliver_event(v));
}

/* The next interrupt's vector, or -1; *extint if it comes from outside the local APIC. */
static int
run_pending_vector(struct vcpu *v, bool *extint)
{
	int vector = lapic_pending(&v->lapic);

	*extint = false;
	if (vector >= 0)
		return vector;
	if (__atomic_load_n(&v->engine->extint, __ATOMIC_ACQUIRE) &&
	    lapic_accepts_extint(&v->lapic)) {
		*extint = true;
		return 0;
	}
	return -1;
}

static int
run_interrupt(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	bool extint;
	int vector = run_pending_vector(v, &extint);

	t->irq_waiting = vector >= 0;
	if (vector < 0 || !(v->rflags & RFLAGS_IF))
		return RUN_ON;
	if (extint)
		vector = v->engine->config.extint_vector(v->engine->config.opaque);
	else
		lapic_accept(&v->lapic, (u8)vector);
	if (vector < 0)
		return RUN_ON;
	v->run_state = CPU_RUNNING;
	v->replay.next = 0;
	return run_delivered(v, interrupt_deliver_vector(v, (u8)vector));
}

static int
run_nmi(struct vcpu *v)
{
	if (lapic_take_nmi(&v->lapic))
		v->nmi_pending = true;
	if (!v->nmi_pending || v->nmi_masked)
		return RUN_ON;
	v->nmi_pending = false;
	v->run_state = CPU_RUNNING;
	v->replay.next = 0;
	return run_delivered(v, interrupt_deliver_nmi(v));
}

/* The machine has answered part of an instruction: it must end before anything else happens,
 * or a device would be asked twice. */
static bool
run_answered(const struct vcpu *v)
{
	return v->replay.count != 0;
}

static int
run_events(struct vcpu *v)
{
	if (v->event.pending)
		return run_deliver_event(v);
	if (v->shadow || v->shadow_ss || run_answered(v))
		return RUN_ON;
	if (run_nmi(v) == RUN_LEAVE)
		return RUN_LEAVE;
	return run_interrupt(v);
}

/* What a kick may mean. That the machine wants the vCPU back is kept for run_wanted. */
static void
run_kicked(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	__atomic_store_n(&t->poll, &t->poll_word, __ATOMIC_SEQ_CST);
	pages_park(v);
	pages_mail(v);
	if (t->flush_wanted)
		block_flush(v);
	t->flush_wanted = false;
	if (run_answered(v))
		t->starts_later = true;
	else
		pages_starts(v);
	if (v->lapic.timer_deadline && loop_now() >= v->lapic.timer_deadline)
		lapic_timer_expire(&v->lapic, loop_now());
	pthread_mutex_lock(&t->mail.lock);
	t->leave_wanted |= t->mail.kick;
	t->mail.kick = false;
	pthread_mutex_unlock(&t->mail.lock);
}

/* The machine gets the vCPU at an instruction boundary only, with nothing left to be told. */
static bool
run_wanted(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	if (run_answered(v)) {
		if (t->leave_wanted || t->starts_later)
			pages_kick(v); /* to be back here right behind the instruction */
		t->starts_later = false;
		return false;
	}
	if (!t->leave_wanted)
		return false;
	t->leave_wanted = false;
	run_exit(v, EXIT_KICKED);
	return true;
}

static bool
run_would_wake(struct vcpu *v)
{
	bool extint;

	if (v->run_state == CPU_WAIT_SIPI || v->run_state == CPU_WAIT_INIT)
		return false;
	if (lapic_take_nmi(&v->lapic))
		v->nmi_pending = true;
	if (v->event.pending || (v->nmi_pending && !v->nmi_masked))
		return true;
	return (v->rflags & RFLAGS_IF) && run_pending_vector(v, &extint) >= 0;
}

/* The machine is told of the end of a level-triggered interrupt. */
static bool
run_eoi(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	if (!t->eoi_any)
		return false;
	for (unsigned i = 0; i < 8; i++) {
		if (!t->eoi[i])
			continue;
		run_exit(v, EXIT_EOI);
		v->exit.eoi.vector = (u8)(i * 32 + (unsigned)__builtin_ctz(t->eoi[i]));
		t->eoi[i] &= t->eoi[i] - 1;
		return true;
	}
	t->eoi_any = false;
	return false;
}

/* Halted, or not yet started: sleeps until kicked or the local APIC's timer is due. */
static int
run_wait(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	u64 deadline = v->lapic.timer_deadline;
	struct timespec when = {(time_t)(deadline / 1000000000u), (long)(deadline % 1000000000u)};

	if (v->run_state == CPU_HALTED && !(v->rflags & RFLAGS_IF) && !t->halt_told) {
		t->halt_told = true;
		return run_exit(v, EXIT_HALT);
	}
	__atomic_store_n(&t->in_guest, 0, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&t->mail.lock);
	while (!translation_kicked(t)) {
		if (!deadline)
			pthread_cond_wait(&t->mail.wake, &t->mail.lock);
		else if (pthread_cond_timedwait(&t->mail.wake, &t->mail.lock, &when) == ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&t->mail.lock);
	__atomic_store_n(&t->in_guest, 1, __ATOMIC_SEQ_CST);
	run_kicked(v);
	return RUN_ON;
}

/* A trap after an instruction that began with TF set, or hit a data breakpoint. */
static int
run_traps(struct vcpu *v, bool traced)
{
	struct translation *t = vcpu_translation(v);
	u64 bits = t->watch_hits | (traced ? BIT(14) : 0u);

	if (v->shadow_ss)
		return RUN_ON; /* MOV SS holds them until one more instruction has run */
	t->watch_hits = 0;
	if (!bits || v->event.pending)
		return RUN_ON;
	v->replay.next = 0;
	return run_delivered(v, interrupt_debug_trap(v, bits));
}

static void
run_set_rip(struct vcpu *v, u64 linear)
{
	u64 rip = linear - v->seg[CPU_CS].base;

	v->rip = (vcpu_translation(v)->mode & MODE_CODE64) ? rip : (u32)rip;
}

static int
run_helper(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	const struct helper_site *h = t->helper;
	u64 rip;
	int result;

	run_set_rip(v, t->page_va + h->guest);
	t->count.helpers++;
	v->replay.next = 0;
	result = h->fn(v, &h->in);
	if (result == HELPER_EXIT)
		return RUN_LEAVE;
	v->replay.count = v->replay.next = 0;
	t->again = result == HELPER_AGAIN;
	if (result == HELPER_NEXT || result == HELPER_HALT) {
		rip = v->rip + h->in.len;
		v->rip = (t->mode & MODE_CODE64)   ? rip
			 : (t->mode & MODE_CODE32) ? (u32)rip
						   : (u16)rip;
	}
	if (result == HELPER_HALT) {
		v->run_state = CPU_HALTED;
		t->halt_told = false;
	}
	return RUN_ON;
}

/* A host fault in translated code, by the host's trap number. */
static int
run_signal(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	struct block *b = block_at(t, (const u8 *)t->signal_pc);
	const struct site *s = b ? block_site(t, b, (const u8 *)t->signal_pc) : NULL;

	if (!s)
		return run_failed(v, "host fault in translated code");
	if (s->flags & FLAGS_R)
		v->rflags = (v->rflags & ~(u64)RFLAGS_ARITH) | flags_from_m(t->flags_r);
	run_set_rip(v, t->page_va + s->guest);
	if (s->poll)
		return RUN_ON;
	switch (t->signal_trap) {
	case VECTOR_DE:
	case VECTOR_MF:
		vcpu_raise(v, (u8)t->signal_trap);
		return RUN_ON;
	case VECTOR_XM:
		vcpu_raise(v, (v->cr4 & CR4_OSXMMEXCPT) ? VECTOR_XM : VECTOR_UD);
		return RUN_ON;
	case VECTOR_UD:
		vcpu_raise(v, VECTOR_UD);
		return RUN_ON;
	case VECTOR_GP:
		vcpu_raise_code(v, VECTOR_GP, 0);
		return RUN_ON;
	default:
		return run_failed(v, "unexpected host fault in translated code");
	}
}

/* A near branch to where no code can be: it faults as if it had not begun, but for what CALL
 * stored below the stack. */
static int
run_branch_fault(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	i64 undo = (i32)t->branch >> BRANCH_UNDO_SHIFT;
	u64 rsp = v->gpr[CPU_RSP] + (u64)undo;

	if (undo)
		v->gpr[CPU_RSP] = (t->mode & MODE_CODE64) ? rsp : (u32)rsp;
	run_set_rip(v, t->page_va + (t->branch & BRANCH_AT));
	vcpu_raise_code(v, VECTOR_GP, 0);
	return RUN_ON;
}

/* Guest code runs from t->resume; then what it left for is done, until it is at an
 * instruction boundary. */
static int
run_guest(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	for (;;) {
		t->flags = flags_to_m(v->rflags);
		stub_run(t);
		t->count.leaves++;
		v->rflags = (v->rflags & ~(u64)RFLAGS_ARITH) | flags_from_m(t->flags);
		switch ((enum leave_reason)t->reason) {
		case LEAVE_JUMP:
			run_set_rip(v, t->linear);
			return RUN_ON;
		case LEAVE_BRANCH:
			return run_branch_fault(v);
		case LEAVE_LINK:
			run_set_rip(v, t->page_va + t->link->target);
			return RUN_ON;
		case LEAVE_HELPER:
			return run_helper(v);
		case LEAVE_SIGNAL:
			return run_signal(v);
		case LEAVE_COMMIT:
			if (!access_commit(v))
				return RUN_ON;
			break;
		case LEAVE_ACCESS:
			switch (access_serve(v)) {
			case 0:
				break;
			case HELPER_EXIT:
				return RUN_LEAVE;
			default:
				v->replay.count = v->replay.next = 0;
				return RUN_ON;
			}
			break;
		}
	}
}

/* Instruction breakpoints (13.1.2): hits at RIP, before the instruction. */
static u64
run_code_breakpoints(const struct vcpu *v, u64 linear)
{
	u64 hits = 0;

	if (v->rflags & RFLAGS_RF)
		return 0;
	for (unsigned i = 0; i < 4; i++)
		if ((v->dr7 >> (2 * i) & 3) && (v->dr7 >> (16 + 4 * i) & 3) == 0 &&
		    v->dr[i] == linear)
			hits |= BIT64(i);
	return hits;
}

static u64
run_linear(const struct vcpu *v)
{
	return vcpu_64bit(v) ? v->rip : (u32)(v->rip + v->seg[CPU_CS].base);
}

/* Enters guest code at RIP. */
static int
run_block(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	u64 linear = run_linear(v);
	struct block *b;

	if (!vcpu_64bit(v) && v->rip > v->seg[CPU_CS].limit) {
		vcpu_raise_code(v, VECTOR_GP, 0);
		return RUN_ON;
	}
	b = leaf_find_block(v, linear);
	if (!b)
		b = translate(v, linear);
	if (!b && v->event.pending)
		return RUN_ON;
	if (!b)
		return run_failed(v, "code outside of RAM");
	leaf_enter(v, b, linear);
	t->resume = b->entry;
	t->block_died = false;
	return run_guest(v);
}

/* One instruction by itself: under a shadow, traced, or with breakpoints. */
static int
run_single(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	bool traced = (v->rflags & RFLAGS_TF) != 0, shadow = v->shadow, shadow_ss = v->shadow_ss;
	u32 mode = t->mode;
	u64 hits = shadow_ss ? 0 : run_code_breakpoints(v, run_linear(v));
	u64 resume = v->rflags & RFLAGS_RF;
	int result;

	if (hits) {
		v->dr6 |= hits;
		v->event = (struct pending_event){.pending = true, .vector = VECTOR_DB};
		return RUN_ON;
	}
	v->shadow = v->shadow_ss = false;
	v->rflags &= ~resume; /* it held for this instruction; IRET may set it for the next */
	v->delivered = t->again = false;
	t->mode |= MODE_SINGLE;
	result = run_block(v);
	/* Unless the instruction itself has begun tracing. */
	if (t->mode == (mode | MODE_SINGLE) && !(v->rflags & RFLAGS_TF) && !(v->dr7 & 0xff))
		t->mode = mode;
	if (result == RUN_LEAVE) { /* the instruction is to be run again */
		v->shadow = shadow;
		v->shadow_ss = shadow_ss;
		v->rflags |= resume;
		return result;
	}
	if (t->again) /* between the steps of a repetition its breakpoint is not looked at again */
		v->rflags |= RFLAGS_RF;
	/* INT n clears TF before its trap would come. */
	return run_traps(v, traced && !v->event.pending && !v->delivered);
}

static int
run_step(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	if (translation_kicked(t))
		run_kicked(v);
	if (mmio_next_write(v) || run_eoi(v) || run_wanted(v))
		return RUN_LEAVE;
	if (v->run_state != CPU_RUNNING && !run_would_wake(v))
		return run_wait(v);
	if (run_events(v) == RUN_LEAVE)
		return RUN_LEAVE;
	if (v->event.pending)
		return RUN_ON;
	if (v->run_state != CPU_RUNNING)
		return RUN_ON;
	if (v->shadow || v->shadow_ss || (t->mode & MODE_SINGLE) || (v->rflags & RFLAGS_RF))
		return run_single(v);
	return run_block(v);
}

int
run_vcpu(struct vcpu *v, struct engine_exit *exit)
{
	struct translation *t = vcpu_translation(v);
	int error = signals_enter(v);

	if (error)
		return error;
	if (!t->timer_armed && signals_timer_create(v) == 0 && v->lapic.timer_deadline)
		signals_timer_arm(v, v->lapic.timer_deadline);
	if (t->answer_due)
		mmio_answer(v, exit);
	t->answer_due = t->writing_later = false;
	__atomic_store_n(&t->in_guest, 1, __ATOMIC_SEQ_CST);
	pages_mail(v);
	while (run_step(v) == RUN_ON)
		;
	__atomic_store_n(&t->in_guest, 0, __ATOMIC_SEQ_CST);
	*exit = v->exit;
	t->answer_due = (exit->kind == EXIT_PORT || exit->kind == EXIT_MMIO) && !t->writing_later;
	return 0;
}
