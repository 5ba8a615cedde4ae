/*
 * The privileged architecture in C: what happens when an exception or
 * interrupt is delivered, a segment is loaded, control crosses a privilege
 * level, a control register or MSR changes. Sections are those of AMD64 APM
 * volume 2. Helpers of the "full" kind (see vcpu.h).
 *
 * Files: interrupt.c (delivery, IRET), segment.c (loads, LAR family),
 * far.c (far CALL, JMP, RET, task switch), syscall.c, control.c (CR, DR, MSR,
 * XCR0, CPUID, cache and TLB instructions), rare.c (BCD, PUSHA, BOUND, ENTER and
 * others that translated code cannot do), string.c, xstate.c (XSAVE family).
 */
#ifndef TRANSLATOR_SYSTEM_H
#define TRANSLATOR_SYSTEM_H

#include "engine/translator/mmu.h"
#include "engine/translator/vcpu.h"

/* Delivers v->event (or an external vector): pushes the frame, loads CS:RIP. Nested
 * faults become #DF, then shutdown. 0, HELPER_EXIT (answer MMIO, call again), or
 * -ESHUTDOWN for a triple fault. v->rip is that of the faulting instruction, or of
 * the next one for traps and interrupts. */
int interrupt_deliver_event(struct vcpu *v);
/* These take what is no event yet; after HELPER_EXIT it is one, for interrupt_deliver_event. */
int interrupt_deliver_vector(struct vcpu *v, u8 vector); /* external */
int interrupt_deliver_nmi(struct vcpu *v);
/* A #DB trap: DR6 bits to set. */
int interrupt_debug_trap(struct vcpu *v, u64 dr6_bits);

/* INT n, INT3, INTO, INT1 / IRET in all modes. */
int interrupt_int(struct vcpu *v, const struct insn *in);
int interrupt_iret(struct vcpu *v, const struct insn *in);

/* Loads a data or stack segment register with all checks (4.5). CS is far.c's. */
int segment_load(struct vcpu *v, enum cpu_segment seg, u16 selector);

/* The helper for an instruction that is not re-encoded, by map and opcode (and
 * modrm); NULL if there is none (then it raises #UD). The only table. */
helper_fn *system_helper(const struct insn *in);

/* INIT and SIPI as they reach a vCPU (14.1.3, 15.27.8). */
void system_init(struct vcpu *v);
void system_sipi(struct vcpu *v, u8 vector);

#endif
