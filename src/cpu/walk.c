/*
 * The page-table walk. Guest tables change under us (other vCPUs, devices): an
 * entry is read once with one load, and A and D bits are set by compare and
 * exchange against what was read; if that fails the walk starts again.
 *
 * Runs with the guest's vector registers in the host's: this file calls nothing
 * but the context's callbacks and is compiled for general registers only.
 */
#include "cpu/walk.h"

#include <errno.h>

#include "cpu/cpu_state.h"

enum {
	PTE_P = BIT(0),
	PTE_W = BIT(1),
	PTE_U = BIT(2),
	PTE_A = BIT(5),
	PTE_D = BIT(6),
	PTE_PS = BIT(7),
	PTE_G = BIT(8),
};
#define WALK_PAGE 4096ull
#define PTE_NX BIT64(63)
#define PTE_ADDRESS 0x000ffffffffff000ull

enum walk_verdict { WALK_DONE, WALK_FAULT, WALK_RETRY };

/* One walk under way. */
struct walk_state {
	const struct walk_context *ctx;
	struct walk_result *result;
	u64 va;
	u64 reserved; /* bits that must be zero in every entry */
	unsigned access;
	u64 entry; /* as read */
	u64 entry_gpa;
	void *entry_host;	   /* NULL: not RAM */
	bool small;		   /* entries of 32 bits */
	bool user, writable, exec; /* by the entries so far */
};

static int
walk_fail(struct walk_state *w, u32 bits)
{
	const struct walk_context *ctx = w->ctx;
	u32 error = bits;

	if (w->access & WALK_WRITE)
		error |= PF_W;
	if (w->access & WALK_USER)
		error |= PF_U;
	/* Whether a fetch is told depends on whether it can be forbidden (8.4.2). */
	if ((w->access & WALK_EXEC) &&
	    (((ctx->efer & EFER_NXE) && (ctx->cr4 & CR4_PAE)) || (ctx->cr4 & CR4_SMEP)))
		error |= PF_I;
	w->result->error = error;
	return WALK_FAULT;
}

static void
walk_read_entry(struct walk_state *w, u64 gpa)
{
	u8 *host = w->ctx->entry(w->ctx->opaque, gpa & ~7ull);

	w->entry_gpa = gpa;
	w->entry_host = host ? host + (gpa & 7) : NULL;
	if (w->small)
		w->entry = host ? __atomic_load_n((u32 *)w->entry_host, __ATOMIC_RELAXED)
				: 0xffffffffu;
	else
		w->entry =
			host ? __atomic_load_n((u64 *)w->entry_host, __ATOMIC_RELAXED) : UINT64_MAX;
}

