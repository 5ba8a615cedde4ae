/*
 * Faults of the host that belong to the guest: SIGSEGV at a poll or by a
 * misaligned vector operand, SIGFPE by a division or an unmasked floating-point
 * exception, and the timer's signal. One handler slot for the process.
 */
#ifndef TRANSLATOR_SIGNALS_H
#define TRANSLATOR_SIGNALS_H

#include "engine/translator/translation.h"

/* Installs the handlers once; 0 or -errno. */
int signals_install(void);

/* The calling thread runs V now (NULL: no more), signals on V's alternate stack. */
int signals_enter(struct vcpu *v);
/* V does not run any more: by its own thread, or once that has ended. */
void signals_free_stack(struct vcpu *v);

/* A timer whose expiry kicks V's thread. */
int signals_timer_create(struct vcpu *v);
void signals_timer_destroy(struct vcpu *v);
/* Arms it for a monotonic time, 0 disarms. */
void signals_timer_arm(struct vcpu *v, u64 deadline_ns);

#endif
