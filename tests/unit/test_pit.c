/*
 * The 8254: counting, latching, read-back, ticks of channel 0, the speaker's gate.
 */
#include "board.h"
#include "device/pit.h"

#include <time.h>

enum { IRQ = 0 };

static struct board *b;
static struct pit *pit;
static bool listening;

static bool
heard(void *opaque)
{
	return listening;
}

static int
setup(void **state)
{
	const struct pit_host host = {NULL, heard};

	b = board_create();
	listening = true;
	assert_int_equal(pit_create(&pit, &b->host, board_line(b, IRQ), &host), 0);
	return 0;
}

static int
teardown(void **state)
{
	pit_destroy(pit);
	board_destroy(b);
	return 0;
}

static void
load(unsigned channel, unsigned mode, u16 count)
{
	outb(b, 0x43, (u8)(channel << 6 | 0x30 | mode << 1));
	outb(b, (u16)(0x40 + channel), (u8)count);
	outb(b, (u16)(0x40 + channel), (u8)(count >> 8));
}

static u16
latched(unsigned channel)
{
	u16 low;

	outb(b, 0x43, (u8)(channel << 6));
	low = inb(b, (u16)(0x40 + channel));
	return (u16)(low | inb(b, (u16)(0x40 + channel)) << 8);
}

static void
sleep_ms(unsigned ms)
{
	struct timespec ts = {0, (long)ms * 1000000};

	nanosleep(&ts, NULL);
}

static void
test_counts_down(void **state)
{
	u16 first, second;

	load(0, 2, 0xffff);
	first = latched(0);
	sleep_ms(5);
	second = latched(0);
	/* 5 ms are 5966 ticks; a busy machine sleeps longer. */
	assert_true(first - second >= 5900);
	assert_true(first > 0xf000);
}

static void
test_latch_holds(void **state)
{
	u8 low, high;

	load(0, 2, 0xffff);
	outb(b, 0x43, 0x00);
	low = inb(b, 0x40);
	sleep_ms(2);
	high = inb(b, 0x40);
	assert_true((u16)(low | high << 8) > 0xf000);
}

static void
test_one_shot(void **state)
{
	load(0, 0, 11932); /* 10 ms */
	assert_false(b->level[IRQ]);
	board_run(b, 30);
	assert_int_equal(b->edges[IRQ], 1);
	assert_true(b->level[IRQ]);
	board_run(b, 20);
	assert_int_equal(b->edges[IRQ], 1);
}

static void
test_periodic(void **state)
{
	load(0, 2, 11932);
	b->edges[IRQ] = 0;
	board_run(b, 105);
	assert_in_range(b->edges[IRQ], 6, 11);
	listening = false;
	pit_wake(pit);
	b->edges[IRQ] = 0;
	board_run(b, 30);
	assert_int_equal(b->edges[IRQ], 0);
	listening = true;
	pit_wake(pit);
	board_run(b, 35);
	assert_true(b->edges[IRQ] >= 1);
}

/* A hostile period must not hold the host's processor. */
static void
test_shortest_period(void **state)
{
	load(0, 2, 1);
	b->edges[IRQ] = 0;
	board_run(b, 50);
	assert_true(b->edges[IRQ] <= 1001);
}

static void
test_read_back(void **state)
{
	u8 low;

	outb(b, 0x43, 0x34);
	outb(b, 0x43, 0xe2); /* status of channel 0: null count */
	assert_int_equal(inb(b, 0x40), 0x80 | 0x40 | 0x34);
	load(0, 2, 1000);
	outb(b, 0x43, 0xe2);
	assert_int_equal(inb(b, 0x40) & 0x7f, 0x34);
	outb(b, 0x43, 0xc2); /* status and count: status comes first */
	assert_int_equal(inb(b, 0x40) & 0x7f, 0x34);
	low = inb(b, 0x40);
	assert_true((low | inb(b, 0x40) << 8) <= 1000);
}

static void
test_gate(void **state)
{
	u16 stopped;

	outb(b, 0x61, 0x01);
	load(2, 0, 11932);
	assert_false(inb(b, 0x61) & 0x20);
	sleep_ms(12);
	assert_true(inb(b, 0x61) & 0x20);
	load(2, 0, 0xffff);
	outb(b, 0x61, 0x00);
	stopped = latched(2);
	sleep_ms(3);
	assert_int_equal(latched(2), stopped);
	outb(b, 0x61, 0x01);
	sleep_ms(3);
	assert_true(latched(2) < stopped);
}

static void
test_bcd(void **state)
{
	u16 value;

	outb(b, 0x43, 0x35);
	outb(b, 0x40, 0x00);
	outb(b, 0x40, 0x10); /* 1000 in BCD */
	value = latched(0);
	for (unsigned i = 0; i < 4; i++)
		assert_true((value >> 4 * i & 15) <= 9);
	assert_true(value <= 0x1000);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_counts_down),	 T(test_latch_holds), T(test_one_shot), T(test_periodic),
		T(test_shortest_period), T(test_read_back),   T(test_gate),	T(test_bcd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
