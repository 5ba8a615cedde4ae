/*
 * Instructions that translated code does not re-encode: what 64-bit mode lost
 * (BCD, PUSHA, BOUND, SALC) and general forms of near stack and loop
 * instructions, for the modes where the stack pointer or the target wraps.
 *
 * Faults come before the first change of a register; a write to memory is the
 * last thing that may fault.
 */
#include "engine/translator/rare.h"

#include "engine/translator/operand.h"

static u64
rare_next_rip(const struct vcpu *v, const struct insn *in)
{
	return v->rip + in->len;
}

static void
rare_set_flags(struct vcpu *v, u64 mask, u64 flags)
{
	v->rflags = (v->rflags & ~mask) | (flags & mask);
}

/* SF, ZF and PF of a byte. */
static u64
rare_flags_of_byte(u8 value)
{
	u64 flags = 0;

	if (value & 0x80)
		flags |= RFLAGS_SF;
	if (value == 0)
		flags |= RFLAGS_ZF;
	if (!__builtin_parity(value))
		flags |= RFLAGS_PF;
	return flags;
}

/* DAA and DAS (APM 3): the same steps, adding or subtracting. */
static void
rare_decimal_packed(struct vcpu *v, bool subtract)
{
	u8 old = (u8)v->gpr[CPU_RAX], al = old;
	bool old_carry = v->rflags & RFLAGS_CF;
	u64 flags = 0;

	if ((old & 0xf) > 9 || (v->rflags & RFLAGS_AF)) {
		al = (u8)(subtract ? al - 6 : al + 6);
		flags |= RFLAGS_AF;
		if (subtract && old < 6)
			flags |= RFLAGS_CF;
	}
	if (old > 0x99 || old_carry) {
		al = (u8)(subtract ? al - 0x60 : al + 0x60);
		flags |= RFLAGS_CF;
	}
	operand_set_gpr(v, CPU_RAX, 1, al);
	rare_set_flags(v, RFLAGS_ARITH, flags | rare_flags_of_byte(al));
}

/* AAA and AAS. */
static void
rare_decimal_unpacked(struct vcpu *v, bool subtract)
{
	u16 ax = (u16)v->gpr[CPU_RAX];
	u64 flags = 0;

	if ((ax & 0xf) > 9 || (v->rflags & RFLAGS_AF)) {
		ax = (u16)(subtract ? ax - 0x106 : ax + 0x106);
		flags = RFLAGS_AF | RFLAGS_CF;
	}
	ax &= 0xff0f;
	operand_set_gpr(v, CPU_RAX, 2, ax);
	rare_set_flags(v, RFLAGS_ARITH, flags | rare_flags_of_byte((u8)ax));
}

static int
rare_aam(struct vcpu *v, u8 base)
{
	u8 al = (u8)v->gpr[CPU_RAX];

	if (base == 0)
		return vcpu_raise(v, VECTOR_DE);
	operand_set_gpr(v, CPU_RAX, 2, (u64)(al / base) << 8 | al % base);
	rare_set_flags(v, RFLAGS_ARITH, rare_flags_of_byte(al % base));
	return HELPER_NEXT;
}

static int
rare_aad(struct vcpu *v, u8 base)
{
	u16 ax = (u16)v->gpr[CPU_RAX];
	u8 al = (u8)((ax >> 8) * base + ax);

	operand_set_gpr(v, CPU_RAX, 2, al);
	rare_set_flags(v, RFLAGS_ARITH, rare_flags_of_byte(al));
	return HELPER_NEXT;
}

int
rare_bcd(struct vcpu *v, const struct insn *in)
{
	if (in->mode == 64)
		return vcpu_raise(v, VECTOR_UD);
	switch (in->opcode) {
	case 0x27:
	case 0x2f:
		rare_decimal_packed(v, in->opcode == 0x2f);
		return HELPER_NEXT;
	case 0x37:
	case 0x3f:
		rare_decimal_unpacked(v, in->opcode == 0x3f);
		return HELPER_NEXT;
	case 0xd4:
		return rare_aam(v, (u8)in->imm);
	default:
		return rare_aad(v, (u8)in->imm);
	}
}

