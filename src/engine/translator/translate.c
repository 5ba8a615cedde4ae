/*
 * From guest code to a block: decode up to a branch that always leaves, the end
 * of the page or of the table; see backwards which flags are live; generate;
 * register. Conditional branches leave the block sideways.
 */
#include <errno.h>
#include <string.h>

#include "engine/translator/build.h"
#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/pages.h"
#include "engine/translator/stub.h"
#include "engine/translator/system.h"

static unsigned
translate_width(u32 mode)
{
	return (mode & MODE_CODE64) ? 64 : (mode & MODE_CODE32) ? 32 : 16;
}

static int
translate_ud(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return vcpu_raise(v, VECTOR_UD);
}

static int
translate_too_long(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return vcpu_raise_code(v, VECTOR_GP, 0);
}

/* Bytes at page offset AT: inside the page, or with the next one for the first instruction. */
static unsigned
translate_fetch(struct build *b, u64 at, u8 *bytes)
{
	const u8 *ram = b->v->engine->ram;
	u64 page = align_down(b->ram, MEMORY_PAGE), here = MEMORY_PAGE - at, next;
	unsigned n = here < INSN_MAX ? (unsigned)here : (unsigned)INSN_MAX;

	memcpy(bytes, ram + page + at, n);
	if (n == INSN_MAX || b->count > 0)
		return n;
	next = b->ram2;
	if (next == UINT64_MAX)
		return n;
	memcpy(bytes + n, ram + next, INSN_MAX - n);
	return INSN_MAX;
}

static void
translate_invalid(struct build_insn *bi, helper_fn *fn)
{
	bi->kind = BUILD_HELPER;
	bi->fn = fn;
	if (bi->in.len == 0)
		bi->in.len = 1;
}

static int
translate_decode_insn(const struct build *b, struct insn *in, const u8 *bytes, unsigned n)
{
	const struct cpu_model *model = b->v->model;
	unsigned width = translate_width(b->mode);
	int error = insn_decode(in, bytes, n, width);

	if (error)
		return error;
	if (in->map != 1 || in->mandatory != 0xf3)
		return 0;
	if ((in->opcode == 0xbc && !cpu_model_has(model, 7, 0, 1, 3)) ||	/* TZCNT */
	    (in->opcode == 0xbd && !cpu_model_has(model, 0x80000001, 0, 2, 5))) /* LZCNT */
		return insn_decode_bit_scan(in, bytes, n, width);
	return 0;
}

/* One more instruction; false if it does not fit here any more. */
static bool
translate_decode_one(struct build *b, u64 at)
{
	struct build_insn *bi = &b->insn[b->count];
	u8 bytes[INSN_MAX];
	unsigned n = translate_fetch(b, at, bytes);
	int error = translate_decode_insn(b, &bi->in, bytes, n);

	bi->at = (u16)at;
	bi->leaf = NULL;
	bi->fn = NULL;
	if (error == -ENODATA && n < INSN_MAX && b->count > 0)
		return false;
	if (error)
		translate_invalid(bi, error == -E2BIG || (n == INSN_MAX && error == -ENODATA)
					      ? translate_too_long
					      : translate_ud);
	else
		classify(b, bi);
	b->count++;
	return true;
}

static void
translate_decode(struct build *b)
{
	u64 at = b->ram & (MEMORY_PAGE - 1);
	unsigned most = (b->mode & MODE_SINGLE) ? 1 : BUILD_INSNS;

	while (b->count < most && at < MEMORY_PAGE) {
		const struct build_insn *bi = &b->insn[b->count];

		if (!translate_decode_one(b, at))
			return;
		at += bi->in.len;
		if (classify_ends_block(bi))
			return;
	}
}

