/*
 * pc-testdev. See the header for its registers.
 */
#include "device/testdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "state/state.h"

enum { TESTDEV_MMIO_SIZE = 0x10000, TESTDEV_REGIONS = 5 };
#define TESTDEV_MMIO 0xff000000ull

struct testdev {
	u32 scratch;
	u8 mmio[TESTDEV_MMIO_SIZE];
	void (*set)(void *opaque, unsigned pin, bool level);
	void *opaque;
	struct memory *memory;
	struct io_region *regions[TESTDEV_REGIONS];
};

static u64
testdev_scratch_read(void *opaque, u64 offset, unsigned size)
{
	struct testdev *dev = opaque;

	(void)size;
	return dev->scratch >> (offset & 3) * 8;
}

static void
testdev_scratch_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct testdev *dev = opaque;
	unsigned shift = (unsigned)(offset & 3) * 8;
	u64 mask = ((1ull << size * 8) - 1) << shift;

	dev->scratch = (u32)((dev->scratch & ~mask) | (value << shift & mask));
}

static u64
testdev_page_read(void *opaque, u64 offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

/* The host's mapping of RAM never goes away here, so there is nothing to drop. */
static void
testdev_page_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	(void)opaque;
	(void)offset;
	(void)size;
	(void)value;
}

static void
testdev_irq_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct testdev *dev = opaque;

	(void)size;
	dev->set(dev->opaque, (unsigned)offset, value != 0);
}

static u64
testdev_mmio_read(void *opaque, u64 offset, unsigned size)
{
	struct testdev *dev = opaque;
	u64 value = 0;

	memcpy(&value, dev->mmio + offset, size);
	return value;
}

static void
testdev_mmio_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct testdev *dev = opaque;

	memcpy(dev->mmio + offset, &value, size);
}

static const struct io_ops testdev_scratch_ops = {testdev_scratch_read, testdev_scratch_write};
static const struct io_ops testdev_page_ops = {testdev_page_read, testdev_page_write};
static const struct io_ops testdev_irq_ops = {testdev_page_read, testdev_irq_write};
static const struct io_ops testdev_mmio_ops = {testdev_mmio_read, testdev_mmio_write};

void
testdev_reset(struct testdev *dev)
{
	dev->scratch = 0;
	for (unsigned pin = 0; pin < TESTDEV_LINES; pin++)
		dev->set(dev->opaque, pin, false);
}

int
testdev_create(struct testdev **out, const struct device_host *host,
	       void (*set)(void *opaque, unsigned pin, bool level), void *opaque)
{
	struct testdev *dev = calloc(1, sizeof(*dev));
	struct memory *mem = host->memory;

	if (!dev)
		return -ENOMEM;
	dev->set = set;
	dev->opaque = opaque;
	dev->memory = mem;
	dev->regions[0] = memory_add_ports(mem, 0xe4, 4, &testdev_page_ops, dev);
	dev->regions[1] = memory_add_ports(mem, 0x2000, TESTDEV_LINES, &testdev_irq_ops, dev);
	dev->regions[2] =
		memory_add_mmio(mem, TESTDEV_MMIO, TESTDEV_MMIO_SIZE, &testdev_mmio_ops, dev);
	dev->regions[3] = memory_add_ports(mem, 0xe0, 4, &testdev_scratch_ops, dev);
	dev->regions[4] = memory_add_ports(mem, 0xe8, 4, &testdev_scratch_ops, dev);
	for (unsigned i = 0; i < TESTDEV_REGIONS; i++) {
		if (!dev->regions[i]) {
			testdev_destroy(dev);
			return -ENOMEM;
		}
	}
	*out = dev;
	return 0;
}

void
testdev_destroy(struct testdev *dev)
{
	if (!dev)
		return;
	for (unsigned i = 0; i < TESTDEV_REGIONS; i++)
		if (dev->regions[i])
			memory_remove_region(dev->memory, dev->regions[i]);
	free(dev);
}

/* ---- saved state ---- */

static const struct state_field testdev_fields[] = {
	STATE_NUMBER(struct testdev, scratch),
	STATE_BYTES(struct testdev, mmio),
	STATE_END,
};

static const struct state_type testdev_state_type = {"testdev", 1, testdev_fields, NULL, NULL};

void
testdev_state(struct testdev *dev, struct state_list *list)
{
	state_list_add(list, &testdev_state_type, 0, dev, sizeof(*dev));
}
