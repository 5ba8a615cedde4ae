/*
 * Vector instructions that touch memory element by element: MASKMOVQ and
 * MASKMOVDQU, VMASKMOV and VPMASKMOV, VGATHER and VPGATHER (AMD64 APM 4).
 *
 * An element whose mask bit is clear is not accessed and cannot fault. Stores
 * check every element before the first is written. A gather that faults keeps
 * what it has loaded and clears the mask of these elements; one that must ask
 * the machine (MMIO) does not, since it runs again from its first element.
 */
#include "engine/translator/operand.h"
#include "engine/translator/rare.h"
#include "engine/translator/vendor.h"

/* What a VEX prefix adds to struct insn. */
struct vector_form {
	bool w;
	unsigned bytes; /* of a vector: 16 or 32 */
	u8 vvvv;	/* the mask */
	u8 index;	/* vector register of the index, if there is a SIB byte */
};

/* Reads the three-byte VEX prefix (C4) that all of these forms have. */
static struct vector_form
vector_form(const struct insn *in)
{
	struct vector_form form = {.bytes = 16};
	unsigned i = 0;

	while (i + 5 < in->len && in->raw[i] != 0xc4)
		i++;
	form.w = in->raw[i + 2] & 0x80;
	if (in->raw[i + 2] & 0x04)
		form.bytes = 32;
	form.vvvv = (u8)((~in->raw[i + 2] >> 3) & (in->mode == 64 ? 15 : 7));
	form.index = (in->raw[i + 5] >> 3) & 7;
	if (in->mode == 64 && !(in->raw[i + 1] & 0x40))
		form.index |= 8;
	return form;
}

/* The element's address: what follows the base is cut to the address size with it. */
static int
vector_element_linear(struct vcpu *v, const struct insn *in, u64 offset, unsigned size, bool write,
		      u64 *linear)
{
	return mmu_linear(v, (enum cpu_segment)in->seg, offset & operand_mask(in->addrsize), size,
			  write, linear);
}

/*
 * MASKMOVQ, MASKMOVDQU
 */

static const u8 *
vector_mmx(const struct vcpu *v, unsigned reg)
{
	return v->xsave + XSAVE_ST + 16 * ((reg - operand_x87_top(v)) & 7);
}

/* Source and mask, and how many bytes they have. */
static unsigned
vector_bytes_operands(struct vcpu *v, const struct insn *in, u8 source[32], u8 mask[32])
{
	if (in->prefixes & (INSN_66 | INSN_VEX)) {
		operand_get_ymm(v, in->reg, source);
		operand_get_ymm(v, in->rm, mask);
		return 16;
	}
	memcpy(source, vector_mmx(v, in->reg), 8);
	memcpy(mask, vector_mmx(v, in->rm), 8);
	return 8;
}

/* MMX use resets the x87 top of stack and marks all registers valid. */
static void
vector_enter_mmx(struct vcpu *v)
{
	operand_set_x87_top(v, 0);
	v->xsave[XSAVE_FTW] = 0xff;
}

static int
vector_bytes_check(struct vcpu *v, const struct insn *in)
{
	if (in->prefixes & INSN_VEX)
		return operand_check_avx(v);
	if (in->prefixes & INSN_66)
		return operand_check_sse(v);
	if (v->cr0 & CR0_EM)
		return vcpu_raise(v, VECTOR_UD);
	if (v->cr0 & CR0_TS)
		return vcpu_raise(v, VECTOR_NM);
	/* FSW.ES: an x87 exception waits */
	return v->xsave[XSAVE_FSW] & 0x80 ? vcpu_raise(v, VECTOR_MF) : 0;
}

static bool
vector_bytes_any(const u8 *mask, unsigned from, unsigned to)
{
	for (; from < to; from++)
		if (mask[from] & 0x80)
			return true;
	return false;
}

/* Each page's part is checked as one, and CR2 names its start; AMD's processors check it even
 * if none of its bytes is selected. */
