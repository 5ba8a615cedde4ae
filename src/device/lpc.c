/*
 * ICH9 LPC interface bridge (data sheet chapter 13). A PIRQ always drives its
 * IOAPIC input, and in addition the 8259 input that its route register names.
 */
#include "device/lpc.h"

#include <errno.h>
#include <stdlib.h>

#include "state/state.h"

enum {
	LPC_PMBASE = 0x40,
	LPC_ACPI_CNTL = 0x44,
	LPC_GPIOBASE = 0x48,
	LPC_PIRQ_A = 0x60,
	LPC_PIRQ_E = 0x68,
	LPC_SERIRQ = 0x64,
	LPC_IO_DECODE = 0x80, /* to 0x93 */
	LPC_GEN_PMCON = 0xa0, /* to 0xa7 */
	LPC_RCBA = 0xf0,
};
enum { ACPI_CNTL_ENABLE = BIT(7) };
enum { PIRQ_DISABLED = BIT(7) };
enum { LPC_FIRST_PIN = 16 };
enum { RESET_SYSTEM = BIT(1), RESET_CPU = BIT(2) };

struct lpc {
	struct pci_device pci;
	u8 levels;  /* of the PIRQs */
	u16 driven; /* 8259 inputs driven now */
	u8 reset_control;
	struct acpi_pm *pm;
	struct lpc_host host;
	struct device_host device_host;
};

static unsigned
lpc_route_register(unsigned pirq)
{
	return pirq < 4 ? LPC_PIRQ_A + pirq : LPC_PIRQ_E + pirq - 4;
}

/* Drives the 8259 inputs as levels and routes want it. */
static void
lpc_update_irqs(struct lpc *lpc)
{
	u16 wanted = 0;

	for (unsigned pirq = 0; pirq < PCI_PIRQS; pirq++) {
		u8 route = lpc->pci.config[lpc_route_register(pirq)];

		if ((lpc->levels & BIT(pirq)) && !(route & PIRQ_DISABLED))
			wanted |= (u16)BIT(route & 15);
	}
	for (unsigned irq = 0; irq < 16; irq++)
		if ((wanted ^ lpc->driven) & BIT(irq))
			lpc->host.set_irq(lpc->host.opaque, irq, wanted & BIT(irq));
	lpc->driven = wanted;
}

void
lpc_set_pirq(struct lpc *lpc, unsigned pirq, bool level)
{
	if (!lpc || pirq >= PCI_PIRQS)
		return;
	if (level)
		lpc->levels |= (u8)BIT(pirq);
	else
		lpc->levels &= (u8)~BIT(pirq);
	lpc->host.set_pin(lpc->host.opaque, LPC_FIRST_PIN + pirq, level);
	lpc_update_irqs(lpc);
}

static void
lpc_place_pm(struct lpc *lpc)
{
	const u8 *config = lpc->pci.config;
	u16 base = (u16)((config[LPC_PMBASE] | config[LPC_PMBASE + 1] << 8) & 0xff80);

	if (!(config[LPC_ACPI_CNTL] & ACPI_CNTL_ENABLE))
		base = 0;
	acpi_pm_place(lpc->pm, base);
}

static void
lpc_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	struct lpc *lpc = CONTAINER_OF(pci, struct lpc, pci);

	if (offset + size > LPC_PMBASE && offset <= LPC_ACPI_CNTL)
		lpc_place_pm(lpc);
	if (offset + size > LPC_PIRQ_A && offset < LPC_PIRQ_E + 4)
		lpc_update_irqs(lpc);
}

static void
lpc_reset(struct pci_device *pci)
{
	struct lpc *lpc = CONTAINER_OF(pci, struct lpc, pci);

	lpc->reset_control = 0;
	lpc_place_pm(lpc);
	lpc_update_irqs(lpc);
}

static void
lpc_destroy(struct pci_device *pci)
{
	struct lpc *lpc = CONTAINER_OF(pci, struct lpc, pci);

	pci_bus_set_cf9(pci->bus, NULL, NULL);
	free(lpc);
}

static const struct state_field lpc_fields[] = {
	STATE_NUMBER(struct lpc, levels),
	STATE_NUMBER(struct lpc, driven),
	STATE_MAX(struct lpc, reset_control, RESET_SYSTEM | BIT(3)),
	STATE_END,
};

