/*
 * Port 0xf4 by which a test guest ends its VM with a value (isa-debug-exit).
 * Under the machine's lock.
 */
#ifndef DEVICE_DEBUG_EXIT_H
#define DEVICE_DEBUG_EXIT_H

#include "bus/device.h"

struct debug_exit;

/* 0 or -ENOMEM. */
int debug_exit_create(struct debug_exit **out, const struct device_host *host);
void debug_exit_destroy(struct debug_exit *device);

#endif
