/* The virtio network card: frames both ways, backpressure, filter, hostile use. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/virtio_net.h"
#include "net/net.h"
#include "unit/virtio_driver.h"

enum { SLOT = 4, RINGS = 0x10000, RX = 0x400000, TX = 0x800000, RX_SIZE = 2048 };
enum { Q_RX, Q_TX, Q_CTRL };
#define F_CSUM BIT64(0)
#define F_GUEST_CSUM BIT64(1)
#define F_GUEST_TSO4 BIT64(7)
#define F_HOST_TSO4 BIT64(11)
#define F_MRG BIT64(15)
#define F_CTRL (BIT64(17) | BIT64(18) | BIT64(23))
#define F_BASE (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | F_MRG | F_CTRL | BIT64(5) | BIT64(16))

struct fixture {
	struct board board;
	struct driver driver;
	struct virtio_net *net;
	int peer;
	int own;
	u8 *ram;
};

static const u8 mac[6] = {0x52, 0x54, 0, 1, 2, 3};

static void
fixture_open(struct fixture *f, bool offloads)
{
	struct virtio_net_config config = {.offloads = offloads, .mtu = 1400};
	int fds[2];

	memset(f, 0, sizeof(*f));
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	f->own = config.fd = fds[0];
	f->peer = fds[1];
	memcpy(config.mac, mac, 6);
	assert_int_equal(board_create(&f->board, false), 0);
	assert_int_equal(virtio_net_create(f->board.bus, SLOT, &f->board.host, &config, &f->net),
			 0);
	assert_int_equal(board_assign(&f->board), 0);
	driver_find(&f->driver, &f->board, SLOT);
	f->ram = memory_ram_host(f->board.memory);
}

static void
fixture_start(struct fixture *f, u64 features)
{
	driver_use_msix(&f->driver, 4);
	assert_true(driver_negotiate(&f->driver, features));
	for (unsigned i = 0; i < 3; i++)
		driver_queue_setup(&f->driver, i, 64, RINGS + 0x4000 * i);
	driver_ok(&f->driver);
}

static void
fixture_close(struct fixture *f)
{
	board_destroy(&f->board);
	if (f->peer >= 0)
		close(f->peer);
	close(f->own);
}

static void
add_rx(struct fixture *f, unsigned count, u32 size)
{
	for (unsigned i = 0; i < count; i++) {
		struct driver_buffer b = {RX + RX_SIZE * f->driver.queues[Q_RX].next_desc, size,
					  true};

		driver_add(&f->driver, Q_RX, &b, 1);
	}
	driver_kick(&f->driver, Q_RX);
}

static void
peer_send(struct fixture *f, const struct net_header *header, const u8 *frame, size_t len)
{
	struct iovec iov[2] = {{(void *)header, sizeof(*header)}, {(void *)frame, len}};
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};

	assert_int_equal(sendmsg(f->peer, &message, MSG_DONTWAIT), sizeof(*header) + len);
}

static void
fill(u8 *frame, size_t len, u8 seed)
{
	for (size_t i = 0; i < len; i++)
		frame[i] = (u8)(i * 5 + i / 256 + seed);
	memset(frame, 0xff, 6);
}

static void
test_config(void **state)
{
	struct fixture f;

	fixture_open(&f, true);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(driver_get(&f.driver, f.driver.device + i, 1), mac[i]);
	assert_int_equal(driver_get(&f.driver, f.driver.device + 6, 2), 1);
	assert_int_equal(driver_get(&f.driver, f.driver.device + 10, 2), 1400);
	assert_true(driver_offered(&f.driver) & F_HOST_TSO4);
	fixture_close(&f);
	fixture_open(&f, false);
	assert_false(driver_offered(&f.driver) & (F_HOST_TSO4 | F_CSUM | F_GUEST_CSUM));
	fixture_close(&f);
}

static void
test_transmit(void **state)
{
	struct fixture f;
	u8 *header, got[NET_FRAME_MAX], frame[1514];
	u32 id, len;

	fixture_open(&f, true);
	fixture_start(&f, F_BASE | F_CSUM);
	fill(frame, sizeof(frame), 1);
	header = f.ram + TX;
	memset(header, 0, 12);
	memcpy(f.ram + TX + 100, frame, sizeof(frame));
	for (unsigned split = 0; split < 2; split++) {
		struct driver_buffer b[3] = {
			{TX, 12, false}, {TX + 100, 700, false}, {TX + 800, 814, false}};

		if (split) {
			memmove(f.ram + TX + 88, header, 12);
			b[0] = (struct driver_buffer){TX + 88, 12 + 1514, false};
		}
		header[0] = 1;
		driver_add(&f.driver, Q_TX, b, split ? 1 : 3);
		driver_kick(&f.driver, Q_TX);
		assert_true(driver_wait(&f.driver, Q_TX, 1));
		assert_true(driver_take(&f.driver, Q_TX, &id, &len));
		assert_int_equal(recv(f.peer, got, sizeof(got), MSG_DONTWAIT), 12 + 1514);
		assert_int_equal(got[0], 1);
		assert_memory_equal(got + 12, frame, sizeof(frame));
	}
	/* Not agreed on (TSO), too short, too long: dropped, done, nothing else. */
	for (unsigned i = 0; i < 3; i++) {
		struct driver_buffer b = {TX,
					  i == 0   ? 200
					  : i == 1 ? 12 + 13
						   : NET_FRAME_MAX + 1,
					  false};

		header[0] = 0;
		header[1] = i == 0 ? 1 : 0;
		driver_add(&f.driver, Q_TX, &b, 1);
		driver_kick(&f.driver, Q_TX);
		assert_true(driver_wait(&f.driver, Q_TX, 1));
		assert_true(driver_take(&f.driver, Q_TX, &id, &len));
		assert_int_equal(recv(f.peer, got, sizeof(got), MSG_DONTWAIT), -1);
	}
	assert_int_equal(driver_status(&f.driver) & VIRTIO_NEEDS_RESET, 0);
	fixture_close(&f);
}

