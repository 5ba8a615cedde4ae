/*
 * Which frames a virtio network card lets through, and the commands of its
 * control queue (virtio 1.2, 5.1.6.5). For virtio_net.c alone.
 */
#ifndef DEVICE_VIRTIO_NET_CONTROL_H
#define DEVICE_VIRTIO_NET_CONTROL_H

#include "base/types.h"
#include "bus/virtio_pci.h"
#include "state/state.h"

enum { NET_FILTER_MACS = 64 };

struct net_filter {
	u8 mac[6];
	bool promiscuous, all_multicast, all_unicast;
	bool no_multicast, no_unicast, no_broadcast;
	unsigned count;
	u8 macs[NET_FILTER_MACS][6];
	/* More addresses than we keep were set: all of that kind pass. */
	bool unicast_overflow, multicast_overflow;
};

extern const struct state_field net_filter_fields[];

/* As after a reset: everything passes until the driver says otherwise. */
void net_filter_reset(struct net_filter *filter, const u8 mac[6]);
/* FRAME starts with its destination. */
bool net_filter_pass(const struct net_filter *filter, const u8 *frame);
/* Obeys one command; the bytes written to its chain. */
u32 net_filter_command(struct net_filter *filter, struct virtq *q, const struct virtq_chain *chain);

#endif
