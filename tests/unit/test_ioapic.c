/*
 * The I/O APIC: registers, edge and level, EOI, masks, messages.
 */
#include "board.h"
#include "device/ioapic.h"

static struct board *b;
static struct ioapic *ioapic;
static unsigned changes;

static void
changed(void *opaque)
{
	changes++;
}

static int
setup(void **state)
{
	const struct ioapic_host host = {NULL, changed};

	b = board_create();
	assert_int_equal(ioapic_create(&ioapic, &b->host, &host), 0);
	changes = 0;
	return 0;
}

static int
teardown(void **state)
{
	ioapic_destroy(ioapic);
	board_destroy(b);
	return 0;
}

static u32
get(u8 index)
{
	memory_mmio_write(b->host.memory, IOAPIC_GPA, 4, index);
	return (u32)memory_mmio_read(b->host.memory, IOAPIC_GPA + 0x10, 4);
}

static void
set(u8 index, u32 value)
{
	memory_mmio_write(b->host.memory, IOAPIC_GPA, 4, index);
	memory_mmio_write(b->host.memory, IOAPIC_GPA + 0x10, 4, value);
}

static void
set_entry(unsigned pin, u32 low, u8 destination)
{
	set((u8)(0x11 + pin * 2), (u32)destination << 24);
	set((u8)(0x10 + pin * 2), low);
}

static void
test_registers(void **state)
{
	assert_int_equal(get(1), 0x00170020);
	set(0, 0xff000000);
	assert_int_equal(get(0), 0x0f000000);
	assert_int_equal(get(0x10), 0x10000);
	set_entry(5, 0xfffff, 0xa5); /* read-only bits stay clear */
	assert_int_equal(get(0x1a), 0x1afff);
	assert_int_equal(get(0x1b), 0xa5000000);
	assert_int_equal(get(0x40), 0);
	assert_true(changes > 0);
}

static void
test_edge(void **state)
{
	set_entry(4, 0x31, 2);
	ioapic_set_pin(ioapic, 4, true);
	assert_int_equal(b->messages, 1);
	assert_int_equal(b->msi_address, 0xfee02000);
	assert_int_equal(b->msi_data, 0x31);
	ioapic_set_pin(ioapic, 4, true);
	assert_int_equal(b->messages, 1);
	ioapic_set_pin(ioapic, 4, false);
	ioapic_set_pin(ioapic, 4, true);
	assert_int_equal(b->messages, 2);
	set_entry(4, 0x10031, 2); /* masked: lost */
	ioapic_set_pin(ioapic, 4, false);
	ioapic_set_pin(ioapic, 4, true);
	set_entry(4, 0x31, 2);
	assert_int_equal(b->messages, 2);
}

static void
test_level(void **state)
{
	set_entry(16, 0x1a0 | 0x8000, 0xff); /* lowest priority, level */
	ioapic_set_pin(ioapic, 16, true);
	assert_int_equal(b->messages, 1);
	assert_int_equal(b->msi_address, 0xfeeff008);
	assert_int_equal(b->msi_data, 0xc1a0);
	assert_true(get(0x30) & 0x4000); /* remote IRR */
	ioapic_set_pin(ioapic, 16, false);
	ioapic_set_pin(ioapic, 16, true);
	assert_int_equal(b->messages, 1); /* not before its end */
	ioapic_eoi(ioapic, 0xa1);	  /* another vector */
	assert_int_equal(b->messages, 1);
	ioapic_eoi(ioapic, 0xa0); /* still asserted */
	assert_int_equal(b->messages, 2);
	ioapic_set_pin(ioapic, 16, false);
	memory_mmio_write(b->host.memory, IOAPIC_GPA + 0x40, 4, 0xa0);
	assert_int_equal(b->messages, 2);
	assert_false(get(0x30) & 0x4000);
}

static void
test_level_mask(void **state)
{
	set_entry(17, 0x18050, 0);
	ioapic_set_pin(ioapic, 17, true);
	assert_int_equal(b->messages, 0);
	set_entry(17, 0x8050, 0);
	assert_int_equal(b->messages, 1);
	/* Ended by hand: edge, then level again. */
	set_entry(17, 0x10050, 0);
	assert_false(get(0x32) & 0x4000);
	set_entry(17, 0x8050, 0);
	assert_int_equal(b->messages, 2);
}

static void
test_message(void **state)
{
	u64 address;
	u32 data;
	bool level;

	assert_false(ioapic_message(ioapic, 9, &address, &data, &level));
	set_entry(9, 0x8861, 0x03);
	assert_true(ioapic_message(ioapic, 9, &address, &data, &level));
	assert_int_equal(address, 0xfee03004);
	assert_true(level);
	ioapic_set_pin(ioapic, 24, true); /* there is no such pin */
	assert_int_equal(b->messages, 0);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers), T(test_edge), T(test_level), T(test_level_mask), T(test_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
