/*
 * A vCPU of the translator to and from cpu_state, which is all that a machine
 * knows of it. Both are called outside guest code, from the vCPU's own thread.
 *
 * CPL has no field in cpu_state: it is the DPL of SS, as in a VMCB (15.5.1).
 */
#ifndef TRANSLATOR_STATE_H
#define TRANSLATOR_STATE_H

#include "engine/translator/vcpu.h"

/* HOST_TSC is the host's counter at the moment that state->tsc stands for. Whoever moves all
 * vCPUs of a machine takes one reading for all of them, or their TSCs drift apart. */
void vcpu_get_state(struct vcpu *v, struct cpu_state *state, u64 host_tsc);

/* Takes over STATE, drops every translation of addresses. 0, or -EINVAL if no
 * CPU can be in such a state (then nothing changed). */
int vcpu_set_state(struct vcpu *v, const struct cpu_state *state, u64 host_tsc);

#endif
