/*
 * Re-encoding one instruction for the host: its registers, its memory operand
 * through the soft TLB, its flags.
 *
 * The order within an instruction keeps exceptions exact: address and TLB check
 * (spoils only T0 and T1, and RFLAGS where they are dead or saved), then flags back
 * if the operation needs them, then the operation, which alone changes guest state.
 */
#include <cpuid.h>

#include "engine/translator/build.h"
#include "engine/translator/stub.h"

void
generate_switch(struct build *b)
{
	struct emit e = b->e;

	b->e = b->cold;
	b->cold = e;
	b->in_cold = !b->in_cold;
}

void
generate_site(struct build *b, u16 guest, bool poll)
{
	const u8 *start = b->in_cold ? b->cold_start : b->start;

	if (b->site_count == BUILD_SITES) {
		b->full = true;
		return;
	}
	b->site[b->site_count++] = (struct site){.host = (u16)(b->e.at - start),
						 .guest = guest,
						 .flags = b->flags,
						 .poll = poll,
						 .cold = b->in_cold};
}

void
generate_need_r(struct build *b)
{
	if (b->flags & FLAGS_R)
		return;
	stub_load_flags(b->t, &b->e);
	b->flags |= FLAGS_R;
}

void
generate_need_m(struct build *b)
{
	if ((b->flags & FLAGS_M) || b->flags == 0)
		return;
	stub_save_flags(b->t, &b->e);
	b->flags |= FLAGS_M;
}

void
generate_may_clobber(struct build *b, u32 live)
{
	if (live == 0) {
		b->flags = 0;
		return;
	}
	generate_need_m(b);
	b->flags &= (u8)~FLAGS_R;
}

/* Loads base and index where they are homed; returns the host registers. */
static void
generate_address_regs(struct build *b, const struct insn *in, unsigned *base, unsigned *index)
{
	*base = in->base == INSN_NO_REG ? (unsigned)NO_BASE : in->base;
	*index = in->index;
	if (homed(*base)) {
		emit_load_var(&b->e, T0, &b->v->gpr[*base]);
		*base = T0;
	}
	if (in->index != INSN_NO_REG && homed(*index)) {
		emit_load_var(&b->e, T1, &b->v->gpr[*index]);
		*index = T1;
	}
}

static void
generate_rip_relative(struct build *b, const struct build_insn *bi)
{
	i64 disp = bi->in.disp + bi->at + bi->in.len;

	emit_load_var(&b->e, T0, &b->t->page_va);
	if (disp == (i32)disp) {
		emit_lea(&b->e, T0, T0, (i32)disp);
	} else {
		emit_lea(&b->e, T0, T0, INT32_MAX);
		emit_lea(&b->e, T0, T0, (i32)(disp - INT32_MAX));
	}
}

void
generate_offset(struct build *b, const struct build_insn *bi)
{
	const struct insn *in = &bi->in;
	struct emit *e = &b->e;
	unsigned base, index;
	bool wide = in->addrsize == 8;

	if (in->base == INSN_RIP) {
		generate_rip_relative(b, bi);
		if (!wide)
			emit_mov32(e, T0, T0);
		return;
	}
	if (!in->has_modrm || (in->base == INSN_NO_REG && in->index == INSN_NO_REG)) {
		u64 disp = (u64)in->disp;

		if (in->addrsize == 4)
			disp = (u32)disp;
		else if (in->addrsize == 2)
			disp = (u16)disp;
		if (wide && disp == (u64)(i64)(i32)disp) {
			emit_rex(e, true, 0, 0, T0);
			emit8(e, 0xc7);
			emit8(e, 0xc0 | (T0 & 7));
			emit32(e, (u32)disp);
		} else {
			emit_mov_imm(e, T0, disp);
		}
		return;
	}
	generate_address_regs(b, in, &base, &index);
	if (in->index != INSN_NO_REG)
		emit_lea_sib(e, wide, T0, base, index, in->scale, (i32)in->disp);
	else if (in->disp == 0 && wide)
		emit_mov(e, T0, base);
	else if (in->disp == 0)
		emit_mov32(e, T0, base);
	else if (wide)
		emit_lea(e, T0, base, (i32)in->disp);
	else
		emit_lea32(e, T0, base, (i32)in->disp);
	if (in->addrsize == 2)
		emit_movzx16(e, T0, T0);
}

