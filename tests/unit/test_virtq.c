/* Split virtqueues: good chains, hostile ones, notifications both ways. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "bus/virtq.h"

enum { RAM = 1 << 20, SIZE = 8, DESC = 0x1000, AVAIL = 0x2000, USED = 0x3000, DATA = 0x10000 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

struct fixture {
	struct memory *mem;
	struct virtq q;
	u8 *ram;
	u16 idx;
	u64 written_from, written_to;
	unsigned writes;
};

static void
fixture_written(void *opaque, u64 gpa, u64 len)
{
	struct fixture *f = opaque;

	f->writes++;
	f->written_from = gpa;
	f->written_to = gpa + len;
}

static void
start(struct fixture *f, bool event_index)
{
	f->q.size = SIZE;
	f->q.desc = DESC;
	f->q.avail = AVAIL;
	f->q.used = USED;
	assert_int_equal(virtq_start(&f->q, event_index, true), 0);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (memory_create(&f->mem, RAM) || virtq_init(&f->q, f->mem, 16))
		return -1;
	f->ram = memory_ram_host(f->mem);
	return memory_add_listener(f->mem, fixture_written, f);
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	virtq_free(&f->q);
	memory_destroy(f->mem);
	free(f);
	return 0;
}

static void
desc_at(struct fixture *f, u64 table, unsigned i, u64 addr, u32 len, u16 flags, u16 next)
{
	u8 *p = f->ram + table + 16 * i;

	put_le64(p, addr);
	put_le32(p + 8, len);
	put_le16(p + 12, flags);
	put_le16(p + 14, next);
}

static void
offer(struct fixture *f, u16 head)
{
	put_le16(f->ram + AVAIL + 4 + 2 * (f->idx % SIZE), head);
	put_le16(f->ram + AVAIL + 2, ++f->idx);
}

static void
test_chain(void **state)
{
	struct fixture *f = *state;
	struct virtq_chain chain;
	char text[16] = {0};

	start(f, false);
	assert_int_equal(virtq_pop(&f->q, &chain), 0);
	memcpy(f->ram + DATA, "abc", 3);
	memcpy(f->ram + DATA + 100, "defg", 4);
	desc_at(f, DESC, 3, DATA, 3, NEXT, 5);
	desc_at(f, DESC, 5, DATA + 100, 4, NEXT, 1);
	desc_at(f, DESC, 1, DATA + 200, 2, NEXT | WRITE, 0);
	desc_at(f, DESC, 0, DATA + 300, 8, WRITE, 77);
	offer(f, 3);
	assert_false(virtq_empty(&f->q));
	assert_int_equal(virtq_pop(&f->q, &chain), 1);
	assert_true(virtq_empty(&f->q));
	assert_int_equal(chain.head, 3);
	assert_int_equal(chain.out_count, 2);
	assert_int_equal(chain.in_count, 2);
	assert_int_equal(chain.out_len, 7);
	assert_int_equal(chain.in_len, 10);
	assert_int_equal(virtq_copy_out(&chain, 0, text, sizeof(text)), 7);
	assert_string_equal(text, "abcdefg");
	memset(text, 0, sizeof(text));
	assert_int_equal(virtq_copy_out(&chain, 2, text, 3), 3);
	assert_string_equal(text, "cde");
	assert_int_equal(virtq_copy_in(&f->q, &chain, 1, "12345678901", 11), 9);
	assert_memory_equal(f->ram + DATA + 201, "1", 1);
	assert_memory_equal(f->ram + DATA + 300, "23456789", 8);
	assert_int_equal(f->written_from, DATA + 300);
	assert_int_equal(f->written_to, DATA + 308);
	/* Used entries are told to memory_written too, and seen only when published. */
	virtq_fill(&f->q, chain.head, 10);
	assert_int_equal(f->written_from, USED + 4);
	assert_int_equal(get_le16(f->ram + USED + 2), 0);
	assert_true(virtq_publish(&f->q));
	assert_int_equal(f->written_from, USED + 2);
	assert_int_equal(get_le16(f->ram + USED + 2), 1);
	assert_int_equal(get_le32(f->ram + USED + 4), 3);
	assert_int_equal(get_le32(f->ram + USED + 8), 10);
	assert_false(virtq_publish(&f->q));
}

