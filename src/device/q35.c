/*
 * Memory controller hub 82Q35 (data sheet chapter 5). PAM and SMRAM registers
 * keep their values but change nothing: the ranges below 1 MiB are always RAM.
 */
#include "device/q35.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "state/state.h"

enum { Q35_PCIEXBAR = 0x60, Q35_PAM = 0x90, Q35_PAMS = 7, Q35_SMRAM = 0x9d, Q35_ESMRAMC = 0x9e };
enum { PCIEXBAR_ENABLE = BIT(0), SMRAM_LOCKED = BIT(4) };

struct q35 {
	struct pci_device pci;
};

/* PCIEXBAR (5.1.16): length in bits 2:1, base aligned to it. */
static void
q35_place_ecam(struct q35 *q35)
{
	u64 value = 0;
	unsigned buses;

	for (unsigned i = 0; i < 8; i++)
		value |= (u64)q35->pci.config[Q35_PCIEXBAR + i] << (i * 8);
	buses = 256u >> (value >> 1 & 3);
	if (!(value & PCIEXBAR_ENABLE) || buses == 32) {
		pci_bus_set_ecam(q35->pci.bus, PCI_UNMAPPED, 0);
		return;
	}
	value &= 0xffc000000ull;
	pci_bus_set_ecam(q35->pci.bus, align_down(value, buses * 0x100000ull), buses);
}

static void
q35_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	struct q35 *q35 = CONTAINER_OF(pci, struct q35, pci);

	if (offset + size > Q35_PCIEXBAR && offset < Q35_PCIEXBAR + 8)
		q35_place_ecam(q35);
}

static void
q35_reset(struct pci_device *pci)
{
	q35_place_ecam(CONTAINER_OF(pci, struct q35, pci));
}

static void
q35_destroy(struct pci_device *pci)
{
	free(CONTAINER_OF(pci, struct q35, pci));
}

/* All of it is configuration space; only where ECAM answers follows from that. */
static const struct state_field q35_fields[] = {STATE_END};

static void
q35_state_loaded(void *object)
{
	q35_place_ecam(object);
}

static const struct state_type q35_state_type = {"q35", 1, q35_fields, NULL, q35_state_loaded};

static void
q35_state(struct pci_device *pci, struct state_list *list)
{
	struct q35 *q35 = CONTAINER_OF(pci, struct q35, pci);

	state_list_add(list, &q35_state_type, 0, q35, sizeof(*q35));
}

static const struct pci_ops q35_pci_ops = {
	.config_written = q35_config_written,
	.state = q35_state,
	.reset = q35_reset,
	.destroy = q35_destroy,
};

void
q35_set_up(struct q35 *q35)
{
	pci_config_write(&q35->pci, Q35_PCIEXBAR + 4, 4, 0);
	pci_config_write(&q35->pci, Q35_PCIEXBAR, 4, (u32)Q35_ECAM_GPA | PCIEXBAR_ENABLE);
}

int
q35_create(struct pci_bus *bus, const struct device_host *host, struct q35 **out)
{
	static const struct pci_id id = {
		.vendor = 0x8086, .device = 0x29c0, .class_code = 0x060000};
	struct q35 *q35 = calloc(1, sizeof(*q35));
	int err;

	(void)host;
	if (!q35)
		return -ENOMEM;
	pci_init(&q35->pci, &q35_pci_ops, &id);
	put_le32(q35->pci.mask + Q35_PCIEXBAR, 0xfc000007u);
	q35->pci.mask[Q35_PCIEXBAR + 4] = 0x0f;
	for (unsigned i = 0; i < Q35_PAMS; i++)
		q35->pci.mask[Q35_PAM + i] = 0x33;
	q35->pci.config[Q35_SMRAM] = 0x02;
	q35->pci.mask[Q35_SMRAM] = 0x78 & (u8)~SMRAM_LOCKED;
	q35->pci.mask[Q35_ESMRAMC] = 0x87;
	err = pci_add(bus, &q35->pci, 0, 0);
	if (err) {
		free(q35);
		return err;
	}
	*out = q35;
	return 0;
}
