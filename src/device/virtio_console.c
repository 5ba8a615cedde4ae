/*
 * Virtio console (virtio 1.2, 5.3).  Ports are numbered as with MULTIPORT, so
 * that further ones are further pairs of queues; only port 0 exists so far and
 * the feature is not offered.
 *
 * What the host's side does not take stays in the guest's ring: "blocked" and
 * tx_sent remember where to go on. What the guest has no buffer for stays with
 * the host: "starved" remembers to say when there is room again.
 */
#include "device/virtio_console.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "bus/virtio_pci.h"
#include "state/state.h"

enum {
	CONSOLE_ID = 3,
	CONSOLE_CLASS = 0x078000,
	CONSOLE_QUEUE = 128,
	CONSOLE_PORTS = 1,
	CONFIG_COLUMNS = 0,
	CONFIG_ROWS = 2,
	CONFIG_PORTS = 4,
	CONFIG_EMERGENCY = 8,
	CONFIG_SIZE = 12,
};

#define CONSOLE_F_SIZE BIT64(0)
#define CONSOLE_F_EMERG_WRITE BIT64(2)

struct console_port {
	unsigned rx, tx; /* queues */
	u64 tx_sent;	 /* bytes of the first chain that are out already */
	bool blocked;	 /* the host takes no more for now */
	bool starved;	 /* the guest has no buffer for input */
};

struct virtio_console {
	struct virtio_device v;
	struct virtio_console_host host;
	struct console_port ports[CONSOLE_PORTS];
};

static struct virtio_console *
console_of(struct virtio_device *v)
{
	return CONTAINER_OF(v, struct virtio_console, v);
}

/* Passes a chain on from PORT->tx_sent: true if all of it is out. */
static bool
console_write_chain(struct virtio_console *c, struct console_port *port,
		    const struct virtq_chain *chain)
{
	u64 skip = port->tx_sent;
	size_t len, taken;

	for (unsigned i = 0; i < chain->out_count; i++) {
		if (skip >= chain->out[i].len) {
			skip -= chain->out[i].len;
			continue;
		}
		len = chain->out[i].len - skip;
		taken = c->host.output(c->host.opaque, (const u8 *)chain->out[i].host + skip, len);
		skip = 0;
		port->tx_sent += taken;
		if (taken < len)
			return false;
	}
	port->tx_sent = 0;
	return true;
}

/* One chain: false if there is none, or none that may go on. */
static bool
console_write_one(struct virtio_console *c, struct console_port *port)
{
	struct virtq *q = virtio_queue(&c->v, port->tx);
	struct virtq_chain chain;
	int popped = virtq_pop(q, &chain);

	if (popped < 0)
		virtio_broken(&c->v, "bad descriptors in a transmit queue");
	if (popped <= 0)
		return false;
	if (!console_write_chain(c, port, &chain)) {
		virtq_unpop(q, 1);
		port->blocked = true;
		return false;
	}
	virtq_fill(q, chain.head, 0);
	return true;
}

static void
console_write(struct virtio_console *c, struct console_port *port)
{
	struct virtq *q = virtio_queue(&c->v, port->tx);

	do {
		while (!port->blocked && console_write_one(c, port))
			continue;
	} while (!port->blocked && virtq_enable_notify(q));
	virtio_publish(&c->v, port->tx);
}

void
virtio_console_resume(struct virtio_console *console)
{
	struct console_port *port = &console->ports[0];

	if (!port->blocked)
		return;
	port->blocked = false;
	if (virtio_running(&console->v))
		console_write(console, port);
}

/* Puts up to LEN bytes into the next buffer: how many; 0: there is none. */
static size_t
console_read_one(struct virtio_console *c, struct console_port *port, const u8 *data, size_t len)
{
	struct virtq *q = virtio_queue(&c->v, port->rx);
	struct virtq_chain chain;
	size_t n;
	int popped;

	do {
		popped = virtq_pop(q, &chain);
	} while (popped == 0 && virtq_enable_notify(q));
	if (popped < 0)
		virtio_broken(&c->v, "bad descriptors in a receive queue");
	if (popped <= 0)
		return 0;
	n = virtq_copy_in(q, &chain, 0, data, len);
	if (n == 0) {
		virtio_broken(&c->v, "a receive buffer without room");
		return 0;
	}
	virtq_fill(q, chain.head, (u32)n);
	return n;
}

