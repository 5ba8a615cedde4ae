/*
 * The soft TLB as leaf code sees it (leaf: general registers only, no calls out
 * of leaf/ and cpu/walk.c, so that guest vector state may stay in registers).
 */
#ifndef TRANSLATOR_LEAF_MMU_H
#define TRANSLATOR_LEAF_MMU_H

#include "engine/translator/leaf/leaf.h"
#include "engine/translator/translation.h"

/* Host address of LEN bytes of RAM at LINEAR, all inside one page, accessed as by
 * the current privilege level; fills the TLB. NULL where the slow way must go
 * (fault, MMIO, page crossing, writes to translated code). */
u8 *leaf_host(struct vcpu *v, u64 linear, unsigned len, unsigned write);
/* The same for an implicit supervisor access. */
u8 *leaf_host_system(struct vcpu *v, u64 linear, unsigned len, unsigned write);

/* The same for fetching code at LINEAR: RAM offset, or UINT64_MAX. */
u64 leaf_code(struct vcpu *v, u64 linear);

/* Drops all of a set's code entries and its jump cache. */
void leaf_clear_code(struct tlb *set);
/* Whether code was, or may have been, found through PAGE. */
bool leaf_has_code(struct tlb *set, u64 page);
/* After a flush: code entries that the tables still say are kept, and the jump cache with them. */
void leaf_verify_code(struct vcpu *v, struct tlb *set);

/* Called by stub.miss: host address for v's access, or NULL. */
u8 *leaf_access(struct vcpu *v);

/* The walk as the access of SET would make it. */
void leaf_walk_context(struct vcpu *v, struct walk_context *ctx);
unsigned leaf_walk_flags(const struct vcpu *v, const struct tlb *set);

/* The block for LINEAR in the current mode, from hash only, or NULL. */
struct block *leaf_find_block(struct vcpu *v, u64 linear);
/* What must be so when B, found for LINEAR, is entered. */
void leaf_enter(struct vcpu *v, struct block *b, u64 linear);
/* Called by stub.jump, stub.branch, stub.link, stub.leaf_helper: code to go on at, or NULL to
 * leave. */
const u8 *leaf_jump(struct vcpu *v);
const u8 *leaf_branch(struct vcpu *v);
const u8 *leaf_link(struct vcpu *v);
const u8 *leaf_helper(struct vcpu *v);

/* Fills the entry of SET for LINEAR; NULL if the access faults or is not RAM. The write tag may
 * still be absent: a store to translated code. */
struct tlb_entry *leaf_fill(struct vcpu *v, struct tlb *set, u64 linear, bool write);
/* Notes that page (RAM offset) gets written by this vCPU: true if its stores may be fast. */
bool leaf_may_write(struct vcpu *v, u64 ram);

static inline struct tlb *
leaf_current_set(const struct vcpu *v)
{
	const struct translation *t = vcpu_translation(v);

	return CONTAINER_OF(t->tlb, struct tlb, entry[0]);
}

#endif
