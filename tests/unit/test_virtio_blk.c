/* The virtio block device, worked by a driver over PCI, on both disk engines. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "device/virtio_blk.h"
#include "unit/virtio_driver.h"

enum { SLOT = 3, DISK = 4 << 20, RINGS = 0x10000, HEADERS = 0x100000, DATA = 0x200000 };
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };
#define F_FLUSH BIT64(9)
#define F_ALL (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | F_FLUSH)

struct fixture {
	struct board board;
	struct driver driver;
	struct virtio_blk *blk;
	int fd;
	u8 *ram;
};

static void
fixture_open(struct fixture *f, bool events, bool readonly, enum block_engine engine)
{
	char name[] = "/tmp/biga-test-blk-XXXXXX";
	struct block *block;

	memset(f, 0, sizeof(*f));
	f->fd = mkstemp(name);
	unlink(name);
	assert_int_equal(ftruncate(f->fd, DISK), 0);
	assert_int_equal(board_create(&f->board, events), 0);
	assert_int_equal(block_open_raw(&block, dup(f->fd), readonly, f->board.loop, engine), 0);
	assert_int_equal(virtio_blk_create(f->board.bus, SLOT, &f->board.host, block,
					   "serial-0123456789-too-long", &f->blk),
			 0);
	assert_int_equal(board_assign(&f->board), 0);
	driver_find(&f->driver, &f->board, SLOT);
	f->ram = memory_ram_host(f->board.memory);
}

static void
fixture_start(struct fixture *f, u64 features, bool msix)
{
	if (msix)
		driver_use_msix(&f->driver, 2);
	assert_true(driver_negotiate(&f->driver, features));
	driver_queue_setup(&f->driver, 0, 128, RINGS);
	driver_ok(&f->driver);
}

static void
fixture_close(struct fixture *f)
{
	board_destroy(&f->board);
	close(f->fd);
}

/* Queues request N: header, LEN bytes of data at DATA + offset, status. */
static u16
request(struct fixture *f, unsigned n, u32 type, u64 sector, u64 data, u32 len)
{
	u64 at = HEADERS + 64 * n;
	struct driver_buffer buffers[3] = {
		{at, 16, false},
		{data, len, type == T_IN || type == T_ID},
		{at + 16, 1, true},
	};

	put_le32(f->ram + at, type);
	put_le32(f->ram + at + 4, 0);
	put_le64(f->ram + at + 8, sector);
	f->ram[at + 16] = 0xee;
	if (len)
		return driver_add(&f->driver, 0, buffers, 3);
	buffers[1] = buffers[2];
	return driver_add(&f->driver, 0, buffers, 2);
}

static u8
status_of(struct fixture *f, unsigned n)
{
	return f->ram[HEADERS + 64 * n + 16];
}

/* One request from start to end: its status. */
static u8
perform(struct fixture *f, u32 type, u64 sector, u64 data, u32 len)
{
	u32 id, used;
	u16 head = request(f, 0, type, sector, data, len);

	driver_kick(&f->driver, 0);
	assert_true(driver_wait(&f->driver, 0, 1));
	assert_true(driver_take(&f->driver, 0, &id, &used));
	assert_int_equal(id, head);
	assert_int_equal(used, type == T_IN || type == T_ID ? len + 1 : 1);
	return status_of(f, 0);
}

static void
erase(struct fixture *f, u32 type, u64 sector, u32 count, u32 flags, u8 status)
{
	put_le64(f->ram + DATA, sector);
	put_le32(f->ram + DATA + 8, count);
	put_le32(f->ram + DATA + 12, flags);
	assert_int_equal(perform(f, type, 0, DATA, 16), status);
}

static void
test_config(void **state)
{
	struct fixture f;
	struct driver *d = &f.driver;

	fixture_open(&f, false, false, BLOCK_THREADS);
	assert_int_equal(ecam_read(&f.board, SLOT, 0, 4), 0x10421af4);
	assert_true(d->common && d->isr && d->device && d->notify);
	assert_int_equal(driver_get(d, d->device, 4), DISK / 512);
	assert_int_equal(driver_get(d, d->device + 12, 4), 254);
	assert_int_equal(driver_get(d, d->device + 20, 4), 512);
	assert_int_equal(driver_get(d, d->common + 18, 2), 1);
	assert_int_equal(driver_offered(d) & (F_ALL | BIT64(5)), F_ALL);
	/* Features that were not offered are not agreed on; nor is a driver of old. */
	assert_false(driver_negotiate(d, F_ALL | BIT64(60)));
	assert_false(driver_negotiate(d, F_FLUSH));
	assert_true(driver_negotiate(d, F_ALL));
	/* A vector that does not exist reads back as none. */
	driver_put(d, d->common + 22, 2, 0);
	driver_put(d, d->common + 26, 2, 2);
	assert_int_equal(driver_get(d, d->common + 26, 2), VIRTIO_NO_VECTOR);
	driver_put(d, d->common + 22, 2, 500);
	assert_int_equal(driver_get(d, d->common + 24, 2), 0);
	fixture_close(&f);
}

