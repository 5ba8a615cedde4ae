/*
 * What user NAT must do to a guest's Ethernet frame before a TCP/IP stack may
 * see it: finish a checksum that the guest left to its card, and refuse
 * destinations that mean this very host. Frames are hostile bytes.
 */
#ifndef NET_FRAME_H
#define NET_FRAME_H

#include "net/net.h"

enum { FRAME_ETHER = 14 };

/* Bits and values of struct net_header (virtio 1.2, 5.1.6). */
enum {
	NET_NEEDS_CSUM = 1,
	NET_DATA_VALID = 2,
	NET_GSO_NONE = 0,
	NET_GSO_TCPV4 = 1,
	NET_GSO_UDP = 3,
	NET_GSO_TCPV6 = 4,
	NET_GSO_ECN = 0x80,
};

/* Completes the checksum that HEADER asks for in FRAME (Ethernet header first).
 * 0, or -EINVAL if it points outside or asks for what cannot be done. */
int frame_finish(const struct net_header *header, u8 *frame, size_t len);

/* False for IPv4 and IPv6 destinations that a host's socket takes for the host
 * itself (127.0.0.0/8, 0.0.0.0/8, ::, ::1 and IPv4 ones in IPv6 clothes). */
bool frame_destination_allowed(const u8 *frame, size_t len);

/* The Internet checksum (RFC 1071) of LEN bytes, not yet complemented, added to SUM. */
u32 frame_sum(const u8 *data, size_t len, u32 sum);

#endif
