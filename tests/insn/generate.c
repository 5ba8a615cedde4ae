/*
 * Makes a case of a form: random registers, addressing and immediates in the
 * bytes, then register values by which each memory operand falls where it is
 * wanted (middle of a page, misaligned, at its end, across two pages, into an
 * absent or read-only one), and branch targets inside the slot.
 */
#include <string.h>

#include "cpu/cpu_state.h"
#include "zydis.h"

enum { ENTRY_MAX = 96, ATTEMPTS = 300 };

struct builder {
	struct insn_case *c;
	const struct form *form;
	struct rng rng;
	struct decoded d;
	u8 bytes[32];
	u16 fixed; /* general registers whose value is settled */
	u64 fs_base;
	u64 target; /* of the first memory operand */
	bool has_target;
};

/* Where the bare side's FS points: set once by main. */
static u64 generate_fs_base;

void
generate_set_fs_base(u64 base)
{
	generate_fs_base = base;
}

/*
 * Bytes
 */

static unsigned
build_prefixes(struct builder *b, unsigned n)
{
	static const u8 segments[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};

	if (rng_percent(&b->rng, 8))
		b->bytes[n++] = segments[rng_below(&b->rng, b->form->mode == 64 ? 6 : 4)];
	if (b->form->mode == 64 && rng_percent(&b->rng, 6))
		b->bytes[n++] = 0x67;
	if (b->form->mem && !b->form->vex && rng_percent(&b->rng, 10))
		b->bytes[n++] = 0xf0;
	return n;
}

/*
 * Outside 64-bit mode a CPU ignores VEX.B and the top bit of vvvv, and W wherever it would only
 * widen a general register or memory of its width: set them as in a register above 7 and 64 bits,
 * which a translator that keeps them would use. Where W means another form, or a clear bit of vvvv
 * an operand that is not there, decoding drops the attempt.
 */
static void
build_ignored(struct builder *b, u8 *b_bit, u8 *vvvv, bool *w)
{
	if (b->form->mode == 64 || rng_percent(&b->rng, 40))
		return;
	if (rng_percent(&b->rng, 70))
		*w = true;
	if (rng_percent(&b->rng, 50))
		*b_bit &= (u8)~0x20;
	if (rng_percent(&b->rng, 50))
		*vvvv &= (u8)~0x40;
}

static unsigned
build_vex(struct builder *b, unsigned n, bool keep)
{
	const struct form *f = b->form;
	u8 rxb = f->mode == 64 ? (u8)(rng_next(&b->rng) & 0xe0) : 0xe0;
	u8 vvvv = (u8)(rng_next(&b->rng) & 0x78);
	bool w = f->w;

	if (keep)
		vvvv = 0x78; /* no register: what most forms with fewer operands ask */
	if (f->mode != 64)
		vvvv |= 0x40;
	build_ignored(b, &rxb, &vvvv, &w);
	if (f->map == 1 && !w && (rxb & 0x60) == 0x60 && (f->mode == 64 || vvvv & 0x40) &&
	    rng_percent(&b->rng, 50)) {
		b->bytes[n++] = 0xc5;
		b->bytes[n++] = (u8)((rxb & 0x80) | vvvv | f->l << 2 | f->pp);
		return n;
	}
	b->bytes[n++] = 0xc4;
	b->bytes[n++] = rxb | f->map;
	b->bytes[n++] = (u8)(w << 7 | vvvv | f->l << 2 | f->pp);
	return n;
}

static unsigned
build_legacy(struct builder *b, unsigned n)
{
	const struct form *f = b->form;
	u8 rex = f->mode == 64 && rng_percent(&b->rng, 60) ? (u8)(0x40 | (rng_next(&b->rng) & 7))
							   : 0;

	if (f->prefix)
		b->bytes[n++] = f->prefix;
	if (f->second)
		b->bytes[n++] = f->second;
	if (f->w)
		rex |= 0x48;
	if (rex)
		b->bytes[n++] = rex;
	if (f->map)
		b->bytes[n++] = 0x0f;
	if (f->map > 1)
		b->bytes[n++] = f->map == 2 ? 0x38 : 0x3a;
	return n;
}

