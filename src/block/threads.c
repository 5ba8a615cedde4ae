/*
 * Raw images by a pool of threads that call preadv, pwritev, fdatasync and
 * fallocate: what works where io_uring is refused.
 *
 * A request goes batch -> queue -> a worker -> finished -> its done callback.
 * Workers never take the machine's lock: completions are handed over by an
 * eventfd on the loop, or picked up by drain.
 */
#define _GNU_SOURCE
#include "block/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_WORKERS = 4, THREADS_STACK = 256 << 10 };

struct request_list {
	struct block_request *first, **end;
};

/* [g] the loop's guard, [m] mutex, [c] constant after opening */
struct threads {
	struct block block;
	int fd;			   /* [c] */
	int eventfd;		   /* [c] */
	struct loop_fd *watch;	   /* [c] */
	void *zeroes;		   /* [c] RAW_ZEROES bytes */
	struct request_list batch; /* [g] submitted, not kicked */
	unsigned in_flight;	   /* [g] submitted, not done */
	pthread_mutex_t mutex;
	pthread_cond_t work, progress;
	struct request_list queue;    /* [m] */
	struct request_list finished; /* [m] */
	bool stop;		      /* [m] */
	unsigned workers;	      /* [g] */
	pthread_t worker[THREADS_WORKERS];
};

static void
list_init(struct request_list *list)
{
	list->first = NULL;
	list->end = &list->first;
}

static void
list_add(struct request_list *list, struct block_request *request)
{
	request->next = NULL;
	*list->end = request;
	list->end = &request->next;
}

static struct block_request *
list_take(struct request_list *list)
{
	struct block_request *request = list->first;

	if (request) {
		list->first = request->next;
		if (!list->first)
			list->end = &list->first;
	}
	return request;
}

/* Moves all of FROM to the end of TO. */
static void
list_move(struct request_list *to, struct request_list *from)
{
	if (!from->first)
		return;
	*to->end = from->first;
	to->end = from->end;
	list_init(from);
}

/* ---- in a worker ---- */

static ssize_t
threads_call(int fd, enum block_op op, const struct iovec *iov, int count, u64 offset)
{
	ssize_t n;

	do {
		n = op == BLOCK_READ ? preadv(fd, iov, count, (off_t)offset)
				     : pwritev(fd, iov, count, (off_t)offset);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* The rest of a transfer of which DONE bytes are through. */
static int
threads_continue(int fd, const struct block_request *request, u64 done, u64 total)
{
	struct iovec *rest = malloc((size_t)request->iov_count * sizeof(*rest));
	ssize_t n = 0;
	int count;

	if (!rest)
		return -ENOMEM;
	while (done < total) {
		count = raw_skip(rest, request->iov, request->iov_count, done);
		n = threads_call(fd, request->op, rest, count, request->offset + done);
		if (n <= 0)
			break;
		done += (u64)n;
	}
	free(rest);
	if (done == total)
		return 0;
	return n < 0 ? (int)n : -EIO; /* the file became shorter under us */
}

static int
threads_transfer(int fd, const struct block_request *request)
{
	u64 total = raw_bytes(request);
	ssize_t n =
		threads_call(fd, request->op, request->iov, request->iov_count, request->offset);

	if (n < 0)
		return (int)n;
	return (u64)n == total ? 0 : threads_continue(fd, request, (u64)n, total);
}

static int
threads_write_zeroes(struct threads *t, const struct block_request *request)
{
	struct iovec iov = {.iov_base = t->zeroes};
	u64 done = 0;
	ssize_t n;

	while (done < request->length) {
		iov.iov_len = RAW_ZEROES;
		if (iov.iov_len > request->length - done)
			iov.iov_len = request->length - done;
		n = threads_call(t->fd, BLOCK_WRITE, &iov, 1, request->offset + done);
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		done += (u64)n;
	}
	return 0;
}

static int
threads_allocate(struct threads *t, const struct block_request *request)
{
	int error;

	do {
		error = fallocate(t->fd, raw_fallocate_mode(request), (off_t)request->offset,
				  (off_t)request->length)
				? -errno
				: 0;
	} while (error == -EINTR);
	if (!raw_unsupported(error))
		return error;
	/* To discard is to advise; zeroes must be zeroes. */
	return request->op == BLOCK_DISCARD ? 0 : threads_write_zeroes(t, request);
}

static int
threads_perform(struct threads *t, const struct block_request *request)
{
	switch (request->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		return threads_transfer(t->fd, request);
	case BLOCK_FLUSH:
		return fdatasync(t->fd) ? -errno : 0;
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		return threads_allocate(t, request);
	}
	return -EINVAL;
}

static void
threads_signal(struct threads *t)
{
	u64 one = 1;

	/* Only a full counter can fail, and then the loop is signalled anyway. */
	if (write(t->eventfd, &one, sizeof(one)) < 0)
		return;
}

static void *
threads_work(void *opaque)
{
	struct threads *t = opaque;
	struct block_request *request;
	bool first;

	pthread_mutex_lock(&t->mutex);
	for (;;) {
		request = list_take(&t->queue);
		if (!request && t->stop)
			break;
		if (!request) {
			pthread_cond_wait(&t->work, &t->mutex);
			continue;
		}
		pthread_mutex_unlock(&t->mutex);
		request->result = threads_perform(t, request);
		pthread_mutex_lock(&t->mutex);
		first = !t->finished.first;
		list_add(&t->finished, request);
		pthread_cond_signal(&t->progress);
		if (first)
			threads_signal(t);
	}
	pthread_mutex_unlock(&t->mutex);
	return NULL;
}

/* ---- under the guard ---- */

static struct threads *
threads_of(struct block *block)
{
	return CONTAINER_OF(block, struct threads, block);
}

static void
threads_complete(struct threads *t, struct request_list *list)
{
	struct block_request *request;

	while ((request = list_take(list))) {
		t->in_flight--;
		request->done(request->opaque, request->result);
	}
}

static void
threads_ready(void *opaque, int events)
{
	struct threads *t = opaque;
	struct request_list list;
	u64 count;

	(void)events;
	if (read(t->eventfd, &count, sizeof(count)) < 0)
		return;
	list_init(&list);
	pthread_mutex_lock(&t->mutex);
	list_move(&list, &t->finished);
	pthread_mutex_unlock(&t->mutex);
	threads_complete(t, &list);
}

static int
threads_submit(struct block *block, struct block_request *request)
{
	struct threads *t = threads_of(block);
	int error = raw_check(block, request);

	if (error)
		return error;
	list_add(&t->batch, request);
	t->in_flight++;
	return 0;
}

static void
threads_kick(struct block *block)
{
	struct threads *t = threads_of(block);
	bool many;

	if (!t->batch.first)
		return;
	many = t->batch.first->next != NULL;
	pthread_mutex_lock(&t->mutex);
	list_move(&t->queue, &t->batch);
	pthread_mutex_unlock(&t->mutex);
	if (many)
		pthread_cond_broadcast(&t->work);
	else
		pthread_cond_signal(&t->work);
}

/* With the mutex: waits for a finished request, at most until UNTIL if that is not NULL. */
static int
threads_wait(struct threads *t, const struct timespec *until)
{
	int error = 0;

	while (!t->finished.first && !error) {
		if (until)
			error = pthread_cond_timedwait(&t->progress, &t->mutex, until);
		else
			pthread_cond_wait(&t->progress, &t->mutex);
	}
	return -error;
}

static int
threads_drain(struct block *block, u64 deadline_ns)
{
	struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
				 .tv_nsec = (long)(deadline_ns % 1000000000u)};
	struct threads *t = threads_of(block);
	struct request_list list;
	int error = 0;

	while (t->in_flight && !error) {
		threads_kick(block);
		list_init(&list);
		pthread_mutex_lock(&t->mutex);
		error = threads_wait(t, deadline_ns ? &until : NULL);
		list_move(&list, &t->finished);
		pthread_mutex_unlock(&t->mutex);
		threads_complete(t, &list);
	}
	return error;
}

/* Its waits end by the monotonic clock. */
static void
threads_init_progress(struct threads *t)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->progress, &attr);
	pthread_condattr_destroy(&attr);
}

