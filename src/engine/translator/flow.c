/*
 * The stack and control flow of a block. The fast forms here serve 64-bit code
 * and 32-bit code with flat segments; classify.c sends all else to C.
 *
 * An exit inside the page is a direct jump, patched once its target exists.
 * Every other one looks in the jump cache by linear address, with flags in M.
 * A branch whose target no code can be at faults itself: where the cache misses,
 * it says which instruction it is and how its stack pointer moves back.
 */
#include "engine/translator/build.h"
#include "engine/translator/stub.h"

static unsigned
flow_stack_size(const struct build *b)
{
	return (b->mode & MODE_CODE64) ? 8 : 4;
}

/* ESP or RSP += N, flags untouched. */
static void
flow_move_stack(struct build *b, i32 n)
{
	if (b->mode & MODE_CODE64)
		emit_lea(&b->e, RSP, RSP, n);
	else
		emit_lea32(&b->e, RSP, RSP, n);
}

/* T0 = stack pointer + N. */
static void
flow_stack_address(struct build *b, i32 n)
{
	if (b->mode & MODE_CODE64) {
		if (n == 0)
			emit_mov(&b->e, T0, RSP);
		else
			emit_lea(&b->e, T0, RSP, n);
	} else {
		emit_lea32(&b->e, T0, RSP, n);
	}
}

/* ModRM for the place that the access was translated to. */
static void
flow_at_t0(struct build *b, unsigned reg)
{
	if (b->at_stack)
		emit_sib(&b->e, reg, T0, STACK, 1, 0);
	else
		emit_mem(&b->e, reg, T0, 0);
}

static void
flow_store(struct build *b, unsigned src)
{
	emit_rex(&b->e, (b->mode & MODE_CODE64) != 0, src, b->at_stack ? STACK : 0, T0);
	emit8(&b->e, 0x89);
	flow_at_t0(b, src);
}

static void
flow_load(struct build *b, unsigned dst)
{
	emit_rex(&b->e, (b->mode & MODE_CODE64) != 0, dst, b->at_stack ? STACK : 0, T0);
	emit8(&b->e, 0x8b);
	flow_at_t0(b, dst);
}

static bool
flow_push_immediate(const struct insn *in)
{
	return in->map == 0 && (in->opcode == 0x68 || in->opcode == 0x6a);
}

/* How far RET moves the stack pointer. */
static i32
flow_ret_size(const struct build *b, const struct insn *in)
{
	return (i32)flow_stack_size(b) + (in->opcode == 0xc2 ? (i32)(u16)in->imm : 0);
}

static void
flow_op_push(struct build *b, const struct insn *in)
{
	struct emit *e = &b->e;

	if (flow_push_immediate(in)) {
		emit_rex(e, (b->mode & MODE_CODE64) != 0, 0, b->at_stack ? STACK : 0, T0);
		emit8(e, 0xc7);
		flow_at_t0(b, 0);
		emit32(e, (u32)in->imm);
	} else if (in->mem || in->opcode == 0x9c) { /* PUSHF */
		emit_load_var(e, T1, &b->t->tmp);
		flow_store(b, T1);
	} else if (homed(in->rm)) {
		emit_load_var(e, T1, &b->v->gpr[in->rm]);
		flow_store(b, T1);
	} else {
		flow_store(b, in->rm);
	}
	flow_move_stack(b, -(i32)flow_stack_size(b));
}

static void
flow_op_pop(struct build *b, const struct insn *in)
{
	if (in->rm == RSP) {
		flow_load(b, RSP);
		return;
	}
	if (homed(in->rm)) {
		flow_load(b, T1);
		emit_store_var(&b->e, &b->v->gpr[in->rm], T1);
	} else {
		flow_load(b, in->rm);
	}
	flow_move_stack(b, (i32)flow_stack_size(b));
}

static void
flow_op_leave(struct build *b)
{
	i32 size = (i32)flow_stack_size(b);

	if (b->mode & MODE_CODE64)
		emit_lea(&b->e, RSP, RBP, size);
	else
		emit_lea32(&b->e, RSP, RBP, size);
	flow_load(b, RBP);
}

