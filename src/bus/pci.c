/*
 * The PCI bus: configuration accesses (0xcf8/0xcfc and ECAM), BARs that follow
 * what the guest writes, and INTx lines.  MSI-X is in pci_msix.c.
 *
 * Invariants: a BAR has a region exactly while gpa is not PCI_UNMAPPED; the
 * level of a PIRQ is the OR of all devices on it (pirq_count).
 */
#include "bus/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "state/state.h"

enum {
	PCI_DEVICES = PCI_SLOTS * PCI_FUNCTIONS,
	PCI_CACHE_LINE = 0x0c,
	PCI_MULTIFUNCTION = 0x80,
	PCI_PORT_ADDRESS = 0xcf8,
	PCI_ADDRESS_ENABLE = 1u << 31,
	PCI_COMMAND_MASK = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
			   PCI_COMMAND_INTX_DISABLE | BIT(6) | BIT(8), /* parity, SERR# */
	PCI_ASSIGN_ALIGN = 4096, /* BARs share no page, so that a page has one owner */
};

struct pci_bus {
	struct device_host host;
	struct pci_device *devices[PCI_DEVICES]; /* by slot * 8 + function */
	struct pci_device *added[PCI_DEVICES];	 /* in the order of pci_add */
	unsigned added_count;
	struct irq_line pirq[PCI_PIRQS];
	unsigned pirq_count[PCI_PIRQS];
	u32 address; /* port 0xcf8 */
	struct io_region *ports;
	struct io_region *ecam;
	const struct io_ops *cf9;
	void *cf9_opaque;
};

static u32
pci_ones(unsigned size)
{
	return size >= 4 ? 0xffffffffu : (1u << (8 * size)) - 1;
}

static bool
pci_overlaps(unsigned offset, unsigned size, unsigned field, unsigned field_size)
{
	return offset < field + field_size && field < offset + size;
}

/* ---- BARs ---- */

static bool
pci_bar_is_io(const struct pci_bar *bar)
{
	return bar->kind == PCI_BAR_IO;
}

