/*
 * Whether a state, which may come from a file, may be given to KVM: everything that KVM would
 * refuse only after half of it was taken, or that its KVM_RUN would stumble over.
 */
#ifndef ENGINE_KVM_JUDGE_H
#define ENGINE_KVM_JUDGE_H

#include "cpu/cpu_state.h"
#include "cpu/cpuid.h"

/* ID is the x2APIC id of the vCPU that is to take STATE. */
bool judge_state(const struct cpu_state *state, const struct cpu_model *model, u32 id);

#endif
