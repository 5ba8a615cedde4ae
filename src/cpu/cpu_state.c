/*
 * The state of a processor after RESET# (AMD64 APM 2, 14.1.3).
 */
#include "cpu/cpu_state.h"

#include <string.h>

#include "base/bytes.h"

/* Registers by offset / 16, as after reset (16.3.2). */
static void
cpu_state_reset_lapic(struct cpu_lapic *lapic, u32 id)
{
	lapic->base_msr = 0xfee00000ull | BIT(11) | (id == 0 ? BIT(8) : 0);
	lapic->regs[0x02] = id << 24;
	lapic->regs[0x03] = 0x50014;	/* version */
	lapic->regs[0x0e] = 0xffffffff; /* DFR: flat */
	lapic->regs[0x0f] = 0xff;	/* SVR: off by software */
	for (int lvt = 0x32; lvt <= 0x37; lvt++)
		lapic->regs[lvt] = BIT(16); /* masked */
}

void
cpu_state_reset(struct cpu_state *state, u32 id)
{
	static const u16 data_attr = SEGMENT_P | SEGMENT_S | 3;
	static const u16 code_attr = SEGMENT_P | SEGMENT_S | 11;

	memset(state, 0, sizeof(*state));
	for (int i = 0; i < CPU_SEGMENTS; i++)
		state->seg[i] = (struct segment){.limit = 0xffff, .attr = data_attr};
	state->seg[CPU_CS] = (struct segment){
		.base = 0xffff0000, .limit = 0xffff, .selector = 0xf000, .attr = code_attr};
	state->ldt = (struct segment){.limit = 0xffff, .attr = SEGMENT_P | 2};
	state->tr = (struct segment){.limit = 0xffff, .attr = SEGMENT_P | 11};
	state->gdt.limit = state->idt.limit = 0xffff;
	state->rip = 0xfff0;
	state->rflags = RFLAGS_FIXED;
	state->cr0 = CR0_CD | CR0_NW | CR0_ET;
	state->dr6 = 0xffff0ff0;
	state->dr7 = 0x400;
	state->xcr0 = 1;
	state->msr.pat = 0x0007040600070406ull;
	state->msr.misc_enable = 1;
	put_le16(state->xsave, 0x37f);	     /* FCW */
	put_le32(state->xsave + 24, 0x1f80); /* MXCSR */
	cpu_state_reset_lapic(&state->lapic, id);
	state->run_state = id == 0 ? CPU_RUNNING : CPU_WAIT_SIPI;
}
