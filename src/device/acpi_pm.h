/*
 * The power management registers of an ICH9 (data sheet 13.8.3): PM1a events
 * and control, PM timer, GPE0, and the SMI command port by which ACPI is
 * switched on. Where they are is the LPC bridge's affair. Everything under the
 * machine's lock.
 */
#ifndef DEVICE_ACPI_PM_H
#define DEVICE_ACPI_PM_H

#include "bus/device.h"
#include "bus/irq.h"

enum {
	ACPI_PM_BASE = 0x600, /* where the board puts it when there is no firmware */
	ACPI_PM_SIZE = 0x80,
	/* Offsets from the base. */
	ACPI_PM1_EVENT = 0x00,
	ACPI_PM1_CONTROL = 0x04,
	ACPI_PM_TIMER = 0x08,
	ACPI_GPE0 = 0x20,
	ACPI_GPE0_SIZE = 16,
	/* Ports and values of the SMI command. */
	ACPI_SMI_COMMAND = 0xb2,
	ACPI_ENABLE = 0x02,
	ACPI_DISABLE = 0x03,
	/* SLP_TYP that means S5. */
	ACPI_SLEEP_OFF = 0,
	ACPI_SCI_IRQ = 9,
};

struct acpi_pm;

/* 0 or -errno. It answers nowhere until acpi_pm_place. */
int acpi_pm_create(struct acpi_pm **out, const struct device_host *host, struct irq_line sci);
void acpi_pm_destroy(struct acpi_pm *pm);
void acpi_pm_reset(struct acpi_pm *pm);

/* The registers answer at PORT (a multiple of 128), 0: nowhere. 0 or -ENOMEM. */
int acpi_pm_place(struct acpi_pm *pm, u16 port);
void acpi_pm_power_button(struct acpi_pm *pm);
/* General-purpose event GPE, 0 to 63, happens. */
void acpi_pm_raise(struct acpi_pm *pm, unsigned gpe);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void acpi_pm_state(struct acpi_pm *pm, struct state_list *list);

#endif
