/*
 * A board without processors for tests of devices: guest memory, a loop, and
 * interrupt lines and messages that are only counted.
 */
#ifndef UNIT_BOARD_H
#define UNIT_BOARD_H

#include "unit.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/loop.h"
#include "bus/device.h"
#include "memory/memory.h"

enum { BOARD_PINS = 32 };

struct board {
	struct device_host host;
	pthread_mutex_t lock;
	bool level[BOARD_PINS];
	unsigned edges[BOARD_PINS]; /* low to high */
	unsigned messages;
	u64 msi_address;
	u32 msi_data;
	unsigned power_offs, resets, exits;
	u32 exit_value;
	struct loop_timer *timeout;
};

static void UNUSED
board_set(void *opaque, unsigned pin, bool level)
{
	struct board *b = opaque;

	assert_true(pin < BOARD_PINS);
	if (level && !b->level[pin])
		b->edges[pin]++;
	b->level[pin] = level;
}

static struct irq_line UNUSED
board_line(struct board *b, unsigned pin)
{
	return (struct irq_line){.set = board_set, .opaque = b, .pin = pin};
}

static void
board_msi(void *opaque, u64 address, u32 data)
{
	struct board *b = opaque;

	b->messages++;
	b->msi_address = address;
	b->msi_data = data;
}

static void
board_power_off(void *opaque)
{
	((struct board *)opaque)->power_offs++;
}

static void
board_reset(void *opaque)
{
	((struct board *)opaque)->resets++;
}

static void
board_exit(void *opaque, u32 value)
{
	((struct board *)opaque)->exits++;
	((struct board *)opaque)->exit_value = value;
}

static void
board_timeout(void *opaque)
{
	loop_stop(((struct board *)opaque)->host.loop);
}

static struct board *
board_create(void)
{
	struct board *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	pthread_mutex_init(&b->lock, NULL);
	assert_int_equal(memory_create(&b->host.memory, 64ull << 20), 0);
	assert_int_equal(loop_create(&b->host.loop, &b->lock), 0);
	assert_int_equal(loop_timer_create(b->host.loop, board_timeout, b, &b->timeout), 0);
	b->host.msi = (struct msi_sink){board_msi, b};
	b->host.opaque = b;
	b->host.power_off = board_power_off;
	b->host.reset = board_reset;
	b->host.debug_exit = board_exit;
	return b;
}

static void
board_destroy(struct board *b)
{
	loop_timer_destroy(b->timeout);
	loop_destroy(b->host.loop);
	memory_destroy(b->host.memory);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

/* Lets timers run for MS milliseconds. */
static void UNUSED
board_run(struct board *b, unsigned ms)
{
	loop_timer_arm(b->timeout, loop_now() + ms * 1000000ull);
	loop_run(b->host.loop);
}

static u8 UNUSED
inb(struct board *b, u16 port)
{
	return (u8)memory_port_read(b->host.memory, port, 1);
}

static void UNUSED
outb(struct board *b, u16 port, u8 value)
{
	memory_port_write(b->host.memory, port, 1, value);
}

#endif
