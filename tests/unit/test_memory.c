/*
 * memory/memory.c: the bounds of RAM, regions that overlap, accesses across
 * their edges, listeners.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "memory/memory.h"

#define MIB (1ull << 20)

struct device {
	u8 id;
	u64 offset, value;
	unsigned size, calls;
};

static u64
device_read(void *opaque, u64 offset, unsigned size)
{
	struct device *d = opaque;

	d->offset = offset;
	d->size = size;
	d->calls++;
	return 0x0101010101010101ull * d->id;
}

static void
device_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct device *d = opaque;

	d->offset = offset;
	d->size = size;
	d->value = value;
	d->calls++;
}

static const struct io_ops device_ops = {device_read, device_write};

static void
ram_has_edges(void **state)
{
	struct memory *mem;
	u64 word = 0x1122334455667788ull, back = 0;

	assert_int_equal(memory_create(&mem, 0), -EINVAL);
	assert_int_equal(memory_create(&mem, 4097), -EINVAL);
	assert_int_equal(memory_create(&mem, 4 * MIB), 0);
	assert_int_equal(memory_low_size(mem), 4 * MIB);
	assert_int_equal(memory_high_size(mem), 0);
	assert_int_equal(memory_write(mem, 4 * MIB - 8, &word, 8), 0);
	assert_int_equal(memory_read(mem, 4 * MIB - 8, &back, 8), 0);
	assert_int_equal(back, word);
	assert_int_equal(memory_write(mem, 4 * MIB - 7, &word, 8), -EFAULT);
	assert_null(memory_ptr(mem, 0, 4 * MIB + 1));
	assert_null(memory_ptr(mem, 16, UINT64_MAX));
	assert_null(memory_ptr(mem, UINT64_MAX - 3, 8));
	assert_non_null(memory_ptr(mem, 0, 4 * MIB));
	assert_int_equal(memory_ram_offset(mem, 4 * MIB), UINT64_MAX);
	assert_int_equal(ftruncate(memory_ram_fd(mem), 0), -1); /* sealed */
	memory_destroy(mem);
}

static void
ram_goes_on_above_4_gib(void **state)
{
	struct memory *mem;
	u8 byte = 0x5a;

	assert_int_equal(memory_create(&mem, MEMORY_PCI_HOLE + 2 * MIB), 0);
	assert_int_equal(memory_low_size(mem), MEMORY_PCI_HOLE);
	assert_int_equal(memory_high_size(mem), 2 * MIB);
	assert_null(memory_ptr(mem, MEMORY_PCI_HOLE - 4, 8));
	assert_null(memory_ptr(mem, MEMORY_HIGH - 1, 1));
	assert_int_equal(memory_write(mem, MEMORY_HIGH + 2 * MIB - 1, &byte, 1), 0);
	assert_int_equal(memory_ram_host(mem)[MEMORY_PCI_HOLE + 2 * MIB - 1], 0x5a);
	assert_int_equal(memory_ram_offset(mem, MEMORY_HIGH), MEMORY_PCI_HOLE);
	memory_destroy(mem);
}

static void
the_newest_region_wins(void **state)
{
	struct device a = {.id = 1}, b = {.id = 2}, c = {.id = 3};
	struct io_region *ra, *rb;
	struct memory *mem;

	assert_int_equal(memory_create(&mem, MIB), 0);
	ra = memory_add_mmio(mem, 0xd0000000, 0x1000, &device_ops, &a);
	rb = memory_add_mmio(mem, 0xd0000400, 0x100, &device_ops, &b);
	assert_non_null(ra);
	assert_non_null(rb);
	assert_non_null(memory_add_mmio(mem, 0xfffffffffffff000, 0x1000, &device_ops, &c));
	assert_null(memory_add_mmio(mem, 0xfffffffffffff000, 0x1001, &device_ops, &c));
	assert_null(memory_add_mmio(mem, 0, 0, &device_ops, &c));
	assert_int_equal(memory_mmio_read(mem, 0xd0000000, 4), 0x01010101);
	assert_int_equal(memory_mmio_read(mem, 0xd0000404, 2), 0x0202);
	assert_int_equal(b.offset, 4);
	assert_int_equal(memory_mmio_read(mem, 0xd0000500, 8), 0x0101010101010101ull);
	assert_int_equal(a.offset, 0x500);
	assert_int_equal(memory_mmio_read(mem, 0xfffffffffffffff8, 1), 3);
	assert_int_equal(memory_mmio_read(mem, 0xd0001000, 4), 0xffffffff);
	memory_remove_region(mem, rb);
	assert_int_equal(memory_mmio_read(mem, 0xd0000404, 1), 1);
	memory_remove_region(mem, ra);
	assert_int_equal(memory_mmio_read(mem, 0xd0000404, 1), 0xff);
	memory_mmio_write(mem, 0xd0000404, 4, 7); /* nobody: harmless */
	memory_destroy(mem);
}

