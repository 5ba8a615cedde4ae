/*
 * Descriptor-table registers (GDTR, IDTR, LDTR, TR) and instructions that ask
 * about a selector: LAR, LSL, VERR, VERW, ARPL (AMD64 APM 2, 4.6; APM 3,
 * chapter 4). UMIP hides the stores from CPL above 0.
 */
#include "base/bytes.h"
#include "engine/translator/descriptor.h"
#include "engine/translator/operand.h"
#include "engine/translator/privileged.h"

static int
table_user_hidden(struct vcpu *v)
{
	if ((v->cr4 & CR4_UMIP) && v->cpl > 0)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	return 0;
}

static int
table_read_selector(struct vcpu *v, const struct insn *in, u16 *selector)
{
	u64 linear;
	int r;

	if (!in->mem) {
		*selector = (u16)v->gpr[in->rm];
		return 0;
	}
	r = mmu_operand(v, in, 2, false, &linear);
	return r ? r : mmu_read16(v, linear, selector, 0);
}

static int
table_write_selector(struct vcpu *v, const struct insn *in, u16 selector)
{
	u64 linear;
	int r;

	if (!in->mem) {
		operand_set_gpr(v, in->rm, in->opsize, selector);
		return 0;
	}
	r = mmu_operand(v, in, 2, true, &linear);
	return r ? r : mmu_write(v, linear, &selector, 2, 0);
}

static int
table_sldt_str(struct vcpu *v, const struct insn *in)
{
	int r = table_user_hidden(v);

	if (r)
		return r;
	return table_write_selector(v, in, in->reg & 1 ? v->tr.selector : v->ldt.selector);
}

/* A system descriptor for LDTR or TR, its base completed in long mode. */
static int
table_fetch_system(struct vcpu *v, u16 selector, struct descriptor *d)
{
	u32 upper;
	int r;

	if (selector & 4)
		return descriptor_fault(v, VECTOR_GP, selector, false);
	r = descriptor_fetch(v, selector, d, VECTOR_GP, false);
	if (r || !vcpu_long_mode(v))
		return r;
	r = descriptor_read_upper(v, d, &upper);
	if (r == DESCRIPTOR_OUTSIDE)
		return descriptor_fault(v, VECTOR_GP, selector, false);
	if (r)
		return r;
	d->seg.base |= (u64)upper << 32;
	return vcpu_canonical(d->seg.base) ? 0 : descriptor_fault(v, VECTOR_GP, selector, false);
}

