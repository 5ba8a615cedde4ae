/*
 * Finding the next block without leaving guest code.
 */
#include "engine/translator/leaf/leaf_mmu.h"

#include "engine/translator/block.h"
#include "engine/translator/mode.h"

struct block *
leaf_find_block(struct vcpu *v, u64 linear)
{
	struct translation *t = vcpu_translation(v);
	u64 ram = leaf_code(v, linear), next;
	struct block *b;

	if (ram == UINT64_MAX)
		return NULL;
	for (b = block_chain(t, block_hash(ram, t->mode)); b; b = b->hash_next) {
		if (b->ram != ram || b->mode != t->mode)
			continue;
		if (b->ram2 == UINT64_MAX)
			return b;
		next = leaf_code(v, align_down(linear, MEMORY_PAGE) + MEMORY_PAGE);
		if (next == b->ram2)
			return b;
	}
	return NULL;
}

void
leaf_enter(struct vcpu *v, struct block *b, u64 linear)
{
	struct translation *t = vcpu_translation(v);

	t->page_va = align_down(linear, MEMORY_PAGE);
	if (b->crossing)
		*b->crossing = (struct crossing){t->page_va, t->jumps->epoch};
}

/* Where code at LINEAR goes on; also tells the jump cache. */
static const u8 *
leaf_go(struct vcpu *v, u64 linear)
{
	struct translation *t = vcpu_translation(v);
	struct block *b;

	t->count.jumps++;
	if (translation_kicked(t) || (t->mode & (MODE_SINGLE)))
		return NULL;
	b = leaf_find_block(v, linear);
	if (!b)
		return NULL;
	if (likely(!(v->engine->options & OPTION_NOCHAIN)))
		t->jumps->jump[jump_slot(linear)] = (struct jump){linear, b->entry};
	leaf_enter(v, b, linear);
	return b->entry;
}

/* The same by the jump cache first. Not for leaf_jump: a block whose second page is to be looked
 * at anew goes there, and would come back. */
static const u8 *
leaf_resume(struct vcpu *v, u64 linear)
{
	struct translation *t = vcpu_translation(v);
	const struct jump *jump = &t->jumps->jump[jump_slot(linear)];

	if (jump->linear != linear || translation_kicked(t) || (t->mode & MODE_SINGLE))
		return leaf_go(v, linear);
	t->page_va = align_down(linear, MEMORY_PAGE);
	return jump->code;
}

const u8 *
leaf_jump(struct vcpu *v)
{
	return leaf_go(v, vcpu_translation(v)->linear);
}

/* Whether code can be at LINEAR at all: else the branch there faults. */
static bool
leaf_reachable(const struct vcpu *v, u64 linear)
{
	if (vcpu_64bit(v))
		return vcpu_canonical(linear);
	return (u32)(linear - v->seg[CPU_CS].base) <= v->seg[CPU_CS].limit;
}

const u8 *
leaf_branch(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	if (unlikely(!leaf_reachable(v, t->linear))) {
		t->reason = LEAVE_BRANCH;
		return NULL;
	}
	t->reason = LEAVE_JUMP;
	return leaf_go(v, t->linear);
}

const u8 *
leaf_link(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	struct link *l = t->link;
	struct block *b;

	t->count.links++;
	if (translation_kicked(t))
		return NULL;
	b = leaf_find_block(v, t->page_va + l->target);
	if (!b)
		return NULL;
	leaf_enter(v, b, t->page_va);
	if (!(v->engine->options & OPTION_NOCHAIN))
		block_link(t, l, b);
	return b->entry;
}

const u8 *
leaf_helper(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	struct helper_site *h = t->helper;
	int result;

	v->rip = t->page_va + h->guest - v->seg[CPU_CS].base;
	v->rflags = (v->rflags & ~(u64)RFLAGS_ARITH) | flags_from_m(t->flags);
	result = h->leaf(v, &h->in);
	t->flags = flags_to_m(v->rflags);
	switch (result) {
	case LEAF_DONE:
		if (likely(!t->irq_waiting || !(v->rflags & RFLAGS_IF))) {
			v->shadow = false;
			return t->site;
		}
		t->linear = v->rip + h->in.len + v->seg[CPU_CS].base;
		t->reason = LEAVE_JUMP;
		return NULL;
	case LEAF_JUMP:
		mode_changed_64(v);
		t->linear = v->rip;
		t->reason = LEAVE_JUMP;
		if (t->irq_waiting && (v->rflags & RFLAGS_IF))
			return NULL;
		return leaf_resume(v, t->linear);
	case LEAF_AGAIN:
		t->linear = v->rip + v->seg[CPU_CS].base;
		t->reason = LEAVE_JUMP;
		return NULL;
	default:
		t->reason = LEAVE_HELPER;
		return NULL;
	}
}
