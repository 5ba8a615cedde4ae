/*
 * Values for tests: plain random ones tell little of carries, signs, rounding
 * and denormals, so most come from pools.
 */
#include <string.h>

#include "case.h"
#include "cpu/cpu_state.h"

u64
rng_next(struct rng *rng)
{
	u64 z = rng->s += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

u64
rng_value(struct rng *rng)
{
	static const u64 pool[] = {
		0,	    1,	       2,	   3,	       0x7f,	      0x80,
		0xff,	    0x7fff,    0x8000,	   0xffff,     0x7fffffff,    0x80000000,
		0xffffffff, INT64_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 1};

	switch (rng_below(rng, 4)) {
	case 0:
		return pool[rng_below(rng, ARRAY_LEN(pool))];
	case 1:
		return rng_next(rng) >> rng_below(rng, 64);
	case 2:
		return 0 - (rng_next(rng) >> rng_below(rng, 64));
	default:
		return rng_next(rng);
	}
}

static const u32 random_floats[] = {0,		0x80000000, 0x3f800000, 0xbf800000, 0x40490fdb,
				    0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffc12345,
				    0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff, 0x4f000000,
				    0xcf000000, 0x3effffff, 0x42c80000};
static const u64 random_doubles[] = {0,
				     1ull << 63,
				     0x3ff0000000000000,
				     0xbff0000000000000,
				     0x400921fb54442d18,
				     0x7ff0000000000000,
				     0xfff0000000000000,
				     0x7ff8000000000000,
				     0x7ff0000000000001,
				     0xfff8123456789abc,
				     0x0000000000000001,
				     0x800fffffffffffff,
				     0x0010000000000000,
				     0x7fefffffffffffff,
				     0x41dfffffffc00000,
				     0x43e0000000000000,
				     0x47efffffe0000000,
				     0x36a0000000000000};

void
rng_vector(struct rng *rng, u8 *p, unsigned len)
{
	unsigned kind = rng_below(rng, 4);

	for (unsigned i = 0; i + 4 <= len;) {
		u64 value = rng_value(rng);
		unsigned size = 8;

		if (kind == 1 || (kind == 3 && rng_percent(rng, 30))) {
			value = random_floats[rng_below(rng, ARRAY_LEN(random_floats))];
			size = 4;
		} else if (kind == 2) {
			value = random_doubles[rng_below(rng, ARRAY_LEN(random_doubles))];
		} else if (kind == 3) {
			value = rng_next(rng);
		}
		if (size > len - i)
			size = len - i;
		memcpy(p + i, &value, size);
		i += size;
	}
}

static void
random_st(struct rng *rng, u8 *st)
{
	static const u16 exponents[] = {0,	1,	0x3fff, 0x4000, 0x7ffe,
					0x7fff, 0x3ffe, 0x403e, 0x3bcd, 0x43fe};
	u64 fraction = rng_value(rng);
	u16 exponent = exponents[rng_below(rng, ARRAY_LEN(exponents))];

	if (rng_percent(rng, 30))
		exponent = (u16)(0x3fff - 80 + rng_below(rng, 160));
	if (exponent != 0 && !rng_percent(rng, 5))
		fraction |= 1ull << 63;
	if (rng_percent(rng, 50))
		exponent |= 0x8000;
	if (rng_percent(rng, 10)) {
		fraction = 0;
		exponent &= 0x8000;
	}
	memcpy(st, &fraction, 8);
	memcpy(st + 8, &exponent, 2);
}

static void
random_x87(struct rng *rng, u8 *x)
{
	u16 fcw = 0x37f, fsw = (u16)(rng_below(rng, 8) << 11);
	u8 tags = 0xff;

	if (rng_percent(rng, 30))
		fcw = (u16)(0x7f | rng_below(rng, 16) << 8);
	if (rng_percent(rng, 8))
		fcw = (u16)(0x40 | (rng_next(rng) & 0xf3f));
	if (rng_percent(rng, 30))
		fsw |= rng_next(rng) & 0x477f;
	if (rng_percent(rng, 95))
		fsw &= (u16) ~(~fcw & 0x3f); /* nothing pending */
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	if (rng_percent(rng, 50))
		tags = (u8)rng_next(rng);
	else if (rng_percent(rng, 30))
		tags = 0;
	memcpy(x, &fcw, 2);
	memcpy(x + 2, &fsw, 2);
	x[4] = tags;
	for (int i = 0; i < 8; i++)
		random_st(rng, x + 32 + 16 * i);
}

static void
random_mxcsr(struct rng *rng, u8 *x)
{
	u32 mxcsr = 0x1f80;

	if (rng_percent(rng, 40))
		mxcsr = 0x1f80 | (rng_next(rng) & 0xe07f);
	if (rng_percent(rng, 8))
		mxcsr = (u32)rng_next(rng) & 0xffff;
	memcpy(x + 24, &mxcsr, 4);
}

void
rng_state(struct rng *rng, struct insn_case *c)
{
	u64 bv = 7;

	for (int i = 0; i < 16; i++)
		c->gpr[i] = rng_value(rng);
	c->rflags = RFLAGS_FIXED | RFLAGS_IF | (rng_next(rng) & RFLAGS_ARITH);
	if (rng_percent(rng, 25))
		c->rflags |= RFLAGS_DF;
	memset(c->xsave, 0, sizeof(c->xsave));
	random_x87(rng, c->xsave);
	random_mxcsr(rng, c->xsave);
	for (int i = 0; i < 16; i++) {
		rng_vector(rng, c->xsave + 160 + 16 * i, 16);
		rng_vector(rng, c->xsave + 576 + 16 * i, 16);
	}
	memcpy(c->xsave + 512, &bv, 8);
	rng_vector(rng, c->overlay, sizeof(c->overlay));
}

void
case_memory(u8 memory[CASE_DATA_SIZE])
{
	struct rng rng = {.s = 1};

	for (unsigned i = 0; i < CASE_DATA_SIZE; i += 64)
		rng_vector(&rng, memory + i, 64);
	for (unsigned page = 0; page < CASE_DATA_PAGES; page++)
		if (!case_page_present(page))
			memset(memory + page * CASE_PAGE, 0, CASE_PAGE);
}
