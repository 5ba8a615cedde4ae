/*
 * sendmsg and recvmsg with one SCM_RIGHTS control message. What arrives beyond
 * the caller's room is closed: a peer cannot leave descriptors behind in us.
 */
#include "base/fdpass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

union fdpass_control {
	char bytes[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
	struct cmsghdr align;
};

ssize_t
fdpass_send(int socket, const void *data, size_t len, const int *fds, size_t n)
{
	union fdpass_control control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *header;
	ssize_t sent;

	/* Without a byte of data a stream socket carries no descriptors. */
	if (n > FDPASS_MAX || (n > 0 && len == 0))
		return -EINVAL;
	if (n > 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		header = CMSG_FIRSTHDR(&msg);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(header), fds, n * sizeof(int));
	}
	do {
		sent = sendmsg(socket, &msg, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

static void
fdpass_take(const struct cmsghdr *header, int *fds, size_t room, size_t *taken)
{
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	const unsigned char *from = CMSG_DATA(header);
	int fd;

	for (size_t i = 0; i < count; i++) {
		memcpy(&fd, from + i * sizeof(int), sizeof(fd));
		if (*taken < room)
			fds[(*taken)++] = fd;
		else
			close(fd);
	}
}

ssize_t
fdpass_recv(int socket, void *data, size_t len, int *fds, size_t *n)
{
	union fdpass_control control;
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	size_t room = *n;
	ssize_t got;

	*n = 0;
	do {
		got = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h; h = CMSG_NXTHDR(&msg, h)) {
		if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
			fdpass_take(h, fds, room, n);
	}
	return got;
}
