/*
 * MSI-X (PCI Local Bus 3.0, 6.8.2): a table of messages and an array of
 * pending bits in a BAR of their own, table in its first half, pending bits
 * at its middle.
 *
 *	entry:	0 address	8 data		12 vector control (bit 0: masked)
 *
 * Invariant: a vector is pending only while it is masked, by itself or by the
 * function; leaving that state sends it.
 */
#include "bus/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "state/state.h"

enum {
	MSIX_ENTRY = 16,
	MSIX_VECTORS_MAX = 2048,
	MSIX_WORDS = MSIX_VECTORS_MAX / 64,
	MSIX_CAPABILITY_SIZE = 12,
	MSIX_CONTROL = 2, /* offset in the capability */
	MSIX_ENABLE = BIT(15),
	MSIX_FUNCTION_MASK = BIT(14),
	MSIX_ENTRY_MASKED = BIT(0),
};

struct pci_msix {
	struct pci_device *pci;
	unsigned capability; /* its offset in configuration space */
	unsigned vectors;
	u32 pba; /* offset of the pending bits in the BAR */
	bool enabled, function_masked;
	unsigned words; /* of PENDING in use */
	u64 pending[MSIX_WORDS];
	u8 table[]; /* VECTORS entries */
};

static bool
msix_masked(const struct pci_msix *msix, unsigned vector)
{
	return msix->function_masked || (msix->table[vector * MSIX_ENTRY + 12] & MSIX_ENTRY_MASKED);
}

static void
msix_deliver(struct pci_msix *msix, unsigned vector)
{
	const u8 *entry = msix->table + vector * MSIX_ENTRY;
	const struct msi_sink *sink = &pci_bus_host(msix->pci->bus)->msi;

	if ((msix->pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER) && sink->send)
		sink->send(sink->opaque, get_le64(entry), get_le32(entry + 8));
}

/* Sends what waits for VECTOR to be unmasked. */
static void
msix_release(struct pci_msix *msix, unsigned vector)
{
	u64 *word = &msix->pending[vector / 64];

	if (!(*word & BIT64(vector % 64)) || !msix->enabled || msix_masked(msix, vector))
		return;
	*word &= ~BIT64(vector % 64);
	msix_deliver(msix, vector);
}

static void
msix_changed(struct pci_msix *msix)
{
	if (msix->pci->ops->msix_changed)
		msix->pci->ops->msix_changed(msix->pci);
}

static u64
msix_read(void *opaque, u64 offset, unsigned size)
{
	struct pci_msix *msix = opaque;
	u64 table_size = msix->vectors * MSIX_ENTRY;
	u64 pending_size = msix->words * sizeof(u64);
	u64 value = 0;

	if (offset < table_size && table_size - offset >= size)
		memcpy(&value, msix->table + offset, size);
	else if (offset >= msix->pba && offset - msix->pba < pending_size &&
		 pending_size - (offset - msix->pba) >= size)
		memcpy(&value, (u8 *)msix->pending + (offset - msix->pba), size);
	return value;
}

static void
msix_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct pci_msix *msix = opaque;
	unsigned vector = (unsigned)(offset / MSIX_ENTRY);

	if (size == 8 && offset % 8 == 0) {
		msix_write(opaque, offset, 4, value & 0xffffffff);
		msix_write(opaque, offset + 4, 4, value >> 32);
		return;
	}
	if (size != 4 || offset % 4 || vector >= msix->vectors)
		return; /* undefined by the specification; the pending bits are read-only */
	if (offset % MSIX_ENTRY == 12)
		value &= MSIX_ENTRY_MASKED;
	else if (offset % MSIX_ENTRY == 0)
		value &= ~3ull;
	put_le32(msix->table + offset, (u32)value);
	msix_release(msix, vector);
	msix_changed(msix);
}

static const struct io_ops msix_ops = {
	.read = msix_read,
	.write = msix_write,
};

int
pci_add_msix(struct pci_device *pci, unsigned bar, unsigned vectors)
{
	unsigned table_size = vectors * MSIX_ENTRY, at;
	struct pci_msix *msix;
	u32 half = 2048;

	if (vectors == 0 || vectors > MSIX_VECTORS_MAX)
		return -EINVAL;
	while (half < table_size)
		half *= 2;
	msix = calloc(1, sizeof(*msix) + table_size);
	if (!msix)
		return -ENOMEM;
	msix->pci = pci;
	msix->vectors = vectors;
	msix->words = (vectors + 63) / 64;
	msix->pba = half;
	at = pci_add_capability(pci, PCI_CAP_MSIX, MSIX_CAPABILITY_SIZE);
	msix->capability = at;
	put_le16(pci->config + at + MSIX_CONTROL, (u16)(vectors - 1));
	put_le16(pci->mask + at + MSIX_CONTROL, MSIX_ENABLE | MSIX_FUNCTION_MASK);
	put_le32(pci->config + at + 4, bar);
	put_le32(pci->config + at + 8, half | bar);
	pci_add_bar(pci, bar, PCI_BAR_MEM32, 2 * half, &msix_ops, msix);
	pci->msix = msix;
	pci_msix_reset(pci);
	return 0;
}

