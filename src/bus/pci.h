/*
 * One conventional PCI bus (bus 0, PCI Local Bus 3.0), reached through ports
 * 0xcf8/0xcfc and through ECAM.  A device embeds struct pci_device, fills its
 * configuration space at creation, then adds BARs and capabilities.  The core
 * answers configuration accesses, sizes and maps BARs as the guest moves them,
 * and delivers INTx (level) and MSI-X.
 *
 *	config	what the guest reads
 *	mask	1: the guest may write this bit
 *	clear	1: the guest clears this bit by writing 1 to it
 *
 * Everything here runs under the machine's lock.
 */
#ifndef BUS_PCI_H
#define BUS_PCI_H

#include "base/types.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "memory/memory.h"

enum {
	PCI_CONFIG_SIZE = 256,
	PCI_SLOTS = 32,
	PCI_FUNCTIONS = 8,
	PCI_BARS = 6,
	PCI_PIRQS = 8, /* PIRQA..PIRQH of the chipset */
	PCI_ECAM_BUSES = 256,
};

#define PCI_ECAM_SIZE (PCI_ECAM_BUSES * 0x100000ull)
#define PCI_UNMAPPED UINT64_MAX

/* Offsets in configuration space. */
enum {
	PCI_VENDOR_ID = 0x00,
	PCI_DEVICE_ID = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS_PROG = 0x09,
	PCI_SUBCLASS = 0x0a,
	PCI_CLASS = 0x0b,
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
	PCI_SUBSYSTEM_ID = 0x2e,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
	PCI_FIRST_FREE = 0x40, /* device-specific registers and capabilities */
};

enum { /* PCI_COMMAND */
       PCI_COMMAND_IO = BIT(0),
       PCI_COMMAND_MEMORY = BIT(1),
       PCI_COMMAND_MASTER = BIT(2),
       PCI_COMMAND_INTX_DISABLE = BIT(10),
};

enum { /* PCI_STATUS */
       PCI_STATUS_INTERRUPT = BIT(3),
       PCI_STATUS_CAPABILITIES = BIT(4),
};

enum { PCI_CAP_VENDOR = 0x09, PCI_CAP_MSIX = 0x11 };

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bus;
struct pci_device;
struct pci_msix;
struct state_list;

/* What a device may hook; each may be NULL. */
struct pci_ops {
	/* The guest wrote SIZE bytes at OFFSET (masks already applied). */
	void (*config_written)(struct pci_device *pci, unsigned offset, unsigned size);
	/* The guest is about to read: the device may refresh pci->config. */
	void (*config_reading)(struct pci_device *pci, unsigned offset, unsigned size);
	/* BAR now answers at GPA (a port for I/O BARs), or is PCI_UNMAPPED. */
	void (*bar_moved)(struct pci_device *pci, unsigned bar, u64 gpa);
	/* MSI-X vector V was masked or unmasked, or MSI-X switched on or off. */
	void (*msix_changed)(struct pci_device *pci);
	/* Adds what is saved of it beside configuration space and MSI-X (state/state.h). */
	void (*state)(struct pci_device *pci, struct state_list *list);
	/* Back to power-on; config, mask and clear already are. */
	void (*reset)(struct pci_device *pci);
	/* Frees the device; called by pci_bus_destroy. */
	void (*destroy)(struct pci_device *pci);
};

struct pci_bar {
	enum pci_bar_kind kind;
	u64 size; /* power of two */
	u64 gpa;  /* where it answers now, or PCI_UNMAPPED */
	const struct io_ops *ops;
	void *opaque;
	struct io_region *region;
};

struct pci_device {
	const struct pci_ops *ops;
	struct pci_bus *bus;
	unsigned slot, function;
	u8 config[PCI_CONFIG_SIZE];
	u8 mask[PCI_CONFIG_SIZE];
	u8 clear[PCI_CONFIG_SIZE];
	u8 initial[PCI_CONFIG_SIZE]; /* config as of pci_add: what reset restores */
	struct pci_bar bars[PCI_BARS];
	unsigned next_capability; /* first free offset for one */
	unsigned last_capability;
	bool intx_wanted; /* level the device asks for */
	bool intx_driven; /* level it drives on its PIRQ */
	struct pci_msix *msix;
};

struct pci_id {
	u16 vendor, device;
	u16 subsystem_vendor, subsystem;
	u8 revision;
	u32 class_code; /* class << 16 | subclass << 8 | programming interface */
};

/* The bus, with ports 0xcf8..0xcff; ECAM is off until pci_bus_set_ecam. HOST
 * is copied. PIRQ: the chipset's inputs PIRQA..PIRQH. 0 or -ENOMEM. */
