/*
 * What becomes of each instruction: re-encoded, generated, or left to C. What
 * the VM's CPU model does not offer is #UD here, whatever the host can do.
 */
#include <Zydis/Zydis.h>

#include "engine/translator/build.h"
#include "engine/translator/leaf/leaf_system.h"
#include "engine/translator/rare.h"
#include "engine/translator/system.h"

static int
classify_ud(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return vcpu_raise(v, VECTOR_UD);
}

static int
classify_nm(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return vcpu_raise(v, VECTOR_NM);
}

/* FWAIT faults only if MP is set as well as TS, which no mode key says. */
static int
classify_fwait(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return (v->cr0 & CR0_MP) && (v->cr0 & CR0_TS) ? vcpu_raise(v, VECTOR_NM) : HELPER_NEXT;
}

/* The state that an instruction set needs enabled. */
enum unit { UNIT_NONE, UNIT_X87, UNIT_MMX, UNIT_SSE, UNIT_AVX, UNIT_VEX_GPR };

struct isa_rule {
	bool allowed;
	u8 unit;
	u32 leaf; /* CPUID bit that offers it; 0: always there */
	u8 reg, bit;
};

enum { EAX, EBX, ECX, EDX };

static const struct isa_rule isa_rules[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
	[ZYDIS_ISA_SET_I86] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_I186] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_I286PROTECTED] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_I286REAL] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_I386] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_I486] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_I486REAL] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_PENTIUMREAL] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_PPRO] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_CMOV] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_FAT_NOP] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_PREFETCH_NOP] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_SSE_PREFETCH] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_PREFETCHWT1] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_LAHF] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_LONGMODE] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_PAUSE] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_AMD] = {true, UNIT_NONE, 0, 0, 0},
	[ZYDIS_ISA_SET_CMPXCHG16B] = {true, UNIT_NONE, 1, ECX, 13},
	[ZYDIS_ISA_SET_POPCNT] = {true, UNIT_NONE, 1, ECX, 23},
	[ZYDIS_ISA_SET_MOVBE] = {true, UNIT_NONE, 1, ECX, 22},
	[ZYDIS_ISA_SET_LZCNT] = {true, UNIT_NONE, 0x80000001, ECX, 5},
	[ZYDIS_ISA_SET_ADOX_ADCX] = {true, UNIT_NONE, 7, EBX, 19},
	[ZYDIS_ISA_SET_RDRAND] = {true, UNIT_NONE, 1, ECX, 30},
	[ZYDIS_ISA_SET_RDSEED] = {true, UNIT_NONE, 7, EBX, 18},
	[ZYDIS_ISA_SET_BMI1] = {true, UNIT_VEX_GPR, 7, EBX, 3},
	[ZYDIS_ISA_SET_BMI2] = {true, UNIT_VEX_GPR, 7, EBX, 8},
	[ZYDIS_ISA_SET_X87] = {true, UNIT_X87, 0, 0, 0},
	[ZYDIS_ISA_SET_FCMOV] = {true, UNIT_X87, 0, 0, 0},
	[ZYDIS_ISA_SET_SSE3X87] = {true, UNIT_X87, 1, ECX, 0},
	[ZYDIS_ISA_SET_PENTIUMMMX] = {true, UNIT_MMX, 1, EDX, 23},
	[ZYDIS_ISA_SET_SSE2MMX] = {true, UNIT_MMX, 1, EDX, 26},
	[ZYDIS_ISA_SET_SSSE3MMX] = {true, UNIT_MMX, 1, ECX, 9},
	[ZYDIS_ISA_SET_SSE] = {true, UNIT_SSE, 1, EDX, 25},
	[ZYDIS_ISA_SET_SSEMXCSR] = {true, UNIT_SSE, 1, EDX, 25},
	[ZYDIS_ISA_SET_SSE2] = {true, UNIT_SSE, 1, EDX, 26},
	[ZYDIS_ISA_SET_SSE3] = {true, UNIT_SSE, 1, ECX, 0},
	[ZYDIS_ISA_SET_SSSE3] = {true, UNIT_SSE, 1, ECX, 9},
	[ZYDIS_ISA_SET_SSE4] = {true, UNIT_SSE, 1, ECX, 19},
	[ZYDIS_ISA_SET_SSE42] = {true, UNIT_SSE, 1, ECX, 20},
	[ZYDIS_ISA_SET_AES] = {true, UNIT_SSE, 1, ECX, 25},
	[ZYDIS_ISA_SET_PCLMULQDQ] = {true, UNIT_SSE, 1, ECX, 1},
	[ZYDIS_ISA_SET_SHA] = {true, UNIT_SSE, 7, EBX, 29},
	[ZYDIS_ISA_SET_GFNI] = {true, UNIT_SSE, 7, ECX, 8},
	[ZYDIS_ISA_SET_AVX] = {true, UNIT_AVX, 1, ECX, 28},
	[ZYDIS_ISA_SET_AVXAES] = {true, UNIT_AVX, 1, ECX, 28},
	[ZYDIS_ISA_SET_AVX2] = {true, UNIT_AVX, 7, EBX, 5},
	[ZYDIS_ISA_SET_AVX2GATHER] = {true, UNIT_AVX, 7, EBX, 5},
	[ZYDIS_ISA_SET_F16C] = {true, UNIT_AVX, 1, ECX, 29},
	[ZYDIS_ISA_SET_FMA] = {true, UNIT_AVX, 1, ECX, 12},
	[ZYDIS_ISA_SET_VAES] = {true, UNIT_AVX, 7, ECX, 9},
	[ZYDIS_ISA_SET_VPCLMULQDQ] = {true, UNIT_AVX, 7, ECX, 10},
	[ZYDIS_ISA_SET_AVX_GFNI] = {true, UNIT_AVX, 7, ECX, 8},
};

