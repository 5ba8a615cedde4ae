/*
 * FXSAVE, the XSAVE family, MXCSR and the x87 environment (AMD64 APM 2, 11.4
 * and 11.5), between v->xsave and guest memory.
 *
 * The instruction and data pointers of the x87 unit are those of translated
 * code in the host's registers: the guest sees them as zero.
 *
 * An area is checked whole before a byte of it is written, and read whole
 * before a register changes.
 */
#include "engine/translator/operand.h"
#include "engine/translator/rare.h"

enum {
	XSTATE_ALL = XSTATE_X87 | XSTATE_SSE | XSTATE_AVX,
	XSTATE_FXSAVE_END = 512,
	XSTATE_HEADER_END = 576,
	XSTATE_AVX_SIZE = 256,
	MXCSR_DEFAULT = 0x1f80,
	FSW_ES = BIT(7),
	FSW_B = BIT(15),
};
#define XCOMP_COMPACT BIT64(63)

/* MXCSR bits that exist: MM (17) where the CPU has misaligned SSE mode. */
static u32
xstate_mxcsr_mask(const struct vcpu *v)
{
	if (v->model && cpu_model_has(v->model, 0x80000001, 0, 2, 7))
		return 0x2ffff;
	return 0xffff;
}

static u32
xstate_get32(const u8 *p)
{
	u32 value;

	memcpy(&value, p, 4);
	return value;
}

static u64
xstate_get64(const u8 *p)
{
	u64 value;

	memcpy(&value, p, 8);
	return value;
}

static u16
xstate_get16(const u8 *p)
{
	u16 value;

	memcpy(&value, p, 2);
	return value;
}

static void
xstate_put16(u8 *p, unsigned value)
{
	u16 v16 = (u16)value;

	memcpy(p, &v16, 2);
}

/* What the CPU makes of an x87 image that is loaded: FSW.ES and B follow from the flags and
 * masks, reserved bytes and the pointers are dropped. */
static void
xstate_summarize(u8 *image)
{
	unsigned fsw = xstate_get16(image + XSAVE_FSW) & ~(unsigned)(FSW_ES | FSW_B);

	if (fsw & ~xstate_get16(image + XSAVE_FCW) & 0x3f)
		fsw |= FSW_ES | FSW_B;
	xstate_put16(image + XSAVE_FSW, fsw);
	/* FCW bit 6 reads as one, 7 and 13 to 15 as zero */
	xstate_put16(image + XSAVE_FCW, (xstate_get16(image + XSAVE_FCW) & 0x1f7f) | 0x40);
	memset(image + XSAVE_FIP, 0, XSAVE_MXCSR - XSAVE_FIP);
	image[XSAVE_FTW + 1] = 0;
	for (unsigned i = 0; i < 8; i++)
		memset(image + XSAVE_ST + 16 * i + 10, 0, 6);
}

static int
xstate_area(struct vcpu *v, const struct insn *in, unsigned len, unsigned align, bool write,
	    u64 *linear)
{
	int r = mmu_operand(v, in, len, write, linear);

	if (r)
		return r;
	return *linear & (align - 1) ? vcpu_raise_code(v, VECTOR_GP, 0) : 0;
}

/* Vector registers that the mode can name: the others are neither saved nor loaded. */
static unsigned
xstate_vector_bytes(const struct insn *in)
{
	return in->mode == 64 ? 256 : 128;
}

/*
 * Saving is by pieces, since bytes between them stay as they are in memory.
 */

struct xstate_piece {
	unsigned offset, len;
	const void *bytes;
};

static int
xstate_store(struct vcpu *v, u64 linear, const struct xstate_piece *pieces, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		int r = mmu_check_write(v, linear + pieces[i].offset, pieces[i].len, 0);

		if (r)
			return r;
	}
	for (unsigned i = 0; i < count; i++) {
		int r = mmu_write(v, linear + pieces[i].offset, pieces[i].bytes, pieces[i].len, 0);

		if (r)
			return r;
	}
	return HELPER_NEXT;
}

