/*
 * Virtio network card (virtio 1.2, 5.1) over a message socket.  Queue 0
 * receives, 1 transmits, 2 takes commands (virtio_net_control.c).
 *
 * A frame from the socket is kept in "frame" until the guest has buffers for
 * all of it; while it has none, the socket is not read, so that its buffer, and
 * then the sender, hold back or drop. Towards the socket a chain that is not
 * taken stays in the ring until the socket is writable.
 */
#include "device/virtio_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/log.h"
#include "device/virtio_net_control.h"
#include "net/net.h"
#include "state/state.h"

enum {
	NET_ID = 1,
	NET_CLASS = 0x020000,
	NET_QUEUE = 256,
	NET_RX_BUDGET = 64, /* frames a round, so that others get the lock */
	NET_HEADER = sizeof(struct net_header),
	NET_ETHER = 14,
	NET_BUFFERS_AT = 10, /* offset of num_buffers in the header */
	NET_FLAG_NEEDS_CSUM = 1,
	NET_FLAG_DATA_VALID = 2,
	CONFIG_MAC = 0,
	CONFIG_STATUS = 6,
	CONFIG_MTU = 10,
	CONFIG_SIZE = 12,
	STATUS_LINK_UP = 1,
};

#define NET_F_CSUM BIT64(0)
#define NET_F_GUEST_CSUM BIT64(1)
#define NET_F_MTU BIT64(3)
#define NET_F_MAC BIT64(5)
#define NET_F_GUEST_TSO4 BIT64(7)
#define NET_F_GUEST_TSO6 BIT64(8)
#define NET_F_GUEST_ECN BIT64(9)
#define NET_F_HOST_TSO4 BIT64(11)
#define NET_F_HOST_TSO6 BIT64(12)
#define NET_F_HOST_ECN BIT64(13)
#define NET_F_HOST_UFO BIT64(14)
#define NET_F_MRG_RXBUF BIT64(15)
#define NET_F_STATUS BIT64(16)
#define NET_F_CTRL_VQ BIT64(17)
#define NET_F_CTRL_RX BIT64(18)
#define NET_F_CTRL_RX_EXTRA BIT64(20)
#define NET_F_CTRL_MAC_ADDR BIT64(23)

#define NET_F_ALWAYS                                                                               \
	(NET_F_MAC | NET_F_MRG_RXBUF | NET_F_STATUS | NET_F_CTRL_VQ | NET_F_CTRL_RX |              \
	 NET_F_CTRL_RX_EXTRA | NET_F_CTRL_MAC_ADDR)
#define NET_F_OFFLOADS                                                                             \
	(NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_ECN |   \
	 NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_ECN | NET_F_HOST_UFO)

enum { NET_RX = 0, NET_TX = 1, NET_CONTROL = 2, NET_QUEUES = 3 };

struct virtio_net {
	struct virtio_device v;
	int fd;
	u8 mac[6]; /* as created; the guest may set another until reset */
	struct loop_fd *watch;
	struct loop_timer *timer; /* brings net_apply to the loop's thread */
	int events;		  /* watched for */
	struct net_filter filter;
	bool link;	  /* as the guest sees it */
	bool gone;	  /* the other end of the socket is closed */
	bool rx_starved;  /* frame waits for buffers */
	bool tx_blocked;  /* the socket is full */
	size_t frame_len; /* of frame, its header too; 0: none */
	u8 frame[NET_FRAME_MAX];
};

static struct virtio_net *
net_of(struct virtio_device *v)
{
	return CONTAINER_OF(v, struct virtio_net, v);
}

static int
net_events(const struct virtio_net *net)
{
	int events = 0;

	if (virtio_running(&net->v) && !net->gone) {
		if (!net->rx_starved)
			events |= LOOP_READ;
		if (net->tx_blocked)
			events |= LOOP_WRITE;
	}
	return events;
}

/* On the loop's thread: watches the socket for what is wanted now. */
static void
net_apply(void *opaque)
{
	struct virtio_net *net = opaque;

	net->events = net_events(net);
	loop_set_events(net->watch, net->events);
}

/* On any thread: the loop's thread will. */
static void
net_watch(struct virtio_net *net)
{
	if (net_events(net) != net->events)
		loop_timer_arm(net->timer, loop_now());
}

void
virtio_net_set_link(struct virtio_net *net, bool up)
{
	if (net->gone)
		up = false;
	if (up == net->link)
		return;
	net->link = up;
	put_le16(net->v.config + CONFIG_STATUS, up ? STATUS_LINK_UP : 0);
	virtio_config_changed(&net->v);
}

static void
net_lost(struct virtio_net *net)
{
	if (net->gone)
		return;
	log_warning("network card %02x.0: its network is gone", net->v.pci.slot);
	net->gone = true;
	virtio_net_set_link(net, false);
	net_watch(net);
}

