/*
 * The console relay (see relay.h).
 *
 * Standard output's description is shared with other programs, so it must not
 * be made non-blocking: terminals and pipes are opened anew by /proc/self/fd.
 */
#define _GNU_SOURCE
#include "cmd/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int
relay_open_output(bool *ours)
{
	struct stat st;
	int fd = -1;

	if (fstat(STDOUT_FILENO, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	*ours = fd >= 0;
	return fd >= 0 ? fd : STDOUT_FILENO;
}

void
relay_init(struct relay *r, int console, bool terminal)
{
	memset(r, 0, offsetof(struct relay, to_vm));
	r->to_vm_len = r->to_vm_sent = r->to_user_len = r->to_user_sent = 0;
	r->console = console;
	r->in = r->out = -1;
	r->filter = terminal;
	if (console < 0)
		return;
	fcntl(console, F_SETFL, fcntl(console, F_GETFL) | O_NONBLOCK);
	r->in = STDIN_FILENO;
	r->out = relay_open_output(&r->out_ours);
}

static void
relay_end_console(struct relay *r)
{
	if (r->console >= 0)
		close(r->console);
	r->console = r->in = -1;
}

void
relay_close(struct relay *r)
{
	relay_end_console(r);
	if (r->out_ours)
		close(r->out);
	r->out = -1;
	r->out_ours = false;
}

static bool
relay_vm_waits(const struct relay *r)
{
	return r->to_vm_sent < r->to_vm_len;
}

static bool
relay_user_waits(const struct relay *r)
{
	return r->to_user_sent < r->to_user_len;
}

void
relay_polls(const struct relay *r, struct pollfd *p)
{
	p[0] = (struct pollfd){.fd = r->console,
			       .events = (short)((relay_user_waits(r) ? 0 : POLLIN) |
						 (relay_vm_waits(r) ? POLLOUT : 0))};
	/* Without an event wanted, a hang-up would wake us again and again. */
	if (p[0].events == 0)
		p[0].fd = -1;
	p[1] = (struct pollfd){.fd = relay_vm_waits(r) ? -1 : r->in, .events = POLLIN};
	p[2] = (struct pollfd){.fd = relay_user_waits(r) ? r->out : -1, .events = POLLOUT};
}

static void
relay_from_vm(struct relay *r)
{
	ssize_t n = read(r->console, r->to_user, sizeof(r->to_user));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		relay_end_console(r);
		return;
	}
	r->to_user_len = r->out >= 0 ? (size_t)n : 0; /* nobody reads: dropped */
	r->to_user_sent = 0;
}

static void
relay_to_vm(struct relay *r)
{
	ssize_t n = send(r->console, r->to_vm + r->to_vm_sent, r->to_vm_len - r->to_vm_sent,
			 MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n > 0)
		r->to_vm_sent += (size_t)n;
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		r->to_vm_len = r->to_vm_sent = 0;
}

static unsigned
relay_from_user(struct relay *r)
{
	char typed[4096];
	unsigned keys = 0;
	ssize_t n = read(r->in, typed, sizeof(typed));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		/* The end of the input is not the end of the VM. */
		r->in = -1;
		return 0;
	}
	r->to_vm_sent = 0;
	if (r->filter) {
		r->to_vm_len = terminal_filter(&r->keys, typed, (size_t)n, r->to_vm, &keys);
	} else {
		memcpy(r->to_vm, typed, (size_t)n);
		r->to_vm_len = (size_t)n;
	}
	return keys;
}

static void
relay_to_user(struct relay *r)
{
	size_t left = r->to_user_len - r->to_user_sent;
	ssize_t n;

	/* What poll called writable takes this much without blocking. */
	if (!r->out_ours && left > 4096)
		left = 4096;
	n = write(r->out, r->to_user + r->to_user_sent, left);
	if (n > 0) {
		r->to_user_sent += (size_t)n;
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		if (r->out_ours)
			close(r->out);
		r->out = -1;
		r->out_ours = false;
		r->to_user_len = r->to_user_sent = 0;
	}
}

unsigned
relay_serve(struct relay *r, const struct pollfd *p)
{
	unsigned keys = 0;

	if (p[2].fd >= 0 && p[2].revents)
		relay_to_user(r);
	if (p[1].fd >= 0 && p[1].revents)
		keys = relay_from_user(r);
	if (p[0].fd >= 0 && relay_vm_waits(r) && p[0].revents)
		relay_to_vm(r);
	if (p[0].fd >= 0 && !relay_user_waits(r) && (p[0].revents & (POLLIN | POLLHUP | POLLERR)))
		relay_from_vm(r);
	return keys;
}

bool
relay_done(const struct relay *r)
{
	return r->console < 0 && !relay_user_waits(r);
}
