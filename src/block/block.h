/*
 * The host side of a disk. Requests are asynchronous; completions arrive on
 * the loop that the backend was opened with, under its guard, or out of kick
 * and drain; calls are made under that guard too. Buffers are
 * guest RAM or the caller's, and stay valid until completion. The backend
 * does not call memory_written: the device does, at completion.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <sys/uio.h>

#include "base/loop.h"
#include "base/types.h"

struct block;
struct block_request;

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

/* RESULT: 0 or -errno. */
typedef void block_done_fn(void *opaque, int result);

struct block_request {
	enum block_op op;
	u64 offset; /* bytes, a multiple of 512 */
	u64 length; /* bytes, DISCARD and WRITE_ZEROES only */
	const struct iovec *iov;
	int iov_count;
	bool unmap; /* WRITE_ZEROES may deallocate */
	block_done_fn *done;
	void *opaque;
	/* The backend's own, while it has the request. */
	struct block_request *next;
	int result;
};

struct block_ops {
	const char *name;
	/* Takes the request, which starts at the next kick at the latest, and calls
	 * done once, out of kick, drain or the loop. 0 or -errno (then not called). */
	int (*submit)(struct block *block, struct block_request *request);
	/* Starts what was submitted: one call for a batch. */
	void (*kick)(struct block *block);
	/* Waits until nothing is in flight (calls done for each), but not beyond DEADLINE_NS of
	 * the monotonic clock, if that is not 0. 0 or -ETIMEDOUT. */
	int (*drain)(struct block *block, u64 deadline_ns);
	void (*close)(struct block *block);
};

struct block {
	const struct block_ops *ops;
	u64 size; /* bytes, a multiple of 512 */
	bool readonly;
};

enum block_engine { BLOCK_AUTO, BLOCK_IO_URING, BLOCK_THREADS };

/* A raw image on FD (a regular file or block device), which the backend takes
 * over on success. AUTO: io_uring, or threads where it is refused. 0 or -errno. */
int block_open_raw(struct block **out, int fd, bool readonly, struct loop *loop,
		   enum block_engine engine);

#endif
