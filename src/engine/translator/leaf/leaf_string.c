/*
 * MOVS, STOS, LODS, SCAS and CMPS by the host's own string instructions, as
 * many elements at once as lie in one page of each operand. The element size
 * and direction stay the guest's, so overlapping operands come out exact.
 *
 * Registers move with every such run; a page that leaf_host() does not give
 * (not in the TLB, MMIO, code), an element across a page and everything
 * unusual (single step, alignment checks, odd segments) is left to string.c.
 */
#include "engine/translator/leaf/leaf.h"
#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/rare.h"

enum {
	LEAF_STRING_PAGE = 4096,
	LEAF_STRING_BUDGET = 64 * 1024, /* bytes, then the caller polls for interrupts */
};

struct leaf_string {
	struct vcpu *v;
	u64 mask; /* of addresses and the count */
	u64 count;
	unsigned size, addrsize;
	enum cpu_segment source_seg;
	bool down; /* RFLAGS.DF */
	bool rep, repne;
	u8 kind; /* opcode without its width bit */
};

enum { LEAF_MOVS = 0xa4, LEAF_CMPS = 0xa6, LEAF_STOS = 0xaa, LEAF_LODS = 0xac, LEAF_SCAS = 0xae };

/* Runs OP (a string instruction without its size suffix) at SIZE bytes an element; ARGS are the
 * asm operands. The host's DF is set only inside. */
#define LEAF_STRING_ASM(s, before, op, after, ...)                                                 \
	do {                                                                                       \
		if ((s)->size == 1)                                                                \
			__asm__ volatile(before op "b\n\t" after __VA_ARGS__);                     \
		else if ((s)->size == 2)                                                           \
			__asm__ volatile(before op "w\n\t" after __VA_ARGS__);                     \
		else if ((s)->size == 4)                                                           \
			__asm__ volatile(before op "l\n\t" after __VA_ARGS__);                     \
		else                                                                               \
			__asm__ volatile(before op "q\n\t" after __VA_ARGS__);                     \
	} while (0)

#define LEAF_STRING_EITHER_WAY(s, op, ...)                                                         \
	do {                                                                                       \
		if ((s)->down)                                                                     \
			LEAF_STRING_ASM(s, "std\n\t", op, "cld", __VA_ARGS__);                     \
		else                                                                               \
			LEAF_STRING_ASM(s, "", op, "", __VA_ARGS__);                               \
	} while (0)

static u64
leaf_string_min(u64 a, u64 b)
{
	return a < b ? a : b;
}

/* May the segment be used without a look at more than its limit? */
static bool
leaf_string_segment_plain(const struct segment *seg, bool write)
{
	bool code = seg->attr & 8, expand_down = !code && (seg->attr & 4);

	if (!(seg->attr & SEGMENT_P) || expand_down)
		return false;
	if (write)
		return !code && (seg->attr & 2);
	return !code || (seg->attr & 2);
}

/* Elements from OFFSET on before the offset wraps or the segment ends; 0 if string.c must look. */
static u64
leaf_string_room(const struct leaf_string *s, enum cpu_segment which, u64 offset, bool write,
		 u64 *linear)
{
	const struct segment *seg = &s->v->seg[which];
	u64 room = (s->down ? offset : s->mask - offset) / s->size;

	if (vcpu_64bit(s->v)) {
		*linear = offset + (which == CPU_FS || which == CPU_GS ? seg->base : 0);
		return room;
	}
	if (!leaf_string_segment_plain(seg, write) || offset + s->size - 1 > seg->limit)
		return 0;
	*linear = (u32)(seg->base + offset);
	if (!s->down)
		room = leaf_string_min(room, ((u64)seg->limit - offset + 1) / s->size);
	return room;
}

/* Elements from LINEAR on that lie wholly in its page. */
static u64
leaf_string_in_page(const struct leaf_string *s, u64 linear)
{
	unsigned at = linear & (LEAF_STRING_PAGE - 1);

	if (at + s->size > LEAF_STRING_PAGE)
		return 0;
	return s->down ? at / s->size + 1 : (LEAF_STRING_PAGE - at) / s->size;
}