static void
lpc_state_loaded(void *object)
{
	lpc_place_pm(object);
	lpc_update_irqs(object);
}

static const struct state_type lpc_state_type = {"lpc", 1, lpc_fields, NULL, lpc_state_loaded};

static void
lpc_state(struct pci_device *pci, struct state_list *list)
{
	struct lpc *lpc = CONTAINER_OF(pci, struct lpc, pci);

	state_list_add(list, &lpc_state_type, 0, lpc, sizeof(*lpc));
}

static const struct pci_ops lpc_pci_ops = {
	.config_written = lpc_config_written,
	.state = lpc_state,
	.reset = lpc_reset,
	.destroy = lpc_destroy,
};

static u64
lpc_reset_read(void *opaque, u64 offset, unsigned size)
{
	struct lpc *lpc = opaque;

	(void)offset;
	(void)size;
	return lpc->reset_control;
}

/* RST_CPU going from 0 to 1 resets; the other bits only say how hard (13.7.5). */
static void
lpc_reset_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct lpc *lpc = opaque;
	bool rose = (value & RESET_CPU) && !(lpc->reset_control & RESET_CPU);

	(void)offset;
	(void)size;
	lpc->reset_control = value & (RESET_SYSTEM | RESET_CPU | BIT(3));
	if (rose) {
		lpc->reset_control &= (u8)~RESET_CPU;
		lpc->device_host.reset(lpc->device_host.opaque);
	}
}

static const struct io_ops lpc_reset_ops = {lpc_reset_read, lpc_reset_write};

void
lpc_set_up(struct lpc *lpc, u8 line[PCI_PIRQS])
{
	/* Inputs of the 8259 that nothing else on the board uses. */
	static const u8 routes[PCI_PIRQS] = {10, 10, 11, 11, 10, 10, 11, 11};

	pci_config_write(&lpc->pci, LPC_PMBASE, 4, ACPI_PM_BASE | 1);
	pci_config_write(&lpc->pci, LPC_ACPI_CNTL, 1, ACPI_CNTL_ENABLE);
	for (unsigned pirq = 0; pirq < PCI_PIRQS; pirq++) {
		pci_config_write(&lpc->pci, lpc_route_register(pirq), 1, routes[pirq]);
		line[pirq] = routes[pirq];
	}
}

static void
lpc_init_config(struct lpc *lpc)
{
	static const struct pci_id id = {
		.vendor = 0x8086, .device = 0x2918, .revision = 2, .class_code = 0x060100};
	u8 *config = lpc->pci.config;
	u8 *mask = lpc->pci.mask;

	pci_init(&lpc->pci, &lpc_pci_ops, &id);
	config[PCI_HEADER_TYPE] |= 0x80; /* other functions may follow */
	config[PCI_COMMAND] = mask[PCI_COMMAND] =
		PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	config[LPC_PMBASE] = 1;
	mask[LPC_PMBASE] = 0x80;
	mask[LPC_PMBASE + 1] = 0xff;
	mask[LPC_ACPI_CNTL] = 0x87;
	config[LPC_GPIOBASE] = 1;
	for (unsigned pirq = 0; pirq < PCI_PIRQS; pirq++) {
		config[lpc_route_register(pirq)] = PIRQ_DISABLED;
		mask[lpc_route_register(pirq)] = 0x8f;
	}
	config[LPC_SERIRQ] = 0x10;
	mask[LPC_SERIRQ] = 0xff;
	for (unsigned i = 0; i < 0x14; i++)
		mask[LPC_IO_DECODE + i] = 0xff;
	for (unsigned i = 0; i < 8; i++)
		mask[LPC_GEN_PMCON + i] = 0xff;
}

int
lpc_create(struct pci_bus *bus, const struct device_host *host, const struct lpc_host *lpc_host,
	   struct acpi_pm *pm, struct lpc **out)
{
	struct lpc *lpc = calloc(1, sizeof(*lpc));
	int err;

	if (!lpc)
		return -ENOMEM;
	lpc->host = *lpc_host;
	lpc->device_host = *host;
	lpc->pm = pm;
	lpc_init_config(lpc);
	err = pci_add(bus, &lpc->pci, LPC_SLOT, 0);
	if (err) {
		free(lpc);
		return err;
	}
	pci_bus_set_cf9(bus, &lpc_reset_ops, lpc);
	*out = lpc;
	return 0;
}