/* BMI2 rotates without a move before it. */
static bool
generate_have_bmi2(void)
{
	return __builtin_cpu_supports("bmi2") != 0;
}

static struct build_access *
generate_new_access(struct build *b)
{
	if (b->access_count == BUILD_ACCESSES) {
		b->full = true;
		b->access_count = 0;
	}
	return &b->access[b->access_count++];
}

static i32
generate_tag(u32 access)
{
	return (access & ACCESS_WRITE) ? (i32)offsetof(struct tlb_entry, write)
				       : (i32)offsetof(struct tlb_entry, read);
}

static i32
generate_host(u32 access)
{
	return (access & ACCESS_WRITE) ? (i32)offsetof(struct tlb_entry, write_host)
				       : (i32)offsetof(struct tlb_entry, read_host);
}

/* T0 = linear becomes a host address, or the miss is taken. */
static u8 *
generate_tlb_check(struct build *b, u32 access)
{
	struct emit *e = &b->e;
	unsigned size = access & ACCESS_SIZE;
	i32 tag = generate_tag(access);
	u8 *miss;

	if (b->mode & (MODE_SINGLE | MODE_ALIGN))
		return emit_jmp(e, emit_rx(e)); /* the slow path looks at everything */
	if (access & ACCESS_STACK) {
		emit_mov(e, T1, T0);
		emit_alu_var(e, ALU_SUB, T1, &b->t->stack_page);
		emit_alu_imm(e, ALU_CMP, true, T1, 4096 - (i32)size);
		return emit_jcc(e, CC_A, emit_rx(e));
	}
	if (generate_have_bmi2()) {
		emit_rorx(e, T1, T0, 7);
	} else {
		emit_mov(e, T1, T0);
		emit_shr_imm(e, T1, 7);
	}
	emit_alu_imm(e, ALU_AND, false, T1, (TLB_SIZE - 1) << 5);
	emit_alu_var(e, ALU_ADD, T1, &b->t->tlb);
	emit_alu_mem(e, ALU_SUB, T0, T1, tag);
	emit_alu_imm(e, ALU_CMP, true, T0, 4096 - (i32)size);
	miss = emit_jcc(e, CC_A, emit_rx(e));
	emit_alu_mem(e, ALU_ADD, T0, T1, generate_host(access));
	return miss;
}

/* Adds the segment's base; in legacy modes checks its limit first. */
static u8 *
generate_segment(struct build *b, const struct insn *in, u32 access)
{
	struct emit *e = &b->e;
	unsigned size = access & ACCESS_SIZE;
	u8 *fail = NULL;

	if (b->mode & MODE_CODE64) {
		if (in->seg != CPU_FS && in->seg != CPU_GS)
			return NULL;
		emit_load_var(e, T1, &b->v->seg[in->seg].base);
		emit_lea_sib(e, true, T0, T0, T1, 1, 0);
		return NULL;
	}
	if ((b->mode & MODE_FLAT_DATA) &&
	    (in->seg == CPU_DS || in->seg == CPU_ES || in->seg == CPU_SS))
		return NULL;
	emit_lea(e, T1, T0, (i32)size - 1);
	emit_alu_var(e, ALU_CMP, T1,
		     (access & ACCESS_WRITE) ? &b->t->seg_write_end[in->seg]
					     : &b->t->seg_read_end[in->seg]);
	fail = emit_jcc(e, CC_AE, emit_rx(e));
	emit_load_var(e, T1, &b->v->seg[in->seg].base);
	emit_lea_sib(e, false, T0, T0, T1, 1, 0);
	return fail;
}

/* With a LOCK prefix, or XCHG with memory. */
static bool
generate_is_locked(const struct insn *in)
{
	return (in->prefixes & INSN_LOCK) || (in->map == 0 && (in->opcode & 0xfe) == 0x86);
}

/* Whether an access is one at the stack pointer. */
static bool
generate_is_stack(const struct build *b, const struct insn *in, bool segmented)
{
	if (b->mode & (MODE_SINGLE | MODE_ALIGN))
		return false;
	if (!segmented)
		return true;
	return in->base == CPU_RSP && in->seg == CPU_SS && (b->mode & MODE_FLAT_DATA);
}

