/*
 * Terminal modes and keys (see terminal.h).
 */
#define _GNU_SOURCE
#include "cmd/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TERMINAL_PREFIX = 0x01 };

const char terminal_help[] = "\nCtrl-A x       end the VM at once\n"
			     "Ctrl-A p       press its power button\n"
			     "Ctrl-A s       move it to the other hypervisor\n"
			     "Ctrl-A h       this help\n"
			     "Ctrl-A Ctrl-A  send Ctrl-A\n";

int
terminal_fill_standard(void)
{
	/* The wrong way round, so that nothing takes them for usable. */
	static const int flags[] = {O_WRONLY, O_RDONLY, O_RDWR};

	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFL) < 0 && open("/dev/null", flags[fd]) != fd)
			return -EBADF;
	}
	return 0;
}

static bool
terminal_usable(int fd, int useless_mode)
{
	int mode = fcntl(fd, F_GETFL);

	return mode >= 0 && (mode & O_ACCMODE) != useless_mode;
}

int
terminal_open(struct terminal *t, char *why, size_t size)
{
	pid_t group;

	memset(t, 0, sizeof(*t));
	t->fd = t->keeper_pipe = -1;
	if (!terminal_usable(STDIN_FILENO, O_WRONLY) || !terminal_usable(STDOUT_FILENO, O_RDONLY)) {
		snprintf(why, size,
			 "no terminal: standard input or output is closed; use --console none or "
			 "--console FILE");
		return -ENOTTY;
	}
	if (!isatty(STDIN_FILENO))
		return 0;
	group = tcgetpgrp(STDIN_FILENO);
	if (group > 0 && group != getpgrp()) {
		snprintf(why, size,
			 "no terminal: this job runs in the background; bring it to the "
			 "foreground, or use --console none or --console FILE");
		return -ENOTTY;
	}
	if (tcgetattr(STDIN_FILENO, &t->saved) < 0) {
		snprintf(why, size,
			 "no terminal: its modes cannot be read: %s; use --console none or "
			 "--console FILE",
			 strerror(errno));
		return -ENOTTY;
	}
	t->fd = STDIN_FILENO;
	return 0;
}

bool
terminal_is(const struct terminal *t)
{
	return t->fd >= 0;
}

/* Waits for the front's word that all is well, or its end. */
static void NORETURN
terminal_keep(int tty, int pipe_fd, const struct termios *saved)
{
	sigset_t all;
	ssize_t n;
	char byte;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "biga-keeper");
	/* Only these two, so that nobody waits for a pipe that this process holds. */
	if (dup2(tty, 0) < 0 || dup2(pipe_fd, 1) < 0)
		_exit(1);
	close_range(2, ~0u, 0);
	/* Outside the terminal's session no job control stops tcsetattr. */
	setsid();
	do {
		n = read(1, &byte, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 0)
		tcsetattr(0, TCSANOW, saved);
	_exit(0);
}

static void
terminal_start_keeper(struct terminal *t)
{
	int ends[2];

	if (t->keeper || pipe2(ends, O_CLOEXEC) < 0)
		return;
	t->keeper = fork();
	if (t->keeper == 0) {
		close(ends[1]);
		terminal_keep(t->fd, ends[0], &t->saved);
	}
	close(ends[0]);
	if (t->keeper < 0) {
		/* Without it only SIGKILL of this very process leaves the terminal raw. */
		t->keeper = 0;
		close(ends[1]);
		return;
	}
	t->keeper_pipe = ends[1];
}

int
terminal_raw(struct terminal *t)
{
	struct termios raw;

	if (!terminal_is(t) || t->raw)
		return 0;
	terminal_start_keeper(t);
	raw = t->saved;
	raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | IGNCR | INLCR | INPCK | ISTRIP | IXON | PARMRK);
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
	raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (tcsetattr(t->fd, TCSANOW, &raw) < 0)
		return -errno;
	t->raw = true;
	return 0;
}

void
terminal_restore(struct terminal *t)
{
	if (!t->raw)
		return;
	tcsetattr(t->fd, TCSANOW, &t->saved);
	t->raw = false;
}

void
terminal_close(struct terminal *t)
{
	terminal_restore(t);
	if (t->keeper == 0)
		return;
	if (write(t->keeper_pipe, "q", 1) == 1)
		waitpid(t->keeper, NULL, 0);
	close(t->keeper_pipe);
	t->keeper = 0;
	t->keeper_pipe = -1;
}

size_t
terminal_filter(struct terminal_keys *state, const char *in, size_t len, char *out, unsigned *keys)
{
	size_t n = 0;

	*keys = 0;
	for (size_t i = 0; i < len; i++) {
		char c = in[i];

		if (!state->prefix) {
			state->prefix = c == TERMINAL_PREFIX;
			if (!state->prefix)
				out[n++] = c;
			continue;
		}
		state->prefix = false;
		switch (c) {
		case 'x':
			*keys |= KEY_QUIT;
			break;
		case 'h':
		case '?':
			*keys |= KEY_HELP;
			break;
		case 'p':
			*keys |= KEY_POWER;
			break;
		case 's':
			*keys |= KEY_SWITCH;
			break;
		case TERMINAL_PREFIX:
			out[n++] = c;
			break;
		default:
			/* Not ours: the guest gets both, since Ctrl-A means something there too. */
			out[n++] = TERMINAL_PREFIX;
			out[n++] = c;
		}
	}
	return n;
}
