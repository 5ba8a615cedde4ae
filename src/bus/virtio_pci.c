/*
 * The virtio transport over PCI (virtio 1.2, 4.1): capabilities, the common
 * configuration structure, interrupts, and notifications, which arrive by an
 * eventfd where the engine can bind one and as an MMIO write otherwise.
 *
 * Invariants: queues are usable only between DRIVER_OK and reset; a queue's
 * eventfd is bound exactly where BAR 4 answers at that time.
 */
#include "bus/virtio_pci.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "state/state.h"

enum {
	VIRTIO_VENDOR = 0x1af4,
	VIRTIO_DEVICE_BASE = 0x1040,
	VIRTIO_SUBSYSTEM = 0x1100,
	MSIX_BAR = 1,
	REGISTERS_BAR = 4,
	REGISTERS_SIZE = 0x4000,
	PAGE_COMMON = 0,
	PAGE_ISR = 1,
	PAGE_DEVICE = 2,
	PAGE_NOTIFY = 3,
	PAGE_SHIFT = 12,
	NOTIFY_STRIDE = 4,
	ISR_QUEUE = 1,
	ISR_CONFIG = 2,
};

enum { /* struct virtio_pci_cap, 4.1.4 */
       CAP_SIZE = 16,
       CAP_LENGTH = 2,
       CAP_TYPE = 3,
       CAP_BAR = 4,
       CAP_OFFSET = 8,
       CAP_BYTES = 12,
       CAP_EXTRA = 16, /* notify multiplier, or data of the access capability */
       CAP_COMMON = 1,
       CAP_NOTIFY = 2,
       CAP_ISR = 3,
       CAP_DEVICE = 4,
       CAP_ACCESS = 5,
};

enum { /* struct virtio_pci_common_cfg, 4.1.4.3 */
       COMMON_DEVICE_FEATURE_SELECT = 0,
       COMMON_DEVICE_FEATURE = 4,
       COMMON_DRIVER_FEATURE_SELECT = 8,
       COMMON_DRIVER_FEATURE = 12,
       COMMON_CONFIG_VECTOR = 16,
       COMMON_NUM_QUEUES = 18,
       COMMON_STATUS = 20,
       COMMON_GENERATION = 21,
       COMMON_QUEUE_SELECT = 22,
       COMMON_QUEUE_SIZE = 24,
       COMMON_QUEUE_VECTOR = 26,
       COMMON_QUEUE_ENABLE = 28,
       COMMON_QUEUE_NOTIFY_OFF = 30,
       COMMON_QUEUE_DESC = 32,
       COMMON_QUEUE_DRIVER = 40,
       COMMON_QUEUE_DEVICE = 48,
       COMMON_QUEUE_NOTIFY_DATA = 56,
       COMMON_SIZE = 60,
};

static struct virtio_device *
virtio_of(struct pci_device *pci)
{
	return CONTAINER_OF(pci, struct virtio_device, pci);
}

/* ---- interrupts ---- */

static void
virtio_interrupt(struct virtio_device *v, u16 vector, u8 isr)
{
	if (pci_msix_enabled(&v->pci)) {
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix_send(&v->pci, vector);
		return;
	}
	v->isr |= isr;
	pci_set_intx(&v->pci, true);
}

void
virtio_publish(struct virtio_device *v, unsigned queue)
{
	struct virtio_queue *q = &v->queues[queue];

	if (virtio_running(v) && virtq_publish(&q->ring))
		virtio_interrupt(v, q->vector, ISR_QUEUE);
}

void
virtio_config_changed(struct virtio_device *v)
{
	v->generation++;
	if (v->status & VIRTIO_DRIVER_OK)
		virtio_interrupt(v, v->config_vector, ISR_CONFIG);
}

void
virtio_broken(struct virtio_device *v, const char *why)
{
	if (v->status & VIRTIO_NEEDS_RESET)
		return;
	log_warning("virtio device %02x.%x needs a reset: %s", v->pci.slot, v->pci.function, why);
	v->status |= VIRTIO_NEEDS_RESET;
	virtio_config_changed(v);
}

/* ---- notifications ---- */

static void
virtio_kick(struct virtio_device *v, unsigned queue)
{
	if (queue < v->queue_count && virtio_running(v) && v->queues[queue].ring.ready)
		v->ops->notify(v, queue);
}

static void
virtio_eventfd_ready(void *opaque, int events)
{
	struct virtio_queue *q = opaque;
	u64 count;

	(void)events;
	if (read(q->eventfd, &count, sizeof(count)) < 0)
		return; /* somebody was faster */
	virtio_kick(q->device, (unsigned)(q - q->device->queues));
}