static void
test_indirect(void **state)
{
	struct fixture *f = *state;
	struct virtq_chain chain;

	start(f, false);
	for (unsigned i = 0; i < 7; i++)
		desc_at(f, 0x8000, i, DATA + 16 * i, 16, i < 6 ? NEXT : WRITE, i + 1);
	desc_at(f, DESC, 0, DATA, 1, NEXT, 1);
	desc_at(f, DESC, 1, 0x8000, 7 * 16, INDIRECT, 0);
	offer(f, 0);
	assert_int_equal(virtq_pop(&f->q, &chain), 1);
	assert_int_equal(chain.out_count, 7);
	assert_int_equal(chain.in_count, 1);
	/* Given back, it comes again. */
	virtq_unpop(&f->q, 1);
	assert_int_equal(virtq_pop(&f->q, &chain), 1);
	assert_int_equal(chain.out_len, 1 + 6 * 16);
}

/* What a hostile driver may offer: each breaks the queue, none breaks us. */
struct bad {
	const char *what;
	struct {
		u64 addr;
		u32 len;
		u16 flags, next;
	} desc[2];
	u16 head;
};

static const struct bad bads[] = {
	{"loop", {{DATA, 4, NEXT, 1}, {DATA, 4, NEXT, 0}}, 0},
	{"self loop of empty buffers", {{DATA, 0, NEXT, 0}}, 0},
	{"head beyond the table", {{DATA, 4, 0, 0}}, SIZE},
	{"next beyond the table", {{DATA, 4, NEXT, SIZE}}, 0},
	{"not RAM", {{0xfee00000, 4, 0, 0}}, 0},
	{"across the end of RAM", {{RAM - 2, 4, 0, 0}}, 0},
	{"wraps", {{UINT64_MAX - 1, 4, WRITE, 0}}, 0},
	{"huge", {{DATA, UINT32_MAX, 0, 0}}, 0},
	{"out after in", {{DATA, 4, NEXT | WRITE, 1}, {DATA, 4, 0, 0}}, 0},
	{"indirect with next", {{0x8000, 16, NEXT | INDIRECT, 1}, {DATA, 4, 0, 0}}, 0},
	{"indirect of odd length", {{0x8000, 24, INDIRECT, 0}}, 0},
	{"empty indirect", {{0x8000, 0, INDIRECT, 0}}, 0},
	{"indirect outside RAM", {{RAM, 16, INDIRECT, 0}}, 0},
	{"indirect in indirect", {{DESC + 16, 16, INDIRECT, 0}, {0x8000, 16, INDIRECT, 0}}, 0},
	{"indirect loop", {{DESC + 16, 16, INDIRECT, 0}, {DATA, 16, NEXT, 0}}, 0},
	{"indirect, next outside", {{DESC + 16, 16, INDIRECT, 0}, {DATA, 16, NEXT, 1}}, 0},
};

static void
test_hostile_chains(void **state)
{
	struct fixture *f = *state;
	struct virtq_chain chain;

	for (unsigned i = 0; i < ARRAY_LEN(bads); i++) {
		memset(f->ram, 0, RAM);
		virtq_reset(&f->q);
		f->idx = 0;
		start(f, false);
		for (unsigned j = 0; j < 2; j++)
			desc_at(f, DESC, j, bads[i].desc[j].addr, bads[i].desc[j].len,
				bads[i].desc[j].flags, bads[i].desc[j].next);
		offer(f, bads[i].head);
		if (virtq_pop(&f->q, &chain) != -EINVAL)
			fail_msg("%s", bads[i].what);
		assert_true(f->q.broken);
		assert_int_equal(virtq_pop(&f->q, &chain), -EINVAL);
		assert_false(virtq_enable_notify(&f->q));
	}
}

static void
test_chain_no_longer_than_queue(void **state)
{
	struct fixture *f = *state;
	struct virtq_chain chain;

	start(f, false);
	for (unsigned i = 0; i < SIZE; i++)
		desc_at(f, 0x8000, i, DATA, 1, i < SIZE - 1 ? NEXT : 0, i + 1);
	desc_at(f, DESC, 0, 0x8000, SIZE * 16, INDIRECT, 0);
	offer(f, 0);
	assert_int_equal(virtq_pop(&f->q, &chain), 1);
	assert_int_equal(chain.out_count, SIZE);
	desc_at(f, DESC, 1, DATA, 1, NEXT, 0);
	offer(f, 1);
	assert_int_equal(virtq_pop(&f->q, &chain), -EINVAL);
}

