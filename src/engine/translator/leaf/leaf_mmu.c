/*
 * Filling the soft TLB.
 *
 * A write tag is present only if the page's D bit is set and no vCPU holds
 * translations of the page; leaf_may_write and pages_protect (pages.c) agree
 * on that without a lock: each sets its own bit before it reads the other's.
 */
#include "engine/translator/leaf/leaf_mmu.h"

#include "engine/translator/mode.h"

static inline unsigned
leaf_index(u64 linear)
{
	return (unsigned)(linear >> 12) & (TLB_SIZE - 1);
}

static void *
leaf_walk_entry(void *opaque, u64 gpa)
{
	struct vcpu *v = opaque;
	u64 ram = engine_ram_offset(v->engine, gpa);

	return ram == UINT64_MAX ? NULL : v->engine->ram + ram;
}

static void
leaf_mark_dirty(struct engine *e, u64 ram)
{
	if (unlikely(e->dirty != NULL))
		__atomic_fetch_or(&e->dirty[ram >> 18], BIT64((ram >> 12) & 63), __ATOMIC_RELAXED);
}

static void
leaf_walk_written(void *opaque, u64 gpa, unsigned len)
{
	struct vcpu *v = opaque;

	(void)len;
	leaf_mark_dirty(v->engine, engine_ram_offset(v->engine, gpa));
}

void
leaf_walk_context(struct vcpu *v, struct walk_context *ctx)
{
	ctx->cr0 = v->cr0;
	ctx->cr3 = v->cr3;
	ctx->cr4 = v->cr4;
	ctx->efer = v->msr.efer;
	for (int i = 0; i < 4; i++)
		ctx->pdpte[i] = v->pdpte[i];
	ctx->phys_mask = (1ull << v->model->phys_bits) - 1;
	ctx->opaque = v;
	ctx->entry = leaf_walk_entry;
	ctx->written = leaf_walk_written;
}

unsigned
leaf_walk_flags(const struct vcpu *v, const struct tlb *set)
{
	const struct translation *t = vcpu_translation(v);

	if (set == t->sets[TLB_KERNEL])
		return 0;
	if (set == t->sets[TLB_KERNEL_USER])
		return WALK_AC;
	return WALK_USER;
}

bool
leaf_may_write(struct vcpu *v, u64 ram)
{
	struct engine *e = v->engine;
	u64 page = ram >> 12;
	u16 bit = (u16)BIT(v->index);

	if (!(__atomic_load_n(&e->page_writers[page], __ATOMIC_RELAXED) & bit))
		__atomic_fetch_or(&e->page_writers[page], bit, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&e->page_code[page], __ATOMIC_SEQ_CST) != 0)
		return false;
	leaf_mark_dirty(e, ram);
	return true;
}

static void
leaf_note_large(struct tlb_large *large, u64 linear)
{
	u64 start = align_down(linear, 1ull << 30);

	for (unsigned i = 0; i < large->count && i < TLB_LARGE; i++)
		if (large->start[i] == start)
			return;
	if (large->count < TLB_LARGE)
		large->start[large->count++] = start;
	else
		large->count = TLB_LARGE + 1;
}

static void
leaf_note_nonglobal(struct tlb *set, unsigned index)
{
	if (set->log_count < TLB_LOG)
		set->log[set->log_count++] = (u16)index;
	else
		set->log_count = TLB_LOG + 1;
}

/* The walk for LINEAR: RAM offset of its page, or UINT64_MAX if it faults or is not RAM. */
static u64
leaf_walk(struct vcpu *v, struct tlb *set, u64 linear, unsigned access, struct walk_result *r)
{
	struct walk_context ctx;
	u64 ram;

	leaf_walk_context(v, &ctx);
	if (walk(&ctx, linear, access | leaf_walk_flags(v, set), r) != 0)
		return UINT64_MAX;
	ram = engine_ram_offset(v->engine, r->gpa);
	if (ram == UINT64_MAX)
		return UINT64_MAX;
	if (r->page_size > MEMORY_PAGE && (v->cr0 & CR0_PG))
		leaf_note_large((access & WALK_EXEC) ? &set->code_large : &set->large, linear);
	return align_down(ram, MEMORY_PAGE);
}

/* Puts PAGE where others of its index are; what is there goes to the victims. */
static void
leaf_set_read(struct tlb *set, struct tlb_entry *entry, u64 page, u64 host)
{
	struct tlb_entry *victim = &set->entry[tlb_victim(entry->read)];

	if (entry->read != page && leaf_index(entry->read) == leaf_index(page)) {
		victim->read = entry->read;
		victim->read_host = entry->read_host;
		set->victims = true;
	}
	entry->read = page;
	entry->read_host = host;
}

static void
leaf_set_write(struct tlb *set, struct tlb_entry *entry, u64 page, u64 host)
{
	struct tlb_entry *victim = &set->entry[tlb_victim(entry->write)];

	if (entry->write != page && leaf_index(entry->write) == leaf_index(page)) {
		victim->write = entry->write;
		victim->write_host = entry->write_host;
		set->victims = true;
	}
	entry->write = page;
	entry->write_host = host;
}

