/*
 * The slow way to guest memory: faults are raised, pages may be crossed, what is
 * not RAM is asked for, breakpoints are seen. And the flushes of the TLBs.
 */
#include "engine/translator/mmu.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "engine/translator/block.h"
#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/mmio.h"
#include "engine/translator/mode.h"
#include "engine/translator/pages.h"

int
vcpu_raise(struct vcpu *v, u8 vector)
{
	v->event = (struct pending_event){.pending = true, .vector = vector};
	return HELPER_FAULT;
}

int
vcpu_raise_code(struct vcpu *v, u8 vector, u32 code)
{
	v->event = (struct pending_event){
		.pending = true, .vector = vector, .has_code = true, .code = code};
	return HELPER_FAULT;
}

static struct tlb *
mmu_set(const struct vcpu *v, unsigned flags)
{
	const struct translation *t = vcpu_translation(v);

	if (!(flags & MMU_SUPERVISOR))
		return leaf_current_set(v);
	return t->sets[(v->cr4 & CR4_SMAP) ? TLB_KERNEL : TLB_KERNEL_USER];
}

/* GPA of LINEAR for this access, or a fault. */
static int
mmu_walk(struct vcpu *v, u64 linear, unsigned access, unsigned flags, u64 *gpa)
{
	struct walk_context ctx;
	struct walk_result r;

	if (vcpu_long_mode(v) ? !vcpu_canonical(linear) : linear >> 32 != 0) {
		if (vcpu_long_mode(v))
			return vcpu_raise_code(v, VECTOR_GP, 0);
		linear = (u32)linear;
	}
	leaf_walk_context(v, &ctx);
	if (walk(&ctx, linear, access | leaf_walk_flags(v, mmu_set(v, flags)), &r) != 0) {
		v->cr2 = linear;
		return vcpu_raise_code(v, VECTOR_PF, r.error);
	}
	*gpa = r.gpa;
	return 0;
}

/* Data breakpoints (AMD64 APM 2, 13.1.2): notes which of DR0 to DR3 an access hits. */
static void
mmu_watch(struct vcpu *v, u64 linear, unsigned len, bool write)
{
	struct translation *t = vcpu_translation(v);

	for (unsigned i = 0; i < 4; i++) {
		unsigned type = (unsigned)(v->dr7 >> (16 + 4 * i)) & 3;
		unsigned code = (unsigned)(v->dr7 >> (18 + 4 * i)) & 3;
		u64 size = code == 2 ? 8 : code + 1u, start = v->dr[i] & ~(size - 1);

		if (!(v->dr7 >> (2 * i) & 3) || !(type == 3 || (type == 1 && write)))
			continue;
		if (linear < start + size && start < linear + len)
			t->watch_hits |= BIT64(i);
	}
}

static unsigned
mmu_piece(u64 linear, unsigned len)
{
	unsigned room = (unsigned)(MEMORY_PAGE - (linear & (MEMORY_PAGE - 1)));

	return len < room ? len : room;
}

static int
mmu_read_mmio(struct vcpu *v, u64 gpa, u8 *buf, unsigned len)
{
	while (len) {
		unsigned n = len < 8 ? len : 8;
		int error = mmio_read(v, gpa, n, buf);

		if (error)
			return error;
		gpa += n, buf += n, len -= n;
	}
	return 0;
}

static int
mmu_read_piece(struct vcpu *v, u64 linear, u8 *buf, unsigned len, unsigned flags)
{
	u64 gpa, ram;
	int error = mmu_walk(v, linear, 0, flags, &gpa);

	if (error)
		return error;
	ram = engine_ram_offset(v->engine, gpa);
	if (ram == UINT64_MAX)
		return mmu_read_mmio(v, gpa, buf, len);
	memcpy(buf, v->engine->ram + ram, len);
	return 0;
}

int
mmu_read(struct vcpu *v, u64 linear, void *buf, unsigned len, unsigned flags)
{
	u8 *p = buf;
	int error;

	if (flags & MMU_WRITE_INTENT) {
		error = mmu_check_write(v, linear, len, flags);
		if (error)
			return error;
	}
	if (unlikely(v->dr7 & 0xff) && !(flags & MMU_SUPERVISOR))
		mmu_watch(v, linear, len, false);
	while (len) {
		unsigned n = mmu_piece(linear, len);

		error = mmu_read_piece(v, linear, p, n, flags);
		if (error)
			return error;
		linear += n, p += n, len -= n;
	}
	return 0;
}

