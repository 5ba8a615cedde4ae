/*
 * Blocks live in an arena that only grows; when it or the code cache is full,
 * everything is dropped at once. A block dropped alone stays where it is: the
 * links to it are taken back, and its entry is overwritten by a jump to the
 * search, for the jump caches.
 */
#include "engine/translator/block.h"

#include <string.h>

#include "engine/translator/emit.h"
#include "engine/translator/mode.h"

void *
block_alloc(struct translation *t, size_t size)
{
	void *p = t->arena + t->arena_used;

	size = (size_t)align_up(size, 16);
	if (t->arena_used + size > t->arena_size)
		return NULL;
	t->arena_used += size;
	memset(p, 0, size);
	return p;
}

static u32
block_place(const struct translation *t, const struct block *b)
{
	return (u32)((u64)((const u8 *)b - t->arena) / 16 + 1);
}

static void
block_add_to_page(struct translation *t, struct block *b, unsigned which, u64 ram)
{
	b->page_next[which] = t->page_blocks[ram >> 12];
	t->page_blocks[ram >> 12] = b;
}

bool
block_add(struct vcpu *v, struct block *b)
{
	struct translation *t = vcpu_translation(v);
	unsigned hash = block_hash(b->ram, b->mode);

	if (t->block_count == t->block_max)
		return false;
	b->hash_next = block_chain(t, hash);
	t->hash[hash] = block_place(t, b);
	t->by_address[t->block_count++] = b;
	block_add_to_page(t, b, 0, b->ram);
	if (b->ram2 != UINT64_MAX)
		block_add_to_page(t, b, 1, b->ram2);
	return true;
}

static bool
block_is_cold(const struct translation *t, const u8 *pc)
{
	return pc >= t->code_rx + t->cold_start;
}

struct block *
block_at(struct translation *t, const u8 *pc)
{
	size_t low = 0, high = t->block_count;
	const u8 *place = t->code_rw + (pc - t->code_rx);
	bool cold = block_is_cold(t, pc);

	while (low < high) {
		size_t mid = (low + high) / 2;
		struct block *b = t->by_address[mid];
		const u8 *start = cold ? b->cold : b->code;

		if (place < start)
			high = mid;
		else if (place >= start + (cold ? b->cold_len : b->code_len))
			low = mid + 1;
		else
			return b;
	}
	return NULL;
}

const struct site *
block_site(const struct translation *t, const struct block *b, const u8 *pc)
{
	const struct site *found = NULL;
	bool cold = block_is_cold(t, pc);
	i64 offset = t->code_rw + (pc - t->code_rx) - (cold ? b->cold : b->code);

	for (unsigned i = 0; i < b->site_count; i++)
		if (b->sites[i].cold == cold && b->sites[i].host <= offset &&
		    (!found || b->sites[i].host >= found->host))
			found = &b->sites[i];
	return found;
}

static struct block **
block_page_link(struct block *b, u64 page)
{
	return &b->page_next[b->ram >> 12 == page ? 0 : 1];
}

static void
block_unlink_page(struct translation *t, struct block *b, u64 page)
{
	struct block **at = &t->page_blocks[page];

	while (*at && *at != b)
		at = block_page_link(*at, page);
	if (*at)
		*at = *block_page_link(b, page);
}

static void
block_unhash(struct translation *t, struct block *b)
{
	unsigned hash = block_hash(b->ram, b->mode);
	struct block *before = block_chain(t, hash);

	if (before == b) {
		t->hash[hash] = b->hash_next ? block_place(t, b->hash_next) : 0;
		return;
	}
	while (before && before->hash_next != b)
		before = before->hash_next;
	if (before)
		before->hash_next = b->hash_next;
}

/* Overwrites B's entry so that whoever still jumps there searches anew. */
static void
block_bury(struct translation *t, struct block *b)
{
	i64 delta = t->code_rx - t->code_rw;
	struct emit e = {t->code_rw + t->code_used, t->code_rw + t->cold_start, delta};
	u8 *entry = t->code_rw + (b->entry - t->code_rx);
	struct emit head = {entry, entry + 5, delta};
	const u8 *grave = emit_rx(&e);

	emit_load_var(&e, T0, &t->page_va);
	emit_lea(&e, T0, T0, b->guest);
	emit_jmp(&e, t->stub.jump);
	t->code_used = (size_t)(e.at - t->code_rw);
	emit_jmp(&head, grave);
}

static void
block_kill(struct translation *t, struct block *b)
{
	const i64 delta = t->code_rx - t->code_rw;

	for (struct link *l = b->incoming; l; l = l->next) {
		struct emit e = {NULL, NULL, delta};

		emit_patch(&e, l->place, l->stub);
	}
	b->incoming = NULL;
	b->dead = true;
	t->block_died = true;
	block_unhash(t, b);
	block_unlink_page(t, b, b->ram >> 12);
	if (b->ram2 != UINT64_MAX)
		block_unlink_page(t, b, b->ram2 >> 12);
	if (t->code_used + 64 <= t->cold_start) {
		block_bury(t, b);
		return;
	}
	for (unsigned i = 0; i < TLB_SETS; i++)
		mode_clear_jumps(t->sets[i]->jumps);
}

static bool
block_overlaps(const struct block *b, u64 ram, u64 len)
{
	u64 first = MEMORY_PAGE - b->guest < b->guest_len ? MEMORY_PAGE - b->guest : b->guest_len;

	if (b->ram < ram + len && ram < b->ram + first)
		return true;
	return b->ram2 != UINT64_MAX && b->ram2 < ram + len &&
	       ram < b->ram2 + (b->guest_len - first);
}

void
block_drop(struct vcpu *v, u64 ram, u64 len)
{
	struct translation *t = vcpu_translation(v);
	u64 page = ram >> 12;

	for (struct block *b = t->page_blocks[page], *next; b; b = next) {
		next = *block_page_link(b, page);
		if (!block_overlaps(b, ram, len))
			continue;
		block_kill(t, b);
	}
	if (!t->page_blocks[page])
		__atomic_fetch_and(&v->engine->page_code[page], (u16)~BIT(v->index),
				   __ATOMIC_SEQ_CST);
}

void
block_flush(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	for (size_t i = 0; i < t->block_count; i++) {
		struct block *b = t->by_address[i];
		u64 pages[2] = {b->ram, b->ram2};

		for (int p = 0; p < 2; p++) {
			if (pages[p] == UINT64_MAX)
				continue;
			t->page_blocks[pages[p] >> 12] = NULL;
			__atomic_fetch_and(&v->engine->page_code[pages[p] >> 12],
					   (u16)~BIT(v->index), __ATOMIC_SEQ_CST);
		}
	}
	memset(t->hash, 0, BLOCK_HASH * sizeof(*t->hash));
	for (unsigned i = 0; i < TLB_SETS; i++)
		mode_clear_jumps(t->sets[i]->jumps);
	t->block_count = 0;
	t->arena_used = 0;
	t->code_used = t->code_stubs;
	t->cold_used = t->cold_start;
	t->block_died = true;
	t->flushes++;
}