static u8
build_modrm(struct builder *b, bool keep)
{
	u8 random = (u8)rng_next(&b->rng), fixed = b->form->modrm_byte;

	if (!b->form->mem)
		return keep ? fixed : (u8)(0xc0 | random);
	if (keep)
		random = (u8)((random & ~0x38) | (fixed & 0x38));
	if ((random & 0xc0) == 0xc0)
		random &= 0x7f;
	if ((fixed & 7) == 4 && keep)
		random = (u8)((random & ~7) | 4);
	return random;
}

static void
build_bytes(struct builder *b, bool keep)
{
	unsigned n = build_prefixes(b, 0);

	n = b->form->vex ? build_vex(b, n, keep && rng_percent(&b->rng, 50)) : build_legacy(b, n);
	b->bytes[n++] = b->form->opcode;
	if (b->form->modrm)
		b->bytes[n++] = build_modrm(b, keep);
	while (n < sizeof(b->bytes))
		b->bytes[n++] = (u8)rng_next(&b->rng);
}

static bool
build_decode(struct builder *b)
{
	return form_decode(b->form->mode, b->bytes, 15, &b->d) &&
	       form_signature(&b->d) == b->form->signature;
}

/*
 * Operands
 */

static u64
pick_target(struct builder *b, unsigned size)
{
	static const unsigned edges[] = {1, 2, 2, 3, 3, 4, 5, 5, 6, 7, 7};
	static const unsigned ends[] = {3, 5, 7};
	unsigned kind = rng_below(&b->rng, 20);
	u64 page = CASE_DATA + (1 + rng_below(&b->rng, 2)) * (u64)CASE_PAGE;

	if (size == 0)
		size = 1;
	if (kind < 8) /* aligned */
		return page + 1024 + (rng_below(&b->rng, 1024) & ~63u);
	if (kind < 10) /* ends with its page: a byte more would fault */
		return CASE_DATA + ends[rng_below(&b->rng, ARRAY_LEN(ends))] * (u64)CASE_PAGE -
		       size;
	if (kind < 14)
		return page + 1024 + rng_below(&b->rng, 1024);
	if (kind < 18 && size > 1) /* across an edge between pages */
		return CASE_DATA + edges[rng_below(&b->rng, ARRAY_LEN(edges))] * (u64)CASE_PAGE -
		       1 - rng_below(&b->rng, size - 1);
	if (kind == 18)
		return CASE_DATA + 5 * (u64)CASE_PAGE + 256 + (rng_below(&b->rng, 2048) & ~15u);
	if (kind == 19)
		return CASE_DATA + 3 * (u64)CASE_PAGE + 256 + (rng_below(&b->rng, 2048) & ~15u);
	return page + 2048 + rng_below(&b->rng, 256);
}

static int
gpr_number(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return ZydisRegisterGetId(reg);
	case ZYDIS_REGCLASS_GPR8:
		if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
			return (int)(reg - ZYDIS_REGISTER_AH);
		return reg <= ZYDIS_REGISTER_BL ? (int)(reg - ZYDIS_REGISTER_AL)
						: (int)(reg - ZYDIS_REGISTER_SPL) + 4;
	default:
		return -1;
	}
}

/* The stack ignores an address-size prefix. */
static bool
is_stack_operand(const ZydisDecodedOperand *op)
{
	return op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
	       (op->mem.base == ZYDIS_REGISTER_RSP || op->mem.base == ZYDIS_REGISTER_RBP);
}

static u64
address_mask(const struct builder *b)
{
	return b->d.insn.address_width == 64 ? UINT64_MAX : (1ull << b->d.insn.address_width) - 1;
}

/* Sets the low bits that count; what is above in 64-bit mode stays random. */
static void
settle(struct builder *b, int reg, u64 value)
{
	u64 mask = address_mask(b);

	b->c->gpr[reg] = (b->c->gpr[reg] & ~mask) | (value & mask);
	b->fixed |= (u16)BIT(reg);
}