int
mmu_check_write(struct vcpu *v, u64 linear, unsigned len, unsigned flags)
{
	u64 gpa;

	while (len) {
		unsigned n = mmu_piece(linear, len);
		int error = mmu_walk(v, linear, WALK_WRITE, flags, &gpa);

		if (error)
			return error;
		linear += n, len -= n;
	}
	return 0;
}

/* Stores to RAM; single aligned words as one store, as other CPUs expect. */
static void
mmu_store_ram(struct vcpu *v, u64 ram, const u8 *buf, unsigned len)
{
	u8 *p = v->engine->ram + ram;

	if (len == 8 && (ram & 7) == 0)
		__atomic_store_n((u64 *)(void *)p, get_le64(buf), __ATOMIC_RELEASE);
	else if (len == 4 && (ram & 3) == 0)
		__atomic_store_n((u32 *)(void *)p, get_le32(buf), __ATOMIC_RELEASE);
	else
		memcpy(p, buf, len);
	if (v->engine->dirty)
		__atomic_fetch_or(&v->engine->dirty[ram >> 18], BIT64((ram >> 12) & 63),
				  __ATOMIC_RELAXED);
	pages_written(v, ram, len);
}

static int
mmu_write_mmio(struct vcpu *v, u64 gpa, const u8 *buf, unsigned len, bool later)
{
	while (len) {
		unsigned n = len < 8 ? len : 8;
		int error = 0;

		if (later)
			mmio_write_later(v, gpa, n, buf);
		else
			error = mmio_write(v, gpa, n, buf);
		if (error)
			return error;
		gpa += n, buf += n, len -= n;
	}
	return 0;
}

static int
mmu_write_pieces(struct vcpu *v, u64 linear, const u8 *p, unsigned len, unsigned flags)
{
	while (len) {
		unsigned n = mmu_piece(linear, len);
		u64 gpa = 0, ram;
		int error = mmu_walk(v, linear, WALK_WRITE, flags, &gpa);

		if (error)
			return error;
		ram = engine_ram_offset(v->engine, gpa);
		if (ram != UINT64_MAX)
			mmu_store_ram(v, ram, p, n);
		else if ((error = mmu_write_mmio(v, gpa, p, n, false)) != 0)
			return error;
		linear += n, p += n, len -= n;
	}
	return 0;
}

int
mmu_write(struct vcpu *v, u64 linear, const void *buf, unsigned len, unsigned flags)
{
	int error = mmu_check_write(v, linear, len, flags);

	if (error)
		return error;
	if (unlikely(v->dr7 & 0xff) && !(flags & MMU_SUPERVISOR))
		mmu_watch(v, linear, len, true);
	return mmu_write_pieces(v, linear, buf, len, flags);
}

int
mmu_check_store(struct vcpu *v, u64 linear, unsigned len, u64 gpa[2])
{
	for (unsigned i = 0; len; i++) {
		unsigned n = mmu_piece(linear, len);
		int error = mmu_walk(v, linear, WALK_WRITE, 0, &gpa[i]);

		if (error)
			return error;
		linear += n, len -= n;
	}
	return 0;
}

void
mmu_commit(struct vcpu *v, u64 linear, const void *buf, unsigned len, const u64 gpa[2])
{
	const u8 *p = buf;

	if (unlikely(v->dr7 & 0xff))
		mmu_watch(v, linear, len, true);
	for (unsigned i = 0; len; i++) {
		unsigned n = mmu_piece(linear, len);
		u64 ram = engine_ram_offset(v->engine, gpa[i]);

		if (ram != UINT64_MAX)
			mmu_store_ram(v, ram, p, n);
		else
			mmu_write_mmio(v, gpa[i], p, n, true);
		linear += n, p += n, len -= n;
	}
}

int
mmu_read_physical(struct vcpu *v, u64 gpa, void *buf, unsigned len)
{
	u64 ram = engine_ram_offset(v->engine, gpa);

	if (ram == UINT64_MAX || engine_ram_offset(v->engine, gpa + len - 1) != ram + len - 1)
		return -EFAULT;
	memcpy(buf, v->engine->ram + ram, len);
	return 0;
}

int
mmu_write_physical(struct vcpu *v, u64 gpa, const void *buf, unsigned len)
{
	u64 ram = engine_ram_offset(v->engine, gpa);

	if (ram == UINT64_MAX || engine_ram_offset(v->engine, gpa + len - 1) != ram + len - 1)
		return -EFAULT;
	memcpy(v->engine->ram + ram, buf, len);
	memory_written(v->engine->memory, gpa, len);
	return 0;
}

