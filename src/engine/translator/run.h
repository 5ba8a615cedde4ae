/*
 * The loop of a vCPU: interrupts, blocks, helpers, what comes back from guest
 * code. The engine's `run`.
 */
#ifndef TRANSLATOR_RUN_H
#define TRANSLATOR_RUN_H

#include "engine/translator/vcpu.h"

int run_vcpu(struct vcpu *v, struct engine_exit *exit);

#endif