static void
flow_op_call(struct build *b, const struct build_insn *bi)
{
	emit_load_var(&b->e, T1, &b->t->page_va);
	emit_lea(&b->e, T1, T1, bi->at + bi->in.len);
	flow_store(b, T1);
	flow_move_stack(b, -(i32)flow_stack_size(b));
}

static void
flow_op_load_tmp(struct build *b, const struct insn *in)
{
	emit_rex(&b->e, in->opsize == 8, T1, b->at_stack ? STACK : 0, T0);
	emit8(&b->e, 0x8b);
	flow_at_t0(b, T1);
	emit_store_var(&b->e, &b->t->tmp, T1);
}

void
flow_operation(struct build *b, struct build_insn *bi, enum build_op op)
{
	const struct insn *in = &bi->in;

	switch (op) {
	case OP_STORE_PUSH:
		flow_op_push(b, in);
		break;
	case OP_STORE_CALL:
		flow_op_call(b, bi);
		break;
	case OP_LOAD_POP:
		flow_op_pop(b, in);
		break;
	case OP_LOAD_LEAVE:
		flow_op_leave(b);
		break;
	case OP_LOAD_TMP:
		flow_op_load_tmp(b, in);
		break;
	case OP_LOAD_RET:
		flow_load(b, T0);
		flow_move_stack(b, flow_ret_size(b, in));
		break;
	case OP_NATIVE:
	case OP_BIT:
		break;
	}
}

static void
flow_push(struct build *b, struct build_insn *bi)
{
	generate_may_clobber(b, bi->live);
	if (!flow_push_immediate(&bi->in) && bi->in.mem) {
		generate_offset(b, bi);
		generate_access(b, bi, OP_LOAD_TMP, ACCESS_READ | bi->in.opsize, true);
	}
	flow_push_tmp(b, bi);
}

void
flow_push_tmp(struct build *b, struct build_insn *bi)
{
	flow_stack_address(b, -(i32)flow_stack_size(b));
	generate_access(b, bi, OP_STORE_PUSH, ACCESS_WRITE | flow_stack_size(b), false);
}

/* To the search for T0, as the branch BRANCH, or 0 if by none. */
static void
flow_search(struct build *b, u32 branch)
{
	if (branch)
		emit_mov_imm32(&b->e, T1, branch);
	emit_jmp(&b->e, branch ? b->t->stub.branch : b->t->stub.jump);
}

/* What a branch at page offset AT tells, UNDO to be added to the stack pointer if it faults. */
static u32
flow_branch(u16 at, i32 undo)
{
	return BRANCH_KNOWN | (u32)at | (u32)undo << BRANCH_UNDO_SHIFT;
}

/* Where flags must be for an exit through the jump cache: M, or dead. */
static void
flow_jump_cache(struct build *b, u32 branch)
{
	struct emit *e = &b->e;
	struct translation *t = b->t;
	u8 *miss, *kicked;

	if (!(b->mode & MODE_CODE64))
		branch = 0; /* flat segments: there is code anywhere */
	if (b->mode & MODE_SINGLE) {
		flow_search(b, branch);
		return;
	}
	emit_mov(e, T1, T0);
	emit_shr_imm(e, T1, JUMP_BITS);
	emit_alu(e, ALU_XOR, true, T1, T0);
	emit_alu_imm(e, ALU_AND, false, T1, JUMP_SIZE - 1);
	emit_rex(e, false, 0, 0, T1), emit8(e, 0xc1); /* shl: of 16 bytes each */
	emit8(e, 0xe0 | (T1 & 7)), emit8(e, 4);
	emit_alu_var(e, ALU_ADD, T1, &t->jumps);
	emit_alu_mem(e, ALU_CMP, T0, T1, 0);
	miss = emit_jcc(e, CC_NE, t->stub.jump);
	emit_rex(e, true, 0, 0, 0); /* cmp qword [poll], 0 */
	emit8(e, 0x83);
	emit_rip(e, 7, &t->poll, 1);
	emit8(e, 0);
	kicked = emit_jcc(e, CC_E, t->stub.jump);
	emit_alu_imm(e, ALU_AND, true, T0, -4096);
	emit_store_var(e, &t->page_va, T0);
	emit_rex(e, false, 4, 0, T1); /* jmp [T1 + code] */
	emit8(e, 0xff);
	emit_mem(e, 4, T1, offsetof(struct jump, code));
	if (!branch)
		return;
	emit_patch(e, miss, emit_rx(&b->cold));
	emit_patch(e, kicked, emit_rx(&b->cold));
	generate_switch(b);
	flow_search(b, branch);
	generate_switch(b);
}