/* One operand: how many elements can be done at once, at most *N. */
static bool
leaf_string_limit(const struct leaf_string *s, enum cpu_segment seg, unsigned reg, bool write,
		  u64 *linear, u64 *n)
{
	u64 room = leaf_string_room(s, seg, s->v->gpr[reg] & s->mask, write, linear);

	if (room == 0)
		return false;
	*n = leaf_string_min(*n, leaf_string_min(room, leaf_string_in_page(s, *linear)));
	return *n != 0;
}

/* Host address of the first of N elements. */
static u8 *
leaf_string_host(const struct leaf_string *s, u64 linear, u64 n, bool write)
{
	u64 before = s->down ? (n - 1) * s->size : 0;
	u8 *host = leaf_host(s->v, linear - before, (unsigned)(n * s->size), write);

	return host ? host + before : NULL;
}

static void
leaf_string_set(struct vcpu *v, unsigned reg, unsigned addrsize, u64 value)
{
	if (addrsize == 2)
		value = (v->gpr[reg] & ~0xffffull) | (value & 0xffff);
	else if (addrsize == 4)
		value = (u32)value;
	v->gpr[reg] = value;
}

static void
leaf_string_advance(const struct leaf_string *s, unsigned reg, u64 n)
{
	u64 bytes = n * s->size;

	leaf_string_set(s->v, reg, s->addrsize, s->v->gpr[reg] + (s->down ? 0 - bytes : bytes));
}

/* SF ZF AF PF CF as LAHF gives them in AH, OF from SETO in AL. */
static void
leaf_string_flags(struct vcpu *v, u64 rax)
{
	u64 mask = RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF | RFLAGS_CF;
	u64 flags = (rax >> 8) & mask;

	if (rax & 1)
		flags |= RFLAGS_OF;
	v->rflags = (v->rflags & ~(mask | RFLAGS_OF)) | flags;
}

