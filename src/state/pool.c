/*
 * Threads and slots (see pool.h). Started slots stand in a ring; a slot is busy
 * from start until its work is done.
 */
#include "state/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

struct pool_slot {
	bool busy;  /* [p] */
	int result; /* [p] */
};

struct pool {
	pthread_mutex_t lock; /* [p] */
	pthread_cond_t started, done;
	int (*work)(void *opaque, unsigned slot);
	void *opaque;
	pthread_t threads[POOL_THREADS_MAX];
	unsigned thread_count;
	bool quit;		/* [p] */
	unsigned head, waiting; /* [p] of QUEUE */
	unsigned *queue;	/* [p] COUNT entries */
	unsigned count;
	struct pool_slot slots[];
};

static void *
pool_thread(void *opaque)
{
	struct pool *pool = opaque;
	unsigned slot;
	int result;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		while (!pool->waiting && !pool->quit)
			pthread_cond_wait(&pool->started, &pool->lock);
		if (!pool->waiting)
			break;
		slot = pool->queue[pool->head];
		pool->head = (pool->head + 1) % pool->count;
		pool->waiting--;
		pthread_mutex_unlock(&pool->lock);
		result = pool->work(pool->opaque, slot);
		pthread_mutex_lock(&pool->lock);
		pool->slots[slot].result = result;
		pool->slots[slot].busy = false;
		pthread_cond_broadcast(&pool->done);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Signals belong to the threads that wait for them. */
static int
pool_start_threads(struct pool *pool)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned wanted = cpus < 1		    ? 1
			  : cpus > POOL_THREADS_MAX ? POOL_THREADS_MAX
						    : (unsigned)cpus;
	sigset_t all, old;
	int err = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (pool->thread_count < wanted && !err) {
		err = pthread_create(&pool->threads[pool->thread_count], NULL, pool_thread, pool);
		if (!err)
			pool->thread_count++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return pool->thread_count ? 0 : -err;
}

int
pool_create(struct pool **out, unsigned slots, int (*work)(void *opaque, unsigned slot),
	    void *opaque)
{
	struct pool *pool = calloc(1, sizeof(*pool) + slots * sizeof(pool->slots[0]));
	int err = -ENOMEM;

	if (!pool)
		return err;
	pool->queue = calloc(slots, sizeof(*pool->queue));
	pool->count = slots;
	pool->work = work;
	pool->opaque = opaque;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->started, NULL);
	pthread_cond_init(&pool->done, NULL);
	if (pool->queue)
		err = pool_start_threads(pool);
	if (err) {
		pool_destroy(pool);
		return err;
	}
	*out = pool;
	return 0;
}

void
pool_destroy(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->quit = true;
	pthread_cond_broadcast(&pool->started);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->thread_count; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->started);
	pthread_cond_destroy(&pool->done);
	pthread_mutex_destroy(&pool->lock);
	free(pool->queue);
	free(pool);
}

void
pool_start(struct pool *pool, unsigned slot)
{
	pthread_mutex_lock(&pool->lock);
	pool->slots[slot].busy = true;
	pool->queue[(pool->head + pool->waiting++) % pool->count] = slot;
	pthread_cond_signal(&pool->started);
	pthread_mutex_unlock(&pool->lock);
}

int
pool_wait(struct pool *pool, unsigned slot)
{
	int result;

	pthread_mutex_lock(&pool->lock);
	while (pool->slots[slot].busy)
		pthread_cond_wait(&pool->done, &pool->lock);
	result = pool->slots[slot].result;
	pthread_mutex_unlock(&pool->lock);
	return result;
}
