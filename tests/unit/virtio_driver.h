/*
 * The guest's side of virtio over PCI, as small as tests need it: a board with
 * memory, loop and bus; and a driver that finds a device by its capabilities
 * and works its queues by the memory accesses that a guest would make.
 */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/loop.h"
#include "bus/pci.h"
#include "bus/virtio_pci.h"
#include "memory/memory.h"

enum { BOARD_RAM = 64 << 20, BOARD_BOUND = 8, BOARD_MSIS = 256, DRIVER_QUEUES = 4 };

#define BOARD_ECAM 0xb0000000ull
#define BOARD_MEM32 0xe0000000ull
#define BOARD_MEM64 0x800000000ull

struct board {
	struct memory *memory;
	struct loop *loop;
	struct pci_bus *bus;
	struct device_host host;
	struct loop_timer *timer;
	bool pirq[PCI_PIRQS];
	unsigned pirq_changes;
	unsigned msis;
	u64 msi_address[BOARD_MSIS];
	u32 msi_data[BOARD_MSIS];
	u64 bound_gpa[BOARD_BOUND];
	int bound_fd[BOARD_BOUND];
	unsigned bound;
	bool (*until)(void *opaque);
	void *until_opaque;
	unsigned ticks;
};

static inline void
board_set_pirq(void *opaque, unsigned pin, bool level)
{
	struct board *b = opaque;

	b->pirq[pin] = level;
	b->pirq_changes++;
}

static inline void
board_send_msi(void *opaque, u64 address, u32 data)
{
	struct board *b = opaque;

	b->msi_address[b->msis % BOARD_MSIS] = address;
	b->msi_data[b->msis++ % BOARD_MSIS] = data;
}

static inline int
board_bind(void *opaque, u64 gpa, unsigned size, int fd)
{
	struct board *b = opaque;

	(void)size;
	if (b->bound == BOARD_BOUND)
		return -1;
	b->bound_gpa[b->bound] = gpa;
	b->bound_fd[b->bound++] = fd;
	return 0;
}

static inline void
board_unbind(void *opaque, u64 gpa, unsigned size, int fd)
{
	struct board *b = opaque;

	(void)size;
	for (unsigned i = 0; i < b->bound; i++) {
		if (b->bound_gpa[i] == gpa && b->bound_fd[i] == fd) {
			b->bound--;
			b->bound_gpa[i] = b->bound_gpa[b->bound];
			b->bound_fd[i] = b->bound_fd[b->bound];
			return;
		}
	}
	abort();
}

static inline void
board_tick(void *opaque)
{
	struct board *b = opaque;

	if (b->until(b->until_opaque) || b->ticks++ > 20000)
		loop_stop(b->loop);
	else
		loop_timer_arm(b->timer, loop_now() + 500000);
}

/* Runs the loop until UNTIL says so, or for about ten seconds: did it? */
static inline bool
board_run(struct board *b, bool (*until)(void *opaque), void *opaque)
{
	b->until = until;
	b->until_opaque = opaque;
	b->ticks = 0;
	loop_timer_arm(b->timer, loop_now());
	loop_run(b->loop);
	return until(opaque);
}

/* EVENTS: notifications by eventfd. 0, or -errno. */
static inline int
board_create(struct board *b, bool events)
{
	struct irq_line lines[PCI_PIRQS];
	int error;

	memset(b, 0, sizeof(*b));
	error = memory_create(&b->memory, BOARD_RAM);
	if (!error)
		error = loop_create(&b->loop, NULL);
	if (!error)
		error = loop_timer_create(b->loop, board_tick, b, &b->timer);
	if (error)
		return error;
	for (unsigned i = 0; i < PCI_PIRQS; i++)
		lines[i] = (struct irq_line){.set = board_set_pirq, .opaque = b, .pin = i};
	b->host = (struct device_host){
		.memory = b->memory,
		.loop = b->loop,
		.msi = {.send = board_send_msi, .opaque = b},
		.opaque = b,
		.bind_notify = events ? board_bind : NULL,
		.unbind_notify = events ? board_unbind : NULL,
	};
	error = pci_bus_create(&b->bus, &b->host, lines);
	return error ? error : pci_bus_set_ecam(b->bus, BOARD_ECAM, PCI_ECAM_BUSES);
}

static inline int
board_assign(struct board *b)
{
	static const u8 line[PCI_PIRQS] = {10, 11, 10, 11, 10, 11, 10, 11};
	static const struct pci_windows windows = {
		.mem32 = BOARD_MEM32,
		.mem32_size = 0x1000000,
		.mem64 = BOARD_MEM64,
		.mem64_size = 0x1000000,
		.io = 0xc000,
		.io_size = 0x1000,
	};

	return pci_bus_assign(b->bus, &windows, line);
}

