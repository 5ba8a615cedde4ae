/*
 * Guest RAM as KVM's memory slots, and the dirty log. KVM's log of a slot is read and
 * cleared whole; what a caller did not ask for is kept in the slot's own bitmap. The host's
 * writes, which KVM does not see, are added there.
 */
#define _GNU_SOURCE
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int
kvm_slots_tell(struct engine *e, const struct kvm_slot *slot)
{
	struct kvm_userspace_memory_region region = {
		.slot = (u32)(slot - e->slots),
		.flags = slot->flags,
		.guest_phys_addr = slot->gpa,
		.memory_size = slot->size,
		.userspace_addr =
			(u64)(uintptr_t)(memory_ram_host(e->config.memory) + slot->offset),
	};
	int err = kvm_ioctl(e->vm, KVM_SET_USER_MEMORY_REGION, &region);

	return err < 0 ? err : 0;
}

static struct kvm_slot *
kvm_slots_find(struct engine *e, u64 gpa, u64 size)
{
	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
		if (e->slots[i].gpa == gpa && e->slots[i].size == size)
			return &e->slots[i];
	}
	return NULL;
}

int
kvm_slots_map(struct engine *e, u64 gpa, u64 size, u64 offset, bool writable)
{
	u64 ram = memory_ram_size(e->config.memory);
	struct kvm_slot *slot;
	int err = -ENOSPC;

	if (size == 0 || (gpa | size | offset) % MEMORY_PAGE || size > ram || offset > ram - size)
		return -EINVAL;
	pthread_mutex_lock(&e->lock);
	slot = kvm_slots_find(e, 0, 0);
	if (slot) {
		*slot = (struct kvm_slot){gpa, size, offset, writable ? 0 : KVM_MEM_READONLY, NULL};
		/* Where the host lets shared memory have large pages ("advise"), a boot takes a
		 * thirtieth of the faults. */
		madvise(memory_ram_host(e->config.memory) + offset, (size_t)size, MADV_HUGEPAGE);
		err = kvm_slots_tell(e, slot);
		if (err)
			memset(slot, 0, sizeof(*slot));
	}
	pthread_mutex_unlock(&e->lock);
	return err;
}

int
kvm_slots_unmap(struct engine *e, u64 gpa, u64 size)
{
	struct kvm_slot *slot, gone;
	int err = -ENOENT;

	pthread_mutex_lock(&e->lock);
	slot = size ? kvm_slots_find(e, gpa, size) : NULL;
	if (slot) {
		gone = *slot;
		slot->size = 0;
		err = kvm_slots_tell(e, slot);
		if (err) {
			*slot = gone;
		} else {
			free(gone.dirty);
			memset(slot, 0, sizeof(*slot));
		}
	}
	pthread_mutex_unlock(&e->lock);
	return err;
}

void
kvm_slots_destroy(struct engine *e)
{
	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++)
		free(e->slots[i].dirty);
}

/* ---- the dirty log ---- */

static u64
kvm_slots_pages(const struct kvm_slot *slot)
{
	return slot->size / MEMORY_PAGE;
}

static size_t
kvm_slots_words(const struct kvm_slot *slot)
{
	return (size_t)((kvm_slots_pages(slot) + 63) / 64);
}

/* Before the log began, everything may have been written. */
static int
kvm_slots_start_log(struct engine *e, struct kvm_slot *slot)
{
	int err;

	slot->dirty = malloc(kvm_slots_words(slot) * sizeof(u64));
	if (!slot->dirty)
		return -ENOMEM;
	memset(slot->dirty, 0xff, kvm_slots_words(slot) * sizeof(u64));
	slot->flags |= KVM_MEM_LOG_DIRTY_PAGES;
	__atomic_store_n(&e->logging, true, __ATOMIC_RELEASE);
	err = kvm_slots_tell(e, slot);
	if (err) {
		slot->flags &= ~(u32)KVM_MEM_LOG_DIRTY_PAGES;
		free(slot->dirty);
		slot->dirty = NULL;
	}
	return err;
}

static int
kvm_slots_read_log(struct engine *e, struct kvm_slot *slot)
{
	size_t words = kvm_slots_words(slot);
	u64 *fresh = calloc(words, sizeof(u64));
	struct kvm_dirty_log log = {.slot = (u32)(slot - e->slots), .dirty_bitmap = fresh};
	int err = fresh ? kvm_ioctl(e->vm, KVM_GET_DIRTY_LOG, &log) : -ENOMEM;

	for (size_t i = 0; err >= 0 && i < words; i++)
		slot->dirty[i] |= fresh[i];
	free(fresh);
	return err < 0 ? err : 0;
}

/* Moves the bits of [gpa, gpa + size) that are SLOT's into BITMAP. */
static void
kvm_slots_move_bits(struct kvm_slot *slot, u64 gpa, u64 size, u64 *bitmap)
{
	u64 first = gpa > slot->gpa ? gpa : slot->gpa;
	u64 slot_end = slot->gpa + slot->size, end = gpa + size < slot_end ? gpa + size : slot_end;

	for (u64 at = first; at < end; at += MEMORY_PAGE) {
		u64 from = (at - slot->gpa) / MEMORY_PAGE, to = (at - gpa) / MEMORY_PAGE;

		if (!(slot->dirty[from / 64] >> (from % 64) & 1))
			continue;
		slot->dirty[from / 64] &= ~BIT64(from % 64);
		bitmap[to / 64] |= BIT64(to % 64);
	}
}

static bool
kvm_slots_overlaps(const struct kvm_slot *slot, u64 gpa, u64 size)
{
	return slot->size && gpa < slot->gpa + slot->size && slot->gpa < gpa + size;
}

int
kvm_slots_take_dirty(struct engine *e, u64 gpa, u64 size, u64 *bitmap)
{
	int err = 0;

	if ((gpa | size) % MEMORY_PAGE || gpa + size < gpa)
		return -EINVAL;
	memset(bitmap, 0, (size_t)((size / MEMORY_PAGE + 63) / 64) * sizeof(u64));
	pthread_mutex_lock(&e->lock);
	for (unsigned i = 0; i < KVM_SLOTS_MAX && !err; i++) {
		struct kvm_slot *slot = &e->slots[i];

		if (!kvm_slots_overlaps(slot, gpa, size))
			continue;
		err = slot->dirty ? kvm_slots_read_log(e, slot) : kvm_slots_start_log(e, slot);
		if (!err)
			kvm_slots_move_bits(slot, gpa, size, bitmap);
	}
	pthread_mutex_unlock(&e->lock);
	return err;
}

void
kvm_slots_written(void *engine, u64 gpa, u64 len)
{
	struct engine *e = engine;
	u64 first = align_down(gpa, MEMORY_PAGE), size = align_up(gpa + len, MEMORY_PAGE) - first;

	if (len == 0 || !__atomic_load_n(&e->logging, __ATOMIC_ACQUIRE))
		return;
	pthread_mutex_lock(&e->lock);
	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
		struct kvm_slot *slot = &e->slots[i];
		u64 end = slot->gpa + slot->size;

		if (!slot->dirty || !kvm_slots_overlaps(slot, first, size))
			continue;
		for (u64 at = first > slot->gpa ? first : slot->gpa; at < first + size && at < end;
		     at += MEMORY_PAGE) {
			u64 page = (at - slot->gpa) / MEMORY_PAGE;

			slot->dirty[page / 64] |= BIT64(page % 64);
		}
	}
	pthread_mutex_unlock(&e->lock);
}
