/*
 * Four ports from 0xf4; the value of any write is the guest's result.
 */
#include "device/debug_exit.h"

#include <errno.h>
#include <stdlib.h>

enum { DEBUG_EXIT_PORT = 0xf4, DEBUG_EXIT_PORTS = 4 };

struct debug_exit {
	struct device_host host;
	struct io_region *region;
};

static u64
debug_exit_read(void *opaque, u64 offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

static void
debug_exit_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct debug_exit *device = opaque;

	(void)offset;
	(void)size;
	device->host.debug_exit(device->host.opaque, (u32)value);
}

static const struct io_ops debug_exit_ops = {debug_exit_read, debug_exit_write};

int
debug_exit_create(struct debug_exit **out, const struct device_host *host)
{
	struct debug_exit *device = calloc(1, sizeof(*device));

	if (!device)
		return -ENOMEM;
	device->host = *host;
	device->region = memory_add_ports(host->memory, DEBUG_EXIT_PORT, DEBUG_EXIT_PORTS,
					  &debug_exit_ops, device);
	if (!device->region) {
		free(device);
		return -ENOMEM;
	}
	*out = device;
	return 0;
}

void
debug_exit_destroy(struct debug_exit *device)
{
	if (!device)
		return;
	memory_remove_region(device->host.memory, device->region);
	free(device);
}
