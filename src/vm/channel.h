/*
 * One end of a control connection: whole JSON messages in and out, descriptors
 * beside them. The peer is not trusted: lines, descriptors that nobody asked
 * for and unread output are all bounded, and a breach ends the connection.
 *
 * Single-threaded. The socket is non-blocking; wait with channel_fd and poll
 * (or a loop), for output too while channel_pending says so.
 */
#ifndef VM_CHANNEL_H
#define VM_CHANNEL_H

#include <jansson.h>

#include "base/types.h"

struct channel;

/* Takes FD over, failing or not. 0 or -errno. */
int channel_create(struct channel **out, int fd);
void channel_destroy(struct channel *channel);
int channel_fd(const struct channel *channel);

/* Queues MESSAGE (whose reference it takes) with N descriptors, which stay the
 * caller's, and sends what can go now. With descriptors it waits until all is
 * sent. 0 or -errno. */
int channel_send(struct channel *channel, json_t *message, const int *fds, size_t n);
/* Sends more of what is queued. 0 or -errno. */
int channel_flush(struct channel *channel);
bool channel_pending(const struct channel *channel);

/* The next message: 1 and *MESSAGE (a new reference), 0 none yet, -EPIPE the
 * peer has closed, -EPROTO it broke the rules, or another -errno. */
int channel_receive(struct channel *channel, json_t **message);
/* The same, but waits up to TIMEOUT_MS (-1: for ever): then -ETIMEDOUT. */
int channel_wait(struct channel *channel, json_t **message, int timeout_ms);

/* The oldest descriptor that came and was not taken: the caller's now, or -1. */
int channel_take_fd(struct channel *channel);

#endif