static void
virtio_unbind(struct virtio_device *v, struct virtio_queue *q)
{
	if (q->bound == PCI_UNMAPPED)
		return;
	v->host.unbind_notify(v->host.opaque, q->bound, 0, q->eventfd);
	q->bound = PCI_UNMAPPED;
}

/* Best effort: what cannot be bound comes to us as an MMIO write. */
static void
virtio_bind(struct virtio_device *v, unsigned queue)
{
	u64 base = v->pci.bars[REGISTERS_BAR].gpa;
	struct virtio_queue *q = &v->queues[queue];
	u64 gpa = base + (PAGE_NOTIFY << PAGE_SHIFT) + queue * NOTIFY_STRIDE;

	if (q->eventfd < 0 || !q->ring.ready || base == PCI_UNMAPPED || q->bound != PCI_UNMAPPED)
		return;
	if (v->host.bind_notify(v->host.opaque, gpa, 0, q->eventfd) == 0)
		q->bound = gpa;
}

/* Eventfds are watched from creation to destruction: those are on the loop's
 * thread, while a driver starts and resets the device on any. */
static void
virtio_watch(struct virtio_device *v, struct virtio_queue *q)
{
	if (!v->host.bind_notify || !v->host.unbind_notify || !v->host.loop)
		return;
	q->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->eventfd < 0)
		return;
	if (loop_add_fd(v->host.loop, q->eventfd, LOOP_READ, virtio_eventfd_ready, q, &q->watch)) {
		close(q->eventfd);
		q->eventfd = -1;
	}
}

static void
virtio_unwatch(struct virtio_queue *q)
{
	if (q->eventfd < 0)
		return;
	loop_remove_fd(q->watch);
	close(q->eventfd);
	q->eventfd = -1;
}

static void
virtio_bar_moved(struct pci_device *pci, unsigned bar, u64 gpa)
{
	struct virtio_device *v = virtio_of(pci);

	(void)gpa;
	if (bar != REGISTERS_BAR)
		return;
	for (unsigned i = 0; i < v->queue_count; i++) {
		virtio_unbind(v, &v->queues[i]);
		if (v->status & VIRTIO_DRIVER_OK)
			virtio_bind(v, i);
	}
}

/* ---- life cycle ---- */

static void
virtio_reset(struct virtio_device *v)
{
	bool started = (v->status & VIRTIO_DRIVER_OK) != 0;

	v->status = 0; /* completions that reset waits for interrupt nobody */
	for (unsigned i = 0; i < v->queue_count; i++)
		virtio_unbind(v, &v->queues[i]);
	if (started && v->ops->reset)
		v->ops->reset(v);
	for (unsigned i = 0; i < v->queue_count; i++) {
		virtq_reset(&v->queues[i].ring);
		v->queues[i].vector = VIRTIO_NO_VECTOR;
	}
	v->config_vector = VIRTIO_NO_VECTOR;
	v->driver_features = 0;
	v->feature_select = v->driver_feature_select = 0;
	v->queue_select = 0;
	v->isr = 0;
	pci_set_intx(&v->pci, false);
}

static void
virtio_start(struct virtio_device *v)
{
	for (unsigned i = 0; i < v->queue_count; i++)
		virtio_bind(v, i);
	if (v->ops->start)
		v->ops->start(v);
}

static void
virtio_set_status(struct virtio_device *v, u8 value)
{
	u8 fresh = value & (u8)~v->status;

	if (value == 0) {
		virtio_reset(v);
		return;
	}
	if ((fresh & VIRTIO_FEATURES_OK) &&
	    ((v->driver_features & ~v->features) || !virtio_has(v, VIRTIO_F_VERSION_1)))
		value &= (u8)~VIRTIO_FEATURES_OK;
	if (!((value | v->status) & VIRTIO_FEATURES_OK))
		value &= (u8)~VIRTIO_DRIVER_OK;
	fresh = value & (u8)~v->status;
	v->status |= value & (u8)~VIRTIO_NEEDS_RESET;
	if (fresh & VIRTIO_DRIVER_OK)
		virtio_start(v);
}

