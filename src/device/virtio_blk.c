/*
 * Virtio block device (virtio 1.2, 5.2).
 *
 *	chain:	{ type reserved sector } data... { status }
 *		   OUT, 16 bytes	 OUT or IN   IN, 1 byte
 *
 * The descriptors' borders mean nothing (2.7.4.1): the header is the first 16
 * OUT bytes, the status the last IN byte. Requests are copied out of the ring
 * and run concurrently, at most as many as the queue has entries, whatever the
 * driver makes available.
 */
#include "device/virtio_blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "bus/virtio_pci.h"

enum {
	BLK_ID = 2,
	BLK_CLASS = 0x010000, /* mass storage, SCSI */
	BLK_QUEUE = 256,
	BLK_SECTOR = 512,
	BLK_SERIAL = 20,
	BLK_HEADER = 16,
	BLK_SEGMENT = 16, /* struct virtio_blk_discard_write_zeroes */
	BLK_SEGMENT_UNMAP = BIT(0),
	BLK_SEG_MAX = BLK_QUEUE - 2,
	BLK_SIZE_MAX = 4 << 20,
	BLK_ERASE_MAX = (1 << 23) - 1, /* sectors */
	BLK_PAGE_EXP = 3,	       /* 4 KiB physical blocks */
};

#define BLK_F_SIZE_MAX BIT64(1)
#define BLK_F_SEG_MAX BIT64(2)
#define BLK_F_RO BIT64(5)
#define BLK_F_BLK_SIZE BIT64(6)
#define BLK_F_FLUSH BIT64(9)
#define BLK_F_TOPOLOGY BIT64(10)
#define BLK_F_DISCARD BIT64(13)
#define BLK_F_WRITE_ZEROES BIT64(14)

enum { /* request types */
       BLK_T_IN = 0,
       BLK_T_OUT = 1,
       BLK_T_FLUSH = 4,
       BLK_T_GET_ID = 8,
       BLK_T_DISCARD = 11,
       BLK_T_WRITE_ZEROES = 13,
};

enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };

enum { /* struct virtio_blk_config */
       CONFIG_CAPACITY = 0,
       CONFIG_SIZE_MAX = 8,
       CONFIG_SEG_MAX = 12,
       CONFIG_BLK_SIZE = 20,
       CONFIG_PHYSICAL_EXP = 24,
       CONFIG_MIN_IO = 26,
       CONFIG_OPT_IO = 28,
       CONFIG_DISCARD_SECTORS = 36,
       CONFIG_DISCARD_SEG = 40,
       CONFIG_DISCARD_ALIGN = 44,
       CONFIG_ZEROES_SECTORS = 48,
       CONFIG_ZEROES_SEG = 52,
       CONFIG_ZEROES_UNMAP = 56,
       CONFIG_SIZE = 60,
};

struct virtio_blk {
	struct virtio_device v;
	struct block *block;
	u8 serial[BLK_SERIAL];
	unsigned in_flight;
	bool processing; /* blk_process is on the stack */
	bool stalled;	 /* chains wait for requests to end */
	bool said_error;
	struct block_request flush; /* of virtio_blk_settle */
	int flush_result;
};

struct blk_request {
	struct block_request io;
	struct virtio_blk *blk;
	u16 head;
	u32 in_len; /* bytes of the chain that we write, the status too */
	u8 *status;
	u64 status_gpa;
	bool flushing; /* a write that is made durable before it ends */
	unsigned count;
	struct virtq_buffer *buffers; /* of the data */
	struct iovec iov[];
};

static struct virtio_blk *
blk_of(struct virtio_device *v)
{
	return CONTAINER_OF(v, struct virtio_blk, v);
}

/* ---- the end of a request ---- */

static void
blk_finish(struct blk_request *r, u8 status)
{
	struct virtio_blk *blk = r->blk;
	struct memory *mem = blk->v.host.memory;

	if (r->io.op == BLOCK_READ)
		for (unsigned i = 0; i < r->count; i++)
			memory_written(mem, r->buffers[i].gpa, r->buffers[i].len);
	*r->status = status;
	memory_written(mem, r->status_gpa, 1);
	virtq_fill(virtio_queue(&blk->v, 0), r->head, r->in_len);
	blk->in_flight--;
	free(r);
}

static void blk_process(struct virtio_blk *blk);