/* The first instruction may reach into the next page, which must be there then. */
static int
translate_second_page(struct build *b)
{
	u64 at = b->ram & (MEMORY_PAGE - 1), next;
	struct insn in;
	unsigned n;

	b->ram2 = UINT64_MAX;
	if (at + INSN_MAX <= MEMORY_PAGE)
		return 0;
	n = (unsigned)(MEMORY_PAGE - at);
	if (insn_decode(&in, b->v->engine->ram + b->ram, n, translate_width(b->mode)) != -ENODATA)
		return 0;
	next = pages_fetch(b->v, align_down(b->linear, MEMORY_PAGE) + MEMORY_PAGE);
	if (next == UINT64_MAX)
		return HELPER_FAULT;
	b->ram2 = next;
	pages_protect(b->v, next);
	return 0;
}

static bool
translate_reads_all_flags(const struct build *b, const struct build_insn *bi)
{
	switch (bi->kind) {
	case BUILD_FAST:
		return fast_reads_flags(b, &bi->in);
	case BUILD_HELPER:
	case BUILD_LEAF:
	case BUILD_LEAF_END:
	case BUILD_JCC:
	case BUILD_LOOP:
		return true; /* the side exit needs them all */
	default:
		return classify_ends_block(bi);
	}
}

static void
translate_liveness(struct build *b)
{
	u32 live = RFLAGS_ARITH;

	for (unsigned i = b->count; i-- > 0;) {
		struct build_insn *bi = &b->insn[i];

		bi->live_after = live;
		if (translate_reads_all_flags(b, bi))
			live = RFLAGS_ARITH;
		else if (bi->kind == BUILD_NATIVE)
			live = (live & ~bi->in.flags_written) | bi->in.flags_read;
		bi->live = live;
	}
}

/* Room before the code for what the check of the second page compares with. */
static void
translate_crossing(struct build *b)
{
	b->crossing = NULL;
	if (b->ram2 == UINT64_MAX)
		return;
	b->e.at += align_up((u64)b->e.at, sizeof(u64)) - (u64)b->e.at;
	b->crossing = (struct crossing *)(void *)b->e.at;
	b->e.at += sizeof(*b->crossing);
	*b->crossing = (struct crossing){0};
	b->start = b->e.at;
}

/* A link or a jump cache leads here by the first page alone: is the second one still the
 * block's? If not known, the search looks. */
static void
translate_check_crossing(struct build *b)
{
	struct emit *e = &b->e;
	const u8 *known = (const u8 *)b->crossing + e->delta;
	u8 *other[2];

	emit_load_var(e, T0, &b->t->page_va);
	emit_alu_var(e, ALU_CMP, T0, known + offsetof(struct crossing, page_va));
	other[0] = emit_jcc(e, CC_NE, emit_rx(e));
	emit_load_var(e, T1, &b->t->jumps);
	emit_load(e, T1, T1, offsetof(struct jump_cache, epoch));
	emit_alu_var(e, ALU_CMP, T1, known + offsetof(struct crossing, epoch));
	other[1] = emit_jcc(e, CC_NE, emit_rx(e));
	b->other[0] = other[0];
	b->other[1] = other[1];
}

static void
translate_other_crossing(struct build *b)
{
	struct emit *e = &b->e;

	emit_patch(e, b->other[0], emit_rx(&b->cold));
	emit_patch(e, b->other[1], emit_rx(&b->cold));
	generate_switch(b);
	emit_lea(e, T0, T0, b->insn[0].at);
	emit_jmp(e, b->t->stub.jump);
	generate_switch(b);
}

static void
translate_generate(struct build *b)
{
	struct build_insn *last = &b->insn[b->count - 1];

	translate_crossing(b);
	/* Entered with flags in RFLAGS, they are saved first, unless nobody needs them. */
	if (b->insn[0].live)
		stub_save_flags(b->t, &b->e);
	b->entry = emit_rx(&b->e);
	b->flags = b->insn[0].live ? FLAGS_M : 0;
	if (b->crossing)
		translate_check_crossing(b);
	for (unsigned i = 0; i < b->count; i++)
		flow_generate(b, &b->insn[i]);
	if (!classify_ends_block(last)) {
		struct build_exit x = {.target = (i64)last->at + last->in.len,
				       .at = last->at,
				       .flags = b->flags,
				       .truncate = (b->mode & MODE_CODE64) ? 0 : 4};

		flow_exit(b, &x);
	}
	flow_exits(b);
	generate_slow_paths(b);
	if (b->crossing)
		translate_other_crossing(b);
}