static void
virtio_enable_queue(struct virtio_device *v, struct virtio_queue *q)
{
	if (q->ring.ready)
		return;
	if (!(v->status & VIRTIO_FEATURES_OK)) {
		virtio_broken(v, "a queue was enabled before the features were agreed on");
		return;
	}
	if (virtq_start(&q->ring, virtio_has(v, VIRTIO_F_EVENT_IDX),
			virtio_has(v, VIRTIO_F_INDIRECT_DESC))) {
		virtio_broken(v, "a queue's rings are not in RAM or not aligned");
		return;
	}
	if (v->status & VIRTIO_DRIVER_OK)
		virtio_bind(v, (unsigned)(q - v->queues));
}

/* ---- common configuration ---- */

static u32
virtio_feature_half(u64 features, u32 select)
{
	return select > 1 ? 0 : (u32)(features >> (32 * select));
}

/* The structure as the driver sees it now. */
static void
virtio_common_image(const struct virtio_device *v, u8 image[COMMON_SIZE])
{
	const struct virtio_queue *q = &v->queues[v->queue_select];

	memset(image, 0, COMMON_SIZE);
	put_le32(image + COMMON_DEVICE_FEATURE_SELECT, v->feature_select);
	put_le32(image + COMMON_DEVICE_FEATURE,
		 virtio_feature_half(v->features, v->feature_select));
	put_le32(image + COMMON_DRIVER_FEATURE_SELECT, v->driver_feature_select);
	put_le32(image + COMMON_DRIVER_FEATURE,
		 virtio_feature_half(v->driver_features, v->driver_feature_select));
	put_le16(image + COMMON_CONFIG_VECTOR, v->config_vector);
	put_le16(image + COMMON_NUM_QUEUES, (u16)v->queue_count);
	image[COMMON_STATUS] = v->status;
	image[COMMON_GENERATION] = v->generation;
	put_le16(image + COMMON_QUEUE_SELECT, v->queue_select);
	if (v->queue_select >= v->queue_count)
		return;
	put_le16(image + COMMON_QUEUE_SIZE, q->ring.size);
	put_le16(image + COMMON_QUEUE_VECTOR, q->vector);
	put_le16(image + COMMON_QUEUE_ENABLE, q->ring.ready);
	put_le16(image + COMMON_QUEUE_NOTIFY_OFF, v->queue_select);
	put_le64(image + COMMON_QUEUE_DESC, q->ring.desc);
	put_le64(image + COMMON_QUEUE_DRIVER, q->ring.avail);
	put_le64(image + COMMON_QUEUE_DEVICE, q->ring.used);
	put_le16(image + COMMON_QUEUE_NOTIFY_DATA, v->queue_select);
}

static u16
virtio_vector(const struct virtio_device *v, u64 value)
{
	return value <= v->queue_count ? (u16)value : VIRTIO_NO_VECTOR;
}

static void
virtio_write_half(u64 *field, unsigned high, u64 value)
{
	if (high)
		*field = (*field & 0xffffffff) | value << 32;
	else
		*field = (*field & ~0xffffffffull) | (value & 0xffffffff);
}

static void
virtio_write_queue(struct virtio_device *v, unsigned field, u64 value)
{
	struct virtio_queue *q = &v->queues[v->queue_select];
	struct virtq *ring = &q->ring;

	if (v->queue_select >= v->queue_count)
		return;
	if (field == COMMON_QUEUE_VECTOR)
		q->vector = virtio_vector(v, value);
	else if (field == COMMON_QUEUE_ENABLE && value == 1)
		virtio_enable_queue(v, q);
	if (ring->ready)
		return; /* the rest is fixed while the queue is enabled */
	switch (field) {
	case COMMON_QUEUE_SIZE:
		ring->size = (u16)value; /* checked when it is enabled */
		break;
	case COMMON_QUEUE_DESC:
	case COMMON_QUEUE_DESC + 4:
		virtio_write_half(&ring->desc, field - COMMON_QUEUE_DESC, value);
		break;
	case COMMON_QUEUE_DRIVER:
	case COMMON_QUEUE_DRIVER + 4:
		virtio_write_half(&ring->avail, field - COMMON_QUEUE_DRIVER, value);
		break;
	case COMMON_QUEUE_DEVICE:
	case COMMON_QUEUE_DEVICE + 4:
		virtio_write_half(&ring->used, field - COMMON_QUEUE_DEVICE, value);
		break;
	}
}

static void
virtio_write_driver_features(struct virtio_device *v, u32 value)
{
	if ((v->status & VIRTIO_FEATURES_OK) || v->driver_feature_select > 1)
		return;
	virtio_write_half(&v->driver_features, v->driver_feature_select, value);
}

