/* PCI: configuration accesses, BARs, capabilities, INTx, MSI-X. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "unit/virtio_driver.h"

static u64
regs_read(void *opaque, u64 offset, unsigned size)
{
	return *(u32 *)opaque + offset;
}

static void
regs_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	*(u32 *)opaque = (u32)value;
}

static const struct io_ops regs_ops = {.read = regs_read, .write = regs_write};

/* Test cards are static: the bus outlives the test that adds them. */
struct card {
	struct pci_device pci;
	u32 mem32, mem64, io;
	unsigned moves, resets;
	u64 last_gpa;
};

static void
card_moved(struct pci_device *pci, unsigned bar, u64 gpa)
{
	struct card *card = CONTAINER_OF(pci, struct card, pci);

	card->moves++;
	card->last_gpa = gpa;
}

static void
card_reset(struct pci_device *pci)
{
	CONTAINER_OF(pci, struct card, pci)->resets++;
}

static const struct pci_ops card_ops = {.bar_moved = card_moved, .reset = card_reset};

static const struct pci_id card_id = {
	.vendor = 0x1234,
	.device = 0x5678,
	.subsystem_vendor = 1,
	.subsystem = 2,
	.revision = 3,
	.class_code = 0x020000,
};

static void
card_init(struct card *card)
{
	memset(card, 0, sizeof(*card));
	pci_init(&card->pci, &card_ops, &card_id);
	pci_set_pin(&card->pci, 1);
	pci_add_bar(&card->pci, 0, PCI_BAR_MEM32, 0x1000, &regs_ops, &card->mem32);
	pci_add_bar(&card->pci, 2, PCI_BAR_MEM64, 0x4000, &regs_ops, &card->mem64);
	pci_add_bar(&card->pci, 4, PCI_BAR_IO, 0x20, &regs_ops, &card->io);
	assert_int_equal(pci_add_msix(&card->pci, 5, 3), 0);
}

static int
setup(void **state)
{
	struct board *b = malloc(sizeof(*b));

	*state = b;
	return board_create(b, false);
}

static int
teardown(void **state)
{
	board_destroy(*state);
	free(*state);
	return 0;
}

static u32
port_config_read(struct board *b, unsigned slot, unsigned offset, unsigned size)
{
	memory_port_write(b->memory, 0xcf8, 4, 0x80000000 | slot << 11 | (offset & 0xfc));
	return (u32)memory_port_read(b->memory, (u16)(0xcfc + (offset & 3)), size);
}

static void
test_both_ways_agree(void **state)
{
	struct board *b = *state;
	static struct card card;

	card_init(&card);
	assert_int_equal(pci_add(b->bus, &card.pci, 5, 0), 0);
	assert_int_equal(pci_add(b->bus, &card.pci, 5, 0), -EEXIST);
	assert_int_equal(pci_add(b->bus, &card.pci, 32, 0), -EINVAL);
	assert_int_equal(ecam_read(b, 5, 0, 4), 0x56781234);
	for (unsigned at = 0; at < 256; at += 4)
		assert_int_equal(ecam_read(b, 5, at, 4), port_config_read(b, 5, at, 4));
	assert_int_equal(port_config_read(b, 5, PCI_DEVICE_ID, 2), 0x5678);
	assert_int_equal(port_config_read(b, 5, PCI_CLASS, 1), 0x02);
	/* Nobody there, another bus, not enabled, beyond what a conventional device has. */
	assert_int_equal(ecam_read(b, 6, 0, 4), 0xffffffff);
	assert_int_equal(ecam_read(b, 6, 0, 2), 0xffff);
	assert_int_equal(memory_mmio_read(b->memory, BOARD_ECAM + 0x100000, 4), 0xffffffff);
	assert_int_equal(ecam_read(b, 5, 0x100, 4), 0);
	assert_int_equal(memory_mmio_read(b->memory, BOARD_ECAM + 5 * 0x8000, 8) >> 32,
			 ecam_read(b, 5, 4, 4));
	memory_port_write(b->memory, 0xcf8, 4, 5 << 11);
	assert_int_equal(memory_port_read(b->memory, 0xcfc, 4), 0xffffffff);
	memory_port_write(b->memory, 0xcf8, 4, 0x80010000 | 5 << 11);
	assert_int_equal(memory_port_read(b->memory, 0xcfc, 4), 0xffffffff);
	/* Read-only registers stay. */
	ecam_write(b, 5, PCI_VENDOR_ID, 4, 0);
	assert_int_equal(ecam_read(b, 5, 0, 4), 0x56781234);
}