/* The helper that refuses IN because its unit is off, or NULL. */
static helper_fn *
classify_unit(u32 mode, enum unit unit)
{
	switch (unit) {
	case UNIT_NONE:
		return NULL;
	case UNIT_X87:
		return (mode & MODE_NO_X87) ? classify_nm : NULL;
	case UNIT_MMX:
		return (mode & MODE_TS) ? classify_nm : (mode & MODE_NO_X87) ? classify_ud : NULL;
	case UNIT_SSE:
		return (mode & MODE_NO_SSE) ? classify_ud : (mode & MODE_TS) ? classify_nm : NULL;
	case UNIT_AVX:
		return (mode & MODE_NO_AVX) ? classify_ud : (mode & MODE_TS) ? classify_nm : NULL;
	case UNIT_VEX_GPR:
		return (mode & MODE_PROTECTED) ? NULL : classify_ud;
	}
	return classify_ud;
}

static void
classify_helper(struct build_insn *bi, helper_fn *fn)
{
	bi->kind = BUILD_HELPER;
	bi->fn = fn;
}

/* Instructions that touch the stack or RIP are generated only where it is simple. */
static bool
classify_simple_stack(const struct build *b, const struct insn *in)
{
	if (b->mode & MODE_CODE64)
		return in->opsize == 8;
	return (b->mode & MODE_CODE32) && (b->mode & MODE_STACK32) && (b->mode & MODE_FLAT_DATA) &&
	       (b->mode & MODE_FLAT_CODE) && in->opsize == 4;
}

static bool
classify_flow_1(struct build *b, struct build_insn *bi)
{
	const struct insn *in = &bi->in;

	if (in->opcode < 0x80 || in->opcode > 0x8f)
		return false;
	bi->kind = BUILD_JCC;
	(void)b;
	return true;
}

/* The opcode group FF: CALL, JMP and PUSH of an operand. */
static bool
classify_group_ff(struct build *b, struct build_insn *bi)
{
	bool simple = classify_simple_stack(b, &bi->in);

	switch (bi->in.reg & 7) {
	case 2:
		bi->kind = BUILD_CALL_INDIRECT;
		bi->fn = rare_call;
		break;
	case 4:
		bi->kind = BUILD_JMP_INDIRECT;
		bi->fn = rare_jmp;
		break;
	case 6:
		bi->kind = BUILD_PUSH;
		bi->fn = rare_push;
		break;
	default:
		return false;
	}
	if (!simple || (bi->kind == BUILD_PUSH && !bi->in.mem))
		bi->kind = BUILD_HELPER;
	return true;
}

static void
classify_stack(struct build *b, struct build_insn *bi, enum build_kind kind, helper_fn *slow)
{
	bi->kind = classify_simple_stack(b, &bi->in) ? kind : BUILD_HELPER;
	bi->fn = slow;
}

static bool
classify_flow_0(struct build *b, struct build_insn *bi)
{
	const struct insn *in = &bi->in;

	switch (in->opcode) {
	case 0x50 ... 0x57:
	case 0x68:
	case 0x6a:
		classify_stack(b, bi, BUILD_PUSH, rare_push);
		return true;
	case 0x58 ... 0x5f:
		classify_stack(b, bi, BUILD_POP, rare_pop);
		return true;
	case 0x8f:
		classify_helper(bi, rare_pop);
		return true;
	case 0x70 ... 0x7f:
		bi->kind = BUILD_JCC;
		return true;
	case 0xc2:
	case 0xc3:
		classify_stack(b, bi, BUILD_RET, rare_ret);
		return true;
	case 0xc9:
		classify_stack(b, bi, BUILD_LEAVE, rare_leave);
		return true;
	case 0xe0 ... 0xe3:
		if (in->addrsize == 2)
			classify_helper(bi, rare_loop);
		else
			bi->kind = BUILD_LOOP;
		return true;
	case 0xe8:
		classify_stack(b, bi, BUILD_CALL, rare_call);
		return true;
	case 0xe9:
	case 0xeb:
		bi->kind = BUILD_JMP;
		return true;
	case 0xfc:
		bi->kind = BUILD_CLD;
		return true;
	case 0xfd:
		bi->kind = BUILD_STD;
		return true;
	case 0xff:
		return classify_group_ff(b, bi);
	default:
		return false;
	}
}

