/*
 * See judge.h. AMD64 APM 2, 3.1 (control registers), 14.6 (long mode), 15.5.1
 * (consistency of a guest's state).
 */
#include "engine/kvm/judge.h"

#include "base/bytes.h"

enum { EAX, EBX, ECX, EDX };
enum {
	APIC_BASE_EXTD = BIT(10),
	APIC_BASE_EN = BIT(11),
	REG_ID = 0x02,
	DR_UPPER_SHIFT = 32,
};
#define JUDGE_RFLAGS_RESERVED 0xffffffffffc08028ull

static bool
judge_canonical(u64 address)
{
	return (u64)((i64)(address << 16) >> 16) == address;
}

static u64
judge_cr4_allowed(const struct cpu_model *model)
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

static u64
judge_efer_allowed(const struct cpu_model *model)
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

static bool
judge_control(const struct cpu_state *s, const struct cpu_model *model)
{
	u64 efer = s->msr.efer;
	bool lma = efer & EFER_LMA;

	if ((s->cr4 & ~judge_cr4_allowed(model)) || (efer & ~judge_efer_allowed(model)))
		return false;
	if (s->cr0 >> 32 || ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE)) ||
	    ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD)))
		return false;
	if (lma != ((s->cr0 & CR0_PG) && (efer & EFER_LME)) || (lma && !(s->cr4 & CR4_PAE)))
		return false;
	if (!lma && (s->cr4 & CR4_PCIDE))
		return false;
	return !(s->cr3 >> model->phys_bits) && s->cr8 <= 15;
}

static bool
judge_xcr0(const struct cpu_state *s, const struct cpu_model *model)
{
	u64 allowed = cpu_model_has(model, 1, 0, ECX, 26) ? 3 : 1;

	if (cpu_model_has(model, 1, 0, ECX, 28))
		allowed |= 4;
	return (s->xcr0 & 1) && !(s->xcr0 & ~allowed) && (s->xcr0 & 6) != 4;
}

static bool
judge_flags(const struct cpu_state *s)
{
	bool lma = s->msr.efer & EFER_LMA;

	if (s->rflags & JUDGE_RFLAGS_RESERVED)
		return false;
	return !(s->rflags & RFLAGS_VM) || ((s->cr0 & CR0_PE) && !lma);
}

static bool
judge_addresses(const struct cpu_state *s)
{
	const u64 addresses[] = {
		s->gdt.base,	     s->idt.base,	    s->tr.base,
		s->ldt.base,	     s->seg[CPU_FS].base,   s->seg[CPU_GS].base,
		s->msr.lstar,	     s->msr.cstar,	    s->msr.sysenter_eip,
		s->msr.sysenter_esp, s->msr.kernel_gs_base,
	};

	for (unsigned i = 0; i < ARRAY_LEN(addresses); i++) {
		if (!judge_canonical(addresses[i]))
			return false;
	}
	return true;
}

static bool
judge_pat(u64 pat)
{
	for (int i = 0; i < 64; i += 8) {
		u64 type = (pat >> i) & 0xff;

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

/* Off, xAPIC or x2APIC, with the id that the vCPU is known by. */
static bool
judge_lapic(const struct cpu_lapic *lapic, u8 phys_bits, u32 id)
{
	bool enabled = lapic->base_msr & APIC_BASE_EN, extended = lapic->base_msr & APIC_BASE_EXTD;
	u32 own = lapic->regs[REG_ID];

	if ((extended && !enabled) || (lapic->base_msr & 0x2ff) || lapic->base_msr >> phys_bits)
		return false;
	return extended ? own == id : own == id << 24;
}

static bool
judge_events(const struct cpu_events *e)
{
	return !e->exception_pending || (e->exception_vector < 32 && e->exception_vector != 2);
}

bool
judge_state(const struct cpu_state *s, const struct cpu_model *model, u32 id)
{
	return judge_control(s, model) && judge_xcr0(s, model) && judge_flags(s) &&
	       judge_addresses(s) && judge_pat(s->msr.pat) && judge_events(&s->events) &&
	       judge_lapic(&s->lapic, model->phys_bits, id) && !(s->dr6 >> DR_UPPER_SHIFT) &&
	       !(s->dr7 >> DR_UPPER_SHIFT) && s->run_state <= CPU_WAIT_SIPI;
}
