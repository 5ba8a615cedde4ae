/*
 * A local APIC as a set of registers (AMD64 APM 2, chapter 16): xAPIC and
 * x2APIC access, priorities, timer in one-shot, periodic and TSC-deadline
 * mode. It knows no other CPU: interprocessor interrupts leave by a callback.
 *
 * Threads: all calls from the vCPU's own thread, but for lapic_post, lapic_post_nmi and
 * lapic_has_posted, which any thread may make (atomic bits, merged by the owner).
 */
#ifndef CPU_LAPIC_H
#define CPU_LAPIC_H

#include "base/types.h"
#include "cpu/cpu_state.h"

enum lapic_delivery {
	LAPIC_FIXED = 0,
	LAPIC_LOWEST = 1,
	LAPIC_SMI = 2,
	LAPIC_NMI = 4,
	LAPIC_INIT = 5,
	LAPIC_STARTUP = 6,
	LAPIC_EXTINT = 7,
};

struct lapic_ipi {
	enum lapic_delivery delivery;
	u8 vector;
	bool level; /* trigger mode: level */
	bool assert;
	bool logical;	 /* destination mode */
	u8 shorthand;	 /* 0 none, 1 self, 2 all, 3 all but self */
	u32 destination; /* as written, 8 or 32 bits wide */
};

struct lapic_host {
	void *opaque;
	void (*send_ipi)(void *opaque, const struct lapic_ipi *ipi);
	void (*eoi)(void *opaque, u8 vector);		  /* of a level-triggered vector */
	void (*set_timer)(void *opaque, u64 deadline_ns); /* monotonic; 0 disarms */
	u64 (*now_ns)(void *opaque);
	u64 (*guest_tsc)(void *opaque);
	u64 (*tsc_to_ns)(void *opaque,
			 u64 guest_tsc); /* when that guest TSC will be, monotonic ns */
};

struct lapic {
	struct cpu_lapic s;
	struct lapic_host host;
	u32 posted[8];	     /* [a] IRR bits from any thread */
	u32 posted_level[8]; /* [a] their trigger mode */
	u32 posted_nmi;	     /* [a] */
	u32 id;
	bool x2apic, enabled; /* of base_msr */
	u64 timer_deadline;   /* monotonic ns of the next timer interrupt, 0 if none */
};

void lapic_init(struct lapic *apic, u32 id, const struct lapic_host *host);
void lapic_get(const struct lapic *apic, struct cpu_lapic *state);
void lapic_set(struct lapic *apic, const struct cpu_lapic *state);
void lapic_reset(struct lapic *apic); /* by INIT: keeps id and base MSR */

/* Any thread: makes VECTOR pending. Whoever calls wakes the vCPU afterwards. */
void lapic_post(struct lapic *apic, u8 vector, bool level);
void lapic_post_nmi(struct lapic *apic);
bool lapic_has_posted(const struct lapic *apic);
/* Takes a posted NMI: true once for each (they merge). */
bool lapic_take_nmi(struct lapic *apic);

/* The vector that may be delivered now (above PPR and the guest's TPR), or -1. */
int lapic_pending(struct lapic *apic);
/* Moves VECTOR from IRR to ISR. */
void lapic_accept(struct lapic *apic, u8 vector);
/* Whether LVT0 or a disabled APIC lets an ExtINT through. */
bool lapic_accepts_extint(const struct lapic *apic);

/* Whether an interrupt to this destination reaches this APIC (16.6). */
bool lapic_matches(const struct lapic *apic, bool logical, u32 destination, bool wide);

/* xAPIC page access, OFFSET 0 to 0xff0, 32 bits. */
u32 lapic_mmio_read(struct lapic *apic, u32 offset);
void lapic_mmio_write(struct lapic *apic, u32 offset, u32 value);

/* x2APIC MSRs 0x800 to 0x8ff, IA32_APIC_BASE, IA32_TSC_DEADLINE: 0 or -EINVAL (#GP). */
int lapic_msr_read(struct lapic *apic, u32 msr, u64 *value);
int lapic_msr_write(struct lapic *apic, u32 msr, u64 value);

u64 lapic_get_cr8(const struct lapic *apic);
void lapic_set_cr8(struct lapic *apic, u64 value);

/* To be called when NOW reached the deadline given to set_timer, early or late is harmless. */
void lapic_timer_expire(struct lapic *apic, u64 now_ns);

#endif
