/*
 * The receive filter of a virtio network card.
 *
 *	chain:	{ class command data... } { ack }
 */
#include "device/virtio_net_control.h"

#include <string.h>

#include "base/bytes.h"

enum { ACK_OK = 0, ACK_ERROR = 1 };

enum { CLASS_RX = 0, CLASS_MAC = 1 };

enum {
	RX_PROMISC = 0,
	RX_ALLMULTI = 1,
	RX_ALLUNI = 2,
	RX_NOMULTI = 3,
	RX_NOUNI = 4,
	RX_NOBCAST = 5,
	MAC_TABLE_SET = 0,
	MAC_ADDR_SET = 1,
};

void
net_filter_reset(struct net_filter *filter, const u8 mac[6])
{
	memset(filter, 0, sizeof(*filter));
	memcpy(filter->mac, mac, sizeof(filter->mac));
	filter->promiscuous = true;
}

static bool
net_filter_listed(const struct net_filter *filter, const u8 *mac)
{
	for (unsigned i = 0; i < filter->count; i++)
		if (memcmp(filter->macs[i], mac, 6) == 0)
			return true;
	return false;
}

bool
net_filter_pass(const struct net_filter *filter, const u8 *frame)
{
	static const u8 broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (filter->promiscuous)
		return true;
	if (memcmp(frame, broadcast, 6) == 0)
		return !filter->no_broadcast;
	if (frame[0] & 1)
		return !filter->no_multicast &&
		       (filter->all_multicast || filter->multicast_overflow ||
			net_filter_listed(filter, frame));
	return !filter->no_unicast &&
	       (filter->all_unicast || filter->unicast_overflow ||
		memcmp(frame, filter->mac, 6) == 0 || net_filter_listed(filter, frame));
}

static u8
net_filter_mode(struct net_filter *filter, u8 command, const struct virtq_chain *chain)
{
	bool *const modes[] = {
		[RX_PROMISC] = &filter->promiscuous, [RX_ALLMULTI] = &filter->all_multicast,
		[RX_ALLUNI] = &filter->all_unicast,  [RX_NOMULTI] = &filter->no_multicast,
		[RX_NOUNI] = &filter->no_unicast,    [RX_NOBCAST] = &filter->no_broadcast,
	};
	u8 on;

	if (command >= ARRAY_LEN(modes) || virtq_copy_out(chain, 2, &on, 1) != 1)
		return ACK_ERROR;
	*modes[command] = on != 0;
	return ACK_OK;
}

/* One of the two tables at *OFFSET: { u32 entries, mac[] }. */
static int
net_filter_table(struct net_filter *filter, const struct virtq_chain *chain, u64 *offset,
		 bool *overflow)
{
	u8 count[4];
	u64 n;

	if (virtq_copy_out(chain, *offset, count, 4) != 4)
		return -1;
	*offset += 4;
	n = get_le32(count);
	if (n > (chain->out_len - *offset) / 6)
		return -1;
	*overflow = n > NET_FILTER_MACS - filter->count;
	if (!*overflow && n) {
		virtq_copy_out(chain, *offset, filter->macs[filter->count], n * 6);
		filter->count += (unsigned)n;
	}
	*offset += n * 6;
	return 0;
}

static u8
net_filter_mac(struct net_filter *filter, u8 command, const struct virtq_chain *chain)
{
	struct net_filter fresh = *filter;
	u64 offset = 2;

	switch (command) {
	case MAC_ADDR_SET:
		if (virtq_copy_out(chain, offset, fresh.mac, 6) != 6)
			return ACK_ERROR;
		break;
	case MAC_TABLE_SET:
		fresh.count = 0;
		if (net_filter_table(&fresh, chain, &offset, &fresh.unicast_overflow) ||
		    net_filter_table(&fresh, chain, &offset, &fresh.multicast_overflow))
			return ACK_ERROR;
		break;
	default:
		return ACK_ERROR;
	}
	*filter = fresh;
	return ACK_OK;
}

u32
net_filter_command(struct net_filter *filter, struct virtq *q, const struct virtq_chain *chain)
{
	u8 header[2], ack = ACK_ERROR;

	if (virtq_copy_out(chain, 0, header, 2) == 2) {
		if (header[0] == CLASS_RX)
			ack = net_filter_mode(filter, header[1], chain);
		else if (header[0] == CLASS_MAC)
			ack = net_filter_mac(filter, header[1], chain);
	}
	return (u32)virtq_copy_in(q, chain, 0, &ack, 1);
}

/* ---- saved state ---- */

struct net_address {
	u8 bytes[6];
};

static const struct state_field net_address_fields[] = {
	STATE_BYTES(struct net_address, bytes),
	STATE_END,
};

const struct state_field net_filter_fields[] = {
	STATE_BYTES(struct net_filter, mac),
	STATE_FLAG(struct net_filter, promiscuous),
	STATE_FLAG(struct net_filter, all_multicast),
	STATE_FLAG(struct net_filter, all_unicast),
	STATE_FLAG(struct net_filter, no_multicast),
	STATE_FLAG(struct net_filter, no_unicast),
	STATE_FLAG(struct net_filter, no_broadcast),
	STATE_MAX(struct net_filter, count, NET_FILTER_MACS),
	STATE_STRUCTS(struct net_filter, macs, net_address_fields),
	STATE_FLAG(struct net_filter, unicast_overflow),
	STATE_FLAG(struct net_filter, multicast_overflow),
	STATE_END,
};
