/*
 * String instructions, element by element: the slow twin of leaf_string.c, and
 * the only way for MMIO, ports, elements that cross a page and odd segments.
 *
 * Each element is all or nothing, and its registers move with it: a fault or
 * an exit leaves the state of that element's start, from where the
 * instruction goes on. A repetition gives way every few elements, after each
 * one that the machine had to answer (the answers belong to one element), and
 * after each one while single-stepping or when it hit a breakpoint.
 */
#include "engine/translator/operand.h"
#include "engine/translator/port.h"
#include "engine/translator/rare.h"
#include "engine/translator/translation.h"

enum { STRING_BUDGET = 16 };

/* One element: 0 and registers moved, or a helper_result other than HELPER_NEXT. */
typedef int string_step_fn(struct vcpu *v, const struct insn *in);

enum string_end { STRING_COUNTED, STRING_COMPARED };

static unsigned
string_size(const struct insn *in)
{
	return in->opcode & 1 ? (in->opsize > 4 && in->opcode < 0x70 ? 4 : in->opsize) : 1;
}

static void
string_advance(struct vcpu *v, const struct insn *in, unsigned reg)
{
	u64 size = string_size(in);

	operand_set_gpr(v, reg, in->addrsize,
			v->rflags & RFLAGS_DF ? v->gpr[reg] - size : v->gpr[reg] + size);
}

static int
string_source(struct vcpu *v, const struct insn *in, u64 *linear)
{
	enum cpu_segment seg = in->prefixes & INSN_SEG ? (enum cpu_segment)in->seg : CPU_DS;

	return mmu_linear(v, seg, v->gpr[CPU_RSI] & operand_mask(in->addrsize), string_size(in),
			  false, linear);
}

static int
string_destination(struct vcpu *v, const struct insn *in, bool write, u64 *linear)
{
	return mmu_linear(v, CPU_ES, v->gpr[CPU_RDI] & operand_mask(in->addrsize), string_size(in),
			  write, linear);
}

static int
string_load(struct vcpu *v, const struct insn *in, u64 *value)
{
	u64 linear;
	int r = string_source(v, in, &linear);

	*value = 0;
	return r ? r : mmu_read(v, linear, value, string_size(in), 0);
}

static int
string_load_destination(struct vcpu *v, const struct insn *in, u64 *value)
{
	u64 linear;
	int r = string_destination(v, in, false, &linear);

	*value = 0;
	return r ? r : mmu_read(v, linear, value, string_size(in), 0);
}

static int
string_store(struct vcpu *v, const struct insn *in, u64 value)
{
	u64 linear;
	int r = string_destination(v, in, true, &linear);

	return r ? r : mmu_write(v, linear, &value, string_size(in), 0);
}

/* RFLAGS as CMP leaves them. */
static void
string_compare(struct vcpu *v, u64 a, u64 b, unsigned size)
{
	u64 mask = operand_mask(size), sign = 1ull << (size * 8 - 1);
	u64 result = (a - b) & mask;
	u64 flags = 0;

	if (a < b)
		flags |= RFLAGS_CF;
	if (!__builtin_parity((unsigned)(result & 0xff)))
		flags |= RFLAGS_PF;
	if ((a ^ b ^ result) & 0x10)
		flags |= RFLAGS_AF;
	if (result == 0)
		flags |= RFLAGS_ZF;
	if (result & sign)
		flags |= RFLAGS_SF;
	if ((a ^ b) & (a ^ result) & sign)
		flags |= RFLAGS_OF;
	v->rflags = (v->rflags & ~(u64)RFLAGS_ARITH) | flags;
}

static bool
string_compare_ends(const struct vcpu *v, const struct insn *in)
{
	bool zero = v->rflags & RFLAGS_ZF;

	return in->prefixes & INSN_REPNE ? zero : !zero;
}

/* A trap may be due after this element: single step, data or I/O breakpoints. */
static bool
string_watched(const struct vcpu *v)
{
	if (v->rflags & RFLAGS_TF)
		return true;
	return (v->dr7 & 0xff) && vcpu_translation(v)->watch_hits;
}

static int
string_repeat(struct vcpu *v, const struct insn *in, string_step_fn *step, enum string_end end)
{
	u64 mask = operand_mask(in->addrsize);
	u64 count = v->gpr[CPU_RCX] & mask;

	if (!(in->prefixes & (INSN_REP | INSN_REPNE)))
		return step(v, in);
	for (unsigned budget = STRING_BUDGET; count != 0; budget--) {
		int r = budget ? step(v, in) : HELPER_AGAIN;

		if (r)
			return r;
		count--;
		operand_set_gpr(v, CPU_RCX, in->addrsize, count);
		if (end == STRING_COMPARED && string_compare_ends(v, in))
			return HELPER_NEXT;
		if (count != 0 && (v->replay.next != 0 || string_watched(v)))
			return HELPER_AGAIN;
	}
	return HELPER_NEXT;
}

