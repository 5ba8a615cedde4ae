/*
 * The 8254 timer of a PC: channel 0 is the timer interrupt, channel 2 the
 * speaker's; ports 0x40 to 0x43, and port 0x61, which gates channel 2.
 * Everything under the machine's lock.
 */
#ifndef DEVICE_PIT_H
#define DEVICE_PIT_H

#include "bus/device.h"
#include "bus/irq.h"

enum { PIT_HZ = 1193182 };

struct pit;

struct pit_host {
	void *opaque;
	/* Whether an edge on channel 0 would be of any effect; if not, no timer runs until
	 * pit_wake. NULL: always. */
	bool (*heard)(void *opaque);
};

/* 0 or -errno. */
int pit_create(struct pit **out, const struct device_host *host, struct irq_line irq,
	       const struct pit_host *pit_host);
void pit_destroy(struct pit *pit);
void pit_reset(struct pit *pit);
/* The guest may listen to channel 0 again. */
void pit_wake(struct pit *pit);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void pit_state(struct pit *pit, struct state_list *list);

#endif