int
rare_salc(struct vcpu *v, const struct insn *in)
{
	if (in->mode == 64)
		return vcpu_raise(v, VECTOR_UD);
	operand_set_gpr(v, CPU_RAX, 1, v->rflags & RFLAGS_CF ? 0xff : 0);
	return HELPER_NEXT;
}

int
rare_xlat(struct vcpu *v, const struct insn *in)
{
	enum cpu_segment seg = in->prefixes & INSN_SEG ? (enum cpu_segment)in->seg : CPU_DS;
	u64 offset = (v->gpr[CPU_RBX] + (u8)v->gpr[CPU_RAX]) & operand_mask(in->addrsize);
	u64 linear;
	u8 al;
	int r = mmu_linear(v, seg, offset, 1, false, &linear);

	if (r == 0)
		r = mmu_read(v, linear, &al, 1, 0);
	if (r)
		return r;
	operand_set_gpr(v, CPU_RAX, 1, al);
	return HELPER_NEXT;
}

int
rare_bound(struct vcpu *v, const struct insn *in)
{
	u8 pair[8];
	u64 linear, low = 0, high = 0;
	i64 index, lower, upper;
	int r;

	if (in->mode == 64 || !in->mem)
		return vcpu_raise(v, VECTOR_UD);
	r = mmu_operand(v, in, 2u * in->opsize, false, &linear);
	if (r == 0)
		r = mmu_read(v, linear, pair, 2u * in->opsize, 0);
	if (r)
		return r;
	memcpy(&low, pair, in->opsize);
	memcpy(&high, pair + in->opsize, in->opsize);
	index = (i64)operand_sign_extend(v->gpr[in->reg], in->opsize);
	lower = (i64)operand_sign_extend(low, in->opsize);
	upper = (i64)operand_sign_extend(high, in->opsize);
	if (index < lower || index > upper)
		return vcpu_raise(v, VECTOR_BR);
	return HELPER_NEXT;
}

/*
 * Stack
 */

/* Pushes SIZE bytes; the stack pointer moves only if the write succeeded. */
static int
rare_push_value(struct vcpu *v, u64 value, unsigned size)
{
	u64 sp = v->gpr[CPU_RSP] - size;
	int r = operand_stack_write(v, sp, &value, size);

	if (r == 0)
		operand_set_gpr(v, CPU_RSP, operand_stack_size(v), sp);
	return r;
}

static int
rare_read_rm(struct vcpu *v, const struct insn *in, u64 *value)
{
	u64 linear;
	int r;

	*value = 0;
	if (!in->mem) {
		*value = v->gpr[in->rm] & operand_mask(in->opsize);
		return 0;
	}
	r = mmu_operand(v, in, in->opsize, false, &linear);
	return r ? r : mmu_read(v, linear, value, in->opsize, 0);
}

int
rare_push(struct vcpu *v, const struct insn *in)
{
	u64 value = in->imm;
	int r = 0;

	if (in->opcode == 0xff)
		r = rare_read_rm(v, in, &value);
	else if ((in->opcode & 0xf8) == 0x50)
		value = v->gpr[in->rm];
	if (r == 0)
		r = rare_push_value(v, value, in->opsize);
	return r ? r : HELPER_NEXT;
}

/* POP to memory: an address with the stack pointer in it uses the new one. */
static int
rare_pop_memory(struct vcpu *v, const struct insn *in, u64 value, u64 sp)
{
	u64 old = v->gpr[CPU_RSP];
	u64 linear;
	int r;

	operand_set_gpr(v, CPU_RSP, operand_stack_size(v), sp);
	r = mmu_operand(v, in, in->opsize, true, &linear);
	if (r == 0)
		r = mmu_write(v, linear, &value, in->opsize, 0);
	if (r)
		v->gpr[CPU_RSP] = old;
	return r;
}

int
rare_pop(struct vcpu *v, const struct insn *in)
{
	u64 sp = v->gpr[CPU_RSP] + in->opsize;
	u64 value = 0;
	int r = operand_stack_read(v, v->gpr[CPU_RSP], &value, in->opsize);

	if (r)
		return r;
	if (in->mem) {
		r = rare_pop_memory(v, in, value, sp);
		return r ? r : HELPER_NEXT;
	}
	operand_set_gpr(v, CPU_RSP, operand_stack_size(v), sp);
	operand_set_gpr(v, in->rm, in->opsize, value);
	return HELPER_NEXT;
}