static struct block *
translate_register(struct build *b)
{
	struct translation *t = b->t;
	struct block *block = block_alloc(t, sizeof(*block));
	struct site *sites = block_alloc(t, b->site_count * sizeof(*sites));
	u16 *insn_at = block_alloc(t, (b->count + 1) * sizeof(*insn_at));
	const struct build_insn *last = &b->insn[b->count - 1];
	u16 first = b->insn[0].at;

	if (!block || !sites || !insn_at)
		return NULL;
	memcpy(sites, b->site, b->site_count * sizeof(*sites));
	for (unsigned i = 0; i < b->count; i++)
		insn_at[i] = (u16)(b->insn[i].at - first);
	insn_at[b->count] = (u16)(last->at + last->in.len - first);
	block->ram = b->ram;
	block->ram2 = b->ram2;
	block->mode = b->mode;
	block->guest = first;
	block->guest_len = insn_at[b->count];
	block->insns = (u8)b->count;
	block->site_count = (u16)b->site_count;
	block->sites = sites;
	block->insn_at = insn_at;
	block->code = b->start;
	block->code_len = (u32)(b->e.at - b->start);
	block->cold = b->cold_start;
	block->cold_len = (u32)(b->cold.at - b->cold_start);
	block->entry = b->entry;
	block->crossing = b->crossing;
	block->entry_r = b->start + b->e.delta;
	t->code_used = (size_t)align_up((u64)(b->e.at - t->code_rw), 16);
	t->cold_used = (size_t)(b->cold.at - t->code_rw);
	return block_add(b->v, block) ? block : NULL;
}

static bool
translate_room(const struct translation *t)
{
	return t->code_used + BUILD_CODE_MAX < t->cold_start &&
	       t->cold_used + BUILD_CODE_MAX < t->code_size &&
	       t->arena_used + 16384 < t->arena_size && t->block_count < t->block_max;
}

/* The shadow of an STI at the end reaches into the next block: the run loop keeps it. */
static void
translate_last_sti(struct build *b)
{
	struct build_insn *last = &b->insn[b->count - 1];

	if ((last->kind == BUILD_LEAF || last->kind == BUILD_FAST) && last->in.map == 0 &&
	    last->in.opcode == 0xfb) {
		last->kind = BUILD_HELPER;
		last->leaf = NULL;
	}
}

struct block *
translate(struct vcpu *v, u64 linear)
{
	struct translation *t = vcpu_translation(v);
	struct build b;
	struct block *block;

	b.ram = pages_fetch(v, linear);
	if (b.ram == UINT64_MAX)
		return NULL;
	b.v = v;
	b.t = t;
	b.mode = t->mode;
	b.linear = linear;
	b.count = b.access_count = b.exit_count = b.site_count = 0;
	b.full = b.at_stack = false;
	do {
		if (!translate_room(t))
			block_flush(v);
		pages_protect(v, b.ram);
		if (translate_second_page(&b) != 0)
			return NULL;
		/* Mail read meanwhile may have taken a mark, or the room. */
	} while (!translate_room(t) || !pages_protected(v, b.ram) ||
		 (b.ram2 != UINT64_MAX && !pages_protected(v, b.ram2)));
	translate_decode(&b);
	translate_last_sti(&b);
	translate_liveness(&b);
	b.start = t->code_rw + t->code_used;
	b.e = (struct emit){b.start, t->code_rw + t->cold_start, t->code_rx - t->code_rw};
	b.cold_start = t->code_rw + t->cold_used;
	b.cold = (struct emit){b.cold_start, t->code_rw + t->code_size, b.e.delta};
	b.in_cold = false;
	translate_generate(&b);
	if (b.full)
		return NULL;
	block = translate_register(&b);
	t->count.translated += b.count;
	return block;
}
