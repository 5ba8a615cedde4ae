/*
 * Probing in a child (see host_kvm_probe.h).
 */
#define _GNU_SOURCE
#include "cmd/host_kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { PROBE_REAP_TRIES = 1000, PROBE_REAP_NS = 100000, PROBE_FIRST_FD = 3 };

/* Only the report and the device stay open: a lock on a disk, say, must not live on in a child
 * that hangs. Returns the device's new descriptor; the report is PROBE_FIRST_FD. */
static int
probe_keep(int report, int device)
{
	const struct rlimit no_core = {0, 0};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setrlimit(RLIMIT_CORE, &no_core);
	for (int fd = 0; null >= 0 && fd < PROBE_FIRST_FD; fd++)
		dup2(null, fd);
	report = fcntl(report, F_DUPFD_CLOEXEC, PROBE_FIRST_FD + 2);
	device = device < 0 ? -1 : fcntl(device, F_DUPFD_CLOEXEC, PROBE_FIRST_FD + 2);
	dup2(report, PROBE_FIRST_FD);
	if (device >= 0)
		dup2(device, PROBE_FIRST_FD + 1);
	if (close_range(PROBE_FIRST_FD + 1 + (device >= 0), ~0u, 0) < 0) {
		for (int fd = PROBE_FIRST_FD + 1 + (device >= 0); fd < 1024; fd++)
			close(fd);
	}
	return device < 0 ? -1 : PROBE_FIRST_FD + 1;
}

static void
probe_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void NORETURN
probe_child(const struct engine_ops *ops, int report, int device, pid_t parent)
{
	struct engine_probe result;
	struct host_probe answer;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	probe_signals();
	device = probe_keep(report, device);
	memset(&result, 0, sizeof(result));
	ops->probe(device, &result);
	memset(&answer, 0, sizeof(answer));
	answer.usable = result.usable;
	if (result.cause)
		snprintf(answer.cause, sizeof(answer.cause), "%s", result.cause);
	memcpy(answer.evidence, result.evidence, sizeof(answer.evidence));
	memcpy(answer.fix, result.fix, sizeof(answer.fix));
	answer.kernel_speed = result.kernel_speed;
	answer.user_speed = result.user_speed;
	_exit(write(PROBE_FIRST_FD, &answer, sizeof(answer)) == sizeof(answer) ? 0 : 1);
}

static void PRINTF_LIKE(3, 4)
	probe_failed(struct host_probe *p, const char *cause, const char *fmt, ...)
{
	va_list args;

	p->usable = false;
	strcpy(p->cause, cause);
	va_start(args, fmt);
	vsnprintf(p->evidence, sizeof(p->evidence), fmt, args);
	va_end(args);
	p->fix[0] = '\0';
}

/* A killed child may be stuck in the driver; then it is not waited for. */
static int
probe_reap(pid_t child)
{
	const struct timespec pause = {0, PROBE_REAP_NS};
	int status = -1;

	for (int i = 0; i < PROBE_REAP_TRIES; i++) {
		if (waitpid(child, &status, WNOHANG) != 0)
			return status;
		nanosleep(&pause, NULL);
	}
	return -1;
}

/* Until the whole answer, the end of the pipe, or the time is up (false). */
static bool
probe_wait(int pipe, struct host_probe *p, u64 deadline)
{
	struct pollfd poll_pipe = {.fd = pipe, .events = POLLIN};
	u64 now;
	int n;

	while ((now = clock_now_ns()) < deadline) {
		n = poll(&poll_pipe, 1, (int)((deadline - now) / 1000000) + 1);
		if (n < 0 && errno != EINTR)
			return false;
		if (n <= 0)
			continue;
		/* Less than a page: written at once or not at all. */
		if (read(pipe, p, sizeof(*p)) != sizeof(*p))
			memset(p, 0, sizeof(*p));
		else
			p->done = true;
		return true;
	}
	return false;
}

static void
probe_parent(struct host_probe *p, int pipe, pid_t child, u64 start, unsigned timeout_ms)
{
	bool answered = probe_wait(pipe, p, start + (u64)timeout_ms * 1000000);
	int status;

	p->ns = clock_now_ns() - start;
	kill(child, SIGKILL);
	status = probe_reap(child);
	if (!answered)
		probe_failed(p, "no-answer", "a guest of a few instructions did not end in %u ms%s",
			     timeout_ms, status < 0 ? ", and its process cannot be killed" : "");
	else if (!p->done && status >= 0 && WIFSIGNALED(status))
		probe_failed(p, "died", "the process that tried it ended by signal %d (%s)",
			     WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (!p->done)
		probe_failed(p, "died", "the process that tried it ended without an answer");
	p->done = true;
	p->cause[sizeof(p->cause) - 1] = '\0';
	p->evidence[sizeof(p->evidence) - 1] = '\0';
	p->fix[sizeof(p->fix) - 1] = '\0';
}

void
host_probe_run(struct host_probe *p, const struct engine_ops *ops, int device, unsigned timeout_ms)
{
	u64 start = clock_now_ns(); /* the child may run, and end, before we go on */
	pid_t parent = getpid(), child;
	int ends[2];

	memset(p, 0, sizeof(*p));
	p->done = true;
	if (pipe2(ends, O_CLOEXEC) < 0) {
		probe_failed(p, "died", "no pipe: %s", strerror(errno));
		return;
	}
	/* An ignored one, inherited, would reap behind our back. */
	signal(SIGCHLD, SIG_DFL);
	child = fork();
	if (child == 0)
		probe_child(ops, ends[1], device, parent);
	close(ends[1]);
	if (child < 0)
		probe_failed(p, "died", "no process: %s", strerror(errno));
	else
		probe_parent(p, ends[0], child, start, timeout_ms);
	close(ends[0]);
}