static void
blk_settle(struct virtio_blk *blk)
{
	if (blk->processing)
		return; /* blk_process goes on and publishes */
	virtio_publish(&blk->v, 0);
	if (blk->stalled && virtio_running(&blk->v))
		blk_process(blk);
}

/* A driver that did not take FLUSH expects a write-through disk (5.2.6.2). */
static bool
blk_make_durable(struct blk_request *r)
{
	struct block *block = r->blk->block;

	if (r->flushing || r->io.op == BLOCK_READ || r->io.op == BLOCK_FLUSH ||
	    virtio_has(&r->blk->v, BLK_F_FLUSH))
		return false;
	r->flushing = true;
	r->io.op = BLOCK_FLUSH;
	if (block->ops->submit(block, &r->io))
		return false;
	block->ops->kick(block);
	return true;
}

static void
blk_done(void *opaque, int result)
{
	struct blk_request *r = opaque;
	struct virtio_blk *blk = r->blk;

	if (result)
		log_once(blk->said_error, LOG_WARNING, "disk %02x.0: %s (reported to the guest)",
			 blk->v.pci.slot, strerror(-result));
	if (!result && blk_make_durable(r))
		return;
	blk_finish(r, result ? BLK_S_IOERR : BLK_S_OK);
	blk_settle(blk);
}

/* ---- the start of a request ---- */

/* Describes COUNT buffers less SKIP bytes at their start and all after LEFT. */
static void
blk_set_data(struct blk_request *r, const struct virtq_buffer *buffers, unsigned count, u64 skip,
	     u64 left)
{
	for (unsigned i = 0; i < count && left; i++) {
		struct virtq_buffer b = buffers[i];

		if (skip >= b.len) {
			skip -= b.len;
			continue;
		}
		b.host = (u8 *)b.host + skip;
		b.gpa += skip;
		b.len -= (u32)skip;
		skip = 0;
		if (b.len > left)
			b.len = (u32)left;
		left -= b.len;
		r->buffers[r->count] = b;
		r->iov[r->count++] = (struct iovec){.iov_base = b.host, .iov_len = b.len};
	}
}

static int
blk_set_offset(const struct virtio_blk *blk, struct blk_request *r, u64 sector)
{
	if (sector > blk->block->size / BLK_SECTOR)
		return -EINVAL;
	r->io.offset = sector * BLK_SECTOR;
	return 0;
}

static u8
blk_submit(struct virtio_blk *blk, struct blk_request *r, enum block_op op)
{
	r->io.op = op;
	r->io.iov = r->iov;
	r->io.iov_count = (int)r->count;
	r->io.done = blk_done;
	r->io.opaque = r;
	return blk->block->ops->submit(blk->block, &r->io) ? BLK_S_IOERR : BLK_S_OK;
}

static u8
blk_get_id(struct virtio_blk *blk, const struct virtq_chain *chain)
{
	u64 room = chain->in_len - 1;

	virtq_copy_in(virtio_queue(&blk->v, 0), chain, 0, blk->serial,
		      room < BLK_SERIAL ? room : BLK_SERIAL);
	return BLK_S_OK;
}

/* DISCARD and WRITE_ZEROES, one range each as the configuration says. */
static u8
blk_erase(struct virtio_blk *blk, struct blk_request *r, const struct virtq_chain *chain,
	  enum block_op op)
{
	u8 segment[BLK_SEGMENT];
	u32 sectors, flags;

	if (chain->out_len != BLK_HEADER + BLK_SEGMENT)
		return BLK_S_IOERR;
	virtq_copy_out(chain, BLK_HEADER, segment, sizeof(segment));
	sectors = get_le32(segment + 8);
	flags = get_le32(segment + 12);
	if ((flags & ~(u32)BLK_SEGMENT_UNMAP) || (op == BLOCK_DISCARD && flags))
		return BLK_S_UNSUPP;
	if (sectors > BLK_ERASE_MAX || blk_set_offset(blk, r, get_le64(segment)))
		return BLK_S_IOERR;
	r->io.length = (u64)sectors * BLK_SECTOR;
	r->io.unmap = (flags & BLK_SEGMENT_UNMAP) != 0;
	return blk_submit(blk, r, op);
}

