/*
 * From bytes to struct insn, by Zydis. Nothing here judges whether an
 * instruction may run; classify.c does.
 */
#include <errno.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "engine/translator/insn.h"

static const struct {
	ZydisMachineMode machine;
	ZydisStackWidth stack;
} decode_modes[] = {
	{ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
	{ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
	{ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
};

static u8
decode_gpr(ZydisRegister reg, bool *high)
{
	ZydisRegisterClass class = ZydisRegisterGetClass(reg);

	if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) {
		*high = true;
		return (u8)(reg - ZYDIS_REGISTER_AH);
	}
	*high = false;
	switch (class) {
	case ZYDIS_REGCLASS_GPR8: {
		int id = (int)reg - ZYDIS_REGISTER_AL;

		return (u8)(id < 4 ? id : id - 4); /* AH..BH stand between BL and SPL */
	}
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return (u8)ZydisRegisterGetId(reg);
	default:
		return INSN_NO_REG;
	}
}

static u8
decode_use(const ZydisDecodedOperand *op)
{
	u8 use = 0;

	if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
		use |= INSN_READ;
	if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		use |= INSN_WRITE;
	if ((op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE) || (op->size < 32 && (use & INSN_WRITE)))
		use |= INSN_PARTIAL;
	return use;
}

static void
decode_reg_operand(struct insn *in, const ZydisDecodedOperand *op)
{
	bool high;
	u8 reg = decode_gpr(op->reg.value, &high);
	u8 use = decode_use(op);

	if (reg == INSN_NO_REG)
		return;
	if (use & (INSN_READ | INSN_PARTIAL))
		in->gpr_read |= (u16)BIT(reg);
	if (use & INSN_WRITE)
		in->gpr_written |= (u16)BIT(reg);
	switch (op->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		in->reg_use |= use;
		in->reg_high = high;
		break;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		in->rm_use |= use;
		in->rm_high = high;
		break;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		in->vvvv = reg;
		in->vvvv_use |= use;
		break;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		in->opreg_use |= use;
		in->rm = reg;
		in->rm_high = high;
		break;
	default:
		break;
	}
}

static u8
decode_segment(ZydisRegister reg)
{
	switch (reg) {
	case ZYDIS_REGISTER_ES:
		return CPU_ES;
	case ZYDIS_REGISTER_CS:
		return CPU_CS;
	case ZYDIS_REGISTER_SS:
		return CPU_SS;
	case ZYDIS_REGISTER_FS:
		return CPU_FS;
	case ZYDIS_REGISTER_GS:
		return CPU_GS;
	default:
		return CPU_DS;
	}
}

static void
decode_address(struct insn *in, const ZydisDecodedOperandMem *mem)
{
	bool high;

	in->mem = true;
	in->seg = decode_segment(mem->segment);
	in->scale = mem->scale ? mem->scale : 1;
	in->disp = mem->disp.value;
	in->base = in->index = INSN_NO_REG;
	if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
		in->base = INSN_RIP;
	else if (mem->base != ZYDIS_REGISTER_NONE)
		in->base = decode_gpr(mem->base, &high);
	if (mem->index != ZYDIS_REGISTER_NONE)
		in->index = decode_gpr(mem->index, &high);
	if (in->base < CPU_GPRS)
		in->gpr_read |= (u16)BIT(in->base);
	if (in->index < CPU_GPRS)
		in->gpr_read |= (u16)BIT(in->index);
}

static void
decode_mem_operand(struct insn *in, const ZydisDecodedOperand *op)
{
	if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
		return; /* the stack, or a string operand: helpers know */
	if (op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM &&
	    op->encoding != ZYDIS_OPERAND_ENCODING_DISP16_32_64)
		return; /* the implicit operands of string instructions and XLAT */
	decode_address(in, &op->mem);
	if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		return;
	in->mem_size = (u16)(op->size / 8);
	in->mem_read = (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
	in->mem_written = (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

static void
decode_operands(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
	unsigned imms = 0;

	for (unsigned i = 0; i < z->operand_count; i++) {
		const ZydisDecodedOperand *op = &ops[i];

		switch (op->type) {
		case ZYDIS_OPERAND_TYPE_REGISTER:
			decode_reg_operand(in, op);
			break;
		case ZYDIS_OPERAND_TYPE_MEMORY:
			decode_mem_operand(in, op);
			break;
		case ZYDIS_OPERAND_TYPE_IMMEDIATE:
			if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
				break;
			*(imms++ == 0 ? &in->imm : &in->imm2) =
				op->imm.is_signed ? (u64)op->imm.value.s : op->imm.value.u;
			break;
		case ZYDIS_OPERAND_TYPE_POINTER:
			in->imm = op->ptr.offset;
			in->imm2 = op->ptr.segment;
			break;
		default:
			break;
		}
	}
}

/* Shifts and rotates by a count that may be zero leave the flags alone then. */
static bool
decode_maybe_no_flags(const struct insn *in)
{
	if (in->mandatory || (in->prefixes & INSN_VEX))
		return false;
	if (in->map == 0 && (in->opcode == 0xd2 || in->opcode == 0xd3))
		return true;
	if (in->map == 1 && (in->opcode == 0xa5 || in->opcode == 0xad))
		return true;
	if ((in->map == 0 && (in->opcode == 0xc0 || in->opcode == 0xc1)) ||
	    (in->map == 1 && (in->opcode == 0xa4 || in->opcode == 0xac)))
		return (in->imm & (in->opsize == 8 ? 63 : 31)) == 0;
	return false;
}

/* Undefined flags that processors in fact leave as they were. */
static bool
decode_keeps_undefined(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
	case ZYDIS_MNEMONIC_LZCNT:
	case ZYDIS_MNEMONIC_TZCNT:
		return true;
	default:
		return false;
	}
}

static void
decode_flags(struct insn *in, const ZydisDecodedInstruction *z)
{
	const ZydisAccessedFlags *f = z->cpu_flags;
	u32 sure;

	if (!f)
		return;
	sure = f->modified | f->set_0 | f->set_1;
	in->flags_read = f->tested & RFLAGS_ARITH;
	in->flags_changed = (sure | f->undefined) & RFLAGS_ARITH;
	in->flags_written = decode_keeps_undefined(z->mnemonic) ? sure : sure | f->undefined;
	in->flags_written &= RFLAGS_ARITH;
	if (decode_maybe_no_flags(in))
		in->flags_written = 0;
}

static void
decode_prefixes(struct insn *in, const ZydisDecodedInstruction *z)
{
	for (unsigned i = 0; i < z->raw.prefix_count; i++) {
		u8 value = z->raw.prefixes[i].value;

		if (z->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
			in->mandatory = value;
		switch (value) {
		case 0xf0:
			in->prefixes |= INSN_LOCK;
			break;
		case 0xf3:
			in->prefixes = (u8)((in->prefixes & ~INSN_REPNE) | INSN_REP);
			break;
		case 0xf2:
			in->prefixes = (u8)((in->prefixes & ~INSN_REP) | INSN_REPNE);
			break;
		case 0x66:
			in->prefixes |= INSN_66;
			break;
		case 0x67:
			in->prefixes |= INSN_67;
			break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x64:
		case 0x65:
			in->prefixes |= INSN_SEG;
			break;
		default:
			break;
		}
	}
	if (z->attributes & ZYDIS_ATTRIB_HAS_REX) {
		in->prefixes |= INSN_REX;
		in->rex = (u8)(0x40 | z->raw.rex.W << 3 | z->raw.rex.R << 2 | z->raw.rex.X << 1 |
			       z->raw.rex.B);
	}
}

/* Instructions whose general register, or memory of its width, VEX.W would widen. */
static bool
decode_vex_w_widens(const struct insn *in)
{
	switch (in->map) {
	case 1: /* CVTSI2S*, CVT(T)S*2SI, MOVD */
		return in->opcode == 0x2a || in->opcode == 0x2c || in->opcode == 0x2d ||
		       ((in->opcode == 0x6e || in->opcode == 0x7e) && in->vex_pp == 1);
	case 2: /* ANDN, BLS*, BZHI, PDEP, PEXT, MULX, BEXTR, SHLX and kin */
		return in->opcode == 0xf2 || in->opcode == 0xf3 ||
		       (in->opcode >= 0xf5 && in->opcode <= 0xf7);
	case 3: /* PEXTRD, PINSRD, RORX; lengths of PCMPESTRM, PCMPESTRI */
		return in->opcode == 0x16 || in->opcode == 0x22 || in->opcode == 0xf0 ||
		       in->opcode == 0x60 || in->opcode == 0x61;
	default:
		return false;
	}
}

/* Outside 64-bit mode a CPU does not look at what would select registers above 7 or widths of 64
 * bits; the host, in 64-bit mode, would. */
static void
decode_vex_legacy(struct insn *in)
{
	in->rex = 0;
	in->vex_vvvv |= 8;
	if (decode_vex_w_widens(in))
		in->vex_w = 0;
}

static void
decode_encoding(struct insn *in, const ZydisDecodedInstruction *z)
{
	unsigned after;

	switch (z->opcode_map) {
	case ZYDIS_OPCODE_MAP_DEFAULT:
		in->map = 0;
		break;
	case ZYDIS_OPCODE_MAP_0F:
		in->map = 1;
		break;
	case ZYDIS_OPCODE_MAP_0F38:
		in->map = 2;
		break;
	case ZYDIS_OPCODE_MAP_0F3A:
		in->map = 3;
		break;
	default:
		in->evex_or_xop = true;
		break;
	}
	in->opcode = z->opcode;
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		in->prefixes |= INSN_VEX;
		in->vex_w = z->raw.vex.W;
		in->vex_l = z->raw.vex.L;
		in->vex_pp = z->raw.vex.pp;
		in->rex = (u8)((z->raw.vex.R ? 0 : 4) | (z->raw.vex.X ? 0 : 2) |
			       (z->raw.vex.B ? 0 : 1));
		in->vex_vvvv = z->raw.vex.vvvv;
		if (z->machine_mode != ZYDIS_MACHINE_MODE_LONG_64)
			decode_vex_legacy(in);
	} else if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
		in->evex_or_xop = true;
	}
	in->has_modrm = (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
	if (in->has_modrm) {
		after = z->raw.modrm.offset + 1u;
		if (z->attributes & ZYDIS_ATTRIB_HAS_SIB)
			after = z->raw.sib.offset + 1u;
		after += z->raw.disp.size / 8u;
		in->opcode_at = (u8)(z->raw.modrm.offset - 1);
		in->modrm = in->raw[z->raw.modrm.offset];
		in->reg = (u8)(((in->modrm >> 3) & 7) | ((in->rex & 4) ? 8 : 0));
		in->rm = (u8)((in->modrm & 7) | ((in->rex & 1) ? 8 : 0));
	} else {
		after = 0;
		while (after < in->len && in->raw[after] != in->opcode)
			after++;
		in->opcode_at = (u8)after;
		after++;
		in->rm = (u8)((in->opcode & 7) | ((in->rex & 1) ? 8 : 0));
	}
	in->tail = (u8)(in->len - after);
}

/* Zydis 4.0 takes R13D for the base where mod 00 and base 101 mean none, if REX.B is set and the
 * address has 32 bits. */
static void
decode_no_base(struct insn *in, const ZydisDecodedInstruction *z)
{
	if (!(z->attributes & ZYDIS_ATTRIB_HAS_SIB) || z->raw.modrm.mod != 0 ||
	    z->raw.sib.base != 5)
		return;
	in->base = INSN_NO_REG;
	in->disp = z->raw.disp.value;
}

static void
decode_init(ZydisDecoder *decoder, unsigned mode)
{
	unsigned which = mode == 64 ? 2 : mode == 32 ? 1 : 0;

	ZydisDecoderInit(decoder, decode_modes[which].machine, decode_modes[which].stack);
}

static int
decode_with(const ZydisDecoder *decoder, struct insn *in, const u8 *bytes, unsigned len,
	    unsigned mode)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZyanStatus status;

	status = ZydisDecoderDecodeFull(decoder, bytes, len, &z, ops);
	if (status == ZYDIS_STATUS_NO_MORE_DATA)
		return -ENODATA;
	memset(in, 0, sizeof(*in));
	in->mode = (u8)mode;
	if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
		return -E2BIG;
	if (!ZYAN_SUCCESS(status))
		return -EINVAL;
	in->len = z.length;
	memcpy(in->raw, bytes, in->len);
	in->mnemonic = (u16)z.mnemonic;
	in->isa = (u16)z.meta.isa_set;
	in->opsize = (u8)(z.operand_width / 8);
	in->addrsize = (u8)(z.address_width / 8);
	in->vvvv = INSN_NO_REG;
	in->base = in->index = INSN_NO_REG;
	in->seg = CPU_DS;
	in->scale = 1;
	decode_prefixes(in, &z);
	decode_encoding(in, &z);
	decode_operands(in, &z, ops);
	decode_no_base(in, &z);
	in->sized = in->mandatory != 0x66 && !(in->prefixes & INSN_VEX) &&
		    z.meta.isa_ext != ZYDIS_ISA_EXT_SSE && z.meta.isa_ext != ZYDIS_ISA_EXT_SSE2 &&
		    z.meta.isa_ext != ZYDIS_ISA_EXT_MMX && z.meta.isa_ext != ZYDIS_ISA_EXT_X87 &&
		    z.meta.isa_ext != ZYDIS_ISA_EXT_SSE3 && z.meta.isa_ext != ZYDIS_ISA_EXT_SSSE3 &&
		    z.meta.isa_ext != ZYDIS_ISA_EXT_SSE4;
	if (in->mnemonic == ZYDIS_MNEMONIC_BSF || in->mnemonic == ZYDIS_MNEMONIC_BSR)
		in->reg_use |= INSN_PARTIAL; /* a source of zero leaves it */
	decode_flags(in, &z);
	if (z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT)
		in->seg = decode_segment(
			z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS   ? ZYDIS_REGISTER_CS
			: z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_SS ? ZYDIS_REGISTER_SS
			: z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES ? ZYDIS_REGISTER_ES
			: z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS ? ZYDIS_REGISTER_FS
			: z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS ? ZYDIS_REGISTER_GS
								     : ZYDIS_REGISTER_DS);
	return 0;
}

int
insn_decode(struct insn *in, const u8 *bytes, unsigned len, unsigned mode)
{
	ZydisDecoder decoder;

	decode_init(&decoder, mode);
	return decode_with(&decoder, in, bytes, len, mode);
}

int
insn_decode_bit_scan(struct insn *in, const u8 *bytes, unsigned len, unsigned mode)
{
	ZydisDecoder decoder;
	int error;

	decode_init(&decoder, mode);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_TZCNT, ZYAN_FALSE);
	ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_LZCNT, ZYAN_FALSE);
	error = decode_with(&decoder, in, bytes, len, mode);
	if (error)
		return error;
	/* The host would see TZCNT again: another prefix without effect in its 64-bit mode. */
	in->prefixes &= (u8)~INSN_REP;
	for (unsigned i = 0; i < in->len && in->raw[i] != 0x0f; i++)
		if (in->raw[i] == 0xf3)
			in->raw[i] = 0x3e;
	return 0;
}
