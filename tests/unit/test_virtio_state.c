/*
 * Saved states of PCI, MSI-X, the virtio transport and its devices: queues go on where they
 * stood, BARs answer where they were, hostile bytes do no harm.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/virtio_blk.h"
#include "device/virtio_console.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"
#include "net/net.h"
#include "unit/state_check.h"
#include "unit/virtio_driver.h"

enum { BLK = 8, NET = 4, CONSOLE = 2, RNG = 3, RINGS = 0x10000, DATA = 0x400000 };
enum { DISK_SIZE = 1 << 20 };
#define F_NET                                                                                      \
	(VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | BIT64(15) | BIT64(17) | BIT64(18) | BIT64(23))

struct rig {
	struct board board;
	struct driver blk, net, console;
	struct virtio_net *card;
	struct virtio_console *terminal;
	int peer, own;
	char printed[64];
	size_t printed_len, room;
};

static size_t
rig_output(void *opaque, const u8 *data, size_t len)
{
	struct rig *r = opaque;

	if (len > r->room)
		len = r->room;
	r->room -= len;
	memcpy(r->printed + r->printed_len, data, len);
	r->printed_len += len;
	return len;
}

static struct rig *
rig_create(int disk)
{
	struct virtio_net_config config = {.offloads = true, .mac = {0x52, 0x54, 0, 1, 2, 3}};
	struct rig *r = calloc(1, sizeof(*r));
	const struct virtio_console_host console = {r, rig_output, NULL};
	struct block *block;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	r->own = config.fd = fds[0];
	r->peer = fds[1];
	assert_int_equal(board_create(&r->board, true), 0);
	assert_int_equal(virtio_console_create(r->board.bus, CONSOLE, &r->board.host, &console,
					       &r->terminal),
			 0);
	assert_int_equal(virtio_rng_create(r->board.bus, RNG, &r->board.host), 0);
	assert_int_equal(virtio_net_create(r->board.bus, NET, &r->board.host, &config, &r->card),
			 0);
	assert_int_equal(block_open_raw(&block, dup(disk), false, r->board.loop, BLOCK_THREADS), 0);
	assert_int_equal(
		virtio_blk_create(r->board.bus, BLK, &r->board.host, block, "serial", NULL), 0);
	return r;
}

static void
rig_destroy(struct rig *r)
{
	board_destroy(&r->board);
	close(r->peer);
	close(r->own);
	free(r);
}

static void
rig_fill(void *opaque, struct state_list *list)
{
	struct rig *r = opaque;

	pci_bus_state(r->board.bus, list);
}

static void
rig_start(struct rig *r)
{
	assert_int_equal(board_assign(&r->board), 0);
	driver_find(&r->blk, &r->board, BLK);
	driver_use_msix(&r->blk, 2);
	assert_true(driver_negotiate(&r->blk, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | BIT64(9)));
	driver_queue_setup(&r->blk, 0, 64, RINGS);
	driver_ok(&r->blk);
	driver_find(&r->net, &r->board, NET);
	assert_true(driver_negotiate(&r->net, F_NET));
	for (unsigned i = 0; i < 3; i++)
		driver_queue_setup(&r->net, i, 64, RINGS + 0x4000 * (1 + i));
	driver_ok(&r->net);
	driver_find(&r->console, &r->board, CONSOLE);
	driver_use_msix(&r->console, 3);
	assert_true(driver_negotiate(&r->console, VIRTIO_F_VERSION_1));
	for (unsigned i = 0; i < 2; i++)
		driver_queue_setup(&r->console, i, 32, RINGS + 0x4000 * (4 + i));
	driver_ok(&r->console);
}

/* The guest's memory goes over too, as RAM of a state does, and its drivers with it. */
static void
rig_move(struct rig *from, struct rig *to)
{
	memcpy(memory_ram_host(to->board.memory), memory_ram_host(from->board.memory), BOARD_RAM);
	state_check_twin(rig_fill, from, to);
	to->blk = from->blk;
	to->net = from->net;
	to->console = from->console;
	to->blk.board = to->net.board = to->console.board = &to->board;
}

static int
a_disk(void)
{
	int fd = memfd_create("disk", 0);

	assert_true(fd >= 0 && ftruncate(fd, DISK_SIZE) == 0);
	return fd;
}

static void
blk_add(struct rig *r, u32 type, u64 sector, u64 data, u32 len)
{
	unsigned n = r->blk.queues[0].avail_idx % 16;
	u64 header = DATA + 0x1000 * n, status = header + 64;
	struct driver_buffer chain[] = {
		{header, 16, false}, {data, len, type == 0}, {status, 1, true}};
	u8 *h = driver_ram(&r->blk, header);

	put_le32(h, type);
	put_le64(h + 8, sector);
	h[64] = 0xff;
	driver_add(&r->blk, 0, chain, 3);
}

