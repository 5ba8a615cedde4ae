/*
 * Virtio 1.2 over PCI (4.1), modern interface only. A device embeds struct
 * virtio_device, fills it by virtio_pci_init and serves its queues; the
 * transport does status, features, queue set-up, notifications, interrupts.
 *
 *	BAR 1	MSI-X: vector table and pending bits
 *	BAR 4	0x0000 common configuration	0x1000 ISR
 *		0x2000 device configuration	0x3000 notify, 4 bytes a queue
 *
 * Everything here runs under the machine's lock.
 */
#ifndef BUS_VIRTIO_PCI_H
#define BUS_VIRTIO_PCI_H

#include "base/types.h"
#include "bus/device.h"
#include "bus/pci.h"
#include "bus/virtq.h"

enum {
	VIRTIO_QUEUES_MAX = 16,
	VIRTIO_CONFIG_MAX = 256,
	VIRTIO_NO_VECTOR = 0xffff,
};

enum { /* device status, 2.1 */
       VIRTIO_ACKNOWLEDGE = 1,
       VIRTIO_DRIVER = 2,
       VIRTIO_DRIVER_OK = 4,
       VIRTIO_FEATURES_OK = 8,
       VIRTIO_NEEDS_RESET = 0x40,
       VIRTIO_FAILED = 0x80,
};

#define VIRTIO_F_INDIRECT_DESC BIT64(28)
#define VIRTIO_F_EVENT_IDX BIT64(29)
#define VIRTIO_F_VERSION_1 BIT64(32)

struct virtio_device;

struct virtio_ops {
	/* Queue has, or may have, new chains; DRIVER_OK is set. */
	void (*notify)(struct virtio_device *v, unsigned queue);
	/* The driver writes SIZE bytes of config at OFFSET (both are inside it);
	 * may be NULL: read-only. */
	void (*config_write)(struct virtio_device *v, unsigned offset, unsigned size, u64 value);
	/* The driver set DRIVER_OK: features and queues are final. May be NULL. */
	void (*start)(struct virtio_device *v);
	/* Ends all work on the queues at once; none is in flight afterwards.
	 * May be NULL. The transport resets the queues then. */
	void (*reset)(struct virtio_device *v);
	/* Adds what is saved of it beside the transport and its queues (state/state.h). NULL:
	 * nothing. Work in flight is not saved: what was popped was also filled. */
	void (*state)(struct virtio_device *v, struct state_list *list);
	/* Frees the device, after reset. */
	void (*destroy)(struct virtio_device *v);
};

struct virtio_queue {
	struct virtq ring;
	u16 vector;
	int eventfd; /* of notifications, or -1: they come as MMIO writes */
	u64 bound;   /* gpa that the eventfd is bound to, or PCI_UNMAPPED */
	struct loop_fd *watch;
	struct virtio_device *device;
};

struct virtio_device {
	struct pci_device pci;
	const struct virtio_ops *ops;
	struct device_host host;
	u64 features; /* offered */
	u64 driver_features;
	u8 status, isr, generation;
	u32 feature_select, driver_feature_select;
	u16 queue_select, config_vector;
	unsigned queue_count, config_size;
	struct virtio_queue queues[VIRTIO_QUEUES_MAX];
	unsigned access;	      /* offset of the PCI configuration access capability */
	u8 config[VIRTIO_CONFIG_MAX]; /* device configuration, as the driver reads it */
};

struct virtio_info {
	u16 id; /* device type, 5 */
	u32 class_code;
	u64 features; /* of the device; those of the transport are added */
	unsigned queue_count;
	u16 queue_size;
	unsigned config_size;
};

/* Prepares V: 0 or -errno (then nothing is left to free). */
int virtio_pci_init(struct virtio_device *v, const struct virtio_ops *ops,
		    const struct virtio_info *info, const struct device_host *host);
/* Undoes init for a device that was not added. */
void virtio_pci_release(struct virtio_device *v);
/* Plugs it into SLOT. 0 or -errno (release it then). */
int virtio_pci_add(struct virtio_device *v, struct pci_bus *bus, unsigned slot);

static inline bool
virtio_has(const struct virtio_device *v, u64 feature)
{
	return (v->driver_features & feature) != 0;
}

static inline bool
virtio_running(const struct virtio_device *v)
{
	return (v->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK;
}

static inline struct virtq *
virtio_queue(struct virtio_device *v, unsigned queue)
{
	return &v->queues[queue].ring;
}

/* Shows filled chains to the driver and interrupts it where it wants that. */
void virtio_publish(struct virtio_device *v, unsigned queue);
/* v->config changed: new generation and an interrupt. */
void virtio_config_changed(struct virtio_device *v);
/* The driver broke the rules: DEVICE_NEEDS_RESET, and WHY into the log once. */
void virtio_broken(struct virtio_device *v, const char *why);

#endif
