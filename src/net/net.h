/*
 * The host side of a network card, as a VM process sees it: a SOCK_SEQPACKET
 * (or SOCK_DGRAM) socketpair on which each message is one frame, led by
 * struct net_header. At the other end is biga-net (user NAT), or a test.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include "base/types.h"

enum { NET_FRAME_MAX = 65536 + 64 };

/* Same layout and meaning as virtio_net_hdr (virtio 1.2, 5.1.6): a sender that
 * leaves checksum or segmentation to the other side says so here. */
struct net_header {
	u8 flags;
	u8 gso_type;
	u16 header_len;
	u16 gso_size;
	u16 csum_start;
	u16 csum_offset;
	u16 buffers;
} PACKED;

#endif
