/*
 * What every device is given when it is created. A device keeps no other link
 * to the machine; it talks upwards through these only.
 */
#ifndef BUS_DEVICE_H
#define BUS_DEVICE_H

#include "base/loop.h"
#include "base/types.h"
#include "bus/irq.h"
#include "memory/memory.h"

struct device_host {
	struct memory *memory;
	struct loop *loop; /* its callbacks hold the machine's lock */
	struct msi_sink msi;
	void *opaque;
	/* The guest asked to end: power off, reset, or a byte to isa-debug-exit. */
	void (*power_off)(void *opaque);
	void (*reset)(void *opaque);
	void (*debug_exit)(void *opaque, u32 value);
	/* Binds an eventfd to writes of DATA of SIZE bytes (0: any) at a gpa, so
	 * that a virtqueue's notify does not take the machine's lock. */
	int (*bind_notify)(void *opaque, u64 gpa, unsigned size, int eventfd);
	void (*unbind_notify)(void *opaque, u64 gpa, unsigned size, int eventfd);
};

#endif
