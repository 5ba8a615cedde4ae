/*
 * Control connections (see channel.h and protocol.h).
 */
#include "vm/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fdpass.h"
#include "vm/protocol.h"

enum { CHANNEL_FDS = 64, CHANNEL_OUTPUT_MAX = 1 << 20, CHANNEL_SEND_MS = 5000 };

struct channel {
	int fd;
	bool closed; /* the peer's end; buffered lines may remain */
	size_t in_len;
	size_t scanned; /* bytes of IN known to hold no newline */
	char *out;
	size_t out_len, out_sent;
	int fds[CHANNEL_FDS];
	size_t fd_count;
	char in[PROTOCOL_LINE_MAX];
};

int
channel_create(struct channel **out, int fd)
{
	struct channel *channel = malloc(sizeof(*channel));
	int flags = fcntl(fd, F_GETFL);
	int rc = 0;

	if (channel == NULL)
		rc = -ENOMEM;
	else if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		rc = -errno;
	if (rc < 0) {
		free(channel);
		close(fd);
		return rc;
	}
	memset(channel, 0, offsetof(struct channel, in));
	channel->fd = fd;
	*out = channel;
	return 0;
}

void
channel_destroy(struct channel *channel)
{
	if (channel == NULL)
		return;
	for (size_t i = 0; i < channel->fd_count; i++)
		close(channel->fds[i]);
	close(channel->fd);
	free(channel->out);
	free(channel);
}

int
channel_fd(const struct channel *channel)
{
	return channel->fd;
}

bool
channel_pending(const struct channel *channel)
{
	return channel->out_sent < channel->out_len;
}

static int
channel_poll(const struct channel *channel, short events, int timeout_ms)
{
	struct pollfd p = {.fd = channel->fd, .events = events};
	int n;

	do {
		n = poll(&p, 1, timeout_ms);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == 0 ? -ETIMEDOUT : 0;
}

int
channel_flush(struct channel *channel)
{
	ssize_t n;

	while (channel_pending(channel)) {
		n = send(channel->fd, channel->out + channel->out_sent,
			 channel->out_len - channel->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		channel->out_sent += (size_t)n;
	}
	channel->out_len = channel->out_sent = 0;
	return 0;
}

static int
channel_flush_all(struct channel *channel)
{
	int rc = channel_flush(channel);

	while (rc == 0 && channel_pending(channel)) {
		rc = channel_poll(channel, POLLOUT, CHANNEL_SEND_MS);
		if (rc == 0)
			rc = channel_flush(channel);
	}
	return rc;
}

static int
channel_queue(struct channel *channel, const char *text, size_t len)
{
	size_t unsent = channel->out_len - channel->out_sent;
	char *grown;

	if (len == 0)
		return 0;
	if (unsent + len > CHANNEL_OUTPUT_MAX)
		return -ENOBUFS;
	if (unsent > 0)
		memmove(channel->out, channel->out + channel->out_sent, unsent);
	channel->out_sent = 0;
	channel->out_len = unsent;
	grown = realloc(channel->out, unsent + len);
	if (grown == NULL)
		return -ENOMEM;
	channel->out = grown;
	memcpy(channel->out + unsent, text, len);
	channel->out_len += len;
	return 0;
}

/* The first byte carries the descriptors. */
static int
channel_send_fds(struct channel *channel, const char *text, size_t len, const int *fds, size_t n)
{
	ssize_t sent;
	int rc = channel_flush_all(channel);

	while (rc == 0) {
		sent = fdpass_send(channel->fd, text, len, fds, n);
		if (sent == -EAGAIN) {
			rc = channel_poll(channel, POLLOUT, CHANNEL_SEND_MS);
			continue;
		}
		if (sent < 0)
			return (int)sent;
		rc = channel_queue(channel, text + sent, len - (size_t)sent);
		return rc < 0 ? rc : channel_flush_all(channel);
	}
	return rc;
}

int
channel_send(struct channel *channel, json_t *message, const int *fds, size_t n)
{
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	size_t len;
	int rc;

	json_decref(message);
	if (text == NULL)
		return -ENOMEM;
	len = strlen(text);
	text[len++] = '\n'; /* in place of the final zero */
	if (n > 0) {
		rc = channel_send_fds(channel, text, len, fds, n);
	} else {
		rc = channel_queue(channel, text, len);
		if (rc == 0)
			rc = channel_flush(channel);
	}
	free(text);
	return rc;
}

/* Reads once. 0 (something or nothing came) or -errno. */
static int
channel_fill(struct channel *channel)
{
	size_t n = CHANNEL_FDS - channel->fd_count;
	ssize_t got;

	if (channel->in_len == sizeof(channel->in))
		return -EPROTO;
	if (n > FDPASS_MAX)
		n = FDPASS_MAX;
	got = fdpass_recv(channel->fd, channel->in + channel->in_len,
			  sizeof(channel->in) - channel->in_len, channel->fds + channel->fd_count,
			  &n);
	if (got == -EAGAIN)
		return 0;
	if (got == -ECONNRESET)
		got = 0;
	if (got < 0)
		return (int)got;
	if (got == 0)
		channel->closed = true;
	channel->in_len += (size_t)got;
	channel->fd_count += n;
	return 0;
}

/* Cuts one line out of the buffer: 1, 0 none whole, or -EPROTO. */
static int
channel_cut(struct channel *channel, json_t **message)
{
	char *newline =
		memchr(channel->in + channel->scanned, '\n', channel->in_len - channel->scanned);
	size_t len;

	if (newline == NULL) {
		channel->scanned = channel->in_len;
		return 0;
	}
	len = (size_t)(newline - channel->in);
	*message = json_loadb(channel->in, len, JSON_REJECT_DUPLICATES, NULL);
	channel->in_len -= len + 1;
	channel->scanned = 0;
	memmove(channel->in, newline + 1, channel->in_len);
	if (!json_is_object(*message)) {
		json_decref(*message);
		*message = NULL;
		return -EPROTO;
	}
	return 1;
}

int
channel_receive(struct channel *channel, json_t **message)
{
	int rc;

	*message = NULL;
	rc = channel_cut(channel, message);
	if (rc != 0)
		return rc;
	if (!channel->closed) {
		rc = channel_fill(channel);
		if (rc < 0)
			return rc;
		rc = channel_cut(channel, message);
		if (rc != 0)
			return rc;
	}
	return channel->closed ? -EPIPE : 0;
}

int
channel_wait(struct channel *channel, json_t **message, int timeout_ms)
{
	i64 end = clock_now_ms() + timeout_ms;
	i64 left = timeout_ms;
	int rc;

	while ((rc = channel_receive(channel, message)) == 0) {
		if (timeout_ms >= 0) {
			left = end - clock_now_ms();
			if (left <= 0)
				return -ETIMEDOUT;
		}
		rc = channel_poll(channel, POLLIN, (int)left);
		if (rc < 0)
			return rc;
	}
	return rc;
}

int
channel_take_fd(struct channel *channel)
{
	int fd;

	if (channel->fd_count == 0)
		return -1;
	fd = channel->fds[0];
	channel->fd_count--;
	memmove(channel->fds, channel->fds + 1, channel->fd_count * sizeof(channel->fds[0]));
	return fd;
}