static void
threads_stop(struct threads *t)
{
	pthread_mutex_lock(&t->mutex);
	t->stop = true;
	pthread_mutex_unlock(&t->mutex);
	pthread_cond_broadcast(&t->work);
	while (t->workers > 0)
		pthread_join(t->worker[--t->workers], NULL);
}

static void
threads_free(struct threads *t)
{
	if (t->watch)
		loop_remove_fd(t->watch);
	if (t->eventfd >= 0)
		close(t->eventfd);
	if (t->zeroes != MAP_FAILED)
		munmap(t->zeroes, RAW_ZEROES);
	pthread_cond_destroy(&t->work);
	pthread_cond_destroy(&t->progress);
	pthread_mutex_destroy(&t->mutex);
	free(t);
}

static void
threads_close(struct block *block)
{
	struct threads *t = threads_of(block);

	threads_drain(block, 0);
	threads_stop(t);
	close(t->fd);
	threads_free(t);
}

static const struct block_ops threads_ops = {
	.name = "threads",
	.submit = threads_submit,
	.kick = threads_kick,
	.drain = threads_drain,
	.close = threads_close,
};

/* Workers take no signals: those belong to the threads that wait for them. */
static int
threads_start(struct threads *t)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int error = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREADS_STACK);
	while (!error && t->workers < THREADS_WORKERS) {
		error = pthread_create(&t->worker[t->workers], &attr, threads_work, t);
		if (!error)
			t->workers++;
	}
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return t->workers ? 0 : -error;
}

int
threads_open(struct block **out, int fd, struct loop *loop)
{
	struct threads *t = calloc(1, sizeof(*t));
	int error;

	if (!t)
		return -ENOMEM;
	t->block.ops = &threads_ops;
	t->fd = fd;
	list_init(&t->batch);
	list_init(&t->queue);
	list_init(&t->finished);
	pthread_mutex_init(&t->mutex, NULL);
	pthread_cond_init(&t->work, NULL);
	threads_init_progress(t);
	t->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->zeroes = mmap(NULL, RAW_ZEROES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	error = t->eventfd < 0 || t->zeroes == MAP_FAILED ? -errno : 0;
	if (!error)
		error = loop_add_fd(loop, t->eventfd, LOOP_READ, threads_ready, t, &t->watch);
	if (!error)
		error = threads_start(t);
	if (error) {
		threads_free(t);
		return error;
	}
	*out = &t->block;
	return 0;
}
