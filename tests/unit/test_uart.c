/*
 * The serial port: identification, FIFOs, interrupts, loopback, back-pressure.
 */
#include "board.h"
#include "device/uart.h"

enum { IRQ = 4, COM1 = 0x3f8 };

static struct board *b;
static struct uart *uart;
static char sent[4096];
static size_t sent_len, accept;
static unsigned readies;

static size_t
output(void *opaque, const u8 *data, size_t len)
{
	size_t n = len < accept ? len : accept;

	memcpy(sent + sent_len, data, n);
	sent_len += n;
	accept -= n;
	return n;
}

static void
input_ready(void *opaque)
{
	readies++;
}

static int
setup(void **state)
{
	const struct uart_host host = {NULL, output, input_ready};

	b = board_create();
	sent_len = 0;
	accept = sizeof(sent);
	readies = 0;
	assert_int_equal(uart_create(&uart, &b->host, COM1, board_line(b, IRQ), &host), 0);
	return 0;
}

static int
teardown(void **state)
{
	uart_destroy(uart);
	board_destroy(b);
	return 0;
}

static void
test_registers(void **state)
{
	outb(b, COM1 + 7, 0x5a);
	assert_int_equal(inb(b, COM1 + 7), 0x5a);
	outb(b, COM1 + 3, 0x83);
	outb(b, COM1, 0x01);
	outb(b, COM1 + 1, 0x02);
	assert_int_equal(inb(b, COM1), 1);
	assert_int_equal(inb(b, COM1 + 1), 2);
	outb(b, COM1 + 3, 0x03);
	outb(b, COM1 + 1, 0xff);
	assert_int_equal(inb(b, COM1 + 1), 0x0f);
	assert_int_equal(inb(b, COM1 + 2) & 0xc0, 0);
	outb(b, COM1 + 2, 0x01);
	assert_int_equal(inb(b, COM1 + 2) & 0xc0, 0xc0); /* a 16550A */
	assert_int_equal(inb(b, COM1 + 5), 0x60);
	assert_int_equal(inb(b, COM1 + 6), 0xb0);
}

static void
test_transmit(void **state)
{
	for (const char *p = "hello"; *p; p++)
		outb(b, COM1, (u8)*p);
	assert_int_equal(sent_len, 5);
	assert_memory_equal(sent, "hello", 5);
	outb(b, COM1 + 4, 0x08);
	assert_false(b->level[IRQ]);
	outb(b, COM1 + 1, 0x02); /* it is empty: at once */
	assert_true(b->level[IRQ]);
	assert_int_equal(inb(b, COM1 + 2) & 0xf, 2);
	assert_false(b->level[IRQ]);
	assert_int_equal(inb(b, COM1 + 2) & 0xf, 1);
	outb(b, COM1, 'x');
	assert_true(b->level[IRQ]);
	outb(b, COM1 + 4, 0); /* OUT2 gates it */
	assert_false(b->level[IRQ]);
}

static void
test_transmit_blocked(void **state)
{
	outb(b, COM1 + 2, 0x01);
	outb(b, COM1 + 4, 0x08);
	accept = 3;
	for (unsigned i = 0; i < 10; i++)
		outb(b, COM1, (u8)('a' + i));
	assert_int_equal(sent_len, 3);
	assert_int_equal(inb(b, COM1 + 5) & 0x60, 0); /* busy */
	outb(b, COM1 + 1, 0x02);
	assert_false(b->level[IRQ]);
	accept = 100;
	uart_output_ready(uart);
	assert_int_equal(sent_len, 10);
	assert_memory_equal(sent, "abcdefghij", 10);
	assert_int_equal(inb(b, COM1 + 5) & 0x60, 0x60);
	assert_true(b->level[IRQ]);
}

static void
test_receive(void **state)
{
	outb(b, COM1 + 2, 0x41); /* FIFO, trigger 4 */
	outb(b, COM1 + 4, 0x08);
	outb(b, COM1 + 1, 0x01);
	assert_int_equal(uart_input(uart, (const u8 *)"abc", 3), 3);
	assert_true(b->level[IRQ]);
	assert_int_equal(inb(b, COM1 + 2) & 0xf, 0xc); /* timeout */
	uart_input(uart, (const u8 *)"d", 1);
	assert_int_equal(inb(b, COM1 + 2) & 0xf, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(inb(b, COM1 + 5) & 1);
		assert_int_equal(inb(b, COM1), 'a' + i);
	}
	assert_false(inb(b, COM1 + 5) & 1);
	assert_false(b->level[IRQ]);
}

static void
test_receive_backpressure(void **state)
{
	u8 bytes[1000];
	size_t taken, got = 0;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (u8)i;
	outb(b, COM1 + 2, 0x01);
	taken = uart_input(uart, bytes, sizeof(bytes));
	assert_true(taken >= 16 && taken < sizeof(bytes));
	while (got < sizeof(bytes)) {
		assert_true(inb(b, COM1 + 5) & 1);
		assert_int_equal(inb(b, COM1), (u8)got);
		got++;
		if (readies) {
			readies = 0;
			taken += uart_input(uart, bytes + taken, sizeof(bytes) - taken);
		}
	}
	assert_int_equal(taken, sizeof(bytes));
	assert_false(inb(b, COM1 + 5) & 0x03); /* nothing was overrun */
}

static void
test_loopback(void **state)
{
	outb(b, COM1 + 4, 0x1a);
	assert_int_equal(inb(b, COM1 + 6) & 0xf0, 0x90); /* as Linux probes it */
	outb(b, COM1, 'z');
	assert_int_equal(sent_len, 0);
	assert_int_equal(inb(b, COM1), 'z');
	assert_int_equal(uart_input(uart, (const u8 *)"q", 1), 0);
	outb(b, COM1 + 4, 0);
	assert_int_equal(readies, 1);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers),
		T(test_transmit),
		T(test_transmit_blocked),
		T(test_receive),
		T(test_receive_backpressure),
		T(test_loopback),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