/* ---- to the guest ---- */

/* For a guest that cannot take partial checksums. */
static int
net_finish_checksum(struct net_header *header, u8 *frame, size_t len)
{
	size_t start = header->csum_start, field = start + header->csum_offset;
	u64 sum = 0;

	if (start >= len || field + 2 > len)
		return -EINVAL;
	for (size_t i = start; i + 1 < len; i += 2)
		sum += get_le16(frame + i);
	if ((len - start) & 1)
		sum += frame[len - 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put_le16(frame + field, (u16)~sum ? (u16)~sum : 0xffff);
	header->flags = (u8)(header->flags & ~NET_FLAG_NEEDS_CSUM);
	header->csum_start = header->csum_offset = 0;
	return 0;
}

static u64
net_gso_feature(u8 gso_type)
{
	switch (gso_type) {
	case 1:
		return NET_F_GUEST_TSO4;
	case 4:
		return NET_F_GUEST_TSO6;
	case 0x81:
		return NET_F_GUEST_TSO4 | NET_F_GUEST_ECN;
	case 0x84:
		return NET_F_GUEST_TSO6 | NET_F_GUEST_ECN;
	}
	return UINT64_MAX; /* not offered: the frame is dropped */
}

/* Makes the waiting frame one that this guest understands: true if it may have it. */
static bool
net_accept(struct virtio_net *net)
{
	struct net_header header;
	u8 *frame = net->frame + NET_HEADER;
	size_t len = net->frame_len - NET_HEADER;
	u64 gso;

	if (!net->link || !net_filter_pass(&net->filter, frame))
		return false;
	memcpy(&header, net->frame, sizeof(header));
	header.flags &= NET_FLAG_NEEDS_CSUM | NET_FLAG_DATA_VALID;
	header.buffers = 1;
	gso = header.gso_type ? net_gso_feature(header.gso_type) : 0;
	if ((net->v.driver_features & gso) != gso)
		return false;
	if (!virtio_has(&net->v, NET_F_GUEST_CSUM)) {
		header.flags &= NET_FLAG_NEEDS_CSUM;
		if (header.flags && net_finish_checksum(&header, frame, len))
			return false;
	}
	memcpy(net->frame, &header, sizeof(header));
	return true;
}

/* Host address of byte OFFSET of the IN buffers, and its gpa. */
static u8 *
net_byte(const struct virtq_chain *chain, u64 offset, u64 *gpa)
{
	for (unsigned i = 0; i < chain->in_count; i++) {
		if (offset < chain->in[i].len) {
			*gpa = chain->in[i].gpa + offset;
			return (u8 *)chain->in[i].host + offset;
		}
		offset -= chain->in[i].len;
	}
	return NULL;
}

struct net_delivery {
	unsigned count;
	u16 head[NET_QUEUE];
	u32 len[NET_QUEUE];
	u8 *buffers[2]; /* bytes of num_buffers in the first chain */
	u64 buffers_gpa[2];
};

/* Spreads the frame over as many chains as it takes: 1, 0 if the guest has too
 * few for now (D->count, given back), -EMSGSIZE if it can never have enough,
 * -EINVAL if the queue is no good. */
static int
net_spread(struct virtio_net *net, struct net_delivery *d)
{
	struct virtq *q = virtio_queue(&net->v, NET_RX);
	bool merge = virtio_has(&net->v, NET_F_MRG_RXBUF);
	struct virtq_chain chain;
	size_t done = 0;
	int popped;

	d->count = 0;
	while (done < net->frame_len) {
		popped = d->count < q->size ? virtq_pop(q, &chain) : -EMSGSIZE;
		if (popped == -EINVAL)
			return popped;
		if (popped > 0 && !merge && chain.in_len < net->frame_len) {
			virtq_unpop(q, 1);
			popped = -EMSGSIZE;
		}
		if (popped <= 0) {
			virtq_unpop(q, d->count);
			return popped;
		}
		if (d->count == 0)
			for (unsigned i = 0; i < 2; i++)
				d->buffers[i] =
					net_byte(&chain, NET_BUFFERS_AT + i, &d->buffers_gpa[i]);
		d->head[d->count] = chain.head;
		d->len[d->count] =
			(u32)virtq_copy_in(q, &chain, 0, net->frame + done, net->frame_len - done);
		done += d->len[d->count++];
	}
	return d->buffers[1] ? 1 : -EINVAL;
}

static void
net_complete(struct virtio_net *net, const struct net_delivery *d)
{
	struct virtq *q = virtio_queue(&net->v, NET_RX);

	if (d->count > 1) {
		for (unsigned i = 0; i < 2; i++) {
			*d->buffers[i] = (u8)(d->count >> (8 * i));
			memory_written(net->v.host.memory, d->buffers_gpa[i], 1);
		}
	}
	for (unsigned i = 0; i < d->count; i++)
		virtq_fill(q, d->head[i], d->len[i]);
}

/* Gives the waiting frame to the guest: false if it has to wait on. */
static bool
net_deliver(struct virtio_net *net)
{
	struct virtq *q = virtio_queue(&net->v, NET_RX);
	struct net_delivery d;
	int got;

	do {
		got = net_spread(net, &d);
	} while (got == 0 && virtq_enable_notify_after(q, d.count));
	if (got == 0) {
		net->rx_starved = true;
		return false;
	}
	if (got > 0)
		net_complete(net, &d);
	else if (got != -EMSGSIZE)
		virtio_broken(&net->v, "bad descriptors in the receive queue");
	net->frame_len = 0;
	return got > 0 || got == -EMSGSIZE;
}

/* The next frame from the socket: false if there is none now. */
static bool
net_fetch(struct virtio_net *net)
{
	ssize_t n = recv(net->fd, net->frame, sizeof(net->frame), MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		net_lost(net);
		return false;
	}
	if (n < 0)
		return false;
	net->frame_len = (size_t)n;
	if (n < NET_HEADER + NET_ETHER || !net_accept(net))
		net->frame_len = 0; /* no frame, or not for us */
	return true;
}

static void
net_receive(struct virtio_net *net)
{
	for (unsigned budget = NET_RX_BUDGET; budget > 0 && virtio_running(&net->v); budget--) {
		if (!net->frame_len && !net_fetch(net))
			break;
		if (net->frame_len && !net_deliver(net))
			break;
	}
	virtio_publish(&net->v, NET_RX);
}

/* ---- from the guest ---- */

/* HEADER as the driver may have set it: false if it asks for what was not agreed on. */
static bool
net_header_valid(const struct virtio_net *net, const struct net_header *header)
{
	u64 f = net->v.driver_features;

	if ((header->flags & NET_FLAG_NEEDS_CSUM) && !(f & NET_F_CSUM))
		return false;
	switch (header->gso_type & ~0x80) {
	case 0:
		return true;
	case 1:
		return (f & NET_F_HOST_TSO4) != 0;
	case 3:
		return (f & NET_F_HOST_UFO) != 0;
	case 4:
		return (f & NET_F_HOST_TSO6) != 0;
	}
	return false;
}

/* Sends a chain: true if it is done with, false if the socket is full. */
static bool
net_send(struct virtio_net *net, const struct virtq_chain *chain)
{
	struct net_header header;
	struct iovec iov[NET_QUEUE + 1];
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = 1};
	u64 skip = NET_HEADER;

	if (chain->out_len < NET_HEADER + NET_ETHER || chain->out_len > NET_FRAME_MAX || !net->link)
		return true;
	virtq_copy_out(chain, 0, &header, sizeof(header));
	if (!net_header_valid(net, &header))
		return true;
	header.buffers = 0;
	iov[0] = (struct iovec){.iov_base = &header, .iov_len = sizeof(header)};
	for (unsigned i = 0; i < chain->out_count; i++) {
		const struct virtq_buffer *b = &chain->out[i];

		if (skip >= b->len) {
			skip -= b->len;
			continue;
		}
		iov[message.msg_iovlen++] = (struct iovec){
			.iov_base = (u8 *)b->host + skip,
			.iov_len = b->len - skip,
		};
		skip = 0;
	}
	if (sendmsg(net->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return true;
	if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR)
		return false;
	if (errno != EMSGSIZE)
		net_lost(net);
	return true;
}

static bool
net_transmit_one(struct virtio_net *net)
{
	struct virtq *q = virtio_queue(&net->v, NET_TX);
	struct virtq_chain chain;
	int popped = virtq_pop(q, &chain);

	if (popped < 0)
		virtio_broken(&net->v, "bad descriptors in the transmit queue");
	if (popped <= 0)
		return false;
	if (!net_send(net, &chain)) {
		virtq_unpop(q, 1);
		net->tx_blocked = true;
		return false;
	}
	virtq_fill(q, chain.head, 0);
	return true;
}

static void
net_transmit(struct virtio_net *net)
{
	struct virtq *q = virtio_queue(&net->v, NET_TX);

	virtq_disable_notify(q);
	do {
		while (net_transmit_one(net))
			continue;
	} while (!net->tx_blocked && virtq_enable_notify(q));
	virtio_publish(&net->v, NET_TX);
}

static void
net_socket_ready(void *opaque, int events)
{
	struct virtio_net *net = opaque;

	if ((events & LOOP_WRITE) && net->tx_blocked) {
		net->tx_blocked = false;
		net_transmit(net);
	}
	if ((events & LOOP_READ) && !net->rx_starved)
		net_receive(net);
	net_apply(net);
}

/* ---- the device ---- */

static void
net_command(struct virtio_net *net)
{
	struct virtq *q = virtio_queue(&net->v, NET_CONTROL);
	struct virtq_chain chain;
	int popped = 0;

	do {
		while ((popped = virtq_pop(q, &chain)) > 0)
			virtq_fill(q, chain.head, net_filter_command(&net->filter, q, &chain));
	} while (popped == 0 && virtq_enable_notify(q));
	if (popped < 0)
		virtio_broken(&net->v, "bad descriptors in the control queue");
	memcpy(net->v.config + CONFIG_MAC, net->filter.mac, sizeof(net->filter.mac));
	virtio_publish(&net->v, NET_CONTROL);
}

static void
net_notify(struct virtio_device *v, unsigned queue)
{
	struct virtio_net *net = net_of(v);

	if (queue == NET_TX && !net->tx_blocked)
		net_transmit(net);
	else if (queue == NET_CONTROL)
		net_command(net);
	else if (queue == NET_RX && net->rx_starved) {
		net->rx_starved = false;
		net_receive(net);
	}
	net_watch(net);
}

static void
net_start(struct virtio_device *v)
{
	net_watch(net_of(v));
}

static void
net_forget(struct virtio_net *net)
{
	net->frame_len = 0;
	net->rx_starved = net->tx_blocked = false;
	net_filter_reset(&net->filter, net->mac);
	memcpy(net->v.config + CONFIG_MAC, net->mac, sizeof(net->mac));
}

static void
net_reset(struct virtio_device *v)
{
	struct virtio_net *net = net_of(v);

	net_forget(net);
	net_watch(net);
}

static void
net_destroy(struct virtio_device *v)
{
	struct virtio_net *net = net_of(v);

	loop_timer_destroy(net->timer);
	loop_remove_fd(net->watch);
	free(net);
}

/* A frame that waits for buffers is lost: networks may lose frames. */
static const struct state_field net_fields[] = {
	STATE_STRUCT(struct virtio_net, filter, net_filter_fields),
	STATE_FLAG(struct virtio_net, link),
	STATE_END,
};

static void
net_state_loaded(void *object)
{
	struct virtio_net *net = object;

	net->link = net->link && !net->gone;
	memcpy(net->v.config + CONFIG_MAC, net->filter.mac, sizeof(net->filter.mac));
	put_le16(net->v.config + CONFIG_STATUS, net->link ? STATUS_LINK_UP : 0);
	net->frame_len = 0;
	net->rx_starved = net->tx_blocked = false;
	net_watch(net);
}

static const struct state_type net_state_type = {"virtio-net", 1, net_fields, NULL,
						 net_state_loaded};

static void
net_state(struct virtio_device *v, struct state_list *list)
{
	struct virtio_net *net = net_of(v);

	state_list_add(list, &net_state_type, pci_instance(&v->pci), net,
		       offsetof(struct virtio_net, frame));
}

static const struct virtio_ops net_ops = {
	.state = net_state,
	.notify = net_notify,
	.start = net_start,
	.reset = net_reset,
	.destroy = net_destroy,
};

int
virtio_net_create(struct pci_bus *bus, unsigned slot, const struct device_host *host,
		  const struct virtio_net_config *config, struct virtio_net **out)
{
	struct virtio_info info = {
		.id = NET_ID,
		.class_code = NET_CLASS,
		.features = NET_F_ALWAYS,
		.queue_count = NET_QUEUES,
		.queue_size = NET_QUEUE,
		.config_size = CONFIG_SIZE,
	};
	struct virtio_net *net = calloc(1, sizeof(*net));
	int error;

	if (!net)
		return -ENOMEM;
	if (config->offloads)
		info.features |= NET_F_OFFLOADS;
	if (config->mtu)
		info.features |= NET_F_MTU;
	net->fd = config->fd;
	memcpy(net->mac, config->mac, sizeof(net->mac));
	error = virtio_pci_init(&net->v, &net_ops, &info, host);
	if (error)
		goto no_device;
	net->link = true;
	net_forget(net);
	put_le16(net->v.config + CONFIG_STATUS, STATUS_LINK_UP);
	put_le16(net->v.config + CONFIG_MTU, config->mtu);
	error = loop_timer_create(host->loop, net_apply, net, &net->timer);
	if (error)
		goto no_timer;
	error = loop_add_fd(host->loop, net->fd, 0, net_socket_ready, net, &net->watch);
	if (error)
		goto no_watch;
	error = virtio_pci_add(&net->v, bus, slot);
	if (error)
		goto no_slot;
	if (out)
		*out = net;
	return 0;
no_slot:
	loop_remove_fd(net->watch);
no_watch:
	loop_timer_destroy(net->timer);
no_timer:
	virtio_pci_release(&net->v);
no_device:
	free(net);
	return error;
}
