/*
 * The watch on /dev/kvm (see front_watch.h).
 */
#define _GNU_SOURCE
#include "cmd/front_watch.h"

#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum {
	WATCH_SETTLE_MS = 300, /* a node appears first and gets its permissions then */
	WATCH_PAUSE_MS = 30000,
	WATCH_PAUSE_MAX_MS = 600000,
};

void
front_watch_start(struct front_watch *w, const char *folder, bool (*check)(void))
{
	*w = (struct front_watch){.check = check, .pause_ms = WATCH_PAUSE_MS};
	w->events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->events >= 0 &&
	    inotify_add_watch(w->events, folder, IN_CREATE | IN_ATTRIB | IN_MOVED_TO | IN_DELETE) <
		    0) {
		close(w->events);
		w->events = -1; /* the slow look remains */
	}
	w->next_ms = clock_now_ms() + w->pause_ms;
}

void
front_watch_stop(struct front_watch *w)
{
	if (w->next_ms && w->events >= 0)
		close(w->events);
	if (w->child)
		kill(w->child, SIGKILL);
	w->events = -1;
	w->next_ms = 0;
}

int
front_watch_fd(const struct front_watch *w)
{
	return w->next_ms ? w->events : -1;
}

i64
front_watch_deadline(const struct front_watch *w)
{
	return w->child ? 0 : w->next_ms;
}

/* Whether what came is about kvm. */
static bool
watch_read(const struct front_watch *w)
{
	char buf[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)] ALIGNED(
		__alignof__(struct inotify_event));
	const struct inotify_event *event;
	bool ours = false;
	ssize_t n;

	while ((n = read(w->events, buf, sizeof(buf))) > 0) {
		for (char *at = buf; at < buf + n; at += sizeof(*event) + event->len) {
			event = (const struct inotify_event *)(const void *)at;
			ours |= (event->len && strcmp(event->name, "kvm") == 0) ||
				(event->mask & IN_Q_OVERFLOW);
		}
	}
	return ours;
}

/* The child keeps nothing but what it looks with. */
static void
watch_look(struct front_watch *w)
{
	sigset_t none;

	w->child = fork();
	if (w->child == 0) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		close_range(3, ~0u, 0);
		alarm(60);
		_exit(w->check() ? 0 : 1);
	}
	if (w->child < 0)
		w->child = 0;
}

void
front_watch_serve(struct front_watch *w, i64 now_ms, bool readable)
{
	if (!w->next_ms)
		return;
	if (readable && watch_read(w)) {
		w->pause_ms = WATCH_PAUSE_MS;
		w->next_ms = now_ms + WATCH_SETTLE_MS;
	}
	if (w->child || now_ms < w->next_ms)
		return;
	watch_look(w);
	w->next_ms = now_ms + w->pause_ms;
	if (w->pause_ms < WATCH_PAUSE_MAX_MS)
		w->pause_ms *= 2;
}

bool
front_watch_reaped(struct front_watch *w, pid_t pid, int status, bool *usable)
{
	if (!w->child || pid != w->child)
		return false;
	w->child = 0;
	*usable = w->next_ms && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	return true;
}