/* PAGE was found anew: nothing else is to be said of it. */
static void
leaf_forget_page(struct tlb *set, u64 page, u64 host, bool write)
{
	struct tlb_entry *entry = &set->entry[leaf_index(page)];
	struct tlb_entry *victim = &set->entry[tlb_victim(page)];

	if (entry->write == page && entry->write_host != host)
		entry->write = TLB_EMPTY(leaf_index(page));
	if (victim->read == page)
		victim->read = TLB_EMPTY(tlb_victim(page));
	if (victim->write == page && (write || victim->write_host != host))
		victim->write = TLB_EMPTY(tlb_victim(page));
}

/* An access to PAGE by its entry among the victims, which gets its place back; NULL if none. */
static struct tlb_entry *
leaf_recall(struct tlb *set, u64 page, bool write)
{
	struct tlb_entry *entry = &set->entry[leaf_index(page)];
	struct tlb_entry *victim = &set->entry[tlb_victim(page)];

	if ((write ? victim->write : victim->read) != page)
		return NULL;
	if (write) {
		victim->write = TLB_EMPTY(tlb_victim(page));
		leaf_set_write(set, entry, page, victim->write_host);
	} else {
		victim->read = TLB_EMPTY(tlb_victim(page));
		leaf_set_read(set, entry, page, victim->read_host);
	}
	return entry;
}

struct tlb_entry *
leaf_fill(struct vcpu *v, struct tlb *set, u64 linear, bool write)
{
	unsigned index = leaf_index(linear);
	struct tlb_entry *entry = &set->entry[index];
	struct walk_result r;
	u64 page = align_down(linear, MEMORY_PAGE);
	u64 ram = leaf_walk(v, set, linear, write ? (unsigned)WALK_WRITE : 0u, &r), host;

	vcpu_translation(v)->count.fills++;
	if (ram == UINT64_MAX)
		return NULL;
	host = (u64)v->engine->ram + ram;
	leaf_forget_page(set, page, host, write);
	/* Reading what was just written is so frequent that a write brings the read half too,
	 * unless the halves have parted: then two pages compete here. */
	if (!write || entry->read == page || entry->read == entry->write)
		leaf_set_read(set, entry, page, host);
	if (write && leaf_may_write(v, ram))
		leaf_set_write(set, entry, page, host);
	if (!r.global && set < vcpu_translation(v)->sets[TLB_USER_FIRST])
		leaf_note_nonglobal(set, index);
	return entry;
}

static u8 *
leaf_entry_host(const struct tlb_entry *entry, u64 linear, unsigned write)
{
	u64 page = write ? entry->write_host : entry->read_host;

	return (u8 *)(page + (linear & (MEMORY_PAGE - 1)));
}

static u8 *
leaf_host_in(struct vcpu *v, struct tlb *set, u64 linear, unsigned len, unsigned write)
{
	struct tlb_entry *entry = &set->entry[leaf_index(linear)];
	u64 page = align_down(linear, MEMORY_PAGE);

	if ((linear & 4095) + len > 4096)
		return NULL;
	if (likely((write ? entry->write : entry->read) == page))
		return leaf_entry_host(entry, linear, write);
	entry = leaf_recall(set, page, write);
	if (entry)
		return leaf_entry_host(entry, linear, write);
	if (vcpu_long_mode(v) ? !vcpu_canonical(linear) : linear >> 32 != 0)
		return NULL;
	if (unlikely(v->dr7 & 0xff) && set->entry == vcpu_translation(v)->tlb)
		return NULL;
	entry = leaf_fill(v, set, linear, write);
	if (!entry || (write ? entry->write : entry->read) != page)
		return NULL;
	return leaf_entry_host(entry, linear, write);
}

u8 *
leaf_host(struct vcpu *v, u64 linear, unsigned len, unsigned write)
{
	return leaf_host_in(v, leaf_current_set(v), linear, len, write);
}

u8 *
leaf_host_system(struct vcpu *v, u64 linear, unsigned len, unsigned write)
{
	struct translation *t = vcpu_translation(v);
	bool smap = (v->cr4 & CR4_SMAP) != 0;

	return leaf_host_in(v, t->sets[smap ? TLB_KERNEL : TLB_KERNEL_USER], linear, len, write);
}

void
leaf_clear_code(struct tlb *set)
{
	for (unsigned i = 0; i < TLB_CODE; i++)
		set->code[i].page = TLB_NONE;
	set->code_stale = set->code_evicted = set->exec_nonglobal = false;
	set->code_large.count = 0;
	set->big_count = 0;
	mode_clear_jumps(set->jumps);
}