static void
check_io(bool events, bool msix, u64 features, enum block_engine engine)
{
	struct fixture f;
	u8 back[8192];

	fixture_open(&f, events, false, engine);
	fixture_start(&f, features, msix);
	for (unsigned i = 0; i < sizeof(back); i++)
		f.ram[DATA + i] = (u8)(i * 3 + i / 256);
	assert_int_equal(perform(&f, T_OUT, 8, DATA, sizeof(back)), 0);
	assert_int_equal(pread(f.fd, back, sizeof(back), 4096), sizeof(back));
	assert_memory_equal(back, f.ram + DATA, sizeof(back));
	assert_int_equal(perform(&f, T_IN, 8, DATA + 0x10000, sizeof(back)), 0);
	assert_memory_equal(back, f.ram + DATA + 0x10000, sizeof(back));
	assert_int_equal(perform(&f, T_FLUSH, 0, 0, 0), 0);
	assert_int_equal(perform(&f, T_ID, 0, DATA, 20), 0);
	assert_memory_equal(f.ram + DATA, "serial-0123456789-to", 20);
	erase(&f, T_ZEROES, 8, 4, 0, 0);
	erase(&f, T_DISCARD, 16, 4, 0, 0);
	assert_int_equal(pread(f.fd, back + 2048, 1, 4096 + 2048), 1);
	assert_int_equal(pread(f.fd, back, 2048, 4096), 2048);
	for (unsigned i = 0; i < 2048; i++)
		assert_int_equal(back[i], 0);
	if (msix) {
		assert_true(f.board.msis > 0);
		assert_int_equal(f.board.msi_data[0], 0x101);
	} else {
		assert_true(f.board.pirq[pci_pirq(SLOT, 1)]);
		assert_int_equal(driver_get(&f.driver, f.driver.isr, 1), 1);
		assert_false(f.board.pirq[pci_pirq(SLOT, 1)]);
		assert_int_equal(driver_get(&f.driver, f.driver.isr, 1), 0);
	}
	fixture_close(&f);
}

static void
test_io(void **state)
{
	for (unsigned i = 0; i < 16; i++)
		check_io(i & 1, i & 2, i & 4 ? F_ALL : VIRTIO_F_VERSION_1,
			 i & 8 ? BLOCK_AUTO : BLOCK_THREADS);
}

static void
test_errors(void **state)
{
	struct fixture f;

	fixture_open(&f, false, false, BLOCK_AUTO);
	fixture_start(&f, F_ALL, true);
	assert_int_equal(perform(&f, T_IN, DISK / 512, DATA, 512), 1);
	assert_int_equal(perform(&f, T_OUT, DISK / 512 - 1, DATA, 1024), 1);
	assert_int_equal(perform(&f, T_IN, UINT64_MAX / 512 + 2, DATA, 512), 1);
	assert_int_equal(perform(&f, T_OUT, UINT64_MAX, DATA, 512), 1);
	assert_int_equal(perform(&f, T_IN, 0, DATA, 100), 1);
	assert_int_equal(perform(&f, T_OUT, 0, 0, 0), 1);
	assert_int_equal(perform(&f, 99, 0, DATA, 512), 2);
	erase(&f, T_DISCARD, 0, 8, 1, 2);
	erase(&f, T_ZEROES, 0, 8, 2, 2);
	erase(&f, T_ZEROES, DISK / 512 - 1, 2, 1, 1);
	erase(&f, T_DISCARD, UINT64_MAX, 2, 0, 1);
	erase(&f, T_DISCARD, 0, UINT32_MAX, 0, 1);
	assert_int_equal(perform(&f, T_DISCARD, 0, DATA, 17), 1);
	/* After all that it still works. */
	assert_int_equal(perform(&f, T_IN, 0, DATA, 512), 0);
	assert_int_equal(driver_status(&f.driver) & VIRTIO_NEEDS_RESET, 0);
	fixture_close(&f);
}

