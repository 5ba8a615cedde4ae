/*
 * The ACPI tables of the board (ACPI 6.4), as firmware would leave them:
 * RSDP, XSDT, FADT, FACS, DSDT, MADT, MCFG, HPET.
 */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include "base/types.h"
#include "bus/pci.h"

struct acpi_board {
	unsigned vcpus;
	struct pci_windows windows; /* what PCI0 hands out; I/O is told in full */
	u64 ecam;
	u8 pic_irq[PCI_PIRQS]; /* 8259 input of each PIRQ */
};

/* Builds the tables as they lie from guest address GPA (a multiple of 64) on, RSDP first, in
 * SIZE bytes at OUT. How many are used, or -ENOSPC. */
long acpi_build(const struct acpi_board *board, u64 gpa, u8 *out, size_t size);

#endif