void
generate_access(struct build *b, struct build_insn *bi, enum build_op op, u32 access,
		bool segmented)
{
	struct build_access *a = generate_new_access(b);
	u32 number = (u32)(bi - b->insn);

	access |= number << ACCESS_INSN_SHIFT;
	access |= (segmented ? bi->in.seg : (u32)CPU_SS) << ACCESS_SEG_SHIFT;
	if (op != OP_STORE_PUSH && op != OP_STORE_CALL && generate_is_locked(&bi->in))
		access |= ACCESS_LOCK;
	if (generate_is_stack(b, &bi->in, segmented))
		access |= ACCESS_STACK;
	if (op == OP_STORE_CALL)
		access |= ACCESS_FLOWS;
	a->insn = bi;
	a->op = op;
	a->access = access;
	a->limit = segmented ? generate_segment(b, &bi->in, access) : NULL;
	a->miss = generate_tlb_check(b, access);
	a->flags = b->flags;
	a->fast = emit_rx(&b->e);
	b->at_stack = (access & ACCESS_STACK) != 0;
	generate_operation(b, bi, op);
	b->at_stack = false;
	a->after = emit_rx(&b->e);
	a->flags_after = b->flags;
}

/* Who serves what the block itself does not. */
static const u8 *
generate_miss(const struct build *b, const struct build_access *a)
{
	if (a->access & ACCESS_STACK)
		return b->t->stub.stack;
	return b->mode & (MODE_SINGLE | MODE_ALIGN) ? b->t->stub.miss_slow : b->t->stub.miss;
}

static void
generate_slow_path(struct build *b, struct build_access *a)
{
	struct emit *e = &b->e;
	u8 *to_site, *limit_site = NULL;
	const u8 *site;

	emit_patch(e, a->miss, emit_rx(e));
	if (!(a->access & ACCESS_STACK) && !(b->mode & (MODE_SINGLE | MODE_ALIGN)))
		emit_alu_mem(e, ALU_ADD, T0, T1, generate_tag(a->access)); /* linear again */
	emit_mov_imm32(e, T1, a->access);
	emit_rex(e, true, STACK, 0, 0), emit8(e, 0x8d), emit8(e, (STACK & 7) << 3 | 5);
	to_site = e->at;
	emit32(e, 0);
	emit_jmp(e, generate_miss(b, a));
	if (a->limit) {
		emit_patch(e, a->limit, emit_rx(e));
		emit_mov_imm32(e, T1, a->access | ACCESS_OFFSET);
		emit_rex(e, true, STACK, 0, 0), emit8(e, 0x8d), emit8(e, (STACK & 7) << 3 | 5);
		limit_site = e->at;
		emit32(e, 0);
		emit_jmp(e, b->t->stub.miss_slow);
	}
	site = emit_rx(e);
	emit_patch(e, to_site, site);
	if (limit_site)
		emit_patch(e, limit_site, site);
	emit_jmp(e, a->fast);
	/* Five bytes on: the same operation on the bounce buffer, whose address is in T0. */
	b->flags = a->flags;
	generate_operation(b, a->insn, a->op);
	if (!(a->access & ACCESS_WRITE)) {
		emit_jmp(e, a->after);
		return;
	}
	emit_mov_imm32(e, T1, a->access);
	emit_lea_rip(e, STACK, a->after);
	emit_jmp(e, (b->flags & FLAGS_R) ? b->t->stub.commit_r : b->t->stub.commit_m);
}

void
generate_slow_paths(struct build *b)
{
	generate_switch(b);
	for (unsigned i = 0; i < b->access_count; i++)
		generate_slow_path(b, &b->access[i]);
	generate_switch(b);
}

/* Where the fields of the instruction to be emitted point. */
struct encoding {
	bool mem;   /* rm is [T0] */
	bool stack; /* rm is [T0 + STACK] */
	unsigned reg, rm, vvvv;
};

static void
generate_vex(struct emit *e, const struct insn *in, const struct encoding *x)
{
	unsigned vvvv = in->vvvv_use ? (~x->vvvv & 15u) : in->vex_vvvv;
	unsigned rm = x->mem ? (unsigned)T0 : x->rm;

	emit8(e, 0xc4);
	emit8(e, (x->reg < 8 ? 0x80u : 0u) | (x->stack ? 0u : 0x40u) | (rm < 8 ? 0x20u : 0u) |
			 in->map);
	emit8(e, (unsigned)in->vex_w << 7 | vvvv << 3 | (unsigned)in->vex_l << 2 | in->vex_pp);
	emit8(e, in->opcode);
}

