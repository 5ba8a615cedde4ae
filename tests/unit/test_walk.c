/*
 * cpu/walk.c: every table format, page size and right, against rules written
 * down once more in the plainest form, and by hand.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "cpu/cpu_state.h"
#include "cpu/walk.h"

enum { RAM = 1 << 20 };

#define P 1ull
#define W 2ull
#define U 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define G 0x100ull
#define NX (1ull << 63)

struct world {
	struct walk_context ctx;
	u8 *ram;
	unsigned marks;
	u64 change_at; /* the entry at this gpa changes under the walk, once */
};

static void *
entry(void *opaque, u64 gpa)
{
	struct world *w = opaque;

	assert_int_equal(gpa & 7, 0);
	return gpa < RAM ? w->ram + gpa : NULL;
}

static void
written(void *opaque, u64 gpa, unsigned len)
{
	struct world *w = opaque;

	assert_true(gpa < RAM && (len == 4 || len == 8));
	w->marks++;
}

static void
put(struct world *w, u64 gpa, u64 value)
{
	memcpy(w->ram + gpa, &value, 8);
}

static u64
get(struct world *w, u64 gpa)
{
	u64 value;

	memcpy(&value, w->ram + gpa, 8);
	return value;
}

static void
put32(struct world *w, u64 gpa, u32 value)
{
	memcpy(w->ram + gpa, &value, 4);
}

static void
start(struct world *w, u64 cr4, u64 efer)
{
	memset(w, 0, sizeof(*w));
	w->ram = calloc(1, RAM);
	w->ctx = (struct walk_context){.cr0 = CR0_PE | CR0_PG | CR0_WP,
				       .cr3 = 0x1000,
				       .cr4 = cr4,
				       .efer = efer,
				       .phys_mask = (1ull << 40) - 1,
				       .opaque = w,
				       .entry = entry,
				       .written = written};
}

/* Long mode tables at 0x1000, 0x2000, 0x3000, 0x4000 for linear 0. */
static void
start_long(struct world *w, u64 flags, u64 leaf)
{
	start(w, CR4_PAE | CR4_PGE, EFER_LME | EFER_LMA | EFER_NXE);
	put(w, 0x1000, 0x2000 | flags);
	put(w, 0x2000, 0x3000 | flags);
	put(w, 0x3000, 0x4000 | flags);
	put(w, 0x4000, leaf);
}

static void
unpaged(void **state)
{
	struct walk_result r;
	struct world w;

	start(&w, 0, 0);
	w.ctx.cr0 = CR0_PE;
	assert_int_equal(walk(&w.ctx, 0x12345678, WALK_WRITE, &r), 0);
	assert_int_equal(r.gpa, 0x12345678);
	assert_int_equal(r.page_size, 1ull << 52);
	assert_true(r.user && r.writable && r.exec);
	free(w.ram);
}

static void
long_mode_4k(void **state)
{
	struct walk_result r;
	struct world w;

	start_long(&w, P | W | U, 0x5000 | P | W | G);
	assert_int_equal(walk(&w.ctx, 0x123, 0, &r), 0);
	assert_int_equal(r.gpa, 0x5123);
	assert_int_equal(r.page_size, 4096);
	assert_true(r.global && !r.user && r.writable && r.exec && !r.dirty);
	assert_int_equal(get(&w, 0x1000), 0x2000 | P | W | U | A);
	assert_int_equal(get(&w, 0x4000), 0x5000 | P | W | G | A);
	assert_int_equal(w.marks, 4);
	assert_int_equal(walk(&w.ctx, 0x123, WALK_WRITE, &r), 0);
	assert_true(r.dirty);
	assert_int_equal(get(&w, 0x4000), 0x5000 | P | W | G | A | D);
	assert_int_equal(w.marks, 5);
	assert_int_equal(walk(&w.ctx, 0x123, WALK_WRITE, &r), 0);
	assert_int_equal(w.marks, 5);
	assert_int_equal(walk(&w.ctx, 0x1000, WALK_WRITE, &r), -EFAULT);
	assert_int_equal(r.error, PF_W);
	w.ctx.cr3 |= 0xabc; /* a PCID */
	assert_int_equal(walk(&w.ctx, 0, 0, &r), 0);
	free(w.ram);
}