/* The image made valid and presentable: initial states spelled out, pointers hidden. */
static void
xstate_prepare(struct vcpu *v)
{
	u32 mask = xstate_mxcsr_mask(v);

	operand_xstate_fill(v, 0);
	memset(v->xsave + XSAVE_FIP, 0, XSAVE_MXCSR - XSAVE_FIP);
	memcpy(v->xsave + XSAVE_MXCSR_MASK, &mask, 4);
}

/* Which components are in use, MXCSR's own state counted to SSE. */
static u64
xstate_in_use(const struct vcpu *v)
{
	u64 in_use = operand_xstate_bv(v) & XSTATE_ALL;

	if (xstate_get32(v->xsave + XSAVE_MXCSR) != MXCSR_DEFAULT)
		in_use |= XSTATE_SSE;
	return in_use;
}

/* FXSAVE may leave XMM out at CPL 0 in 64-bit mode (EFER.FFXSR). */
static bool
xstate_fast_fx(const struct vcpu *v, const struct insn *in)
{
	return (v->msr.efer & EFER_FFXSR) && in->mode == 64 && v->cpl == 0;
}

static int
xstate_check_fx(struct vcpu *v)
{
	return v->cr0 & (CR0_EM | CR0_TS) ? vcpu_raise(v, VECTOR_NM) : 0;
}

int
xstate_fxsave(struct vcpu *v, const struct insn *in)
{
	struct xstate_piece pieces[2];
	unsigned count = 1;
	u64 linear;
	int r = xstate_check_fx(v);

	if (r == 0)
		r = xstate_area(v, in, XSTATE_FXSAVE_END, 16, true, &linear);
	if (r)
		return r;
	xstate_prepare(v);
	pieces[0] = (struct xstate_piece){0, XSAVE_XMM, v->xsave};
	if (!xstate_fast_fx(v, in))
		pieces[count++] = (struct xstate_piece){XSAVE_XMM, xstate_vector_bytes(in),
							v->xsave + XSAVE_XMM};
	return xstate_store(v, linear, pieces, count);
}

int
xstate_fxrstor(struct vcpu *v, const struct insn *in)
{
	u8 image[XSTATE_FXSAVE_END];
	u64 linear;
	int r = xstate_check_fx(v);

	if (r == 0)
		r = xstate_area(v, in, sizeof(image), 16, false, &linear);
	if (r == 0)
		r = mmu_read(v, linear, image, sizeof(image), 0);
	if (r)
		return r;
	if (xstate_get32(image + XSAVE_MXCSR) & ~xstate_mxcsr_mask(v))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	operand_xstate_fill(v, XSTATE_X87 | XSTATE_SSE);
	xstate_summarize(image);
	memcpy(v->xsave, image, XSAVE_XMM);
	if (!xstate_fast_fx(v, in))
		memcpy(v->xsave + XSAVE_XMM, image + XSAVE_XMM, xstate_vector_bytes(in));
	return HELPER_NEXT;
}

static int
xstate_check_mxcsr(struct vcpu *v, const struct insn *in)
{
	return in->prefixes & INSN_VEX ? operand_check_avx(v) : operand_check_sse(v);
}

int
xstate_ldmxcsr(struct vcpu *v, const struct insn *in)
{
	u64 linear;
	u32 value;
	int r = xstate_check_mxcsr(v, in);

	if (r == 0)
		r = mmu_operand(v, in, 4, false, &linear);
	if (r == 0)
		r = mmu_read32(v, linear, &value, 0);
	if (r)
		return r;
	if (value & ~xstate_mxcsr_mask(v))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	operand_xstate_fill(v, XSTATE_SSE);
	memcpy(v->xsave + XSAVE_MXCSR, &value, 4);
	return HELPER_NEXT;
}

