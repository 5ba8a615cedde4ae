/* Raw images, the same tests on both engines. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <signal.h>

#include "block/block.h"

enum { SIZE = 8 << 20 };

struct fixture {
	enum block_engine engine;
	struct loop *loop;
	struct loop_timer *timer;
	struct block *block;
	int fd; /* of our own, to look at the image */
	unsigned done, wanted, ticks;
	int result;
};

static void
tick(void *opaque)
{
	struct fixture *f = opaque;

	if (f->done >= f->wanted || f->ticks++ > 10000)
		loop_stop(f->loop);
	else
		loop_timer_arm(f->timer, loop_now() + 1000000);
}

static void
wait_for(struct fixture *f, unsigned count)
{
	f->wanted = count;
	f->ticks = 0;
	loop_timer_arm(f->timer, loop_now());
	loop_run(f->loop);
	assert_int_equal(f->done, count);
}

static void
done(void *opaque, int result)
{
	struct fixture *f = opaque;

	f->done++;
	if (result)
		f->result = result;
}

static void
open_image(struct fixture *f, int fd, bool readonly)
{
	assert_int_equal(block_open_raw(&f->block, fd, readonly, f->loop, f->engine), 0);
}

static int
make_image(void)
{
	char name[] = "/tmp/biga-test-block-XXXXXX";
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	return fd;
}

static int
setup(struct fixture *f, enum block_engine engine)
{
	memset(f, 0, sizeof(*f));
	f->engine = engine;
	f->fd = make_image();
	assert_int_equal(loop_create(&f->loop, NULL), 0);
	assert_int_equal(loop_timer_create(f->loop, tick, f, &f->timer), 0);
	open_image(f, dup(f->fd), false);
	return 0;
}

static void
teardown(struct fixture *f)
{
	f->block->ops->close(f->block);
	loop_timer_destroy(f->timer);
	loop_destroy(f->loop);
	close(f->fd);
}

static int
perform(struct fixture *f, struct block_request *r)
{
	int error;

	r->done = done;
	r->opaque = f;
	f->done = 0;
	f->result = 0;
	error = f->block->ops->submit(f->block, r);
	if (error)
		return error;
	f->block->ops->kick(f->block);
	wait_for(f, 1);
	return f->result;
}

static int
transfer(struct fixture *f, enum block_op op, void *buf, size_t len, u64 offset)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	struct block_request r = {.op = op, .offset = offset, .iov = &iov, .iov_count = 1};

	return perform(f, &r);
}

