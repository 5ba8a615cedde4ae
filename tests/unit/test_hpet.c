/*
 * The HPET: counter, one-shot and periodic timers, level, MSI, legacy replacement.
 */
#include "board.h"
#include "device/hpet.h"

#include <time.h>

static struct board *b;
static struct hpet *hpet;
static bool legacy;

static void
set_legacy_irq(void *opaque, unsigned irq, bool level)
{
	board_set(opaque, irq, level);
}

static void
set_legacy(void *opaque, bool on)
{
	legacy = on;
}

static int
setup(void **state)
{
	struct hpet_host host;

	b = board_create();
	legacy = false;
	host = (struct hpet_host){b, board_set, set_legacy_irq, set_legacy};
	assert_int_equal(hpet_create(&hpet, &b->host, &host), 0);
	return 0;
}

static int
teardown(void **state)
{
	hpet_destroy(hpet);
	board_destroy(b);
	return 0;
}

static u64
get(unsigned offset)
{
	return memory_mmio_read(b->host.memory, HPET_GPA + offset, 8);
}

static void
set(unsigned offset, u64 value)
{
	memory_mmio_write(b->host.memory, HPET_GPA + offset, 8, value);
}

enum { CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0, T0 = 0x100, T1 = 0x120, T2 = 0x140 };
enum { MS = 1000000 / HPET_PERIOD_NS };

static void
test_counter(void **state)
{
	u64 a, c;

	assert_int_equal(get(0) >> 32, HPET_PERIOD_NS * 1000000);
	assert_int_equal((u32)get(0), HPET_CAPABILITIES);
	set(COUNTER, 12345);
	assert_int_equal(get(COUNTER), 12345);
	set(CONFIG, 1);
	a = get(COUNTER);
	c = get(COUNTER);
	assert_true(a >= 12345 && c >= a && c < 12345 + 1000 * MS);
	assert_int_equal(memory_mmio_read(b->host.memory, HPET_GPA + COUNTER + 4, 4), 0);
	set(COUNTER, 0); /* only while halted */
	assert_true(get(COUNTER) >= c);
	set(CONFIG, 0);
	a = get(COUNTER);
	assert_int_equal(get(COUNTER), a);
}

static void
test_one_shot_level(void **state)
{
	set(T2, 22 << 9 | 1 << 2 | 1 << 1);
	set(CONFIG, 1);
	set(T2 + 8, get(COUNTER) + 5 * MS);
	board_run(b, 30);
	assert_int_equal(b->edges[22], 1);
	assert_true(b->level[22]);
	assert_int_equal(get(STATUS), 4);
	set(STATUS, 4);
	assert_false(b->level[22]);
	assert_int_equal(get(STATUS), 0);
	board_run(b, 20);
	assert_int_equal(b->edges[22], 1);
}

static void
test_periodic_edge(void **state)
{
	set(T0, 1 << 6 | 1 << 3 | 1 << 2 | 20 << 9);
	set(T0 + 8, 10 * MS);
	set(T0 + 8, 10 * MS);
	set(CONFIG, 1);
	board_run(b, 105);
	assert_in_range(b->edges[20], 6, 11);
	assert_false(b->level[20]);
	assert_true(get(T0 + 8) > get(COUNTER) - 11 * MS);
	set(T0, 1 << 3 | 20 << 9); /* interrupt off: no timer runs */
	b->edges[20] = 0;
	board_run(b, 30);
	assert_int_equal(b->edges[20], 0);
}

static void
test_legacy(void **state)
{
	set(T0, 1 << 2);
	set(T1, 1 << 2);
	set(CONFIG, 3);
	assert_true(legacy);
	set(T0 + 8, get(COUNTER) + 2 * MS);
	set(T1 + 8, get(COUNTER) + 2 * MS);
	board_run(b, 20);
	assert_int_equal(b->edges[0], 1);
	assert_int_equal(b->edges[8], 1);
	set(CONFIG, 0);
	assert_false(legacy);
}

static void
test_msi(void **state)
{
	set(T1 + 0x10, 0xfee01000ull << 32 | 0x45);
	set(T1, 1 << 14 | 1 << 2);
	set(CONFIG, 1);
	set(T1 + 8, get(COUNTER) + 2 * MS);
	board_run(b, 20);
	assert_int_equal(b->messages, 1);
	assert_int_equal(b->msi_address, 0xfee01000);
	assert_int_equal(b->msi_data, 0x45);
}

static void
test_shortest_period(void **state)
{
	set(T0, 1 << 6 | 1 << 3 | 1 << 2 | 20 << 9);
	set(T0 + 8, 1);
	set(CONFIG, 1);
	board_run(b, 50);
	assert_true(b->edges[20] <= 2501);
}

static void
test_nonsense(void **state)
{
	static const unsigned sizes[] = {1, 2, 4, 8};
	unsigned seed = 7;

	for (unsigned i = 0; i < 50000; i++) {
		unsigned size = sizes[rand_r(&seed) % 4];
		u64 offset = (u64)rand_r(&seed) % 0x180 / size * size;
		u64 value = (u64)rand_r(&seed) << 32 | (u64)rand_r(&seed);

		if (rand_r(&seed) & 1)
			memory_mmio_write(b->host.memory, HPET_GPA + offset, size, value);
		else
			memory_mmio_read(b->host.memory, HPET_GPA + offset, size);
	}
	board_run(b, 20);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_counter), T(test_one_shot_level),  T(test_periodic_edge), T(test_legacy),
		T(test_msi),	 T(test_shortest_period), T(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
