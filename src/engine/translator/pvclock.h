/*
 * The kvm clock: a page in guest memory that says how the guest's TSC maps to
 * nanoseconds, and one that says when its zero was. One fixed rate for all
 * vCPUs, counted from where the TSC would be had the guest never written it, or
 * from what the clock showed elsewhere, at the moment of the state that came from there.
 */
#ifndef TRANSLATOR_PVCLOCK_H
#define TRANSLATOR_PVCLOCK_H

#include "engine/translator/vcpu.h"

/* The guest's TSC now. */
u64 pvclock_guest_tsc(const struct vcpu *v);
/* Nanoseconds of the clock at this guest TSC. */
u64 pvclock_ns(const struct vcpu *v, u64 guest_tsc);

/* The system time MSR was written, the TSC was, or the vCPU's state was set. */
void pvclock_publish(struct vcpu *v);
/* The wall clock MSR was written: fills the structure at its address once. */
void pvclock_publish_wall(struct vcpu *v, u64 gpa);

#endif
