/*
 * Raw images by io_uring. The ring is created disabled and restricted to
 * reads, writes, syncs and fallocate on its one registered file before it is
 * enabled, so that it opens no way around the sandbox.
 *
 * A request takes a slot, or waits for one; so the completion queue, which is
 * larger than the number of slots, never overflows. Completions that are there
 * at once (page cache) are picked up by kick itself, with the eventfd muted;
 * all others come by the eventfd on the loop.
 */
#include "block/raw.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

enum { URING_FILE = 0 /* index of the registered file */, URING_POLL_MS = 100 };

struct uring_slot {
	struct block_request *request;
	struct uring_slot *next_free;
	u64 done, total;    /* bytes */
	bool zeroing;	    /* WRITE_ZEROES by writing, where fallocate cannot */
	struct iovec zero;  /* its buffer */
	struct iovec *rest; /* what is left after a short transfer */
};

/* All under the loop's guard. */
struct uring {
	struct block block;
	struct io_uring ring;
	int fd, eventfd;
	struct loop_fd *watch;
	void *zeroes;
	struct block_request *waiting, **waiting_end; /* for a slot */
	struct uring_slot *free;
	unsigned in_flight; /* submitted, waiting ones included */
	bool reaping;
	struct uring_slot slots[RAW_IN_FLIGHT];
};

static struct uring *
uring_of(struct block *block)
{
	return CONTAINER_OF(block, struct uring, block);
}

/* Makes the loop come back to us. */
static void
uring_signal(struct uring *u)
{
	u64 one = 1;

	if (write(u->eventfd, &one, sizeof(one)) < 0)
		return; /* only a full counter can fail: signalled anyway */
}

/* ---- submission ---- */

static void
uring_prepare_transfer(struct io_uring_sqe *sqe, struct uring_slot *slot)
{
	const struct block_request *request = slot->request;
	const struct iovec *iov = request->iov;
	unsigned count = (unsigned)request->iov_count;
	u64 offset = request->offset + slot->done;

	if (slot->rest) {
		count = (unsigned)raw_skip(slot->rest, iov, request->iov_count, slot->done);
		iov = slot->rest;
	}
	if (request->op == BLOCK_READ)
		io_uring_prep_readv(sqe, URING_FILE, iov, count, offset);
	else
		io_uring_prep_writev(sqe, URING_FILE, iov, count, offset);
}

static void
uring_prepare_zeroes(struct uring *u, struct io_uring_sqe *sqe, struct uring_slot *slot)
{
	u64 left = slot->total - slot->done;

	slot->zero.iov_base = u->zeroes;
	slot->zero.iov_len = left < RAW_ZEROES ? left : RAW_ZEROES;
	io_uring_prep_writev(sqe, URING_FILE, &slot->zero, 1, slot->request->offset + slot->done);
}

static void
uring_prepare(struct uring *u, struct uring_slot *slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	const struct block_request *request = slot->request;

	if (!sqe) {
		log_error("io_uring has fewer entries than it was asked for");
		return; /* cannot be: the ring has an entry for each slot */
	}
	switch (request->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		uring_prepare_transfer(sqe, slot);
		break;
	case BLOCK_FLUSH:
		io_uring_prep_fsync(sqe, URING_FILE, IORING_FSYNC_DATASYNC);
		break;
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		if (slot->zeroing)
			uring_prepare_zeroes(u, sqe, slot);
		else
			io_uring_prep_fallocate(sqe, URING_FILE, raw_fallocate_mode(request),
						(off_t)request->offset, (off_t)request->length);
		break;
	}
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, slot);
}

static void
uring_begin(struct uring *u, struct block_request *request)
{
	struct uring_slot *slot = u->free;
	bool transfer = request->op == BLOCK_READ || request->op == BLOCK_WRITE;

	u->free = slot->next_free;
	slot->request = request;
	slot->done = 0;
	slot->total = transfer ? raw_bytes(request) : request->length;
	slot->zeroing = false;
	slot->rest = NULL;
	uring_prepare(u, slot);
}