static void
test_read_write(struct fixture *f)
{
	static u8 out[64 << 10], in[64 << 10];
	struct iovec iov[3] = {{in, 512}, {in + 512, 1024}, {in + 1536, sizeof(in) - 1536}};
	struct block_request r = {.op = BLOCK_READ, .offset = 4096, .iov = iov, .iov_count = 3};
	struct block_request flush = {.op = BLOCK_FLUSH};

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (u8)(i * 7 + i / 256);
	assert_int_equal(f->block->size, SIZE);
	assert_int_equal(transfer(f, BLOCK_WRITE, out, sizeof(out), 4096), 0);
	assert_int_equal(pread(f->fd, in, sizeof(in), 4096), sizeof(in));
	assert_memory_equal(in, out, sizeof(in));
	memset(in, 0, sizeof(in));
	assert_int_equal(perform(f, &r), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(perform(f, &flush), 0);
}

static void
test_bounds(struct fixture *f)
{
	static u8 buf[4096];

	assert_int_equal(transfer(f, BLOCK_READ, buf, 512, SIZE), -EINVAL);
	assert_int_equal(transfer(f, BLOCK_READ, buf, 1024, SIZE - 512), -EINVAL);
	assert_int_equal(transfer(f, BLOCK_READ, buf, 512, UINT64_MAX - 511), -EINVAL);
	assert_int_equal(transfer(f, BLOCK_READ, buf, 100, 0), -EINVAL);
	assert_int_equal(transfer(f, BLOCK_READ, buf, 512, 100), -EINVAL);
	assert_int_equal(transfer(f, BLOCK_READ, buf, 0, 0), -EINVAL);
	assert_int_equal(transfer(f, BLOCK_READ, buf, 512, SIZE - 512), 0);
}

static void
test_erase(struct fixture *f)
{
	static u8 buf[2 << 20], zeroes[2 << 20];
	struct block_request r = {.op = BLOCK_WRITE_ZEROES, .offset = 512, .length = 8192};
	struct stat before, after;

	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(transfer(f, BLOCK_WRITE, buf, sizeof(buf), 0), 0);
	assert_int_equal(perform(f, &r), 0);
	assert_int_equal(pread(f->fd, buf, sizeof(buf), 0), sizeof(buf));
	assert_int_equal(buf[511], 0x5a);
	assert_memory_equal(buf + 512, zeroes, 8192);
	assert_int_equal(buf[512 + 8192], 0x5a);
	r.unmap = true;
	r.offset = 0;
	r.length = 1 << 20;
	assert_int_equal(perform(f, &r), 0);
	assert_int_equal(pread(f->fd, buf, sizeof(buf), 0), sizeof(buf));
	assert_memory_equal(buf, zeroes, 1 << 20);
	/* DISCARD gives blocks back to the filesystem. */
	fsync(f->fd);
	fstat(f->fd, &before);
	r.op = BLOCK_DISCARD;
	r.length = 2 << 20;
	assert_int_equal(perform(f, &r), 0);
	fstat(f->fd, &after);
	assert_true(after.st_blocks < before.st_blocks);
	assert_int_equal(after.st_size, SIZE);
	r.offset = SIZE - 512;
	assert_int_equal(perform(f, &r), -EINVAL);
}

/* More at once than there are slots, all in one batch. */
static void
test_many(struct fixture *f)
{
	enum { MANY = 1000 };
	static u32 buf[MANY][128];
	static struct iovec iov[MANY];
	static struct block_request r[MANY];
	u32 back[128];

	f->done = 0;
	f->result = 0;
	for (u32 i = 0; i < MANY; i++) {
		for (unsigned j = 0; j < 128; j++)
			buf[i][j] = i * 1000 + j;
		iov[i] = (struct iovec){buf[i], 512};
		r[i] = (struct block_request){.op = BLOCK_WRITE,
					      .offset = 512 * (MANY - 1 - i),
					      .iov = &iov[i],
					      .iov_count = 1,
					      .done = done,
					      .opaque = f};
		assert_int_equal(f->block->ops->submit(f->block, &r[i]), 0);
	}
	f->block->ops->kick(f->block);
	wait_for(f, MANY);
	assert_int_equal(f->result, 0);
	for (u32 i = 0; i < MANY; i++) {
		assert_int_equal(pread(f->fd, back, 512, 512 * (MANY - 1 - i)), 512);
		assert_memory_equal(back, buf[i], 512);
	}
}

static void
test_drain(struct fixture *f)
{
	static u8 buf[64][4096];
	static struct iovec iov[64];
	static struct block_request r[64];

	f->done = 0;
	for (unsigned i = 0; i < 64; i++) {
		iov[i] = (struct iovec){buf[i], 4096};
		r[i] = (struct block_request){.op = i % 9 ? BLOCK_WRITE : BLOCK_FLUSH,
					      .offset = 4096 * i,
					      .iov = &iov[i],
					      .iov_count = 1,
					      .done = done,
					      .opaque = f};
		assert_int_equal(f->block->ops->submit(f->block, &r[i]), 0);
	}
	/* Not kicked: drain starts them, and needs no loop. */
	assert_int_equal(f->block->ops->drain(f->block, 0), 0);
	assert_int_equal(f->done, 64);
}

static void
test_readonly(struct fixture *f)
{
	struct block_request r = {.op = BLOCK_DISCARD, .length = 512};
	u8 buf[512];

	f->block->ops->close(f->block);
	open_image(f, dup(f->fd), true);
	assert_int_equal(transfer(f, BLOCK_WRITE, buf, 512, 0), -EROFS);
	assert_int_equal(perform(f, &r), -EROFS);
	assert_int_equal(transfer(f, BLOCK_READ, buf, 512, 0), 0);
}

/* Host errors come back as errors, and the disk goes on. */
static void
test_host_errors(struct fixture *f)
{
	static u8 buf[8192];
	struct rlimit old, limit;

	/* The file became shorter: a read that gets only a part is an error. */
	assert_int_equal(ftruncate(f->fd, 4096 + 512), 0);
	assert_int_equal(transfer(f, BLOCK_READ, buf, sizeof(buf), 0), -EIO);
	assert_int_equal(ftruncate(f->fd, SIZE), 0);
	assert_int_equal(transfer(f, BLOCK_READ, buf, sizeof(buf), 0), 0);
	/* A write that the host refuses: the file may not grow that far. */
	assert_int_equal(ftruncate(f->fd, 0), 0);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	limit = old;
	limit.rlim_cur = 4096;
	setrlimit(RLIMIT_FSIZE, &limit);
	assert_int_equal(transfer(f, BLOCK_WRITE, buf, sizeof(buf), 4096), -EFBIG);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(transfer(f, BLOCK_WRITE, buf, sizeof(buf), 4096), 0);
}

static void
test_not_an_image(struct fixture *f)
{
	struct block *block;
	int fds[2], fd;

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(block_open_raw(&block, fds[0], false, f->loop, f->engine), -EINVAL);
	fd = open("/dev/null", O_RDWR);
	assert_int_equal(block_open_raw(&block, fd, false, f->loop, f->engine), -EINVAL);
	close(fd);
	close(fds[0]);
	close(fds[1]);
}

typedef void test_fn(struct fixture *f);

static test_fn *const all[] = {test_read_write, test_bounds,   test_erase,	 test_many,
			       test_drain,	test_readonly, test_host_errors, test_not_an_image};

static void
run_all(enum block_engine engine)
{
	struct fixture f;

	for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
		setup(&f, engine);
		all[i](&f);
		teardown(&f);
	}
}

static void
test_threads(void **state)
{
	run_all(BLOCK_THREADS);
}

static void
test_io_uring(void **state)
{
	struct loop *loop;
	struct block *block;
	int fd = make_image(), error;

	assert_int_equal(loop_create(&loop, NULL), 0);
	error = block_open_raw(&block, fd, false, loop, BLOCK_IO_URING);
	if (error == -ENOSYS || error == -EPERM) {
		/* Refused by this host, as containers do: AUTO must still work. */
		print_message("io_uring is refused here: error %d\n", -error);
		assert_int_equal(block_open_raw(&block, fd, false, loop, BLOCK_AUTO), 0);
		assert_string_equal(block->ops->name, "threads");
	} else {
		assert_int_equal(error, 0);
		assert_string_equal(block->ops->name, "io_uring");
		run_all(BLOCK_IO_URING);
	}
	block->ops->close(block);
	loop_destroy(loop);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_io_uring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
