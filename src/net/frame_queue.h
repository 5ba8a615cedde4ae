/*
 * Frames on their way to a guest that is slower than its network: a bounded
 * queue that leaves in batches, in order. A full queue drops, as wires do.
 */
#ifndef NET_FRAME_QUEUE_H
#define NET_FRAME_QUEUE_H

#include "net/net.h"

enum { FRAME_QUEUE_MAX = 4096 };

struct frame_queue_entry {
	u8 *bytes; /* struct net_header, then the frame */
	size_t len;
};

struct frame_queue {
	struct frame_queue_entry entries[FRAME_QUEUE_MAX];
	unsigned head, count;
	u64 dropped;
};

void frame_queue_put(struct frame_queue *queue, const void *frame, size_t len);
/* Sends what the socket takes now. 0 (also if some stay), or -errno when it is gone. */
int frame_queue_flush(struct frame_queue *queue, int socket);
void frame_queue_clear(struct frame_queue *queue);

#endif