static bool
blk_done(void *opaque)
{
	struct rig *r = opaque;

	return driver_used_idx(&r->blk, 0) == r->blk.queues[0].avail_idx;
}

/* One request done, and one that was made available when nobody looked: the twin does it. */
static void
test_disk_goes_on(void **state)
{
	int disk = a_disk();
	struct rig *a = rig_create(disk), *b = rig_create(disk);
	u8 got[512];

	rig_start(a);
	memset(driver_ram(&a->blk, DATA + 0x80000), 0x77, 512);
	blk_add(a, 1, 3, DATA + 0x80000, 512);
	driver_kick(&a->blk, 0);
	assert_true(board_run(&a->board, blk_done, a));
	memset(driver_ram(&a->blk, DATA + 0x90000), 0x66, 512);
	put_le16(driver_ram(&a->blk, a->blk.queues[0].avail + 4 + 2 * 64), 1); /* used_event */
	blk_add(a, 1, 5, DATA + 0x90000, 512);
	rig_move(a, b);
	assert_false(blk_done(b));
	assert_true(board_run(&b->board, blk_done, b));
	assert_int_equal(b->board.msi_data[0], 0x101);
	assert_int_equal(pread(disk, got, 512, 5 * 512), 512);
	assert_int_equal(got[100], 0x66);
	blk_add(b, 0, 3, DATA + 0xa0000, 512);
	driver_kick(&b->blk, 0);
	assert_true(board_run(&b->board, blk_done, b));
	assert_int_equal(*driver_ram(&b->blk, DATA + 0xa0000 + 9), 0x77);
	rig_destroy(a);
	rig_destroy(b);
	close(disk);
}

static bool
console_done(void *opaque)
{
	struct rig *r = opaque;

	return r->printed_len == 10;
}

static bool
console_blocked(void *opaque)
{
	struct rig *r = opaque;

	return r->printed_len == 4;
}

/* Half of a chain was out when it was saved. */
static void
test_console_goes_on(void **state)
{
	struct driver_buffer text = {DATA, 10, false};
	int disk = a_disk();
	struct rig *a = rig_create(disk), *b = rig_create(disk);

	rig_start(a);
	memcpy(driver_ram(&a->console, DATA), "0123456789", 10);
	driver_add(&a->console, 1, &text, 1);
	a->room = 4;
	driver_kick(&a->console, 1);
	assert_true(board_run(&a->board, console_blocked, a));
	rig_move(a, b);
	b->room = 60;
	b->printed_len = 4;
	assert_true(board_run(&b->board, console_done, b));
	assert_memory_equal(b->printed + 4, "456789", 6);
	rig_destroy(a);
	rig_destroy(b);
	close(disk);
}

static bool
net_got(void *opaque)
{
	struct rig *r = opaque;

	return driver_used_idx(&r->net, 0) > 0;
}

/* The guest's filter and address stay, and frames come by INTx as before. */
static void
test_card_goes_on(void **state)
{
	static const u8 other[6] = {0x52, 0x54, 0, 9, 9, 9};
	struct driver_buffer command[] = {{DATA, 8, false}, {DATA + 64, 1, true}};
	struct driver_buffer promiscuous[] = {{DATA + 128, 3, false}, {DATA + 192, 1, true}};
	struct driver_buffer room = {DATA + 0x10000, 2048, true};
	int disk = a_disk();
	struct rig *a = rig_create(disk), *b = rig_create(disk);
	u8 frame[NET_FRAME_MAX] = {0};

	rig_start(a);
	memcpy(driver_ram(&a->net, DATA), "\x01\x01", 2);
	memcpy(driver_ram(&a->net, DATA + 2), other, 6);
	memcpy(driver_ram(&a->net, DATA + 128), "\0\0\0", 3);
	driver_add(&a->net, 2, command, 2);
	driver_add(&a->net, 2, promiscuous, 2);
	driver_put(&a->net, a->net.queues[2].notify, 2, 2);
	assert_int_equal(*driver_ram(&a->net, DATA + 192), 0);
	driver_add(&a->net, 0, &room, 1);
	assert_int_equal(driver_get(&a->net, a->net.isr, 1) & 1, 1);
	rig_move(a, b);
	assert_int_equal(driver_get(&b->net, b->net.device + 4, 2), 0x0909);
	memset(frame + 12, 0x52, 6); /* for somebody else */
	assert_int_equal(send(b->peer, frame, 12 + 60, 0), 72);
	memcpy(frame + 12, other, 6);
	frame[12 + 30] = 0x42;
	assert_int_equal(send(b->peer, frame, 12 + 60, 0), 72);
	assert_true(board_run(&b->board, net_got, b));
	assert_int_equal(driver_used_idx(&b->net, 0), 1);
	assert_int_equal(*driver_ram(&b->net, DATA + 0x10000 + 42), 0x42);
	assert_true(b->board.pirq[pci_pirq(NET, 1)]);
	assert_int_equal(driver_get(&b->net, b->net.isr, 1) & 1, 1);
	assert_false(b->board.pirq[pci_pirq(NET, 1)]);
	rig_destroy(a);
	rig_destroy(b);
	close(disk);
}

