/*
 * Saved states of the devices that are not on PCI: nothing is lost, time goes on where it
 * stood, hostile bytes do no harm.
 */
#include "board.h"

#include <string.h>
#include <time.h>

#include "device/acpi_pm.h"
#include "device/fw_cfg.h"
#include "device/hpet.h"
#include "device/i8042.h"
#include "device/ioapic.h"
#include "device/pic.h"
#include "device/pit.h"
#include "device/port92.h"
#include "device/rtc.h"
#include "device/testdev.h"
#include "device/uart.h"
#include "state_check.h"

struct set {
	struct board *board;
	struct pic *pic;
	struct ioapic *ioapic;
	struct pit *pit;
	struct rtc *rtc;
	struct hpet *hpet;
	struct uart *uart;
	struct i8042 *i8042;
	struct port92 *port92;
	struct acpi_pm *pm;
	struct fw_cfg *fw_cfg;
	struct testdev *testdev;
	char printed[64];
	size_t printed_len;
	bool full;
};

static size_t
set_output(void *opaque, const u8 *data, size_t len)
{
	struct set *s = opaque;

	if (s->full)
		return 0;
	for (size_t i = 0; i < len && s->printed_len < sizeof(s->printed); i++)
		s->printed[s->printed_len++] = (char)data[i];
	return len;
}

static void
set_legacy(void *opaque, bool on)
{
}

static void
set_pin(void *opaque, unsigned pin, bool level)
{
	struct set *s = opaque;

	board_set(s->board, pin, level);
}

static struct set *
set_create(void)
{
	struct set *s = calloc(1, sizeof(*s));
	struct board *b = s->board = board_create();
	const struct uart_host uart_host = {s, set_output, NULL};
	const struct hpet_host hpet_host = {s, set_pin, set_pin, set_legacy};
	const struct ioapic_host ioapic_host = {NULL, NULL};

	assert_int_equal(pic_create(&s->pic, &b->host, board_line(b, 31), NULL, NULL), 0);
	assert_int_equal(ioapic_create(&s->ioapic, &b->host, &ioapic_host), 0);
	assert_int_equal(pit_create(&s->pit, &b->host, board_line(b, 0), NULL), 0);
	assert_int_equal(rtc_create(&s->rtc, &b->host, board_line(b, 8), 2), 0);
	assert_int_equal(hpet_create(&s->hpet, &b->host, &hpet_host), 0);
	assert_int_equal(uart_create(&s->uart, &b->host, 0x3f8, board_line(b, 4), &uart_host), 0);
	assert_int_equal(i8042_create(&s->i8042, &b->host, board_line(b, 1)), 0);
	assert_int_equal(port92_create(&s->port92, &b->host), 0);
	assert_int_equal(acpi_pm_create(&s->pm, &b->host, board_line(b, 9)), 0);
	assert_int_equal(acpi_pm_place(s->pm, ACPI_PM_BASE), 0);
	assert_int_equal(fw_cfg_create(&s->fw_cfg, &b->host, 2), 0);
	assert_int_equal(testdev_create(&s->testdev, &b->host, set_pin, s), 0);
	return s;
}

static void
set_destroy(struct set *s)
{
	testdev_destroy(s->testdev);
	fw_cfg_destroy(s->fw_cfg);
	acpi_pm_destroy(s->pm);
	port92_destroy(s->port92);
	i8042_destroy(s->i8042);
	uart_destroy(s->uart);
	hpet_destroy(s->hpet);
	rtc_destroy(s->rtc);
	pit_destroy(s->pit);
	ioapic_destroy(s->ioapic);
	pic_destroy(s->pic);
	board_destroy(s->board);
	free(s);
}

static void
set_fill(void *opaque, struct state_list *list)
{
	struct set *s = opaque;

	pic_state(s->pic, list);
	ioapic_state(s->ioapic, list);
	pit_state(s->pit, list);
	rtc_state(s->rtc, list);
	hpet_state(s->hpet, list);
	uart_state(s->uart, list);
	i8042_state(s->i8042, list);
	port92_state(s->port92, list);
	acpi_pm_state(s->pm, list);
	fw_cfg_state(s->fw_cfg, list);
	testdev_state(s->testdev, list);
}

