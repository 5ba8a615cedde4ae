/*
 * The clock: host's time, setting it, formats, alarm, periodic and update interrupts, CMOS.
 */
#include "board.h"
#include "device/rtc.h"

#include <time.h>

enum { IRQ = 8 };

static struct board *b;
static struct rtc *rtc;

static int
setup(void **state)
{
	b = board_create();
	assert_int_equal(rtc_create(&rtc, &b->host, board_line(b, IRQ), 4), 0);
	return 0;
}

static int
teardown(void **state)
{
	rtc_destroy(rtc);
	board_destroy(b);
	return 0;
}

static u8
get(u8 index)
{
	outb(b, 0x70, index);
	return inb(b, 0x71);
}

static void
set(u8 index, u8 value)
{
	outb(b, 0x70, index);
	outb(b, 0x71, value);
}

static int
bcd(u8 value)
{
	return (value >> 4) * 10 + (value & 15);
}

static time_t
guest_time(void)
{
	struct tm tm = {0};

	tm.tm_year = bcd(get(0x32)) * 100 + bcd(get(9)) - 1900;
	tm.tm_mon = bcd(get(8)) - 1;
	tm.tm_mday = bcd(get(7));
	tm.tm_hour = bcd(get(4));
	tm.tm_min = bcd(get(2));
	tm.tm_sec = bcd(get(0));
	return timegm(&tm);
}

static void
test_host_time(void **state)
{
	time_t before = time(NULL), guest = guest_time();

	assert_true(guest >= before - 60 && guest <= time(NULL) + 60);
	assert_int_equal(get(0x0d), 0x80);
	assert_int_equal(get(0x0a) & 0x7f, 0x26);
}

static void
test_set_time(void **state)
{
	static const u8 registers[] = {0x32, 9, 8, 7, 4, 2, 0};
	static const u8 values[] = {0x20, 0x31, 0x12, 0x31, 0x23, 0x59, 0x58};

	set(0x0b, 0x82);
	for (unsigned i = 0; i < sizeof(registers); i++)
		set(registers[i], values[i]);
	assert_int_equal(get(0), 0x58); /* stands still */
	set(0x0b, 0x02);
	board_run(b, 2300);
	assert_int_equal(get(9), 0x32);
	assert_int_equal(get(8), 0x01);
	assert_int_equal(get(7), 0x01);
	assert_int_equal(get(6), 5); /* 1 January 2032 is a Thursday */
	assert_int_equal(get(4), 0x00);
	assert_true(get(0) <= 1);
}

static void
test_formats(void **state)
{
	set(0x0b, 0x86); /* stop, binary, 24 hours */
	set(0x32, 20);
	set(9, 30);
	set(8, 6);
	set(7, 15);
	set(4, 23);
	set(2, 45);
	set(0, 0);
	set(0x0b, 0x06);
	assert_int_equal(get(4), 23);
	assert_int_equal(get(2), 45);
	set(0x0b, 0x00); /* BCD, 12 hours */
	assert_int_equal(get(4), 0x91);
	assert_int_equal(get(2), 0x45);
}

static void
test_periodic(void **state)
{
	set(0x0a, 0x26 | 0x0a); /* rate 14 by or: 0x2e, 4 Hz; then 64 Hz */
	set(0x0a, 0x2a);
	set(0x0b, 0x42);
	board_run(b, 60);
	assert_int_equal(b->edges[IRQ], 1); /* until it is read there is no second one */
	assert_int_equal(get(0x0c) & 0xc0, 0xc0);
	assert_false(b->level[IRQ]);
	for (unsigned i = 0; i < 4; i++) {
		board_run(b, 20);
		get(0x0c);
	}
	assert_in_range(b->edges[IRQ], 3, 6);
	set(0x0b, 0x02);
	b->edges[IRQ] = 0;
	board_run(b, 50);
	assert_int_equal(b->edges[IRQ], 0);
}

static void
test_update(void **state)
{
	get(0x0c);
	set(0x0b, 0x12);
	board_run(b, 1100);
	assert_int_equal(b->edges[IRQ], 1);
	assert_int_equal(get(0x0c) & 0x90, 0x90);
	/* Flags without interrupts are there for those who poll. */
	set(0x0b, 0x02);
	get(0x0c);
	board_run(b, 1050);
	assert_int_equal(get(0x0c) & 0x90, 0x10);
}

static void
test_alarm(void **state)
{
	set(0x0b, 0x82);
	set(4, 0x10);
	set(2, 0x20);
	set(0, 0x30);
	set(0x0b, 0x02);
	set(1, 0x31);
	set(3, 0x20);
	set(5, 0xff); /* any hour */
	get(0x0c);
	set(0x0b, 0x22);
	board_run(b, 1200);
	assert_int_equal(b->edges[IRQ], 1);
	assert_int_equal(get(0x0c) & 0xa0, 0xa0);
	board_run(b, 1200);
	assert_int_equal(b->edges[IRQ], 1);
}

static void
test_cmos(void **state)
{
	assert_int_equal(get(0x15) | get(0x16) << 8, 640);
	assert_int_equal(get(0x17) | get(0x18) << 8, 63 * 1024);
	assert_int_equal(get(0x34) | get(0x35) << 8, 48 * 16);
	assert_int_equal(get(0x5f), 3);
	set(0x40, 0x77);
	rtc_reset(rtc);
	assert_int_equal(get(0x40), 0x77);
}

/* Any bytes in any register: nothing worse than a strange time. */
static void
test_nonsense(void **state)
{
	unsigned seed = 1;

	for (unsigned i = 0; i < 20000; i++) {
		u8 index = (u8)rand_r(&seed);

		if (rand_r(&seed) & 1)
			set(index, (u8)rand_r(&seed));
		else
			get(index);
	}
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_host_time), T(test_set_time), T(test_formats), T(test_periodic),
		T(test_update),	   T(test_alarm),    T(test_cmos),    T(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
