/*
 * Writing x86-64 machine code. The cache is mapped twice: bytes are written at
 * `at` (read-write view) and will run DELTA bytes further (executable view).
 * Sizes are 64-bit unless the name says otherwise.
 */
#ifndef TRANSLATOR_EMIT_H
#define TRANSLATOR_EMIT_H

#include <string.h>

#include "base/types.h"

enum host_reg {
	RAX,
	RCX,
	RDX,
	RBX,
	RSP,
	RBP,
	RSI,
	RDI,
	R8,
	R9,
	R10,
	R11,
	R12,
	R13,
	R14,
	R15,
};

/* Condition codes of Jcc and SETcc. */
enum { CC_O = 0, CC_B = 2, CC_AE = 3, CC_E = 4, CC_NE = 5, CC_BE = 6, CC_A = 7, CC_S = 8 };

/* The ALU operations by their opcode extension. */
enum alu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };

struct emit {
	u8 *at;
	u8 *limit;
	i64 delta; /* executable address - written address */
};

static inline u8 *
emit_rx(const struct emit *e)
{
	return e->at + e->delta;
}

static inline void
emit8(struct emit *e, unsigned v)
{
	*e->at++ = (u8)v;
}

static inline void
emit16(struct emit *e, unsigned v)
{
	u16 w = (u16)v;

	memcpy(e->at, &w, 2);
	e->at += 2;
}

static inline void
emit32(struct emit *e, u32 v)
{
	memcpy(e->at, &v, 4);
	e->at += 4;
}

static inline void
emit64(struct emit *e, u64 v)
{
	memcpy(e->at, &v, 8);
	e->at += 8;
}

/* REX for reg field R, index X and base B; WIDE sets W. Left out if it says nothing. */
static inline void
emit_rex(struct emit *e, bool wide, unsigned r, unsigned x, unsigned b)
{
	unsigned rex = 0x40u | (wide ? 8u : 0u) | (r >> 3) << 2 | (x >> 3) << 1 | b >> 3;

	if (rex != 0x40)
		emit8(e, rex);
}

/* ModRM (and SIB, displacement) for [base + disp]. */
static inline void
emit_mem(struct emit *e, unsigned reg, unsigned base, i32 disp)
{
	unsigned mod = disp == 0 && (base & 7) != RBP ? 0 : disp == (i8)disp ? 1 : 2;

	emit8(e, mod << 6 | (reg & 7) << 3 | (base & 7));
	if ((base & 7) == RSP)
		emit8(e, 0x24);
	if (mod == 1)
		emit8(e, (u8)disp);
	else if (mod == 2)
		emit32(e, (u32)disp);
}

/* ModRM, SIB and displacement for [base + index * scale + disp]; base may be NO_BASE. */
enum { NO_BASE = 0xff };