static void
patch(struct builder *b, unsigned offset, unsigned bits, u64 value)
{
	memcpy(b->bytes + offset, &value, bits / 8);
}

static u64
code_address(const struct builder *b)
{
	return case_slot_address(b->c->slot) + b->c->entry;
}

static u64
segment_base(const struct builder *b, const ZydisDecodedOperand *op)
{
	if (op->mem.segment == ZYDIS_REGISTER_FS)
		return generate_fs_base;
	return op->mem.segment == ZYDIS_REGISTER_GS && b->form->mode == 64 ? CASE_GS_BASE : 0;
}

/* x * (1 + scale) = sum for a base that is also the index; WANT may move by a byte. */
static void
solve_same(struct builder *b, int reg, unsigned scale, u64 sum)
{
	u64 factor = 1 + scale, inverse = factor;

	if (scale == 1) {
		settle(b, reg, sum >> 1);
		return;
	}
	for (int i = 0; i < 6; i++)
		inverse *= 2 - factor * inverse; /* Newton, modulo 2^64 */
	settle(b, reg, sum * inverse);
}

static void
solve_displacement(struct builder *b, u64 value)
{
	patch(b, b->d.insn.raw.disp.offset, b->d.insn.raw.disp.size, value);
}

/* Elements of a gather spread a little around the base. */
static void
solve_vector_index(struct builder *b, ZydisRegister reg)
{
	unsigned n = (unsigned)ZydisRegisterGetId(reg);
	bool quad = b->form->opcode & 1;

	for (unsigned i = 0; i < 32; i += quad ? 8 : 4) {
		i64 index = (i64)rng_below(&b->rng, 200) - 60;
		u8 *half = b->c->xsave + (i < 16 ? 160 : 576) + 16 * n;

		memcpy(half + i % 16, &index, quad ? 8 : 4);
	}
}

/* AL is part of XLAT's address; BT's bit offset of its own. */
static u64
index_value(struct builder *b, const ZydisDecodedOperand *op, int index)
{
	if (op->mem.index == ZYDIS_REGISTER_AL)
		return b->c->gpr[index] & 0xff;
	if (!(b->fixed & BIT(index)) && rng_percent(&b->rng, 60))
		settle(b, index, rng_below(&b->rng, 4096));
	b->fixed |= (u16)BIT(index);
	return b->c->gpr[index] & address_mask(b);
}

/* Makes operand OP's offset be WANT, if what is still free allows it. */
static bool
solve_operand(struct builder *b, const ZydisDecodedOperand *op, u64 want)
{
	int base = gpr_number(op->mem.base), index = gpr_number(op->mem.index);
	unsigned scale = op->mem.scale;

	if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
		solve_vector_index(b, op->mem.index);
		index = -1;
	}
	if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
		solve_displacement(b, want - code_address(b) - b->d.insn.length);
		return true;
	}
	if (base < 0 && index < 0) {
		if (op->mem.disp.has_displacement)
			solve_displacement(b, want);
		return true;
	}
	want -= (u64)op->mem.disp.value;
	if (base >= 0 && base == index && op->mem.index != ZYDIS_REGISTER_AL) {
		if (!(b->fixed & BIT(base)))
			solve_same(b, base, scale, want);
		return true;
	}
	if (base < 0) {
		if (!(b->fixed & BIT(index)))
			settle(b, index, want / scale);
		return true;
	}
	if (b->fixed & BIT(base))
		return true;
	if (is_stack_operand(op)) {
		b->c->gpr[base] = want;
		b->fixed |= (u16)BIT(base);
		return true;
	}
	if (index >= 0)
		want -= index_value(b, op, index) *
			(op->mem.index == ZYDIS_REGISTER_AL ? 1 : scale);
	settle(b, base, want);
	return true;
}