/* Where the registers say that the BAR answers. */
static u64
pci_bar_wanted(const struct pci_device *pci, unsigned index)
{
	const struct pci_bar *bar = &pci->bars[index];
	const u8 *reg = pci->config + PCI_BAR0 + 4 * index;
	u16 command = get_le16(pci->config + PCI_COMMAND);
	u64 gpa, limit;

	if (!(command & (pci_bar_is_io(bar) ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return PCI_UNMAPPED;
	if (pci_bar_is_io(bar)) {
		gpa = get_le32(reg) & ~3u;
		limit = 0xffff;
	} else if (bar->kind == PCI_BAR_MEM64) {
		gpa = get_le64(reg) & ~15ull;
		limit = BIT64(52) - 1;
	} else {
		gpa = get_le32(reg) & ~15u;
		limit = 0xfffffffe; /* all ones is a guest that sizes the BAR */
	}
	if (gpa == 0 || gpa > limit || bar->size - 1 > limit - gpa)
		return PCI_UNMAPPED;
	return gpa;
}

static void
pci_bar_map(struct pci_device *pci, struct pci_bar *bar, u64 gpa)
{
	struct memory *mem = pci->bus->host.memory;

	if (bar->region)
		memory_remove_region(mem, bar->region);
	bar->region = NULL;
	bar->gpa = PCI_UNMAPPED;
	if (gpa == PCI_UNMAPPED)
		return;
	if (pci_bar_is_io(bar))
		bar->region =
			memory_add_ports(mem, (u16)gpa, (u32)bar->size, bar->ops, bar->opaque);
	else
		bar->region = memory_add_mmio(mem, gpa, bar->size, bar->ops, bar->opaque);
	if (bar->region)
		bar->gpa = gpa;
}

static void
pci_bar_update(struct pci_device *pci, unsigned index)
{
	struct pci_bar *bar = &pci->bars[index];
	u64 gpa;

	if (bar->kind == PCI_BAR_NONE)
		return;
	gpa = pci_bar_wanted(pci, index);
	if (gpa == bar->gpa)
		return;
	pci_bar_map(pci, bar, gpa);
	if (pci->ops->bar_moved)
		pci->ops->bar_moved(pci, index, bar->gpa);
}

static void
pci_bars_update(struct pci_device *pci)
{
	for (unsigned i = 0; i < PCI_BARS; i++)
		pci_bar_update(pci, i);
}

void
pci_add_bar(struct pci_device *pci, unsigned index, enum pci_bar_kind kind, u64 size,
	    const struct io_ops *ops, void *opaque)
{
	u8 *reg = pci->config + PCI_BAR0 + 4 * index;
	u8 *mask = pci->mask + PCI_BAR0 + 4 * index;
	struct pci_bar *bar = &pci->bars[index];

	*bar = (struct pci_bar){
		.kind = kind, .size = size, .gpa = PCI_UNMAPPED, .ops = ops, .opaque = opaque};
	if (kind == PCI_BAR_MEM64) {
		put_le32(reg, 0xc); /* 64 bits wide, prefetchable */
		put_le64(mask, ~(size - 1));
	} else {
		put_le32(reg, kind == PCI_BAR_IO ? 1 : 0);
		put_le32(mask, (u32) ~(size - 1));
	}
}

/* ---- INTx ---- */

unsigned
pci_pirq(unsigned slot, unsigned pin)
{
	unsigned line = pin - 1;

	return slot < 25 ? 4 + ((slot + line) & 3) : line & 3;
}

static void
pci_intx_update(struct pci_device *pci)
{
	struct pci_bus *bus = pci->bus;
	u16 command = get_le16(pci->config + PCI_COMMAND);
	bool drive =
		pci->intx_wanted && !(command & PCI_COMMAND_INTX_DISABLE) && !pci_msix_enabled(pci);
	unsigned pirq;

	if (pci->intx_wanted)
		pci->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	else
		pci->config[PCI_STATUS] &= (u8)~PCI_STATUS_INTERRUPT;
	if (drive == pci->intx_driven || !pci->config[PCI_INTERRUPT_PIN])
		return;
	pci->intx_driven = drive;
	pirq = pci_pirq(pci->slot, pci->config[PCI_INTERRUPT_PIN]);
	if (drive && bus->pirq_count[pirq]++ == 0)
		irq_set(&bus->pirq[pirq], true);
	else if (!drive && --bus->pirq_count[pirq] == 0)
		irq_set(&bus->pirq[pirq], false);
}

void
pci_set_intx(struct pci_device *pci, bool level)
{
	pci->intx_wanted = level;
	pci_intx_update(pci);
}

void
pci_set_pin(struct pci_device *pci, unsigned pin)
{
	pci->config[PCI_INTERRUPT_PIN] = (u8)pin;
}

/* ---- configuration space ---- */

static u32
pci_get(const u8 *at, unsigned size)
{
	u32 value = 0;

	memcpy(&value, at, size);
	return value;
}

u32
pci_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
	if (size > 4 || offset > PCI_CONFIG_SIZE - size)
		return 0; /* no extended capabilities */
	if (pci->ops->config_reading)
		pci->ops->config_reading(pci, offset, size);
	return pci_get(pci->config + offset, size);
}

static void
pci_config_store(struct pci_device *pci, unsigned offset, unsigned size, u32 value)
{
	for (unsigned i = offset; i < offset + size; i++, value >>= 8) {
		u8 mask = pci->mask[i], byte = (u8)value;

		pci->config[i] = (u8)((pci->config[i] & ~mask) | (byte & mask));
		pci->config[i] &= (u8) ~(byte & pci->clear[i]);
	}
}

void
pci_config_write(struct pci_device *pci, unsigned offset, unsigned size, u32 value)
{
	if (size > 4 || offset > PCI_CONFIG_SIZE - size)
		return;
	pci_config_store(pci, offset, size, value);
	if (pci_overlaps(offset, size, PCI_COMMAND, 2) ||
	    pci_overlaps(offset, size, PCI_BAR0, 4 * PCI_BARS))
		pci_bars_update(pci);
	pci_msix_control(pci);
	pci_intx_update(pci);
	if (pci->ops->config_written)
		pci->ops->config_written(pci, offset, size);
}

struct pci_device *
pci_find(struct pci_bus *bus, unsigned slot, unsigned function)
{
	if (slot >= PCI_SLOTS || function >= PCI_FUNCTIONS)
		return NULL;
	return bus->devices[slot * PCI_FUNCTIONS + function];
}

/* DEVFN and OFFSET as both access ways have them; SIZE 1..4, any alignment. */
static u32
pci_bus_read(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size)
{
	struct pci_device *pci = bus->devices[devfn];
	u32 value = 0;

	if (!pci)
		return pci_ones(size);
	if (offset % size == 0)
		return pci_config_read(pci, offset, size);
	for (unsigned i = 0; i < size; i++)
		value |= pci_config_read(pci, offset + i, 1) << (8 * i);
	return value;
}

static void
pci_bus_write(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size, u32 value)
{
	struct pci_device *pci = bus->devices[devfn];

	if (!pci)
		return;
	if (offset % size == 0) {
		pci_config_write(pci, offset, size, value);
		return;
	}
	for (unsigned i = 0; i < size; i++)
		pci_config_write(pci, offset + i, 1, (value >> (8 * i)) & 0xff);
}

/* ---- ports 0xcf8 to 0xcff ---- */

/* The addressed function, or -1 where no bus or no enable bit is. */
static int
pci_port_devfn(const struct pci_bus *bus)
{
	if (!(bus->address & PCI_ADDRESS_ENABLE) || ((bus->address >> 16) & 0xff) != 0)
		return -1;
	return (int)((bus->address >> 8) & 0xff);
}

static bool
pci_port_is_cf9(const struct pci_bus *bus, u64 offset, unsigned size)
{
	return offset == 1 && size == 1 && bus->cf9;
}

static u64
pci_port_read(void *opaque, u64 offset, unsigned size)
{
	struct pci_bus *bus = opaque;
	int devfn = pci_port_devfn(bus);

	if (pci_port_is_cf9(bus, offset, size))
		return bus->cf9->read(bus->cf9_opaque, 0, 1);
	if (offset == 0 && size == 4)
		return bus->address;
	if (offset < 4 || size > 4 || devfn < 0)
		return pci_ones(size);
	return pci_bus_read(bus, (unsigned)devfn, (bus->address & 0xfc) + (unsigned)(offset & 3),
			    size);
}

static void
pci_port_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct pci_bus *bus = opaque;
	int devfn = pci_port_devfn(bus);

	if (pci_port_is_cf9(bus, offset, size))
		bus->cf9->write(bus->cf9_opaque, 0, 1, value);
	else if (offset == 0 && size == 4)
		bus->address = (u32)value & 0x80fffffc;
	else if (offset >= 4 && size <= 4 && devfn >= 0)
		pci_bus_write(bus, (unsigned)devfn, (bus->address & 0xfc) + (unsigned)(offset & 3),
			      size, (u32)value);
}

static const struct io_ops pci_port_ops = {
	.read = pci_port_read,
	.write = pci_port_write,
};

void
pci_bus_set_cf9(struct pci_bus *bus, const struct io_ops *ops, void *opaque)
{
	bus->cf9 = ops;
	bus->cf9_opaque = opaque;
}

/* ---- ECAM: bus << 20 | slot << 15 | function << 12 | register ---- */

static u64
pci_ecam_read(void *opaque, u64 offset, unsigned size)
{
	struct pci_bus *bus = opaque;
	unsigned devfn = (unsigned)(offset >> 12) & 0xff, reg = (unsigned)offset & 0xfff;
	u64 high;

	if (size == 8) {
		high = pci_ecam_read(opaque, offset + 4, 4);
		return pci_ecam_read(opaque, offset, 4) | high << 32;
	}
	if (offset >> 20)
		return pci_ones(size);
	return pci_bus_read(bus, devfn, reg, size);
}

static void
pci_ecam_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct pci_bus *bus = opaque;
	unsigned devfn = (unsigned)(offset >> 12) & 0xff, reg = (unsigned)offset & 0xfff;

	if (size == 8) {
		pci_ecam_write(opaque, offset, 4, value & 0xffffffff);
		pci_ecam_write(opaque, offset + 4, 4, value >> 32);
	} else if (!(offset >> 20)) {
		pci_bus_write(bus, devfn, reg, size, (u32)value);
	}
}