/* T0 holds EIP, to be cut to SIZE bytes, in a code segment that is not flat. */
static void
flow_eip(struct build *b, unsigned size, u32 branch)
{
	struct emit *e = &b->e;

	if (size == 2)
		emit_movzx16(e, T0, T0);
	else
		emit_mov32(e, T0, T0);
	emit_alu_var(e, ALU_ADD, T0, &b->v->seg[CPU_CS].base);
	flow_search(b, branch);
}

/* Leaves to page offset TARGET by linear address. */
static void
flow_exit_far(struct build *b, const struct build_exit *x)
{
	struct emit *e = &b->e;

	generate_need_m(b);
	emit_load_var(e, T0, &b->t->page_va);
	if (x->target == (i32)x->target) {
		emit_lea(e, T0, T0, (i32)x->target);
	} else {
		emit_mov_imm(e, T1, (u64)x->target);
		emit_lea_sib(e, true, T0, T0, T1, 1, 0);
	}
	if (!(b->mode & MODE_FLAT_CODE) || (x->truncate == 2)) {
		emit_alu_var(e, ALU_SUB, T0, &b->v->seg[CPU_CS].base);
		flow_eip(b, x->truncate == 2 ? 2 : 4, x->branch);
		return;
	}
	if (!(b->mode & MODE_CODE64))
		emit_mov32(e, T0, T0);
	flow_jump_cache(b, x->branch);
}

static void
flow_exit_near(struct build *b, const struct build_exit *x)
{
	struct emit *e = &b->e;
	struct link *l = block_alloc(b->t, sizeof(*l));

	if (!l) {
		b->full = true;
		return;
	}
	l->target = (u16)x->target;
	l->to_r = (b->flags & FLAGS_R) != 0;
	if (x->target <= x->at) {
		emit_load_var(e, T0, &b->t->poll);
		generate_site(b, (u16)x->target, true);
		emit_load32(e, T0, T0, 0);
	}
	/* The entry's first bytes are overwritten when the block dies: no link may be there. */
	while (emit_rx(e) < b->entry + 5)
		emit8(e, 0x90);
	l->stub = emit_rx(&b->cold);
	l->place = emit_jmp(e, l->stub);
	generate_switch(b);
	emit_mov_imm(&b->e, T1, (u64)l);
	emit_jmp(&b->e, l->to_r ? b->t->stub.link_r : b->t->stub.link_m);
	generate_switch(b);
}

void
flow_exit(struct build *b, const struct build_exit *x)
{
	if (x->place)
		emit_patch(&b->e, x->place, emit_rx(&b->e));
	b->flags = x->flags;
	if ((b->mode & MODE_FLAT_CODE) && !(b->mode & MODE_SINGLE) && x->truncate != 2 &&
	    x->target >= 0 && x->target < (i64)MEMORY_PAGE)
		flow_exit_near(b, x);
	else
		flow_exit_far(b, x);
}

void
flow_exits(struct build *b)
{
	for (unsigned i = 0; i < b->exit_count; i++)
		flow_exit(b, &b->exit[i]);
}

static i64
flow_target(const struct build_insn *bi)
{
	return (i64)bi->at + bi->in.len + (i64)bi->in.imm;
}

static u8
flow_truncate(const struct build *b, const struct insn *in)
{
	if (b->mode & MODE_CODE64)
		return 0;
	return in->opsize == 2 ? 2 : 4;
}

static void
flow_later(struct build *b, const struct build_insn *bi, u8 *place)
{
	if (b->exit_count == BUILD_EXITS) {
		b->full = true;
		return;
	}
	b->exit[b->exit_count++] = (struct build_exit){.place = place,
						       .target = flow_target(bi),
						       .at = bi->at,
						       .flags = b->flags,
						       .branch = flow_branch(bi->at, 0),
						       .truncate = flow_truncate(b, &bi->in)};
}