/* Where the operand now lies, by the registers as they are. */
static u64
operand_address(const struct builder *b, const ZydisDecodedOperand *op)
{
	int base = gpr_number(op->mem.base), index = gpr_number(op->mem.index);
	u64 sum = (u64)op->mem.disp.value;

	if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP)
		sum += code_address(b) + b->d.insn.length;
	else if (base >= 0)
		sum += b->c->gpr[base];
	if (op->mem.index == ZYDIS_REGISTER_AL)
		sum += b->c->gpr[0] & 0xff;
	else if (index >= 0 && op->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
		sum += b->c->gpr[index] * op->mem.scale;
	if (is_stack_operand(op))
		return sum;
	return (sum & address_mask(b)) + segment_base(b, op);
}

static bool
is_bit_string(u16 mnemonic)
{
	return mnemonic == ZYDIS_MNEMONIC_BT || mnemonic == ZYDIS_MNEMONIC_BTS ||
	       mnemonic == ZYDIS_MNEMONIC_BTR || mnemonic == ZYDIS_MNEMONIC_BTC;
}

static bool
is_xsave_area(const struct builder *b)
{
	return b->d.insn.meta.isa_ext == ZYDIS_ISA_EXT_XSAVE ||
	       b->d.insn.meta.isa_ext == ZYDIS_ISA_EXT_XSAVEC ||
	       b->d.insn.meta.isa_ext == ZYDIS_ISA_EXT_XSAVEOPT ||
	       b->d.insn.mnemonic == ZYDIS_MNEMONIC_FXSAVE ||
	       b->d.insn.mnemonic == ZYDIS_MNEMONIC_FXSAVE64 ||
	       b->d.insn.mnemonic == ZYDIS_MNEMONIC_FXRSTOR ||
	       b->d.insn.mnemonic == ZYDIS_MNEMONIC_FXRSTOR64;
}