int
xstate_stmxcsr(struct vcpu *v, const struct insn *in)
{
	u64 linear;
	int r = xstate_check_mxcsr(v, in);

	if (r == 0)
		r = mmu_operand(v, in, 4, true, &linear);
	if (r == 0)
		r = mmu_write(v, linear, v->xsave + XSAVE_MXCSR, 4, 0);
	return r ? r : HELPER_NEXT;
}

/*
 * XSAVE, XSAVEOPT, XSAVEC, XRSTOR
 */

static int
xstate_check_xsave(struct vcpu *v)
{
	if (!(v->cr4 & CR4_OSXSAVE))
		return vcpu_raise(v, VECTOR_UD);
	return v->cr0 & CR0_TS ? vcpu_raise(v, VECTOR_NM) : 0;
}

/* The requested-feature bitmap. */
static u64
xstate_rfbm(const struct vcpu *v)
{
	u64 asked = (v->gpr[CPU_RDX] << 32) | (u32)v->gpr[CPU_RAX];

	return asked & v->xcr0 & XSTATE_ALL;
}

struct xstate_plan {
	struct xstate_piece pieces[8];
	unsigned count;
};

static void
xstate_plan_add(struct xstate_plan *plan, unsigned offset, unsigned len, const void *bytes)
{
	plan->pieces[plan->count++] = (struct xstate_piece){offset, len, bytes};
}

/* The pieces of the components SAVED; AVX at its own place or right behind the header. */
static void
xstate_plan_components(struct xstate_plan *plan, const struct vcpu *v, const struct insn *in,
		       u64 saved, bool mxcsr)
{
	unsigned vectors = xstate_vector_bytes(in);

	if (saved & XSTATE_X87) {
		xstate_plan_add(plan, 0, XSAVE_MXCSR, v->xsave);
		xstate_plan_add(plan, XSAVE_ST, XSAVE_XMM - XSAVE_ST, v->xsave + XSAVE_ST);
	}
	if (mxcsr)
		xstate_plan_add(plan, XSAVE_MXCSR, 8, v->xsave + XSAVE_MXCSR);
	if (saved & XSTATE_SSE)
		xstate_plan_add(plan, XSAVE_XMM, vectors, v->xsave + XSAVE_XMM);
	/* AVX is the first component behind the header in both formats. */
	if (saved & XSTATE_AVX)
		xstate_plan_add(plan, XSAVE_YMM, vectors, v->xsave + XSAVE_YMM);
}

static unsigned
xstate_size(u64 rfbm)
{
	return rfbm & XSTATE_AVX ? XSAVE_END : XSTATE_HEADER_END;
}

/* XSAVE, and XSAVEOPT by the same rules but for components in their initial state. */
static int
xstate_save_standard(struct vcpu *v, const struct insn *in, bool optimize)
{
	struct xstate_plan plan = {.count = 0};
	u64 rfbm = xstate_rfbm(v), linear, bv, in_use;
	int r = xstate_check_xsave(v);

	if (r == 0)
		r = xstate_area(v, in, xstate_size(rfbm), 64, true, &linear);
	if (r == 0)
		r = mmu_read(v, linear + XSAVE_BV, &bv, 8, MMU_WRITE_INTENT);
	if (r)
		return r;
	xstate_prepare(v);
	in_use = xstate_in_use(v);
	bv = (bv & ~rfbm) | (rfbm & in_use);
	xstate_plan_components(&plan, v, in, optimize ? rfbm & in_use : rfbm,
			       rfbm & (XSTATE_SSE | XSTATE_AVX));
	xstate_plan_add(&plan, XSAVE_BV, 8, &bv);
	return xstate_store(v, linear, plan.pieces, plan.count);
}

int
xstate_xsave(struct vcpu *v, const struct insn *in)
{
	return xstate_save_standard(v, in, false);
}

int
xstate_xsaveopt(struct vcpu *v, const struct insn *in)
{
	return xstate_save_standard(v, in, true);
}

