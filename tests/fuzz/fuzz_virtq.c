/*
 * A hostile guest against the virtio devices: the input is a list of accesses
 * to the devices' registers and of bytes stored in RAM, among them the rings.
 * The devices are brought to DRIVER_OK first, so that inputs get far quickly.
 *
 *	op & 7	0 store bytes in RAM near a ring or buffer	1 write BAR 4 of a device
 *		2 read BAR 4	3 notify	4 offer a head and notify
 *		5 write configuration space	6 bring a device up again	7 console input,
 *link
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/log.h"
#include "device/virtio_blk.h"
#include "device/virtio_console.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"
#include "unit/virtio_driver.h"

enum { DEVICES = 4, FIRST_SLOT = 1, QUEUES = 3, RING_SIZE = 16, RINGS = 0x100000 };

struct fuzz {
	struct board board;
	struct driver drivers[DEVICES];
	struct virtio_console *console;
	struct virtio_net *net;
	int peer, own;
	const u8 *at;
	size_t left;
};

static u64
take(struct fuzz *f, size_t size)
{
	u64 value = 0;

	if (size > f->left)
		size = f->left;
	memcpy(&value, f->at, size);
	f->at += size;
	f->left -= size;
	return value;
}

static size_t
fuzz_output(void *opaque, const u8 *data, size_t len)
{
	struct fuzz *f = opaque;
	u8 sum = 0;

	for (size_t i = 0; i < len && i < 64; i++)
		sum += data[i];
	/* Takes not all of it now and then; reads it in any case. */
	return (f->left & 3) || sum == 77 ? len : len / 2;
}

static u64
ring_of(unsigned device, unsigned queue)
{
	return RINGS + 0x4000ull * (device * QUEUES + queue);
}

static void
bring_up(struct fuzz *f, unsigned device)
{
	struct driver *d = &f->drivers[device];
	unsigned queues;

	driver_negotiate(d, driver_offered(d));
	queues = driver_get(d, d->common + 18, 2);
	for (unsigned i = 0; i < queues && i < QUEUES; i++)
		driver_queue_setup(d, i, RING_SIZE, ring_of(device, i));
	driver_ok(d);
}

static void
create(struct fuzz *f)
{
	struct virtio_console_host console = {.opaque = f, .output = fuzz_output};
	struct virtio_net_config net = {.offloads = true};
	struct block *block;
	int disk = memfd_create("disk", MFD_CLOEXEC), pair[2];

	if (disk < 0 || ftruncate(disk, 1 << 20) || board_create(&f->board, false) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair))
		abort();
	f->own = net.fd = pair[0];
	f->peer = pair[1];
	if (block_open_raw(&block, disk, false, f->board.loop, BLOCK_THREADS) ||
	    virtio_blk_create(f->board.bus, FIRST_SLOT, &f->board.host, block, "fuzz", NULL) ||
	    virtio_console_create(f->board.bus, FIRST_SLOT + 1, &f->board.host, &console,
				  &f->console) ||
	    virtio_net_create(f->board.bus, FIRST_SLOT + 2, &f->board.host, &net, &f->net) ||
	    virtio_rng_create(f->board.bus, FIRST_SLOT + 3, &f->board.host) ||
	    board_assign(&f->board))
		abort();
	for (unsigned i = 0; i < DEVICES; i++) {
		driver_find(&f->drivers[i], &f->board, FIRST_SLOT + i);
		if (i & 1)
			driver_use_msix(&f->drivers[i], 2);
		bring_up(f, i);
	}
}

static void
store(struct fuzz *f, unsigned device, unsigned queue)
{
	const struct driver_queue *q = &f->drivers[device].queues[queue];
	const u64 bases[] = {q->desc,	      q->avail,	       q->used, RINGS + 0x80000,
			     q->desc + 0x100, RINGS + 0x81000, 0,	BOARD_RAM - 0x40};
	u64 base = bases[take(f, 1) & 7] + take(f, 1), value;
	size_t len = (take(f, 1) & 63) + 1;
	u8 *to = memory_ptr(f->board.memory, base, len);

	for (size_t i = 0; i < len; i += 8) {
		value = take(f, 8);
		if (to)
			memcpy(to + i, &value, len - i < 8 ? len - i : 8);
	}
}

static void
send_frame(struct fuzz *f)
{
	u8 frame[512] = {0};
	u64 value = take(f, 8);

	memcpy(frame, &value, 8);
	memset(frame + 12, 0xff, 6);
	/* The queue may be full: then the frame is lost, as on a wire. */
	if (send(f->peer, frame, 12 + (value >> 8) % 500, MSG_DONTWAIT) < 0)
		return;
}

static bool
always(void *opaque)
{
	(void)opaque;
	return true;
}

static void
step(struct fuzz *f)
{
	unsigned op = (unsigned)take(f, 1), device = (op >> 3) % DEVICES,
		 queue = (op >> 5) % QUEUES;
	struct driver *d = &f->drivers[device];
	unsigned size = 1u << (take(f, 1) & 3);
	u64 offset;

	switch (op & 7) {
	case 0:
		store(f, device, queue);
		break;
	case 1:
		offset = take(f, 2) % 0x4000 & ~(u64)(size - 1);
		driver_put(d, d->common + offset, size, take(f, size));
		break;
	case 2:
		offset = take(f, 2) % 0x4000 & ~(u64)(size - 1);
		memory_mmio_read(f->board.memory, d->common + offset, size);
		break;
	case 3:
		driver_put(d, d->notify + 4 * queue, 2, 0);
		break;
	case 4:
		if (d->queues[queue].size)
			driver_offer(d, &d->queues[queue], (u16)take(f, 1));
		driver_put(d, d->notify + 4 * queue, 2, 0);
		break;
	case 5:
		offset = take(f, 1) & ~(u64)(size - 1);
		/* Not the command register and the BARs: the drivers look there. */
		if (offset >= PCI_FIRST_FREE)
			ecam_write(&f->board, FIRST_SLOT + device, (unsigned)offset,
				   size & 3 ? size : 4, (u32)take(f, 4));
		ecam_read(&f->board, FIRST_SLOT + device, (unsigned)offset, 1);
		break;
	case 6:
		bring_up(f, device);
		break;
	case 7:
		virtio_console_input(f->console, (const u8 *)"abcdefgh", 8);
		virtio_console_resume(f->console);
		send_frame(f);
		board_run(&f->board, always, NULL);
		break;
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int
LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct fuzz *f = calloc(1, sizeof(*f));
	unsigned steps = 0;

	if (!f)
		abort();
	log_setup(2, LOG_ERROR);
	f->at = data;
	f->left = size;
	create(f);
	while (f->left && steps++ < 200)
		step(f);
	board_run(&f->board, always, NULL);
	board_destroy(&f->board);
	close(f->peer);
	close(f->own);
	free(f);
	return 0;
}
