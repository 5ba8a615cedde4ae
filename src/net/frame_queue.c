/*
 * The queue of frames to a guest (see frame_queue.h): a ring of heap blocks,
 * flushed by sendmmsg.
 */
#define _GNU_SOURCE
#include "net/frame_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { FRAME_QUEUE_BATCH = 64 };

static struct frame_queue_entry *
frame_queue_at(struct frame_queue *queue, unsigned index)
{
	return &queue->entries[(queue->head + index) % FRAME_QUEUE_MAX];
}

void
frame_queue_put(struct frame_queue *queue, const void *frame, size_t len)
{
	struct frame_queue_entry *entry = frame_queue_at(queue, queue->count);
	u8 *bytes;

	if (queue->count == FRAME_QUEUE_MAX || len + sizeof(struct net_header) > NET_FRAME_MAX ||
	    (bytes = malloc(len + sizeof(struct net_header))) == NULL) {
		queue->dropped++;
		return;
	}
	memset(bytes, 0, sizeof(struct net_header));
	memcpy(bytes + sizeof(struct net_header), frame, len);
	entry->bytes = bytes;
	entry->len = len + sizeof(struct net_header);
	queue->count++;
}

static void
frame_queue_drop(struct frame_queue *queue, unsigned n)
{
	for (; n > 0; n--) {
		free(frame_queue_at(queue, 0)->bytes);
		queue->head = (queue->head + 1) % FRAME_QUEUE_MAX;
		queue->count--;
	}
}

int
frame_queue_flush(struct frame_queue *queue, int socket)
{
	struct mmsghdr messages[FRAME_QUEUE_BATCH];
	struct iovec iov[FRAME_QUEUE_BATCH];
	unsigned n;
	int sent;

	while (queue->count > 0) {
		n = queue->count < FRAME_QUEUE_BATCH ? queue->count : FRAME_QUEUE_BATCH;
		memset(messages, 0, n * sizeof(messages[0]));
		for (unsigned i = 0; i < n; i++) {
			struct frame_queue_entry *entry = frame_queue_at(queue, i);

			iov[i] = (struct iovec){entry->bytes, entry->len};
			messages[i].msg_hdr.msg_iov = &iov[i];
			messages[i].msg_hdr.msg_iovlen = 1;
		}
		sent = sendmmsg(socket, messages, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0) {
			if (errno == EINTR)
				continue;
			/* EMSGSIZE: this one can never go. */
			if (errno != EMSGSIZE)
				return errno == EAGAIN || errno == ENOBUFS ? 0 : -errno;
			queue->dropped++;
			sent = 1;
		}
		frame_queue_drop(queue, (unsigned)sent);
	}
	return 0;
}

void
frame_queue_clear(struct frame_queue *queue)
{
	frame_queue_drop(queue, queue->count);
}