static inline void
board_destroy(struct board *b)
{
	pci_bus_destroy(b->bus);
	loop_timer_destroy(b->timer);
	loop_destroy(b->loop);
	memory_destroy(b->memory);
}

/* ---- the driver ---- */

struct driver_queue {
	u16 size, next_desc, avail_idx, used_seen;
	u64 desc, avail, used, notify;
};

struct driver {
	struct board *board;
	unsigned slot;
	u64 common, isr, device, notify, multiplier;
	bool msix;
	struct driver_queue queues[DRIVER_QUEUES];
};

struct driver_buffer {
	u64 gpa;
	u32 len;
	bool in;
};

static inline u32
ecam_read(struct board *b, unsigned slot, unsigned offset, unsigned size)
{
	return (u32)memory_mmio_read(b->memory, BOARD_ECAM + slot * 0x8000ull + offset, size);
}

static inline void
ecam_write(struct board *b, unsigned slot, unsigned offset, unsigned size, u32 value)
{
	memory_mmio_write(b->memory, BOARD_ECAM + slot * 0x8000ull + offset, size, value);
}

static inline u64
driver_bar(struct board *b, unsigned slot, unsigned bar)
{
	u32 low = ecam_read(b, slot, PCI_BAR0 + 4 * bar, 4);
	u64 gpa = low & ~15u;

	if ((low & 6) == 4)
		gpa |= (u64)ecam_read(b, slot, PCI_BAR0 + 4 * bar + 4, 4) << 32;
	return gpa;
}

/* Offset of the first capability ID at or after the list's START-th one, or 0. */
static inline unsigned
driver_capability(struct board *b, unsigned slot, u8 id, unsigned after)
{
	unsigned at = ecam_read(b, slot, PCI_CAPABILITIES, 1);
	bool passed = after == 0;

	for (; at; at = ecam_read(b, slot, at + 1, 1)) {
		if (passed && ecam_read(b, slot, at, 1) == id)
			return at;
		passed |= at == after;
	}
	return 0;
}

static inline u32
driver_get(struct driver *d, u64 gpa, unsigned size)
{
	return (u32)memory_mmio_read(d->board->memory, gpa, size);
}

static inline void
driver_put(struct driver *d, u64 gpa, unsigned size, u64 value)
{
	memory_mmio_write(d->board->memory, gpa, size, value);
}

static inline void
driver_find(struct driver *d, struct board *b, unsigned slot)
{
	unsigned at = 0;
	u64 where;

	memset(d, 0, sizeof(*d));
	d->board = b;
	d->slot = slot;
	while ((at = driver_capability(b, slot, PCI_CAP_VENDOR, at))) {
		where = driver_bar(b, slot, ecam_read(b, slot, at + 4, 1)) +
			ecam_read(b, slot, at + 8, 4);
		switch (ecam_read(b, slot, at + 3, 1)) {
		case 1:
			d->common = where;
			break;
		case 2:
			d->notify = where;
			d->multiplier = ecam_read(b, slot, at + 16, 4);
			break;
		case 3:
			d->isr = where;
			break;
		case 4:
			d->device = where;
			break;
		}
	}
}

/* Switches MSI-X on: vector V sends data 0x100 + V to 0xfee00000. */
static inline void
driver_use_msix(struct driver *d, unsigned vectors)
{
	unsigned at = driver_capability(d->board, d->slot, PCI_CAP_MSIX, 0);
	u64 table = driver_bar(d->board, d->slot, ecam_read(d->board, d->slot, at + 4, 4) & 7);

	for (unsigned v = 0; v < vectors; v++) {
		driver_put(d, table + 16 * v, 4, 0xfee00000);
		driver_put(d, table + 16 * v + 4, 4, 0);
		driver_put(d, table + 16 * v + 8, 4, 0x100 + v);
		driver_put(d, table + 16 * v + 12, 4, 0);
	}
	ecam_write(d->board, d->slot, at + 2, 2, BIT(15));
	d->msix = true;
}

