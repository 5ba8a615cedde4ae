/*
 * The host bridge of a Q35 chipset (MCH), PCI function 00:00.0: says where the
 * configuration space is mapped (PCIEXBAR). Everything under the machine's lock.
 */
#ifndef DEVICE_Q35_H
#define DEVICE_Q35_H

#include "bus/device.h"
#include "bus/pci.h"

struct q35;

#define Q35_ECAM_GPA 0xb0000000ull /* where the board puts it when there is no firmware */

/* The bus frees it. 0 or -errno. */
int q35_create(struct pci_bus *bus, const struct device_host *host, struct q35 **out);
/* What firmware does where there is none: switches ECAM on. */
void q35_set_up(struct q35 *q35);

#endif