static void
generate_legacy(struct emit *e, const struct insn *in, const struct encoding *x, unsigned opcode)
{
	bool op66 = (in->prefixes & INSN_66) != 0;
	unsigned rm = x->mem ? (unsigned)T0 : x->rm, rex;

	if (in->mode == 16 && in->sized)
		op66 = in->opsize == 2;
	if (in->prefixes & INSN_LOCK)
		emit8(e, 0xf0);
	if (op66)
		emit8(e, 0x66);
	if (in->prefixes & (INSN_REP | INSN_REPNE))
		emit8(e, (in->prefixes & INSN_REP) ? 0xf3 : 0xf2);
	rex = 0x40u | (in->rex & 8u) | (x->reg >> 3) << 2 | (x->stack ? 2u : 0u) | rm >> 3;
	if (rex != 0x40 || (in->prefixes & INSN_REX))
		emit8(e, rex);
	if (in->map > 0)
		emit8(e, 0x0f);
	if (in->map == 2)
		emit8(e, 0x38);
	if (in->map == 3)
		emit8(e, 0x3a);
	emit8(e, opcode);
}

/* VBLENDVPS, VBLENDVPD, VPBLENDVB: a register in the upper half of the immediate. */
static bool
generate_is_blendv(const struct insn *in)
{
	return (in->prefixes & INSN_VEX) && in->map == 3 && in->opcode >= 0x4a &&
	       in->opcode <= 0x4c;
}

/* The bytes of IN with its registers replaced. */
static void
generate_encoded(struct build *b, const struct insn *in, const struct encoding *x)
{
	struct emit *e = &b->e;
	unsigned opcode = in->opcode;
	unsigned tail = in->tail;
	bool modrm = in->has_modrm;

	if (!modrm && in->mem) { /* MOV with a moffs operand */
		opcode = (opcode & 1) | ((opcode & 2) ? 0x88u : 0x8au);
		modrm = true;
		tail = 0;
	} else if (in->map == 0 && in->mode != 64 && (opcode & 0xf0) == 0x40) { /* INC, DEC */
		struct encoding y = {.reg = (opcode >> 3) & 1, .rm = x->rm};

		generate_legacy(e, in, &y, 0xff);
		emit8(e, 0xc0 | y.reg << 3 | (y.rm & 7));
		return;
	} else if (in->map == 0 && opcode == 0x82) {
		opcode = 0x80;
	} else if (!modrm && in->opreg_use) {
		opcode = (opcode & 0xf8) | (x->rm & 7);
	}
	if (in->prefixes & INSN_VEX)
		generate_vex(e, in, x);
	else
		generate_legacy(e, in, x, opcode);
	if (modrm && x->stack)
		emit_sib(e, x->reg, T0, STACK, 1, 0);
	else if (modrm && x->mem)
		emit8(e, (x->reg & 7) << 3 | (T0 & 7));
	else if (modrm)
		emit8(e, 0xc0 | (x->reg & 7) << 3 | (x->rm & 7));
	for (unsigned i = 0; i < tail; i++)
		emit8(e, in->raw[in->len - tail + i]);
	if (in->mode != 64 && generate_is_blendv(in))
		e->at[-1] &= 0x7f; /* only eight registers there: bit 7 is ignored */
}

/* Stand-ins for homed registers: one T for each distinct guest register. */
struct stand_ins {
	unsigned guest[3], host[3], count;
	u8 use[3];
};

static unsigned
generate_stand_in(struct stand_ins *s, unsigned reg, u8 use, bool mem)
{
	static const u8 free_regs[2][3] = {{T1, T0, STACK}, {T1, STACK, STACK}};
	const u8 *order = free_regs[mem];

	if (!use || !homed(reg))
		return reg;
	for (unsigned i = 0; i < s->count; i++) {
		if (s->guest[i] == reg) {
			s->use[i] |= use;
			return s->host[i];
		}
	}
	s->guest[s->count] = reg;
	s->use[s->count] = use;
	s->host[s->count] = order[s->count];
	return s->host[s->count++];
}