static inline unsigned
emit_scale_bits(unsigned scale)
{
	return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

static inline void
emit_sib(struct emit *e, unsigned reg, unsigned base, unsigned index, unsigned scale, i32 disp)
{
	unsigned sib = emit_scale_bits(scale) << 6 | (index & 7) << 3;
	unsigned mod;

	if (base == NO_BASE) {
		emit8(e, (reg & 7) << 3 | 4);
		emit8(e, sib | 5);
		emit32(e, (u32)disp);
		return;
	}
	mod = disp == 0 && (base & 7) != RBP ? 0 : disp == (i8)disp ? 1 : 2;
	emit8(e, mod << 6 | (reg & 7) << 3 | 4);
	emit8(e, sib | (base & 7));
	if (mod == 1)
		emit8(e, (u8)disp);
	else if (mod == 2)
		emit32(e, (u32)disp);
}

/* ModRM for [rip + x] reaching TARGET, with TAIL bytes of immediate still to come. */
static inline void
emit_rip(struct emit *e, unsigned reg, const void *target, unsigned tail)
{
	i64 rel;

	emit8(e, (reg & 7) << 3 | 5);
	rel = (const u8 *)target - (emit_rx(e) + 4 + tail);
	emit32(e, (u32)rel);
}

static inline void
emit_mov(struct emit *e, unsigned dst, unsigned src)
{
	emit_rex(e, true, src, 0, dst);
	emit8(e, 0x89);
	emit8(e, 0xc0 | (src & 7) << 3 | (dst & 7));
}

static inline void
emit_mov32(struct emit *e, unsigned dst, unsigned src)
{
	emit_rex(e, false, src, 0, dst);
	emit8(e, 0x89);
	emit8(e, 0xc0 | (src & 7) << 3 | (dst & 7));
}

static inline void
emit_movzx16(struct emit *e, unsigned dst, unsigned src)
{
	emit_rex(e, false, dst, 0, src);
	emit8(e, 0x0f);
	emit8(e, 0xb7);
	emit8(e, 0xc0 | (dst & 7) << 3 | (src & 7));
}

static inline void
emit_mov_imm32(struct emit *e, unsigned dst, u32 value)
{
	emit_rex(e, false, 0, 0, dst);
	emit8(e, 0xb8 | (dst & 7));
	emit32(e, value);
}

static inline void
emit_mov_imm(struct emit *e, unsigned dst, u64 value)
{
	if (value == (u32)value) {
		emit_mov_imm32(e, dst, (u32)value);
		return;
	}
	emit_rex(e, true, 0, 0, dst);
	emit8(e, 0xb8 | (dst & 7));
	emit64(e, value);
}

/* dst = [rip -> var], 64 or 32 bits. */
static inline void
emit_load_var(struct emit *e, unsigned dst, const void *var)
{
	emit_rex(e, true, dst, 0, 0);
	emit8(e, 0x8b);
	emit_rip(e, dst, var, 0);
}

static inline void
emit_store_var(struct emit *e, const void *var, unsigned src)
{
	emit_rex(e, true, src, 0, 0);
	emit8(e, 0x89);
	emit_rip(e, src, var, 0);
}

static inline void
emit_store_var_imm32(struct emit *e, const void *var, u32 value) /* 32 bits wide */
{
	emit8(e, 0xc7);
	emit_rip(e, 0, var, 4);
	emit32(e, value);
}

static inline void
emit_load(struct emit *e, unsigned dst, unsigned base, i32 disp)
{
	emit_rex(e, true, dst, 0, base);
	emit8(e, 0x8b);
	emit_mem(e, dst, base, disp);
}

static inline void
emit_load32(struct emit *e, unsigned dst, unsigned base, i32 disp)
{
	emit_rex(e, false, dst, 0, base);
	emit8(e, 0x8b);
	emit_mem(e, dst, base, disp);
}

static inline void
emit_store(struct emit *e, unsigned base, i32 disp, unsigned src)
{
	emit_rex(e, true, src, 0, base);
	emit8(e, 0x89);
	emit_mem(e, src, base, disp);
}

static inline void
emit_store32(struct emit *e, unsigned base, i32 disp, unsigned src)
{
	emit_rex(e, false, src, 0, base);
	emit8(e, 0x89);
	emit_mem(e, src, base, disp);
}

static inline void
emit_lea(struct emit *e, unsigned dst, unsigned base, i32 disp)
{
	emit_rex(e, true, dst, 0, base);
	emit8(e, 0x8d);
	emit_mem(e, dst, base, disp);
}

static inline void
emit_lea32(struct emit *e, unsigned dst, unsigned base, i32 disp)
{
	emit_rex(e, false, dst, 0, base);
	emit8(e, 0x8d);
	emit_mem(e, dst, base, disp);
}

static inline void
emit_lea_sib(struct emit *e, bool wide, unsigned dst, unsigned base, unsigned index, unsigned scale,
	     i32 disp)
{
	emit_rex(e, wide, dst, index, base == NO_BASE ? 0 : base);
	emit8(e, 0x8d);
	emit_sib(e, dst, base, index, scale, disp);
}

/* dst = address of code or data at TARGET (executable view). */
static inline void
emit_lea_rip(struct emit *e, unsigned dst, const void *target)
{
	emit_rex(e, true, dst, 0, 0);
	emit8(e, 0x8d);
	emit_rip(e, dst, target, 0);
}

static inline void
emit_alu_imm(struct emit *e, enum alu op, bool wide, unsigned dst, i32 imm)
{
	emit_rex(e, wide, 0, 0, dst);
	if (imm == (i8)imm) {
		emit8(e, 0x83);
		emit8(e, 0xc0 | (unsigned)op << 3 | (dst & 7));
		emit8(e, (u8)imm);
	} else {
		emit8(e, 0x81);
		emit8(e, 0xc0 | (unsigned)op << 3 | (dst & 7));
		emit32(e, (u32)imm);
	}
}

/* dst op= [base + disp] */
static inline void
emit_alu_mem(struct emit *e, enum alu op, unsigned dst, unsigned base, i32 disp)
{
	emit_rex(e, true, dst, 0, base);
	emit8(e, (unsigned)op << 3 | 3);
	emit_mem(e, dst, base, disp);
}

static inline void
emit_alu_var(struct emit *e, enum alu op, unsigned dst, const void *var)
{
	emit_rex(e, true, dst, 0, 0);
	emit8(e, (unsigned)op << 3 | 3);
	emit_rip(e, dst, var, 0);
}

static inline void
emit_alu(struct emit *e, enum alu op, bool wide, unsigned dst, unsigned src)
{
	emit_rex(e, wide, src, 0, dst);
	emit8(e, (unsigned)op << 3 | 1);
	emit8(e, 0xc0 | (src & 7) << 3 | (dst & 7));
}

static inline void
emit_shr_imm(struct emit *e, unsigned dst, unsigned count)
{
	emit_rex(e, true, 0, 0, dst);
	emit8(e, 0xc1);
	emit8(e, 0xe8 | (dst & 7));
	emit8(e, count);
}

/* dst = src rotated right, flags untouched (BMI2). */
static inline void
emit_rorx(struct emit *e, unsigned dst, unsigned src, unsigned count)
{
	emit8(e, 0xc4);
	emit8(e, (dst < 8 ? 0x80u : 0u) | 0x40u | (src < 8 ? 0x20u : 0u) | 3u);
	emit8(e, 0xfb);
	emit8(e, 0xf0);
	emit8(e, 0xc0 | (dst & 7) << 3 | (src & 7));
	emit8(e, count);
}

/* Jumps to TARGET (executable view); the place of the 32-bit displacement is returned. */
static inline u8 *
emit_jmp(struct emit *e, const void *target)
{
	u8 *place;

	emit8(e, 0xe9);
	place = e->at;
	emit32(e, (u32)((const u8 *)target - (emit_rx(e) + 4)));
	return place;
}

static inline u8 *
emit_jcc(struct emit *e, unsigned cc, const void *target)
{
	u8 *place;

	emit8(e, 0x0f);
	emit8(e, 0x80 | cc);
	place = e->at;
	emit32(e, (u32)((const u8 *)target - (emit_rx(e) + 4)));
	return place;
}

/* Makes the displacement at PLACE (written view) reach TARGET (executable view). */
static inline void
emit_patch(const struct emit *e, u8 *place, const void *target)
{
	u32 rel = (u32)((const u8 *)target - (place + e->delta + 4));

	__atomic_store_n((u32 *)(void *)place, rel, __ATOMIC_RELEASE);
}

static inline void
emit_jmp_reg(struct emit *e, unsigned reg)
{
	emit_rex(e, false, 0, 0, reg);
	emit8(e, 0xff);
	emit8(e, 0xe0 | (reg & 7));
}

static inline void
emit_jmp_var(struct emit *e, const void *var)
{
	emit8(e, 0xff);
	emit_rip(e, 4, var, 0);
}

static inline void
emit_call_reg(struct emit *e, unsigned reg)
{
	emit_rex(e, false, 0, 0, reg);
	emit8(e, 0xff);
	emit8(e, 0xd0 | (reg & 7));
}

#endif