/* A 16-bit stack pointer that wraps amid a frame: CPUs differ; #SS(0) here. */
static bool
rare_frame_wraps(const struct vcpu *v, u64 sp, unsigned len)
{
	return operand_stack_size(v) == 2 && (sp & 0xffff) + len > 0x10000;
}

/* Checks the pushes in their order, so that CR2 names the first that faults. */
static int
rare_check_pushes(struct vcpu *v, u64 sp, unsigned count, unsigned size)
{
	for (unsigned i = 0; i < count; i++) {
		u64 linear;
		int r;

		sp -= size;
		r = mmu_linear(v, CPU_SS, sp & operand_mask(operand_stack_size(v)), size, true,
			       &linear);
		if (r == 0)
			r = mmu_check_write(v, linear, size, 0);
		if (r)
			return r;
	}
	return 0;
}

/* Register order is that of their numbers; SP's slot is skipped by POPA. */
int
rare_pusha(struct vcpu *v, const struct insn *in)
{
	u8 frame[8 * 4];
	unsigned size = in->opsize;
	u64 sp = v->gpr[CPU_RSP] - 8u * size;
	int r;

	if (in->mode == 64)
		return vcpu_raise(v, VECTOR_UD);
	for (unsigned i = 0; i < 8; i++)
		memcpy(frame + i * size, &v->gpr[7 - i], size);
	if (rare_frame_wraps(v, sp, 8u * size))
		return vcpu_raise_code(v, VECTOR_SS, 0);
	r = rare_check_pushes(v, v->gpr[CPU_RSP], 8, size);
	if (r == 0)
		r = operand_stack_write(v, sp, frame, 8u * size);
	if (r)
		return r;
	operand_set_gpr(v, CPU_RSP, operand_stack_size(v), sp);
	return HELPER_NEXT;
}

/* Registers popped before a fault keep their new values, as they do on AMD's processors: SP did
 * not move, so the instruction runs again from its start. */
int
rare_popa(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->opsize;
	u64 values[8] = {0}, sp = v->gpr[CPU_RSP];
	unsigned got = 0;
	int r = 0;

	if (in->mode == 64)
		return vcpu_raise(v, VECTOR_UD);
	if (rare_frame_wraps(v, sp, 8u * size))
		return vcpu_raise_code(v, VECTOR_SS, 0);
	for (; got < 8; got++) {
		r = operand_stack_read(v, sp + got * size, &values[got], size);
		if (r)
			break;
	}
	if (r == HELPER_EXIT)
		return r;
	for (unsigned i = 0; i < got; i++)
		if (7 - i != CPU_RSP)
			operand_set_gpr(v, 7 - i, size, values[i]);
	if (r)
		return r;
	operand_set_gpr(v, CPU_RSP, operand_stack_size(v), sp + 8u * size);
	return HELPER_NEXT;
}

/* The frame pointers of outer procedures that ENTER copies: LEVEL - 1 of them. */
static int
rare_enter_copy(struct vcpu *v, unsigned level, unsigned size, u64 *sp)
{
	u64 bp = v->gpr[CPU_RBP];

	for (unsigned i = 1; i < level; i++) {
		u64 value = 0;
		int r;

		bp -= size;
		*sp -= size;
		r = operand_stack_read(v, bp, &value, size);
		if (r == 0)
			r = operand_stack_write(v, *sp, &value, size);
		if (r)
			return r;
	}
	return 0;
}