static void
generate_swap_high(struct build *b, unsigned high)
{
	emit8(&b->e, 0x86);
	emit8(&b->e, 0xc0 | high << 3 | (high & 3));
}

/* CMPXCHG [T0], AH..BH: the implicit AL must stay, so the operand goes to T1. */
static void
generate_cmpxchg_high(struct build *b, const struct insn *in)
{
	struct encoding x = {.mem = true, .stack = b->at_stack, .reg = T1};

	emit_store_var(&b->e, &b->t->tmp, in->reg & 3);
	emit_rex(&b->e, false, T1, 0, 0);
	emit8(&b->e, 0x8a);
	emit_rip(&b->e, T1, (const u8 *)&b->t->tmp + 1, 0);
	generate_encoded(b, in, &x);
}

static void
generate_op_native(struct build *b, const struct insn *in)
{
	struct stand_ins s = {.count = 0};
	struct encoding x = {.mem = in->mem && in->mem_size};
	bool high = x.mem && in->reg_high, spoilt = false;

	if (high && in->map == 1 && in->opcode == 0xb0) {
		generate_cmpxchg_high(b, in);
		return;
	}
	x.reg = in->has_modrm ? generate_stand_in(&s, in->reg, in->reg_use, x.mem) : 0;
	x.rm = generate_stand_in(&s, in->rm, in->rm_use | in->opreg_use, x.mem);
	if (in->opreg_use && in->rm_high)
		x.rm += 4;
	x.vvvv = in->vvvv_use ? generate_stand_in(&s, in->vvvv, in->vvvv_use, x.mem) : 0;
	for (unsigned i = 0; i < s.count; i++)
		spoilt = spoilt || s.host[i] == STACK;
	x.stack = x.mem && b->at_stack && !spoilt;
	if (x.mem && b->at_stack && spoilt)
		emit_lea_sib(&b->e, true, T0, T0, STACK, 1, 0);
	for (unsigned i = 0; i < s.count; i++)
		if (s.use[i] & (INSN_READ | INSN_PARTIAL))
			emit_load_var(&b->e, s.host[i], &b->v->gpr[s.guest[i]]);
	if (high) {
		generate_swap_high(b, in->reg);
		x.reg = in->reg & 3;
	}
	generate_encoded(b, in, &x);
	if (high)
		generate_swap_high(b, in->reg);
	for (unsigned i = 0; i < s.count; i++)
		if (s.use[i] & INSN_WRITE)
			emit_store_var(&b->e, &b->v->gpr[s.guest[i]], s.host[i]);
	if (spoilt)
		emit_load_var(&b->e, STACK, &b->t->stack_addend);
}

static void
generate_op_bit(struct build *b, const struct insn *in)
{
	struct encoding x = {.mem = true, .stack = b->at_stack, .reg = T1};

	emit_load_var(&b->e, T1, &b->t->tmp);
	generate_encoded(b, in, &x);
}

/* Flags around an operation that is a guest instruction. */
static void
generate_with_flags(struct build *b, const struct build_insn *bi, bool bit)
{
	const struct insn *in = &bi->in;
	bool keeps = (bi->live_after & ~in->flags_written & RFLAGS_ARITH) != 0;

	if ((in->flags_read & RFLAGS_ARITH) || (in->flags_changed && keeps))
		generate_need_r(b);
	generate_site(b, bi->at, false);
	if (bit)
		generate_op_bit(b, in);
	else
		generate_op_native(b, in);
	if (in->flags_changed)
		b->flags = FLAGS_R;
}

void
generate_operation(struct build *b, struct build_insn *bi, enum build_op op)
{
	if (op == OP_NATIVE || op == OP_BIT) {
		generate_with_flags(b, bi, op == OP_BIT);
		return;
	}
	generate_site(b, bi->at, false);
	flow_operation(b, bi, op);
}

static bool
generate_can_copy(const struct build *b, const struct insn *in)
{
	u16 regs = (u16)(in->gpr_read | in->gpr_written);

	return (b->mode & MODE_CODE64) && !in->mem && !(regs & HOMED_MASK) &&
	       !(in->prefixes & (INSN_67 | INSN_SEG));
}