static u64
mmio(struct set *s, u64 gpa, unsigned size)
{
	return memory_mmio_read(s->board->host.memory, gpa, size);
}

static void
set_mmio(struct set *s, u64 gpa, unsigned size, u64 value)
{
	memory_mmio_write(s->board->host.memory, gpa, size, value);
}

static void
out(struct set *s, u16 port, u8 value)
{
	outb(s->board, port, value);
}

static u8
in(struct set *s, u16 port)
{
	return inb(s->board, port);
}

/* A machine in the middle of things. */
static void
set_use(struct set *s)
{
	static const u8 icw[][2] = {{0x20, 0x11}, {0x21, 0x30}, {0x21, 4}, {0x21, 1},
				    {0xa0, 0x11}, {0xa1, 0x38}, {0xa1, 2}, {0xa1, 3}};

	for (unsigned i = 0; i < ARRAY_LEN(icw); i++)
		out(s, icw[i][0], icw[i][1]);
	out(s, 0x21, 0x18);
	out(s, 0xa1, 0x00);
	pic_set_irq(s->pic, 5, true);
	pic_set_irq(s->pic, 10, true);
	set_mmio(s, IOAPIC_GPA, 4, 0x10 + 2 * 9);
	set_mmio(s, IOAPIC_GPA + 0x10, 4, 0x8031);
	ioapic_set_pin(s->ioapic, 9, true);
	ioapic_set_pin(s->ioapic, 17, true);
	out(s, 0x43, 0x34);
	out(s, 0x40, 0x34);
	out(s, 0x40, 0x12);
	out(s, 0x43, 0xb0);
	out(s, 0x42, 0x77); /* half a count */
	out(s, 0x70, 0x0b);
	out(s, 0x71, 0x46);
	out(s, 0x70, 0x40);
	out(s, 0x71, 0xa5);
	set_mmio(s, HPET_GPA + 0x10, 4, 1);
	set_mmio(s, HPET_GPA + 0x100, 4, 0x14 << 9 | BIT(2));
	set_mmio(s, HPET_GPA + 0x108, 8, 1000000000);
	out(s, 0x3fb, 0x03);
	out(s, 0x3fa, 0xc7);
	out(s, 0x3f9, 0x05);
	out(s, 0x3fc, 0x0b);
	out(s, 0x3ff, 0x5a);
	uart_input(s->uart, (const u8 *)"typed ahead", 11);
	s->full = true;
	out(s, 0x3f8, 'x');
	s->full = false;
	out(s, 0x64, 0x20);
	out(s, 0x60, 0xed);
	out(s, 0x92, 0x02);
	out(s, 0xb2, ACPI_ENABLE);
	memory_port_write(s->board->host.memory, ACPI_PM_BASE + 2, 2, 0x0101);
	acpi_pm_power_button(s->pm);
	memory_port_write(s->board->host.memory, 0x510, 2, 3);
	in(s, 0x511);
	memory_port_write(s->board->host.memory, 0xe0, 4, 0xcafe1234);
	set_mmio(s, 0xff000000 + 100, 8, 0x1122334455667788);
}

static void
test_round_trip(void **state)
{
	struct set *a = set_create(), *b = set_create();

	b->full = true;
	state_check_twin(set_fill, a, b); /* at power-on */
	set_use(a);
	state_check_twin(set_fill, a, b);
	/* Again into one that has done other things. */
	out(b, 0x43, 0x10);
	uart_input(b->uart, (const u8 *)"else", 4);
	out(b, 0x64, 0xaa);
	state_check_twin(set_fill, a, b);
	set_destroy(a);
	set_destroy(b);
}