/* The socket fills up: frames wait in the ring and all arrive, in order. */
static void
test_transmit_backpressure(void **state)
{
	enum { FRAMES = 60, LEN = 60000 };
	static u8 got[NET_FRAME_MAX];
	struct fixture f;
	unsigned seen = 0;
	u16 before;

	fixture_open(&f, true);
	fixture_start(&f, F_BASE);
	memset(f.ram + TX, 0, 12);
	for (unsigned i = 0; i < FRAMES; i++) {
		u64 mark = TX + 0x100000 + 64 * i;
		struct driver_buffer b[2] = {{mark, 32, false}, {TX + 12, LEN, false}};

		memset(f.ram + mark, 0, 32);
		f.ram[mark + 20] = (u8)i;
		driver_add(&f.driver, Q_TX, b, 2);
		if (i % 20 == 19) {
			/* The descriptors wrap: wait until they are free. */
			driver_kick(&f.driver, Q_TX);
			before = driver_used_idx(&f.driver, Q_TX);
			if (i == 19)
				assert_true(before < 20);
			while (driver_used_idx(&f.driver, Q_TX) != i + 1) {
				while (recv(f.peer, got, sizeof(got), MSG_DONTWAIT) > 0)
					assert_int_equal(got[20], seen++);
				f.driver.queues[Q_TX].used_seen = driver_used_idx(&f.driver, Q_TX);
				assert_true(driver_wait(&f.driver, Q_TX, 1));
			}
		}
	}
	for (; seen < FRAMES; seen++) {
		assert_int_equal(recv(f.peer, got, sizeof(got), MSG_DONTWAIT), 32 + LEN);
		assert_int_equal(got[20], seen);
	}
	fixture_close(&f);
}

static void
test_receive(void **state)
{
	struct net_header header = {.flags = 2};
	struct fixture f;
	u8 frame[1514];
	u32 id, len;

	fixture_open(&f, true);
	fixture_start(&f, F_BASE | F_GUEST_CSUM);
	add_rx(&f, 4, RX_SIZE);
	for (unsigned i = 0; i < 12; i++) {
		fill(frame, sizeof(frame), (u8)i);
		peer_send(&f, &header, frame, sizeof(frame));
		if (i >= 4)
			add_rx(&f, 1, RX_SIZE);
		assert_true(driver_wait(&f.driver, Q_RX, 1));
		assert_true(driver_take(&f.driver, Q_RX, &id, &len));
		assert_int_equal(len, 12 + sizeof(frame));
		assert_int_equal(f.ram[RX + RX_SIZE * id], 2);
		assert_int_equal(get_le16(f.ram + RX + RX_SIZE * id + 10), 1);
		assert_memory_equal(f.ram + RX + RX_SIZE * id + 12, frame, sizeof(frame));
	}
	fixture_close(&f);
}