static int
table_lldt(struct vcpu *v, u16 selector)
{
	struct descriptor d;
	int r;

	if (selector_null(selector)) {
		v->ldt = segment_null(selector, 0);
		return 0;
	}
	r = table_fetch_system(v, selector, &d);
	if (r)
		return r;
	if ((d.seg.attr & (SEGMENT_S | SEGMENT_TYPE)) != DESCRIPTOR_LDT)
		return descriptor_fault(v, VECTOR_GP, selector, false);
	if (!(d.seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_NP, selector, false);
	v->ldt = d.seg;
	return 0;
}

static int
table_ltr(struct vcpu *v, u16 selector)
{
	struct descriptor d;
	u8 type;
	int r;

	if (selector_null(selector))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = table_fetch_system(v, selector, &d);
	if (r)
		return r;
	type = d.seg.attr & (SEGMENT_S | SEGMENT_TYPE);
	if (type != DESCRIPTOR_TSS && (type != DESCRIPTOR_TSS16 || vcpu_long_mode(v)))
		return descriptor_fault(v, VECTOR_GP, selector, false);
	if (!(d.seg.attr & SEGMENT_P))
		return descriptor_fault(v, VECTOR_NP, selector, false);
	r = descriptor_set_busy(v, &d, true);
	if (!r)
		v->tr = d.seg;
	return r;
}

static int
table_lldt_ltr(struct vcpu *v, const struct insn *in)
{
	u16 selector;
	int r;

	if (v->cpl != 0)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = table_read_selector(v, in, &selector);
	if (r)
		return r;
	return in->reg & 1 ? table_ltr(v, selector) : table_lldt(v, selector);
}

static void
table_set_zf(struct vcpu *v, bool set)
{
	v->rflags = (v->rflags & ~(u64)RFLAGS_ZF) | (set ? RFLAGS_ZF : 0);
}

/* Whether CPL and the selector's RPL may see the descriptor. */
static bool
table_visible(const struct vcpu *v, const struct descriptor *d)
{
	u8 dpl = segment_dpl(&d->seg);

	return segment_is_conforming(&d->seg) || (v->cpl <= dpl && (d->seg.selector & 3) <= dpl);
}

/* Reads what an inquiring instruction asks about: 0, DESCRIPTOR_OUTSIDE (not there), or a fault. */
static int
table_inquire(struct vcpu *v, u16 selector, struct descriptor *d)
{
	if (selector_null(selector))
		return DESCRIPTOR_OUTSIDE;
	return descriptor_read(v, selector, d);
}

static int
table_verr_verw(struct vcpu *v, const struct insn *in)
{
	struct descriptor d;
	bool good = false;
	u16 selector;
	int r = table_read_selector(v, in, &selector);

	if (r)
		return r;
	r = table_inquire(v, selector, &d);
	if (r < 0)
		return r;
	if (r == 0 && table_visible(v, &d))
		good = in->reg & 1 ? segment_is_writable(&d.seg) : segment_is_readable(&d.seg);
	table_set_zf(v, good);
	return 0;
}

int
table_group6(struct vcpu *v, const struct insn *in)
{
	if (!vcpu_protected(v))
		return vcpu_raise(v, VECTOR_UD);
	switch (in->reg & 7) {
	case 0:
	case 1:
		return table_sldt_str(v, in);
	case 2:
	case 3:
		return table_lldt_ltr(v, in);
	case 4:
	case 5:
		return table_verr_verw(v, in);
	default:
		return vcpu_raise(v, VECTOR_UD);
	}
}

int
table_store(struct vcpu *v, const struct insn *in)
{
	const struct descriptor_table *table = in->reg & 1 ? &v->idt : &v->gdt;
	unsigned len = vcpu_64bit(v) ? 10 : 6;
	u8 raw[10];
	u64 linear;
	int r;

	if (!in->mem)
		return vcpu_raise(v, VECTOR_UD);
	r = table_user_hidden(v);
	if (!r)
		r = mmu_operand(v, in, len, true, &linear);
	if (r)
		return r;
	put_le16(raw, table->limit);
	put_le64(raw + 2, table->base);
	return mmu_write(v, linear, raw, len, 0);
}

int
table_load(struct vcpu *v, const struct insn *in)
{
	struct descriptor_table *table = in->reg & 1 ? &v->idt : &v->gdt;
	unsigned len = vcpu_64bit(v) ? 10 : 6;
	u8 raw[10] = {0};
	u64 linear, base;
	int r;

	if (!in->mem)
		return vcpu_raise(v, VECTOR_UD);
	if (v->cpl != 0)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = mmu_operand(v, in, len, false, &linear);
	if (!r)
		r = mmu_read(v, linear, raw, len, 0);
	if (r)
		return r;
	base = len == 10 ? get_le64(raw + 2) : get_le32(raw + 2);
	if (len == 6 && in->opsize == 2)
		base &= 0xffffff;
	if (!vcpu_canonical(base))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	table->base = base;
	table->limit = get_le16(raw);
	return 0;
}

/* Types of S = 0 that LAR and LSL answer for (APM 3, tables of LAR and LSL). */
static bool
table_type_known(const struct vcpu *v, u8 type, bool limit)
{
	static const u16 legacy_lar =
		BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(9) | BIT(11) | BIT(12);
	static const u16 legacy_lsl = BIT(1) | BIT(2) | BIT(3) | BIT(9) | BIT(11);
	static const u16 long_lar = BIT(2) | BIT(9) | BIT(11) | BIT(12);
	static const u16 long_lsl = BIT(2) | BIT(9) | BIT(11);
	u16 known = vcpu_long_mode(v) ? (limit ? long_lsl : long_lar)
				      : (limit ? legacy_lsl : legacy_lar);

	return (known >> type) & 1;
}

int
table_lar_lsl(struct vcpu *v, const struct insn *in)
{
	bool limit = in->opcode == 0x03, good;
	struct descriptor d;
	u16 selector;
	int r;

	if (!vcpu_protected(v))
		return vcpu_raise(v, VECTOR_UD);
	r = table_read_selector(v, in, &selector);
	if (r)
		return r;
	r = table_inquire(v, selector, &d);
	if (r < 0)
		return r;
	good = r == 0 && table_visible(v, &d) &&
	       ((d.seg.attr & SEGMENT_S) || table_type_known(v, d.seg.attr & SEGMENT_TYPE, limit));
	table_set_zf(v, good);
	if (good)
		operand_set_gpr(v, in->reg, in->opsize, limit ? d.seg.limit : d.high & 0xffff00);
	return 0;
}

int
table_arpl(struct vcpu *v, const struct insn *in)
{
	u16 selector, rpl = (u16)(v->gpr[in->reg] & 3);
	u64 linear = 0;
	int r = 0;

	if (!vcpu_protected(v))
		return vcpu_raise(v, VECTOR_UD);
	if (in->mem) {
		r = mmu_operand(v, in, 2, true, &linear);
		if (!r)
			r = mmu_read16(v, linear, &selector, MMU_WRITE_INTENT);
	} else {
		selector = (u16)v->gpr[in->rm];
	}
	if (r)
		return r;
	if ((selector & 3) >= rpl) {
		table_set_zf(v, false);
		return 0;
	}
	selector = (u16)((selector & ~3u) | rpl);
	if (in->mem)
		r = mmu_write(v, linear, &selector, 2, 0);
	else
		operand_set_gpr(v, in->rm, 2, selector);
	if (!r)
		table_set_zf(v, true);
	return r;
}
