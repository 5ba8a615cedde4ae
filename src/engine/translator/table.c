/*
 * The one table from an instruction to the C helper that does it. What is not
 * here is re-encoded, or does not exist.
 */
#include "engine/translator/privileged.h"
#include "engine/translator/rare.h"
#include "engine/translator/system.h"

static helper_fn *const table_map0[256] = {
	[0x06] = segment_push,
	[0x07] = segment_pop,
	[0x0e] = segment_push,
	[0x16] = segment_push,
	[0x17] = segment_pop,
	[0x1e] = segment_push,
	[0x1f] = segment_pop,
	[0x27] = rare_bcd,
	[0x2f] = rare_bcd,
	[0x37] = rare_bcd,
	[0x3f] = rare_bcd,
	[0x50 ... 0x57] = rare_push,
	[0x58 ... 0x5f] = rare_pop,
	[0x60] = rare_pusha,
	[0x61] = rare_popa,
	[0x62] = rare_bound,
	[0x68] = rare_push,
	[0x6a] = rare_push,
	[0x6c ... 0x6d] = string_ins,
	[0x6e ... 0x6f] = string_outs,
	[0x8c] = segment_mov_from,
	[0x8e] = segment_mov_to,
	[0x8f] = rare_pop,
	[0x9a] = far_call,
	[0x9c] = flags_pushf,
	[0x9d] = flags_popf,
	[0xa4 ... 0xa5] = string_movs,
	[0xa6 ... 0xa7] = string_cmps,
	[0xaa ... 0xab] = string_stos,
	[0xac ... 0xad] = string_lods,
	[0xae ... 0xaf] = string_scas,
	[0xc2 ... 0xc3] = rare_ret,
	[0xc4 ... 0xc5] = segment_load_far,
	[0xc8] = rare_enter,
	[0xc9] = rare_leave,
	[0xca ... 0xcb] = far_return,
	[0xcc] = interrupt_int,
	[0xce] = interrupt_int,
	[0xcf] = interrupt_iret,
	[0xd4 ... 0xd5] = rare_bcd,
	[0xd6] = rare_salc,
	[0xd7] = rare_xlat,
	[0xe0 ... 0xe3] = rare_loop,
	[0xe4 ... 0xe5] = port_in,
	[0xe6 ... 0xe7] = port_out,
	[0xe8] = rare_call,
	[0xe9] = rare_jmp,
	[0xea] = far_jump,
	[0xeb] = rare_jmp,
	[0xec ... 0xed] = port_in,
	[0xee ... 0xef] = port_out,
	[0xf1] = interrupt_int,
	[0xf4] = instance_hlt,
	[0xfa] = flags_cli,
	[0xfb] = flags_sti,
};

static helper_fn *const table_map1[256] = {
	[0x00] = table_group6,	   [0x02 ... 0x03] = table_lar_lsl,
	[0x05] = syscall_syscall,  [0x06] = control_clts,
	[0x07] = syscall_sysret,   [0x08 ... 0x09] = control_wbinvd,
	[0x0b] = instance_ud,	   [0x20] = control_mov_cr,
	[0x21] = control_mov_dr,   [0x22] = control_mov_cr,
	[0x23] = control_mov_dr,   [0x30] = instance_wrmsr,
	[0x31] = instance_rdtsc,   [0x32] = instance_rdmsr,
	[0x33] = instance_rdpmc,   [0x34] = syscall_sysenter,
	[0x35] = syscall_sysexit,  [0x37] = instance_ud,
	[0xa0] = segment_push,	   [0xa1] = segment_pop,
	[0xa2] = instance_cpuid,   [0xa8] = segment_push,
	[0xa9] = segment_pop,	   [0xaa] = instance_ud,
	[0xb2] = segment_load_far, [0xb4 ... 0xb5] = segment_load_far,
	[0xb9] = instance_ud,	   [0xf7] = vector_maskmov_bytes,
	[0xff] = instance_ud,
};

/* 0F 01 with a register form: the whole byte is the opcode. */
static helper_fn *
table_group7_register(const struct insn *in)
{
	switch (in->modrm) {
	case 0xc1: /* VMCALL */
	case 0xd9: /* VMMCALL */
		return instance_vmcall;
	case 0xca:
	case 0xcb:
		return flags_ac;
	case 0xd0:
		return control_xgetbv;
	case 0xd1:
		return control_xsetbv;
	case 0xf8:
		return segment_swapgs;
	case 0xf9:
		return instance_rdtscp;
	default:
		break;
	}
	switch (in->reg & 7) {
	case 4:
		return control_smsw;
	case 6:
		return control_lmsw;
	default:
		return instance_ud;
	}
}

