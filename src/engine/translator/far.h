/*
 * What far transfers, interrupts and IRET have in common: checks of a code
 * segment and the way there and back between privilege levels.
 */
#ifndef TRANSLATOR_FAR_H
#define TRANSLATOR_FAR_H

#include "engine/translator/descriptor.h"
#include "engine/translator/stack.h"

/* Is RIP inside the code segment CS, or canonical if it is a 64-bit one? Else #GP(ext). */
int far_check_rip(struct vcpu *v, const struct segment *cs, u64 rip, bool ext);

/* Checks of RETF and IRET (protected modes): CS to return to, its accessed bit set... */
int far_return_cs(struct vcpu *v, u16 selector, struct descriptor *cs);
/* ...and SS of an outer (or 64-bit) return to CS. A null SS gives a null segment. */
int far_return_ss(struct vcpu *v, u16 selector, const struct segment *cs, struct descriptor *ss);

/* Loads CS:RIP and CPL; SS may be NULL (kept). RSP is the caller's. Nothing can fail. */
void far_enter(struct vcpu *v, const struct segment *cs, u64 rip, const struct segment *ss);

/* How a task switch came about (AMD64 APM 2, 12.3). */
enum task_cause { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_INTERRUPT };

/* Switches to the TSS of SELECTOR. NEXT_RIP is what the old task resumes at. Returns HELPER_JUMP;
 * a fault after the switch has v->rip in the new task. */
int task_switch(struct vcpu *v, u16 selector, enum task_cause cause, u64 next_rip, bool ext);
/* IRET with NT: back along the link. */
int task_return(struct vcpu *v, u64 next_rip);
/* Task gates: 0 with the TSS selector. */
int task_gate(struct vcpu *v, const struct descriptor *gate, u16 *selector);

#endif
