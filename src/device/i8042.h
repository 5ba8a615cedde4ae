/*
 * The keyboard controller of a PC at ports 0x60 and 0x64, with a keyboard that
 * answers commands and is never typed on: what guests need of it is the reset
 * pulse, the A20 gate and a self test that ends quickly. Under the machine's lock.
 */
#ifndef DEVICE_I8042_H
#define DEVICE_I8042_H

#include "bus/device.h"
#include "bus/irq.h"

struct i8042;

/* KEYBOARD is IRQ 1. 0 or -ENOMEM. */
int i8042_create(struct i8042 **out, const struct device_host *host, struct irq_line keyboard);
void i8042_destroy(struct i8042 *kbc);
void i8042_reset(struct i8042 *kbc);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void i8042_state(struct i8042 *kbc, struct state_list *list);

#endif