static void
virtio_common_write(struct virtio_device *v, unsigned field, unsigned size, u64 value)
{
	if (size == 8) {
		virtio_common_write(v, field, 4, value & 0xffffffff);
		virtio_common_write(v, field + 4, 4, value >> 32);
		return;
	}
	switch (field) {
	case COMMON_DEVICE_FEATURE_SELECT:
		v->feature_select = (u32)value;
		break;
	case COMMON_DRIVER_FEATURE_SELECT:
		v->driver_feature_select = (u32)value;
		break;
	case COMMON_DRIVER_FEATURE:
		virtio_write_driver_features(v, (u32)value);
		break;
	case COMMON_CONFIG_VECTOR:
		v->config_vector = virtio_vector(v, value);
		break;
	case COMMON_STATUS:
		virtio_set_status(v, (u8)value);
		break;
	case COMMON_QUEUE_SELECT:
		/* One past the last stands for all that do not exist. */
		v->queue_select = (u16)(value < v->queue_count ? value : v->queue_count);
		break;
	default:
		virtio_write_queue(v, field, value);
		break;
	}
}

/* ---- BAR 4 ---- */

static u64
virtio_slice(const u8 *bytes, unsigned count, unsigned offset, unsigned size)
{
	u64 value = 0;

	if (offset < count && size <= count - offset)
		memcpy(&value, bytes + offset, size);
	return value;
}

static u64
virtio_read_isr(struct virtio_device *v, unsigned offset)
{
	u8 isr = v->isr;

	if (offset != 0)
		return 0;
	v->isr = 0;
	pci_set_intx(&v->pci, false);
	return isr;
}

static u64
virtio_read(void *opaque, u64 where, unsigned size)
{
	struct virtio_device *v = opaque;
	unsigned offset = (unsigned)where & (BIT(PAGE_SHIFT) - 1);
	u8 image[COMMON_SIZE];

	switch (where >> PAGE_SHIFT) {
	case PAGE_COMMON:
		virtio_common_image(v, image);
		return virtio_slice(image, sizeof(image), offset, size);
	case PAGE_ISR:
		return virtio_read_isr(v, offset);
	case PAGE_DEVICE:
		return virtio_slice(v->config, v->config_size, offset, size);
	}
	return 0;
}

static void
virtio_write(void *opaque, u64 where, unsigned size, u64 value)
{
	struct virtio_device *v = opaque;
	unsigned offset = (unsigned)where & (BIT(PAGE_SHIFT) - 1);

	switch (where >> PAGE_SHIFT) {
	case PAGE_COMMON:
		virtio_common_write(v, offset, size, value);
		break;
	case PAGE_DEVICE:
		if (v->ops->config_write && offset < v->config_size &&
		    size <= v->config_size - offset)
			v->ops->config_write(v, offset, size, value);
		break;
	case PAGE_NOTIFY:
		virtio_kick(v, offset / NOTIFY_STRIDE);
		break;
	}
}

static const struct io_ops virtio_registers_ops = {
	.read = virtio_read,
	.write = virtio_write,
};

/* ---- PCI configuration access capability, 4.1.4.9 ---- */

/* Where it points, if OFFSET..SIZE of configuration space touches its data and
 * what the driver set there makes sense; its length, or 0. */
static unsigned
virtio_access(const struct virtio_device *v, unsigned offset, unsigned size, u64 *where)
{
	const u8 *cap = v->pci.config + v->access;
	unsigned data = v->access + CAP_EXTRA;
	u32 length = get_le32(cap + CAP_BYTES);
	u32 at = get_le32(cap + CAP_OFFSET);

	if (offset >= data + 4 || offset + size <= data)
		return 0;
	if (cap[CAP_BAR] != REGISTERS_BAR || (length != 1 && length != 2 && length != 4))
		return 0;
	if (at % length || at > REGISTERS_SIZE - length)
		return 0;
	*where = at;
	return length;
}

static void
virtio_config_reading(struct pci_device *pci, unsigned offset, unsigned size)
{
	struct virtio_device *v = virtio_of(pci);
	u64 where = 0;
	unsigned length = virtio_access(v, offset, size, &where);

	if (length)
		put_le32(pci->config + v->access + CAP_EXTRA, (u32)virtio_read(v, where, length));
}

static void
virtio_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	struct virtio_device *v = virtio_of(pci);
	u64 where = 0;
	unsigned length = virtio_access(v, offset, size, &where);
	u32 value = get_le32(pci->config + v->access + CAP_EXTRA);

	if (length)
		virtio_write(v, where, length, length == 4 ? value : value & (BIT(8 * length) - 1));
}

