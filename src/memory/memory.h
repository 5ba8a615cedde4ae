/*
 * The guest-physical address space of one VM: RAM in one memfd, and regions of
 * memory-mapped and port I/O that belong to devices.
 *
 *	gpa  0 .. low_size			RAM, offset 0 of the memfd
 *	     MEMORY_PCI_HOLE .. 4 GiB		never RAM: PCI, ECAM, IOAPIC, HPET, local APIC
 *	     4 GiB .. 4 GiB + high_size		RAM, offset low_size of the memfd
 *
 * RAM is mapped once, always writable, at memory_ram_host().  Guest bytes are
 * hostile: memory_ptr() and the copying functions are the only ways in.
 *
 * Threads: RAM access from any thread. Regions change, and I/O is dispatched,
 * under the machine's lock.
 */
#ifndef MEMORY_MEMORY_H
#define MEMORY_MEMORY_H

#include "base/types.h"

#define MEMORY_PAGE 4096ull
#define MEMORY_PCI_HOLE 0xb0000000ull /* RAM below 4 GiB ends here at the latest */
#define MEMORY_HIGH 0x100000000ull

struct memory;

/* What a device does with I/O inside its region; OFFSET is from the region's
 * start, SIZE 1, 2, 4 or 8 and never beyond its end. */
struct io_ops {
	u64 (*read)(void *opaque, u64 offset, unsigned size);
	void (*write)(void *opaque, u64 offset, unsigned size, u64 value);
};

struct io_region; /* one registered range */

/* Called after the host, not the guest's own CPU, wrote [gpa, gpa + len). */
typedef void memory_written_fn(void *opaque, u64 gpa, u64 len);

/* RAM_SIZE in bytes, a multiple of 4 KiB. 0 or -errno (ENOMEM, EINVAL). */
int memory_create(struct memory **out, u64 ram_size);
void memory_destroy(struct memory *mem);

u64 memory_ram_size(const struct memory *mem);
u64 memory_low_size(const struct memory *mem);	/* bytes of RAM from gpa 0 */
u64 memory_high_size(const struct memory *mem); /* bytes of RAM from 4 GiB */
u8 *memory_ram_host(const struct memory *mem);	/* host address of memfd offset 0 */
int memory_ram_fd(const struct memory *mem);

/* All of RAM is zeroes, and takes no memory of the host's, as after create. Before anything runs.
 * 0 or -errno. */
int memory_clear(struct memory *mem);

/* Offset into RAM of a gpa whose page is RAM, or UINT64_MAX. */
u64 memory_ram_offset(const struct memory *mem, u64 gpa);

/* Host address of LEN bytes of guest RAM at GPA, or NULL if any byte of them
 * is not RAM or the range wraps. Whoever writes there calls memory_written. */
void *memory_ptr(const struct memory *mem, u64 gpa, u64 len);

/* Copy in and out of RAM: 0, or -EFAULT if any byte is not RAM. */
int memory_read(const struct memory *mem, u64 gpa, void *buf, u64 len);
int memory_write(struct memory *mem, u64 gpa, const void *buf, u64 len);

/* Every host-side write of guest RAM ends in this call (dirty marks,
 * translated code). Any thread. */
void memory_written(struct memory *mem, u64 gpa, u64 len);
int memory_add_listener(struct memory *mem, memory_written_fn *fn, void *opaque);
void memory_remove_listener(struct memory *mem, memory_written_fn *fn, void *opaque);

/* Registers a region; the newest wins where regions overlap. NULL if out of
 * memory. Ports are 0..0xffff. OPS and OPAQUE outlive the region. */
struct io_region *memory_add_mmio(struct memory *mem, u64 gpa, u64 size, const struct io_ops *ops,
				  void *opaque);
struct io_region *memory_add_ports(struct memory *mem, u16 port, u32 count,
				   const struct io_ops *ops, void *opaque);
void memory_remove_region(struct memory *mem, struct io_region *region);

/* A guest's access, SIZE 1, 2, 4 or 8. Nobody there: reads give all ones. An
 * access across a region's edge is split into bytes. */
u64 memory_mmio_read(struct memory *mem, u64 gpa, unsigned size);
void memory_mmio_write(struct memory *mem, u64 gpa, unsigned size, u64 value);
u64 memory_port_read(struct memory *mem, u16 port, unsigned size);
void memory_port_write(struct memory *mem, u16 port, unsigned size, u64 value);

#endif
