/* The virtio console and entropy devices. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "device/virtio_console.h"
#include "device/virtio_rng.h"
#include "unit/virtio_driver.h"

enum { CONSOLE = 5, RNG = 6, RINGS = 0x10000, DATA = 0x100000 };
enum { Q_RX, Q_TX };
#define F_ALL (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC)

struct fixture {
	struct board board;
	struct driver driver;
	struct virtio_console *console;
	u8 *ram;
	char text[4096];
	size_t len, room;
	unsigned ready;
};

static size_t
output(void *opaque, const u8 *data, size_t len)
{
	struct fixture *f = opaque;

	if (len > f->room)
		len = f->room;
	memcpy(f->text + f->len, data, len);
	f->len += len;
	f->room -= len;
	return len;
}

static void
input_ready(void *opaque)
{
	((struct fixture *)opaque)->ready++;
}

static void
fixture_open(struct fixture *f, unsigned slot)
{
	struct virtio_console_host host = {f, output, input_ready};

	memset(f, 0, sizeof(*f));
	f->room = sizeof(f->text);
	assert_int_equal(board_create(&f->board, false), 0);
	assert_int_equal(
		virtio_console_create(f->board.bus, CONSOLE, &f->board.host, &host, &f->console),
		0);
	assert_int_equal(virtio_rng_create(f->board.bus, RNG, &f->board.host), 0);
	assert_int_equal(board_assign(&f->board), 0);
	f->ram = memory_ram_host(f->board.memory);
	driver_find(&f->driver, &f->board, slot);
	driver_use_msix(&f->driver, slot == RNG ? 2 : 3);
	assert_true(driver_negotiate(&f->driver, F_ALL));
	for (unsigned i = 0; i < (slot == RNG ? 1 : 2); i++)
		driver_queue_setup(&f->driver, i, 16, RINGS + 0x4000 * i);
	driver_ok(&f->driver);
}

static void
say(struct fixture *f, const char *text)
{
	size_t len = strlen(text);
	struct driver_buffer b[2] = {{DATA, 1, false}, {DATA + 1, (u32)len - 1, false}};

	memcpy(f->ram + DATA, text, len);
	driver_add(&f->driver, Q_TX, b, 2);
	driver_kick(&f->driver, Q_TX);
}

static void
test_output(void **state)
{
	struct fixture f;

	fixture_open(&f, CONSOLE);
	say(&f, "hello");
	assert_int_equal(driver_used_idx(&f.driver, Q_TX), 1);
	assert_string_equal(f.text, "hello");
	assert_int_equal(f.board.msi_data[0], 0x102);
	/* The host takes three bytes and no more for now. */
	f.room = 3;
	say(&f, " world");
	assert_string_equal(f.text, "hello wo");
	assert_int_equal(driver_used_idx(&f.driver, Q_TX), 1);
	f.room = 2;
	virtio_console_resume(f.console);
	assert_string_equal(f.text, "hello worl");
	f.room = 100;
	virtio_console_resume(f.console);
	assert_string_equal(f.text, "hello world");
	assert_int_equal(driver_used_idx(&f.driver, Q_TX), 2);
	virtio_console_resume(f.console);
	/* What waits is forgotten by a reset. */
	f.room = 0;
	say(&f, "lost");
	driver_put(&f.driver, f.driver.common + 20, 1, 0);
	f.room = 100;
	virtio_console_resume(f.console);
	assert_string_equal(f.text, "hello world");
	board_destroy(&f.board);
}

static void
test_input(void **state)
{
	struct driver_buffer b = {DATA, 4, true};
	struct fixture f;
	u32 id, len;

	fixture_open(&f, CONSOLE);
	assert_int_equal(virtio_console_input(f.console, (const u8 *)"abcdefghij", 10), 0);
	assert_int_equal(f.ready, 0);
	driver_add(&f.driver, Q_RX, &b, 1);
	b.gpa += 4;
	driver_add(&f.driver, Q_RX, &b, 1);
	driver_kick(&f.driver, Q_RX);
	assert_int_equal(f.ready, 1);
	assert_int_equal(virtio_console_input(f.console, (const u8 *)"abcdefghij", 10), 8);
	assert_memory_equal(f.ram + DATA, "abcdefgh", 8);
	assert_true(driver_take(&f.driver, Q_RX, &id, &len));
	assert_int_equal(len, 4);
	driver_add(&f.driver, Q_RX, &b, 1);
	driver_kick(&f.driver, Q_RX);
	assert_int_equal(f.ready, 2);
	assert_int_equal(virtio_console_input(f.console, (const u8 *)"ij", 2), 2);
	driver_kick(&f.driver, Q_RX);
	assert_int_equal(f.ready, 2);
	/* A buffer without room is a broken driver. */
	b.len = 0;
	driver_add(&f.driver, Q_RX, &b, 1);
	assert_int_equal(virtio_console_input(f.console, (const u8 *)"k", 1), 0);
	assert_true(driver_status(&f.driver) & VIRTIO_NEEDS_RESET);
	board_destroy(&f.board);
}

static void
test_config(void **state)
{
	struct fixture f;

	fixture_open(&f, CONSOLE);
	virtio_console_resize(f.console, 132, 50);
	assert_int_equal(driver_get(&f.driver, f.driver.device, 2), 132);
	assert_int_equal(driver_get(&f.driver, f.driver.device + 2, 2), 50);
	driver_put(&f.driver, f.driver.device + 8, 4, '!');
	assert_string_equal(f.text, "!");
	board_destroy(&f.board);
}

static void
test_rng(void **state)
{
	struct driver_buffer b[2] = {{DATA, 100, true}, {DATA + 200, 60, true}};
	struct driver_buffer large = {DATA, 1 << 20, true};
	struct fixture f;
	unsigned zeroes = 0;
	u32 id, len;

	fixture_open(&f, RNG);
	for (unsigned i = 0; i < 50; i++) {
		memset(f.ram + DATA, 0, 300);
		driver_add(&f.driver, 0, b, 2);
		driver_kick(&f.driver, 0);
		assert_true(driver_take(&f.driver, 0, &id, &len));
		assert_int_equal(len, 160);
		for (unsigned j = 0; j < 100; j++)
			zeroes += f.ram[DATA + j] == 0;
		assert_int_equal(f.ram[DATA + 100], 0);
		assert_int_equal(f.ram[DATA + 260], 0);
	}
	assert_true(zeroes < 100);
	driver_add(&f.driver, 0, &large, 1);
	driver_kick(&f.driver, 0);
	assert_true(driver_take(&f.driver, 0, &id, &len));
	assert_int_equal(len, 4096);
	board_destroy(&f.board);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output),
		cmocka_unit_test(test_input),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_rng),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
