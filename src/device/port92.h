/*
 * System control port A (0x92): bit 0 fast reset, bit 1 the A20 gate, which is
 * always open and only reads back. Under the machine's lock.
 */
#ifndef DEVICE_PORT92_H
#define DEVICE_PORT92_H

#include "bus/device.h"

struct port92;

/* 0 or -ENOMEM. */
int port92_create(struct port92 **out, const struct device_host *host);
void port92_destroy(struct port92 *port);
void port92_reset(struct port92 *port);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void port92_state(struct port92 *port, struct state_list *list);

#endif