static unsigned
virtio_add_cap(struct virtio_device *v, u8 type, u8 bar, u32 offset, u32 bytes, unsigned extra)
{
	unsigned at = pci_add_capability(&v->pci, PCI_CAP_VENDOR, CAP_SIZE + extra);
	u8 *cap = v->pci.config + at;

	cap[CAP_LENGTH] = (u8)(CAP_SIZE + extra);
	cap[CAP_TYPE] = type;
	cap[CAP_BAR] = bar;
	put_le32(cap + CAP_OFFSET, offset);
	put_le32(cap + CAP_BYTES, bytes);
	return at;
}

static void
virtio_add_caps(struct virtio_device *v)
{
	unsigned at;

	virtio_add_cap(v, CAP_COMMON, REGISTERS_BAR, PAGE_COMMON << PAGE_SHIFT, COMMON_SIZE, 0);
	virtio_add_cap(v, CAP_ISR, REGISTERS_BAR, PAGE_ISR << PAGE_SHIFT, 1, 0);
	if (v->config_size)
		virtio_add_cap(v, CAP_DEVICE, REGISTERS_BAR, PAGE_DEVICE << PAGE_SHIFT,
			       v->config_size, 0);
	at = virtio_add_cap(v, CAP_NOTIFY, REGISTERS_BAR, PAGE_NOTIFY << PAGE_SHIFT,
			    v->queue_count * NOTIFY_STRIDE, 4);
	put_le32(v->pci.config + at + CAP_EXTRA, NOTIFY_STRIDE);
	v->access = virtio_add_cap(v, CAP_ACCESS, 0, 0, 0, 4);
	v->pci.mask[v->access + CAP_BAR] = 0xff;
	memset(v->pci.mask + v->access + CAP_OFFSET, 0xff, 12); /* offset, length, data */
}

/* ---- creation ---- */

static void
virtio_pci_reset(struct pci_device *pci)
{
	virtio_reset(virtio_of(pci));
}

static void
virtio_free_queues(struct virtio_device *v)
{
	for (unsigned i = 0; i < v->queue_count; i++) {
		virtio_unwatch(&v->queues[i]);
		virtq_free(&v->queues[i].ring);
	}
}

static void
virtio_pci_destroy(struct pci_device *pci)
{
	struct virtio_device *v = virtio_of(pci);

	virtio_reset(v);
	virtio_free_queues(v);
	v->ops->destroy(v);
}

/* ---- saved state ---- */

static const struct state_field virtio_ring_fields[] = {
	STATE_NUMBER(struct virtq, size),
	STATE_NUMBER(struct virtq, desc),
	STATE_NUMBER(struct virtq, avail),
	STATE_NUMBER(struct virtq, used),
	STATE_FLAG(struct virtq, ready),
	STATE_FLAG(struct virtq, broken),
	STATE_NUMBER(struct virtq, avail_next),
	STATE_NUMBER(struct virtq, used_next),
	STATE_NUMBER(struct virtq, used_published),
	STATE_FLAG(struct virtq, signalled),
	STATE_END,
};

static const struct state_field virtio_queue_fields[] = {
	STATE_STRUCT(struct virtio_queue, ring, virtio_ring_fields),
	STATE_NUMBER(struct virtio_queue, vector),
	STATE_END,
};

static const struct state_field virtio_fields[] = {
	STATE_NUMBER(struct virtio_device, driver_features),
	STATE_NUMBER(struct virtio_device, status),
	STATE_MAX(struct virtio_device, isr, ISR_QUEUE | ISR_CONFIG),
	STATE_NUMBER(struct virtio_device, generation),
	STATE_NUMBER(struct virtio_device, feature_select),
	STATE_NUMBER(struct virtio_device, driver_feature_select),
	STATE_NUMBER(struct virtio_device, queue_select),
	STATE_NUMBER(struct virtio_device, config_vector),
	STATE_STRUCTS_OF(struct virtio_device, queues, virtio_queue_fields, queue_count),
	STATE_END,
};

/* A driver gets no further than this by writing registers. */
static bool
virtio_state_check_queue(const struct virtio_device *v, const struct virtio_queue *q)
{
	struct virtq ring = q->ring;

	if (q->vector != virtio_vector(v, q->vector))
		return false;
	if (!ring.ready)
		return true;
	return (v->status & VIRTIO_FEATURES_OK) && virtq_start(&ring, false, false) == 0;
}

