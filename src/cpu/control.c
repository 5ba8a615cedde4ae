/*
 * See control.h.
 */
#include "cpu/control.h"

#include "cpu/cpu_state.h"

enum { EAX, EBX, ECX, EDX };

u64
cpu_control_cr4(const struct cpu_model *model)
{
	static const struct {
		u32 cr4, leaf;
		u8 reg, bit;
	} rows[] = {
		{CR4_VME | CR4_PVI, 1, EDX, 1}, {CR4_DE, 1, EDX, 2},
		{CR4_PSE, 1, EDX, 3},		{CR4_TSD, 1, EDX, 4},
		{CR4_PAE, 1, EDX, 6},		{CR4_MCE, 1, EDX, 7},
		{CR4_PGE, 1, EDX, 13},		{CR4_OSFXSR, 1, EDX, 24},
		{CR4_OSXMMEXCPT, 1, EDX, 25},	{CR4_PCIDE, 1, ECX, 17},
		{CR4_OSXSAVE, 1, ECX, 26},	{CR4_FSGSBASE, 7, EBX, 0},
		{CR4_SMEP, 7, EBX, 7},		{CR4_SMAP, 7, EBX, 20},
		{CR4_UMIP, 7, ECX, 2},
	};
	u64 allowed = CR4_PCE;

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		if (cpu_model_has(model, rows[i].leaf, 0, rows[i].reg, rows[i].bit))
			allowed |= rows[i].cr4;
	}
	return allowed;
}

u64
cpu_control_efer(const struct cpu_model *model)
{
	u64 allowed = EFER_SCE;

	if (cpu_model_has(model, 0x80000001, 0, EDX, 29))
		allowed |= EFER_LME | EFER_LMA;
	if (cpu_model_has(model, 0x80000001, 0, EDX, 20))
		allowed |= EFER_NXE;
	if (cpu_model_has(model, 0x80000001, 0, EDX, 25))
		allowed |= EFER_FFXSR;
	return allowed;
}

bool
cpu_control_consistent(u64 cr0, u64 cr4, u64 efer)
{
	bool lma = efer & EFER_LMA;

	if (cr0 >> 32 || ((cr0 & CR0_PG) && !(cr0 & CR0_PE)) || ((cr0 & CR0_NW) && !(cr0 & CR0_CD)))
		return false;
	if (lma != ((cr0 & CR0_PG) && (efer & EFER_LME)))
		return false;
	if (lma && !(cr4 & CR4_PAE))
		return false;
	return lma || !(cr4 & CR4_PCIDE);
}

bool
cpu_control_xcr0(const struct cpu_model *model, u64 value)
{
	const u64 x87 = BIT(0), sse = BIT(1), avx = BIT(2), avx512 = 7u << 5;
	u32 leaf[4];

	cpu_model_cpuid(model, 0, CR4_OSXSAVE, 1, 0xd, 0, leaf);
	if (value == x87) /* also where there is no XSAVE */
		return true;
	if (value & ~(leaf[EAX] | (u64)leaf[EDX] << 32))
		return false;
	if (!(value & x87) || ((value & avx) && !(value & sse)))
		return false;
	return !(value & avx512) || ((value & avx512) == avx512 && (value & avx));
}