static u8
blk_transfer(struct virtio_blk *blk, struct blk_request *r, const struct virtq_chain *chain,
	     u64 sector, enum block_op op)
{
	if (op == BLOCK_READ)
		blk_set_data(r, chain->in, chain->in_count, 0, chain->in_len - 1);
	else
		blk_set_data(r, chain->out, chain->out_count, BLK_HEADER,
			     chain->out_len - BLK_HEADER);
	if (blk_set_offset(blk, r, sector))
		return BLK_S_IOERR;
	return blk_submit(blk, r, op);
}

/* Starts R. BLK_S_OK and *DONE false: it is on its way. */
static u8
blk_start(struct virtio_blk *blk, struct blk_request *r, const struct virtq_chain *chain,
	  bool *done)
{
	u8 header[BLK_HEADER];
	u64 sector;

	*done = false;
	virtq_copy_out(chain, 0, header, sizeof(header));
	sector = get_le64(header + 8);
	switch (get_le32(header)) {
	case BLK_T_IN:
		return blk_transfer(blk, r, chain, sector, BLOCK_READ);
	case BLK_T_OUT:
		return blk_transfer(blk, r, chain, sector, BLOCK_WRITE);
	case BLK_T_FLUSH:
		return blk_submit(blk, r, BLOCK_FLUSH);
	case BLK_T_GET_ID:
		*done = true;
		return blk_get_id(blk, chain);
	case BLK_T_DISCARD:
		return blk_erase(blk, r, chain, BLOCK_DISCARD);
	case BLK_T_WRITE_ZEROES:
		return blk_erase(blk, r, chain, BLOCK_WRITE_ZEROES);
	}
	return BLK_S_UNSUPP;
}

static struct blk_request *
blk_new_request(struct virtio_blk *blk, const struct virtq_chain *chain)
{
	size_t count = chain->out_count + chain->in_count;
	struct blk_request *r;
	const struct virtq_buffer *last = &chain->in[chain->in_count - 1];

	r = malloc(sizeof(*r) + count * (sizeof(*r->iov) + sizeof(*r->buffers)));
	if (!r)
		return NULL;
	memset(r, 0, sizeof(*r));
	r->blk = blk;
	r->head = chain->head;
	r->in_len = chain->in_len > UINT32_MAX ? UINT32_MAX : (u32)chain->in_len;
	r->status = (u8 *)last->host + last->len - 1;
	r->status_gpa = last->gpa + last->len - 1;
	r->buffers = (struct virtq_buffer *)(r->iov + count);
	return r;
}

/* One chain: 1 if there was one, 0 if not, -errno if the device is broken now. */
static int
blk_pop(struct virtio_blk *blk)
{
	struct virtq_chain chain;
	struct blk_request *r;
	bool done;
	u8 status;
	int popped = virtq_pop(virtio_queue(&blk->v, 0), &chain);

	if (popped < 0)
		virtio_broken(&blk->v, "bad descriptors in the request queue");
	if (popped <= 0)
		return popped;
	if (chain.out_len < BLK_HEADER || chain.in_len < 1) {
		virtio_broken(&blk->v, "a request without header or status");
		return -EINVAL;
	}
	r = blk_new_request(blk, &chain);
	if (!r) {
		virtio_broken(&blk->v, "no host memory for a request");
		return -ENOMEM;
	}
	blk->in_flight++;
	status = blk_start(blk, r, &chain, &done);
	if (done || status != BLK_S_OK)
		blk_finish(r, status);
	return 1;
}

/* Starts all that may be started: 1 if anything, 0, or -errno. */
static int
blk_pop_all(struct virtio_blk *blk)
{
	unsigned limit = virtio_queue(&blk->v, 0)->size;
	int any = 0, popped = 0;

	while (blk->in_flight < limit && (popped = blk_pop(blk)) > 0)
		any = 1;
	return popped < 0 ? popped : any;
}

static void
blk_process(struct virtio_blk *blk)
{
	struct virtq *q = virtio_queue(&blk->v, 0);
	int any;

	if (blk->processing)
		return;
	blk->processing = true;
	blk->stalled = false;
	virtq_disable_notify(q);
	for (;;) {
		any = blk_pop_all(blk);
		blk->block->ops->kick(blk->block);
		virtio_publish(&blk->v, 0);
		if (any < 0)
			break;
		if (any)
			continue;
		if (blk->in_flight >= q->size) {
			blk->stalled = true;
			break;
		}
		if (!virtq_enable_notify(q))
			break;
		virtq_disable_notify(q);
	}
	blk->processing = false;
}