static const struct io_ops pci_ecam_ops = {
	.read = pci_ecam_read,
	.write = pci_ecam_write,
};

int
pci_bus_set_ecam(struct pci_bus *bus, u64 gpa, unsigned buses)
{
	if (bus->ecam)
		memory_remove_region(bus->host.memory, bus->ecam);
	bus->ecam = NULL;
	if (gpa == PCI_UNMAPPED)
		return 0;
	if (buses == 0 || buses > PCI_ECAM_BUSES)
		return -EINVAL;
	bus->ecam = memory_add_mmio(bus->host.memory, gpa, buses * 0x100000ull, &pci_ecam_ops, bus);
	return bus->ecam ? 0 : -ENOMEM;
}

/* ---- devices ---- */

void
pci_init(struct pci_device *pci, const struct pci_ops *ops, const struct pci_id *id)
{
	u8 *config = pci->config;

	memset(pci, 0, sizeof(*pci));
	pci->ops = ops;
	pci->next_capability = PCI_FIRST_FREE;
	for (unsigned i = 0; i < PCI_BARS; i++)
		pci->bars[i].gpa = PCI_UNMAPPED;
	put_le16(config + PCI_VENDOR_ID, id->vendor);
	put_le16(config + PCI_DEVICE_ID, id->device);
	config[PCI_REVISION] = id->revision;
	config[PCI_CLASS_PROG] = (u8)id->class_code;
	config[PCI_SUBCLASS] = (u8)(id->class_code >> 8);
	config[PCI_CLASS] = (u8)(id->class_code >> 16);
	put_le16(config + PCI_SUBSYSTEM_VENDOR_ID, id->subsystem_vendor);
	put_le16(config + PCI_SUBSYSTEM_ID, id->subsystem);
	put_le16(pci->mask + PCI_COMMAND, PCI_COMMAND_MASK);
	pci->mask[PCI_CACHE_LINE] = 0xff;
	pci->mask[PCI_INTERRUPT_LINE] = 0xff;
}