static void
flow_exit_to_target(struct build *b, const struct build_insn *bi, i32 undo)
{
	struct build_exit x = {.target = flow_target(bi),
			       .at = bi->at,
			       .flags = b->flags,
			       .branch = flow_branch(bi->at, undo),
			       .truncate = flow_truncate(b, &bi->in)};

	flow_exit(b, &x);
}

static void
flow_call(struct build *b, struct build_insn *bi)
{
	generate_may_clobber(b, bi->live);
	flow_stack_address(b, -(i32)flow_stack_size(b));
	generate_access(b, bi, OP_STORE_CALL, ACCESS_WRITE | flow_stack_size(b), false);
	flow_exit_to_target(b, bi, (i32)flow_stack_size(b));
}

/* t->tmp = target of an indirect jump or call. */
static void
flow_indirect_target(struct build *b, struct build_insn *bi)
{
	const struct insn *in = &bi->in;
	struct emit *e = &b->e;

	if (in->mem) {
		generate_offset(b, bi);
		generate_access(b, bi, OP_LOAD_TMP, ACCESS_READ | in->opsize, true);
		return;
	}
	if (homed(in->rm))
		emit_load_var(e, T1, &b->v->gpr[in->rm]);
	else if (b->mode & MODE_CODE64)
		emit_mov(e, T1, in->rm);
	else
		emit_mov32(e, T1, in->rm);
	emit_store_var(e, &b->t->tmp, T1);
}

/* A CALL to where no code can be faults before it stores its return address. */
static void
flow_check_target(struct build *b, const struct build_insn *bi)
{
	struct emit *e = &b->e;
	if (!(b->mode & MODE_CODE64))
		return;
	emit_load_var(e, T1, &b->t->tmp);
	emit_rex(e, true, 0, 0, T1); /* sar T1, 47: 0 or -1 if canonical */
	emit8(e, 0xc1), emit8(e, 0xf8 | (T1 & 7)), emit8(e, 47);
	emit_alu_imm(e, ALU_ADD, true, T1, 1);
	emit_alu_imm(e, ALU_CMP, true, T1, 1);
	emit_jcc(e, CC_A, emit_rx(&b->cold));
	generate_switch(b);
	emit_load_var(e, T0, &b->t->tmp);
	flow_search(b, flow_branch(bi->at, 0));
	generate_switch(b);
}

static void
flow_indirect(struct build *b, struct build_insn *bi)
{
	i32 undo = 0;

	generate_may_clobber(b, bi->live);
	flow_indirect_target(b, bi);
	if (bi->kind == BUILD_CALL_INDIRECT) {
		undo = (i32)flow_stack_size(b);
		flow_check_target(b, bi);
		flow_stack_address(b, -(i32)flow_stack_size(b));
		generate_access(b, bi, OP_STORE_CALL, ACCESS_WRITE | flow_stack_size(b), false);
	}
	emit_load_var(&b->e, T0, &b->t->tmp);
	flow_jump_cache(b, flow_branch(bi->at, undo));
}

static void
flow_ret(struct build *b, struct build_insn *bi)
{
	generate_may_clobber(b, bi->live);
	flow_stack_address(b, 0);
	generate_access(b, bi, OP_LOAD_RET, ACCESS_READ | flow_stack_size(b), false);
	flow_jump_cache(b, flow_branch(bi->at, -flow_ret_size(b, &bi->in)));
}

static void
flow_jcc(struct build *b, struct build_insn *bi)
{
	generate_need_r(b);
	flow_later(b, bi, emit_jcc(&b->e, bi->in.opcode & 15, emit_rx(&b->e)));
}

/* LOOP and JRCXZ reach eight bits only: over a short jump, then a long one. */
static void
flow_loop(struct build *b, struct build_insn *bi)
{
	struct emit *e = &b->e;

	if (bi->in.opcode <= 0xe1)
		generate_need_r(b);
	if (bi->in.addrsize == 4)
		emit8(e, 0x67);
	emit8(e, bi->in.opcode);
	emit8(e, 2);
	emit8(e, 0xeb);
	emit8(e, 5);
	flow_later(b, bi, emit_jmp(e, emit_rx(e)));
}