/* Up to FEATURES_OK: did the device agree? */
static inline bool
driver_negotiate(struct driver *d, u64 features)
{
	driver_put(d, d->common + 20, 1, 0);
	driver_put(d, d->common + 20, 1, VIRTIO_ACKNOWLEDGE);
	driver_put(d, d->common + 20, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		driver_put(d, d->common + 8, 4, i);
		driver_put(d, d->common + 12, 4, (u32)(features >> (32 * i)));
	}
	driver_put(d, d->common + 20, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
	return (driver_get(d, d->common + 20, 1) & VIRTIO_FEATURES_OK) != 0;
}

static inline u64
driver_offered(struct driver *d)
{
	u64 low;

	driver_put(d, d->common, 4, 0);
	low = driver_get(d, d->common + 4, 4);
	driver_put(d, d->common, 4, 1);
	return low | (u64)driver_get(d, d->common + 4, 4) << 32;
}

/* Sets queue I up with its rings at GPA (16 KiB are enough for 256 entries). */
static inline void
driver_queue_setup(struct driver *d, unsigned i, u16 size, u64 gpa)
{
	struct driver_queue *q = &d->queues[i];

	*q = (struct driver_queue){.size = size, .desc = gpa, .avail = gpa + 16 * size};
	q->used = align_up(q->avail + 6 + 2 * size, 4096);
	memset(memory_ptr(d->board->memory, gpa, 16384), 0, 16384);
	driver_put(d, d->common + 22, 2, i);
	driver_put(d, d->common + 24, 2, size);
	if (d->msix)
		driver_put(d, d->common + 26, 2, i + 1);
	driver_put(d, d->common + 32, 4, (u32)q->desc);
	driver_put(d, d->common + 36, 4, q->desc >> 32);
	driver_put(d, d->common + 40, 8, q->avail);
	driver_put(d, d->common + 48, 4, (u32)q->used);
	driver_put(d, d->common + 52, 4, q->used >> 32);
	driver_put(d, d->common + 28, 2, 1);
	q->notify = d->notify + d->multiplier * driver_get(d, d->common + 30, 2);
}

static inline u8
driver_status(struct driver *d)
{
	return (u8)driver_get(d, d->common + 20, 1);
}

static inline void
driver_ok(struct driver *d)
{
	driver_put(d, d->common + 20, 1, driver_status(d) | VIRTIO_DRIVER_OK);
}

static inline u8 *
driver_ram(struct driver *d, u64 gpa)
{
	return memory_ptr(d->board->memory, gpa, 1);
}

static inline void
driver_desc(struct driver *d, struct driver_queue *q, unsigned index, u64 addr, u32 len, u16 flags,
	    u16 next)
{
	u8 *p = driver_ram(d, q->desc) + 16 * index;

	put_le64(p, addr);
	put_le32(p + 8, len);
	put_le16(p + 12, flags);
	put_le16(p + 14, next);
}

/* Makes the chain at HEAD available. */
static inline void
driver_offer(struct driver *d, struct driver_queue *q, u16 head)
{
	u8 *avail = driver_ram(d, q->avail);

	put_le16(avail + 4 + 2 * (q->avail_idx % q->size), head);
	put_le16(avail + 2, ++q->avail_idx);
}

/* Offers a chain of COUNT buffers in fresh descriptors (they wrap); its head. */
static inline u16
driver_add(struct driver *d, unsigned queue, const struct driver_buffer *buffers, unsigned count)
{
	struct driver_queue *q = &d->queues[queue];
	u16 head = q->next_desc;

	for (unsigned i = 0; i < count; i++) {
		u16 next = (u16)((q->next_desc + 1) % q->size);
		u16 flags = (u16)((i + 1 < count ? 1 : 0) | (buffers[i].in ? 2 : 0));

		driver_desc(d, q, q->next_desc, buffers[i].gpa, buffers[i].len, flags, next);
		q->next_desc = next;
	}
	driver_offer(d, q, head);
	return head;
}

static inline void
driver_kick(struct driver *d, unsigned queue)
{
	u64 gpa = d->queues[queue].notify, one = 1;

	for (unsigned i = 0; i < d->board->bound; i++) {
		if (d->board->bound_gpa[i] == gpa) {
			if (write(d->board->bound_fd[i], &one, sizeof(one)) < 0)
				abort();
			return;
		}
	}
	driver_put(d, gpa, 2, queue);
}

static inline u16
driver_used_idx(struct driver *d, unsigned queue)
{
	return get_le16(driver_ram(d, d->queues[queue].used) + 2);
}

/* The next used element: false if there is none. */
static inline bool
driver_take(struct driver *d, unsigned queue, u32 *id, u32 *len)
{
	struct driver_queue *q = &d->queues[queue];
	u8 *element;

	*id = *len = 0;
	if (driver_used_idx(d, queue) == q->used_seen)
		return false;
	element = driver_ram(d, q->used) + 4 + 8 * (q->used_seen++ % q->size);
	*id = get_le32(element);
	*len = get_le32(element + 4);
	return true;
}

struct driver_wait {
	struct driver *driver;
	unsigned queue;
	u16 idx;
};

static inline bool
driver_reached(void *opaque)
{
	struct driver_wait *w = opaque;

	return (i16)(driver_used_idx(w->driver, w->queue) - w->idx) >= 0;
}

/* Runs the loop until COUNT further elements are used. */
static inline bool
driver_wait(struct driver *d, unsigned queue, unsigned count)
{
	struct driver_wait w = {d, queue, (u16)(d->queues[queue].used_seen + count)};

	return board_run(d->board, driver_reached, &w);
}

#endif
