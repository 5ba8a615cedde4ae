/*
 * Raw images: what the two engines under block_open_raw share. For src/block
 * alone.
 */
#ifndef BLOCK_RAW_H
#define BLOCK_RAW_H

#include "base/loop.h"
#include "block/block.h"

enum { RAW_IN_FLIGHT = 256, RAW_ZEROES = 1 << 20 };

/* Each: 0, or -errno with FD untouched. */
int uring_open(struct block **out, int fd, struct loop *loop);
int threads_open(struct block **out, int fd, struct loop *loop);

/* Is REQUEST well-formed and inside BLOCK? 0, -EINVAL or -EROFS. */
int raw_check(const struct block *block, const struct block_request *request);
/* Bytes of all buffers of REQUEST. */
u64 raw_bytes(const struct block_request *request);
/* fallocate mode of a DISCARD or WRITE_ZEROES. */
int raw_fallocate_mode(const struct block_request *request);
/* Errors of fallocate by which a filesystem says that it cannot do that. */
bool raw_unsupported(int error);
/* Copies what is left of IOV after SKIP bytes to OUT (room for COUNT); how many. */
int raw_skip(struct iovec *out, const struct iovec *iov, int count, u64 skip);

#endif
