/*
 * Raw images on a regular file or a block device: opening, and what its two
 * engines (uring.c, threads.c) share.
 */
#define _GNU_SOURCE
#include "block/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/log.h"

enum { RAW_SECTOR = 512, RAW_IOV_MAX = 1024 /* the kernel's UIO_MAXIOV */ };

u64
raw_bytes(const struct block_request *request)
{
	u64 bytes = 0;

	for (int i = 0; i < request->iov_count; i++)
		bytes += request->iov[i].iov_len;
	return bytes;
}

static bool
raw_writes(enum block_op op)
{
	return op == BLOCK_WRITE || op == BLOCK_DISCARD || op == BLOCK_WRITE_ZEROES;
}

int
raw_check(const struct block *block, const struct block_request *request)
{
	u64 length = request->length;

	if (raw_writes(request->op) && block->readonly)
		return -EROFS;
	if (request->op == BLOCK_FLUSH)
		return 0;
	if (request->op == BLOCK_READ || request->op == BLOCK_WRITE) {
		if (request->iov_count <= 0 || request->iov_count > RAW_IOV_MAX)
			return -EINVAL;
		length = raw_bytes(request);
	}
	if (length == 0 || length % RAW_SECTOR || request->offset % RAW_SECTOR)
		return -EINVAL;
	if (request->offset > block->size || length > block->size - request->offset)
		return -EINVAL;
	return 0;
}

int
raw_fallocate_mode(const struct block_request *request)
{
	if (request->op == BLOCK_DISCARD || request->unmap)
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
}

bool
raw_unsupported(int error)
{
	return error == -EOPNOTSUPP || error == -ENOSYS || error == -ENODEV || error == -EINVAL;
}

int
raw_skip(struct iovec *out, const struct iovec *iov, int count, u64 skip)
{
	int n = 0;

	for (int i = 0; i < count; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		out[n].iov_base = (char *)iov[i].iov_base + skip;
		out[n].iov_len = iov[i].iov_len - skip;
		skip = 0;
		n++;
	}
	return n;
}

/* A file's tail of less than a sector is out of the guest's reach. */
static int
raw_size(int fd, u64 *size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode))
		*size = (u64)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return -EINVAL;
	else if (ioctl(fd, BLKGETSIZE64, size))
		return -errno;
	*size -= *size % RAW_SECTOR;
	return 0;
}

static int
raw_open_engine(struct block **out, int fd, struct loop *loop, enum block_engine engine)
{
	int error;

	if (engine == BLOCK_THREADS)
		return threads_open(out, fd, loop);
	error = uring_open(out, fd, loop);
	if (!error || engine == BLOCK_IO_URING)
		return error;
	log_debug("io_uring is refused here (error %d): disks use threads", -error);
	return threads_open(out, fd, loop);
}

int
block_open_raw(struct block **out, int fd, bool readonly, struct loop *loop,
	       enum block_engine engine)
{
	u64 size = 0;
	int error;

	error = raw_size(fd, &size);
	if (error)
		return error;
	error = raw_open_engine(out, fd, loop, engine);
	if (error)
		return error;
	(*out)->size = size;
	(*out)->readonly = readonly;
	return 0;
}