size_t
virtio_console_input(struct virtio_console *console, const u8 *data, size_t len)
{
	struct console_port *port = &console->ports[0];
	size_t done = 0, n;

	while (done < len && virtio_running(&console->v)) {
		n = console_read_one(console, port, data + done, len - done);
		if (n == 0)
			break;
		done += n;
	}
	port->starved = done < len;
	virtio_publish(&console->v, port->rx);
	return done;
}

static void
console_tell_room(struct virtio_console *c)
{
	struct console_port *port = &c->ports[0];

	if (!port->starved)
		return;
	port->starved = false;
	if (c->host.input_ready)
		c->host.input_ready(c->host.opaque);
}

void
virtio_console_resize(struct virtio_console *console, u16 columns, u16 rows)
{
	put_le16(console->v.config + CONFIG_COLUMNS, columns);
	put_le16(console->v.config + CONFIG_ROWS, rows);
	virtio_config_changed(&console->v);
}

static void
console_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_console *c = console_of(v);

	for (unsigned i = 0; i < CONSOLE_PORTS; i++) {
		if (queue == c->ports[i].tx && !c->ports[i].blocked)
			console_write(c, &c->ports[i]);
		else if (queue == c->ports[i].rx)
			console_tell_room(c);
	}
}

/* A character from a driver that has no queues yet (5.3.4). */
static void
console_config_write(struct virtio_device *v, unsigned offset, unsigned size, u64 value)
{
	struct virtio_console *c = console_of(v);
	u8 byte = (u8)value;

	(void)size;
	if (offset == CONFIG_EMERGENCY)
		c->host.output(c->host.opaque, &byte, 1);
}

static void
console_reset(struct virtio_device *v)
{
	struct virtio_console *c = console_of(v);

	for (unsigned i = 0; i < CONSOLE_PORTS; i++) {
		c->ports[i].tx_sent = 0;
		c->ports[i].blocked = false;
	}
}

static void
console_destroy(struct virtio_device *v)
{
	free(console_of(v));
}

static const struct state_field console_port_fields[] = {
	STATE_NUMBER(struct console_port, tx_sent),
	STATE_END,
};

static const struct state_field console_fields[] = {
	STATE_STRUCTS(struct virtio_console, ports, console_port_fields),
	STATE_END,
};

/* Whoever is at the other end now takes bytes, and was not told to wait. */
static void
console_state_loaded(void *object)
{
	struct virtio_console *c = object;

	for (unsigned i = 0; i < CONSOLE_PORTS; i++)
		c->ports[i].blocked = c->ports[i].starved = false;
}

static const struct state_type console_state_type = {"virtio-console", 1, console_fields, NULL,
						     console_state_loaded};

static void
console_state(struct virtio_device *v, struct state_list *list)
{
	struct virtio_console *c = console_of(v);

	state_list_add(list, &console_state_type, pci_instance(&v->pci), c, sizeof(*c));
}

static const struct virtio_ops console_ops = {
	.state = console_state,
	.notify = console_notify,
	.config_write = console_config_write,
	.reset = console_reset,
	.destroy = console_destroy,
};

int
virtio_console_create(struct pci_bus *bus, unsigned slot, const struct device_host *host,
		      const struct virtio_console_host *console, struct virtio_console **out)
{
	static const struct virtio_info info = {
		.id = CONSOLE_ID,
		.class_code = CONSOLE_CLASS,
		.features = CONSOLE_F_SIZE | CONSOLE_F_EMERG_WRITE,
		.queue_count = 2 * CONSOLE_PORTS,
		.queue_size = CONSOLE_QUEUE,
		.config_size = CONFIG_SIZE,
	};
	struct virtio_console *c = calloc(1, sizeof(*c));
	int error;

	if (!c)
		return -ENOMEM;
	c->host = *console;
	c->ports[0] = (struct console_port){.rx = 0, .tx = 1};
	error = virtio_pci_init(&c->v, &console_ops, &info, host);
	if (error)
		goto no_device;
	put_le16(c->v.config + CONFIG_COLUMNS, 80);
	put_le16(c->v.config + CONFIG_ROWS, 25);
	put_le32(c->v.config + CONFIG_PORTS, CONSOLE_PORTS);
	error = virtio_pci_add(&c->v, bus, slot);
	if (error)
		goto no_slot;
	*out = c;
	return 0;
no_slot:
	virtio_pci_release(&c->v);
no_device:
	free(c);
	return error;
}