static void
flow_pop(struct build *b, struct build_insn *bi)
{
	generate_may_clobber(b, bi->live);
	flow_stack_address(b, 0);
	generate_access(b, bi, OP_LOAD_POP, ACCESS_READ | flow_stack_size(b), false);
}

static void
flow_leave(struct build *b, struct build_insn *bi)
{
	generate_may_clobber(b, bi->live);
	if (b->mode & MODE_CODE64)
		emit_mov(&b->e, T0, RBP);
	else
		emit_mov32(&b->e, T0, RBP);
	generate_access(b, bi, OP_LOAD_LEAVE, ACCESS_READ | flow_stack_size(b), false);
}

static void
flow_direction(struct build *b, struct build_insn *bi)
{
	struct emit *e = &b->e;

	generate_may_clobber(b, bi->live);
	emit8(e, 0x81); /* and, or dword [rflags], imm32 */
	emit_rip(e, bi->kind == BUILD_CLD ? ALU_AND : ALU_OR, &b->v->rflags, 4);
	emit32(e, bi->kind == BUILD_CLD ? ~(u32)RFLAGS_DF : (u32)RFLAGS_DF);
}

/* Whether a leaf touches registers that C preserves, by a number in its instruction. */
static bool
flow_leaf_needs_all(const struct insn *in)
{
	const u32 callee = BIT(CPU_RBX) | BIT(CPU_RBP) | BIT(12) | BIT(13);

	return ((in->gpr_read | in->gpr_written) & callee) != 0;
}

/* Calls the helper of BI; a leaf goes on at AFTER, NULL for behind the call. */
void
flow_call_helper(struct build *b, struct build_insn *bi, const u8 *after)
{
	struct emit *e = &b->e;
	struct helper_site *h = block_alloc(b->t, sizeof(*h));
	u8 *place;

	if (!h) {
		b->full = true;
		return;
	}
	*h = (struct helper_site){.in = bi->in, .fn = bi->fn, .leaf = bi->leaf, .guest = bi->at};
	emit_mov_imm(e, T0, (u64)h);
	if (bi->kind == BUILD_HELPER) {
		emit_jmp(e, b->t->stub.helper);
		return;
	}
	emit_rex(e, true, STACK, 0, 0), emit8(e, 0x8d), emit8(e, (STACK & 7) << 3 | 5);
	place = e->at;
	emit32(e, 0);
	emit_jmp(e, flow_leaf_needs_all(&bi->in) ? b->t->stub.leaf_helper_all
						 : b->t->stub.leaf_helper);
	emit_patch(e, place, after ? after : emit_rx(e));
}

void
flow_helper(struct build *b, struct build_insn *bi)
{
	generate_need_m(b);
	b->flags &= FLAGS_M;
	flow_call_helper(b, bi, NULL);
	if (bi->kind != BUILD_HELPER)
		b->flags = FLAGS_M;
}

void
flow_generate(struct build *b, struct build_insn *bi)
{
	switch (bi->kind) {
	case BUILD_NATIVE:
		generate_native(b, bi);
		break;
	case BUILD_NOTHING:
		break;
	case BUILD_HELPER:
	case BUILD_LEAF:
	case BUILD_LEAF_END:
		flow_helper(b, bi);
		break;
	case BUILD_FAST:
		fast_generate(b, bi);
		break;
	case BUILD_LEA:
		generate_lea(b, bi);
		break;
	case BUILD_CLD:
	case BUILD_STD:
		flow_direction(b, bi);
		break;
	case BUILD_PUSH:
		flow_push(b, bi);
		break;
	case BUILD_POP:
		flow_pop(b, bi);
		break;
	case BUILD_LEAVE:
		flow_leave(b, bi);
		break;
	case BUILD_CALL:
		flow_call(b, bi);
		break;
	case BUILD_CALL_INDIRECT:
	case BUILD_JMP_INDIRECT:
		flow_indirect(b, bi);
		break;
	case BUILD_JMP:
		flow_exit_to_target(b, bi, 0);
		break;
	case BUILD_RET:
		flow_ret(b, bi);
		break;
	case BUILD_JCC:
		flow_jcc(b, bi);
		break;
	case BUILD_LOOP:
		flow_loop(b, bi);
		break;
	}
}