/* The entry for PAGE, or an empty one for it, or NULL if there is no room. */
static struct tlb_code *
leaf_code_entry(struct tlb *set, u64 page)
{
	unsigned index = (unsigned)(page >> 12);

	for (unsigned i = 0; i < TLB_CODE_PROBES; i++) {
		struct tlb_code *code = &set->code[(index + i) & (TLB_CODE - 1)];

		if (code->page == page || code->page == TLB_NONE)
			return code;
	}
	return NULL;
}

#define LEAF_BIG (2ull << 20)

/* RAM offset of code at LINEAR by the big entries, or UINT64_MAX. */
static u64
leaf_code_big(const struct tlb *set, u64 linear)
{
	u64 start = align_down(linear, LEAF_BIG);

	for (unsigned i = 0; i < set->big_count; i++)
		if (set->big[i].page == start)
			return set->big[i].ram + (linear - start);
	return UINT64_MAX;
}

/* Keeps a walk to a large page as a big entry, if it is RAM in one piece; false if not. */
static bool
leaf_keep_big(struct vcpu *v, struct tlb *set, u64 linear, const struct walk_result *r)
{
	u64 start = align_down(linear, LEAF_BIG), gpa = r->gpa - (linear - start);
	u64 ram = engine_ram_offset(v->engine, gpa);

	if (r->page_size < LEAF_BIG || !(v->cr0 & CR0_PG) || set->big_count == TLB_CODE_BIG)
		return false;
	if (ram == UINT64_MAX ||
	    engine_ram_offset(v->engine, gpa + LEAF_BIG - 1) != ram + LEAF_BIG - 1)
		return false;
	set->big[set->big_count++] = (struct tlb_code){start, ram};
	return true;
}

bool
leaf_has_code(struct tlb *set, u64 page)
{
	struct tlb_code *code = leaf_code_entry(set, page);

	return set->code_evicted || !code || code->page == page;
}

void
leaf_verify_code(struct vcpu *v, struct tlb *set)
{
	struct walk_result r;
	bool same = !set->code_evicted;

	for (unsigned i = 0; i < set->big_count && same; i++)
		same = leaf_walk(v, set, set->big[i].page, WALK_EXEC, &r) == set->big[i].ram &&
		       r.page_size >= LEAF_BIG;
	for (unsigned i = 0; i < TLB_CODE && same; i++)
		if (set->code[i].page != TLB_NONE)
			same = leaf_walk(v, set, set->code[i].page, WALK_EXEC, &r) ==
			       set->code[i].ram;
	if (same)
		set->code_stale = false;
	else
		leaf_clear_code(set);
}

u64
leaf_code(struct vcpu *v, u64 linear)
{
	struct tlb *set = leaf_current_set(v);
	u64 page = align_down(linear, MEMORY_PAGE), ram;
	struct tlb_code *code = leaf_code_entry(set, page);
	struct walk_result r;

	if (likely(code && code->page == page))
		return code->ram + (linear & (MEMORY_PAGE - 1));
	ram = leaf_code_big(set, linear);
	if (ram != UINT64_MAX)
		return ram;
	if (vcpu_long_mode(v) ? !vcpu_canonical(linear) : linear >> 32 != 0)
		return UINT64_MAX;
	ram = leaf_walk(v, set, linear, WALK_EXEC, &r);
	if (ram == UINT64_MAX)
		return UINT64_MAX;
	if (!r.global)
		set->exec_nonglobal = true;
	if (leaf_keep_big(v, set, linear, &r))
		return ram + (linear & (MEMORY_PAGE - 1));
	if (!code) {
		code = &set->code[(linear >> 12) & (TLB_CODE - 1)];
		set->code_evicted = true;
	}
	*code = (struct tlb_code){page, ram};
	return ram + (linear & (MEMORY_PAGE - 1));
}

/* An access at the stack pointer missed the stack's page: makes this one the stack's if it can be
 * written and misses have been many. The operation adds STACK to what is returned. */
static u8 *
leaf_stack(struct vcpu *v, u8 *host)
{
	struct translation *t = vcpu_translation(v);
	u64 page = align_down(t->linear, MEMORY_PAGE);
	const struct tlb_entry *entry = &t->tlb[leaf_index(page)];

	if (t->stack_credit < 0 && entry->write == page) {
		t->stack_page = page;
		t->stack_addend = entry->write_host - page;
		t->stack_credit = STACK_CREDIT;
	}
	return host - t->stack_addend;
}

u8 *
leaf_access(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	unsigned write = (t->access & ACCESS_WRITE) != 0;
	u8 *host;

	if (t->victim_credit < 0)
		t->victim_credit = VICTIM_CREDIT;
	if (t->access & ACCESS_OFFSET)
		return NULL;
	if (unlikely(t->mode & (MODE_ALIGN | MODE_SINGLE)))
		return NULL;
	host = leaf_host(v, t->linear, (unsigned)t->access & ACCESS_SIZE, write);
	return host && (t->access & ACCESS_STACK) ? leaf_stack(v, host) : host;
}
