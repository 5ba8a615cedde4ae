/*
 * The store of translated blocks of one vCPU.
 */
#ifndef TRANSLATOR_BLOCK_H
#define TRANSLATOR_BLOCK_H

#include "engine/translator/translation.h"

static inline unsigned
block_hash(u64 ram, u32 mode)
{
	u64 h = (ram ^ (u64)mode << 20) * 0x9e3779b97f4a7c15ull;

	return (unsigned)(h >> (64 - BLOCK_HASH_BITS));
}

/* The first block of a chain, or NULL. */
static inline struct block *
block_chain(const struct translation *t, unsigned hash)
{
	u32 head = t->hash[hash];

	return head ? (struct block *)(void *)(t->arena + (u64)(head - 1) * 16) : NULL;
}

static inline unsigned
jump_slot(u64 linear)
{
	return (unsigned)(linear ^ linear >> JUMP_BITS) & (JUMP_SIZE - 1);
}

/* Makes jump L go to B. */
static inline void
block_link(struct translation *t, struct link *l, struct block *b)
{
	const u8 *target = l->to_r ? b->entry_r : b->entry;
	u32 rel = (u32)(target - (l->place + (t->code_rx - t->code_rw) + 4));

	__atomic_store_n((u32 *)(void *)l->place, rel, __ATOMIC_RELEASE);
	l->next = b->incoming;
	b->incoming = l;
}

/* Memory for block records that lasts until the next flush, or NULL. */
void *block_alloc(struct translation *t, size_t size);
/* Registers a block whose fields are filled. False if the store is full. */
bool block_add(struct vcpu *v, struct block *b);
/* The block whose code holds PC (executable view), or NULL. */
struct block *block_at(struct translation *t, const u8 *pc);
/* The last site at or before PC in B. */
const struct site *block_site(const struct translation *t, const struct block *b, const u8 *pc);

/* Drops the blocks of RAM page that overlap [ram, ram + len); clears the vCPU's bit
 * in page_code if none is left. */
void block_drop(struct vcpu *v, u64 ram, u64 len);
/* Drops everything. */
void block_flush(struct vcpu *v);

#endif