int
rare_enter(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->opsize, level = in->imm2 & 31;
	unsigned stack = operand_stack_size(v);
	u64 sp = v->gpr[CPU_RSP] - size;
	u64 frame = sp & operand_mask(stack);
	u64 linear;
	int r = operand_stack_write(v, sp, &v->gpr[CPU_RBP], size);

	if (r)
		return r;
	if (level > 0) {
		r = rare_enter_copy(v, level, size, &sp);
		sp -= size;
		if (r == 0)
			r = operand_stack_write(v, sp, &frame, size);
		if (r)
			return r;
	}
	sp = (sp - (in->imm & 0xffff)) & operand_mask(stack);
	/* The new top must be writable, though nothing is stored there. */
	r = mmu_linear(v, CPU_SS, sp, size, true, &linear);
	if (r == 0)
		r = mmu_check_write(v, linear, size, 0);
	if (r)
		return r;
	operand_set_gpr(v, CPU_RBP, size == 2 && stack != 8 ? 2 : stack, frame);
	operand_set_gpr(v, CPU_RSP, stack, sp);
	return HELPER_NEXT;
}

int
rare_leave(struct vcpu *v, const struct insn *in)
{
	u64 bp = v->gpr[CPU_RBP], value = 0;
	int r = operand_stack_read(v, bp, &value, in->opsize);

	if (r)
		return r;
	operand_set_gpr(v, CPU_RSP, operand_stack_size(v), bp + in->opsize);
	operand_set_gpr(v, CPU_RBP, in->opsize, value);
	return HELPER_NEXT;
}

/*
 * Near control flow
 */

static int
rare_near_target(struct vcpu *v, const struct insn *in, u64 *target)
{
	if (in->opcode == 0xff)
		return rare_read_rm(v, in, target);
	*target = rare_next_rip(v, in) + in->imm;
	return 0;
}

/* The stack's faults come before those of the target, and the target's before the push. */
static int
rare_call_check(struct vcpu *v, const struct insn *in, u64 *target)
{
	u64 sp = (v->gpr[CPU_RSP] - in->opsize) & operand_mask(operand_stack_size(v));
	u64 linear;
	int r = mmu_linear(v, CPU_SS, sp, in->opsize, true, &linear);

	if (r == 0)
		r = mmu_check_write(v, linear, in->opsize, 0);
	return r ? r : operand_branch_target(v, in, target);
}

int
rare_call(struct vcpu *v, const struct insn *in)
{
	u64 target;
	int r = rare_near_target(v, in, &target);

	if (r == 0)
		r = rare_call_check(v, in, &target);
	if (r == 0)
		r = rare_push_value(v, rare_next_rip(v, in), in->opsize);
	if (r)
		return r;
	v->rip = target;
	return HELPER_JUMP;
}

int
rare_jmp(struct vcpu *v, const struct insn *in)
{
	u64 target;
	int r = rare_near_target(v, in, &target);

	if (r == 0)
		r = operand_branch_target(v, in, &target);
	if (r)
		return r;
	v->rip = target;
	return HELPER_JUMP;
}

int
rare_ret(struct vcpu *v, const struct insn *in)
{
	u64 release = in->opcode == 0xc2 ? in->imm & 0xffff : 0;
	u64 target = 0;
	int r = operand_stack_read(v, v->gpr[CPU_RSP], &target, in->opsize);

	if (r == 0)
		r = operand_branch_target(v, in, &target);
	if (r)
		return r;
	operand_set_gpr(v, CPU_RSP, operand_stack_size(v), v->gpr[CPU_RSP] + in->opsize + release);
	v->rip = target;
	return HELPER_JUMP;
}

static bool
rare_loop_taken(const struct vcpu *v, u8 opcode, u64 count)
{
	bool zero = v->rflags & RFLAGS_ZF;

	switch (opcode) {
	case 0xe0:
		return count != 0 && !zero;
	case 0xe1:
		return count != 0 && zero;
	case 0xe2:
		return count != 0;
	default:
		return count == 0;
	}
}

int
rare_loop(struct vcpu *v, const struct insn *in)
{
	u64 count = v->gpr[CPU_RCX] - (in->opcode == 0xe3 ? 0 : 1);
	u64 target = rare_next_rip(v, in) + in->imm;
	bool taken = rare_loop_taken(v, in->opcode, count & operand_mask(in->addrsize));
	int r = taken ? operand_branch_target(v, in, &target) : 0;

	if (r)
		return r;
	if (in->opcode != 0xe3)
		operand_set_gpr(v, CPU_RCX, in->addrsize, count);
	if (!taken)
		return HELPER_NEXT;
	v->rip = target;
	return HELPER_JUMP;
}
