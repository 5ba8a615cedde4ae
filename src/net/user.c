/*
 * User NAT by libslirp (see user.h). One poll loop: frames from the guest go
 * through frame.c's checks into the stack, what the stack has for the guest
 * waits in a frame_queue. While that queue is long, host sockets are not read,
 * so that TCP slows its peers down instead of losing segments here.
 *
 * This is the only file that includes libslirp's header.
 */
#define _GNU_SOURCE
#include "net/user.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libslirp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/frame.h"
#include "net/frame_queue.h"

enum {
	USER_BATCH = 16, /* frames read at once */
	USER_TIMERS = 8,
	USER_QUEUE_LONG = 512,
	USER_SOCKET_BUFFER = 4 << 20,
};

struct user_timer {
	bool used;
	SlirpTimerId id;
	void *opaque;
	i64 expire_ms; /* -1: not armed */
};

struct user_net {
	Slirp *slirp;
	int frames;
	bool closed; /* the guest's end is gone */
	bool told_guest_error;
	struct pollfd *polls; /* [0] is FRAMES */
	unsigned poll_count, poll_room;
	struct user_timer timers[USER_TIMERS];
	u8 *input; /* USER_BATCH buffers of NET_FRAME_MAX */
	struct frame_queue queue;
};

static i64
user_clock_ns(void *opaque)
{
	(void)opaque;
	return (i64)clock_now_ns();
}

static ssize_t
user_send_packet(const void *frame, size_t len, void *opaque)
{
	struct user_net *net = opaque;

	frame_queue_put(&net->queue, frame, len);
	return (ssize_t)len;
}

static void
user_guest_error(const char *text, void *opaque)
{
	struct user_net *net = opaque;

	log_once(net->told_guest_error, LOG_DEBUG, "network: the guest sent what cannot be: %s",
		 text);
}

static void *
user_timer_new(SlirpTimerId id, void *timer_opaque, void *opaque)
{
	struct user_net *net = opaque;

	for (unsigned i = 0; i < USER_TIMERS; i++) {
		struct user_timer *timer = &net->timers[i];

		if (timer->used)
			continue;
		*timer = (struct user_timer){true, id, timer_opaque, -1};
		return timer;
	}
	return NULL;
}

static void
user_timer_free(void *timer, void *opaque)
{
	(void)opaque;
	if (timer)
		((struct user_timer *)timer)->used = false;
}

static void
user_timer_mod(void *timer, i64 expire_ms, void *opaque)
{
	(void)opaque;
	if (timer)
		((struct user_timer *)timer)->expire_ms = expire_ms;
}

static void
user_timers_expire(struct user_net *net)
{
	i64 now = user_clock_ns(net) / 1000000;

	for (unsigned i = 0; i < USER_TIMERS; i++) {
		struct user_timer *timer = &net->timers[i];

		if (!timer->used || timer->expire_ms < 0 || timer->expire_ms > now)
			continue;
		timer->expire_ms = -1;
		slirp_handle_timer(net->slirp, timer->id, timer->opaque);
	}
}

/* Milliseconds until something is due, at most LIMIT. */
static u32
user_timers_next(struct user_net *net, u32 limit)
{
	i64 now = user_clock_ns(net) / 1000000;

	for (unsigned i = 0; i < USER_TIMERS; i++) {
		const struct user_timer *timer = &net->timers[i];
		i64 left = timer->expire_ms - now;

		if (!timer->used || timer->expire_ms < 0)
			continue;
		if (left < 0)
			left = 0;
		if ((u64)left < limit)
			limit = (u32)left;
	}
	return limit;
}

