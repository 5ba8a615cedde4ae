/*
 * Virtio network card (virtio 1.2, 5.1) over a message socket on which each
 * message is struct net_header and one frame (net/net.h).
 */
#ifndef DEVICE_VIRTIO_NET_H
#define DEVICE_VIRTIO_NET_H

#include "bus/device.h"
#include "bus/pci.h"

struct virtio_net;

struct virtio_net_config {
	int fd; /* SOCK_SEQPACKET or SOCK_DGRAM, non-blocking or not */
	u8 mac[6];
	u16 mtu;       /* told to the guest; 0: not told, 1500 is meant */
	bool offloads; /* the other end takes partial checksums and large (TSO) frames */
};

/* FD stays the caller's and outlives the device. HOST is copied. The bus frees it.
 * 0 or -errno. */
int virtio_net_create(struct pci_bus *bus, unsigned slot, const struct device_host *host,
		      const struct virtio_net_config *config, struct virtio_net **out);

/* Cable in or out. */
void virtio_net_set_link(struct virtio_net *net, bool up);

#endif