unsigned
pci_add_capability(struct pci_device *pci, u8 id, unsigned size)
{
	unsigned at = pci->next_capability;

	pci->config[at] = id;
	pci->config[at + 1] = 0;
	if (pci->last_capability)
		pci->config[pci->last_capability + 1] = (u8)at;
	else
		pci->config[PCI_CAPABILITIES] = (u8)at;
	pci->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
	pci->last_capability = at;
	pci->next_capability = (at + size + 3) & ~3u;
	return at;
}

/* Functions beside function 0 exist: function 0 has to say so. */
static void
pci_mark_multifunction(struct pci_bus *bus, unsigned slot)
{
	struct pci_device *first = pci_find(bus, slot, 0);
	bool multi = false;

	for (unsigned f = 1; f < PCI_FUNCTIONS; f++)
		multi |= pci_find(bus, slot, f) != NULL;
	if (first && multi) {
		first->config[PCI_HEADER_TYPE] |= PCI_MULTIFUNCTION;
		first->initial[PCI_HEADER_TYPE] |= PCI_MULTIFUNCTION;
	}
}

int
pci_add(struct pci_bus *bus, struct pci_device *pci, unsigned slot, unsigned function)
{
	if (slot >= PCI_SLOTS || function >= PCI_FUNCTIONS)
		return -EINVAL;
	if (pci_find(bus, slot, function))
		return -EEXIST;
	pci->bus = bus;
	pci->slot = slot;
	pci->function = function;
	memcpy(pci->initial, pci->config, sizeof(pci->initial));
	bus->devices[slot * PCI_FUNCTIONS + function] = pci;
	bus->added[bus->added_count++] = pci;
	pci_mark_multifunction(bus, slot);
	return 0;
}

