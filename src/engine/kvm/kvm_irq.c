/*
 * Interrupts and notifications that cross between guest and host inside the kernel.
 *
 * The routing table is always given to KVM whole: entries 0 to 23 are the IOAPIC's pins,
 * which nothing signals but which tell KVM the vectors whose end it must report; the
 * others belong to bound eventfds.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MSI_TRIGGER_LEVEL = BIT(15) };

int
kvm_irq_init(struct engine *e)
{
	for (unsigned i = 0; i < KVM_BOUND_MAX; i++)
		e->bound[i].fd = -1;
	return 0;
}

static struct kvm_irq_routing_entry
kvm_irq_entry(u32 gsi, u64 address, u32 data)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {.address_lo = (u32)address,
			  .address_hi = (u32)(address >> 32),
			  .data = data},
	};
}

/* With the lock. */
static int
kvm_irq_tell(struct engine *e)
{
	size_t most = KVM_PINS + e->bound_count;
	struct kvm_irq_routing *table =
		calloc(1, sizeof(*table) + most * sizeof(table->entries[0]));
	int err;

	if (!table)
		return -ENOMEM;
	for (u32 pin = 0; pin < KVM_PINS; pin++) {
		const struct ioapic_route *route = &e->pins[pin];
		u32 data = route->level ? route->data | MSI_TRIGGER_LEVEL : route->data;

		table->entries[table->nr++] = kvm_irq_entry(pin, route->address, data);
	}
	for (u32 i = 0; i < e->bound_count; i++) {
		const struct kvm_bound *bound = &e->bound[i];

		if (bound->fd >= 0)
			table->entries[table->nr++] =
				kvm_irq_entry(KVM_PINS + i, bound->address, bound->data);
	}
	err = kvm_ioctl(e->vm, KVM_SET_GSI_ROUTING, table);
	free(table);
	return err < 0 ? err : 0;
}

int
kvm_irq_set_ioapic_routes(struct engine *e, const struct ioapic_route *routes, unsigned count)
{
	int err = 0;

	if (count > KVM_PINS)
		return -EINVAL;
	pthread_mutex_lock(&e->lock);
	memset(e->pins, 0, sizeof(e->pins));
	memcpy(e->pins, routes, count * sizeof(*routes));
	err = kvm_irq_tell(e);
	pthread_mutex_unlock(&e->lock);
	return err;
}

void
kvm_irq_send_msi(struct engine *e, u64 address, u32 data)
{
	struct kvm_msi msi = {
		.address_lo = (u32)address, .address_hi = (u32)(address >> 32), .data = data};

	kvm_ioctl(e->vm, KVM_SIGNAL_MSI, &msi);
}

static struct kvm_bound *
kvm_irq_find(struct engine *e, int fd)
{
	for (unsigned i = 0; i < KVM_BOUND_MAX; i++) {
		if (e->bound[i].fd == fd)
			return &e->bound[i];
	}
	return NULL;
}

static int
kvm_irq_set_irqfd(struct engine *e, const struct kvm_bound *bound, int fd, u32 flags)
{
	struct kvm_irqfd irqfd = {
		.fd = (u32)fd, .gsi = KVM_PINS + (u32)(bound - e->bound), .flags = flags};
	int err = kvm_ioctl(e->vm, KVM_IRQFD, &irqfd);

	return err < 0 ? err : 0;
}

/* A new message for an eventfd that is bound. */
static int
kvm_irq_rebind(struct engine *e, struct kvm_bound *bound, u64 address, u32 data)
{
	struct kvm_bound old = *bound;
	int err;

	if (bound->address == address && bound->data == data)
		return 0;
	bound->address = address;
	bound->data = data;
	err = kvm_irq_tell(e);
	if (err)
		*bound = old;
	return err;
}

static int
kvm_irq_bind_new(struct engine *e, int fd, u64 address, u32 data)
{
	struct kvm_bound *bound = kvm_irq_find(e, -1);
	unsigned number;
	int err;

	if (!bound)
		return -ENOSPC;
	*bound = (struct kvm_bound){fd, address, data};
	number = (unsigned)(bound - e->bound) + 1;
	if (e->bound_count < number)
		e->bound_count = number;
	err = kvm_irq_tell(e);
	if (!err)
		err = kvm_irq_set_irqfd(e, bound, fd, 0);
	if (err)
		bound->fd = -1; /* its route is left: nothing signals it */
	return err;
}

int
kvm_irq_bind(struct engine *e, int fd, u64 address, u32 data)
{
	struct kvm_bound *bound;
	int err;

	if (fd < 0)
		return -EBADF;
	pthread_mutex_lock(&e->lock);
	bound = kvm_irq_find(e, fd);
	err = bound ? kvm_irq_rebind(e, bound, address, data)
		    : kvm_irq_bind_new(e, fd, address, data);
	pthread_mutex_unlock(&e->lock);
	return err;
}

int
kvm_irq_unbind(struct engine *e, int fd)
{
	struct kvm_bound *bound;
	int err = -ENOENT;

	if (fd < 0)
		return -EBADF;
	pthread_mutex_lock(&e->lock);
	bound = kvm_irq_find(e, fd);
	if (bound) {
		err = kvm_irq_set_irqfd(e, bound, fd, KVM_IRQFD_FLAG_DEASSIGN);
		bound->fd = -1;
	}
	pthread_mutex_unlock(&e->lock);
	return err;
}

static int
kvm_irq_ioeventfd(struct engine *e, u64 gpa, unsigned size, int fd, u32 flags)
{
	struct kvm_ioeventfd io = {.addr = gpa, .len = size, .fd = fd, .flags = flags};
	int err = kvm_ioctl(e->vm, KVM_IOEVENTFD, &io);

	return err < 0 ? err : 0;
}

int
kvm_irq_bind_notify(struct engine *e, u64 gpa, unsigned size, int eventfd)
{
	return kvm_irq_ioeventfd(e, gpa, size, eventfd, 0);
}

int
kvm_irq_unbind_notify(struct engine *e, u64 gpa, unsigned size, int eventfd)
{
	return kvm_irq_ioeventfd(e, gpa, size, eventfd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}
