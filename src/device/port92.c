/*
 * Port 0x92 (ICH9 data sheet 13.7.3). INIT_NOW resets on its rising edge.
 */
#include "device/port92.h"

#include <errno.h>
#include <stdlib.h>

#include "state/state.h"

enum { PORT92_INIT_NOW = BIT(0), PORT92_A20 = BIT(1) };

struct port92 {
	u8 value;
	struct device_host host;
	struct io_region *region;
};

static u64
port92_read(void *opaque, u64 offset, unsigned size)
{
	struct port92 *port = opaque;

	(void)offset;
	(void)size;
	return port->value;
}

static void
port92_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct port92 *port = opaque;
	bool rose = (value & PORT92_INIT_NOW) && !(port->value & PORT92_INIT_NOW);

	(void)offset;
	(void)size;
	port->value = value & (PORT92_INIT_NOW | PORT92_A20);
	if (rose)
		port->host.reset(port->host.opaque);
}

static const struct io_ops port92_ops = {port92_read, port92_write};

void
port92_reset(struct port92 *port)
{
	port->value = PORT92_A20;
}

int
port92_create(struct port92 **out, const struct device_host *host)
{
	struct port92 *port = calloc(1, sizeof(*port));

	if (!port)
		return -ENOMEM;
	port->host = *host;
	port->region = memory_add_ports(host->memory, 0x92, 1, &port92_ops, port);
	if (!port->region) {
		free(port);
		return -ENOMEM;
	}
	port92_reset(port);
	*out = port;
	return 0;
}

void
port92_destroy(struct port92 *port)
{
	if (!port)
		return;
	memory_remove_region(port->host.memory, port->region);
	free(port);
}

/* ---- saved state ---- */

static const struct state_field port92_fields[] = {
	STATE_MAX(struct port92, value, PORT92_INIT_NOW | PORT92_A20),
	STATE_END,
};

static const struct state_type port92_state_type = {"port92", 1, port92_fields, NULL, NULL};

void
port92_state(struct port92 *port, struct state_list *list)
{
	state_list_add(list, &port92_state_type, 0, port, sizeof(*port));
}