/* A large frame over many buffers; then one that waits until there are enough. */
static void
test_receive_merged(void **state)
{
	enum { LEN = 20000 };
	struct net_header header = {.gso_type = 1, .gso_size = 1448, .flags = 1};
	struct fixture f;
	u8 frame[LEN], got[LEN + 12];
	u32 id, len, total;
	unsigned n;

	fixture_open(&f, true);
	fixture_start(&f, F_BASE | F_GUEST_CSUM | F_GUEST_TSO4);
	for (unsigned round = 0; round < 3; round++) {
		fill(frame, LEN, (u8)round);
		add_rx(&f, 3, RX_SIZE);
		peer_send(&f, &header, frame, LEN);
		for (unsigned i = 0; i < 20; i++)
			driver_wait(&f.driver, Q_CTRL, 0);
		assert_int_equal(driver_used_idx(&f.driver, Q_RX), f.driver.queues[Q_RX].used_seen);
		add_rx(&f, 7, RX_SIZE);
		assert_true(driver_wait(&f.driver, Q_RX, 10));
		for (n = 0, total = 0; driver_take(&f.driver, Q_RX, &id, &len); n++) {
			memcpy(got + total, f.ram + RX + RX_SIZE * id, len);
			total += len;
		}
		assert_int_equal(n, 10);
		assert_int_equal(total, LEN + 12);
		assert_int_equal(get_le16(got + 10), 10);
		assert_int_equal(got[1], 1);
		assert_memory_equal(got + 12, frame, LEN);
	}
	fixture_close(&f);
}

/* Nothing is read from the socket while the guest has no buffers. */
static void
test_receive_backpressure(void **state)
{
	struct net_header header = {0};
	struct fixture f;
	u8 frame[1000] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	u32 id, len;

	fixture_open(&f, false);
	fixture_start(&f, F_BASE);
	for (unsigned sent = 0; sent < 40; sent++) {
		frame[20] = (u8)sent;
		peer_send(&f, &header, frame, sizeof(frame));
	}
	driver_wait(&f.driver, Q_RX, 0);
	for (unsigned i = 0; i < 40; i++) {
		add_rx(&f, 1, RX_SIZE);
		assert_true(driver_wait(&f.driver, Q_RX, 1));
		assert_true(driver_take(&f.driver, Q_RX, &id, &len));
		assert_int_equal(f.ram[RX + RX_SIZE * id + 12 + 20], i);
	}
	fixture_close(&f);
}

/* A guest that takes no partial checksums gets whole ones, and no large frames. */
static void
test_receive_without_offloads(void **state)
{
	struct net_header header = {.flags = 1, .csum_start = 14, .csum_offset = 16};
	struct net_header large = {.gso_type = 1};
	struct fixture f;
	u8 frame[14 + 21] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, *got;
	u32 id, len, sum = 0;

	fixture_open(&f, true);
	fixture_start(&f, F_BASE);
	add_rx(&f, 4, RX_SIZE);
	for (unsigned i = 14; i < sizeof(frame); i++)
		frame[i] = (u8)(i * 17);
	peer_send(&f, &large, frame, sizeof(frame));
	peer_send(&f, &header, frame, sizeof(frame));
	assert_true(driver_wait(&f.driver, Q_RX, 1));
	assert_true(driver_take(&f.driver, Q_RX, &id, &len));
	assert_false(driver_take(&f.driver, Q_RX, &id, &len));
	got = f.ram + RX + 12;
	assert_int_equal(f.ram[RX], 0);
	/* The field's first content takes part in the sum. */
	for (unsigned i = 14; i < sizeof(frame); i += 2)
		sum += (u32)frame[i] << 8 | (i + 1 < sizeof(frame) ? frame[i + 1] : 0);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(got[30] << 8 | got[31], ~sum & 0xffff);
	fixture_close(&f);
}

static u8
command(struct fixture *f, const void *bytes, u32 len)
{
	struct driver_buffer b[2] = {{TX, len, false}, {TX + 4096, 1, true}};
	u32 id, used;

	memcpy(f->ram + TX, bytes, len);
	f->ram[TX + 4096] = 0xee;
	driver_add(&f->driver, Q_CTRL, b, 2);
	driver_kick(&f->driver, Q_CTRL);
	assert_true(driver_wait(&f->driver, Q_CTRL, 1));
	assert_true(driver_take(&f->driver, Q_CTRL, &id, &used));
	assert_int_equal(used, 1);
	return f->ram[TX + 4096];
}

static bool
arrives(struct fixture *f, const u8 destination[6])
{
	struct net_header header = {0};
	static const u8 broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	u8 frame[60] = {0};
	u32 id, len;
	bool arrived;

	/* A broadcast behind it tells when it has been dealt with. */
	memcpy(frame, destination, 6);
	frame[30] = 1;
	peer_send(f, &header, frame, sizeof(frame));
	memcpy(frame, broadcast, 6);
	frame[30] = 2;
	peer_send(f, &header, frame, sizeof(frame));
	add_rx(f, 2, RX_SIZE);
	assert_true(driver_wait(&f->driver, Q_RX, 1));
	assert_true(driver_take(&f->driver, Q_RX, &id, &len));
	arrived = f->ram[RX + RX_SIZE * id + 12 + 30] == 1;
	if (arrived) {
		assert_true(driver_wait(&f->driver, Q_RX, 1));
		assert_true(driver_take(&f->driver, Q_RX, &id, &len));
	}
	return arrived;
}