static void
large_pages(void **state)
{
	struct walk_result r;
	struct world w;

	start_long(&w, P | W | U, 0);
	put(&w, 0x3000 + 8, 0x12400000 | P | W | PS);
	assert_int_equal(walk(&w.ctx, 0x200000 + 0x12345, 0, &r), 0);
	assert_int_equal(r.gpa, 0x12412345);
	assert_int_equal(r.page_size, 2 << 20);
	put(&w, 0x3000 + 8, 0x12402000 | P | W | PS); /* reserved bit 13 */
	assert_int_equal(walk(&w.ctx, 0x200000, WALK_USER, &r), -EFAULT);
	assert_int_equal(r.error, PF_P | PF_RSVD | PF_U);
	put(&w, 0x3000 + 8, 0x12401000 | P | W | PS); /* bit 12: PAT */
	assert_int_equal(walk(&w.ctx, 0x200000, 0, &r), 0);
	assert_int_equal(r.gpa, 0x12400000);
	put(&w, 0x2000 + 8, 0x40000000 | P | W | U | PS);
	assert_int_equal(walk(&w.ctx, 0x40000000 + 0x1234567, WALK_USER | WALK_WRITE, &r), 0);
	assert_int_equal(r.gpa, 0x41234567);
	assert_int_equal(r.page_size, 1 << 30);
	put(&w, 0x1000 + 8, 0x2000 | P | W | PS); /* no such page size */
	assert_int_equal(walk(&w.ctx, 1ull << 39, 0, &r), -EFAULT);
	assert_int_equal(r.error, PF_P | PF_RSVD);
	free(w.ram);
}

static void
reserved_bits(void **state)
{
	struct walk_result r;
	struct world w;

	start_long(&w, P | W | U, 0x5000 | P | 1ull << 40);
	assert_int_equal(walk(&w.ctx, 0, 0, &r), -EFAULT);
	assert_int_equal(r.error, PF_P | PF_RSVD);
	assert_int_equal(get(&w, 0x4000) & A, 0);
	put(&w, 0x4000, 0x5000 | P | 1ull << 52); /* free for software in long mode */
	assert_int_equal(walk(&w.ctx, 0, 0, &r), 0);
	put(&w, 0x4000, 0x5000 | P | NX);
	w.ctx.efer &= ~(u64)EFER_NXE;
	assert_int_equal(walk(&w.ctx, 0, WALK_EXEC, &r), -EFAULT);
	assert_int_equal(r.error, PF_P | PF_RSVD); /* without NXE, fetches are not told */
	put(&w, 0x3000, 0xff000000ull | P);	   /* a table that is not RAM: all ones */
	assert_int_equal(walk(&w.ctx, 0, 0, &r), -EFAULT);
	assert_int_equal(r.error, PF_P | PF_RSVD);
	free(w.ram);
}

/* The rules once more, for one leaf under wide-open tables. */
static bool
allowed(u64 leaf, u64 cr0, u64 cr4, unsigned access)
{
	bool user_page = leaf & U, write = access & WALK_WRITE, fetch = access & WALK_EXEC;

	if (fetch && (leaf & NX))
		return false;
	if (access & WALK_USER)
		return user_page && (!write || (leaf & W));
	if (fetch)
		return !(user_page && (cr4 & CR4_SMEP));
	if (user_page && (cr4 & CR4_SMAP) && !(access & WALK_AC))
		return false;
	return !write || (leaf & W) || !(cr0 & CR0_WP);
}

static void
every_right(void **state)
{
	static const u64 leaf_bits[] = {W, U, NX};
	static const u64 cr4_bits[] = {CR4_SMEP, CR4_SMAP};
	struct walk_result r;
	struct world w;
	u64 leaf;
	u32 error;

	for (unsigned n = 0; n < 1 << 10; n++) {
		unsigned access = n >> 6;

		if ((access & WALK_WRITE) && (access & WALK_EXEC))
			continue;
		leaf = 0x5000 | P;
		for (unsigned i = 0; i < 3; i++)
			leaf |= n >> i & 1 ? leaf_bits[i] : 0;
		start_long(&w, P | W | U, leaf);
		for (unsigned i = 0; i < 2; i++)
			w.ctx.cr4 |= n >> (3 + i) & 1 ? cr4_bits[i] : 0;
		if (n >> 5 & 1)
			w.ctx.cr0 &= ~(u64)CR0_WP;
		if (allowed(leaf, w.ctx.cr0, w.ctx.cr4, access)) {
			assert_int_equal(walk(&w.ctx, 0, access, &r), 0);
			assert_int_equal(get(&w, 0x4000), leaf | A | (access & WALK_WRITE ? D : 0));
		} else {
			error = PF_P | (access & WALK_WRITE ? PF_W : 0) |
				(access & WALK_USER ? PF_U : 0) | (access & WALK_EXEC ? PF_I : 0);
			assert_int_equal(walk(&w.ctx, 0, access, &r), -EFAULT);
			assert_int_equal(r.error, error);
			assert_int_equal(get(&w, 0x4000), leaf);
		}
		free(w.ram);
	}
}