static int
uring_submit(struct block *block, struct block_request *request)
{
	struct uring *u = uring_of(block);
	int error = raw_check(block, request);

	if (error)
		return error;
	u->in_flight++;
	if (u->free) {
		uring_begin(u, request);
		return 0;
	}
	request->next = NULL;
	*u->waiting_end = request;
	u->waiting_end = &request->next;
	return 0;
}

/* Whoever waited for a slot may have one. */
static void
uring_begin_waiting(struct uring *u)
{
	struct block_request *request;

	while (u->free && u->waiting) {
		request = u->waiting;
		u->waiting = request->next;
		if (!u->waiting)
			u->waiting_end = &u->waiting;
		uring_begin(u, request);
	}
}

/* ---- completion ---- */

/* More to do for SLOT after RES: true if it was prepared again. */
static bool
uring_continue(struct uring *u, struct uring_slot *slot, int res)
{
	const struct block_request *request = slot->request;
	bool transfer = request->op == BLOCK_READ || request->op == BLOCK_WRITE;

	/* A request is cancelled when the thread that submitted it exits. */
	if (res == -EINTR || res == -EAGAIN || res == -ECANCELED) {
		uring_prepare(u, slot);
		return true;
	}
	if (request->op == BLOCK_WRITE_ZEROES && !slot->zeroing && raw_unsupported(res)) {
		slot->zeroing = true;
		uring_prepare(u, slot);
		return true;
	}
	if (res <= 0 || !(transfer || slot->zeroing))
		return false;
	slot->done += (u64)res;
	if (slot->done >= slot->total)
		return false;
	if (transfer && !slot->rest)
		slot->rest = malloc((size_t)request->iov_count * sizeof(*slot->rest));
	if (transfer && !slot->rest)
		return false; /* reported as an I/O error: not all bytes are through */
	uring_prepare(u, slot);
	return true;
}

static int
uring_result(const struct uring_slot *slot, int res)
{
	enum block_op op = slot->request->op;

	if (op == BLOCK_DISCARD && raw_unsupported(res))
		return 0; /* to discard is to advise */
	if (res < 0)
		return res;
	if (op == BLOCK_READ || op == BLOCK_WRITE || slot->zeroing)
		return slot->done == slot->total ? 0 : -EIO;
	return 0;
}

static void
uring_finish(struct uring *u, struct uring_slot *slot, int res)
{
	struct block_request *request = slot->request;
	int result = uring_result(slot, res);

	free(slot->rest);
	slot->rest = NULL;
	slot->request = NULL;
	slot->next_free = u->free;
	u->free = slot;
	u->in_flight--;
	request->done(request->opaque, result);
}

/* Completes what is there; how many completions that were. */
static unsigned
uring_reap(struct uring *u)
{
	struct io_uring_cqe *cqe;
	struct uring_slot *slot;
	unsigned count = 0;
	int res;

	while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
		slot = io_uring_cqe_get_data(cqe);
		res = cqe->res;
		io_uring_cqe_seen(&u->ring, cqe);
		count++;
		if (!uring_continue(u, slot, res))
			uring_finish(u, slot, res);
	}
	return count;
}

static void
uring_send(struct uring *u)
{
	while (io_uring_sq_ready(&u->ring)) {
		if (io_uring_submit(&u->ring) <= 0) {
			uring_signal(u); /* short of memory: the loop tries again */
			return;
		}
	}
}

static void
uring_kick(struct block *block)
{
	struct uring *u = uring_of(block);

	if (u->reaping)
		return; /* a done callback called: the caller below sends */
	u->reaping = true;
	io_uring_cq_eventfd_toggle(&u->ring, false);
	do {
		uring_begin_waiting(u);
		uring_send(u);
	} while (uring_reap(u));
	io_uring_cq_eventfd_toggle(&u->ring, true);
	/* Whatever came before the eventfd was listening again. */
	if (io_uring_cq_ready(&u->ring))
		uring_signal(u);
	u->reaping = false;
}

