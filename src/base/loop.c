/*
 * Descriptors are libuv polls. All timers share one timerfd: they stand in a
 * list by deadline, and the descriptor is set to the first. So arming from
 * another thread is a list insertion and at most one system call, and
 * cancelling is none: the loop then wakes once for nothing.
 *
 * Invariants: a timer in the list is armed; one being called back has left it
 * before, under the guard. timers_lock is innermost and held for no callback.
 */
#include "base/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include <uv.h>

/* Callbacks made for one wake: a timer that rearms itself in the past cannot hold the loop. */
enum { LOOP_TIMERS_A_TURN = 64 };

struct loop {
	uv_loop_t uv;
	uv_async_t wake;
	uv_poll_t timer_poll;
	pthread_mutex_t *guard;
	pthread_mutex_t timers_lock;
	struct loop_timer *timers; /* [timers_lock] armed, by deadline */
	u64 timerfd_deadline;	   /* [timers_lock] what timer_fd is set to, 0 if off */
	int timer_fd;
};

struct loop_fd {
	uv_poll_t poll;
	struct loop *loop;
	loop_fd_fn *fn;
	void *opaque;
	int events;
	bool removed;
};

struct loop_timer {
	struct loop *loop;
	loop_timer_fn *fn;
	void *opaque;
	struct loop_timer *next; /* [timers_lock] */
	u64 deadline;		 /* [timers_lock] 0 if not armed */
};

u64
loop_now(void)
{
	return clock_now_ns();
}

static void
loop_lock(struct loop *loop)
{
	if (loop->guard)
		pthread_mutex_lock(loop->guard);
}

static void
loop_unlock(struct loop *loop)
{
	if (loop->guard)
		pthread_mutex_unlock(loop->guard);
}

/* With timers_lock: makes the descriptor fire for the first timer. */
static void
loop_set_timerfd(struct loop *loop)
{
	u64 deadline = loop->timers ? loop->timers->deadline : 0;
	struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(deadline / 1000000000u),
					       .tv_nsec = (long)(deadline % 1000000000u)}};

	if (deadline == 0 || deadline == loop->timerfd_deadline)
		return;
	/* Later than set: let it wake early, that is cheaper than a call now. */
	if (loop->timerfd_deadline != 0 && deadline > loop->timerfd_deadline)
		return;
	loop->timerfd_deadline = deadline;
	timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void
loop_unlink_timer(struct loop_timer *timer)
{
	struct loop_timer **link = &timer->loop->timers;

	if (timer->deadline == 0)
		return;
	while (*link != timer)
		link = &(*link)->next;
	*link = timer->next;
	timer->deadline = 0;
}

static struct loop_timer *
loop_take_expired(struct loop *loop, u64 now, unsigned turn)
{
	struct loop_timer *timer;

	pthread_mutex_lock(&loop->timers_lock);
	timer = loop->timers;
	if (timer && timer->deadline <= now && turn < LOOP_TIMERS_A_TURN) {
		loop_unlink_timer(timer);
	} else {
		loop_set_timerfd(loop);
		timer = NULL;
	}
	pthread_mutex_unlock(&loop->timers_lock);
	return timer;
}

static void
loop_run_timers(uv_poll_t *poll, int status, int events)
{
	struct loop *loop = poll->data;
	struct loop_timer *timer;
	u64 ticks, now;

	(void)status;
	(void)events;
	loop_lock(loop);
	pthread_mutex_lock(&loop->timers_lock);
	if (read(loop->timer_fd, &ticks, sizeof(ticks)) == sizeof(ticks))
		loop->timerfd_deadline = 0;
	pthread_mutex_unlock(&loop->timers_lock);
	now = loop_now();
	for (unsigned turn = 0; (timer = loop_take_expired(loop, now, turn)) != NULL; turn++)
		timer->fn(timer->opaque);
	loop_unlock(loop);
}

static void
loop_woken(uv_async_t *async)
{
	uv_stop(async->loop);
}

static int
loop_start_timers(struct loop *loop)
{
	int rc;

	loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (loop->timer_fd < 0)
		return -errno;
	rc = uv_poll_init(&loop->uv, &loop->timer_poll, loop->timer_fd);
	if (rc < 0) {
		close(loop->timer_fd);
		return rc;
	}
	loop->timer_poll.data = loop;
	return uv_poll_start(&loop->timer_poll, UV_READABLE, loop_run_timers);
}

int
loop_create(struct loop **out, pthread_mutex_t *guard)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int rc;

	if (!loop)
		return -ENOMEM;
	loop->guard = guard;
	pthread_mutex_init(&loop->timers_lock, NULL);
	rc = uv_loop_init(&loop->uv);
	if (rc < 0)
		goto fail;
	rc = uv_async_init(&loop->uv, &loop->wake, loop_woken);
	if (rc < 0)
		goto fail_loop;
	rc = loop_start_timers(loop);
	if (rc < 0)
		goto fail_async;
	*out = loop;
	return 0;

fail_async:
	uv_close((uv_handle_t *)&loop->wake, NULL);
	uv_run(&loop->uv, UV_RUN_DEFAULT);