static void
test_bar_sizing_and_moving(void **state)
{
	struct board *b = *state;
	static struct card card;

	card_init(&card);
	assert_int_equal(pci_add(b->bus, &card.pci, 1, 0), 0);
	ecam_write(b, 1, PCI_BAR0, 4, 0xffffffff);
	assert_int_equal(ecam_read(b, 1, PCI_BAR0, 4), 0xfffff000);
	ecam_write(b, 1, PCI_BAR0 + 8, 4, 0xffffffff);
	ecam_write(b, 1, PCI_BAR0 + 12, 4, 0xffffffff);
	assert_int_equal(ecam_read(b, 1, PCI_BAR0 + 8, 4), 0xffffc00c);
	assert_int_equal(ecam_read(b, 1, PCI_BAR0 + 12, 4), 0xffffffff);
	ecam_write(b, 1, PCI_BAR0 + 16, 4, 0xffffffff);
	assert_int_equal(ecam_read(b, 1, PCI_BAR0 + 16, 4), 0xffffffe1);
	assert_int_equal(ecam_read(b, 1, PCI_BAR0 + 4, 4), 0);
	assert_int_equal(card.moves, 0);

	ecam_write(b, 1, PCI_BAR0, 4, 0xe0000000);
	ecam_write(b, 1, PCI_BAR0 + 8, 4, 0);
	ecam_write(b, 1, PCI_BAR0 + 12, 4, 8);
	ecam_write(b, 1, PCI_BAR0 + 16, 4, 0xc000);
	assert_int_equal(memory_mmio_read(b->memory, 0xe0000000, 4), 0xffffffff);
	ecam_write(b, 1, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	card.mem32 = 100;
	card.mem64 = 200;
	card.io = 300;
	assert_int_equal(memory_mmio_read(b->memory, 0xe0000010, 4), 116);
	assert_int_equal(memory_mmio_read(b->memory, 0x800000020, 4), 232);
	assert_int_equal(memory_port_read(b->memory, 0xc004, 4), 304);
	memory_mmio_write(b->memory, 0xe0000000, 4, 7);
	assert_int_equal(card.mem32, 7);

	/* Moves; sizing while decoding answers nowhere. */
	ecam_write(b, 1, PCI_BAR0, 4, 0xe0100000);
	assert_int_equal(card.last_gpa, 0xe0100000);
	assert_int_equal(memory_mmio_read(b->memory, 0xe0000000, 4), 0xffffffff);
	assert_int_equal(memory_mmio_read(b->memory, 0xe0100000, 4), 7);
	ecam_write(b, 1, PCI_BAR0, 4, 0xffffffff);
	assert_true(card.pci.bars[0].gpa == PCI_UNMAPPED);
	ecam_write(b, 1, PCI_BAR0 + 16, 4, 0xfffffff0);
	assert_true(card.pci.bars[4].gpa == PCI_UNMAPPED);
	ecam_write(b, 1, PCI_COMMAND, 2, 0);
	assert_true(card.pci.bars[2].gpa == PCI_UNMAPPED);
	assert_int_equal(memory_mmio_read(b->memory, 0x800000020, 4), 0xffffffff);
}

static void
test_assign_and_reset(void **state)
{
	struct board *b = *state;
	static struct card cards[2];

	for (unsigned i = 0; i < 2; i++) {
		card_init(&cards[i]);
		assert_int_equal(pci_add(b->bus, &cards[i].pci, 3, i), 0);
	}
	/* Function 1 made function 0 a multifunction device. */
	assert_int_equal(ecam_read(b, 3, PCI_HEADER_TYPE, 1), 0x80);
	assert_int_equal(board_assign(b), 0);
	for (unsigned i = 0; i < 2; i++)
		for (unsigned j = 0; j < PCI_BARS; j++)
			if (cards[i].pci.bars[j].kind != PCI_BAR_NONE) {
				assert_true(cards[i].pci.bars[j].gpa != PCI_UNMAPPED);
				assert_true(cards[i].pci.bars[j].gpa % cards[i].pci.bars[j].size ==
					    0);
			}
	assert_true(cards[0].pci.bars[0].gpa != cards[1].pci.bars[0].gpa);
	assert_int_equal(ecam_read(b, 3, PCI_INTERRUPT_LINE, 1), 11); /* 4 + (3 + 0) % 4 = 7 */
	pci_bus_reset(b->bus);
	assert_int_equal(cards[0].resets, 1);
	assert_true(cards[0].pci.bars[0].gpa == PCI_UNMAPPED);
	assert_int_equal(ecam_read(b, 3, PCI_COMMAND, 2), 0);
	assert_int_equal(ecam_read(b, 3, PCI_HEADER_TYPE, 1), 0x80);
}

static void
test_intx_is_shared(void **state)
{
	struct board *b = *state;
	static struct card one, two;

	card_init(&one);
	card_init(&two);
	assert_int_equal(pci_pirq(0, 1), 4);
	assert_int_equal(pci_pirq(3, 2), 4);
	assert_int_equal(pci_pirq(31, 1), 0);
	assert_int_equal(pci_add(b->bus, &one.pci, 2, 0), 0);
	assert_int_equal(pci_add(b->bus, &two.pci, 6, 0), 0);
	pci_set_intx(&one.pci, true);
	pci_set_intx(&two.pci, true);
	assert_true(b->pirq[6]);
	assert_int_equal(b->pirq_changes, 1);
	assert_true(ecam_read(b, 2, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	pci_set_intx(&one.pci, false);
	assert_true(b->pirq[6]);
	ecam_write(b, 6, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	assert_false(b->pirq[6]);
	assert_true(ecam_read(b, 6, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	ecam_write(b, 6, PCI_COMMAND, 2, 0);
	assert_true(b->pirq[6]);
	pci_bus_reset(b->bus);
	assert_false(b->pirq[6]);
}

static void
test_msix(void **state)
{
	struct board *b = *state;
	struct driver d = {.board = b, .slot = 4};
	static struct card card;
	unsigned cap;
	u64 table, address;
	u32 data;

	card_init(&card);
	assert_int_equal(pci_add(b->bus, &card.pci, 4, 0), 0);
	assert_int_equal(board_assign(b), 0);
	cap = driver_capability(b, 4, PCI_CAP_MSIX, 0);
	assert_int_equal(ecam_read(b, 4, cap + 2, 2), 2); /* three vectors */
	table = driver_bar(b, 4, 5);
	pci_msix_send(&card.pci, 0);
	assert_int_equal(b->msis, 0);
	assert_int_equal(driver_get(&d, table + 12, 4), 1); /* masked after reset */
	driver_use_msix(&d, 2);
	pci_msix_send(&card.pci, 1);
	assert_int_equal(b->msis, 1);
	assert_int_equal(b->msi_address[0], 0xfee00000);
	assert_int_equal(b->msi_data[0], 0x101);
	/* Vector 2 is still masked: pending, sent when unmasked, once. */
	pci_msix_send(&card.pci, 2);
	pci_msix_send(&card.pci, 2);
	pci_msix_send(&card.pci, 3);
	assert_false(pci_msix_message(&card.pci, 2, &address, &data));
	assert_int_equal(b->msis, 1);
	assert_int_equal(driver_get(&d, table + 2048, 4), BIT(2));
	driver_put(&d, table + 2048, 4, 0); /* read-only */
	assert_int_equal(driver_get(&d, table + 2048, 4), BIT(2));
	driver_put(&d, table + 32, 8, 0xfee01000);
	driver_put(&d, table + 40, 8, 0x42);
	assert_int_equal(b->msis, 2);
	assert_int_equal(b->msi_address[1], 0xfee01000);
	assert_int_equal(b->msi_data[1], 0x42);
	assert_int_equal(driver_get(&d, table + 2048, 4), 0);
	assert_true(pci_msix_message(&card.pci, 2, &address, &data));
	/* The function mask does the same for all. */
	ecam_write(b, 4, cap + 2, 2, BIT(15) | BIT(14));
	pci_msix_send(&card.pci, 0);
	assert_int_equal(b->msis, 2);
	ecam_write(b, 4, cap + 2, 2, BIT(15));
	assert_int_equal(b->msis, 3);
	/* With MSI-X on, the pin is silent. */
	pci_set_intx(&card.pci, true);
	assert_false(b->pirq[4]);
	ecam_write(b, 4, cap + 2, 2, 0);
	assert_true(b->pirq[4]);
}

static void
test_reset_port_inside_0xcf8(void **state)
{
	struct board *b = *state;
	u32 control = 5;

	pci_bus_set_cf9(b->bus, &regs_ops, &control);
	memory_port_write(b->memory, 0xcf8, 4, 0x80001234);
	assert_int_equal(memory_port_read(b->memory, 0xcf8, 4), 0x80001234);
	assert_int_equal(control, 5);
	memory_port_write(b->memory, 0xcf9, 1, 6);
	assert_int_equal(control, 6);
	assert_int_equal(memory_port_read(b->memory, 0xcf9, 1), 6);
	assert_int_equal(memory_port_read(b->memory, 0xcf8, 4), 0x80001234);
}

#define PCI_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PCI_TEST(test_both_ways_agree),
		PCI_TEST(test_bar_sizing_and_moving),
		PCI_TEST(test_assign_and_reset),
		PCI_TEST(test_intx_is_shared),
		PCI_TEST(test_msix),
		PCI_TEST(test_reset_port_inside_0xcf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
