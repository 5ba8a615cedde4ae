/*
 * Virtio console (virtio 1.2, 5.3) with one port, the guest's hvc0.
 */
#ifndef DEVICE_VIRTIO_CONSOLE_H
#define DEVICE_VIRTIO_CONSOLE_H

#include "bus/device.h"
#include "bus/pci.h"

struct virtio_console;

struct virtio_console_host {
	void *opaque;
	/* The guest wrote LEN bytes; returns how many were taken. If fewer, the
	 * rest waits for virtio_console_resume. */
	size_t (*output)(void *opaque, const u8 *data, size_t len);
	/* The guest has room for input again after virtio_console_input took
	 * less than it was given. May be NULL. */
	void (*input_ready)(void *opaque);
};

/* HOST and CONSOLE are copied. The bus frees the device. 0 or -errno. */
int virtio_console_create(struct pci_bus *bus, unsigned slot, const struct device_host *host,
			  const struct virtio_console_host *console, struct virtio_console **out);

/* Bytes typed by the user: how many of LEN were taken. */
size_t virtio_console_input(struct virtio_console *console, const u8 *data, size_t len);
/* The output callback can take bytes again. */
void virtio_console_resume(struct virtio_console *console);
/* The terminal's size. */
void virtio_console_resize(struct virtio_console *console, u16 columns, u16 rows);

#endif