static bool
classify_string(struct build_insn *bi)
{
	switch (bi->in.opcode) {
	case 0xa4 ... 0xa7:
	case 0xaa ... 0xaf:
		return bi->in.map == 0;
	default:
		return false;
	}
}

static void
classify_system(struct build *b, struct build_insn *bi, helper_fn *fn)
{
	classify_helper(bi, fn);
	if ((b->mode & MODE_SINGLE) || (b->v->engine->options & OPTION_NOLEAF))
		return;
	bi->leaf =
		classify_string(bi) && !(b->mode & MODE_ALIGN) ? leaf_string : leaf_system(&bi->in);
	if (!bi->leaf)
		return;
	bi->kind = fast_has(b, &bi->in) ? BUILD_FAST : BUILD_LEAF;
	if ((bi->in.map == 1 && (bi->in.opcode == 0x05 || bi->in.opcode == 0x07)) ||
	    (bi->in.map == 0 && bi->in.opcode == 0xcf))
		bi->kind = BUILD_LEAF_END;
}

/* A LOCK prefix where none may be, or on a register. */
static bool
classify_bad_lock(const struct insn *in)
{
	return (in->prefixes & INSN_LOCK) && !(in->mem && in->mem_written);
}

static bool
classify_nop(const struct insn *in)
{
	if (in->map == 0)
		return in->opcode == 0x90 && !(in->prefixes & INSN_REP) && !(in->rex & 1);
	return in->map == 1 && ((in->opcode >= 0x18 && in->opcode <= 0x1f) || in->opcode == 0x0d);
}

/* Instructions of the SSE sets that touch no vector state. */
static bool
classify_no_vector(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
	case ZYDIS_MNEMONIC_MOVNTI:
	case ZYDIS_MNEMONIC_CRC32:
		return true;
	default:
		return false;
	}
}

/* LDMXCSR and STMXCSR act on the host's own register, which is the guest's. */
static bool
classify_mxcsr(const struct insn *in)
{
	return in->map == 1 && in->opcode == 0xae && in->mem && !in->mandatory &&
	       ((in->reg & 7) == 2 || (in->reg & 7) == 3);
}

void
classify(struct build *b, struct build_insn *bi)
{
	const struct insn *in = &bi->in;
	const struct isa_rule *rule = &isa_rules[in->isa];
	bool legacy = !(in->prefixes & INSN_VEX);
	helper_fn *fn;

	if (in->evex_or_xop || classify_bad_lock(in)) {
		classify_helper(bi, classify_ud);
		return;
	}
	if (legacy &&
	    ((in->map == 0 && classify_flow_0(b, bi)) || (in->map == 1 && classify_flow_1(b, bi))))
		return;
	if (legacy && classify_nop(in)) { /* ENDBR and other newer hints too */
		bi->kind = BUILD_NOTHING;
		return;
	}
	if (in->mnemonic == ZYDIS_MNEMONIC_FWAIT && (b->mode & MODE_NO_X87)) {
		classify_helper(bi, classify_fwait);
		return;
	}
	fn = rule->allowed && !classify_no_vector(in) ? classify_unit(b->mode, rule->unit) : NULL;
	if (fn) {
		classify_helper(bi, fn);
		return;
	}
	if (in->map == 1 && in->opcode == 0x77 && !legacy && in->mode != 64) {
		classify_helper(bi, vector_zero); /* natively it would clear YMM8 to 15 too */
		return;
	}
	fn = classify_mxcsr(in) ? NULL : system_helper(in);
	if (fn) {
		classify_system(b, bi, fn);
		return;
	}
	if (!rule->allowed ||
	    (rule->leaf && !cpu_model_has(b->v->model, rule->leaf, 0, rule->reg, rule->bit))) {
		classify_helper(bi, classify_ud);
		return;
	}
	if (legacy && in->map == 0 && in->opcode == 0x8d)
		bi->kind = BUILD_LEA;
	else if (in->mem && in->mem_size == 0)
		classify_helper(
			bi,
			classify_ud); /* a form unknown here touches no memory we could translate */
	else
		bi->kind = BUILD_NATIVE;
}

bool
classify_aligned(const struct insn *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_CMPXCHG16B:
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
		return true;
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return false;
	default:
		/* AMD's SHA instructions take any address; on others the host says so inside a
		 * page. */
		return !(in->prefixes & INSN_VEX) && in->mem_size == 16 &&
		       in->isa != ZYDIS_ISA_SET_SHA && isa_rules[in->isa].unit == UNIT_SSE;
	}
}

bool
classify_ends_block(const struct build_insn *bi)
{
	switch (bi->kind) {
	case BUILD_HELPER:
	case BUILD_LEAF_END:
	case BUILD_CALL:
	case BUILD_CALL_INDIRECT:
	case BUILD_JMP:
	case BUILD_JMP_INDIRECT:
	case BUILD_RET:
		return true;
	default:
		return false;
	}
}