static int
vector_bytes_check_write(struct vcpu *v, u64 linear, const u8 *mask, unsigned count)
{
	unsigned first =
		4096 - (linear & 4095) < count ? (unsigned)(4096 - (linear & 4095)) : count;
	bool always = !vendor_is_intel(v);
	int r = 0;

	if (always || vector_bytes_any(mask, 0, first))
		r = mmu_check_write(v, linear, first, 0);
	if (r == 0 && first < count && (always || vector_bytes_any(mask, first, count)))
		r = mmu_check_write(v, linear + first, count - first, 0);
	return r;
}

/* Stores the runs of selected bytes. */
static int
vector_bytes_store(struct vcpu *v, u64 linear, const u8 *source, const u8 *mask, unsigned count)
{
	for (unsigned i = 0, end; i < count; i = end + 1) {
		int r = 0;

		for (end = i; end < count && (mask[end] & 0x80); end++)
			;
		if (end > i)
			r = mmu_write(v, linear + i, source + i, end - i, 0);
		if (r)
			return r;
	}
	return 0;
}

int
vector_maskmov_bytes(struct vcpu *v, const struct insn *in)
{
	enum cpu_segment seg = in->prefixes & INSN_SEG ? (enum cpu_segment)in->seg : CPU_DS;
	bool mmx = !(in->prefixes & (INSN_66 | INSN_VEX));
	u8 source[32], mask[32];
	unsigned count;
	u64 linear;
	int r = vector_bytes_check(v, in);

	if (r)
		return r;
	operand_xstate_fill(v, mmx ? XSTATE_X87 : 0);
	count = vector_bytes_operands(v, in, source, mask);
	if (mmx)
		vector_enter_mmx(v); /* even if the store faults */
	r = mmu_linear(v, seg, v->gpr[CPU_RDI] & operand_mask(in->addrsize), count, true, &linear);
	if (r == 0)
		r = vector_bytes_check_write(v, linear, mask, count);
	if (r == 0)
		r = vector_bytes_store(v, linear, source, mask, count);
	return r ? r : HELPER_NEXT;
}

/*
 * VMASKMOV, VPMASKMOV
 */

struct vector_mask_move {
	u64 offset;
	unsigned size, count;
	u8 mask[32];
};

static bool
vector_selected(const u8 *mask, unsigned i, unsigned size)
{
	return mask[i * size + size - 1] & 0x80;
}

static int
vector_maskmov_load(struct vcpu *v, const struct insn *in, const struct vector_mask_move *move)
{
	u8 value[32] = {0};

	for (unsigned i = 0; i < move->count; i++) {
		unsigned at = i * move->size;
		u64 linear;
		int r;

		if (!vector_selected(move->mask, i, move->size))
			continue;
		r = vector_element_linear(v, in, move->offset + at, move->size, false, &linear);
		if (r == 0)
			r = mmu_read(v, linear, value + at, move->size, 0);
		if (r)
			return r;
	}
	operand_set_ymm(v, in->reg, value);
	return HELPER_NEXT;
}

static int
vector_maskmov_store(struct vcpu *v, const struct insn *in, const struct vector_mask_move *move,
		     bool store)
{
	u8 value[32];

	operand_get_ymm(v, in->reg, value);
	for (unsigned i = 0; i < move->count; i++) {
		unsigned at = i * move->size;
		u64 linear;
		int r;

		if (!vector_selected(move->mask, i, move->size))
			continue;
		r = vector_element_linear(v, in, move->offset + at, move->size, true, &linear);
		if (r == 0)
			r = store ? mmu_write(v, linear, value + at, move->size, 0)
				  : mmu_check_write(v, linear, move->size, 0);
		if (r)
			return r;
	}
	return HELPER_NEXT;
}

int
vector_maskmov(struct vcpu *v, const struct insn *in)
{
	struct vector_form form = vector_form(in);
	/* VMASKMOVPS 2C 2E, VMASKMOVPD 2D 2F; VPMASKMOVD/Q 8C 8E by W */
	bool wide = in->opcode < 0x80 ? in->opcode & 1 : form.w;
	bool to_memory = in->opcode == 0x2e || in->opcode == 0x2f || in->opcode == 0x8e;
	struct vector_mask_move move = {.size = wide ? 8 : 4};
	int r;

	if (!in->mem || (in->opcode < 0x80 && form.w))
		return vcpu_raise(v, VECTOR_UD);
	r = operand_check_avx(v);
	if (r)
		return r;
	operand_xstate_fill(v, to_memory ? 0 : XSTATE_SSE | XSTATE_AVX);
	operand_get_ymm(v, form.vvvv, move.mask);
	move.offset = vcpu_offset(v, in);
	move.count = form.bytes / move.size;
	if (!to_memory)
		return vector_maskmov_load(v, in, &move);
	r = vector_maskmov_store(v, in, &move, false);
	return r ? r : vector_maskmov_store(v, in, &move, true);
}