static void
test_readonly(void **state)
{
	struct fixture f;

	fixture_open(&f, false, true, BLOCK_AUTO);
	assert_true(driver_offered(&f.driver) & BIT64(5));
	assert_false(driver_offered(&f.driver) & (BIT64(13) | BIT64(14)));
	fixture_start(&f, F_ALL | BIT64(5), true);
	assert_int_equal(perform(&f, T_OUT, 0, DATA, 512), 1);
	assert_int_equal(perform(&f, T_IN, 0, DATA, 512), 0);
	fixture_close(&f);
}

/* The borders of descriptors mean nothing: all split in odd places, in an
 * indirect table. */
static void
test_odd_framing(void **state)
{
	struct fixture f;
	struct driver_queue *q = &f.driver.queues[0];
	u8 back[1024];

	fixture_open(&f, false, false, BLOCK_AUTO);
	fixture_start(&f, F_ALL, true);
	memset(f.ram + DATA, 0x77, 2048);
	put_le32(f.ram + DATA, T_OUT);
	put_le32(f.ram + DATA + 4, 0);
	put_le64(f.ram + DATA + 8, 2);
	for (unsigned i = 0; i < 2; i++) {
		u8 *p = f.ram + 0x30000 + 16 * i;

		put_le64(p, DATA + (i ? 5 : 0));
		put_le32(p + 8, i ? 16 + 1024 - 5 : 5);
		put_le16(p + 12, 1);
		put_le16(p + 14, (u16)(i + 1));
	}
	put_le64(f.ram + 0x30020, HEADERS);
	put_le32(f.ram + 0x30028, 1);
	put_le16(f.ram + 0x3002c, 2);
	f.ram[HEADERS] = 0xee;
	driver_desc(&f.driver, q, 0, 0x30000, 48, 4, 0);
	driver_offer(&f.driver, q, 0);
	driver_kick(&f.driver, 0);
	assert_true(driver_wait(&f.driver, 0, 1));
	assert_int_equal(f.ram[HEADERS], 0);
	assert_int_equal(pread(f.fd, back, 1024, 1024), 1024);
	assert_memory_equal(back, f.ram + DATA + 16, 1024);
	fixture_close(&f);
}

static void
test_many_at_once(void **state)
{
	struct fixture f;
	u32 id, len;

	for (unsigned pass = 0; pass < 2; pass++) {
		fixture_open(&f, pass, false, pass ? BLOCK_AUTO : BLOCK_THREADS);
		fixture_start(&f, F_ALL, true);
		for (unsigned round = 0; round < 20; round++) {
			for (unsigned i = 0; i < 40; i++)
				request(&f, i, i & 1 ? T_IN : T_OUT, 8 * i, DATA + 4096 * i, 4096);
			driver_kick(&f.driver, 0);
			assert_true(driver_wait(&f.driver, 0, 40));
			for (unsigned i = 0; i < 40; i++) {
				assert_true(driver_take(&f.driver, 0, &id, &len));
				assert_int_equal(status_of(&f, i), 0);
			}
		}
		fixture_close(&f);
	}
}

/* A driver that offers more than the queue holds: bounded, in order, no crash. */
static void
test_flood(void **state)
{
	struct fixture f;
	struct driver_queue *q = &f.driver.queues[0];
	u16 head;

	fixture_open(&f, false, false, BLOCK_THREADS);
	fixture_start(&f, F_ALL, true);
	head = request(&f, 0, T_FLUSH, 0, 0, 0);
	for (unsigned i = 0; i < 127; i++)
		driver_offer(&f.driver, q, head);
	driver_kick(&f.driver, 0);
	assert_true(driver_wait(&f.driver, 0, 128));
	assert_int_equal(driver_status(&f.driver) & VIRTIO_NEEDS_RESET, 0);
	/* More than 128 new ones since the last look is not a ring any more. */
	for (unsigned i = 0; i < 129; i++)
		driver_offer(&f.driver, q, head);
	driver_kick(&f.driver, 0);
	assert_true(driver_status(&f.driver) & VIRTIO_NEEDS_RESET);
	fixture_close(&f);
}

