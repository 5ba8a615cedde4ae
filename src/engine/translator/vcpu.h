/*
 * A vCPU of the translator: the state that translated code reaches
 * RIP-relative, and what the C helpers work on.
 *
 * While guest code runs, most general registers are in the host's registers and
 * vector state in the host's vector registers. When a C helper of the "full"
 * kind runs, everything is here: gpr[], rip (of the instruction it serves),
 * rflags (all bits), and vector state in xsave.
 */
#ifndef TRANSLATOR_VCPU_H
#define TRANSLATOR_VCPU_H

#include <pthread.h>

#include "cpu/cpu_state.h"
#include "cpu/cpuid.h"
#include "cpu/lapic.h"
#include "cpu/walk.h"
#include "engine/engine.h"
#include "engine/translator/insn.h"

struct vcpu;

/* What a helper returns. */
enum helper_result {
	HELPER_NEXT = 0,   /* go on behind the instruction */
	HELPER_JUMP = 1,   /* vcpu->rip (and perhaps mode) was set: go on there */
	HELPER_AGAIN = 2,  /* run the same instruction again (REP step, after an interrupt check) */
	HELPER_HALT = 3,   /* HLT: wait behind the instruction */
	HELPER_FAULT = -1, /* raise() was called; nothing of the instruction took effect */
	HELPER_EXIT =
		-2, /* vcpu->exit is filled: ask the machine, then run the instruction again */
};

typedef int helper_fn(struct vcpu *v, const struct insn *in);

/* Accesses of the instruction under way that the machine has answered: when it
 * runs again they are taken from here, in order (MMIO and port I/O). */
struct replay {
	struct replay_entry {
		u64 address; /* gpa, or port */
		u64 data;
		u8 size;
		bool port, write;
	} entries[16];
	unsigned count; /* answered */
	unsigned next;	/* consumed by this attempt */
};

struct pending_event {
	bool pending;
	bool has_code;
	bool software; /* INT n, INT3, INTO: DPL checked, return address behind */
	u8 vector;
	u32 code;
};

struct vcpu {
	u64 gpr[CPU_GPRS];
	u64 rip;
	u64 rflags; /* all bits valid in full helpers and outside guest code */
	struct segment seg[CPU_SEGMENTS];
	struct segment tr, ldt;
	struct descriptor_table gdt, idt;
	u64 cr0, cr2, cr3, cr4;
	u64 dr[4], dr6, dr7;
	u64 xcr0;
	u64 pdpte[4];
	struct cpu_msrs msr;
	u8 cpl;
	bool nmi_pending, nmi_masked;
	bool shadow;		    /* interrupts held for one instruction (STI) */
	bool shadow_ss;		    /* the same by MOV SS / POP SS: debug traps too */
	bool delivered;		    /* set by each delivery, INT n too; whoever asks clears it */
	struct pending_event event; /* raised by the instruction under way */
	i64 tsc_offset;		    /* guest TSC = host TSC + offset */
	u64 clock_tsc, clock_ns;    /* the kvm clock shows clock_ns at this guest TSC */
	enum cpu_run_state run_state;
	struct lapic lapic;
	struct replay replay;
	struct engine_exit exit;
	unsigned index;
	const struct cpu_model *model;
	struct engine *engine;
	u32 refused_msrs[32]; /* whose #GP was logged */
	unsigned refused_count;
	u8 xsave[CPU_XSAVE_SIZE] ALIGNED(64);
	struct translation *tr_state; /* the translator's own half: tlb, code, links */
};

/* Records an exception and returns HELPER_FAULT. RIP stays that of the instruction. */
int vcpu_raise(struct vcpu *v, u8 vector);
int vcpu_raise_code(struct vcpu *v, u8 vector, u32 code);

/* To be called after CR0, CR4, EFER, XCR0, CS, SS, CPL, RFLAGS.AC/VM/TF, DR7 or
 * segment bases and limits changed: derives the mode in which code is translated. */
void vcpu_mode_changed(struct vcpu *v);

static inline bool
vcpu_long_mode(const struct vcpu *v)
{
	return (v->msr.efer & EFER_LMA) != 0;
}

static inline bool
vcpu_64bit(const struct vcpu *v)
{
	return vcpu_long_mode(v) && (v->seg[CPU_CS].attr & SEGMENT_L);
}

static inline bool
vcpu_protected(const struct vcpu *v)
{
	return (v->cr0 & CR0_PE) && !(v->rflags & RFLAGS_VM);
}

static inline bool
vcpu_canonical(u64 address)
{
	return (u64)((i64)(address << 16) >> 16) == address;
}

/* The effective offset (before segment) of an instruction's memory operand. */
static inline u64
vcpu_offset(const struct vcpu *v, const struct insn *in)
{
	u64 offset = (u64)in->disp;

	if (in->base == INSN_RIP)
		offset += v->rip + in->len;
	else if (in->base != INSN_NO_REG)
		offset += v->gpr[in->base];
	if (in->index != INSN_NO_REG)
		offset += v->gpr[in->index] * in->scale;
	if (in->addrsize == 2)
		return (u16)offset;
	return in->addrsize == 4 ? (u32)offset : offset;
}

#endif
