/*
 * A few threads that work on slots, for one other thread that fills and empties
 * them in order. A slot is the caller's until pool_start and again after
 * pool_wait.
 */
#ifndef STATE_POOL_H
#define STATE_POOL_H

#include "base/types.h"

enum { POOL_THREADS_MAX = 8 };

struct pool;

/* WORK is called on a thread with a slot's number: 0 or -errno. 0 or -errno. */
int pool_create(struct pool **out, unsigned slots, int (*work)(void *opaque, unsigned slot),
		void *opaque);
/* Waits for what is under way. NULL is fine. */
void pool_destroy(struct pool *pool);
void pool_start(struct pool *pool, unsigned slot);
/* What WORK gave; 0 for a slot that was never started. */
int pool_wait(struct pool *pool, unsigned slot);

#endif
