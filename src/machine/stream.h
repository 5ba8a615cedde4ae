/*
 * A guest's byte stream to and from the host's descriptors: buffered both
 * ways, never blocking a vCPU, with back-pressure to the device. Under the
 * machine's lock; descriptors are touched on the loop's thread only.
 */
#ifndef MACHINE_STREAM_H
#define MACHINE_STREAM_H

#include "base/loop.h"
#include "base/types.h"
#include "machine/machine.h"

struct stream;

/* The device at the guest's end. */
struct stream_device {
	void *opaque;
	/* Bytes from the host: how many of LEN were taken. */
	size_t (*input)(void *opaque, const u8 *data, size_t len);
	/* stream_write has room again after it took less than it was given. */
	void (*output_ready)(void *opaque);
};

/* FDS stay the caller's. 0 or -errno. */
int stream_create(struct stream **out, struct loop *loop, const struct machine_stream *fds);
void stream_destroy(struct stream *stream);
/* From now on input arrives. */
void stream_attach(struct stream *stream, const struct stream_device *device);

/* Bytes from the guest: how many of LEN were taken. */
size_t stream_write(struct stream *stream, const u8 *data, size_t len);
/* The device has room for input again. */
void stream_input_ready(struct stream *stream);
/* Loop's thread, vCPUs standing: writes what is left, waiting for a slow reader a while. */
void stream_flush(struct stream *stream);

#endif
