/*
 * A high precision event timer block (IA-PC HPET specification 1.0a) at
 * 0xfed00000: three comparators, 64-bit counter of 100 MHz, legacy replacement,
 * MSI delivery. Everything under the machine's lock.
 */
#ifndef DEVICE_HPET_H
#define DEVICE_HPET_H

#include "bus/device.h"
#include "bus/irq.h"

#define HPET_GPA 0xfed00000ull
enum { HPET_SIZE = 0x400, HPET_TIMERS = 3, HPET_PERIOD_NS = 10 };
/* What the ACPI table must repeat: the low half of the capabilities register. */
#define HPET_CAPABILITIES 0x8086a201u

struct hpet;

struct hpet_host {
	void *opaque;
	/* Level of IOAPIC input PIN (20 to 23). */
	void (*set_pin)(void *opaque, unsigned pin, bool level);
	/* Legacy replacement: timer 0 instead of the PIT (IRQ 0), timer 1 instead of the RTC
	 * (IRQ 8). */
	void (*set_legacy)(void *opaque, unsigned irq, bool level);
	/* Legacy replacement is on: PIT and RTC are cut off. */
	void (*legacy)(void *opaque, bool on);
};

/* 0 or -errno. */
int hpet_create(struct hpet **out, const struct device_host *host,
		const struct hpet_host *hpet_host);
void hpet_destroy(struct hpet *hpet);
void hpet_reset(struct hpet *hpet);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void hpet_state(struct hpet *hpet, struct state_list *list);

#endif
