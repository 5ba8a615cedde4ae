/*
 * An I/O APIC with 24 inputs (Intel 82093AA, version 0x20 with the EOI
 * register of the ICH9) at 0xfec00000. Interrupts leave as MSI messages.
 * Everything under the machine's lock.
 */
#ifndef DEVICE_IOAPIC_H
#define DEVICE_IOAPIC_H

#include "bus/device.h"

enum { IOAPIC_PINS = 24 };
#define IOAPIC_GPA 0xfec00000ull

struct ioapic;

struct ioapic_host {
	void *opaque;
	/* Where pins lead to, or whether they are masked, has changed. May be NULL. */
	void (*changed)(void *opaque);
};

/* 0 or -ENOMEM. */
int ioapic_create(struct ioapic **out, const struct device_host *host,
		  const struct ioapic_host *ioapic_host);
void ioapic_destroy(struct ioapic *ioapic);
void ioapic_reset(struct ioapic *ioapic);

void ioapic_set_pin(struct ioapic *ioapic, unsigned pin, bool level);
/* A processor has ended the level interrupt VECTOR. */
void ioapic_eoi(struct ioapic *ioapic, u8 vector);

/* The message that PIN sends and whether it is level-triggered; true unless it is masked. */
bool ioapic_message(const struct ioapic *ioapic, unsigned pin, u64 *address, u32 *data,
		    bool *level);
bool ioapic_masked(const struct ioapic *ioapic, unsigned pin);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void ioapic_state(struct ioapic *ioapic, struct state_list *list);

#endif
