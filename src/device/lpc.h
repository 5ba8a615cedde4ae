/*
 * The LPC bridge of an ICH9, PCI function 00:1f.0: routes PIRQA..PIRQH to the
 * two interrupt controllers, places the power management registers, and holds
 * the reset control register at port 0xcf9. Everything under the machine's lock.
 */
#ifndef DEVICE_LPC_H
#define DEVICE_LPC_H

#include "bus/device.h"
#include "bus/irq.h"
#include "bus/pci.h"
#include "device/acpi_pm.h"

struct lpc;

enum { LPC_SLOT = 31 };

struct lpc_host {
	void *opaque;
	/* Level of IOAPIC input PIN (16 to 23 for PIRQA to PIRQH). */
	void (*set_pin)(void *opaque, unsigned pin, bool level);
	/* Level that the PIRQs routed to it put on an 8259 input. */
	void (*set_irq)(void *opaque, unsigned irq, bool level);
};

/* PM is placed by it and must outlive it. The bus frees it. 0 or -errno. */
int lpc_create(struct pci_bus *bus, const struct device_host *host, const struct lpc_host *lpc_host,
	       struct acpi_pm *pm, struct lpc **out);

/* Level of PIRQ 0 (A) to 7 (H). May be called before lpc_create with a zeroed *LPC pointer. */
void lpc_set_pirq(struct lpc *lpc, unsigned pirq, bool level);

/* What firmware does where there is none: PM registers and PIRQ routes to where the ACPI tables
 * and the interrupt line registers say. LINE gets the 8259 input of each PIRQ. */
void lpc_set_up(struct lpc *lpc, u8 line[PCI_PIRQS]);

#endif