/* A broken driver gets NEEDS_RESET and an interrupt; after a reset all is well. */
static void
test_needs_reset(void **state)
{
	struct fixture f;
	struct driver_queue *q = &f.driver.queues[0];
	unsigned msis;

	fixture_open(&f, true, false, BLOCK_AUTO);
	fixture_start(&f, F_ALL, true);
	driver_put(&f.driver, f.driver.common + 16, 2, 0);
	assert_int_equal(perform(&f, T_IN, 0, DATA, 512), 0);
	msis = f.board.msis;
	driver_desc(&f.driver, q, 50, 0xfee00000, 16, 0, 0);
	driver_offer(&f.driver, q, 50);
	driver_put(&f.driver, q->notify, 2, 0);
	assert_true(driver_status(&f.driver) & VIRTIO_NEEDS_RESET);
	assert_int_equal(f.board.msis, msis + 1);
	assert_int_equal(f.board.msi_data[msis], 0x100);
	assert_int_equal(f.board.bound, 1);
	driver_put(&f.driver, f.driver.common + 20, 1, 0);
	assert_int_equal(driver_status(&f.driver), 0);
	assert_int_equal(f.board.bound, 0);
	fixture_start(&f, F_ALL, true);
	assert_int_equal(perform(&f, T_IN, 0, DATA, 512), 0);
	/* Rings outside RAM. */
	driver_put(&f.driver, f.driver.common + 20, 1, 0);
	assert_true(driver_negotiate(&f.driver, F_ALL));
	driver_put(&f.driver, f.driver.common + 22, 2, 0);
	driver_put(&f.driver, f.driver.common + 32, 8, BOARD_RAM);
	driver_put(&f.driver, f.driver.common + 28, 2, 1);
	assert_true(driver_status(&f.driver) & VIRTIO_NEEDS_RESET);
	fixture_close(&f);
}

/* Reset while requests are in flight: none touches memory afterwards. */
static void
test_reset_in_flight(void **state)
{
	struct fixture f;
	u16 idx;

	fixture_open(&f, false, false, BLOCK_THREADS);
	for (unsigned round = 0; round < 50; round++) {
		fixture_start(&f, F_ALL, true);
		for (unsigned i = 0; i < 30; i++)
			request(&f, i, i % 3 ? T_IN : T_OUT, 64 * i, DATA + 0x8000 * i, 0x8000);
		driver_kick(&f.driver, 0);
		if (round & 1)
			pci_bus_reset(f.board.bus);
		else
			driver_put(&f.driver, f.driver.common + 20, 1, 0);
		idx = driver_used_idx(&f.driver, 0);
		memset(f.ram + DATA, 0x11, 30 * 0x8000);
		usleep(1000);
		for (unsigned i = 0; i < 30 * 0x8000; i += 512)
			assert_int_equal(f.ram[DATA + i], 0x11);
		assert_int_equal(driver_used_idx(&f.driver, 0), idx);
		if (round & 1)
			assert_int_equal(board_assign(&f.board), 0);
	}
	fixture_close(&f);
}

/* The window in configuration space does what the BAR does. */
static void
test_access_capability(void **state)
{
	struct fixture f;
	struct board *b = &f.board;
	unsigned at = 0;

	fixture_open(&f, false, false, BLOCK_THREADS);
	while ((at = driver_capability(b, SLOT, PCI_CAP_VENDOR, at)))
		if (ecam_read(b, SLOT, at + 3, 1) == 5)
			break;
	assert_true(at);
	ecam_write(b, SLOT, at + 4, 1, 4);
	ecam_write(b, SLOT, at + 8, 4, 0x2000);
	ecam_write(b, SLOT, at + 12, 4, 4);
	assert_int_equal(ecam_read(b, SLOT, at + 16, 4), DISK / 512);
	ecam_write(b, SLOT, at + 8, 4, 20);
	ecam_write(b, SLOT, at + 12, 4, 1);
	ecam_write(b, SLOT, at + 16, 1, VIRTIO_ACKNOWLEDGE);
	assert_int_equal(driver_status(&f.driver), VIRTIO_ACKNOWLEDGE);
	/* Nonsense is ignored. */
	ecam_write(b, SLOT, at + 8, 4, 0xffffffff);
	ecam_write(b, SLOT, at + 12, 4, 4);
	ecam_write(b, SLOT, at + 16, 4, 1);
	ecam_write(b, SLOT, at + 12, 4, 3);
	ecam_read(b, SLOT, at + 16, 4);
	fixture_close(&f);
}

static void
test_resize(void **state)
{
	struct fixture f;

	fixture_open(&f, false, false, BLOCK_THREADS);
	fixture_start(&f, F_ALL, false);
	virtio_blk_resized(f.blk);
	assert_int_equal(driver_get(&f.driver, f.driver.isr, 1), 2);
	assert_int_equal(driver_get(&f.driver, f.driver.common + 21, 1), 1);
	fixture_close(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),		cmocka_unit_test(test_io),
		cmocka_unit_test(test_errors),		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_odd_framing),	cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_flood),		cmocka_unit_test(test_needs_reset),
		cmocka_unit_test(test_reset_in_flight), cmocka_unit_test(test_access_capability),
		cmocka_unit_test(test_resize),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
