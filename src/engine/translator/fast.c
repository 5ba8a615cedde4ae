/*
 * System instructions of 64-bit code in the block itself, without a call: what
 * kernels execute all the time, where neither privilege nor state can make it
 * differ. MODE_CPL0 tells while translating that nothing here can fault; what
 * remains to be asked is asked in the code, which goes to the leaf (leaf_system.c)
 * if the answer is not the usual one. The leaf is the rule for all of them.
 */
#include "engine/translator/build.h"

bool
fast_has(const struct build *b, const struct insn *in)
{
	bool kernel = (b->mode & MODE_CPL0) != 0;

	if (in->mode != 64 || (in->prefixes & INSN_VEX))
		return false;
	if (in->map == 0)
		return (in->opcode == 0x9c && in->opsize == 8) ||
		       (kernel && (in->opcode == 0xfa || in->opcode == 0xfb));
	if (in->map != 1)
		return false;
	if (in->opcode == 0x01 && (in->modrm == 0xca || in->modrm == 0xcb)) /* SMAP: else #UD */
		return kernel && cpu_model_has(b->v->model, 7, 0, 1, 20);
	if (in->opcode == 0x01)
		return kernel && in->modrm == 0xf8;
	return in->opcode == 0x31;
}

bool
fast_reads_flags(const struct build *b, const struct insn *in)
{
	if (in->map == 0)
		return in->opcode != 0xfa;
	/* Where the leaf may leave the block, they must be right. */
	return in->opcode == 0x31 && !(b->mode & MODE_CPL0);
}

/* OP dword [var], IMM */
static void
fast_alu_imm32(struct emit *e, enum alu op, const void *var, u32 imm)
{
	emit8(e, 0x81);
	emit_rip(e, op, var, 4);
	emit32(e, imm);
}

/* The leaf does it after all, from code that jumps to the end of the cold part. */
static void
fast_to_leaf(struct build *b, struct build_insn *bi)
{
	const u8 *after = emit_rx(&b->e);

	generate_switch(b);
	flow_call_helper(b, bi, after);
	generate_switch(b);
}

static void
fast_swapgs(struct build *b)
{
	struct emit *e = &b->e;

	emit_load_var(e, T0, &b->v->seg[CPU_GS].base);
	emit_load_var(e, T1, &b->v->msr.kernel_gs_base);
	emit_store_var(e, &b->v->seg[CPU_GS].base, T1);
	emit_store_var(e, &b->v->msr.kernel_gs_base, T0);
}

static void
fast_cli(struct build *b, struct build_insn *bi)
{
	generate_may_clobber(b, bi->live);
	fast_alu_imm32(&b->e, ALU_AND, &b->v->rflags, ~(u32)RFLAGS_IF);
}

/* What waits for IF is taken behind the next instruction, by the full helper. */
static void
fast_sti(struct build *b, struct build_insn *bi)
{
	struct emit *e = &b->e;

	generate_may_clobber(b, bi->live);
	emit8(e, 0x83), emit_rip(e, ALU_CMP, &b->t->irq_waiting, 1), emit8(e, 0);
	emit_jcc(e, CC_NE, emit_rx(&b->cold));
	fast_alu_imm32(e, ALU_OR, &b->v->rflags, RFLAGS_IF);
	fast_to_leaf(b, bi);
}

static void
fast_ac(struct build *b, struct build_insn *bi)
{
	struct emit *e = &b->e;
	bool set = bi->in.modrm == 0xcb;
	u8 *same;

	generate_may_clobber(b, bi->live);
	emit8(e, 0xf7), emit_rip(e, 0, &b->v->rflags, 4), emit32(e, RFLAGS_AC); /* test dword */
	same = emit_jcc(e, set ? CC_NE : CC_E, emit_rx(e));
	emit_lea_rip(e, T0, emit_rx(&b->cold));
	emit_jmp(e, b->t->stub.ac[set ? TLB_KERNEL_USER : TLB_KERNEL]);
	emit_patch(e, same, emit_rx(e));
	emit_jmp(&b->cold, emit_rx(e));
	fast_to_leaf(b, bi);
}

static void
fast_rdtsc(struct build *b, struct build_insn *bi)
{
	struct emit *e = &b->e;
	bool kernel = (b->mode & MODE_CPL0) != 0;

	generate_may_clobber(b, bi->live);
	if (!kernel) {
		emit8(e, 0xf6), emit_rip(e, 0, &b->v->cr4, 1), emit8(e, CR4_TSD); /* test byte */
		emit_jcc(e, CC_NE, emit_rx(&b->cold));
	}
	emit8(e, 0x0f), emit8(e, 0x31);
	emit8(e, 0x48), emit8(e, 0xc1), emit8(e, 0xe0 | RDX), emit8(e, 32); /* shl rdx, 32 */
	emit_alu(e, ALU_OR, true, RDX, RAX);
	emit_alu_var(e, ALU_ADD, RDX, &b->v->tsc_offset);
	emit_mov32(e, RAX, RDX);
	emit_shr_imm(e, RDX, 32);
	if (!kernel)
		fast_to_leaf(b, bi);
}

static void
fast_pushf(struct build *b, struct build_insn *bi)
{
	struct emit *e = &b->e;
	const u8 *flags = (const u8 *)&b->t->flags;

	generate_may_clobber(b, bi->live);
	emit_rex(e, false, T0, 0, 0), emit8(e, 0x0f), emit8(e, 0xb6); /* movzx T0, byte */
	emit_rip(e, T0, flags + 1, 0);
	emit_rex(e, false, T1, 0, 0), emit8(e, 0x0f), emit8(e, 0xb6);
	emit_rip(e, T1, flags, 0);
	emit_alu_imm(e, ALU_AND, false, T0, 0xd5);
	emit_rex(e, false, 0, 0, T1), emit8(e, 0xc1), emit8(e, 0xe0 | (T1 & 7)), emit8(e, 11);
	emit_alu(e, ALU_OR, false, T0, T1);
	emit_load_var(e, T1, &b->v->rflags);
	emit_alu_imm(e, ALU_AND, false, T1, (i32) ~(u32)(RFLAGS_ARITH | RFLAGS_RF | RFLAGS_VM));
	emit_alu(e, ALU_OR, false, T0, T1);
	emit_store_var(e, &b->t->tmp, T0);
	flow_push_tmp(b, bi);
}

void
fast_generate(struct build *b, struct build_insn *bi)
{
	const struct insn *in = &bi->in;

	if (in->map == 0) {
		if (in->opcode == 0x9c)
			fast_pushf(b, bi);
		else if (in->opcode == 0xfa)
			fast_cli(b, bi);
		else
			fast_sti(b, bi);
	} else if (in->opcode == 0x31) {
		fast_rdtsc(b, bi);
	} else if (in->modrm == 0xf8) {
		fast_swapgs(b);
	} else {
		fast_ac(b, bi);
	}
}