/* Pending while masked, and sent by the twin when it is unmasked there. */
static void
test_pending_message(void **state)
{
	int disk = a_disk();
	struct rig *a = rig_create(disk), *b = rig_create(disk);
	unsigned at;
	u64 table;

	rig_start(a);
	at = driver_capability(&a->board, BLK, PCI_CAP_MSIX, 0);
	table = driver_bar(&a->board, BLK, ecam_read(&a->board, BLK, at + 4, 4) & 7);
	driver_put(&a->blk, table + 16 + 12, 4, 1);
	blk_add(a, 1, 3, DATA + 0x80000, 512);
	driver_kick(&a->blk, 0);
	assert_true(board_run(&a->board, blk_done, a));
	assert_int_equal(a->board.msis, 0);
	rig_move(a, b);
	assert_int_equal(b->board.msis, 0);
	driver_put(&b->blk, table + 16 + 12, 4, 0);
	assert_int_equal(b->board.msis, 1);
	assert_int_equal(b->board.msi_data[0], 0x101);
	rig_destroy(a);
	rig_destroy(b);
	close(disk);
}

/* A device in another slot's place is not taken for it. */
static void
test_other_device(void **state)
{
	int disk = a_disk();
	struct rig *a = rig_create(disk), *b = rig_create(disk);
	struct state_image image = {0};
	struct state_list list = {0};
	char why[200];

	rig_start(a);
	state_image_take(&image, rig_fill, a, 1000);
	rig_fill(b, &list);
	/* pci, msix, virtio of the console into those of the rng */
	assert_string_equal(list.items[1].type->name, "pci");
	assert_true(state_stage(&list, "pci", RNG * 8, 1, image.data[1], image.len[1], 1000, why,
				sizeof(why)) < 0);
	state_list_free(&list);
	state_image_free(&image);
	rig_destroy(a);
	rig_destroy(b);
	close(disk);
}

static bool
soon(void *opaque)
{
	return ((struct rig *)opaque)->board.ticks > 1;
}

static void
rig_poke(void *opaque)
{
	struct rig *r = opaque;
	u8 frame[72] = {0};

	send(r->peer, frame, sizeof(frame), MSG_DONTWAIT);
	r->printed_len = 0;
	r->room = 30;
	board_run(&r->board, soon, r);
	for (unsigned slot = 0; slot < 32; slot++)
		for (unsigned at = 0; at < 256; at += 4)
			ecam_read(&r->board, slot, at, 4);
	for (unsigned i = 0; i < 0x4000; i += 4) {
		driver_get(&r->blk, r->blk.common + i, 4);
		driver_get(&r->net, r->net.common + i, 4);
	}
	virtio_console_input(r->terminal, (const u8 *)"typed", 5);
}

static void
test_hostile(void **state)
{
	int disk = a_disk();
	struct rig *a = rig_create(disk), *b = rig_create(disk);
	struct driver_buffer text = {DATA, 10, false}, room = {DATA + 0x10000, 2048, true};
	unsigned taken;

	rig_start(a);
	driver_add(&a->console, 1, &text, 1);
	driver_add(&a->console, 0, &room, 1);
	driver_add(&a->net, 0, &room, 1);
	driver_add(&a->net, 1, &room, 1);
	blk_add(a, 0, 3, DATA + 0x90000, 512);
	memcpy(memory_ram_host(b->board.memory), memory_ram_host(a->board.memory), BOARD_RAM);
	b->blk = a->blk;
	b->net = a->net;
	b->console = a->console;
	b->blk.board = b->net.board = b->console.board = &b->board;
	taken = state_check_hostile(rig_fill, a, b, 600, rig_poke);
	assert_true(taken > 30 && taken < 590);
	rig_destroy(a);
	rig_destroy(b);
	close(disk);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_disk_goes_on), cmocka_unit_test(test_console_goes_on),
		cmocka_unit_test(test_card_goes_on), cmocka_unit_test(test_pending_message),
		cmocka_unit_test(test_other_device), cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