static void
uring_ready(void *opaque, int events)
{
	struct uring *u = opaque;
	u64 count;

	(void)events;
	if (read(u->eventfd, &count, sizeof(count)) < 0)
		return;
	uring_kick(&u->block);
}

static int
uring_drain(struct block *block, u64 deadline_ns)
{
	struct uring *u = uring_of(block);
	struct pollfd ring = {.fd = u->ring.ring_fd, .events = POLLIN};

	while (u->in_flight) {
		uring_kick(block);
		if (u->in_flight && !deadline_ns)
			io_uring_submit_and_wait(&u->ring, 1);
		else if (u->in_flight && loop_now() >= deadline_ns)
			return -ETIMEDOUT;
		else if (u->in_flight)
			poll(&ring, 1, URING_POLL_MS);
	}
	return 0;
}

/* ---- opening and closing ---- */

static void
uring_free(struct uring *u)
{
	if (u->watch)
		loop_remove_fd(u->watch);
	if (u->eventfd >= 0)
		close(u->eventfd);
	if (u->zeroes != MAP_FAILED)
		munmap(u->zeroes, RAW_ZEROES);
	free(u);
}

static void
uring_close(struct block *block)
{
	struct uring *u = uring_of(block);

	uring_drain(block, 0);
	io_uring_queue_exit(&u->ring);
	/* The kernel lets go of the ring, and with it of the file, some time later: whoever opens
	 * the image next should not find it locked until then. */
	flock(u->fd, LOCK_UN);
	close(u->fd);
	uring_free(u);
}

static const struct block_ops uring_ops = {
	.name = "io_uring",
	.submit = uring_submit,
	.kick = uring_kick,
	.drain = uring_drain,
	.close = uring_close,
};

/* liburing 2.3's shared library lacks the wrappers of these two calls. */
static int
uring_restrict(struct io_uring *ring)
{
	static const u8 allowed[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
				     IORING_OP_FALLOCATE};
	struct io_uring_restriction list[ARRAY_LEN(allowed) + 3] = {0};
	unsigned n;

	for (n = 0; n < ARRAY_LEN(allowed); n++) {
		list[n].opcode = IORING_RESTRICTION_SQE_OP;
		list[n].sqe_op = allowed[n];
	}
	list[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	list[n++].sqe_flags = IOSQE_FIXED_FILE;
	list[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	list[n++].sqe_flags = IOSQE_FIXED_FILE;
	list[n].opcode = IORING_RESTRICTION_REGISTER_OP;
	list[n++].register_op = IORING_REGISTER_ENABLE_RINGS;
	return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_RESTRICTIONS, list, n);
}

static int
uring_setup(struct uring *u)
{
	int error;

	error = io_uring_queue_init(RAW_IN_FLIGHT, &u->ring, IORING_SETUP_R_DISABLED);
	if (error)
		return error;
	error = io_uring_register_files(&u->ring, &u->fd, 1);
	if (!error)
		error = io_uring_register_eventfd(&u->ring, u->eventfd);
	if (!error)
		error = uring_restrict(&u->ring);
	if (!error)
		error = io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
					  NULL, 0);
	if (error)
		io_uring_queue_exit(&u->ring);
	return error;
}

int
uring_open(struct block **out, int fd, struct loop *loop)
{
	struct uring *u = calloc(1, sizeof(*u));
	int error;

	if (!u)
		return -ENOMEM;
	u->block.ops = &uring_ops;
	u->fd = fd;
	u->waiting_end = &u->waiting;
	for (unsigned i = 0; i < RAW_IN_FLIGHT; i++) {
		u->slots[i].next_free = u->free;
		u->free = &u->slots[i];
	}
	u->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	u->zeroes = mmap(NULL, RAW_ZEROES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	error = u->eventfd < 0 || u->zeroes == MAP_FAILED ? -errno : 0;
	if (!error)
		error = loop_add_fd(loop, u->eventfd, LOOP_READ, uring_ready, u, &u->watch);
	if (!error)
		error = uring_setup(u);
	if (error) {
		uring_free(u);
		return error;
	}
	*out = &u->block;
	return 0;
}
