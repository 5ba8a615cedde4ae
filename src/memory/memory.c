/*
 * RAM is one memfd, mapped whole. Ports are found in a table of 64 Ki
 * pointers; MMIO in a sorted array of ranges without overlap ("flat"), which is
 * made anew from the list of regions when one comes or goes, with a cache of
 * the last hit.
 *
 * Invariants: flat has room for 2 * regions + 1 ranges, so that removing a
 * region never needs memory; regions stand in the list newest first.
 */
#define _GNU_SOURCE
#include "memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEMORY_PORTS = 0x10000, MEMORY_LISTENERS = 8 };

struct io_region {
	struct io_region *next;
	const struct io_ops *ops;
	void *opaque;
	u64 base, last; /* last byte, so that a region may end at 2^64 */
	bool ports;
};

struct memory_range {
	u64 base, last;
	struct io_region *region;
};

struct memory_listener {
	memory_written_fn *fn;
	void *opaque;
};

struct memory {
	u8 *host;
	u64 ram_size, low_size;
	int fd;
	/* [m] the machine's lock */
	struct io_region *regions;	 /* [m] MMIO, newest first */
	struct io_region *port_regions;	 /* [m] newest first */
	struct io_region **ports;	 /* [m] MEMORY_PORTS entries */
	struct memory_range *flat;	 /* [m] */
	u64 *edges;			 /* [m] scratch of memory_flatten */
	size_t flat_count, region_count; /* [m] */
	size_t last_hit;		 /* [m] index into flat */
	pthread_rwlock_t listeners_lock;
	struct memory_listener listeners[MEMORY_LISTENERS]; /* [listeners_lock] */
	unsigned listener_count;			    /* [listeners_lock] */
};

static int
memory_map_ram(struct memory *mem)
{
	static const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	void *host;

	mem->fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (mem->fd < 0)
		return -errno;
	if (ftruncate(mem->fd, (off_t)mem->ram_size) < 0 || fcntl(mem->fd, F_ADD_SEALS, seals) < 0)
		return -errno;
	host = mmap(NULL, mem->ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		    mem->fd, 0);
	if (host == MAP_FAILED)
		return -errno;
	mem->host = host;
	/* Both only advise: guest memory stays out of core files; huge pages where allowed. */
	madvise(host, mem->ram_size, MADV_DONTDUMP);
	madvise(host, mem->ram_size, MADV_HUGEPAGE);
	return 0;
}

int
memory_create(struct memory **out, u64 ram_size)
{
	struct memory *mem;
	int rc;

	if (ram_size == 0 || ram_size % MEMORY_PAGE != 0 || ram_size > INT64_MAX - MEMORY_HIGH)
		return -EINVAL;
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return -ENOMEM;
	mem->fd = -1;
	mem->ram_size = ram_size;
	mem->low_size = ram_size < MEMORY_PCI_HOLE ? ram_size : MEMORY_PCI_HOLE;
	pthread_rwlock_init(&mem->listeners_lock, NULL);
	rc = -ENOMEM;
	mem->ports = calloc(MEMORY_PORTS, sizeof(*mem->ports));
	if (!mem->ports)
		goto fail;
	rc = memory_map_ram(mem);
	if (rc < 0)
		goto fail;
	*out = mem;
	return 0;
fail:
	memory_destroy(mem);
	return rc;
}

static void
memory_free_regions(struct io_region *region)
{
	struct io_region *next;

	for (; region; region = next) {
		next = region->next;
		free(region);
	}
}

void
memory_destroy(struct memory *mem)
{
	if (!mem)
		return;
	memory_free_regions(mem->regions);
	memory_free_regions(mem->port_regions);
	free(mem->ports);
	free(mem->flat);
	free(mem->edges);
	if (mem->host)
		munmap(mem->host, mem->ram_size);
	if (mem->fd >= 0)
		close(mem->fd);
	pthread_rwlock_destroy(&mem->listeners_lock);
	free(mem);
}

u64
memory_ram_size(const struct memory *mem)
{
	return mem->ram_size;
}

u64
memory_low_size(const struct memory *mem)
{
	return mem->low_size;
}

u64
memory_high_size(const struct memory *mem)
{
	return mem->ram_size - mem->low_size;
}

u8 *
memory_ram_host(const struct memory *mem)
{
	return mem->host;
}

int
memory_ram_fd(const struct memory *mem)
{
	return mem->fd;
}

int
memory_clear(struct memory *mem)
{
	if (fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		      (off_t)mem->ram_size) < 0)
		return -errno;
	memory_written(mem, 0, mem->low_size);
	if (memory_high_size(mem))
		memory_written(mem, MEMORY_HIGH, memory_high_size(mem));
	return 0;
}

/* Offset of GPA and in *left how many bytes of RAM follow, or UINT64_MAX. */
static u64
memory_find_ram(const struct memory *mem, u64 gpa, u64 *left)
{
	if (gpa < mem->low_size) {
		*left = mem->low_size - gpa;
		return gpa;
	}
	if (gpa >= MEMORY_HIGH && gpa - MEMORY_HIGH < memory_high_size(mem)) {
		*left = memory_high_size(mem) - (gpa - MEMORY_HIGH);
		return mem->low_size + (gpa - MEMORY_HIGH);
	}
	return UINT64_MAX;
}