int
xstate_xsavec(struct vcpu *v, const struct insn *in)
{
	struct xstate_plan plan = {.count = 0};
	u64 rfbm = xstate_rfbm(v), linear, saved;
	u64 header[2]; /* the rest of the header is left as it is */
	int r = xstate_check_xsave(v);

	if (r == 0)
		r = xstate_area(v, in, xstate_size(rfbm), 64, true, &linear);
	if (r)
		return r;
	xstate_prepare(v);
	saved = rfbm & xstate_in_use(v);
	header[0] = saved;
	header[1] = rfbm | XCOMP_COMPACT;
	xstate_plan_components(&plan, v, in, saved, saved & XSTATE_SSE);
	xstate_plan_add(&plan, XSAVE_BV, sizeof(header), header);
	return xstate_store(v, linear, plan.pieces, plan.count);
}

/* The header's rules; *HELD are the components that the area holds. */
static int
xstate_check_header(struct vcpu *v, const u8 *image, u64 *held)
{
	u64 bv = xstate_get64(image + XSAVE_BV), comp = xstate_get64(image + XSAVE_XCOMP);
	bool compact = comp & XCOMP_COMPACT, reserved = xstate_get64(image + XSAVE_XCOMP + 8) != 0;

	for (unsigned i = XSAVE_XCOMP + 16; compact && i < XSTATE_HEADER_END; i += 8)
		reserved |= xstate_get64(image + i) != 0;
	if (compact && v->model && !cpu_model_has(v->model, 0xd, 1, 0, 1))
		reserved = true;
	if (compact)
		reserved |= ((comp & ~XCOMP_COMPACT) & ~v->xcr0) || (bv & ~comp);
	else
		reserved |= comp != 0;
	if (reserved || (bv & ~v->xcr0))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	*held = bv;
	return 0;
}

/* Whether MXCSR is loaded, and from a compacted area perhaps initialised: *VALUE. */
static bool
xstate_new_mxcsr(const u8 *image, u64 rfbm, u64 held, u32 *value)
{
	*value = xstate_get32(image + XSAVE_MXCSR);
	if (!(xstate_get64(image + XSAVE_XCOMP) & XCOMP_COMPACT))
		return rfbm & (XSTATE_SSE | XSTATE_AVX);
	if (!(held & XSTATE_SSE))
		*value = MXCSR_DEFAULT;
	return rfbm & XSTATE_SSE;
}

/* One register file: from the image, or its initial state, as far as the mode names it. */
static void
xstate_load_vectors(struct vcpu *v, const struct insn *in, unsigned offset, const u8 *from)
{
	if (from)
		memcpy(v->xsave + offset, from + offset, xstate_vector_bytes(in));
	else
		memset(v->xsave + offset, 0, xstate_vector_bytes(in));
}

static void
xstate_load_components(struct vcpu *v, const struct insn *in, u8 *image, u64 rfbm, u64 held)
{
	u64 bv = operand_xstate_bv(v) & ~(rfbm & ~held);

	/* XMM8 to 15 and their upper halves outlive a legacy mode's load: still in use. */
	if (in->mode == 64)
		memcpy(v->xsave + XSAVE_BV, &bv, 8);
	if (rfbm & held & XSTATE_X87) {
		xstate_summarize(image);
		memcpy(v->xsave, image, XSAVE_MXCSR);
		memcpy(v->xsave + XSAVE_ST, image + XSAVE_ST, XSAVE_XMM - XSAVE_ST);
	} else if (rfbm & XSTATE_X87) {
		operand_xstate_init(v->xsave, XSTATE_X87);
	}
	if (rfbm & XSTATE_SSE)
		xstate_load_vectors(v, in, XSAVE_XMM, held & XSTATE_SSE ? image : NULL);
	if (rfbm & XSTATE_AVX)
		xstate_load_vectors(v, in, XSAVE_YMM, held & XSTATE_AVX ? image : NULL);
}