static int
string_movs_step(struct vcpu *v, const struct insn *in)
{
	u64 value;
	int r = string_load(v, in, &value);

	if (r == 0)
		r = string_store(v, in, value);
	if (r)
		return r;
	string_advance(v, in, CPU_RSI);
	string_advance(v, in, CPU_RDI);
	return 0;
}

static int
string_cmps_step(struct vcpu *v, const struct insn *in)
{
	u64 a, b;
	int r = string_load_destination(v, in, &b); /* faults first, as on real CPUs */

	if (r == 0)
		r = string_load(v, in, &a);
	if (r)
		return r;
	string_compare(v, a, b, string_size(in));
	string_advance(v, in, CPU_RSI);
	string_advance(v, in, CPU_RDI);
	return 0;
}

static int
string_stos_step(struct vcpu *v, const struct insn *in)
{
	int r = string_store(v, in, v->gpr[CPU_RAX]);

	if (r == 0)
		string_advance(v, in, CPU_RDI);
	return r;
}

static int
string_lods_step(struct vcpu *v, const struct insn *in)
{
	u64 value;
	int r = string_load(v, in, &value);

	if (r)
		return r;
	operand_set_gpr(v, CPU_RAX, string_size(in), value);
	string_advance(v, in, CPU_RSI);
	return 0;
}

static int
string_scas_step(struct vcpu *v, const struct insn *in)
{
	unsigned size = string_size(in);
	u64 value;
	int r = string_load_destination(v, in, &value);

	if (r)
		return r;
	string_compare(v, v->gpr[CPU_RAX] & operand_mask(size), value, size);
	string_advance(v, in, CPU_RDI);
	return 0;
}

int
string_movs(struct vcpu *v, const struct insn *in)
{
	return string_repeat(v, in, string_movs_step, STRING_COUNTED);
}

int
string_cmps(struct vcpu *v, const struct insn *in)
{
	return string_repeat(v, in, string_cmps_step, STRING_COMPARED);
}

int
string_stos(struct vcpu *v, const struct insn *in)
{
	return string_repeat(v, in, string_stos_step, STRING_COUNTED);
}

int
string_lods(struct vcpu *v, const struct insn *in)
{
	return string_repeat(v, in, string_lods_step, STRING_COUNTED);
}

int
string_scas(struct vcpu *v, const struct insn *in)
{
	return string_repeat(v, in, string_scas_step, STRING_COMPARED);
}

/*
 * INS and OUTS
 */

static int
string_ins_step(struct vcpu *v, const struct insn *in)
{
	u16 port = (u16)v->gpr[CPU_RDX];
	unsigned size = string_size(in);
	u32 value = 0;
	u64 linear;
	int r = string_destination(v, in, true, &linear);

	/* A port may not be read if the value then has nowhere to go. */
	if (r == 0)
		r = mmu_check_write(v, linear, size, 0);
	if (r == 0)
		r = mmu_port_read(v, port, size, &value);
	if (r == 0)
		r = mmu_write(v, linear, &value, size, 0);
	if (r)
		return r;
	string_advance(v, in, CPU_RDI);
	port_watch(v, port, size);
	return 0;
}

static int
string_outs_step(struct vcpu *v, const struct insn *in)
{
	u16 port = (u16)v->gpr[CPU_RDX];
	unsigned size = string_size(in);
	u64 value;
	int r = string_load(v, in, &value);

	if (r == 0)
		r = mmu_port_write(v, port, size, (u32)value);
	if (r)
		return r;
	string_advance(v, in, CPU_RSI);
	port_watch(v, port, size);
	return 0;
}

/* The right to the port is looked at even if nothing is to be transferred. */
static int
string_ports(struct vcpu *v, const struct insn *in, string_step_fn *step)
{
	int r = port_check(v, (u16)v->gpr[CPU_RDX], string_size(in));

	return r ? r : string_repeat(v, in, step, STRING_COUNTED);
}

int
string_ins(struct vcpu *v, const struct insn *in)
{
	return string_ports(v, in, string_ins_step);
}

int
string_outs(struct vcpu *v, const struct insn *in)
{
	return string_ports(v, in, string_outs_step);
}