void
pci_release(struct pci_device *pci)
{
	pci_msix_free(pci);
}

static void
pci_device_reset(struct pci_device *pci)
{
	memcpy(pci->config, pci->initial, sizeof(pci->config));
	pci_bars_update(pci);
	pci_msix_reset(pci);
	pci_set_intx(pci, false);
	if (pci->ops->reset)
		pci->ops->reset(pci);
}

/* ---- the bus ---- */

int
pci_bus_create(struct pci_bus **out, const struct device_host *host,
	       const struct irq_line pirq[PCI_PIRQS])
{
	struct pci_bus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return -ENOMEM;
	bus->host = *host;
	memcpy(bus->pirq, pirq, sizeof(bus->pirq));
	bus->ports = memory_add_ports(host->memory, PCI_PORT_ADDRESS, 8, &pci_port_ops, bus);
	if (!bus->ports) {
		free(bus);
		return -ENOMEM;
	}
	*out = bus;
	return 0;
}

const struct device_host *
pci_bus_host(const struct pci_bus *bus)
{
	return &bus->host;
}

void
pci_bus_destroy(struct pci_bus *bus)
{
	struct pci_device *pci;

	while (bus->added_count > 0) {
		pci = bus->added[--bus->added_count];
		bus->devices[pci->slot * PCI_FUNCTIONS + pci->function] = NULL;
		put_le16(pci->config + PCI_COMMAND, 0);
		pci_bars_update(pci);
		pci_set_intx(pci, false);
		pci_msix_free(pci);
		if (pci->ops->destroy)
			pci->ops->destroy(pci);
	}
	pci_bus_set_ecam(bus, PCI_UNMAPPED, 0);
	memory_remove_region(bus->host.memory, bus->ports);
	free(bus);
}

void
pci_bus_reset(struct pci_bus *bus)
{
	bus->address = 0;
	for (unsigned i = 0; i < bus->added_count; i++)
		pci_device_reset(bus->added[i]);
}

/* ---- what a firmware would do ---- */

/* Takes SIZE bytes, aligned to it, off the start of a window. */
static u64
pci_window_take(u64 *start, u64 *left, u64 size)
{
	u64 at = align_up(*start, size), used = at - *start;

	if (used > *left || *left - used < size)
		return PCI_UNMAPPED;
	*start = at + size;
	*left -= used + size;
	return at;
}

static int
pci_assign_bar(struct pci_device *pci, unsigned index, struct pci_windows *left)
{
	const struct pci_bar *bar = &pci->bars[index];
	u8 *reg = pci->config + PCI_BAR0 + 4 * index;
	u64 size = bar->size;
	u64 at;

	if (!pci_bar_is_io(bar) && size < PCI_ASSIGN_ALIGN)
		size = PCI_ASSIGN_ALIGN;
	if (pci_bar_is_io(bar))
		at = pci_window_take(&left->io, &left->io_size, size);
	else if (bar->kind == PCI_BAR_MEM64 && left->mem64_size)
		at = pci_window_take(&left->mem64, &left->mem64_size, size);
	else
		at = pci_window_take(&left->mem32, &left->mem32_size, size);
	if (at == PCI_UNMAPPED)
		return -ENOSPC;
	put_le32(reg, (u32)at | (get_le32(reg) & 0xf));
	if (bar->kind == PCI_BAR_MEM64)
		put_le32(reg + 4, (u32)(at >> 32));
	return 0;
}

/* Largest first, so that alignment wastes nothing. */
static int
pci_assign_bars(struct pci_bus *bus, struct pci_windows *left)
{
	int error;

	for (u64 size = BIT64(40); size >= 4; size >>= 1) {
		for (unsigned i = 0; i < PCI_BARS * bus->added_count; i++) {
			struct pci_device *pci = bus->added[i / PCI_BARS];
			const struct pci_bar *bar = &pci->bars[i % PCI_BARS];

			if (bar->kind == PCI_BAR_NONE || bar->size != size)
				continue;
			error = pci_assign_bar(pci, i % PCI_BARS, left);
			if (error)
				return error;
		}
	}
	return 0;
}

