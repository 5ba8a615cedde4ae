/*
 * Checksums and destinations of guests' frames (see frame.h).
 */
#include "net/frame.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"

static u16
frame_be16(const u8 *p)
{
	return (u16)(p[0] << 8 | p[1]);
}

/* Folds to 16 bits. The sum is byte-order independent as long as it is stored
 * the way it was read (RFC 1071, 2). */
static u32
frame_fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (u32)sum;
}

u32
frame_sum(const u8 *data, size_t len, u32 start)
{
	u64 a = start, b = 0;

	for (; len >= 8; len -= 8, data += 8) {
		a += get_le32(data);
		b += get_le32(data + 4);
	}
	for (; len >= 2; len -= 2, data += 2)
		a += get_le16(data);
	if (len)
		a += *data;
	return frame_fold(a + b);
}

int
frame_finish(const struct net_header *header, u8 *frame, size_t len)
{
	size_t start = header->csum_start;
	size_t field = start + header->csum_offset;
	u16 sum;

	switch (header->gso_type & ~NET_GSO_ECN) {
	case NET_GSO_NONE:
	case NET_GSO_TCPV4: /* one large segment: the stack takes it as it is */
	case NET_GSO_TCPV6:
	case NET_GSO_UDP:
		break;
	default:
		return -EINVAL;
	}
	if (!(header->flags & NET_NEEDS_CSUM))
		return 0;
	if (start < FRAME_ETHER || field < start || field + 2 > len)
		return -EINVAL;
	/* The field holds the pseudo header's sum already, so it takes part. */
	sum = (u16)~frame_sum(frame + start, len - start, 0);
	put_le16(frame + field, sum ? sum : 0xffff);
	return 0;
}

static bool
frame_v4_allowed(const u8 *ip)
{
	return ip[0] != 127 && ip[0] != 0;
}

static bool
frame_v6_allowed(const u8 *ip)
{
	static const u8 zeros[16];

	if (memcmp(ip, zeros, 15) == 0 && ip[15] <= 1)
		return false;
	/* ::ffff:a.b.c.d and the older ::a.b.c.d */
	if (memcmp(ip, zeros, 10) == 0 &&
	    (frame_be16(ip + 10) == 0xffff || frame_be16(ip + 10) == 0))
		return frame_v4_allowed(ip + 12);
	return true;
}

bool
frame_destination_allowed(const u8 *frame, size_t len)
{
	if (len < FRAME_ETHER)
		return false;
	switch (frame_be16(frame + 12)) {
	case 0x0800:
		return len >= FRAME_ETHER + 20 && frame_v4_allowed(frame + FRAME_ETHER + 16);
	case 0x86dd:
		return len >= FRAME_ETHER + 40 && frame_v6_allowed(frame + FRAME_ETHER + 24);
	}
	return true;
}