void
pci_msix_control(struct pci_device *pci)
{
	struct pci_msix *msix = pci->msix;
	bool enabled, masked;
	u16 control;

	if (!msix)
		return;
	control = get_le16(pci->config + msix->capability + MSIX_CONTROL);
	enabled = (control & MSIX_ENABLE) != 0;
	masked = (control & MSIX_FUNCTION_MASK) != 0;
	if (enabled == msix->enabled && masked == msix->function_masked)
		return;
	msix->enabled = enabled;
	msix->function_masked = masked;
	for (unsigned v = 0; v < msix->vectors; v++)
		msix_release(msix, v);
	msix_changed(msix);
}

void
pci_msix_reset(struct pci_device *pci)
{
	struct pci_msix *msix = pci->msix;

	if (!msix)
		return;
	msix->enabled = msix->function_masked = false;
	memset(msix->table, 0, msix->vectors * MSIX_ENTRY);
	memset(msix->pending, 0, sizeof(msix->pending));
	for (unsigned v = 0; v < msix->vectors; v++)
		msix->table[v * MSIX_ENTRY + 12] = MSIX_ENTRY_MASKED;
}

void
pci_msix_free(struct pci_device *pci)
{
	free(pci->msix);
	pci->msix = NULL;
}

bool
pci_msix_enabled(const struct pci_device *pci)
{
	return pci->msix && pci->msix->enabled;
}

void
pci_msix_send(struct pci_device *pci, unsigned vector)
{
	struct pci_msix *msix = pci->msix;

	if (!pci_msix_enabled(pci) || vector >= msix->vectors)
		return;
	if (msix_masked(msix, vector))
		msix->pending[vector / 64] |= BIT64(vector % 64);
	else
		msix_deliver(msix, vector);
}

bool
pci_msix_message(const struct pci_device *pci, unsigned vector, u64 *address, u32 *data)
{
	const struct pci_msix *msix = pci->msix;

	if (!pci_msix_enabled(pci) || vector >= msix->vectors || msix_masked(msix, vector))
		return false;
	*address = get_le64(msix->table + vector * MSIX_ENTRY);
	*data = get_le32(msix->table + vector * MSIX_ENTRY + 8);
	return true;
}

/* ---- saved state ---- */

struct msix_entry {
	u8 bytes[MSIX_ENTRY];
};

static const struct state_field msix_entry_fields[] = {
	STATE_BYTES(struct msix_entry, bytes),
	STATE_END,
};

static const struct state_field msix_word_fields[] = {
	{.name = "pending", .kind = STATE_NUMBER_KIND, .width = 8, .count = 1, .max = UINT64_MAX},
	STATE_END,
};

static const struct state_field msix_fields[] = {
	{.name = "table",
	 .kind = STATE_GROUP_KIND,
	 .offset = offsetof(struct pci_msix, table),
	 .stride = MSIX_ENTRY,
	 .counter = offsetof(struct pci_msix, vectors),
	 .group = msix_entry_fields},
	STATE_STRUCTS_OF(struct pci_msix, pending, msix_word_fields, words),
	STATE_END,
};

static bool
msix_state_check(const void *staged)
{
	const struct pci_msix *msix = staged;

	for (unsigned v = 0; v < msix->vectors; v++) {
		const u8 *entry = msix->table + v * MSIX_ENTRY;

		if ((entry[0] & 3) || (get_le32(entry + 12) & ~(u32)MSIX_ENTRY_MASKED))
			return false;
	}
	return msix->vectors % 64 == 0 || !(msix->pending[msix->words - 1] >> msix->vectors % 64);
}

static const struct state_type msix_state_type = {"msix", 1, msix_fields, msix_state_check, NULL};

void
pci_msix_state(struct pci_device *pci, struct state_list *list)
{
	struct pci_msix *msix = pci->msix;

	if (msix)
		state_list_add(list, &msix_state_type, pci_instance(pci), msix,
			       sizeof(*msix) + msix->vectors * MSIX_ENTRY);
}

/* The switches are in configuration space; nothing that is pending is due by that alone. */
void
pci_msix_loaded(struct pci_device *pci)
{
	struct pci_msix *msix = pci->msix;
	u16 control;

	if (!msix)
		return;
	control = get_le16(pci->config + msix->capability + MSIX_CONTROL);
	msix->enabled = (control & MSIX_ENABLE) != 0;
	msix->function_masked = (control & MSIX_FUNCTION_MASK) != 0;
}
