/*
 * The I/O APIC. A level-triggered input whose message was sent keeps Remote
 * IRR until its vector is ended; if its line is still asserted then, it is sent
 * again. An edge on a masked input is lost, as the data sheet says (3.2.4).
 */
#include "device/ioapic.h"

#include <errno.h>
#include <stdlib.h>

#include "state/state.h"

enum { IOAPIC_REGSEL = 0x00, IOAPIC_WIN = 0x10, IOAPIC_EOI = 0x40, IOAPIC_SIZE = 0x1000 };
enum { IOAPIC_ID = 0, IOAPIC_VER = 1, IOAPIC_ARB = 2, IOAPIC_REDTBL = 0x10 };
enum { IOAPIC_VERSION = 0x20 };

/* Redirection entry. */
enum {
	RTE_VECTOR = 0xff,
	RTE_DELIVERY_SHIFT = 8,
	RTE_LOGICAL = BIT(11),
	RTE_STATUS = BIT(12),
	RTE_REMOTE_IRR = BIT(14),
	RTE_LEVEL = BIT(15),
	RTE_MASKED = BIT(16),
	RTE_READONLY = RTE_STATUS | RTE_REMOTE_IRR,
	RTE_LOW_WRITABLE = 0x1ffff & ~(RTE_READONLY),
	RTE_DESTINATION_SHIFT = 56,
};

enum { DELIVERY_LOWEST = 1, DELIVERY_SMI = 2, DELIVERY_EXTINT = 7 };

struct ioapic {
	u64 entry[IOAPIC_PINS];
	u32 lines; /* levels of the inputs */
	u8 id;
	u8 select;
	struct msi_sink msi;
	struct ioapic_host host;
	struct memory *memory;
	struct io_region *region;
};

bool
ioapic_message(const struct ioapic *ioapic, unsigned pin, u64 *address, u32 *data, bool *level)
{
	u64 entry = ioapic->entry[pin];
	unsigned delivery = (entry >> RTE_DELIVERY_SHIFT) & 7;

	*address = 0xfee00000ull | (entry >> RTE_DESTINATION_SHIFT) << 12;
	if (entry & RTE_LOGICAL)
		*address |= BIT(2);
	if (delivery == DELIVERY_LOWEST)
		*address |= BIT(3);
	*level = entry & RTE_LEVEL;
	*data = (u32)(entry & RTE_VECTOR) | delivery << 8;
	if (*level)
		*data |= BIT(14) | BIT(15);
	return !(entry & RTE_MASKED);
}

bool
ioapic_masked(const struct ioapic *ioapic, unsigned pin)
{
	return ioapic->entry[pin] & RTE_MASKED;
}

static void
ioapic_send(struct ioapic *ioapic, unsigned pin)
{
	unsigned delivery = (ioapic->entry[pin] >> RTE_DELIVERY_SHIFT) & 7;
	u64 address;
	u32 data;
	bool level;

	/* ExtINT is the 8259's business, which reaches the processors by its own line. */
	if (delivery == DELIVERY_EXTINT || delivery == DELIVERY_SMI)
		return;
	if (!ioapic_message(ioapic, pin, &address, &data, &level))
		return;
	if (level)
		ioapic->entry[pin] |= RTE_REMOTE_IRR;
	ioapic->msi.send(ioapic->msi.opaque, address, data);
}

/* Sends a level interrupt that is due. */
static void
ioapic_service(struct ioapic *ioapic, unsigned pin)
{
	u64 entry = ioapic->entry[pin];

	if ((ioapic->lines & BIT(pin)) && (entry & RTE_LEVEL) &&
	    !(entry & (RTE_MASKED | RTE_REMOTE_IRR)))
		ioapic_send(ioapic, pin);
}

void
ioapic_set_pin(struct ioapic *ioapic, unsigned pin, bool level)
{
	bool was;

	if (pin >= IOAPIC_PINS)
		return;
	was = ioapic->lines & BIT(pin);
	if (level)
		ioapic->lines |= BIT(pin);
	else
		ioapic->lines &= ~BIT(pin);
	if (ioapic->entry[pin] & RTE_LEVEL)
		ioapic_service(ioapic, pin);
	else if (level && !was)
		ioapic_send(ioapic, pin);
}

void
ioapic_eoi(struct ioapic *ioapic, u8 vector)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 *entry = &ioapic->entry[pin];

		if (!(*entry & RTE_REMOTE_IRR) || (*entry & RTE_VECTOR) != vector)
			continue;
		*entry &= ~(u64)RTE_REMOTE_IRR;
		ioapic_service(ioapic, pin);
	}
}