static void
test_index_jump(void **state)
{
	struct fixture *f = *state;
	struct virtq_chain chain;

	start(f, false);
	put_le16(f->ram + AVAIL + 2, SIZE + 1);
	assert_int_equal(virtq_pop(&f->q, &chain), -EINVAL);
}

static void
test_bad_rings(void **state)
{
	struct fixture *f = *state;
	static const struct {
		u16 size;
		u64 desc, avail, used;
	} bad[] = {
		{0, DESC, AVAIL, USED},		 {3, DESC, AVAIL, USED},
		{32, DESC, AVAIL, USED},	 {8, DESC + 8, AVAIL, USED},
		{8, DESC, AVAIL + 1, USED},	 {8, DESC, AVAIL, USED + 2},
		{8, RAM - 64, AVAIL, USED},	 {8, DESC, RAM - 16, USED},
		{8, DESC, AVAIL, RAM - 64},	 {8, UINT64_MAX - 15, AVAIL, USED},
		{8, DESC, UINT64_MAX - 1, USED}, {8, DESC, AVAIL, UINT64_MAX - 3},
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		virtq_reset(&f->q);
		f->q.size = bad[i].size;
		f->q.desc = bad[i].desc;
		f->q.avail = bad[i].avail;
		f->q.used = bad[i].used;
		assert_int_equal(virtq_start(&f->q, true, true), -EINVAL);
		assert_true(f->q.broken);
	}
}

static void
test_interrupts_by_flag(void **state)
{
	struct fixture *f = *state;

	start(f, false);
	put_le16(f->ram + AVAIL, 1);
	virtq_fill(&f->q, 0, 0);
	assert_false(virtq_publish(&f->q));
	put_le16(f->ram + AVAIL, 0);
	virtq_fill(&f->q, 0, 0);
	assert_true(virtq_publish(&f->q));
	virtq_disable_notify(&f->q);
	assert_int_equal(get_le16(f->ram + USED), 1);
	assert_false(virtq_enable_notify(&f->q));
	assert_int_equal(get_le16(f->ram + USED), 0);
	offer(f, 0);
	assert_true(virtq_enable_notify(&f->q));
}

/* Over the wrap of the 16-bit index: an interrupt exactly when used_event is passed. */
static void
test_interrupts_by_event(void **state)
{
	struct fixture *f = *state;
	u8 *event = f->ram + AVAIL + 4 + 2 * SIZE;
	struct virtq_chain chain;

	start(f, true);
	desc_at(f, DESC, 0, DATA, 1, 0, 0);
	for (u32 i = 0; i < 70000; i++) {
		put_le16(event, (u16)(i / 10 * 10 + 4));
		offer(f, 0);
		assert_int_equal(virtq_pop(&f->q, &chain), 1);
		virtq_fill(&f->q, 0, 0);
		if (virtq_publish(&f->q) != (i % 10 == 4 || i == 0))
			fail_msg("entry %u", i);
		assert_false(virtq_enable_notify(&f->q));
		assert_int_equal(get_le16(f->ram + USED + 4 + 8 * SIZE), (u16)(i + 1));
	}
	/* A batch that passes it counts once. */
	put_le16(event, (u16)(70000 + 2));
	for (unsigned i = 0; i < 5; i++)
		virtq_fill(&f->q, 0, 0);
	assert_true(virtq_publish(&f->q));
}

#define VIRTQ_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		VIRTQ_TEST(test_chain),
		VIRTQ_TEST(test_indirect),
		VIRTQ_TEST(test_hostile_chains),
		VIRTQ_TEST(test_chain_no_longer_than_queue),
		VIRTQ_TEST(test_index_jump),
		VIRTQ_TEST(test_bad_rings),
		VIRTQ_TEST(test_interrupts_by_flag),
		VIRTQ_TEST(test_interrupts_by_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
