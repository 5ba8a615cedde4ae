/*
 * Memory accesses of translated code that the TLB cannot serve: faults, MMIO,
 * page crossings, stores to translated pages, breakpoints. Such an instruction
 * is done on the bounce buffer.
 */
#ifndef TRANSLATOR_ACCESS_H
#define TRANSLATOR_ACCESS_H

#include "engine/translator/vcpu.h"

/* After LEAVE_ACCESS: 0 and t->resume, t->t0 set to go on in translated code;
 * HELPER_FAULT, or HELPER_EXIT; v->rip is the instruction's. */
int access_serve(struct vcpu *v);

/* After LEAVE_COMMIT: stores the bounce buffer. True: go on at t->resume. False: the
 * instruction is done and v->rip behind it. */
bool access_commit(struct vcpu *v);

#endif
