/*
 * cpu_state to and from the structures of the KVM API, without a system call: "to" is
 * towards KVM. What the two keep differently is named at each function. None fails;
 * judge.h says which states may come in.
 */
#ifndef ENGINE_KVM_CONVERT_H
#define ENGINE_KVM_CONVERT_H

#include <linux/kvm.h>

#include "base/types.h"
#include "cpu/cpu_state.h"

void convert_to_regs(const struct cpu_state *state, struct kvm_regs *regs);
void convert_from_regs(const struct kvm_regs *regs, struct cpu_state *state);

/* Segments, tables, CR0 to CR8, EFER, APIC base; no pending interrupt, which is convert_to_events'.
 */
void convert_to_sregs(const struct cpu_state *state, struct kvm_sregs *sregs);
void convert_from_sregs(const struct kvm_sregs *sregs, struct cpu_state *state);

/* KVM tells injected from pending events and STI from MOV SS; a cpu_state does not: an event that
 * was being delivered is pending again. */
void convert_to_events(const struct cpu_state *state, struct kvm_vcpu_events *events);
void convert_from_events(const struct kvm_vcpu_events *events, struct cpu_state *state);

u32 convert_to_mp_state(enum cpu_run_state run_state);
enum cpu_run_state convert_from_mp_state(u32 mp_state);

void convert_to_debug(const struct cpu_state *state, struct kvm_debugregs *debug);
void convert_from_debug(const struct kvm_debugregs *debug, struct cpu_state *state);

/* Standard format in both; reserved and software-owned bytes become zero. */
void convert_to_xsave(const struct cpu_state *state, struct kvm_xsave *xsave);
void convert_from_xsave(const struct kvm_xsave *xsave, struct cpu_state *state);

/* KVM keeps what is left of the timer's count (TMCCT), a cpu_state the monotonic time at which the
 * count began: NOW_NS is the moment of the conversion. base_msr and tsc_deadline are not here. */
void convert_to_lapic(const struct cpu_state *state, u64 now_ns, struct kvm_lapic_state *lapic);
void convert_from_lapic(const struct kvm_lapic_state *lapic, u64 now_ns, struct cpu_state *state);
/* Whether a count of the timer may have ended from one reading to the next. Its interrupt is in
 * the IRR once KVM has had the occasion to put it there (kvm_run_settle). */
bool convert_timer_passed(const struct kvm_lapic_state *before,
			  const struct kvm_lapic_state *after);

#endif
