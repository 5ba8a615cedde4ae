/*
 * base/loop.c and base/fdpass.c: order of timers, overtaken callbacks, stopping
 * from another thread, descriptors, the guard.
 */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/loop.h"

struct trace {
	struct loop *loop;
	struct loop_timer *timers[4];
	struct loop_fd *watch;
	int fds[2];
	char order[32];
	unsigned calls;
	pthread_mutex_t *guard;
	bool guard_held;
};

static void
note(struct trace *t, char c)
{
	t->order[t->calls++] = c;
}

static void
on_a(void *opaque)
{
	note(opaque, 'a');
}

static void
on_b(void *opaque)
{
	struct trace *t = opaque;

	note(t, 'b');
	if (t->guard)
		t->guard_held = pthread_mutex_trylock(t->guard) == EBUSY;
	loop_timer_cancel(t->timers[2]); /* due at the same moment: must not come */
}

static void
on_c(void *opaque)
{
	note(opaque, 'c');
}

static void
on_end(void *opaque)
{
	struct trace *t = opaque;

	note(t, 'e');
	loop_stop(t->loop);
}

static void
timers_come_in_order(void **state)
{
	pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
	struct trace t = {.guard = &guard};
	u64 now = loop_now();

	assert_int_equal(loop_create(&t.loop, &guard), 0);
	assert_int_equal(loop_timer_create(t.loop, on_a, &t, &t.timers[0]), 0);
	assert_int_equal(loop_timer_create(t.loop, on_b, &t, &t.timers[1]), 0);
	assert_int_equal(loop_timer_create(t.loop, on_c, &t, &t.timers[2]), 0);
	assert_int_equal(loop_timer_create(t.loop, on_end, &t, &t.timers[3]), 0);
	loop_timer_arm(t.timers[3], now + 20000000);
	loop_timer_arm(t.timers[1], now + 5000000);
	loop_timer_arm(t.timers[2], now + 5000000);
	loop_timer_arm(t.timers[0], 0); /* the past: at once */
	loop_run(t.loop);
	assert_string_equal(t.order, "abe");
	assert_true(t.guard_held);
	assert_true(loop_now() >= now + 20000000);
	for (int i = 0; i < 4; i++)
		loop_timer_destroy(t.timers[i]);
	loop_destroy(t.loop);
}

static void
on_again(void *opaque)
{
	struct trace *t = opaque;

	if (t->calls < 1000)
		t->calls++;
	else
		loop_stop(t->loop);
	loop_timer_arm(t->timers[0], 1);
}

/* A timer that is always due must leave the loop its other work. */
static void
a_greedy_timer_does_not_starve(void **state)
{
	struct trace t = {0};

	assert_int_equal(loop_create(&t.loop, NULL), 0);
	assert_int_equal(loop_timer_create(t.loop, on_again, &t, &t.timers[0]), 0);
	loop_timer_arm(t.timers[0], 1);
	loop_run(t.loop);
	assert_int_equal(t.calls, 1000);
	loop_timer_destroy(t.timers[0]);
	loop_destroy(t.loop);
}

static void *
stop_soon(void *opaque)
{
	struct timespec pause = {.tv_nsec = 5000000};

	nanosleep(&pause, NULL);
	loop_stop(opaque);
	return NULL;
}

static void
stop_from_another_thread(void **state)
{
	struct loop *loop;
	pthread_t thread;

	assert_int_equal(loop_create(&loop, NULL), 0);
	loop_stop(loop); /* before run counts too */
	loop_run(loop);
	pthread_create(&thread, NULL, stop_soon, loop);
	loop_run(loop);
	pthread_join(thread, NULL);
	loop_destroy(loop);
}

static void
on_readable(void *opaque, int events)
{
	struct trace *t = opaque;
	char byte;

	assert_int_equal(events, LOOP_READ);
	if (read(t->fds[0], &byte, 1) == 1)
		note(t, byte);
	if (byte == '3') {
		loop_remove_fd(t->watch);
		loop_stop(t->loop);
	}
}

static void
descriptors_are_watched(void **state)
{
	struct trace t = {0};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, t.fds), 0);
	assert_int_equal(loop_create(&t.loop, NULL), 0);
	assert_int_equal(loop_add_fd(t.loop, t.fds[0], 0, on_readable, &t, &t.watch), 0);
	assert_int_equal(write(t.fds[1], "1234", 4), 4);
	loop_set_events(t.watch, LOOP_READ);
	loop_run(t.loop);
	assert_string_equal(t.order, "123");
	loop_destroy(t.loop);
	close(t.fds[0]);
	close(t.fds[1]);
}

static void
descriptors_cross_a_socket(void **state)
{
	int pair[2], fds[3], out[2] = {-1, -1};
	size_t n = 2;
	char text[8] = "";

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	for (int i = 0; i < 3; i++)
		fds[i] = dup(STDERR_FILENO);
	assert_int_equal(fdpass_send(pair[0], "give", 5, fds, 3), 5);
	assert_int_equal(fdpass_recv(pair[1], text, sizeof(text), out, &n), 5);
	assert_string_equal(text, "give");
	assert_int_equal(n, 2); /* the third was closed */
	assert_true(out[0] >= 0 && out[1] >= 0 && out[0] != fds[0]);
	assert_int_equal(fdpass_send(pair[0], "x", 0, fds, 1), -EINVAL);
	assert_int_equal(fdpass_send(pair[0], "x", 1, fds, FDPASS_MAX + 1), -EINVAL);
	close(pair[0]);
	n = 0;
	assert_int_equal(fdpass_recv(pair[1], text, sizeof(text), out, &n), 0);
	close(pair[1]);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(out[0]);
	close(out[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timers_come_in_order),
		cmocka_unit_test(a_greedy_timer_does_not_starve),
		cmocka_unit_test(stop_from_another_thread),
		cmocka_unit_test(descriptors_are_watched),
		cmocka_unit_test(descriptors_cross_a_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