static void
pci_assign_enable(struct pci_device *pci, const u8 line[PCI_PIRQS])
{
	u16 command = get_le16(pci->config + PCI_COMMAND);
	u8 pin = pci->config[PCI_INTERRUPT_PIN];

	for (unsigned i = 0; i < PCI_BARS; i++) {
		if (pci->bars[i].kind == PCI_BAR_IO)
			command |= PCI_COMMAND_IO;
		else if (pci->bars[i].kind != PCI_BAR_NONE)
			command |= PCI_COMMAND_MEMORY;
	}
	if (command & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY))
		command |= PCI_COMMAND_MASTER;
	if (pin)
		pci->config[PCI_INTERRUPT_LINE] = line[pci_pirq(pci->slot, pin)];
	pci_config_write(pci, PCI_COMMAND, 2, command);
}

int
pci_bus_assign(struct pci_bus *bus, const struct pci_windows *windows, const u8 line[PCI_PIRQS])
{
	struct pci_windows left = *windows;
	int error = pci_assign_bars(bus, &left);

	if (error)
		return error;
	for (unsigned i = 0; i < bus->added_count; i++)
		pci_assign_enable(bus->added[i], line);
	return 0;
}

/* ---- saved state ---- */

static const struct state_field pci_fields[] = {
	STATE_BYTES(struct pci_device, config),
	STATE_FLAG(struct pci_device, intx_wanted),
	STATE_END,
};

/* What the guest cannot have written must be as in this machine's device: ids, capabilities,
 * the kinds of the BARs. */
static bool
pci_state_check(const void *staged)
{
	const struct pci_device *pci = staged;

	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
		u8 fixed = (u8) ~(pci->mask[i] | pci->clear[i]);

		if (i == PCI_STATUS)
			fixed &= (u8)~PCI_STATUS_INTERRUPT;
		if ((pci->config[i] ^ pci->initial[i]) & fixed)
			return false;
	}
	return true;
}

/* The level of the pin follows; that of the lines is part of what they lead to. */
static void
pci_state_pin(struct pci_device *pci)
{
	unsigned *count, pin = pci->config[PCI_INTERRUPT_PIN];
	u16 command = get_le16(pci->config + PCI_COMMAND);
	bool drive = pci->intx_wanted && !(command & PCI_COMMAND_INTX_DISABLE) &&
		     !pci_msix_enabled(pci) && pin;

	if (drive == pci->intx_driven)
		return;
	count = &pci->bus->pirq_count[pci_pirq(pci->slot, pin)];
	*count = drive ? *count + 1 : *count - 1;
	pci->intx_driven = drive;
}

static void
pci_state_loaded(void *object)
{
	struct pci_device *pci = object;

	pci_msix_loaded(pci);
	pci_state_pin(pci);
	pci_bars_update(pci);
}

static const struct state_type pci_state_type = {"pci", 1, pci_fields, pci_state_check,
						 pci_state_loaded};

static const struct state_field pci_bus_fields[] = {
	STATE_NUMBER(struct pci_bus, address),
	STATE_END,
};

static bool
pci_bus_state_check(const void *staged)
{
	return !(((const struct pci_bus *)staged)->address & ~0x80fffffcu);
}

static const struct state_type pci_bus_state_type = {"pci-bus", 1, pci_bus_fields,
						     pci_bus_state_check, NULL};

void
pci_bus_state(struct pci_bus *bus, struct state_list *list)
{
	state_list_add(list, &pci_bus_state_type, 0, bus, sizeof(*bus));
	for (unsigned i = 0; i < bus->added_count; i++) {
		struct pci_device *pci = bus->added[i];

		state_list_add(list, &pci_state_type, pci_instance(pci), pci, sizeof(*pci));
		pci_msix_state(pci, list);
		if (pci->ops->state)
			pci->ops->state(pci, list);
	}
}
