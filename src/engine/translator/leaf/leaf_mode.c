/*
 * vcpu_mode_changed: see mode.h. A leaf, since a system call changes the mode.
 */
#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/mode.h"

static bool
mode_flat(const struct segment *s)
{
	const u16 want = SEGMENT_P | SEGMENT_S | 2; /* data, writable */

	return s->base == 0 && s->limit == UINT32_MAX &&
	       (s->attr & (SEGMENT_P | SEGMENT_S | 8 | 4 | 2)) == want;
}

static u32
mode_fpu(const struct vcpu *v)
{
	u32 mode = 0;

	if (v->cr0 & (CR0_EM | CR0_TS))
		mode |= MODE_NO_X87;
	if (v->cr0 & CR0_TS)
		mode |= MODE_TS;
	if ((v->cr0 & CR0_EM) || !(v->cr4 & CR4_OSFXSR))
		mode |= MODE_NO_SSE;
	if (!(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & 6) != 6 || !vcpu_protected(v))
		mode |= MODE_NO_AVX;
	return mode;
}

static u32
mode_segments(struct vcpu *v)
{
	u32 mode = MODE_FLAT_DATA;

	if (!vcpu_64bit(v)) {
		for (int i = 0; i < CPU_SEGMENTS; i++) {
			const struct segment *s = &v->seg[i];
			struct translation *t = vcpu_translation(v);
			bool code = (s->attr & 8) != 0;
			bool usable = (s->attr & SEGMENT_P) && (s->attr & SEGMENT_S) &&
				      (code || !(s->attr & 4));
			bool real = !vcpu_protected(v);
			u64 end = (u64)s->limit + 1;

			t->seg_read_end[i] = real || (usable && (!code || (s->attr & 2))) ? end : 0;
			t->seg_write_end[i] = real || (usable && !code && (s->attr & 2)) ? end : 0;
		}
		if (!mode_flat(&v->seg[CPU_DS]) || !mode_flat(&v->seg[CPU_ES]) ||
		    !mode_flat(&v->seg[CPU_SS]))
			mode = 0;
	}
	return mode;
}

void
mode_clear_jumps(struct jump_cache *jumps)
{
	jumps->epoch += 2 * TLB_SETS; /* each set counts its own residue: no two are alike */
	for (unsigned i = 0; i < JUMP_SIZE; i++)
		jumps->jump[i].linear = i == 1 ? 0 : 1; /* neither hashes to where it stands */
}

/* Each set remembers its stack's page. */
static void
mode_switch_stack(struct translation *t, const struct tlb *to)
{
	if (t->tlb) {
		struct tlb *from = CONTAINER_OF(t->tlb, struct tlb, entry[0]);

		from->stack_page = t->stack_page;
		from->stack_addend = t->stack_addend;
	}
	t->stack_page = to->stack_page;
	t->stack_addend = to->stack_addend;
	t->stack_credit = 0;
}

void
mode_select(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	unsigned set = TLB_KERNEL_USER;

	if (v->cpl == 3)
		set = t->user_set;
	else if ((v->cr4 & CR4_SMAP) && !(v->rflags & RFLAGS_AC))
		set = TLB_KERNEL;
	if (t->tlb != t->sets[set]->entry)
		mode_switch_stack(t, t->sets[set]);
	t->tlb = t->sets[set]->entry;
	t->jumps = t->sets[set]->jumps;
	if (unlikely(t->sets[set]->code_stale))
		leaf_verify_code(v, t->sets[set]);
	if (unlikely(t->sets[set]->jumps_mode != t->mode)) {
		mode_clear_jumps(t->jumps);
		t->sets[set]->jumps_mode = t->mode;
		if (set < TLB_USER_FIRST) /* they share one */
			t->sets[set ^ 1]->jumps_mode = t->mode;
	}
}

/* What depends on the privilege level. */
static u32
mode_level(const struct vcpu *v)
{
	if (v->cpl == 0)
		return MODE_CPL0;
	return v->cpl == 3 && (v->cr0 & CR0_AM) && (v->rflags & RFLAGS_AC) ? MODE_ALIGN : 0;
}

void
mode_changed_64(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	if (unlikely(t->mode & MODE_SINGLE)) { /* perhaps for one instruction only */
		vcpu_mode_changed(v);
		return;
	}
	t->mode = (t->mode & ~(u32)(MODE_CPL0 | MODE_ALIGN)) | mode_level(v);
	mode_select(v);
}

void
vcpu_mode_changed(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	u32 mode = mode_fpu(v);

	if (!t)
		return;
	if (vcpu_64bit(v)) {
		mode |= MODE_CODE64 | MODE_STACK32 | MODE_FLAT_DATA | MODE_FLAT_CODE;
	} else {
		const struct segment *cs = &v->seg[CPU_CS];

		mode |= mode_segments(v);
		if (cs->attr & SEGMENT_DB)
			mode |= MODE_CODE32;
		if (v->seg[CPU_SS].attr & SEGMENT_DB)
			mode |= MODE_STACK32;
		if (cs->base == 0 && cs->limit == UINT32_MAX)
			mode |= MODE_FLAT_CODE;
	}
	if (vcpu_protected(v))
		mode |= MODE_PROTECTED;
	if ((v->rflags & RFLAGS_TF) || (v->dr7 & 0xff) || (v->engine->options & OPTION_SINGLE))
		mode |= MODE_SINGLE;
	t->mode = mode | mode_level(v);
	mode_select(v);
}