static bool
solve_before(struct builder *b)
{
	const ZydisDecodedOperand *op = b->d.op;
	int reg;

	if (b->d.insn.attributes &
	    (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
		settle(b, CPU_RCX,
		       rng_percent(&b->rng, 10) ? rng_below(&b->rng, 2000)
						: rng_below(&b->rng, 24));
	if (is_bit_string(b->form->mnemonic) && b->form->mem &&
	    op[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
		reg = gpr_number(op[1].reg.value);
		if (reg == gpr_number(op[0].mem.base) || reg == gpr_number(op[0].mem.index))
			return false; /* it would stray */
		b->c->gpr[reg] = (u64)((i64)rng_below(&b->rng, 4000) - 2000);
		b->fixed |= (u16)BIT(reg);
	}
	if (is_xsave_area(b)) {
		b->c->gpr[CPU_RAX] = rng_below(&b->rng, 8);
		b->c->gpr[CPU_RDX] = 0;
		b->fixed |= BIT(CPU_RAX) | BIT(CPU_RDX);
	}
	return true;
}

static bool
solve_memory(struct builder *b)
{
	for (unsigned i = 0; i < b->d.insn.operand_count; i++) {
		const ZydisDecodedOperand *op = &b->d.op[i];
		u64 want;

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (segment_base(b, op) > UINT32_MAX && b->d.insn.address_width != 64)
			return false;
		want = pick_target(b, op->size / 8);
		if (is_xsave_area(b) && rng_percent(&b->rng, 60))
			want = CASE_DATA + CASE_PAGE + (rng_below(&b->rng, 0x1000) & ~63u);
		if (!solve_operand(b, op, want - segment_base(b, op)))
			return false;
	}
	return true;
}

/* Once all registers and bytes stand: where the first operand lies, for the overlay. */
static bool
find_target(struct builder *b)
{
	if (!form_decode(b->form->mode, b->bytes, 15, &b->d))
		return false;
	for (unsigned i = 0; i < b->d.insn.operand_count && !b->has_target; i++) {
		const ZydisDecodedOperand *op = &b->d.op[i];

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			continue;
		b->target = operand_address(b, op);
		b->has_target = true;
	}
	return true;
}

/*
 * Contents
 */

static u64
branch_target(struct builder *b)
{
	unsigned before = rng_below(&b->rng, ENTRY_MAX);
	unsigned end = b->c->entry + b->d.insn.length;

	if (before < b->c->entry && rng_percent(&b->rng, 40))
		return case_slot_address(b->c->slot) + before;
	return case_slot_address(b->c->slot) + end + rng_below(&b->rng, 100);
}

static bool
is_branch(const struct builder *b)
{
	return b->d.insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE ||
	       b->d.insn.meta.category == ZYDIS_CATEGORY_RET;
}

static void
fill_branch(struct builder *b)
{
	u64 target = branch_target(b);
	const ZydisDecodedOperand *op = &b->d.op[0];

	for (int i = 0; i < 2; i++)
		if (b->d.insn.raw.imm[i].is_relative && b->d.insn.raw.imm[i].size)
			patch(b, b->d.insn.raw.imm[i].offset, b->d.insn.raw.imm[i].size,
			      target - code_address(b) - b->d.insn.length);
	if (op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    op->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT && gpr_number(op->reg.value) >= 0 &&
	    rng_percent(&b->rng, 95))
		b->c->gpr[gpr_number(op->reg.value)] = target;
	if (rng_percent(&b->rng, 95))
		memcpy(b->c->overlay, &target, 8);
}

/* A header that XRSTOR takes, mostly. */
static void
fill_xsave_area(struct builder *b)
{
	u64 header[8] = {rng_below(&b->rng, 8)};
	u32 mxcsr = 0x1f80 | (rng_next(&b->rng) & 0xe07f);

	if (rng_percent(&b->rng, 30)) {
		header[1] = (1ull << 63) | header[0] | rng_below(&b->rng, 8);
	}
	if (rng_percent(&b->rng, 10))
		header[rng_below(&b->rng, 8)] = rng_value(&b->rng);
	if (rng_percent(&b->rng, 10))
		mxcsr = (u32)rng_value(&b->rng);
	memcpy(b->c->overlay + 24, &mxcsr, 4);
	memcpy(b->c->overlay + 512, header, sizeof(header));
	memset(b->c->overlay + 8, 0, 16);
}

static void
fill_contents(struct builder *b)
{
	u64 flags;

	if (is_branch(b))
		fill_branch(b);
	switch (b->form->mnemonic) {
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		/* No single step, no alignment checks, nothing that a signal's return keeps. */
		flags = rng_next(&b->rng) & (RFLAGS_ARITH | RFLAGS_DF | RFLAGS_IF | RFLAGS_IOPL);
		memcpy(b->c->overlay, &flags, 8);
		break;
	case ZYDIS_MNEMONIC_CMPXCHG:
	case ZYDIS_MNEMONIC_CMPXCHG8B:
	case ZYDIS_MNEMONIC_CMPXCHG16B:
		if (rng_percent(&b->rng, 50) || (b->fixed & (BIT(CPU_RAX) | BIT(CPU_RDX))))
			break;
		b->c->gpr[CPU_RAX] = 0;
		memcpy(&b->c->gpr[CPU_RAX], b->c->overlay,
		       b->form->mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B ? 4 : 8);
		if (b->form->mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B) {
			b->c->gpr[CPU_RDX] = 0;
			memcpy(&b->c->gpr[CPU_RDX], b->c->overlay + 4, 4);
		} else if (b->form->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B) {
			memcpy(&b->c->gpr[CPU_RDX], b->c->overlay + 8, 8);
		}
		break;
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		if (rng_percent(&b->rng, 60) && !(b->fixed & BIT(CPU_RDX)))
			b->c->gpr[CPU_RDX] = 0;
		break;
	default:
		if (is_xsave_area(b))
			fill_xsave_area(b);
	}
}

/* Half of the string compares should meet equal bytes. */
static void
fill_strings(struct builder *b)
{
	if (b->d.insn.meta.category == ZYDIS_CATEGORY_STRINGOP && rng_percent(&b->rng, 60))
		memset(b->c->overlay, (int)(u8)b->c->gpr[CPU_RAX], rng_below(&b->rng, 64));
}

/* The overlay begins at the operand, or ends with the data area. */
static void
place_overlay(struct builder *b)
{
	u64 room;

	b->c->overlay_at = CASE_DATA;
	b->c->overlay_size = 0;
	if (!b->has_target || b->target < CASE_DATA || b->target >= CASE_DATA + CASE_DATA_SIZE)
		return;
	room = CASE_DATA + CASE_DATA_SIZE - b->target;
	b->c->overlay_at = b->target;
	b->c->overlay_size = room < CASE_OVERLAY ? (unsigned)room : CASE_OVERLAY;
	if (!is_xsave_area(b) && b->c->overlay_size > 128)
		b->c->overlay_size = 128;
}

/* Areas of many fields: which of them is touched first is each CPU's own. */
static bool
has_many_parts(const struct builder *b)
{
	switch (b->form->mnemonic) {
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSAVE:
		return true;
	default:
		return is_xsave_area(b);
	}
}

/* Such an area may neither wrap nor stray. */
static bool
sane_area(const struct builder *b)
{
	if (!has_many_parts(b))
		return true;
	return b->target - CASE_DATA < CASE_DATA_SIZE;
}

static u32
undefined_flags(const struct builder *b)
{
	switch (b->form->mnemonic) {
	case ZYDIS_MNEMONIC_AAA:
	case ZYDIS_MNEMONIC_AAS:
		return RFLAGS_OF | RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF;
	case ZYDIS_MNEMONIC_AAM:
	case ZYDIS_MNEMONIC_AAD:
		return RFLAGS_OF | RFLAGS_AF | RFLAGS_CF;
	case ZYDIS_MNEMONIC_DAA:
	case ZYDIS_MNEMONIC_DAS:
		return RFLAGS_OF;
	default:
		return 0;
	}
}

/* Intel's CPUs ignore W of these in 32-bit code, as the translator does; AMD's refuse it. */
static unsigned
bare_w0(const struct builder *b)
{
	u16 mnemonic = b->form->mnemonic;

	if (b->form->mode == 64 || !b->d.insn.raw.vex.W ||
	    (mnemonic != ZYDIS_MNEMONIC_VPEXTRD && mnemonic != ZYDIS_MNEMONIC_VPINSRD))
		return 0;
	return b->c->entry + b->d.insn.raw.vex.offset + 2;
}

/* In 32-bit code the upper halves do not exist, nor do eight of the registers. */
static void
cut_to_mode(struct insn_case *c)
{
	if (c->mode == 64)
		return;
	for (int i = 0; i < 16; i++)
		c->gpr[i] = i < 8 ? (u32)c->gpr[i] : 0;
}

bool
generate_case(struct insn_case *c, const struct form *form, u64 seed)
{
	struct builder b = {.c = c, .form = form, .rng = {.s = seed}};
	unsigned tries = 0;

	memset(c, 0, sizeof(*c));
	c->seed = seed;
	c->mode = form->mode;
	c->slot = (unsigned)(rng_next(&b.rng) % CASE_SLOTS);
	c->entry = rng_below(&b.rng, ENTRY_MAX);
	if (c->slot % 8 == 7) /* these straddle a page: end it around the middle */
		c->entry = CASE_SLOT / 2 - rng_below(&b.rng, 16);
	rng_state(&b.rng, c);
	cut_to_mode(c);
	do {
		if (tries++ == ATTEMPTS)
			return false;
		build_bytes(&b, rng_percent(&b.rng, 50));
	} while (!build_decode(&b));
	if (!solve_before(&b) || !solve_memory(&b))
		return false;
	if (!find_target(&b) || !sane_area(&b))
		return false;
	fill_contents(&b);
	fill_strings(&b);
	place_overlay(&b);
	cut_to_mode(c);
	c->length = b.d.insn.length;
	c->any_address = has_many_parts(&b);
	if (is_xsave_area(&b) && b.has_target)
		c->ignored_at = b.target + 28;
	c->flags_ignored = undefined_flags(&b);
	c->bare_w0 = bare_w0(&b);
	memset(c->code, 0xcc, sizeof(c->code));
	memcpy(c->code + c->entry, b.bytes, c->length);
	return true;
}