/* Sets BITS in the entry just read, unless it has changed meanwhile. */
static int
walk_mark(struct walk_state *w, u32 bits)
{
	u64 old64 = w->entry, new64 = w->entry | bits;
	u32 old32 = (u32)old64, new32 = (u32)new64;
	bool done;

	if (old64 == new64 || !w->entry_host)
		return WALK_DONE;
	if (w->small)
		done = __atomic_compare_exchange_n((u32 *)w->entry_host, &old32, new32, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	else
		done = __atomic_compare_exchange_n((u64 *)w->entry_host, &old64, new64, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	if (!done)
		return WALK_RETRY;
	w->entry = new64;
	if (w->ctx->written)
		w->ctx->written(w->ctx->opaque, w->entry_gpa, w->small ? 4 : 8);
	return WALK_DONE;
}

/* Presence and reserved bits of the entry just read; its rights are added up. */
static int
walk_check_entry(struct walk_state *w, u64 reserved)
{
	if (!(w->entry & PTE_P))
		return walk_fail(w, 0);
	if (w->entry & (w->reserved | reserved))
		return walk_fail(w, PF_P | PF_RSVD);
	w->user = w->user && (w->entry & PTE_U);
	w->writable = w->writable && (w->entry & PTE_W);
	w->exec = w->exec && !(w->entry & PTE_NX);
	return WALK_DONE;
}

/* An entry that points to a further table. */
static int
walk_step(struct walk_state *w, u64 reserved)
{
	int rc = walk_check_entry(w, reserved);

	return rc == WALK_DONE ? walk_mark(w, PTE_A) : rc;
}

static bool
walk_allowed(const struct walk_state *w)
{
	u64 cr0 = w->ctx->cr0, cr4 = w->ctx->cr4;

	if (w->access & WALK_USER) {
		if (!w->user || ((w->access & WALK_WRITE) && !w->writable))
			return false;
		return !(w->access & WALK_EXEC) || w->exec;
	}
	if (w->access & WALK_EXEC)
		return w->exec && !(w->user && (cr4 & CR4_SMEP));
	if (w->user && (cr4 & CR4_SMAP) && !(w->access & WALK_AC))
		return false;
	return !(w->access & WALK_WRITE) || w->writable || !(cr0 & CR0_WP);
}

/* The entry that maps a page of SIZE bytes. */
static int
walk_leaf(struct walk_state *w, u64 size, u64 reserved)
{
	struct walk_result *result = w->result;
	int rc = walk_check_entry(w, reserved);

	if (rc != WALK_DONE)
		return rc;
	if (!walk_allowed(w))
		return walk_fail(w, PF_P);
	rc = walk_mark(w, w->access & WALK_WRITE ? PTE_A | PTE_D : PTE_A);
	if (rc != WALK_DONE)
		return rc;
	result->gpa = (w->entry & PTE_ADDRESS & ~(size - 1)) | (w->va & (size - 1));
	result->page_size = size;
	result->global = (w->entry & PTE_G) && (w->ctx->cr4 & CR4_PGE);
	result->user = w->user;
	result->writable = w->writable;
	result->exec = w->exec;
	result->dirty = (w->entry & PTE_D) != 0;
	result->error = 0;
	return WALK_DONE;
}

/* Two levels of 32-bit entries (5.2.1); 4 MiB pages without PSE-36. */
static int
walk_32(struct walk_state *w)
{
	const struct walk_context *ctx = w->ctx;
	int rc;

	w->small = true;
	walk_read_entry(w, (ctx->cr3 & 0xfffff000u) + (w->va >> 22) * 4);
	if ((w->entry & (PTE_P | PTE_PS)) == (PTE_P | PTE_PS) && (ctx->cr4 & CR4_PSE))
		return walk_leaf(w, 4ull << 20, 0x003fe000u);
	rc = walk_step(w, 0);
	if (rc != WALK_DONE)
		return rc;
	walk_read_entry(w, (w->entry & 0xfffff000u) + ((w->va >> 12) & 0x3ff) * 4);
	return walk_leaf(w, WALK_PAGE, 0);
}

/* Page directory at TABLE and page table below it, of PAE and long mode alike. */
static int
walk_lower_two(struct walk_state *w, u64 table)
{
	int rc;

	walk_read_entry(w, table + ((w->va >> 21) & 0x1ff) * 8);
	if ((w->entry & (PTE_P | PTE_PS)) == (PTE_P | PTE_PS))
		return walk_leaf(w, 2ull << 20, 0x001fe000u);
	rc = walk_step(w, 0);
	if (rc != WALK_DONE)
		return rc;
	walk_read_entry(w, (w->entry & PTE_ADDRESS) + ((w->va >> 12) & 0x1ff) * 8);
	return walk_leaf(w, WALK_PAGE, 0);
}

/* Three levels (5.2.2); the four top entries were checked when CR3 was loaded. */
static int
walk_pae(struct walk_state *w)
{
	u64 pdpte = w->ctx->pdpte[(w->va >> 30) & 3];

	if (!(pdpte & PTE_P))
		return walk_fail(w, 0);
	w->reserved |= 0x7ff0000000000000ull;
	return walk_lower_two(w, pdpte & PTE_ADDRESS);
}

/* Four levels (5.3). */
static int
walk_long(struct walk_state *w)
{
	int rc;

	walk_read_entry(w, (w->ctx->cr3 & PTE_ADDRESS & w->ctx->phys_mask) +
				   ((w->va >> 39) & 0x1ff) * 8);
	rc = walk_step(w, PTE_PS);
	if (rc != WALK_DONE)
		return rc;
	walk_read_entry(w, (w->entry & PTE_ADDRESS) + ((w->va >> 30) & 0x1ff) * 8);
	if ((w->entry & (PTE_P | PTE_PS)) == (PTE_P | PTE_PS))
		return walk_leaf(w, 1ull << 30, 0x3fffe000u);
	rc = walk_step(w, 0);
	if (rc != WALK_DONE)
		return rc;
	return walk_lower_two(w, w->entry & PTE_ADDRESS);
}

static void
walk_unpaged(u64 va, struct walk_result *result)
{
	result->gpa = va;
	result->page_size = 1ull << 52;
	result->global = false;
	result->user = result->writable = result->exec = result->dirty = true;
	result->error = 0;
}

static int
walk_once(const struct walk_context *ctx, u64 va, unsigned access, struct walk_result *result)
{
	struct walk_state w;

	w.ctx = ctx;
	w.result = result;
	w.va = va;
	w.access = access;
	w.small = false;
	w.user = w.writable = w.exec = true;
	if (!(ctx->cr4 & CR4_PAE)) {
		w.va &= 0xffffffffu;
		w.reserved = 0;
		return walk_32(&w);
	}
	w.reserved = PTE_ADDRESS & ~ctx->phys_mask;
	if (!(ctx->efer & EFER_NXE))
		w.reserved |= PTE_NX;
	if (ctx->efer & EFER_LMA)
		return walk_long(&w);
	w.va &= 0xffffffffu;
	return walk_pae(&w);
}

int
walk(const struct walk_context *ctx, u64 va, unsigned access, struct walk_result *result)
{
	int rc;

	if (!(ctx->cr0 & CR0_PG)) {
		walk_unpaged(va, result);
		return 0;
	}
	do {
		rc = walk_once(ctx, va, access, result);
	} while (rc == WALK_RETRY);
	return rc == WALK_DONE ? 0 : -EFAULT;
}