/* ---- the device ---- */

static void
blk_notify(struct virtio_device *v, unsigned queue)
{
	(void)queue;
	blk_process(blk_of(v));
}

static void
blk_reset(struct virtio_device *v)
{
	struct virtio_blk *blk = blk_of(v);

	blk->block->ops->drain(blk->block, 0);
	blk->stalled = false;
}

static void
blk_destroy(struct virtio_device *v)
{
	struct virtio_blk *blk = blk_of(v);

	blk->block->ops->close(blk->block);
	free(blk);
}

static const struct virtio_ops blk_ops = {
	.notify = blk_notify,
	.reset = blk_reset,
	.destroy = blk_destroy,
};

static void
blk_fill_config(struct virtio_blk *blk)
{
	u8 *config = blk->v.config;

	put_le64(config + CONFIG_CAPACITY, blk->block->size / BLK_SECTOR);
	put_le32(config + CONFIG_SIZE_MAX, BLK_SIZE_MAX);
	put_le32(config + CONFIG_SEG_MAX, BLK_SEG_MAX);
	put_le32(config + CONFIG_BLK_SIZE, BLK_SECTOR);
	config[CONFIG_PHYSICAL_EXP] = BLK_PAGE_EXP;
	put_le16(config + CONFIG_MIN_IO, 1 << BLK_PAGE_EXP);
	put_le32(config + CONFIG_OPT_IO, 0);
	put_le32(config + CONFIG_DISCARD_SECTORS, BLK_ERASE_MAX);
	put_le32(config + CONFIG_DISCARD_SEG, 1);
	put_le32(config + CONFIG_DISCARD_ALIGN, 1 << BLK_PAGE_EXP);
	put_le32(config + CONFIG_ZEROES_SECTORS, BLK_ERASE_MAX);
	put_le32(config + CONFIG_ZEROES_SEG, 1);
	config[CONFIG_ZEROES_UNMAP] = 1;
}

int
virtio_blk_create(struct pci_bus *bus, unsigned slot, const struct device_host *host,
		  struct block *block, const char *serial, struct virtio_blk **out)
{
	struct virtio_info info = {
		.id = BLK_ID,
		.class_code = BLK_CLASS,
		.features = BLK_F_SIZE_MAX | BLK_F_SEG_MAX | BLK_F_BLK_SIZE | BLK_F_FLUSH |
			    BLK_F_TOPOLOGY,
		.queue_count = 1,
		.queue_size = BLK_QUEUE,
		.config_size = CONFIG_SIZE,
	};
	struct virtio_blk *blk = calloc(1, sizeof(*blk));
	int error;

	if (!blk)
		return -ENOMEM;
	if (block->readonly)
		info.features |= BLK_F_RO;
	else
		info.features |= BLK_F_DISCARD | BLK_F_WRITE_ZEROES;
	blk->block = block;
	if (serial)
		memcpy(blk->serial, serial, strnlen(serial, BLK_SERIAL));
	error = virtio_pci_init(&blk->v, &blk_ops, &info, host);
	if (error)
		goto no_device;
	blk_fill_config(blk);
	error = virtio_pci_add(&blk->v, bus, slot);
	if (error)
		goto no_slot;
	if (out)
		*out = blk;
	return 0;
no_slot:
	virtio_pci_release(&blk->v);
no_device:
	free(blk);
	return error;
}

void
virtio_blk_resized(struct virtio_blk *blk)
{
	put_le64(blk->v.config + CONFIG_CAPACITY, blk->block->size / BLK_SECTOR);
	virtio_config_changed(&blk->v);
}

/* ---- before it is saved ---- */

static void
blk_flushed(void *opaque, int result)
{
	*(int *)opaque = result;
}

int
virtio_blk_settle(struct virtio_blk *blk, u64 deadline_ns)
{
	struct block *block = blk->block;
	int error = block->ops->drain(block, deadline_ns);

	if (error || block->readonly)
		return error;
	blk->flush = (struct block_request){
		.op = BLOCK_FLUSH, .done = blk_flushed, .opaque = &blk->flush_result};
	error = block->ops->submit(block, &blk->flush);
	if (!error)
		error = block->ops->drain(block, deadline_ns);
	return error ? error : blk->flush_result;
}