/*
 * VGATHER, VPGATHER
 */

struct vector_gather {
	u64 base; /* base register and displacement */
	unsigned size, index_size, count;
	u8 index[32], mask[32], value[32];
};

static u64
vector_gather_base(const struct vcpu *v, const struct insn *in)
{
	return (in->base < CPU_GPRS ? v->gpr[in->base] : 0) + (u64)in->disp;
}

static u64
vector_gather_offset(const struct vector_gather *g, const struct insn *in, unsigned i)
{
	u64 index = 0;

	memcpy(&index, g->index + i * g->index_size, g->index_size);
	return g->base + operand_sign_extend(index, g->index_size) * in->scale;
}

/* Loads elements from the lowest on, clearing their masks: 0 or what stopped it. */
static int
vector_gather_elements(struct vcpu *v, const struct insn *in, struct vector_gather *g)
{
	for (unsigned i = 0; i < g->count; i++) {
		unsigned at = i * g->size;
		u64 linear;
		int r;

		if (vector_selected(g->mask, i, g->size)) {
			r = vector_element_linear(v, in, vector_gather_offset(g, in, i), g->size,
						  false, &linear);
			if (r == 0)
				r = mmu_read(v, linear, g->value + at, g->size, 0);
			if (r)
				return r;
		}
		memset(g->mask + at, 0, g->size);
	}
	return 0;
}

/* What the masks look like while it is under way: all ones or zero in each element. */
static void
vector_gather_spread_mask(struct vector_gather *g)
{
	for (unsigned i = 0; i < g->count; i++)
		memset(g->mask + i * g->size, vector_selected(g->mask, i, g->size) ? 0xff : 0,
		       g->size);
}

int
vector_gather(struct vcpu *v, const struct insn *in)
{
	struct vector_form form = vector_form(in);
	struct vector_gather g = {.size = form.w ? 8 : 4, .index_size = in->opcode & 1 ? 8 : 4};
	unsigned wider = g.size > g.index_size ? g.size : g.index_size;
	unsigned used;
	int r;

	if (!in->mem || (in->modrm & 7) != 4 || in->reg == form.vvvv || in->reg == form.index ||
	    form.vvvv == form.index)
		return vcpu_raise(v, VECTOR_UD);
	r = operand_check_avx(v);
	if (r)
		return r;
	operand_xstate_fill(v, XSTATE_SSE | XSTATE_AVX);
	g.base = vector_gather_base(v, in);
	g.count = form.bytes / wider;
	used = g.count * g.size;
	operand_get_ymm(v, form.index, g.index);
	operand_get_ymm(v, form.vvvv, g.mask);
	operand_get_ymm(v, in->reg, g.value);
	vector_gather_spread_mask(&g);
	r = vector_gather_elements(v, in, &g);
	if (r == HELPER_EXIT)
		return r;
	memset(g.mask + used, 0, 32 - used);
	memset(g.value + used, 0, 32 - used);
	operand_set_ymm(v, in->reg, g.value);
	operand_set_ymm(v, form.vvvv, g.mask);
	return r ? r : HELPER_NEXT;
}

int
vector_zero(struct vcpu *v, const struct insn *in)
{
	unsigned bytes = in->mode == 64 ? 256 : 128;
	int r = operand_check_avx(v);

	if (r)
		return r;
	operand_xstate_fill(v, in->vex_l ? XSTATE_SSE : 0);
	memset(v->xsave + XSAVE_YMM, 0, bytes);
	if (in->vex_l)
		memset(v->xsave + XSAVE_XMM, 0, bytes);
	return HELPER_NEXT;
}
