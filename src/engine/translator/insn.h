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
	u8 reg;	 /* modrm.reg with REX.R: a register number, or the low three bits an opcode extension */
	u8 rm;	 /* modrm.rm with REX.B if it names a register; of opcodes that hold a register
		  * in their low three bits too, with REX.B */
	u8 vvvv; /* VEX.vvvv or INSN_NO_REG */
	/* Memory operand: linear = seg.base + base + index * scale + disp, cut to addrsize before the base. */
	bool mem;
	u8 seg;	  /* enum cpu_segment: override or default */
	u8 base;  /* register, INSN_RIP (address of the next instruction) or INSN_NO_REG */
	u8 index; /* register or INSN_NO_REG */
	u8 scale; /* 1, 2, 4, 8 */
	i64 disp;
	u16 mem_size;	    /* bytes accessed, 0 if none (LEA, NOP, INVLPG) */
	bool mem_read, mem_written;
	u64 imm;  /* first immediate, sign-extended as the instruction does */
	u64 imm2; /* ENTER's second, a far pointer's selector */
	u16 mnemonic; /* ZydisMnemonic */
	u16 gpr_read, gpr_written; /* masks of general registers touched, explicit or not (address ones too) */
	u32 flags_read;	   /* RFLAGS bits read */
	u32 flags_written; /* RFLAGS bits surely overwritten (undefined ones count unless the CPU may keep them) */
	u32 flags_changed; /* RFLAGS bits that may differ afterwards */
};

#endif
