/*
 * See judge.h. AMD64 APM 2, 3.1 (control registers), 14.6 (long mode), 15.5.1
 * (consistency of a guest's state).
 */
#include "engine/kvm/judge.h"

#include "base/bytes.h"
#include "cpu/control.h"

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

static bool
judge_control(const struct cpu_state *s, const struct cpu_model *model)
{
	if ((s->cr4 & ~cpu_control_cr4(model)) || (s->msr.efer & ~cpu_control_efer(model)))
		return false;
	return cpu_control_consistent(s->cr0, s->cr4, s->msr.efer) &&
	       cpu_control_xcr0(model, s->xcr0) && !(s->cr3 >> model->phys_bits) && s->cr8 <= 15;
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
	return judge_control(s, model) && judge_flags(s) && judge_addresses(s) &&
	       judge_pat(s->msr.pat) && judge_events(&s->events) &&
	       judge_lapic(&s->lapic, model->phys_bits, id) && !(s->dr6 >> DR_UPPER_SHIFT) &&
	       !(s->dr7 >> DR_UPPER_SHIFT) && s->run_state <= CPU_WAIT_SIPI;
}