int pci_bus_create(struct pci_bus **out, const struct device_host *host,
		   const struct irq_line pirq[PCI_PIRQS]);
/* Destroys every device on it first, the last added first. */
void pci_bus_destroy(struct pci_bus *bus);
/* As the reset line does: configuration back to power-on, devices reset. */
void pci_bus_reset(struct pci_bus *bus);

/* Answers ECAM at GPA for BUSES buses (PCIEXBAR); PCI_UNMAPPED: nowhere. */
int pci_bus_set_ecam(struct pci_bus *bus, u64 gpa, unsigned buses);

/* Byte accesses of port 0xcf9, the chipset's reset control, which lies inside
 * PCI's own 0xcf8: the core passes them on (offset 0). */
void pci_bus_set_cf9(struct pci_bus *bus, const struct io_ops *ops, void *opaque);

/* Windows out of which pci_bus_assign gives addresses to BARs. */
struct pci_windows {
	u64 mem32, mem32_size;
	u64 mem64, mem64_size; /* size 0: MEM64 BARs go into mem32 */
	u64 io, io_size;
};

/* Does a firmware's work where there is none: gives every BAR an address,
 * switches decoding and mastering on, and sets the interrupt line register of
 * devices with a pin to LINE[pirq]. 0 or -ENOSPC. */
int pci_bus_assign(struct pci_bus *bus, const struct pci_windows *windows,
		   const u8 line[PCI_PIRQS]);

/* PIRQ (0..7) that INT PIN (1: A .. 4: D) of SLOT drives, as an ICH9 does by
 * default: slots 0..24 swizzle over E..H, 25..31 use A..D unswizzled. */
unsigned pci_pirq(unsigned slot, unsigned pin);

/* Clears *PCI and gives it IDs and a type 0 header; changes to config before
 * pci_add are what a reset restores. */
void pci_init(struct pci_device *pci, const struct pci_ops *ops, const struct pci_id *id);
/* INTx pin, 1 to 4; before pci_add. */
void pci_set_pin(struct pci_device *pci, unsigned pin);
/* BAR of SIZE bytes (a power of two; at least 16, 4 for I/O), before pci_add.
 * MEM64 takes INDEX + 1 too. OPS get offsets into the BAR. */
void pci_add_bar(struct pci_device *pci, unsigned index, enum pci_bar_kind kind, u64 size,
		 const struct io_ops *ops, void *opaque);
/* Room for a capability of SIZE bytes, its two header bytes filled in; its
 * offset. Before pci_add. */
unsigned pci_add_capability(struct pci_device *pci, u8 id, unsigned size);
/* MSI-X with VECTORS (1 to 2048) and a BAR of its own. Before pci_add.
 * 0 or -ENOMEM. */
int pci_add_msix(struct pci_device *pci, unsigned bar, unsigned vectors);
/* Plugs it in: 0, -EEXIST or -EINVAL. From then on the bus destroys it. */
int pci_add(struct pci_bus *bus, struct pci_device *pci, unsigned slot, unsigned function);

/* Frees what the functions above took for a device that was never added. */
void pci_release(struct pci_device *pci);

const struct device_host *pci_bus_host(const struct pci_bus *bus);
struct pci_device *pci_find(struct pci_bus *bus, unsigned slot, unsigned function);

/* Configuration accesses, SIZE 1, 2 or 4, naturally aligned. */
u32 pci_config_read(struct pci_device *pci, unsigned offset, unsigned size);
void pci_config_write(struct pci_device *pci, unsigned offset, unsigned size, u32 value);

/* Level of the device's INTx pin. */
void pci_set_intx(struct pci_device *pci, bool level);

bool pci_msix_enabled(const struct pci_device *pci);
/* Sends VECTOR, or marks it pending while masked; nothing if out of range. */
void pci_msix_send(struct pci_device *pci, unsigned vector);
/* Where VECTOR goes now: false while it is masked or MSI-X is off. */
bool pci_msix_message(const struct pci_device *pci, unsigned vector, u64 *address, u32 *data);

/* Adds what is saved of the bus and of every device on it. An instance is slot * 8 + function. */
void pci_bus_state(struct pci_bus *bus, struct state_list *list);
static inline u32
pci_instance(const struct pci_device *pci)
{
	return pci->slot * PCI_FUNCTIONS + pci->function;
}

/* For pci.c alone: its half of MSI-X in pci_msix.c. */
void pci_msix_state(struct pci_device *pci, struct state_list *list);
void pci_msix_loaded(struct pci_device *pci);
void pci_msix_control(struct pci_device *pci);
void pci_msix_reset(struct pci_device *pci);
void pci_msix_free(struct pci_device *pci);

#endif
