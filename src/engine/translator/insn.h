/*
 * One guest instruction in the form that the translator and its helpers use:
 * what the decoder found, operands resolved to registers and addresses.
 */
#ifndef TRANSLATOR_INSN_H
#define TRANSLATOR_INSN_H

#include "base/types.h"
#include "cpu/cpu_state.h"

enum { INSN_MAX = 15, INSN_NO_REG = 0xff, INSN_RIP = 0xfe };

enum insn_prefix {
	INSN_LOCK = BIT(0),
	INSN_REP = BIT(1),   /* F3 */
	INSN_REPNE = BIT(2), /* F2 */
	INSN_66 = BIT(3),
	INSN_67 = BIT(4),
	INSN_SEG = BIT(5), /* any segment override */
	INSN_REX = BIT(6),
	INSN_VEX = BIT(7),
};

struct insn {
	u8 raw[INSN_MAX];
	u8 len;
	u8 mode;     /* 16, 32 or 64: the code segment's */
	u8 prefixes; /* enum insn_prefix */
	u8 rex;	     /* the REX byte or 0 */
	u8 map;	     /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A */
	u8 opcode;
	u8 opsize;   /* effective operand size in bytes: 2, 4, 8 (64-bit defaults applied) */
	u8 addrsize; /* 2, 4, 8 */
	bool has_modrm;
	u8 modrm;
	u8 reg;	 /* modrm.reg with REX.R: a register number, or the low three bits an opcode
		    extension */
	u8 rm;	 /* modrm.rm with REX.B if it names a register; of opcodes that hold a register
		  * in their low three bits too, with REX.B */
	u8 vvvv; /* VEX.vvvv or INSN_NO_REG */
	/* Memory operand: linear = seg.base + base + index * scale + disp, cut to addrsize before
	 * the base. */
	bool mem;
	u8 seg;	  /* enum cpu_segment: override or default */
	u8 base;  /* register, INSN_RIP (address of the next instruction) or INSN_NO_REG */
	u8 index; /* register or INSN_NO_REG */
	u8 scale; /* 1, 2, 4, 8 */
	i64 disp;
	u16 mem_size; /* bytes accessed, 0 if none (LEA, NOP, INVLPG) */
	bool mem_read, mem_written;
	u64 imm;		   /* first immediate, sign-extended as the instruction does */
	u64 imm2;		   /* ENTER's second, a far pointer's selector */
	u16 mnemonic;		   /* ZydisMnemonic */
	u16 gpr_read, gpr_written; /* masks of general registers touched, explicit or not (address
				      ones too) */
	u32 flags_read;		   /* RFLAGS bits read */
	u32 flags_written; /* RFLAGS bits surely overwritten (undefined ones count unless the CPU
			      may keep them) */
	u32 flags_changed; /* RFLAGS bits that may differ afterwards */
	/* For re-encoding: where registers stand in the bytes, and what else there is. */
	u8 tail;				 /* bytes of immediate at the end of raw */
	u8 opcode_at;				 /* offset in raw of the opcode byte */
	u8 vex_w, vex_l, vex_pp, vex_vvvv;	 /* vvvv as it stands in the bytes (inverted) */
	u8 mandatory;				 /* F2, F3 or 66 that is part of the opcode, or 0 */
	u8 sized;				 /* operand size follows mode and prefix 66 */
	u8 reg_use, rm_use, vvvv_use, opreg_use; /* enum insn_use of a general register there */
	bool reg_high, rm_high;			 /* AH, CH, DH, BH */
	u16 isa;				 /* ZydisISASet */
	bool evex_or_xop;
};

enum insn_use {
	INSN_READ = 1,
	INSN_WRITE = 2,
	INSN_PARTIAL = 4 /* written only in part, or perhaps */
};

/* Decodes up to LEN bytes of code of MODE (16, 32, 64). 0, -ENODATA if more bytes are needed,
 * -E2BIG if it is longer than 15 bytes (#GP), or -EINVAL if this is no instruction (#UD).  */
int insn_decode(struct insn *in, const u8 *bytes, unsigned len, unsigned mode);
/* The same for a processor that has neither TZCNT nor LZCNT: it ignores their prefix, and sees
 * BSF and BSR, which is what kernels mean by "rep bsf". */
int insn_decode_bit_scan(struct insn *in, const u8 *bytes, unsigned len, unsigned mode);

#endif
