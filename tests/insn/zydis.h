/*
 * Decoding as the generator needs it, and what makes two encodings one form.
 */
#ifndef INSN_ZYDIS_H
#define INSN_ZYDIS_H

#include <Zydis/Zydis.h>

#include "case.h"

struct decoded {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

/* false if BYTES do not begin with an instruction */
bool form_decode(unsigned mode, const u8 *bytes, unsigned len, struct decoded *d);
/* Equal for instructions that differ in registers, addresses and immediates only. */
u64 form_signature(const struct decoded *d);

#endif
