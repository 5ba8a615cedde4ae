/* See access.h. */
#include "engine/translator/access.h"

#include <string.h>

#include "engine/translator/block.h"
#include "engine/translator/mmu.h"
#include "engine/translator/pages.h"

enum { ACCESS_SITE_JUMP = 5 }; /* bytes of the jump before the bounce path */

static unsigned
access_insn(const struct translation *t)
{
	return (unsigned)(t->access >> ACCESS_INSN_SHIFT) & 0xff;
}

/* RIP of instruction N of B. */
static u64
access_rip(const struct vcpu *v, const struct block *b, unsigned n)
{
	const struct translation *t = vcpu_translation(v);
	u64 rip = t->page_va + b->guest + b->insn_at[n] - v->seg[CPU_CS].base;

	return (t->mode & MODE_CODE64) ? rip : (u32)rip;
}

static int
access_alignment(struct vcpu *v, u64 linear, unsigned size)
{
	const struct translation *t = vcpu_translation(v);

	if ((t->access & ACCESS_ALIGNED) && (linear & (size - 1)))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	if ((t->mode & MODE_ALIGN) && size <= 8 && (linear & (size - 1)))
		return vcpu_raise_code(v, VECTOR_AC, 0);
	return 0;
}

/* A store to a page with translations of this vCPU only, none of which it hits: no bounce. */
static bool
access_direct(struct vcpu *v, u64 ram, unsigned size)
{
	struct translation *t = vcpu_translation(v);
	u64 page = ram >> 12;
	u16 holders;

	/* From here on, whoever begins to translate the page waits for our next poll. */
	__atomic_fetch_or(&v->engine->page_writers[page], (u16)BIT(v->index), __ATOMIC_SEQ_CST);
	holders = __atomic_load_n(&v->engine->page_code[page], __ATOMIC_SEQ_CST);
	if (holders & ~BIT(v->index))
		return false;
	block_drop(v, ram, size);
	if (t->block_died || t->mmio_writes_next != t->mmio_writes_count)
		return false;
	t->t0 = (u64)v->engine->ram + ram;
	if (t->access & ACCESS_STACK)
		t->t0 -= t->stack_addend;
	t->resume = t->site;
	return true;
}

static int
access_write_first(struct vcpu *v, u64 linear, unsigned size, bool *direct)
{
	struct translation *t = vcpu_translation(v);
	u64 ram;
	int error = mmu_check_store(v, linear, size, t->commit_gpa);

	if (error || (t->mode & MODE_SINGLE) || (linear & (MEMORY_PAGE - 1)) + size > MEMORY_PAGE)
		return error;
	ram = engine_ram_offset(v->engine, t->commit_gpa[0]);
	if (ram != UINT64_MAX)
		*direct = access_direct(v, ram, size);
	return 0;
}

/* A locked access on the bounce buffer is one only if nobody else runs. */
static void
access_begin(struct vcpu *v)
{
	if ((vcpu_translation(v)->access & ACCESS_LOCK) && v->engine->vcpus > 1)
		pages_stop_others(v);
}

static void
access_end(struct vcpu *v)
{
	if ((vcpu_translation(v)->access & ACCESS_LOCK) && v->engine->vcpus > 1)
		pages_release_others(v);
}

int
access_serve(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	struct block *b = block_at(t, t->site);
	unsigned size = (unsigned)t->access & ACCESS_SIZE;
	bool write = (t->access & ACCESS_WRITE) != 0, direct = false;
	int error;

	v->rip = access_rip(v, b, access_insn(t));
	t->count.accesses++;
	v->replay.next = 0;
	t->block_died = false;
	if (t->access & ACCESS_OFFSET) {
		unsigned seg = (unsigned)(t->access >> ACCESS_SEG_SHIFT) & 7;

		error = mmu_linear(v, (enum cpu_segment)seg, t->linear, size, write, &t->linear);
		if (error)
			return error;
	} else if (vcpu_64bit(v) &&
		   !(vcpu_canonical(t->linear) && vcpu_canonical(t->linear + size - 1))) {
		bool stack = ((t->access >> ACCESS_SEG_SHIFT) & 7) == CPU_SS;

		return vcpu_raise_code(v, stack ? VECTOR_SS : VECTOR_GP, 0);
	}
	error = access_alignment(v, t->linear, size);
	if (!error && write)
		error = access_write_first(v, t->linear, size, &direct);
	if (error || direct)
		return error;
	access_begin(v);
	if (t->access & ACCESS_READ)
		error = mmu_read(v, t->linear, t->bounce, size, 0);
	if (error) {
		access_end(v);
		return error;
	}
	v->replay.count = v->replay.next = 0;
	t->t0 = (u64)t->bounce;
	t->resume = t->site + ACCESS_SITE_JUMP;
	return 0;
}

bool
access_commit(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	struct block *b = block_at(t, t->site);
	unsigned n = access_insn(t), size = (unsigned)t->access & ACCESS_SIZE;

	t->block_died = b->dead;
	mmu_commit(v, t->linear, t->bounce, size, t->commit_gpa);
	access_end(v);
	t->resume = t->site;
	if (t->mode & MODE_SINGLE)
		return true;
	if (t->access & ACCESS_FLOWS) { /* it goes elsewhere, and finishes by itself */
		if (t->mmio_writes_next != t->mmio_writes_count)
			pages_kick(v);
		return true;
	}
	if (!t->block_died && t->mmio_writes_next == t->mmio_writes_count)
		return true;
	v->rip = access_rip(v, b, n + 1);
	return false;
}
