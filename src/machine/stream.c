/*
 * Output gathers in a ring for a moment before the loop writes it, so that a
 * guest that prints byte by byte costs one system call a batch. Descriptors
 * that cannot be polled (files) are read and written straight away.
 *
 * Invariant: while the ring is not empty, either the timer is armed or the
 * output is watched for writing.
 */
#include "machine/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STREAM_RING = 32768, STREAM_INPUT = 512, STREAM_FLUSH_MS = 1000 };
#define STREAM_GATHER_NS 150000ull

struct stream {
	struct machine_stream fds;
	struct stream_device device;
	struct loop_fd *in_watch, *out_watch; /* the same one if fds are */
	struct loop_timer *timer;
	bool in_polled, out_polled;
	bool in_open, out_open;
	bool blocked;	   /* the host takes no more for now */
	bool device_waits; /* stream_write refused bytes */
	u8 ring[STREAM_RING];
	size_t ring_head, ring_count;
	u8 input[STREAM_INPUT]; /* read but not taken yet */
	size_t input_at, input_len;
};

static ssize_t
stream_write_fd(int fd, const u8 *data, size_t len)
{
	ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno == ENOTSOCK)
		n = write(fd, data, len);
	return n < 0 ? -errno : n;
}

/* Writes what the host takes; 0 when the ring is empty, or -EAGAIN. */
static int
stream_drain(struct stream *stream)
{
	while (stream->ring_count) {
		size_t run = STREAM_RING - stream->ring_head;
		ssize_t n = -EPIPE;

		if (run > stream->ring_count)
			run = stream->ring_count;
		if (stream->out_open)
			n = stream_write_fd(stream->fds.out, stream->ring + stream->ring_head, run);
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			return -EAGAIN;
		if (n < 0) { /* nobody reads any more: from now on output is dropped */
			stream->out_open = false;
			n = (ssize_t)run;
		}
		stream->ring_head = (stream->ring_head + (size_t)n) % STREAM_RING;
		stream->ring_count -= (size_t)n;
	}
	return 0;
}

static void
stream_watch(struct stream *stream)
{
	int in = stream->in_polled && stream->in_open && stream->input_at == stream->input_len &&
				 stream->device.input
			 ? LOOP_READ
			 : 0;
	int out = stream->out_polled && stream->blocked ? LOOP_WRITE : 0;

	if (stream->in_watch && stream->in_watch == stream->out_watch) {
		loop_set_events(stream->in_watch, in | out);
		return;
	}
	if (stream->in_watch)
		loop_set_events(stream->in_watch, in);
	if (stream->out_watch)
		loop_set_events(stream->out_watch, out);
}

static void
stream_output(struct stream *stream)
{
	stream->blocked = stream_drain(stream) == -EAGAIN;
	if (stream->device_waits && stream->ring_count < STREAM_RING / 2) {
		stream->device_waits = false;
		if (stream->device.output_ready)
			stream->device.output_ready(stream->device.opaque);
	}
}

/* Gives the device what was read; false if it did not take everything. */
static bool
stream_hand_over(struct stream *stream)
{
	if (stream->input_at < stream->input_len)
		stream->input_at += stream->device.input(stream->device.opaque,
							 stream->input + stream->input_at,
							 stream->input_len - stream->input_at);
	return stream->input_at == stream->input_len;
}

static void
stream_input(struct stream *stream)
{
	ssize_t n;

	if (!stream->device.input)
		return;
	while (stream_hand_over(stream) && stream->in_open) {
		n = read(stream->fds.in, stream->input, sizeof(stream->input));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) { /* the end of input is not the guest's end */
			stream->in_open = false;
			return;
		}
		stream->input_at = 0;
		stream->input_len = (size_t)n;
		if (stream->in_polled && n < (ssize_t)sizeof(stream->input)) {
			stream_hand_over(stream);
			return;
		}
	}
}

static void
stream_in_event(void *opaque, int events)
{
	struct stream *stream = opaque;

	if (events & LOOP_READ)
		stream_input(stream);
	if ((events & LOOP_WRITE) && stream->out_watch == stream->in_watch)
		stream_output(stream);
	stream_watch(stream);
}

static void
stream_out_event(void *opaque, int events)
{
	struct stream *stream = opaque;

	if (events & LOOP_WRITE)
		stream_output(stream);
	stream_watch(stream);
}

static void
stream_tick(void *opaque)
{
	struct stream *stream = opaque;

	if (!stream->blocked)
		stream_output(stream);
	if (!stream->in_polled || stream->input_at < stream->input_len)
		stream_input(stream);
	stream_watch(stream);
}

size_t
stream_write(struct stream *stream, const u8 *data, size_t len)
{
	size_t taken = STREAM_RING - stream->ring_count;

	if (taken > len)
		taken = len;
	if (taken < len)
		stream->device_waits = true;
	if (!stream->out_open)
		return taken;
	if (taken && !stream->ring_count && !stream->blocked)
		loop_timer_arm(stream->timer, loop_now() + STREAM_GATHER_NS);
	for (size_t i = 0; i < taken; i++)
		stream->ring[(stream->ring_head + stream->ring_count + i) % STREAM_RING] = data[i];
	stream->ring_count += taken;
	return taken;
}

void
stream_input_ready(struct stream *stream)
{
	loop_timer_arm(stream->timer, loop_now());
}

void
stream_attach(struct stream *stream, const struct stream_device *device)
{
	stream->device = *device;
	stream_input_ready(stream);
}

void
stream_flush(struct stream *stream)
{
	struct pollfd pfd = {.fd = stream->fds.out, .events = POLLOUT};
	u64 give_up = loop_now() + STREAM_FLUSH_MS * 1000000ull;

	while (stream_drain(stream) == -EAGAIN && loop_now() < give_up)
		poll(&pfd, 1, 50);
}

/* Watches FD if it can be polled: *polled tells. 0 or -errno. */
static int
stream_add_watch(struct stream *stream, struct loop *loop, int fd, loop_fd_fn *fn,
		 struct loop_fd **watch, bool *polled)
{
	int flags = fcntl(fd, F_GETFL);
	int err;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	err = loop_add_fd(loop, fd, 0, fn, stream, watch);
	*polled = !err;
	return err == -EPERM ? 0 : err;
}

int
stream_create(struct stream **out, struct loop *loop, const struct machine_stream *fds)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	int err;

	if (!stream)
		return -ENOMEM;
	stream->fds = *fds;
	stream->in_open = fds->in >= 0;
	stream->out_open = fds->out >= 0;
	err = loop_timer_create(loop, stream_tick, stream, &stream->timer);
	if (!err && stream->in_open)
		err = stream_add_watch(stream, loop, fds->in, stream_in_event, &stream->in_watch,
				       &stream->in_polled);
	if (!err && stream->out_open && fds->out != fds->in)
		err = stream_add_watch(stream, loop, fds->out, stream_out_event, &stream->out_watch,
				       &stream->out_polled);
	if (err) {
		stream_destroy(stream);
		return err;
	}
	if (fds->out == fds->in) {
		stream->out_watch = stream->in_watch;
		stream->out_polled = stream->in_polled;
	}
	*out = stream;
	return 0;
}

void
stream_destroy(struct stream *stream)
{
	if (!stream)
		return;
	if (stream->out_watch && stream->out_watch != stream->in_watch)
		loop_remove_fd(stream->out_watch);
	if (stream->in_watch)
		loop_remove_fd(stream->in_watch);
	if (stream->timer)
		loop_timer_destroy(stream->timer);
	free(stream);
}