static bool
virtio_state_check(const void *staged)
{
	const struct virtio_device *v = staged;

	if (v->queue_select > v->queue_count ||
	    v->config_vector != virtio_vector(v, v->config_vector))
		return false;
	if ((v->status & VIRTIO_FEATURES_OK) &&
	    ((v->driver_features & ~v->features) || !virtio_has(v, VIRTIO_F_VERSION_1)))
		return false;
	if ((v->status & VIRTIO_DRIVER_OK) && !(v->status & VIRTIO_FEATURES_OK))
		return false;
	for (unsigned i = 0; i < v->queue_count; i++)
		if (!virtio_state_check_queue(v, &v->queues[i]))
			return false;
	return true;
}

/* Chains may have been made available that nobody has looked at: every queue is looked at
 * once the loop runs. */
static void
virtio_state_loaded(void *object)
{
	struct virtio_device *v = object;

	for (unsigned i = 0; i < v->queue_count; i++) {
		struct virtio_queue *q = &v->queues[i];

		if (q->ring.ready)
			virtq_start(&q->ring, virtio_has(v, VIRTIO_F_EVENT_IDX),
				    virtio_has(v, VIRTIO_F_INDIRECT_DESC));
		if (!(v->status & VIRTIO_DRIVER_OK))
			continue;
		virtio_bind(v, i);
		if (q->eventfd >= 0)
			eventfd_write(q->eventfd, 1);
	}
}

static const struct state_type virtio_state_type = {"virtio", 1, virtio_fields, virtio_state_check,
						    virtio_state_loaded};

static void
virtio_state(struct pci_device *pci, struct state_list *list)
{
	struct virtio_device *v = virtio_of(pci);

	state_list_add(list, &virtio_state_type, pci_instance(pci), v, sizeof(*v));
	if (v->ops->state)
		v->ops->state(v, list);
}

static const struct pci_ops virtio_pci_ops = {
	.config_written = virtio_config_written,
	.config_reading = virtio_config_reading,
	.bar_moved = virtio_bar_moved,
	.state = virtio_state,
	.reset = virtio_pci_reset,
	.destroy = virtio_pci_destroy,
};

static int
virtio_init_queues(struct virtio_device *v, u16 size)
{
	int error;

	for (unsigned i = 0; i < v->queue_count; i++)
		v->queues[i].eventfd = -1;
	for (unsigned i = 0; i < v->queue_count; i++) {
		v->queues[i].bound = PCI_UNMAPPED;
		v->queues[i].device = v;
		v->queues[i].vector = VIRTIO_NO_VECTOR;
		error = virtq_init(&v->queues[i].ring, v->host.memory, size);
		if (error)
			return error;
	}
	return 0;
}

int
virtio_pci_init(struct virtio_device *v, const struct virtio_ops *ops,
		const struct virtio_info *info, const struct device_host *host)
{
	struct pci_id id = {
		.vendor = VIRTIO_VENDOR,
		.device = (u16)(VIRTIO_DEVICE_BASE + info->id),
		.subsystem_vendor = VIRTIO_VENDOR,
		.subsystem = VIRTIO_SUBSYSTEM,
		.revision = 1,
		.class_code = info->class_code,
	};
	int error;

	if (info->queue_count >= VIRTIO_QUEUES_MAX || info->config_size > VIRTIO_CONFIG_MAX)
		return -EINVAL;
	pci_init(&v->pci, &virtio_pci_ops, &id);
	v->ops = ops;
	v->host = *host;
	v->features =
		info->features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
	v->queue_count = info->queue_count;
	v->config_size = info->config_size;
	v->config_vector = VIRTIO_NO_VECTOR;
	error = virtio_init_queues(v, info->queue_size);
	if (!error)
		error = pci_add_msix(&v->pci, MSIX_BAR, v->queue_count + 1);
	if (error) {
		virtio_free_queues(v);
		return error;
	}
	pci_set_pin(&v->pci, 1);
	pci_add_bar(&v->pci, REGISTERS_BAR, PCI_BAR_MEM64, REGISTERS_SIZE, &virtio_registers_ops,
		    v);
	virtio_add_caps(v);
	return 0;
}

void
virtio_pci_release(struct virtio_device *v)
{
	virtio_free_queues(v);
	pci_release(&v->pci);
}

int
virtio_pci_add(struct virtio_device *v, struct pci_bus *bus, unsigned slot)
{
	int error = pci_add(bus, &v->pci, slot, 0);

	for (unsigned i = 0; !error && i < v->queue_count; i++)
		virtio_watch(v, &v->queues[i]);
	return error;
}
