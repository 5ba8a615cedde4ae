/*
 * The 8259 pair: initialisation, priorities, rotation, modes, cascade, edge and level.
 */
#include "board.h"
#include "device/pic.h"

enum { INTR = 0 };

static struct board *b;
static struct pic *pic;

static void
program(u8 icw4)
{
	outb(b, 0x20, 0x11);
	outb(b, 0x21, 0x30);
	outb(b, 0x21, 0x04);
	outb(b, 0x21, icw4);
	outb(b, 0xa0, 0x11);
	outb(b, 0xa1, 0x38);
	outb(b, 0xa1, 0x02);
	outb(b, 0xa1, icw4);
}

static int
setup(void **state)
{
	b = board_create();
	assert_int_equal(pic_create(&pic, &b->host, board_line(b, INTR), NULL, NULL), 0);
	program(1);
	return 0;
}

static int
teardown(void **state)
{
	pic_destroy(pic);
	board_destroy(b);
	return 0;
}

static void
pulse(unsigned irq)
{
	pic_set_irq(pic, irq, true);
	pic_set_irq(pic, irq, false);
}

static void
test_edge(void **state)
{
	assert_false(b->level[INTR]);
	pulse(4);
	assert_true(b->level[INTR]);
	assert_int_equal(inb(b, 0x20), 0x10); /* IRR */
	assert_int_equal(pic_acknowledge(pic), 0x34);
	assert_false(b->level[INTR]);
	outb(b, 0x20, 0x0b);
	assert_int_equal(inb(b, 0x20), 0x10); /* ISR */
	pulse(4);			      /* the same one waits for its EOI */
	assert_false(b->level[INTR]);
	outb(b, 0x20, 0x20);
	assert_true(b->level[INTR]);
	assert_int_equal(pic_acknowledge(pic), 0x34);
	outb(b, 0x20, 0x20);
	assert_int_equal(pic_acknowledge(pic), -1);
}

static void
test_priority(void **state)
{
	pulse(5);
	assert_int_equal(pic_acknowledge(pic), 0x35);
	pulse(6); /* less urgent: waits */
	assert_false(b->level[INTR]);
	pulse(1); /* more urgent: nests */
	assert_true(b->level[INTR]);
	assert_int_equal(pic_acknowledge(pic), 0x31);
	outb(b, 0x20, 0x20); /* ends 1 */
	assert_false(b->level[INTR]);
	outb(b, 0x20, 0x65); /* ends 5, specifically */
	assert_int_equal(pic_acknowledge(pic), 0x36);
}

static void
test_mask(void **state)
{
	outb(b, 0x21, 0x10);
	pulse(4);
	assert_false(b->level[INTR]);
	assert_true(pic_deaf(pic, 4));
	assert_false(pic_deaf(pic, 5));
	outb(b, 0x21, 0x00);
	assert_true(b->level[INTR]);
	assert_int_equal(inb(b, 0x21), 0);
}

static void
test_cascade(void **state)
{
	pulse(12);
	assert_true(b->level[INTR]);
	assert_int_equal(pic_acknowledge(pic), 0x3c);
	pulse(14);
	assert_false(b->level[INTR]);
	outb(b, 0xa0, 0x20);
	assert_false(b->level[INTR]); /* the master's IR2 is in service */
	outb(b, 0x20, 0x20);
	assert_int_equal(pic_acknowledge(pic), 0x3e);
}

static void
test_level(void **state)
{
	outb(b, 0x4d1, 0x0c); /* 10 and 11 */
	outb(b, 0x4d0, 0xff);
	assert_int_equal(inb(b, 0x4d0), 0xf8); /* not timer, keyboard, cascade */
	pic_set_irq(pic, 10, true);
	assert_int_equal(pic_acknowledge(pic), 0x3a);
	outb(b, 0xa0, 0x20);
	outb(b, 0x20, 0x20);
	assert_true(b->level[INTR]); /* still asserted */
	pic_set_irq(pic, 10, false);
	assert_false(b->level[INTR]);
	assert_int_equal(pic_acknowledge(pic), -1);
}

static void
test_rotate(void **state)
{
	pulse(0);
	assert_int_equal(pic_acknowledge(pic), 0x30);
	outb(b, 0x20, 0xa0); /* rotate on EOI: 0 is now the least urgent */
	pulse(0);
	pulse(7);
	assert_int_equal(pic_acknowledge(pic), 0x37);
	outb(b, 0x20, 0x20);
	assert_int_equal(pic_acknowledge(pic), 0x30);
	outb(b, 0x20, 0x20);
	outb(b, 0x20, 0xc7); /* set priority: back to normal */
	pulse(0);
	pulse(7);
	assert_int_equal(pic_acknowledge(pic), 0x30);
}

static void
test_auto_eoi(void **state)
{
	program(3);
	pulse(3);
	assert_int_equal(pic_acknowledge(pic), 0x33);
	outb(b, 0x20, 0x0b);
	assert_int_equal(inb(b, 0x20), 0);
	pulse(3);
	assert_int_equal(pic_acknowledge(pic), 0x33);
}

static void
test_special_mask(void **state)
{
	pulse(2 + 1);
	assert_int_equal(pic_acknowledge(pic), 0x33);
	outb(b, 0x20, 0x68); /* special mask mode */
	outb(b, 0x21, 0x08); /* mask the one in service: lesser ones get through */
	pulse(6);
	assert_int_equal(pic_acknowledge(pic), 0x36);
}

static void
test_poll(void **state)
{
	pulse(5);
	outb(b, 0x20, 0x0c);
	assert_int_equal(inb(b, 0x20), 0x85);
	assert_false(b->level[INTR]);
	outb(b, 0x20, 0x20);
	outb(b, 0x20, 0x0c);
	assert_int_equal(inb(b, 0x20), 0);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_edge),	  T(test_priority),	T(test_mask),
		T(test_cascade),  T(test_level),	T(test_rotate),
		T(test_auto_eoi), T(test_special_mask), T(test_poll),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
