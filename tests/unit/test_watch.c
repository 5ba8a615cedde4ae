/*
 * The front's watch for the host's hypervisor: it looks when the node appears or
 * changes, waits for no look, and says once what it found.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmd/front_watch.h"

static char folder[] = "/tmp/test-watch-XXXXXX";
static char node[64];

static bool
node_is_open(void)
{
	struct stat st;

	return stat(node, &st) == 0 && (st.st_mode & 0006) == 0006;
}

static bool
never_answers(void)
{
	sleep(30);
	return true;
}

static i64
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (i64)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The front's loop for MS: how many looks ended, and how many of them said yes. */
static unsigned
turn(struct front_watch *w, i64 ms, unsigned *yes)
{
	i64 end = now_ms() + ms;
	unsigned looks = 0;
	bool usable;
	int status;
	pid_t pid;

	*yes = 0;
	while (now_ms() < end) {
		struct pollfd p = {front_watch_fd(w), POLLIN, 0};

		poll(&p, 1, 10);
		front_watch_serve(w, now_ms(), p.revents != 0);
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			assert_true(front_watch_reaped(w, pid, status, &usable));
			looks++;
			*yes += usable;
		}
	}
	return looks;
}

static void
touch(const char *path, mode_t mode)
{
	close(open(path, O_CREAT | O_WRONLY, 0600));
	chmod(path, mode);
}

static void
looks_at_changes(void **state)
{
	struct front_watch w;
	char other[64];
	unsigned yes;

	front_watch_start(&w, folder, node_is_open);
	assert_true(front_watch_deadline(&w) > now_ms() + 10000);
	assert_int_equal(turn(&w, 200, &yes), 0);
	snprintf(other, sizeof(other), "%s/other", folder);
	touch(other, 0666);
	assert_int_equal(turn(&w, 600, &yes), 0); /* not about it */
	touch(node, 0600);
	assert_int_equal(turn(&w, 800, &yes), 1); /* there, but closed */
	assert_int_equal(yes, 0);
	chmod(node, 0666);
	assert_int_equal(turn(&w, 800, &yes), 1);
	assert_int_equal(yes, 1);
	front_watch_stop(&w);
	assert_int_equal(front_watch_fd(&w), -1);
	assert_int_equal(front_watch_deadline(&w), 0);
	unlink(other);
	unlink(node);
}

static void
looks_now_and_then(void **state)
{
	struct front_watch w;
	unsigned yes;

	touch(node, 0666);
	front_watch_start(&w, folder, node_is_open);
	w.next_ms = now_ms() + 100;
	w.pause_ms = 100;
	assert_in_range(turn(&w, 1000, &yes), 2, 4); /* after 100, 200, 400 ... */
	assert_true(yes >= 2);
	front_watch_stop(&w);
	unlink(node);
}

/* A look that hangs holds nobody up, and is ended with the watch. */
static void
waits_for_nobody(void **state)
{
	struct front_watch w;
	i64 before = now_ms();
	unsigned yes;
	pid_t child;
	bool usable;
	int status;

	front_watch_start(&w, folder, never_answers);
	w.next_ms = now_ms();
	assert_int_equal(turn(&w, 300, &yes), 0);
	assert_true(w.child > 0);
	assert_int_equal(front_watch_deadline(&w), 0); /* nothing to do until it has ended */
	child = w.child;
	front_watch_stop(&w);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(front_watch_reaped(&w, child, status, &usable));
	assert_false(usable);
	assert_true(now_ms() - before < 5000);
	assert_false(front_watch_reaped(&w, child, status, &usable));
}

static void
no_folder(void **state)
{
	struct front_watch w;
	unsigned yes;

	front_watch_start(&w, "/nonexistent", node_is_open);
	assert_int_equal(front_watch_fd(&w), -1);
	w.next_ms = now_ms();
	assert_int_equal(turn(&w, 300, &yes), 1); /* the slow look remains */
	front_watch_stop(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(looks_at_changes),
		cmocka_unit_test(looks_now_and_then),
		cmocka_unit_test(waits_for_nobody),
		cmocka_unit_test(no_folder),
	};
	int rc;

	if (!mkdtemp(folder))
		return 1;
	snprintf(node, sizeof(node), "%s/kvm", folder);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(folder);
	return rc;
}
