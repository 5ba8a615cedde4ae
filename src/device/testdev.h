/*
 * The device that public bare-metal test suites expect (pc-testdev):
 *
 *	0xe0..0xe3	a 32-bit scratch register, any access size
 *	0xe4		a gpa: its page's translations on the host are dropped (nothing to do)
 *	0xe8..0xeb	the scratch register by bytes
 *	0x2000 + n	level of interrupt line n
 *	0xff000000	64 KiB of MMIO that keep what is written
 *
 * Under the machine's lock.
 */
#ifndef DEVICE_TESTDEV_H
#define DEVICE_TESTDEV_H

#include "bus/device.h"
#include "bus/irq.h"

enum { TESTDEV_LINES = 24 };

struct testdev;

/* SET drives interrupt line PIN of the board. 0 or -ENOMEM. */
int testdev_create(struct testdev **out, const struct device_host *host,
		   void (*set)(void *opaque, unsigned pin, bool level), void *opaque);
void testdev_destroy(struct testdev *dev);
void testdev_reset(struct testdev *dev);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void testdev_state(struct testdev *dev, struct state_list *list);

#endif