fail_loop:
	uv_loop_close(&loop->uv);
fail:
	pthread_mutex_destroy(&loop->timers_lock);
	free(loop);
	return rc;
}

static void
loop_fd_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
loop_close_handle(uv_handle_t *handle, void *opaque)
{
	struct loop *loop = opaque;

	if (uv_is_closing(handle))
		return;
	if (handle == (uv_handle_t *)&loop->wake || handle == (uv_handle_t *)&loop->timer_poll)
		uv_close(handle, NULL);
	else
		uv_close(handle, loop_fd_closed);
}

void
loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	uv_walk(&loop->uv, loop_close_handle, loop);
	while (uv_run(&loop->uv, UV_RUN_DEFAULT) != 0)
		;
	uv_loop_close(&loop->uv);
	close(loop->timer_fd);
	pthread_mutex_destroy(&loop->timers_lock);
	free(loop);
}

void
loop_run(struct loop *loop)
{
	uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void
loop_stop(struct loop *loop)
{
	uv_async_send(&loop->wake);
}

static void loop_apply_events(struct loop_fd *watch);

static void
loop_fd_ready(uv_poll_t *poll, int status, int events)
{
	struct loop_fd *watch = poll->data;
	struct loop *loop = watch->loop;
	int ready = 0;

	/* An error state: the callback sees it when it reads or writes. libuv has stopped
	 * the poll then, so it is started again for those who go on. */
	if (status < 0)
		ready = watch->events;
	if (events & UV_READABLE)
		ready |= LOOP_READ;
	if (events & UV_WRITABLE)
		ready |= LOOP_WRITE;
	if (status < 0)
		loop_apply_events(watch);
	loop_lock(loop);
	if (!watch->removed && (ready & watch->events))
		watch->fn(watch->opaque, ready & watch->events);
	loop_unlock(loop);
}

static void
loop_apply_events(struct loop_fd *watch)
{
	int events = 0;

	if (watch->events & LOOP_READ)
		events |= UV_READABLE;
	if (watch->events & LOOP_WRITE)
		events |= UV_WRITABLE;
	if (events)
		uv_poll_start(&watch->poll, events, loop_fd_ready);
	else
		uv_poll_stop(&watch->poll);
}

int
loop_add_fd(struct loop *loop, int fd, int events, loop_fd_fn *fn, void *opaque,
	    struct loop_fd **out)
{
	struct loop_fd *watch = calloc(1, sizeof(*watch));
	int rc;

	if (!watch)
		return -ENOMEM;
	rc = uv_poll_init(&loop->uv, &watch->poll, fd);
	if (rc < 0) {
		free(watch);
		return rc;
	}
	watch->poll.data = watch;
	watch->loop = loop;
	watch->fn = fn;
	watch->opaque = opaque;
	watch->events = events;
	loop_apply_events(watch);
	*out = watch;
	return 0;
}

void
loop_set_events(struct loop_fd *watch, int events)
{
	if (watch->removed || watch->events == events)
		return;
	watch->events = events;
	loop_apply_events(watch);
}

void
loop_remove_fd(struct loop_fd *watch)
{
	if (!watch || watch->removed)
		return;
	watch->removed = true;
	uv_close((uv_handle_t *)&watch->poll, loop_fd_closed);
}

int
loop_timer_create(struct loop *loop, loop_timer_fn *fn, void *opaque, struct loop_timer **out)
{
	struct loop_timer *timer = calloc(1, sizeof(*timer));

	if (!timer)
		return -ENOMEM;
	timer->loop = loop;
	timer->fn = fn;
	timer->opaque = opaque;
	*out = timer;
	return 0;
}

void
loop_timer_destroy(struct loop_timer *timer)
{
	if (!timer)
		return;
	loop_timer_cancel(timer);
	free(timer);
}

void
loop_timer_arm(struct loop_timer *timer, u64 deadline_ns)
{
	struct loop *loop = timer->loop;
	struct loop_timer **link = &loop->timers;

	pthread_mutex_lock(&loop->timers_lock);
	loop_unlink_timer(timer);
	timer->deadline = deadline_ns ? deadline_ns : 1;
	/* timerfd takes a signed 64-bit count of seconds and libc may be narrower: clamp. */
	if (timer->deadline > INT64_MAX)
		timer->deadline = INT64_MAX;
	while (*link && (*link)->deadline <= timer->deadline)
		link = &(*link)->next;
	timer->next = *link;
	*link = timer;
	if (loop->timers == timer)
		loop_set_timerfd(loop);
	pthread_mutex_unlock(&loop->timers_lock);
}

void
loop_timer_cancel(struct loop_timer *timer)
{
	struct loop *loop = timer->loop;

	pthread_mutex_lock(&loop->timers_lock);
	loop_unlink_timer(timer);
	pthread_mutex_unlock(&loop->timers_lock);
}

void
loop_expire(struct loop *loop, u64 now)
{
	struct loop_timer *timer;

	for (unsigned turn = 0; (timer = loop_take_expired(loop, now, turn)) != NULL; turn++)
		timer->fn(timer->opaque);
}