static int
mmu_segment_fault(struct vcpu *v, enum cpu_segment seg)
{
	return vcpu_raise_code(v, seg == CPU_SS ? VECTOR_SS : VECTOR_GP, 0);
}

static bool
mmu_segment_allows(const struct vcpu *v, const struct segment *s, u64 offset, unsigned len,
		   bool write)
{
	bool code = (s->attr & 8) != 0;
	u64 last = offset + len - 1, top;

	if (vcpu_protected(v)) {
		if (!(s->attr & SEGMENT_P) || !(s->attr & SEGMENT_S))
			return false;
		if (write ? code || !(s->attr & 2) : code && !(s->attr & 2))
			return false;
		if (!code && (s->attr & 4)) { /* expand down (4.7.1) */
			top = (s->attr & SEGMENT_DB) ? UINT32_MAX : UINT16_MAX;
			return offset > s->limit && last <= top;
		}
	}
	return last <= s->limit;
}

int
mmu_linear(struct vcpu *v, enum cpu_segment seg, u64 offset, unsigned len, bool write, u64 *linear)
{
	const struct segment *s = &v->seg[seg];

	if (vcpu_64bit(v)) {
		*linear = offset + (seg == CPU_FS || seg == CPU_GS ? s->base : 0);
		if (!vcpu_canonical(*linear) || !vcpu_canonical(*linear + len - 1))
			return mmu_segment_fault(v, seg);
		return 0;
	}
	if (!mmu_segment_allows(v, s, offset, len, write))
		return mmu_segment_fault(v, seg);
	*linear = (u32)(s->base + offset);
	return 0;
}

int
mmu_operand(struct vcpu *v, const struct insn *in, unsigned len, bool write, u64 *linear)
{
	return mmu_linear(v, in->seg, vcpu_offset(v, in), len, write, linear);
}

static void
mmu_clear_entry(struct tlb *set, unsigned index)
{
	set->entry[index].read = set->entry[index].write = TLB_EMPTY(index);
}

static void
mmu_clear_page(struct tlb *set, u64 linear)
{
	mmu_clear_entry(set, (unsigned)(linear >> 12) & (TLB_SIZE - 1));
	mmu_clear_entry(set, tlb_victim(linear));
}

static void
mmu_clear_entries(struct tlb *set)
{
	for (unsigned i = 0; i < TLB_ALL; i++)
		mmu_clear_entry(set, i);
	set->large.count = 0;
	set->log_count = 0;
	set->victims = false;
}

/* Takes all addresses out of a set. Its code entries stay, to be looked at again before they are
 * used, if it is a user's: most flushes there are for data. */
static void
mmu_clear_set(struct vcpu *v, struct tlb *set)
{
	translation_forget_stack(vcpu_translation(v));
	mmu_clear_entries(set);
	if (set >= vcpu_translation(v)->sets[TLB_USER_FIRST])
		set->code_stale = true;
	else
		leaf_clear_code(set);
}

/* User sets but for the current one become free: they are cleared when they are taken again. */
static void
mmu_free_others(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	for (unsigned i = TLB_USER_FIRST; i < TLB_SETS; i++) {
		if (i == t->user_set)
			continue;
		t->sets[i]->key = TLB_NONE;
		t->sets[i]->used = 0;
	}
}

void
mmu_flush_all(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	mmu_clear_set(v, t->sets[TLB_KERNEL]);
	mmu_clear_set(v, t->sets[TLB_KERNEL_USER]);
	mmu_clear_set(v, t->sets[t->user_set]);
	leaf_clear_code(t->sets[t->user_set]);
	mmu_free_others(v);
}

/* Takes what is not global out of a kernel set. */
static void
mmu_drop_nonglobal(struct tlb *set)
{
	if (set->log_count > TLB_LOG)
		mmu_clear_entries(set);
	for (unsigned i = 0; i < set->log_count; i++)
		mmu_clear_entry(set, set->log[i]);
	set->log_count = 0;
	/* The log does not tell of those. */
	for (unsigned i = TLB_SIZE; i < TLB_ALL && set->victims; i++)
		mmu_clear_entry(set, i);
	set->victims = false;
	if (set->exec_nonglobal)
		leaf_clear_code(set);
}

static void
mmu_drop_kernel_nonglobal(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	translation_forget_stack(t);
	mmu_drop_nonglobal(t->sets[TLB_KERNEL]);
	mmu_drop_nonglobal(t->sets[TLB_KERNEL_USER]);
}

