/*
 * fork and exec (see spawn.h). Between them only system calls happen.
 */
#define _GNU_SOURCE
#include "cmd/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SPAWN_FIRST = 3, SPAWN_ASIDE = 32 };

static void
spawn_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int
spawn_descriptors(const int *fds, unsigned n, int *report)
{
	int aside[SPAWN_FDS_MAX];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	/* All out of the way first: a target may be another's source. */
	*report = fcntl(*report, F_DUPFD_CLOEXEC, SPAWN_ASIDE);
	for (unsigned i = 0; i < n; i++) {
		aside[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, SPAWN_ASIDE);
		if (aside[i] < 0)
			return -errno;
	}
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		return -errno;
	for (unsigned i = 0; i < n; i++) {
		if (dup2(aside[i], SPAWN_FIRST + (int)i) < 0)
			return -errno;
	}
	/* Whatever else is open, ours or inherited, does not pass. */
	if (close_range(SPAWN_FIRST + n, ~0u, CLOSE_RANGE_CLOEXEC) < 0) {
		for (int fd = SPAWN_FIRST + (int)n; fd < 1024; fd++)
			fcntl(fd, F_SETFD, FD_CLOEXEC);
	}
	return 0;
}

static void NORETURN
spawn_child(const char *path, char *const argv[], const int *fds, unsigned n, int report)
{
	int rc = spawn_descriptors(fds, n, &report);

	spawn_signals();
	setsid();
	if (rc == 0) {
		execv(path, argv);
		rc = -errno;
	}
	if (write(report, &rc, sizeof(rc)) < 0)
		_exit(126);
	_exit(127);
}

int
spawn(pid_t *pid, const char *path, char *const argv[], const int *fds, unsigned n)
{
	int report[2];
	ssize_t got;
	int rc = 0;

	if (n > SPAWN_FDS_MAX)
		return -EINVAL;
	if (pipe2(report, O_CLOEXEC) < 0)
		return -errno;
	*pid = fork();
	if (*pid == 0)
		spawn_child(path, argv, fds, n, report[1]);
	if (*pid < 0)
		rc = -errno;
	close(report[1]);
	/* The pipe closes by exec, or says why there was none. */
	if (*pid > 0) {
		do {
			got = read(report[0], &rc, sizeof(rc));
		} while (got < 0 && errno == EINTR);
		if (got != sizeof(rc))
			rc = 0;
		else
			waitpid(*pid, NULL, 0);
	}
	close(report[0]);
	return rc;
}
