/*
 * Registers and addresses of an instruction as the C helpers see them: partial
 * writes of general registers, the stack by its own size, targets of near
 * branches, vector registers in the XSAVE image. Only inline functions.
 */
#ifndef TRANSLATOR_OPERAND_H
#define TRANSLATOR_OPERAND_H

#include <string.h>

#include "engine/translator/mmu.h"
#include "engine/translator/vcpu.h"

static inline u64
operand_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

static inline u64
operand_sign_extend(u64 value, unsigned size)
{
	unsigned shift = 64 - size * 8;

	return (u64)((i64)(value << shift) >> shift);
}

/* As the CPU writes a register: 32 bits clear the upper half, 8 and 16 keep the rest. */
static inline void
operand_set_gpr(struct vcpu *v, unsigned reg, unsigned size, u64 value)
{
	u64 mask = operand_mask(size);

	if (size >= 4)
		v->gpr[reg] = value & mask;
	else
		v->gpr[reg] = (v->gpr[reg] & ~mask) | (value & mask);
}

/* Bytes of the stack pointer that count (4.2.2, SS.B). */
static inline unsigned
operand_stack_size(const struct vcpu *v)
{
	if (vcpu_64bit(v))
		return 8;
	return v->seg[CPU_SS].attr & SEGMENT_DB ? 4 : 2;
}

static inline int
operand_stack_read(struct vcpu *v, u64 offset, void *buf, unsigned len)
{
	u64 linear;
	int r = mmu_linear(v, CPU_SS, offset & operand_mask(operand_stack_size(v)), len, false,
			   &linear);

	return r ? r : mmu_read(v, linear, buf, len, 0);
}

static inline int
operand_stack_write(struct vcpu *v, u64 offset, const void *buf, unsigned len)
{
	u64 linear;
	int r = mmu_linear(v, CPU_SS, offset & operand_mask(operand_stack_size(v)), len, true,
			   &linear);

	return r ? r : mmu_write(v, linear, buf, len, 0);
}

/* A near branch's target cut to the operand size and checked; #GP(0) beyond the code segment. */
static inline int
operand_branch_target(struct vcpu *v, const struct insn *in, u64 *target)
{
	*target &= operand_mask(in->opsize);
	if (vcpu_64bit(v) ? !vcpu_canonical(*target) : *target > v->seg[CPU_CS].limit)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	return 0;
}

/*
 * The XSAVE image, standard format. A component whose XSTATE_BV bit is clear is in its initial
 * state whatever its bytes say: operand_xstate_fill() makes the bytes say so.
 */
enum {
	XSTATE_X87 = BIT(0),
	XSTATE_SSE = BIT(1),
	XSTATE_AVX = BIT(2),
	XSAVE_FCW = 0,
	XSAVE_FSW = 2,
	XSAVE_FTW = 4,
	XSAVE_FOP = 6,
	XSAVE_FIP = 8,
	XSAVE_FDP = 16,
	XSAVE_MXCSR = 24,
	XSAVE_MXCSR_MASK = 28,
	XSAVE_ST = 32,
	XSAVE_XMM = 160,
	XSAVE_LEGACY = 416, /* end of XMM15 */
	XSAVE_BV = 512,
	XSAVE_XCOMP = 520,
	XSAVE_YMM = 576,
	XSAVE_END = 832,
};

static inline u64
operand_xstate_bv(const struct vcpu *v)
{
	u64 bv;

	memcpy(&bv, v->xsave + XSAVE_BV, 8);
	return bv;
}

static inline void
operand_xstate_init(u8 *image, u64 components)
{
	if (components & XSTATE_X87) {
		memset(image, 0, XSAVE_MXCSR);
		memset(image + XSAVE_ST, 0, XSAVE_XMM - XSAVE_ST);
		image[XSAVE_FCW] = 0x7f;
		image[XSAVE_FCW + 1] = 0x03;
	}
	if (components & XSTATE_SSE)
		memset(image + XSAVE_XMM, 0, XSAVE_LEGACY - XSAVE_XMM);
	if (components & XSTATE_AVX)
		memset(image + XSAVE_YMM, 0, XSAVE_END - XSAVE_YMM);
}

/* Makes the bytes of x87, SSE and AVX valid; USED components will be written by the caller. */
static inline void
operand_xstate_fill(struct vcpu *v, u64 used)
{
	u64 bv = operand_xstate_bv(v);

	operand_xstate_init(v->xsave, ~bv & (XSTATE_X87 | XSTATE_SSE | XSTATE_AVX));
	bv |= used;
	memcpy(v->xsave + XSAVE_BV, &bv, 8);
}

/* The stack top: slot i of the image is register (TOP + i) & 7, which is also MMX register of that
 * number. */
static inline unsigned
operand_x87_top(const struct vcpu *v)
{
	return (v->xsave[XSAVE_FSW + 1] >> 3) & 7;
}

/* Another top: the registers stay, so the image's slots turn. */
static inline void
operand_set_x87_top(struct vcpu *v, unsigned top)
{
	unsigned turn = (top - operand_x87_top(v)) & 7;
	u8 old[XSAVE_XMM - XSAVE_ST];

	memcpy(old, v->xsave + XSAVE_ST, sizeof(old));
	for (unsigned i = 0; i < 8; i++)
		memcpy(v->xsave + XSAVE_ST + 16 * i, old + 16 * ((i + turn) & 7), 16);
	v->xsave[XSAVE_FSW + 1] = (u8)((v->xsave[XSAVE_FSW + 1] & ~0x38u) | top << 3);
}

/* Vector register N as 32 bytes; the image was filled. */
static inline void
operand_get_ymm(const struct vcpu *v, unsigned n, u8 value[32])
{
	memcpy(value, v->xsave + XSAVE_XMM + 16 * n, 16);
	memcpy(value + 16, v->xsave + XSAVE_YMM + 16 * n, 16);
}

static inline void
operand_set_ymm(struct vcpu *v, unsigned n, const u8 value[32])
{
	memcpy(v->xsave + XSAVE_XMM + 16 * n, value, 16);
	memcpy(v->xsave + XSAVE_YMM + 16 * n, value + 16, 16);
}

/* The checks before a vector instruction (2 APM 6.1.2 and 11.4): 0 or a fault raised. */
static inline int
operand_check_sse(struct vcpu *v)
{
	if ((v->cr0 & CR0_EM) || !(v->cr4 & CR4_OSFXSR))
		return vcpu_raise(v, VECTOR_UD);
	return v->cr0 & CR0_TS ? vcpu_raise(v, VECTOR_NM) : 0;
}

static inline int
operand_check_avx(struct vcpu *v)
{
	u64 need = XSTATE_SSE | XSTATE_AVX;

	if (!vcpu_protected(v) || !(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & need) != need)
		return vcpu_raise(v, VECTOR_UD);
	return v->cr0 & CR0_TS ? vcpu_raise(v, VECTOR_NM) : 0;
}

#endif