/* What the guest sees afterwards. */
static void
test_seen(void **state)
{
	struct set *a = set_create(), *b = set_create();
	struct timespec pause = {.tv_nsec = 20000000};
	u64 counter, timer;

	set_use(a);
	b->full = true;
	state_check_twin(set_fill, a, b);
	b->full = false;
	uart_output_ready(b->uart);
	assert_memory_equal(b->printed, "x", 1); /* what was not out yet */
	assert_true(b->board->level[4]);
	for (unsigned i = 0; i < 11; i++)
		assert_int_equal(in(b, 0x3f8), "typed ahead"[i]);
	assert_int_equal(in(b, 0x3ff), 0x5a);
	assert_true(b->board->level[31]);
	assert_int_equal(pic_acknowledge(b->pic), 0x38 + 2);
	assert_int_equal(in(b, 0x64) & 1, 1);
	assert_int_equal(in(b, 0x60), in(a, 0x60));
	assert_true(b->board->level[9]);
	assert_int_equal(memory_port_read(b->board->host.memory, 0xe0, 4), 0xcafe1234);
	assert_int_equal(mmio(b, 0xff000000 + 100, 8), 0x1122334455667788);
	out(b, 0x42, 0x66); /* the other half */
	out(b, 0x70, 0x40);
	assert_int_equal(in(b, 0x71), 0xa5);
	counter = mmio(b, HPET_GPA + 0xf0, 8);
	timer = memory_port_read(b->board->host.memory, ACPI_PM_BASE + 8, 4);
	assert_true(counter + 10000000 >= mmio(a, HPET_GPA + 0xf0, 8));
	nanosleep(&pause, NULL);
	assert_true(mmio(b, HPET_GPA + 0xf0, 8) - counter >= 1900000);
	assert_true(memory_port_read(b->board->host.memory, ACPI_PM_BASE + 8, 4) != timer);
	set_destroy(a);
	set_destroy(b);
}

/* A tick that was under way comes in the twin. */
static void
test_timers(void **state)
{
	struct set *a = set_create(), *b = set_create();
	unsigned before;

	set_use(a);
	set_mmio(a, HPET_GPA + 0x108, 8, mmio(a, HPET_GPA + 0xf0, 8) + 5000000); /* 50 ms */
	b->full = true;
	state_check_twin(set_fill, a, b);
	before = b->board->edges[0x14];
	board_run(b->board, 20);
	assert_int_equal(b->board->edges[0x14], before);
	assert_true(b->board->edges[0] >= 3); /* the PIT, each 3.9 ms */
	board_run(b->board, 60);
	assert_int_equal(b->board->edges[0x14], before + 1);
	set_destroy(a);
	set_destroy(b);
}

static void
set_poke(void *opaque)
{
	struct set *s = opaque;

	for (u16 port = 0x20; port < 0x3f8 + 8; port++)
		if (port < 0xa2 || port >= 0x3f8)
			in(s, port);
	for (unsigned i = 0; i < 20; i++)
		out(s, 0x3f8, (u8)i);
	while (in(s, 0x64) & 1)
		in(s, 0x60);
	out(s, 0x60, 0xf2);
	for (unsigned i = 0; i < 0x400; i += 8)
		mmio(s, HPET_GPA + i, 8);
	for (unsigned i = 0; i < ACPI_PM_SIZE; i++)
		in(s, (u16)(ACPI_PM_BASE + i));
	in(s, 0x511);
	pic_acknowledge(s->pic);
	pic_set_irq(s->pic, 3, true);
	pic_set_irq(s->pic, 3, false);
	for (unsigned vector = 0; vector < 256; vector++)
		ioapic_eoi(s->ioapic, (u8)vector);
	uart_input(s->uart, (const u8 *)"0123456789", 10);
	board_run(s->board, 0);
}

static void
test_hostile(void **state)
{
	struct set *a = set_create(), *b = set_create();
	unsigned taken;

	set_use(a);
	taken = state_check_hostile(set_fill, a, b, 2000, set_poke);
	assert_true(taken > 200 && taken < 1990);
	set_destroy(a);
	set_destroy(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_seen),
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
