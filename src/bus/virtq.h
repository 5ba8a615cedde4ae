/*
 * Device side of a split virtqueue (virtio 1.2, 2.7) in guest RAM, with
 * indirect descriptors and event indexes.
 *
 *	descriptor table	avail ring (driver writes)	used ring (device writes)
 *	addr len flags next	flags idx ring[] used_event	flags idx {id len}[] avail_event
 *
 * Every byte of them is hostile and may change at any moment: each is read
 * once into a variable, checked, then used. Whatever breaks the rules (an
 * address that is not RAM, a loop, an index too far) breaks the queue: pop
 * answers -EINVAL from then on, and the device must ask for a reset.
 *
 * A device pops chains, works on them, fills the used ring, publishes it, and
 * interrupts if publish says so. Under the machine's lock.
 */
#ifndef BUS_VIRTQ_H
#define BUS_VIRTQ_H

#include <sys/uio.h>

#include "base/types.h"
#include "memory/memory.h"

enum { VIRTQ_SIZE_MAX = 1024 };

/* One piece of guest RAM. */
struct virtq_buffer {
	void *host;
	u64 gpa;
	u32 len;
};

/* A chain: OUT buffers that the device reads, then IN buffers that it writes.
 * The array is the queue's and holds until the next pop. */
struct virtq_chain {
	u16 head; /* names the chain for virtq_fill */
	unsigned out_count, in_count;
	const struct virtq_buffer *out, *in;
	u64 out_len, in_len; /* bytes in all of them */
};

struct virtq {
	/* Set by the transport before virtq_start. */
	struct memory *memory;
	u16 size_max; /* power of two */
	u16 size;
	u64 desc, avail, used; /* gpa */
	/* From then on. */
	bool ready, broken, event_index, indirect;
	const u8 *desc_host;
	const u8 *avail_host;
	u8 *used_host;
	u16 avail_next;	    /* next entry of the avail ring to look at */
	u16 used_next;	    /* next entry of the used ring to fill */
	u16 used_published; /* idx as the driver sees it */
	bool signalled;	    /* published once: the event field has a meaning */
	unsigned buffer_count;
	struct virtq_buffer *buffers; /* size_max of them */
};

/* 0 or -ENOMEM. SIZE_MAX: a power of two, at most VIRTQ_SIZE_MAX. */
int virtq_init(struct virtq *q, struct memory *memory, u16 size_max);
void virtq_free(struct virtq *q);
/* Back to as it was after virtq_init. */
void virtq_reset(struct virtq *q);
/* Checks what the driver set and makes the queue ready: 0, or -EINVAL (then
 * the queue is broken). */
int virtq_start(struct virtq *q, bool event_index, bool indirect);

/* The next chain: 1, 0 if there is none, -EINVAL if the queue is broken. */
int virtq_pop(struct virtq *q, struct virtq_chain *chain);
/* Gives the COUNT chains that were popped last, and not filled, back: they come
 * again. */
void virtq_unpop(struct virtq *q, unsigned count);
bool virtq_empty(struct virtq *q);

/* The chain HEAD is done; LEN bytes of its IN buffers were written (the
 * caller has told memory_written). Seen by the driver after virtq_publish. */
void virtq_fill(struct virtq *q, u16 head, u32 len);
/* Shows the driver what was filled. True if it wants an interrupt. */
bool virtq_publish(struct virtq *q);

/* Asks the driver for notifications, or tells it that none are needed now.
 * After enabling, true if chains came meanwhile: pop again. */
bool virtq_enable_notify(struct virtq *q);
/* The same for a device that gave COUNT chains back because it needs more. */
bool virtq_enable_notify_after(struct virtq *q, unsigned count);
void virtq_disable_notify(struct virtq *q);

/* Bytes OFFSET.. of the chain's OUT buffers; how many were copied. */
size_t virtq_copy_out(const struct virtq_chain *chain, u64 offset, void *buf, size_t len);
/* Into the chain's IN buffers from OFFSET, and says memory_written; bytes copied. */
size_t virtq_copy_in(struct virtq *q, const struct virtq_chain *chain, u64 offset, const void *buf,
		     size_t len);

#endif