/* BT, BTS, BTR, BTC with a bit offset in a register reach beyond their operand. */
static bool
generate_is_bit_string(const struct insn *in)
{
	return in->map == 1 && !(in->prefixes & INSN_VEX) && in->mem &&
	       (in->opcode == 0xa3 || in->opcode == 0xab || in->opcode == 0xb3 ||
		in->opcode == 0xbb);
}

/* Moves T0 to the word that holds the bit, leaves the rest of the offset in t->tmp. */
static void
generate_bit_address(struct build *b, const struct insn *in)
{
	struct emit *e = &b->e;
	unsigned bits = in->opsize * 8u;
	unsigned reg = in->reg;

	if (homed(reg)) {
		emit_load_var(e, T1, &b->v->gpr[reg]);
		reg = T1;
	}
	if (bits == 64) {
		emit_mov(e, T1, reg);
	} else { /* movsxd, movsx */
		emit_rex(e, true, T1, 0, reg);
		if (bits == 16)
			emit8(e, 0x0f), emit8(e, 0xbf);
		else
			emit8(e, 0x63);
		emit8(e, 0xc0 | (T1 & 7) << 3 | (reg & 7));
	}
	emit_store_var(e, &b->t->tmp, T1);
	emit_rex(e, true, 0, 0, 0); /* and qword [tmp], bits - 1 */
	emit8(e, 0x83);
	emit_rip(e, ALU_AND, &b->t->tmp, 1);
	emit8(e, bits - 1);
	emit_rex(e, true, 0, 0, T1); /* sar */
	emit8(e, 0xc1), emit8(e, 0xf8 | (T1 & 7));
	emit8(e, bits == 64 ? 6 : bits == 32 ? 5 : 4);
	emit_lea_sib(e, in->addrsize == 8, T0, T0, T1, in->opsize, 0);
	if (in->addrsize == 2)
		emit_movzx16(e, T0, T0);
}

void
generate_native(struct build *b, struct build_insn *bi)
{
	const struct insn *in = &bi->in;
	u32 access;

	if (in->mem && in->mem_size) {
		access = in->mem_size | (in->mem_read ? (u32)ACCESS_READ : 0u) |
			 (in->mem_written ? (u32)ACCESS_WRITE : 0u) |
			 (classify_aligned(in) ? (u32)ACCESS_ALIGNED : 0u);
		generate_may_clobber(b, bi->live);
		generate_offset(b, bi);
		if (generate_is_bit_string(in)) {
			generate_bit_address(b, in);
			generate_access(b, bi, OP_BIT, access, true);
			return;
		}
		generate_access(b, bi, OP_NATIVE, access, true);
		return;
	}
	if (!generate_can_copy(b, in)) {
		generate_with_flags(b, bi, false);
		return;
	}
	if ((in->flags_read & RFLAGS_ARITH) ||
	    (in->flags_changed && (bi->live_after & ~in->flags_written & RFLAGS_ARITH)))
		generate_need_r(b);
	generate_site(b, bi->at, false);
	for (unsigned i = 0; i < in->len; i++)
		emit8(&b->e, in->raw[i]);
	if (in->flags_changed)
		b->flags = FLAGS_R;
}

void
generate_lea(struct build *b, struct build_insn *bi)
{
	const struct insn *in = &bi->in;
	struct emit *e = &b->e;
	bool regs_here = !((in->gpr_read | in->gpr_written) & HOMED_MASK);

	if ((b->mode & MODE_CODE64) && regs_here && in->base != INSN_RIP) {
		for (unsigned i = 0; i < in->len; i++)
			emit8(e, in->raw[i]);
		return;
	}
	generate_offset(b, bi);
	if (homed(in->reg)) {
		if (in->opsize == 2) {
			emit8(e, 0x66);
			emit_rex(e, false, T0, 0, 0);
			emit8(e, 0x89);
			emit_rip(e, T0, &b->v->gpr[in->reg], 0);
			return;
		}
		if (in->opsize == 4)
			emit_mov32(e, T0, T0);
		emit_store_var(e, &b->v->gpr[in->reg], T0);
	} else if (in->opsize == 8) {
		emit_mov(e, in->reg, T0);
	} else {
		if (in->opsize == 2)
			emit8(e, 0x66);
		emit_mov32(e, in->reg, T0);
	}
}