static void
leaf_string_move(const struct leaf_string *s, u8 *to, u8 *from, u64 n)
{
	LEAF_STRING_EITHER_WAY(s, "rep movs", : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void
leaf_string_fill(const struct leaf_string *s, u8 *to, u64 n)
{
	LEAF_STRING_EITHER_WAY(s, "rep stos",
			       : "+D"(to), "+c"(n)
			       : "a"(s->v->gpr[CPU_RAX])
			       : "memory");
}

/* Only the last of N loads is seen. */
static void
leaf_string_load(const struct leaf_string *s, const u8 *from, u64 n)
{
	u64 rax = s->v->gpr[CPU_RAX];

	from += s->down ? 0 - (n - 1) * s->size : (n - 1) * s->size;
	LEAF_STRING_ASM(s, "", "lods", "", : "+a"(rax), "+S"(from) : : "memory");
	s->v->gpr[CPU_RAX] = rax;
}

/* Both compare until the condition ends it; they return how many elements were looked at. */
static u64
leaf_string_compare(const struct leaf_string *s, u8 *a, u8 *b, u64 n)
{
	u64 left = n, rax = 0;

	if (s->repne)
		LEAF_STRING_EITHER_WAY(s, "repne cmps", "\n\tlahf\n\tseto %%al"
				       : "+S"(a), "+D"(b), "+c"(left), "+a"(rax)
				       :
				       : "memory", "cc");
	else
		LEAF_STRING_EITHER_WAY(s, "repe cmps", "\n\tlahf\n\tseto %%al"
				       : "+S"(a), "+D"(b), "+c"(left), "+a"(rax)
				       :
				       : "memory", "cc");
	leaf_string_flags(s->v, rax);
	return n - left;
}

static u64
leaf_string_scan(const struct leaf_string *s, u8 *at, u64 n)
{
	u64 left = n, rax = s->v->gpr[CPU_RAX];

	if (s->repne)
		LEAF_STRING_EITHER_WAY(s, "repne scas", "\n\tlahf\n\tseto %%al"
				       : "+D"(at), "+c"(left), "+a"(rax)
				       :
				       : "memory", "cc");
	else
		LEAF_STRING_EITHER_WAY(s, "repe scas", "\n\tlahf\n\tseto %%al"
				       : "+D"(at), "+c"(left), "+a"(rax)
				       :
				       : "memory", "cc");
	leaf_string_flags(s->v, rax);
	return n - left;
}

/* Host addresses of what the instruction accesses, for up to *N elements. */
static bool
leaf_string_operands(const struct leaf_string *s, u8 **from, u8 **to, u64 *n)
{
	bool source = s->kind == LEAF_MOVS || s->kind == LEAF_CMPS || s->kind == LEAF_LODS;
	bool dest = s->kind != LEAF_LODS;
	bool write = s->kind == LEAF_MOVS || s->kind == LEAF_STOS;
	u64 source_linear = 0, dest_linear = 0;

	if (source && !leaf_string_limit(s, s->source_seg, CPU_RSI, false, &source_linear, n))
		return false;
	if (dest && !leaf_string_limit(s, CPU_ES, CPU_RDI, write, &dest_linear, n))
		return false;
	*from = source ? leaf_string_host(s, source_linear, *n, false) : NULL;
	*to = dest ? leaf_string_host(s, dest_linear, *n, write) : NULL;
	return (*from || !source) && (*to || !dest);
}

/* Up to COUNT elements within one page of each operand: how many were done, 0 if none can be. */
static u64
leaf_string_run(const struct leaf_string *s)
{
	u8 *from = NULL, *to = NULL;
	u64 n = s->count;

	if (!leaf_string_operands(s, &from, &to, &n))
		return 0;
	if (s->kind == LEAF_MOVS)
		leaf_string_move(s, to, from, n);
	else if (s->kind == LEAF_STOS)
		leaf_string_fill(s, to, n);
	else if (s->kind == LEAF_LODS)
		leaf_string_load(s, from, n);
	else if (s->kind == LEAF_CMPS)
		n = leaf_string_compare(s, from, to, n);
	else
		n = leaf_string_scan(s, to, n);
	if (from)
		leaf_string_advance(s, CPU_RSI, n);
	if (to)
		leaf_string_advance(s, CPU_RDI, n);
	return n;
}

static bool
leaf_string_ended(const struct leaf_string *s)
{
	bool zero = s->v->rflags & RFLAGS_ZF;

	if (s->count == 0)
		return true;
	if (s->kind != LEAF_CMPS && s->kind != LEAF_SCAS)
		return false;
	return s->repne ? zero : !zero;
}

static int
leaf_string_repeat(struct leaf_string *s)
{
	u64 bytes = 0;

	for (;;) {
		u64 n = leaf_string_run(s);

		if (n == 0)
			return bytes ? LEAF_AGAIN : LEAF_SLOW;
		bytes += n * s->size;
		s->count -= n;
		if (s->rep)
			leaf_string_set(s->v, CPU_RCX, s->addrsize, s->count);
		if (leaf_string_ended(s))
			return LEAF_DONE;
		if (bytes >= LEAF_STRING_BUDGET)
			return LEAF_AGAIN;
	}
}

/* Cases that only string.c gets right. */
static bool
leaf_string_unusual(const struct vcpu *v)
{
	bool alignment = v->cpl == 3 && (v->rflags & RFLAGS_AC) && (v->cr0 & CR0_AM);

	return v->replay.count || (v->rflags & RFLAGS_TF) || (v->dr7 & 0xff) || alignment;
}

int
leaf_string(struct vcpu *v, const struct insn *in)
{
	struct leaf_string s = {
		.v = v,
		.mask = in->addrsize == 8 ? UINT64_MAX : (1ull << (in->addrsize * 8)) - 1,
		.count = 1,
		.size = in->opcode & 1 ? in->opsize : 1,
		.addrsize = in->addrsize,
		.source_seg = in->prefixes & INSN_SEG ? (enum cpu_segment)in->seg : CPU_DS,
		.down = v->rflags & RFLAGS_DF,
		.rep = in->prefixes & (INSN_REP | INSN_REPNE),
		.repne = in->prefixes & INSN_REPNE,
		.kind = in->opcode & 0xfe,
	};

	if (leaf_string_unusual(v))
		return LEAF_SLOW;
	if (s.rep)
		s.count = v->gpr[CPU_RCX] & s.mask;
	return s.count == 0 ? LEAF_DONE : leaf_string_repeat(&s);
}
