/*
 * Virtio block device (virtio 1.2, 5.2) over a host-side struct block.
 */
#ifndef DEVICE_VIRTIO_BLK_H
#define DEVICE_VIRTIO_BLK_H

#include "block/block.h"
#include "bus/device.h"
#include "bus/pci.h"

struct virtio_blk;

/* BLOCK is taken over on success and closed with the device. SERIAL (at most
 * 20 bytes are used) is what get-id answers. HOST is copied. The bus frees the
 * device. 0 or -errno. */
int virtio_blk_create(struct pci_bus *bus, unsigned slot, const struct device_host *host,
		      struct block *block, const char *serial, struct virtio_blk **out);

/* The disk changed its size on the host: tells the guest. */
void virtio_blk_resized(struct virtio_blk *blk);

/* Nothing is in flight and all that was written is durable when this returns 0; -ETIMEDOUT if
 * the host does not end requests before DEADLINE_NS (monotonic), or another -errno. The vCPUs
 * stand meanwhile. */
int virtio_blk_settle(struct virtio_blk *blk, u64 deadline_ns);

#endif
