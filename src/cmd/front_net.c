/*
 * Starting biga-net (see front_net.h). It is looked for beside the running
 * program, then where `make install` puts it.
 */
#define _GNU_SOURCE
#include "cmd/front_net.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/spawn.h"

enum { FRONT_NET_WAIT_MS = 10000, FRONT_NET_FRAMES = 3, FRONT_NET_STATUS = 4 };

#ifndef BIGA_LIBEXEC
#define BIGA_LIBEXEC "/usr/local/libexec/biga"
#endif

static bool
front_net_find(char *path, size_t size)
{
	static const char *const places[] = {"biga-net", "../libexec/biga/biga-net"};
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash)
			slash[1] = '\0';
		for (size_t i = 0; i < ARRAY_LEN(places); i++) {
			if ((size_t)snprintf(path, size, "%s%s", self, places[i]) < size &&
			    access(path, X_OK) == 0)
				return true;
		}
	}
	snprintf(path, size, "%s/biga-net", BIGA_LIBEXEC);
	return access(path, X_OK) == 0;
}

static int
front_net_spawn(struct front_net *net, const struct run_options *o, const char *path,
		const int fds[2])
{
	char *argv[NET_FORWARDS_MAX * 2 + 12] = {"biga-net",
						 "--frames",
						 "3",
						 "--status",
						 "4",
						 "--hostname",
						 (char *)(uintptr_t)o->config.name};
	unsigned n = 7;

	for (unsigned i = 0; i < o->forward_count; i++) {
		argv[n++] = "--forward";
		argv[n++] = (char *)(uintptr_t)o->forwards[i];
	}
	if (o->host_loopback)
		argv[n++] = "--hostloop";
	if (!o->ipv6)
		argv[n++] = "--no-ipv6";
	argv[n] = NULL;
	return spawn(&net->pid, path, argv, fds, 2);
}

int
front_net_start(struct front_net *net, const struct run_options *o, char *why, size_t size)
{
	const int buffer = 4 << 20;
	char path[PATH_MAX];
	int frames[2], status[2], rc;

	*net = (struct front_net){.frames = -1, .status = -1};
	if (!o->config.net)
		return 0;
	if (!front_net_find(path, sizeof(path))) {
		snprintf(why, size,
			 "the program biga-net is not beside biga; build or install it, or use "
			 "--net none");
		return -ENOENT;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, frames) < 0)
		goto fail;
	if (pipe2(status, O_CLOEXEC) < 0) {
		close(frames[0]);
		close(frames[1]);
		goto fail;
	}
	setsockopt(frames[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	rc = front_net_spawn(net, o, path, (const int[]){frames[1], status[1]});
	close(frames[1]);
	close(status[1]);
	net->frames = frames[0];
	net->status = status[0];
	if (rc < 0) {
		net->pid = 0;
		snprintf(why, size, "%s cannot be started: %s; install it again, or use --net none",
			 path, strerror(-rc));
	}
	return rc;
fail:
	rc = -errno;
	snprintf(why, size, "the network cannot start: %s; close some programs, or use --net none",
		 strerror(errno));
	return rc;
}

int
front_net_wait(struct front_net *net, char *why, size_t size)
{
	struct pollfd p = {.fd = net->status, .events = POLLIN};
	char line[256] = "it ended early";
	ssize_t n = -1;

	if (net->pid == 0)
		return 0;
	if (poll(&p, 1, FRONT_NET_WAIT_MS) > 0)
		n = read(net->status, line, sizeof(line) - 1);
	if (n > 0) {
		line[n] = '\0';
		line[strcspn(line, "\n")] = '\0';
	}
	if (n > 0 && strcmp(line, "ok") == 0)
		return 0;
	if (n > 0)
		snprintf(why, size, "%s", line);
	else
		snprintf(why, size, "the network process did not come up; try --net none");
	return -EIO;
}

void
front_net_close(struct front_net *net)
{
	if (net->frames >= 0)
		close(net->frames);
	if (net->status >= 0)
		close(net->status);
	net->frames = net->status = -1;
}