static u32
ioapic_register_read(const struct ioapic *ioapic)
{
	unsigned index = ioapic->select - (unsigned)IOAPIC_REDTBL;

	switch (ioapic->select) {
	case IOAPIC_ID:
	case IOAPIC_ARB:
		return (u32)ioapic->id << 24;
	case IOAPIC_VER:
		return IOAPIC_VERSION | (IOAPIC_PINS - 1) << 16;
	}
	if (index >= 2 * IOAPIC_PINS)
		return 0;
	return (u32)(ioapic->entry[index / 2] >> (index % 2 * 32));
}

static void
ioapic_entry_write(struct ioapic *ioapic, unsigned pin, bool high, u32 value)
{
	u64 *entry = &ioapic->entry[pin];

	if (high) {
		*entry = (*entry & 0xffffffffu) | (u64)(value & 0xff000000u) << 32;
	} else {
		u64 kept = *entry & ((0xffffffffull << 32) | RTE_READONLY);

		*entry = kept | (value & (u32)RTE_LOW_WRITABLE);
		/* How software ends a level interrupt by hand: make it edge and level again. */
		if (!(value & RTE_LEVEL))
			*entry &= ~(u64)RTE_REMOTE_IRR;
	}
	if (ioapic->host.changed)
		ioapic->host.changed(ioapic->host.opaque);
	ioapic_service(ioapic, pin);
}

static void
ioapic_register_write(struct ioapic *ioapic, u32 value)
{
	unsigned index = ioapic->select - (unsigned)IOAPIC_REDTBL;

	if (ioapic->select == IOAPIC_ID)
		ioapic->id = (value >> 24) & 0xf;
	else if (index < 2 * IOAPIC_PINS)
		ioapic_entry_write(ioapic, index / 2, index % 2, value);
}

static u64
ioapic_read(void *opaque, u64 offset, unsigned size)
{
	struct ioapic *ioapic = opaque;
	u64 value = 0;

	(void)size;
	if ((offset & ~3ull) == IOAPIC_REGSEL)
		value = ioapic->select;
	else if ((offset & ~3ull) == IOAPIC_WIN)
		value = ioapic_register_read(ioapic);
	return value >> (offset & 3) * 8;
}

static void
ioapic_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct ioapic *ioapic = opaque;

	(void)size;
	if (offset == IOAPIC_REGSEL)
		ioapic->select = (u8)value;
	else if (offset == IOAPIC_WIN)
		ioapic_register_write(ioapic, (u32)value);
	else if (offset == IOAPIC_EOI)
		ioapic_eoi(ioapic, (u8)value);
}

static const struct io_ops ioapic_ops = {ioapic_read, ioapic_write};

void
ioapic_reset(struct ioapic *ioapic)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		ioapic->entry[pin] = RTE_MASKED;
	ioapic->id = ioapic->select = 0;
	if (ioapic->host.changed)
		ioapic->host.changed(ioapic->host.opaque);
}

int
ioapic_create(struct ioapic **out, const struct device_host *host,
	      const struct ioapic_host *ioapic_host)
{
	struct ioapic *ioapic = calloc(1, sizeof(*ioapic));

	if (!ioapic)
		return -ENOMEM;
	ioapic->msi = host->msi;
	ioapic->memory = host->memory;
	ioapic_reset(ioapic);
	ioapic->host = *ioapic_host;
	ioapic->region =
		memory_add_mmio(host->memory, IOAPIC_GPA, IOAPIC_SIZE, &ioapic_ops, ioapic);
	if (!ioapic->region) {
		free(ioapic);
		return -ENOMEM;
	}
	*out = ioapic;
	return 0;
}

void
ioapic_destroy(struct ioapic *ioapic)
{
	if (!ioapic)
		return;
	memory_remove_region(ioapic->memory, ioapic->region);
	free(ioapic);
}

/* ---- saved state ---- */

#define RTE_DEFINED (0xffull << RTE_DESTINATION_SHIFT | 0x1ffff)

static const struct state_field ioapic_fields[] = {
	STATE_NUMBERS(struct ioapic, entry, UINT64_MAX),
	STATE_MAX(struct ioapic, lines, BIT(IOAPIC_PINS) - 1),
	STATE_MAX(struct ioapic, id, 15),
	STATE_NUMBER(struct ioapic, select),
	STATE_END,
};

static bool
ioapic_state_check(const void *staged)
{
	const struct ioapic *ioapic = staged;

	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		if (ioapic->entry[pin] & ~RTE_DEFINED)
			return false;
	return true;
}

static void
ioapic_state_loaded(void *object)
{
	struct ioapic *ioapic = object;

	if (ioapic->host.changed)
		ioapic->host.changed(ioapic->host.opaque);
}

static const struct state_type ioapic_state_type = {"ioapic", 1, ioapic_fields, ioapic_state_check,
						    ioapic_state_loaded};

void
ioapic_state(struct ioapic *ioapic, struct state_list *list)
{
	state_list_add(list, &ioapic_state_type, 0, ioapic, sizeof(*ioapic));
}