/* libslirp tells of its sockets by the poll list alone. */
static void
user_poll_fd_ignored(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

static void
user_notify(void *opaque)
{
	(void)opaque; /* the loop asks anew before each poll */
}

static int
user_add_poll(int fd, int events, void *opaque)
{
	struct user_net *net = opaque;
	short wanted = 0;

	if (net->poll_count == net->poll_room) {
		unsigned room = net->poll_room * 2;
		struct pollfd *polls = realloc(net->polls, room * sizeof(*polls));

		if (polls == NULL)
			return -1;
		net->polls = polls;
		net->poll_room = room;
	}
	if (events & SLIRP_POLL_IN)
		wanted |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		wanted |= POLLOUT;
	if (events & SLIRP_POLL_PRI)
		wanted |= POLLPRI;
	net->polls[net->poll_count] = (struct pollfd){.fd = fd, .events = wanted};
	return (int)net->poll_count++;
}

static int
user_get_revents(int index, void *opaque)
{
	struct user_net *net = opaque;
	short got;
	int events = 0;

	if (index < 0)
		return 0;
	got = net->polls[index].revents;
	if (got & POLLIN)
		events |= SLIRP_POLL_IN;
	if (got & POLLOUT)
		events |= SLIRP_POLL_OUT;
	if (got & POLLPRI)
		events |= SLIRP_POLL_PRI;
	if (got & POLLERR)
		events |= SLIRP_POLL_ERR;
	if (got & POLLHUP)
		events |= SLIRP_POLL_HUP;
	return events;
}

/* MESSAGE is struct net_header and a frame, as the guest's card sent them. */
static void
user_input(struct user_net *net, u8 *message, size_t len)
{
	u8 *frame = message + sizeof(struct net_header);
	struct net_header header;

	if (len < sizeof(header) + FRAME_ETHER)
		return;
	memcpy(&header, message, sizeof(header));
	len -= sizeof(header);
	if (!frame_destination_allowed(frame, len) || frame_finish(&header, frame, len) < 0)
		return;
	slirp_input(net->slirp, frame, (int)len);
}

/* One batch of frames from the guest. 0 or -errno when its end is gone. */
static int
user_receive(struct user_net *net)
{
	struct mmsghdr messages[USER_BATCH];
	struct iovec iov[USER_BATCH];
	int n;

	memset(messages, 0, sizeof(messages));
	for (unsigned i = 0; i < USER_BATCH; i++) {
		iov[i] = (struct iovec){net->input + (size_t)i * NET_FRAME_MAX, NET_FRAME_MAX};
		messages[i].msg_hdr.msg_iov = &iov[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	n = recvmmsg(net->frames, messages, USER_BATCH, MSG_DONTWAIT, NULL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		if (messages[i].msg_len == 0) {
			net->closed = true;
			return 0;
		}
		if (!(messages[i].msg_hdr.msg_flags & MSG_TRUNC))
			user_input(net, iov[i].iov_base, messages[i].msg_len);
	}
	return 0;
}

static int
user_no_revents(int index, void *opaque)
{
	(void)index;
	(void)opaque;
	return 0;
}

/* Waits for and serves whatever comes next. */
static int
user_turn(struct user_net *net)
{
	bool busy = net->queue.count > USER_QUEUE_LONG;
	u32 timeout = 60000;
	int n, rc;

	net->poll_count = 1;
	net->polls[0].events = (short)(POLLIN | (net->queue.count ? POLLOUT : 0));
	net->polls[0].revents = 0;
	if (!busy)
		slirp_pollfds_fill(net->slirp, &timeout, user_add_poll, net);
	timeout = user_timers_next(net, timeout);
	n = poll(net->polls, net->poll_count, (int)timeout);
	if (n < 0 && errno != EINTR)
		return -errno;
	/* Before any frame goes in: the stack's idea of the time, by which a frame's new
	 * socket expires, is that of this call. */
	slirp_pollfds_poll(net->slirp, n < 0, busy ? user_no_revents : user_get_revents, net);
	if (n > 0 && net->polls[0].revents & (POLLIN | POLLHUP | POLLERR)) {
		rc = user_receive(net);
		if (rc < 0)
			return rc;
		if (net->polls[0].revents == POLLHUP)
			net->closed = true;
		/* What waited for an address that just came goes out now. */
		slirp_pollfds_poll(net->slirp, 0, user_no_revents, net);
	}
	user_timers_expire(net);
	return frame_queue_flush(&net->queue, net->frames);
}

int
user_net_run(struct user_net *net)
{
	int rc;

	while (!net->closed) {
		rc = user_turn(net);
		if (rc == -EPIPE || rc == -ECONNRESET)
			return 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void
user_address_text(const union net_address *address, char *text, size_t size)
{
	char ip[INET6_ADDRSTRLEN];

	if (address->any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &address->v6.sin6_addr, ip, sizeof(ip));
		snprintf(text, size, "[%s]:%u", ip, net_address_port(address));
	} else {
		inet_ntop(AF_INET, &address->v4.sin_addr, ip, sizeof(ip));
		snprintf(text, size, "%s:%u", ip, net_address_port(address));
	}
}

static const char *
user_forward_fix(int error)
{
	switch (error) {
	case EADDRINUSE:
		return "choose another port, or end the program that listens there";
	case EACCES:
		return "choose a port above 1023";
	case EADDRNOTAVAIL:
		return "use an address that this host has";
	}
	return "check the address and the port";
}

static int
user_add_forward(struct user_net *net, const struct net_forward *f, char *why, size_t why_size)
{
	int flags = (f->udp ? SLIRP_HOSTFWD_UDP : 0) |
		    (f->host.any.sa_family == AF_INET6 ? SLIRP_HOSTFWD_V6ONLY : 0);
	char host[80];
	int error;

	errno = 0;
	if (slirp_add_hostxfwd(net->slirp, &f->host.any, net_address_length(&f->host),
			       &f->guest.any, net_address_length(&f->guest), flags) >= 0)
		return 0;
	error = errno ? errno : EINVAL;
	user_address_text(&f->host, host, sizeof(host));
	snprintf(why, why_size, "cannot listen on %s port %s: %s; %s", f->udp ? "UDP" : "TCP", host,
		 strerror(error), user_forward_fix(error));
	return -error;
}

static int
user_start_slirp(struct user_net *net, const struct user_net_config *config)
{
	static const SlirpCb callbacks = {
		.send_packet = user_send_packet,
		.guest_error = user_guest_error,
		.clock_get_ns = user_clock_ns,
		.timer_new_opaque = user_timer_new,
		.timer_free = user_timer_free,
		.timer_mod = user_timer_mod,
		.register_poll_fd = user_poll_fd_ignored,
		.unregister_poll_fd = user_poll_fd_ignored,
		.notify = user_notify,
	};
	SlirpConfig slirp = {
		.version = 4,
		.in_enabled = true,
		.in6_enabled = config->ipv6,
		.vhostname = config->hostname,
		.vprefix_len = 64,
		.disable_host_loopback = !config->host_loopback,
	};

	inet_pton(AF_INET, "10.0.2.0", &slirp.vnetwork);
	inet_pton(AF_INET, "255.255.255.0", &slirp.vnetmask);
	inet_pton(AF_INET, "10.0.2.2", &slirp.vhost);
	inet_pton(AF_INET, "10.0.2.3", &slirp.vnameserver);
	inet_pton(AF_INET, "10.0.2.15", &slirp.vdhcp_start);
	inet_pton(AF_INET6, "fec0::", &slirp.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &slirp.vhost6);
	inet_pton(AF_INET6, "fec0::3", &slirp.vnameserver6);
	net->slirp = slirp_new(&slirp, &callbacks, net);
	return net->slirp ? 0 : -EIO;
}

static int
user_prepare(struct user_net *net)
{
	const int buffer = USER_SOCKET_BUFFER;
	int flags = fcntl(net->frames, F_GETFL);

	if (flags < 0 || fcntl(net->frames, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	/* The kernel cuts it to what the host allows; any size works. */
	setsockopt(net->frames, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	net->poll_room = 64;
	net->polls = calloc(net->poll_room, sizeof(*net->polls));
	net->input = malloc((size_t)USER_BATCH * NET_FRAME_MAX);
	if (net->polls == NULL || net->input == NULL)
		return -ENOMEM;
	net->polls[0].fd = net->frames;
	return 0;
}

int
user_net_create(struct user_net **out, int frames, const struct user_net_config *config, char *why,
		size_t why_size)
{
	struct user_net *net = calloc(1, sizeof(*net));
	int rc;

	snprintf(why, why_size, "the network cannot start: out of memory");
	if (net == NULL)
		return -ENOMEM;
	net->frames = frames;
	rc = user_prepare(net);
	if (rc == 0)
		rc = user_start_slirp(net, config);
	if (rc < 0)
		snprintf(why, why_size, "the network cannot start: %s", strerror(-rc));
	for (unsigned i = 0; rc == 0 && i < config->forward_count; i++)
		rc = user_add_forward(net, &config->forwards[i], why, why_size);
	if (rc < 0) {
		user_net_destroy(net);
		return rc;
	}
	*out = net;
	return 0;
}

void
user_net_destroy(struct user_net *net)
{
	if (net == NULL)
		return;
	if (net->slirp)
		slirp_cleanup(net->slirp);
	frame_queue_clear(&net->queue);
	free(net->input);
	free(net->polls);
	free(net);
}
