/*
 * One thread's event loop (libuv): descriptors that become readable or
 * writable, and timers on CLOCK_MONOTONIC with nanosecond resolution
 * (timerfd).  All callbacks run on the loop's thread, with the loop's guard
 * held if one was given.  Everything here but loop_stop and loop_timer_* is
 * called on that thread, or before it runs.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <pthread.h>

#include "base/types.h"

struct loop;
struct loop_fd;
struct loop_timer;

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

typedef void loop_fd_fn(void *opaque, int events);
typedef void loop_timer_fn(void *opaque);

/* GUARD, if not NULL, is locked around every callback. 0 or -errno. */
int loop_create(struct loop **out, pthread_mutex_t *guard);
void loop_destroy(struct loop *loop);

/* Runs until loop_stop, which any thread may call. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* Watches FD, which stays the caller's. EVENTS may be 0 for now. */
int loop_add_fd(struct loop *loop, int fd, int events, loop_fd_fn *fn, void *opaque,
		struct loop_fd **out);
void loop_set_events(struct loop_fd *watch, int events);
void loop_remove_fd(struct loop_fd *watch);

/* A one-shot timer. Arm and cancel may be called from any thread that holds
 * the guard; a callback that a later arm or cancel has overtaken is not made. */
int loop_timer_create(struct loop *loop, loop_timer_fn *fn, void *opaque, struct loop_timer **out);
void loop_timer_destroy(struct loop_timer *timer);
void loop_timer_arm(struct loop_timer *timer, u64 deadline_ns);
void loop_timer_cancel(struct loop_timer *timer);

/* Makes the callbacks of timers that are due at NOW without waiting for the loop's turn. With the
 * guard, from a callback or while the loop does not run. */
void loop_expire(struct loop *loop, u64 now);

/* CLOCK_MONOTONIC in nanoseconds. */
u64 loop_now(void);

#endif
