/*
 * Interrupt controllers: local APIC (xAPIC or, after apic_enable_x2, x2APIC), IOAPIC, PIC.
 */
#ifndef GUEST_APIC_H
#define GUEST_APIC_H

#include "lib/cpu.h"

enum apic_register {
	APIC_ID = 0x20,
	APIC_VERSION = 0x30,
	APIC_TPR = 0x80,
	APIC_PPR = 0xa0,
	APIC_EOI = 0xb0,
	APIC_LDR = 0xd0,
	APIC_DFR = 0xe0,
	APIC_SVR = 0xf0,
	APIC_ISR = 0x100,
	APIC_IRR = 0x200,
	APIC_ICR = 0x300,
	APIC_ICR_HIGH = 0x310,
	APIC_LVT_TIMER = 0x320,
	APIC_LVT_LINT0 = 0x350,
	APIC_LVT_LINT1 = 0x360,
	APIC_LVT_ERROR = 0x370,
	APIC_TIMER_INITIAL = 0x380,
	APIC_TIMER_CURRENT = 0x390,
	APIC_TIMER_DIVIDE = 0x3e0,
};

enum {
	APIC_NMI = 4 << 8,
	APIC_INIT = 5 << 8,
	APIC_STARTUP = 6 << 8,
	APIC_EXTINT = 7 << 8,
	APIC_LOGICAL = 1 << 11,
	APIC_PENDING = 1 << 12,
	APIC_ASSERT = 1 << 14,
	APIC_LEVEL = 1 << 15,
	APIC_MASKED = 1 << 16,
	APIC_SELF = 1 << 18,
	APIC_ALL = 2 << 18,
	APIC_OTHERS = 3 << 18,
	APIC_PERIODIC = 1 << 17,
	APIC_TSC_DEADLINE = 2 << 17,
	APIC_SPURIOUS_VECTOR = 0xff,
};

#define APIC_MMIO 0xfee00000ul
#define IOAPIC_MMIO 0xfec00000ul
#define APIC_BASE_X2 (1ull << 10)
#define APIC_BASE_ENABLE (1ull << 11)

/* In the mode that this CPU's APIC is in. */
u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 value);
u32 apic_id(void);
void apic_eoi(void);
/* Enables it (software enable, spurious vector 0xff, TPR 0), in the mode it is in. */
void apic_enable(void);
void apic_enable_x2(void);
/* One interrupt: ICR's low half with the destination, waits until it left. */
void apic_ipi(u32 destination, u32 icr);

u32 ioapic_read(u32 index);
void ioapic_write(u32 index, u32 value);
/* Redirection: LOW as the entry's low half, to the xAPIC id. */
void ioapic_route(unsigned pin, u32 low, u8 destination);
unsigned ioapic_pins(void);

/* Both PICs to BASE and BASE + 8, all masked but what MASK (16 bits) leaves. */
void pic_init(u8 base, u16 mask);
void pic_eoi(unsigned line);

/* PIT channel 0: mode 2 (periodic), or 0 (one-shot), with COUNT of 1.193182 MHz. */
void pit_start(unsigned mode, u16 count);

/* Waits for some microseconds by PIT channel 2. */
void pit_delay(unsigned us);

#endif
