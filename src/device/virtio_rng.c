/*
 * Virtio entropy device (virtio 1.2, 5.4): every buffer is filled at once.
 * A chain yields at most RNG_CHUNK bytes, however long it is.
 */
#include "device/virtio_rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "bus/virtio_pci.h"

enum {
	RNG_ID = 4,
	RNG_CLASS = 0x00ff00,
	RNG_QUEUE = 64,
	RNG_CHUNK = 4096,
};

struct virtio_rng {
	struct virtio_device v;
};

/* True while there may be more. */
static bool
rng_serve(struct virtio_device *v)
{
	struct virtq *q = virtio_queue(v, 0);
	struct virtq_chain chain;
	u8 bytes[RNG_CHUNK];
	ssize_t n;
	int popped = virtq_pop(q, &chain);

	if (popped < 0)
		virtio_broken(v, "bad descriptors in the entropy queue");
	if (popped <= 0)
		return false;
	n = getrandom(bytes, chain.in_len < RNG_CHUNK ? chain.in_len : RNG_CHUNK, 0);
	if (n < 0)
		n = 0; /* interrupted: the driver asks again */
	virtq_copy_in(q, &chain, 0, bytes, (size_t)n);
	virtq_fill(q, chain.head, (u32)n);
	return true;
}

static void
rng_notify(struct virtio_device *v, unsigned queue)
{
	do {
		while (rng_serve(v))
			continue;
	} while (virtq_enable_notify(virtio_queue(v, queue)));
	virtio_publish(v, queue);
}

static void
rng_destroy(struct virtio_device *v)
{
	free(CONTAINER_OF(v, struct virtio_rng, v));
}

static const struct virtio_ops rng_ops = {
	.notify = rng_notify,
	.destroy = rng_destroy,
};

int
virtio_rng_create(struct pci_bus *bus, unsigned slot, const struct device_host *host)
{
	static const struct virtio_info info = {
		.id = RNG_ID,
		.class_code = RNG_CLASS,
		.queue_count = 1,
		.queue_size = RNG_QUEUE,
	};
	struct virtio_rng *rng = calloc(1, sizeof(*rng));
	int error;

	if (!rng)
		return -ENOMEM;
	error = virtio_pci_init(&rng->v, &rng_ops, &info, host);
	if (error)
		goto no_device;
	error = virtio_pci_add(&rng->v, bus, slot);
	if (error)
		goto no_slot;
	return 0;
no_slot:
	virtio_pci_release(&rng->v);
no_device:
	free(rng);
	return error;
}