void
mmu_flush_local(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	mmu_drop_kernel_nonglobal(v);
	mmu_clear_set(v, t->sets[t->user_set]);
	mmu_free_others(v);
}

static u64
mmu_key(const struct vcpu *v, u64 cr3)
{
	return (v->cr4 & CR4_PCIDE) ? (cr3 & 0xfff) : cr3 & ~0xfffull;
}

/* The user set for KEY, cleared if it was another's; *kept tells whether it was this one's. */
static unsigned
mmu_find_set(struct vcpu *v, u64 key, bool *kept)
{
	struct translation *t = vcpu_translation(v);
	unsigned oldest = TLB_USER_FIRST;

	for (unsigned i = TLB_USER_FIRST; i < TLB_SETS; i++) {
		if (t->sets[i]->key == key) {
			*kept = true;
			return i;
		}
		if (t->sets[i]->used < t->sets[oldest]->used)
			oldest = i;
	}
	*kept = false;
	mmu_clear_set(v, t->sets[oldest]);
	leaf_clear_code(t->sets[oldest]);
	t->sets[oldest]->key = key;
	return oldest;
}

void
mmu_set_cr3(struct vcpu *v, u64 value)
{
	struct translation *t = vcpu_translation(v);
	bool pcid = (v->cr4 & CR4_PCIDE) != 0, keep = pcid && (value >> 63), kept;
	u64 base = value & ~(1ull << 63);

	mmu_drop_kernel_nonglobal(v);
	t->user_set = mmu_find_set(v, mmu_key(v, base), &kept);
	t->sets[t->user_set]->used = ++t->tick;
	if (kept && !keep)
		mmu_clear_set(v, t->sets[t->user_set]);
	v->cr3 = base;
	mode_select(v);
}

static bool
mmu_near_large(const struct tlb_large *large, u64 linear)
{
	u64 start = align_down(linear, 1ull << 30);

	if (large->count > TLB_LARGE)
		return true;
	for (unsigned i = 0; i < large->count; i++)
		if (large->start[i] == start)
			return true;
	return false;
}

/* The page around LINEAR may be up to 1 GiB large: all entries there. */
static void
mmu_invlpg_large(struct tlb *set, u64 linear)
{
	u64 start = align_down(linear, 1ull << 30);

	for (unsigned i = 0; i < TLB_ALL; i++)
		if (align_down(set->entry[i].read, 1ull << 30) == start ||
		    align_down(set->entry[i].write, 1ull << 30) == start)
			mmu_clear_entry(set, i);
}

static void
mmu_invlpg_set(struct vcpu *v, struct tlb *set, u64 linear)
{
	translation_forget_stack(vcpu_translation(v));
	if (mmu_near_large(&set->large, linear))
		mmu_invlpg_large(set, linear);
	else
		mmu_clear_page(set, linear);
	if (!leaf_has_code(set, align_down(linear, MEMORY_PAGE)) &&
	    !mmu_near_large(&set->code_large, linear))
		return;
	if (set >= vcpu_translation(v)->sets[TLB_USER_FIRST])
		set->code_stale = true;
	else
		leaf_clear_code(set);
}

void
mmu_invlpg(struct vcpu *v, u64 linear)
{
	struct translation *t = vcpu_translation(v);

	/* Global pages go whatever their PCID, and user sets do not tell which are. */
	for (unsigned i = 0; i < TLB_SETS; i++)
		if (i < TLB_USER_FIRST || i == t->user_set || t->sets[i]->key != TLB_NONE)
			mmu_invlpg_set(v, t->sets[i], linear);
}

void
mmu_invpcid(struct vcpu *v, unsigned type, u16 pcid, u64 linear)
{
	struct translation *t = vcpu_translation(v);
	bool current = (v->cr3 & 0xfff) == pcid;

	if (type == 2) {
		mmu_flush_all(v);
		return;
	}
	if (type == 3) {
		mmu_flush_local(v);
		return;
	}
	for (unsigned i = TLB_USER_FIRST; i < TLB_SETS; i++) {
		if (t->sets[i]->key != pcid)
			continue;
		if (type == 0)
			mmu_invlpg_set(v, t->sets[i], linear);
		else
			mmu_clear_set(v, t->sets[i]);
	}
	if (!current)
		return;
	if (type == 0) {
		mmu_invlpg(v, linear);
		return;
	}
	mmu_clear_set(v, t->sets[t->user_set]); /* its key may be from before CR4.PCIDE */
	mmu_drop_kernel_nonglobal(v);
}