u64
memory_ram_offset(const struct memory *mem, u64 gpa)
{
	u64 left;

	return memory_find_ram(mem, gpa, &left);
}

void *
memory_ptr(const struct memory *mem, u64 gpa, u64 len)
{
	u64 left, offset = memory_find_ram(mem, gpa, &left);

	if (offset == UINT64_MAX || len > left)
		return NULL;
	return mem->host + offset;
}

int
memory_read(const struct memory *mem, u64 gpa, void *buf, u64 len)
{
	const void *from = memory_ptr(mem, gpa, len);

	if (len == 0)
		return 0;
	if (!from)
		return -EFAULT;
	memcpy(buf, from, len);
	return 0;
}

int
memory_write(struct memory *mem, u64 gpa, const void *buf, u64 len)
{
	void *to = memory_ptr(mem, gpa, len);

	if (len == 0)
		return 0;
	if (!to)
		return -EFAULT;
	memcpy(to, buf, len);
	memory_written(mem, gpa, len);
	return 0;
}

void
memory_written(struct memory *mem, u64 gpa, u64 len)
{
	if (len == 0)
		return;
	pthread_rwlock_rdlock(&mem->listeners_lock);
	for (unsigned i = 0; i < mem->listener_count; i++)
		mem->listeners[i].fn(mem->listeners[i].opaque, gpa, len);
	pthread_rwlock_unlock(&mem->listeners_lock);
}

int
memory_add_listener(struct memory *mem, memory_written_fn *fn, void *opaque)
{
	int rc = -ENOSPC;

	pthread_rwlock_wrlock(&mem->listeners_lock);
	if (mem->listener_count < MEMORY_LISTENERS) {
		mem->listeners[mem->listener_count++] =
			(struct memory_listener){.fn = fn, .opaque = opaque};
		rc = 0;
	}
	pthread_rwlock_unlock(&mem->listeners_lock);
	return rc;
}

void
memory_remove_listener(struct memory *mem, memory_written_fn *fn, void *opaque)
{
	pthread_rwlock_wrlock(&mem->listeners_lock);
	for (unsigned i = 0; i < mem->listener_count; i++) {
		if (mem->listeners[i].fn != fn || mem->listeners[i].opaque != opaque)
			continue;
		mem->listeners[i] = mem->listeners[--mem->listener_count];
		break;
	}
	pthread_rwlock_unlock(&mem->listeners_lock);
}

static int
memory_compare_edges(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return (x > y) - (x < y);
}

static struct io_region *
memory_newest(struct io_region *list, u64 address)
{
	for (; list; list = list->next) {
		if (address >= list->base && address <= list->last)
			return list;
	}
	return NULL;
}

/* Every place where the newest region may change is a region's start or the byte
 * behind its end; between two of them one region, or none, wins. */
static void
memory_flatten(struct memory *mem)
{
	struct io_region *region;
	size_t edges = 0, n = 0;
	u64 last;

	for (region = mem->regions; region; region = region->next) {
		mem->edges[edges++] = region->base;
		if (region->last != UINT64_MAX)
			mem->edges[edges++] = region->last + 1;
	}
	if (edges > 0)
		qsort(mem->edges, edges, sizeof(*mem->edges), memory_compare_edges);
	for (size_t i = 0; i < edges; i++) {
		if (i + 1 < edges && mem->edges[i] == mem->edges[i + 1])
			continue;
		region = memory_newest(mem->regions, mem->edges[i]);
		if (!region)
			continue;
		last = i + 1 < edges ? mem->edges[i + 1] - 1 : UINT64_MAX;
		if (n > 0 && mem->flat[n - 1].region == region &&
		    mem->flat[n - 1].last + 1 == mem->edges[i])
			mem->flat[n - 1].last = last;
		else
			mem->flat[n++] = (struct memory_range){mem->edges[i], last, region};
	}
	mem->flat_count = n;
	mem->last_hit = 0;
}

static int
memory_reserve_flat(struct memory *mem, size_t regions)
{
	size_t room = 2 * regions + 1;
	struct memory_range *flat = realloc(mem->flat, room * sizeof(*flat));
	u64 *edges;

	if (!flat)
		return -ENOMEM;
	mem->flat = flat;
	edges = realloc(mem->edges, room * sizeof(*edges));
	if (!edges)
		return -ENOMEM;
	mem->edges = edges;
	return 0;
}

struct io_region *
memory_add_mmio(struct memory *mem, u64 gpa, u64 size, const struct io_ops *ops, void *opaque)
{
	struct io_region *region;

	if (size == 0 || size - 1 > UINT64_MAX - gpa ||
	    memory_reserve_flat(mem, mem->region_count + 1) < 0)
		return NULL;
	region = calloc(1, sizeof(*region));
	if (!region)
		return NULL;
	*region = (struct io_region){.next = mem->regions,
				     .ops = ops,
				     .opaque = opaque,
				     .base = gpa,
				     .last = gpa + size - 1};
	mem->regions = region;
	mem->region_count++;
	memory_flatten(mem);
	return region;
}