static helper_fn *
table_group7(const struct insn *in)
{
	static helper_fn *const memory[8] = {
		table_store,  table_store, table_load,	 table_load,
		control_smsw, instance_ud, control_lmsw, control_invlpg,
	};

	return in->mem ? memory[in->reg & 7] : table_group7_register(in);
}

static helper_fn *
table_group15(const struct insn *in)
{
	static helper_fn *const memory[8] = {
		xstate_fxsave, xstate_fxrstor, xstate_ldmxcsr,	xstate_stmxcsr,
		xstate_xsave,  xstate_xrstor,  xstate_xsaveopt, control_clflush,
	};
	unsigned reg = in->reg & 7;

	if (!in->mem) /* fences are re-encoded */
		return (in->prefixes & INSN_REP) && reg < 4 ? segment_fsgsbase : NULL;
	if (in->prefixes & (INSN_REP | INSN_REPNE))
		return instance_ud; /* PTWRITE, CLRSSBSY */
	if (reg == 6 && (in->prefixes & INSN_66))
		return control_clflush; /* CLWB */
	return memory[reg];
}

/* 0F C7: CMPXCHG8B, RDRAND and RDSEED are re-encoded. */
static helper_fn *
table_group9(const struct insn *in)
{
	unsigned reg = in->reg & 7;

	if (in->mem && reg == 4)
		return xstate_xsavec;
	if (in->mem && reg != 1)
		return instance_ud;
	if (!in->mem && reg == 7 && (in->prefixes & INSN_REP))
		return instance_rdpid;
	return NULL;
}

static helper_fn *
table_x87(const struct insn *in)
{
	unsigned reg = in->reg & 7;

	if (!in->mem)
		return NULL;
	if (in->opcode == 0xd9)
		return reg == 4 ? xstate_fldenv : reg == 6 ? xstate_fnstenv : NULL;
	return reg == 4 ? xstate_frstor : reg == 6 ? xstate_fnsave : NULL;
}

static helper_fn *
table_group5(const struct insn *in)
{
	static helper_fn *const group[8] = {
		[2] = rare_call, [3] = far_call, [4] = rare_jmp, [5] = far_jump, [6] = rare_push,
	};

	return group[in->reg & 7];
}

static helper_fn *
table_one_byte(const struct insn *in)
{
	switch (in->opcode) {
	case 0x63: /* MOVSXD in 64-bit code */
		return in->mode == 64 ? NULL : table_arpl;
	case 0xcd:
		return interrupt_int;
	case 0xd9:
	case 0xdd:
		return table_x87(in);
	case 0xff:
		return table_group5(in);
	default:
		return table_map0[in->opcode];
	}
}

static helper_fn *
table_two_byte(const struct insn *in)
{
	switch (in->opcode) {
	case 0x01:
		return table_group7(in);
	case 0xae:
		return table_group15(in);
	case 0xc7:
		return table_group9(in);
	default:
		return table_map1[in->opcode];
	}
}

static helper_fn *
table_vex(const struct insn *in)
{
	if (in->map == 1 && in->opcode == 0xf7)
		return vector_maskmov_bytes;
	if (in->map == 1 && in->opcode == 0xae && in->mem)
		return (in->reg & 7) == 2   ? xstate_ldmxcsr
		       : (in->reg & 7) == 3 ? xstate_stmxcsr
					    : NULL;
	if (in->map != 2)
		return NULL;
	switch (in->opcode) {
	case 0x2c ... 0x2f:
	case 0x8c:
	case 0x8e:
		return vector_maskmov;
	case 0x90 ... 0x93:
		return vector_gather;
	default:
		return NULL;
	}
}

helper_fn *
system_helper(const struct insn *in)
{
	if (in->prefixes & INSN_VEX)
		return table_vex(in);
	switch (in->map) {
	case 0:
		return table_one_byte(in);
	case 1:
		return table_two_byte(in);
	case 2:
		if (in->opcode == 0x80 || in->opcode == 0x81)
			return instance_ud; /* INVEPT, INVVPID */
		return in->opcode == 0x82 ? control_invpcid : NULL;
	default:
		return NULL;
	}
}