int
xstate_xrstor(struct vcpu *v, const struct insn *in)
{
	u8 image[XSAVE_END];
	u64 rfbm = xstate_rfbm(v), linear, held = 0;
	u32 mxcsr;
	bool load_mxcsr;
	int r = xstate_check_xsave(v);

	if (r == 0)
		r = xstate_area(v, in, xstate_size(rfbm), 64, false, &linear);
	if (r == 0)
		r = mmu_read(v, linear, image, xstate_size(rfbm), 0);
	if (r == 0)
		r = xstate_check_header(v, image, &held);
	if (r)
		return r;
	load_mxcsr = xstate_new_mxcsr(image, rfbm, held, &mxcsr);
	if (load_mxcsr && (mxcsr & ~xstate_mxcsr_mask(v)))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	operand_xstate_fill(v, rfbm & held);
	xstate_load_components(v, in, image, rfbm, held);
	if (load_mxcsr)
		memcpy(v->xsave + XSAVE_MXCSR, &mxcsr, 4);
	return HELPER_NEXT;
}

/*
 * The x87 environment: 14 bytes of words or 28 of doublewords, by operand size.
 */

enum { ENV_FIELDS = 7, ST_BYTES = 10, ST_COUNT = 8 };

static unsigned
xstate_env_unit(const struct insn *in)
{
	return in->opsize == 2 ? 2 : 4;
}

static const u8 *
xstate_st(const struct vcpu *v, unsigned i)
{
	return v->xsave + XSAVE_ST + 16 * i;
}

/* Two bits of the full tag word for a register that is not empty. */
static unsigned
xstate_tag(const u8 *st)
{
	u64 fraction = xstate_get64(st);
	unsigned exponent = xstate_get16(st + 8) & 0x7fff;

	if (exponent == 0 && fraction == 0)
		return 1; /* zero */
	if (exponent == 0 || exponent == 0x7fff || !(fraction >> 63))
		return 2; /* denormal, infinity, NaN, unsupported */
	return 0;
}

/* The abridged tags have a bit per physical register; ST(i) is register TOP + i. */
static unsigned
xstate_full_tags(const struct vcpu *v)
{
	unsigned top = operand_x87_top(v), tags = 0;

	for (unsigned reg = 0; reg < ST_COUNT; reg++) {
		unsigned tag = 3;

		if (v->xsave[XSAVE_FTW] & BIT(reg))
			tag = xstate_tag(xstate_st(v, (reg - top) & 7));
		tags |= tag << (2 * reg);
	}
	return tags;
}

static u8
xstate_abridged_tags(unsigned tags)
{
	unsigned abridged = 0;

	for (unsigned reg = 0; reg < ST_COUNT; reg++)
		if (((tags >> (2 * reg)) & 3) != 3)
			abridged |= BIT(reg);
	return (u8)abridged;
}

/* Unused upper halves of the doubleword format read as ones; pointers as zero. */
static unsigned
xstate_build_env(const struct vcpu *v, const struct insn *in, u8 *env)
{
	unsigned unit = xstate_env_unit(in);
	unsigned words[3] = {xstate_get16(v->xsave + XSAVE_FCW), xstate_get16(v->xsave + XSAVE_FSW),
			     xstate_full_tags(v)};

	memset(env, 0, ENV_FIELDS * unit);
	for (unsigned i = 0; i < 3; i++) {
		xstate_put16(env + i * unit, words[i]);
		if (unit == 4)
			xstate_put16(env + i * unit + 2, 0xffff);
	}
	if (unit == 4)
		xstate_put16(env + 6 * unit + 2, 0xffff);
	return ENV_FIELDS * unit;
}