struct io_region *
memory_add_ports(struct memory *mem, u16 port, u32 count, const struct io_ops *ops, void *opaque)
{
	struct io_region *region;

	if (count == 0 || count > MEMORY_PORTS - (u32)port)
		return NULL;
	region = calloc(1, sizeof(*region));
	if (!region)
		return NULL;
	*region = (struct io_region){.next = mem->port_regions,
				     .ops = ops,
				     .opaque = opaque,
				     .base = port,
				     .last = port + count - 1,
				     .ports = true};
	mem->port_regions = region;
	for (u64 p = region->base; p <= region->last; p++)
		mem->ports[p] = region;
	return region;
}

static void
memory_unlink(struct io_region **list, const struct io_region *region)
{
	while (*list && *list != region)
		list = &(*list)->next;
	if (*list)
		*list = region->next;
}

void
memory_remove_region(struct memory *mem, struct io_region *region)
{
	if (!region)
		return;
	if (region->ports) {
		memory_unlink(&mem->port_regions, region);
		for (u64 p = region->base; p <= region->last; p++)
			mem->ports[p] = memory_newest(mem->port_regions, p);
	} else {
		memory_unlink(&mem->regions, region);
		mem->region_count--;
		memory_flatten(mem);
	}
	free(region);
}

/* The range at or around GPA, or NULL. */
static const struct memory_range *
memory_find_range(struct memory *mem, u64 gpa)
{
	const struct memory_range *range;
	size_t low = 0, high = mem->flat_count, middle;

	if (high == 0)
		return NULL;
	range = &mem->flat[mem->last_hit];
	if (likely(gpa >= range->base && gpa <= range->last))
		return range;
	while (low < high) {
		middle = low + (high - low) / 2;
		range = &mem->flat[middle];
		if (gpa < range->base) {
			high = middle;
		} else if (gpa > range->last) {
			low = middle + 1;
		} else {
			mem->last_hit = middle;
			return range;
		}
	}
	return NULL;
}

/* The region that all SIZE bytes belong to, or NULL; *split if they belong to several. */
static struct io_region *
memory_find_mmio(struct memory *mem, u64 gpa, unsigned size, bool *split)
{
	const struct memory_range *range = memory_find_range(mem, gpa);

	*split = false;
	if (range && size - 1 <= range->last - gpa)
		return range->region;
	for (unsigned i = range ? 0 : 1; i < size && !*split; i++)
		*split = range != NULL || memory_find_range(mem, gpa + i) != NULL;
	return NULL;
}

static struct io_region *
memory_find_port(struct memory *mem, u16 port, unsigned size, bool *split)
{
	struct io_region *region = mem->ports[port];

	*split = false;
	for (unsigned i = 1; i < size; i++) {
		if (port + i >= MEMORY_PORTS || mem->ports[port + i] != region)
			*split = true;
	}
	return *split ? NULL : region;
}

static u64
memory_ones(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

static u64
memory_region_read(const struct io_region *region, u64 address, unsigned size)
{
	if (!region || !region->ops->read)
		return memory_ones(size);
	return region->ops->read(region->opaque, address - region->base, size) & memory_ones(size);
}

static void
memory_region_write(const struct io_region *region, u64 address, unsigned size, u64 value)
{
	if (region && region->ops->write)
		region->ops->write(region->opaque, address - region->base, size,
				   value & memory_ones(size));
}

u64
memory_mmio_read(struct memory *mem, u64 gpa, unsigned size)
{
	bool split;
	struct io_region *region = memory_find_mmio(mem, gpa, size, &split);
	u64 value = 0;

	if (likely(!split))
		return memory_region_read(region, gpa, size);
	for (unsigned i = 0; i < size; i++)
		value |= memory_mmio_read(mem, gpa + i, 1) << (8 * i);
	return value;
}

void
memory_mmio_write(struct memory *mem, u64 gpa, unsigned size, u64 value)
{
	bool split;
	struct io_region *region = memory_find_mmio(mem, gpa, size, &split);

	if (likely(!split)) {
		memory_region_write(region, gpa, size, value);
		return;
	}
	for (unsigned i = 0; i < size; i++)
		memory_mmio_write(mem, gpa + i, 1, value >> (8 * i));
}

u64
memory_port_read(struct memory *mem, u16 port, unsigned size)
{
	bool split;
	struct io_region *region = memory_find_port(mem, port, size, &split);
	u64 value = 0;

	if (likely(!split))
		return memory_region_read(region, port, size);
	for (unsigned i = 0; i < size; i++)
		value |= memory_port_read(mem, (u16)(port + i), 1) << (8 * i);
	return value;
}

void
memory_port_write(struct memory *mem, u16 port, unsigned size, u64 value)
{
	bool split;
	struct io_region *region = memory_find_port(mem, port, size, &split);

	if (likely(!split)) {
		memory_region_write(region, port, size, value);
		return;
	}
	for (unsigned i = 0; i < size; i++)
		memory_port_write(mem, (u16)(port + i), 1, value >> (8 * i));
}
