/*
 * Virtio entropy device (virtio 1.2, 5.4), fed by getrandom(2).
 */
#ifndef DEVICE_VIRTIO_RNG_H
#define DEVICE_VIRTIO_RNG_H

#include "bus/device.h"
#include "bus/pci.h"

/* HOST is copied. The bus frees the device. 0 or -errno. */
int virtio_rng_create(struct pci_bus *bus, unsigned slot, const struct device_host *host);

#endif