static void
test_filter(void **state)
{
	static const u8 other[6] = {0x52, 0x54, 0, 9, 9, 9}, multi[6] = {1, 0, 0x5e, 0, 0, 1};
	static const u8 fresh[6] = {0x52, 0x54, 0, 7, 7, 7};
	u8 table[22] = {1, 0, 1}, address[8] = {1, 1};
	struct fixture f;

	fixture_open(&f, false);
	fixture_start(&f, F_BASE);
	assert_true(arrives(&f, other));
	assert_int_equal(command(&f, (u8[]){0, 0, 0}, 3), 0); /* promiscuous off */
	assert_false(arrives(&f, other));
	assert_true(arrives(&f, mac));
	assert_false(arrives(&f, multi));
	assert_int_equal(command(&f, (u8[]){0, 1, 1}, 3), 0); /* all multicast */
	assert_true(arrives(&f, multi));
	assert_int_equal(command(&f, (u8[]){0, 1, 0}, 3), 0);
	memcpy(table, (u8[]){1, 0, 1, 0, 0, 0}, 6);
	memcpy(table + 6, other, 6);
	memcpy(table + 12, (u8[]){1, 0, 0, 0}, 4);
	memcpy(table + 16, multi, 6);
	assert_int_equal(command(&f, table, 22), 0);
	assert_true(arrives(&f, other));
	assert_true(arrives(&f, multi));
	memcpy(address + 2, fresh, 6);
	assert_int_equal(command(&f, address, 8), 0);
	assert_true(arrives(&f, fresh));
	assert_false(arrives(&f, mac));
	assert_int_equal(driver_get(&f.driver, f.driver.device + 3, 1), 7);
	/* Malformed ones are refused and change nothing. */
	table[2] = 200;
	assert_int_equal(command(&f, table, 22), 1);
	memset(table + 2, 0xff, 4);
	assert_int_equal(command(&f, table, 22), 1);
	assert_int_equal(command(&f, address, 5), 1);
	assert_int_equal(command(&f, (u8[]){0, 77, 1}, 3), 1);
	assert_int_equal(command(&f, (u8[]){0, 0}, 2), 1);
	assert_int_equal(command(&f, (u8[]){9}, 1), 1);
	assert_true(arrives(&f, other));
	fixture_close(&f);
}

static bool
link_is_down(void *opaque)
{
	struct fixture *f = opaque;

	return driver_get(&f->driver, f->driver.device + 6, 2) == 0;
}

/* biga-net dies: the guest sees the cable pulled, and lives on. */
static void
test_peer_gone(void **state)
{
	struct fixture f;
	struct driver_buffer b = {TX, 100, false};

	fixture_open(&f, false);
	fixture_start(&f, F_BASE);
	add_rx(&f, 2, RX_SIZE);
	close(f.peer);
	f.peer = -1;
	assert_true(board_run(&f.board, link_is_down, &f));
	memset(f.ram + TX, 0, 100);
	driver_add(&f.driver, Q_TX, &b, 1);
	driver_kick(&f.driver, Q_TX);
	assert_true(driver_wait(&f.driver, Q_TX, 1));
	virtio_net_set_link(f.net, true);
	assert_true(link_is_down(&f));
	fixture_close(&f);
}

static void
test_hostile(void **state)
{
	struct net_header header = {0};
	struct fixture f;
	u8 frame[600] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	fixture_open(&f, false);
	fixture_start(&f, F_BASE);
	/* A frame that no ring of such buffers could ever hold is dropped. */
	add_rx(&f, 64, 4);
	peer_send(&f, &header, frame, sizeof(frame));
	driver_wait(&f.driver, Q_CTRL, 0);
	for (unsigned i = 0; i < 50; i++)
		driver_wait(&f.driver, Q_CTRL, 0);
	assert_int_equal(driver_used_idx(&f.driver, Q_RX), 0);
	assert_int_equal(driver_status(&f.driver) & VIRTIO_NEEDS_RESET, 0);
	/* Buffers that are no RAM. */
	driver_desc(&f.driver, &f.driver.queues[Q_RX], 0, 0xf0000000, 2048, 2, 0);
	peer_send(&f, &header, frame, sizeof(frame));
	for (unsigned i = 0; i < 50; i++)
		driver_wait(&f.driver, Q_CTRL, 0);
	assert_true(driver_status(&f.driver) & VIRTIO_NEEDS_RESET);
	/* And again from the start. */
	fixture_start(&f, F_BASE);
	assert_true(arrives(&f, mac));
	fixture_close(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_transmit),
		cmocka_unit_test(test_transmit_backpressure),
		cmocka_unit_test(test_receive),
		cmocka_unit_test(test_receive_merged),
		cmocka_unit_test(test_receive_backpressure),
		cmocka_unit_test(test_receive_without_offloads),
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_peer_gone),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
