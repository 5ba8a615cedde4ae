/*
 * Split virtqueues, device side.  The rings are read and written through host
 * pointers that virtq_start has checked for the whole ring, so that no index a
 * driver can write leads out of them: indexes are taken modulo the size.
 *
 * Ordering: idx of the avail ring is loaded with acquire before its entries;
 * idx of the used ring is stored with release after its entries. Event
 * indexes need a full fence between "I publish" and "does the other one want
 * to know" on either side (virtio 1.2, 2.7.7 and 2.7.10).
 */
#include "bus/virtq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

enum {
	DESC_SIZE = 16,
	DESC_NEXT = 1,
	DESC_WRITE = 2,
	DESC_INDIRECT = 4,
	AVAIL_NO_INTERRUPT = 1,
	USED_NO_NOTIFY = 1,
	RING_IDX = 2,  /* offset of idx in either ring */
	RING_DATA = 4, /* offset of ring[] in either ring */
	USED_ELEMENT = 8,
};

struct desc {
	u64 addr;
	u32 len;
	u16 flags, next;
};

static u16
virtq_load(const u8 *at)
{
	return __atomic_load_n((const u16 *)(const void *)at, __ATOMIC_ACQUIRE);
}

static void
virtq_store(u8 *at, u16 value)
{
	__atomic_store_n((u16 *)(void *)at, value, __ATOMIC_RELEASE);
}

/* A full barrier. Not __atomic_thread_fence, which ThreadSanitizer refuses. */
static void
virtq_fence(void)
{
	__asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
}

int
virtq_init(struct virtq *q, struct memory *memory, u16 size_max)
{
	memset(q, 0, sizeof(*q));
	if (size_max == 0 || size_max > VIRTQ_SIZE_MAX || (size_max & (size_max - 1)))
		return -EINVAL;
	q->buffers = calloc(size_max, sizeof(*q->buffers));
	if (!q->buffers)
		return -ENOMEM;
	q->memory = memory;
	q->size_max = size_max;
	q->size = size_max;
	return 0;
}

void
virtq_free(struct virtq *q)
{
	free(q->buffers);
	q->buffers = NULL;
}

void
virtq_reset(struct virtq *q)
{
	struct virtq_buffer *buffers = q->buffers;
	struct memory *memory = q->memory;
	u16 size_max = q->size_max;

	*q = (struct virtq){
		.memory = memory, .size_max = size_max, .size = size_max, .buffers = buffers};
}

static int
virtq_break(struct virtq *q)
{
	q->broken = true;
	return -EINVAL;
}

int
virtq_start(struct virtq *q, bool event_index, bool indirect)
{
	u64 n = q->size;

	if (n == 0 || n > q->size_max || (n & (n - 1)))
		return virtq_break(q);
	if (q->desc % 16 || q->avail % 2 || q->used % 4)
		return virtq_break(q);
	/* The event fields are part of the rings whether used or not. */
	q->desc_host = memory_ptr(q->memory, q->desc, DESC_SIZE * n);
	q->avail_host = memory_ptr(q->memory, q->avail, RING_DATA + 2 * n + 2);
	q->used_host = memory_ptr(q->memory, q->used, RING_DATA + USED_ELEMENT * n + 2);
	if (!q->desc_host || !q->avail_host || !q->used_host)
		return virtq_break(q);
	q->event_index = event_index;
	q->indirect = indirect;
	q->ready = true;
	return 0;
}

/* ---- chains ---- */

static void
virtq_read_desc(const u8 *table, unsigned index, struct desc *desc)
{
	u8 raw[DESC_SIZE];

	memcpy(raw, table + (size_t)index * DESC_SIZE, sizeof(raw));
	/* Keeps the compiler from reading the guest's bytes a second time. */
	__asm__ volatile("" : : "r"(raw) : "memory");
	desc->addr = get_le64(raw);
	desc->len = get_le32(raw + 8);
	desc->flags = get_le16(raw + 12);
	desc->next = get_le16(raw + 14);
}

/* One buffer more; IN ones come last. */
static int
virtq_take(struct virtq *q, struct virtq_chain *chain, const struct desc *desc)
{
	struct virtq_buffer *buffer = &q->buffers[q->buffer_count];
	bool in = (desc->flags & DESC_WRITE) != 0;

	if (!in && chain->in_count)
		return -EINVAL;
	if (desc->len == 0)
		return 0;
	if (q->buffer_count >= q->size)
		return -EINVAL;
	buffer->host = memory_ptr(q->memory, desc->addr, desc->len);
	if (!buffer->host)
		return -EINVAL;
	buffer->gpa = desc->addr;
	buffer->len = desc->len;
	q->buffer_count++;
	if (in) {
		chain->in_count++;
		chain->in_len += desc->len;
	} else {
		chain->out_count++;
		chain->out_len += desc->len;
	}
	return 0;
}

/* Walks from INDEX in TABLE of COUNT descriptors. A chain that is longer than
 * the queue is a loop or breaks 2.7.5.3.1; either is refused. */