static void
xstate_take_env(struct vcpu *v, const struct insn *in, const u8 *env)
{
	unsigned unit = xstate_env_unit(in);

	operand_set_x87_top(v, (xstate_get16(env + unit) >> 11) & 7);
	xstate_put16(v->xsave + XSAVE_FCW, xstate_get16(env));
	xstate_put16(v->xsave + XSAVE_FSW, xstate_get16(env + unit));
	v->xsave[XSAVE_FTW] = xstate_abridged_tags(xstate_get16(env + 2 * unit));
	xstate_put16(v->xsave + XSAVE_FOP, 0);
	xstate_summarize(v->xsave);
}

static int
xstate_check_x87(struct vcpu *v, bool waits)
{
	if (v->cr0 & (CR0_EM | CR0_TS))
		return vcpu_raise(v, VECTOR_NM);
	operand_xstate_fill(v, XSTATE_X87);
	if (waits && (xstate_get16(v->xsave + XSAVE_FSW) & FSW_ES))
		return vcpu_raise(v, VECTOR_MF);
	return 0;
}

int
xstate_fnstenv(struct vcpu *v, const struct insn *in)
{
	u8 env[ENV_FIELDS * 4];
	unsigned len;
	u64 linear;
	int r = xstate_check_x87(v, false);

	if (r)
		return r;
	len = xstate_build_env(v, in, env);
	r = mmu_operand(v, in, len, true, &linear);
	if (r == 0)
		r = mmu_write(v, linear, env, len, 0);
	if (r)
		return r;
	v->xsave[XSAVE_FCW] |= 0x3f; /* all exceptions masked, as a handler wants it */
	xstate_summarize(v->xsave);
	return HELPER_NEXT;
}

int
xstate_fldenv(struct vcpu *v, const struct insn *in)
{
	u8 env[ENV_FIELDS * 4];
	unsigned len = ENV_FIELDS * xstate_env_unit(in);
	u64 linear;
	int r = xstate_check_x87(v, true);

	if (r == 0)
		r = mmu_operand(v, in, len, false, &linear);
	if (r == 0)
		r = mmu_read(v, linear, env, len, 0);
	if (r)
		return r;
	xstate_take_env(v, in, env);
	return HELPER_NEXT;
}

int
xstate_fnsave(struct vcpu *v, const struct insn *in)
{
	u8 area[ENV_FIELDS * 4 + ST_COUNT * ST_BYTES];
	unsigned len;
	u64 linear;
	int r = xstate_check_x87(v, false);

	if (r)
		return r;
	len = xstate_build_env(v, in, area);
	for (unsigned i = 0; i < ST_COUNT; i++, len += ST_BYTES)
		memcpy(area + len, xstate_st(v, i), ST_BYTES);
	r = mmu_operand(v, in, len, true, &linear);
	if (r == 0)
		r = mmu_write(v, linear, area, len, 0);
	if (r)
		return r;
	/* As FNINIT: the registers keep their bytes, tagged empty. */
	operand_set_x87_top(v, 0);
	memset(v->xsave, 0, XSAVE_MXCSR);
	xstate_put16(v->xsave + XSAVE_FCW, 0x37f);
	return HELPER_NEXT;
}

int
xstate_frstor(struct vcpu *v, const struct insn *in)
{
	u8 area[ENV_FIELDS * 4 + ST_COUNT * ST_BYTES];
	unsigned env = ENV_FIELDS * xstate_env_unit(in);
	unsigned len = env + ST_COUNT * ST_BYTES;
	u64 linear;
	int r = xstate_check_x87(v, true);

	if (r == 0)
		r = mmu_operand(v, in, len, false, &linear);
	if (r == 0)
		r = mmu_read(v, linear, area, len, 0);
	if (r)
		return r;
	xstate_take_env(v, in, area);
	for (unsigned i = 0; i < ST_COUNT; i++) {
		memset(v->xsave + XSAVE_ST + 16 * i, 0, 16);
		memcpy(v->xsave + XSAVE_ST + 16 * i, area + env + i * ST_BYTES, ST_BYTES);
	}
	return HELPER_NEXT;
}