static void
accesses_across_an_edge_are_split(void **state)
{
	struct device a = {.id = 1}, b = {.id = 2};
	struct memory *mem;

	assert_int_equal(memory_create(&mem, MIB), 0);
	memory_add_mmio(mem, 0xd0000000, 0x10, &device_ops, &a);
	memory_add_mmio(mem, 0xd0000010, 0x10, &device_ops, &b);
	assert_int_equal(memory_mmio_read(mem, 0xd000000e, 4), 0x02020101);
	assert_int_equal(a.size, 1);
	assert_int_equal(memory_mmio_read(mem, 0xd000001e, 4), 0xffff0202);
	assert_int_equal(memory_mmio_read(mem, 0xcffffffe, 4), 0x0101ffff);
	memory_mmio_write(mem, 0xd000000e, 4, 0x44332211);
	assert_int_equal(a.value, 0x22);
	assert_int_equal(b.value, 0x44);
	assert_int_equal(b.offset, 1);
	memory_destroy(mem);
}

static void
ports_are_dispatched(void **state)
{
	struct device a = {.id = 1}, b = {.id = 2};
	struct io_region *rb;
	struct memory *mem;

	assert_int_equal(memory_create(&mem, MIB), 0);
	memory_add_ports(mem, 0, 0x10000, &device_ops, &a);
	rb = memory_add_ports(mem, 0x3f8, 8, &device_ops, &b);
	assert_null(memory_add_ports(mem, 0xffff, 2, &device_ops, &b));
	assert_int_equal(memory_port_read(mem, 0x3f9, 1), 2);
	assert_int_equal(b.offset, 1);
	assert_int_equal(memory_port_read(mem, 0x3ff, 2), 0x0102);
	assert_int_equal(memory_port_read(mem, 0xffff, 2), 0x0101); /* wraps */
	memory_port_write(mem, 0x3f8, 1, 0x1ff);
	assert_int_equal(b.value, 0xff);
	memory_remove_region(mem, rb);
	assert_int_equal(memory_port_read(mem, 0x3f9, 1), 1);
	memory_destroy(mem);
}

/* Random regions come and go; a byte map says who must answer. */
static void
dispatch_matches_a_model(void **state)
{
	enum { REGIONS = 24, SPAN = 512 };
	struct io_region *regions[REGIONS] = {0};
	struct device devices[REGIONS];
	unsigned born[REGIONS] = {0}, base[REGIONS], size[REGIONS], best;
	struct memory *mem;
	u8 expected;

	srand(1);
	assert_int_equal(memory_create(&mem, MIB), 0);
	for (unsigned step = 1; step < 3000; step++) {
		unsigned i = (unsigned)rand() % REGIONS, at = (unsigned)rand() % SPAN;

		if (regions[i]) {
			memory_remove_region(mem, regions[i]);
			regions[i] = NULL;
		} else {
			base[i] = at;
			size[i] = 1 + (unsigned)rand() % 64;
			born[i] = step;
			devices[i] = (struct device){.id = (u8)(i + 1)};
			regions[i] = memory_add_mmio(mem, 0xd0000000 + at, size[i], &device_ops,
						     &devices[i]);
			assert_non_null(regions[i]);
		}
		at = (unsigned)rand() % SPAN;
		expected = 0xff;
		best = 0;
		for (unsigned r = 0; r < REGIONS; r++) {
			if (!regions[r] || at < base[r] || at >= base[r] + size[r] ||
			    born[r] < best)
				continue;
			best = born[r];
			expected = (u8)(r + 1);
		}
		assert_int_equal(memory_mmio_read(mem, 0xd0000000 + at, 1), expected);
	}
	memory_destroy(mem);
}

static void
count_written(void *opaque, u64 gpa, u64 len)
{
	u64 *seen = opaque;

	seen[0] = gpa;
	seen[1] += len;
}

static void
listeners_hear_writes(void **state)
{
	struct memory *mem;
	u64 seen[2] = {0};

	assert_int_equal(memory_create(&mem, MIB), 0);
	assert_int_equal(memory_add_listener(mem, count_written, seen), 0);
	memory_write(mem, 0x1000, "abc", 3);
	assert_int_equal(seen[0], 0x1000);
	assert_int_equal(seen[1], 3);
	assert_int_equal(memory_write(mem, MIB, "abc", 3), -EFAULT);
	memory_remove_listener(mem, count_written, seen);
	memory_write(mem, 0x1000, "abc", 3);
	assert_int_equal(seen[1], 3);
	memory_destroy(mem);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ram_has_edges),
		cmocka_unit_test(ram_goes_on_above_4_gib),
		cmocka_unit_test(the_newest_region_wins),
		cmocka_unit_test(accesses_across_an_edge_are_split),
		cmocka_unit_test(ports_are_dispatched),
		cmocka_unit_test(dispatch_matches_a_model),
		cmocka_unit_test(listeners_hear_writes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