static int
virtq_walk(struct virtq *q, struct virtq_chain *chain, const u8 *table, unsigned count,
	   unsigned index, bool nested)
{
	struct desc desc;
	const u8 *indirect;

	for (unsigned steps = 0; steps < q->size; steps++) {
		if (index >= count)
			return -EINVAL;
		virtq_read_desc(table, index, &desc);
		if (desc.flags & DESC_INDIRECT) {
			if (nested || !q->indirect || (desc.flags & DESC_NEXT) || desc.len == 0 ||
			    desc.len % DESC_SIZE)
				return -EINVAL;
			indirect = memory_ptr(q->memory, desc.addr, desc.len);
			if (!indirect)
				return -EINVAL;
			return virtq_walk(q, chain, indirect, desc.len / DESC_SIZE, 0, true);
		}
		if (virtq_take(q, chain, &desc))
			return -EINVAL;
		if (!(desc.flags & DESC_NEXT))
			return 0;
		index = desc.next;
	}
	return -EINVAL;
}

static u16
virtq_avail_idx(const struct virtq *q)
{
	return virtq_load(q->avail_host + RING_IDX);
}

bool
virtq_empty(struct virtq *q)
{
	return !q->ready || q->broken || virtq_avail_idx(q) == q->avail_next;
}

int
virtq_pop(struct virtq *q, struct virtq_chain *chain)
{
	u16 waiting, head;

	if (q->broken)
		return -EINVAL;
	if (!q->ready)
		return 0;
	waiting = (u16)(virtq_avail_idx(q) - q->avail_next);
	if (waiting == 0)
		return 0;
	if (waiting > q->size)
		return virtq_break(q);
	head = virtq_load(q->avail_host + RING_DATA + 2 * (q->avail_next & (q->size - 1)));
	memset(chain, 0, sizeof(*chain));
	chain->head = head;
	q->buffer_count = 0;
	if (virtq_walk(q, chain, q->desc_host, q->size, head, false))
		return virtq_break(q);
	chain->out = q->buffers;
	chain->in = q->buffers + chain->out_count;
	q->avail_next++;
	return 1;
}

void
virtq_unpop(struct virtq *q, unsigned count)
{
	q->avail_next = (u16)(q->avail_next - count);
}

/* ---- used ring ---- */

void
virtq_fill(struct virtq *q, u16 head, u32 len)
{
	unsigned at = RING_DATA + USED_ELEMENT * (q->used_next & (q->size - 1u));

	if (!q->ready)
		return;
	put_le32(q->used_host + at, head);
	put_le32(q->used_host + at + 4, len);
	memory_written(q->memory, q->used + at, USED_ELEMENT);
	q->used_next++;
}

static bool
virtq_wants_interrupt(struct virtq *q, u16 from, u16 to)
{
	u16 event;

	if (!q->event_index)
		return !(virtq_load(q->avail_host) & AVAIL_NO_INTERRUPT);
	event = virtq_load(q->avail_host + RING_DATA + 2 * q->size);
	if (!q->signalled)
		return true;
	return (u16)(to - event - 1) < (u16)(to - from);
}

bool
virtq_publish(struct virtq *q)
{
	u16 from = q->used_published, to = q->used_next;
	bool wanted;

	if (!q->ready || q->used_published == to)
		return false;
	virtq_store(q->used_host + RING_IDX, to);
	memory_written(q->memory, q->used + RING_IDX, 2);
	q->used_published = to;
	virtq_fence();
	wanted = virtq_wants_interrupt(q, from, to);
	q->signalled = true;
	return wanted;
}

/* ---- notifications ---- */

static void
virtq_set_avail_event(struct virtq *q, u16 value)
{
	unsigned at = RING_DATA + USED_ELEMENT * (unsigned)q->size;

	virtq_store(q->used_host + at, value);
	memory_written(q->memory, q->used + at, 2);
}

bool
virtq_enable_notify(struct virtq *q)
{
	return virtq_enable_notify_after(q, 0);
}

bool
virtq_enable_notify_after(struct virtq *q, unsigned count)
{
	u16 seen = (u16)(q->avail_next + count);

	if (!q->ready || q->broken)
		return false;
	if (q->event_index) {
		virtq_set_avail_event(q, seen);
	} else {
		virtq_store(q->used_host, 0);
		memory_written(q->memory, q->used, 2);
	}
	virtq_fence();
	return virtq_avail_idx(q) != seen;
}

void
virtq_disable_notify(struct virtq *q)
{
	/* With event indexes, leaving avail_event behind is enough. */
	if (!q->ready || q->broken || q->event_index)
		return;
	virtq_store(q->used_host, USED_NO_NOTIFY);
	memory_written(q->memory, q->used, 2);
}

/* ---- bytes ---- */

size_t
virtq_copy_out(const struct virtq_chain *chain, u64 offset, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < chain->out_count && done < len; i++) {
		const struct virtq_buffer *b = &chain->out[i];
		size_t part;

		if (offset >= b->len) {
			offset -= b->len;
			continue;
		}
		part = b->len - offset;
		if (part > len - done)
			part = len - done;
		memcpy((u8 *)buf + done, (const u8 *)b->host + offset, part);
		done += part;
		offset = 0;
	}
	return done;
}

size_t
virtq_copy_in(struct virtq *q, const struct virtq_chain *chain, u64 offset, const void *buf,
	      size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < chain->in_count && done < len; i++) {
		const struct virtq_buffer *b = &chain->in[i];
		size_t part;

		if (offset >= b->len) {
			offset -= b->len;
			continue;
		}
		part = b->len - offset;
		if (part > len - done)
			part = len - done;
		memcpy((u8 *)b->host + offset, (const u8 *)buf + done, part);
		memory_written(q->memory, b->gpa + offset, part);
		done += part;
		offset = 0;
	}
	return done;
}