static void
rights_add_up_over_levels(void **state)
{
	struct walk_result r;
	struct world w;

	for (unsigned level = 0; level < 3; level++) {
		start_long(&w, P | W | U, 0x5000 | P | W | U);
		put(&w, 0x1000 * (level + 1), (0x1000 * (level + 2)) | P | NX);
		assert_int_equal(walk(&w.ctx, 0, 0, &r), 0);
		assert_false(r.user || r.writable || r.exec);
		assert_int_equal(walk(&w.ctx, 0, WALK_USER, &r), -EFAULT);
		assert_int_equal(walk(&w.ctx, 0, WALK_WRITE, &r), -EFAULT);
		assert_int_equal(walk(&w.ctx, 0, WALK_EXEC, &r), -EFAULT);
		free(w.ram);
	}
}

static void
two_levels(void **state)
{
	struct walk_result r;
	struct world w;

	start(&w, CR4_PSE, EFER_NXE);
	put32(&w, 0x1000 + 4 * 3, 0x2000 | 7);
	put32(&w, 0x2000 + 4 * 5, 0xfedcb000 | 7);
	assert_int_equal(walk(&w.ctx, 3ull << 22 | 5 << 12 | 0x234, WALK_USER | WALK_WRITE, &r), 0);
	assert_int_equal(r.gpa, 0xfedcb234);
	assert_true(r.dirty && !r.global);
	put32(&w, 0x1000 + 4 * 4, 0x00c00000 | 0x83);
	assert_int_equal(walk(&w.ctx, 4ull << 22 | 0x234567, 0, &r), 0);
	assert_int_equal(r.gpa, 0x00c00000 | 0x234567);
	assert_int_equal(r.page_size, 4 << 20);
	put32(&w, 0x1000 + 4 * 4, 0x00c02000 | 0x83); /* PSE-36 is not there */
	assert_int_equal(walk(&w.ctx, 4ull << 22, WALK_EXEC, &r), -EFAULT);
	assert_int_equal(r.error, PF_P | PF_RSVD);
	w.ctx.cr4 = 0; /* without PSE the bit means nothing */
	put32(&w, 0x1000 + 4 * 4, 0x2000 | 0x83);
	assert_int_equal(walk(&w.ctx, 4ull << 22 | 5 << 12, 0, &r), 0);
	assert_int_equal(r.gpa, 0xfedcb000);
	assert_int_equal(walk(&w.ctx, 0x100000000ull | 4ull << 22 | 5 << 12, 0, &r), 0);
	free(w.ram);
}

static void
pae(void **state)
{
	struct walk_result r;
	struct world w;

	start(&w, CR4_PAE, EFER_NXE);
	w.ctx.pdpte[2] = 0x2000 | P;
	put(&w, 0x2000, 0x3000 | P | W | U);
	put(&w, 0x3000 + 8, 0x1234567000ull | P | U | NX);
	assert_int_equal(walk(&w.ctx, 0x80001abc, WALK_USER, &r), 0);
	assert_int_equal(r.gpa, 0x1234567abcull);
	assert_false(r.exec || r.writable);
	assert_int_equal(walk(&w.ctx, 0x40001abc, WALK_USER, &r), -EFAULT);
	assert_int_equal(r.error, PF_U);
	put(&w, 0x3000 + 8, 0x5000 | P | 1ull << 52); /* reserved here */
	assert_int_equal(walk(&w.ctx, 0x80001abc, 0, &r), -EFAULT);
	assert_int_equal(r.error, PF_P | PF_RSVD);
	put(&w, 0x2000 + 8, 0x00600000 | P | W | PS);
	assert_int_equal(walk(&w.ctx, 0x80234567, 0, &r), 0);
	assert_int_equal(r.gpa, 0x634567);
	free(w.ram);
}

static void *
changing_entry(void *opaque, u64 gpa)
{
	struct world *w = opaque;

	if (gpa == w->change_at) {
		w->change_at = UINT64_MAX;
		put(w, gpa, 0x6000 | P | W);
	}
	return w->ram + gpa;
}

static void
the_last_entry_counts(void **state)
{
	struct walk_result r;
	struct world w;

	start_long(&w, P | W | U, 0x5000 | P | W);
	w.ctx.entry = changing_entry;
	w.change_at = 0x4000;
	assert_int_equal(walk(&w.ctx, 0, WALK_WRITE, &r), 0);
	assert_int_equal(r.gpa, 0x6000);
	assert_int_equal(get(&w, 0x4000), 0x6000 | P | W | A | D);
	free(w.ram);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unpaged),
		cmocka_unit_test(long_mode_4k),
		cmocka_unit_test(large_pages),
		cmocka_unit_test(reserved_bits),
		cmocka_unit_test(every_right),
		cmocka_unit_test(rights_add_up_over_levels),
		cmocka_unit_test(two_levels),
		cmocka_unit_test(pae),
		cmocka_unit_test(the_last_entry_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
