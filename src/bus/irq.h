/*
 * How an interrupt leaves a device: a level on a line, or a message.
 */
#ifndef BUS_IRQ_H
#define BUS_IRQ_H

#include "base/types.h"

/* One input of an interrupt controller. Under the machine's lock. */
struct irq_line {
	void (*set)(void *opaque, unsigned pin, bool level);
	void *opaque;
	unsigned pin;
};

/* Where MSI writes go (address and data as on the PCI bus). Any thread. */
struct msi_sink {
	void (*send)(void *opaque, u64 address, u32 data);
	void *opaque;
};

static inline void
irq_set(const struct irq_line *line, bool level)
{
	if (line->set)
		line->set(line->opaque, line->pin, level);
}

#endif
