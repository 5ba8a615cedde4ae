/*
 * Control and debug registers, XCR0 and what belongs to them (AMD64 APM 2,
 * chapters 3, 5, 11, 13 and 14). A write is judged whole, then takes effect:
 * the register, the translation lookaside buffer, the mode of code.
 */
#include "engine/translator/control.h"

#include <errno.h>
#include <string.h>

#include "cpu/control.h"
#include "engine/translator/mmu.h"
#include "engine/translator/operand.h"
#include "engine/translator/privileged.h"

#define CR3_NO_FLUSH BIT64(63)

enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

static u64
control_physical_mask(const struct vcpu *v)
{
	return BIT64(v->model->phys_bits) - 1;
}

static int
control_gp(struct vcpu *v)
{
	return vcpu_raise_code(v, VECTOR_GP, 0);
}

bool
control_pae_paging(u64 cr0, u64 cr4, u64 efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

int
control_read_pdptes(struct vcpu *v, u64 cr3, u64 pdpte[4])
{
	u64 reserved = ~control_physical_mask(v) | 0x1e6;

	/* What is not RAM reads as all ones, whose reserved bits are set. */
	if (mmu_read_physical(v, cr3 & 0xffffffe0, pdpte, 32))
		return -EINVAL;
	for (unsigned i = 0; i < 4; i++) {
		if ((pdpte[i] & 1) && (pdpte[i] & reserved))
			return -EINVAL;
	}
	return 0;
}

/* Loads PDPTEs if the paging that CR0, CR4 and EFER select uses them. 0 or #GP. */
static int
control_load_pdptes(struct vcpu *v, u64 cr0, u64 cr3, u64 cr4, u64 efer)
{
	u64 pdpte[4];

	if (!control_pae_paging(cr0, cr4, efer))
		return 0;
	if (control_read_pdptes(v, cr3, pdpte))
		return control_gp(v);
	memcpy(v->pdpte, pdpte, sizeof(pdpte));
	return 0;
}

/* EFER as it is once CR0 is VALUE, or a #GP: long mode begins and ends with PG (14.6.2). */
static int
control_paging_switch(struct vcpu *v, u64 value, u64 *efer)
{
	bool on = value & CR0_PG, was = v->cr0 & CR0_PG;

	*efer = v->msr.efer;
	if (on == was)
		return 0;
	if (!on) {
		if (vcpu_64bit(v) || (v->cr4 & CR4_PCIDE))
			return control_gp(v);
		*efer &= ~(u64)EFER_LMA;
		return 0;
	}
	if (!(*efer & EFER_LME))
		return 0;
	if (!(v->cr4 & CR4_PAE) || (v->seg[CPU_CS].attr & SEGMENT_L))
		return control_gp(v);
	*efer |= EFER_LMA;
	return 0;
}

static int
control_set_cr0(struct vcpu *v, u64 value)
{
	const u64 known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM |
			  CR0_NW | CR0_CD | CR0_PG;
	u64 changed, efer;
	int r;

	if (value >> 32)
		return control_gp(v);
	value = (value & known) | CR0_ET;
	changed = value ^ v->cr0;
	if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
		return control_gp(v);
	r = control_paging_switch(v, value, &efer);
	if (!r && (changed & (CR0_PG | CR0_CD | CR0_NW)))
		r = control_load_pdptes(v, value, v->cr3, v->cr4, efer);
	if (r)
		return r;
	v->cr0 = value;
	v->msr.efer = efer;
	if (!(value & CR0_PE))
		v->cpl = 0;
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		mmu_flush_all(v);
	vcpu_mode_changed(v);
	return 0;
}

static int
control_set_cr3(struct vcpu *v, u64 value)
{
	u64 reserved = 0;
	int r;

	if (vcpu_long_mode(v))
		reserved = ~control_physical_mask(v);
	if (v->cr4 & CR4_PCIDE)
		reserved &= ~CR3_NO_FLUSH;
	if (value & reserved)
		return control_gp(v);
	r = control_load_pdptes(v, v->cr0, value, v->cr4, v->msr.efer);
	if (!r)
		mmu_set_cr3(v, value);
	return r;
}

static int
control_set_cr4(struct vcpu *v, u64 value)
{
	const u64 paging = CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP;
	u64 changed = value ^ v->cr4;
	int r = 0;

	if (value & ~cpu_control_cr4(v->model))
		return control_gp(v);
	if (vcpu_long_mode(v) && !(value & CR4_PAE))
		return control_gp(v);
	if ((changed & value & CR4_PCIDE) && (!vcpu_long_mode(v) || (v->cr3 & 0xfff)))
		return control_gp(v);
	if (changed & paging)
		r = control_load_pdptes(v, v->cr0, v->cr3, value, v->msr.efer);
	if (r)
		return r;
	v->cr4 = value;
	if (changed & (paging | CR4_PCIDE | CR4_SMAP))
		mmu_flush_all(v);
	vcpu_mode_changed(v);
	return 0;
}

static int
control_set_cr8(struct vcpu *v, u64 value)
{
	if (value > 15)
		return control_gp(v);
	lapic_set_cr8(&v->lapic, value);
	return 0;
}

int
control_write_efer(struct vcpu *v, u64 value)
{
	u64 lma = v->msr.efer & EFER_LMA, changed;

	if (value & ~cpu_control_efer(v->model))
		return control_gp(v);
	value = (value & ~(u64)EFER_LMA) | lma; /* LMA follows CR0.PG alone */
	changed = value ^ v->msr.efer;
	if ((changed & EFER_LME) && (v->cr0 & CR0_PG))
		return control_gp(v);
	v->msr.efer = value;
	if (changed & EFER_NXE)
		mmu_flush_all(v);
	if (changed)
		vcpu_mode_changed(v);
	return 0;
}

/* The control register that IN names; LOCK with CR0 means CR8 on AMD (AltMovCr8). */
static unsigned
control_number(const struct vcpu *v, const struct insn *in)
{
	if (!(in->prefixes & INSN_LOCK))
		return in->reg;
	if (in->reg == 0 && cpu_model_has(v->model, 0x80000001, 0, REG_ECX, 4))
		return 8;
	return INSN_NO_REG;
}

static int
control_read_cr(struct vcpu *v, const struct insn *in, unsigned number)
{
	const u64 value = number == 0	? v->cr0
			  : number == 2 ? v->cr2
			  : number == 3 ? v->cr3
			  : number == 4 ? v->cr4
					: lapic_get_cr8(&v->lapic);

	operand_set_gpr(v, in->rm, in->mode == 64 ? 8 : 4, value);
	return 0;
}

int
control_mov_cr(struct vcpu *v, const struct insn *in)
{
	unsigned number = control_number(v, in);
	u64 value = v->gpr[in->rm & 15] & operand_mask(in->mode == 64 ? 8 : 4);

	if (number != 0 && (number < 2 || number > 4) && number != 8)
		return vcpu_raise(v, VECTOR_UD);
	if (v->cpl != 0)
		return control_gp(v);
	if (in->opcode == 0x20)
		return control_read_cr(v, in, number);
	switch (number) {
	case 0:
		return control_set_cr0(v, value);
	case 2:
		v->cr2 = value;
		return 0;
	case 3:
		return control_set_cr3(v, value);
	case 4:
		return control_set_cr4(v, value);
	default:
		return control_set_cr8(v, value);
	}
}

enum { DR6_BD = BIT(13), DR7_GD = BIT(13) };

static int
control_write_dr(struct vcpu *v, unsigned number, u64 value)
{
	if (number < 4) {
		v->dr[number] = value;
	} else {
		if (value >> 32)
			return control_gp(v);
		if (number == 6)
			v->dr6 = (value & 0xe00f) | 0xffff0ff0;
		else
			v->dr7 = (value & 0xffff23ff) | 0x400;
	}
	vcpu_mode_changed(v);
	return 0;
}

int
control_mov_dr(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->mode == 64 ? 8 : 4, number = in->reg;

	if (number > 7 || ((v->cr4 & CR4_DE) && (number == 4 || number == 5)))
		return vcpu_raise(v, VECTOR_UD);
	if (v->cpl != 0)
		return control_gp(v);
	if (v->dr7 & DR7_GD) {
		v->dr6 |= DR6_BD;
		return vcpu_raise(v, VECTOR_DB);
	}
	if (number == 4 || number == 5)
		number += 2;
	if (in->opcode == 0x23)
		return control_write_dr(v, number, v->gpr[in->rm & 15] & operand_mask(size));
	operand_set_gpr(v, in->rm & 15, size,
			number < 4    ? v->dr[number]
			: number == 6 ? v->dr6
				      : v->dr7);
	return 0;
}

int
control_clts(struct vcpu *v, const struct insn *in)
{
	(void)in;
	if (v->cpl != 0)
		return control_gp(v);
	if (v->cr0 & CR0_TS) {
		v->cr0 &= ~(u64)CR0_TS;
		vcpu_mode_changed(v);
	}
	return 0;
}

int
control_smsw(struct vcpu *v, const struct insn *in)
{
	u64 linear;
	int r;

	if ((v->cr4 & CR4_UMIP) && v->cpl > 0)
		return control_gp(v);
	if (!in->mem) {
		operand_set_gpr(v, in->rm, in->opsize, v->cr0);
		return 0;
	}
	r = mmu_operand(v, in, 2, true, &linear);
	return r ? r : mmu_write(v, linear, &v->cr0, 2, 0);
}

int
control_lmsw(struct vcpu *v, const struct insn *in)
{
	u16 value = (u16)v->gpr[in->rm & 15];
	u64 linear;
	int r = 0;

	if (v->cpl != 0)
		return control_gp(v);
	if (in->mem) {
		r = mmu_operand(v, in, 2, false, &linear);
		if (!r)
			r = mmu_read16(v, linear, &value, 0);
	}
	if (r)
		return r;
	/* PE can be set this way, not cleared. */
	return control_set_cr0(v, (v->cr0 & ~0xeull) | (value & 0xf));
}

int
control_invlpg(struct vcpu *v, const struct insn *in)
{
	u64 linear;

	if (!in->mem)
		return vcpu_raise(v, VECTOR_UD);
	if (v->cpl != 0)
		return control_gp(v);
	linear = vcpu_offset(v, in);
	if (!vcpu_64bit(v) || in->seg == CPU_FS || in->seg == CPU_GS)
		linear += v->seg[in->seg].base;
	if (!vcpu_64bit(v))
		linear = (u32)linear;
	if (vcpu_canonical(linear))
		mmu_invlpg(v, linear);
	return 0;
}

static bool
control_invpcid_valid(const struct vcpu *v, u64 type, const u64 descriptor[2])
{
	if (type > 3 || (descriptor[0] >> 12))
		return false;
	if (type == 0 && !vcpu_canonical(descriptor[1]))
		return false;
	return type > 1 || (v->cr4 & CR4_PCIDE) || !descriptor[0];
}

int
control_invpcid(struct vcpu *v, const struct insn *in)
{
	u64 type = v->gpr[in->reg & 15] & operand_mask(in->mode == 64 ? 8 : 4);
	u64 descriptor[2], linear;
	int r;

	if (!cpu_model_has(v->model, 7, 0, REG_EBX, 10) || !in->mem)
		return vcpu_raise(v, VECTOR_UD);
	if (v->cpl != 0)
		return control_gp(v);
	r = mmu_operand(v, in, 16, false, &linear);
	if (!r)
		r = mmu_read(v, linear, descriptor, 16, 0);
	if (r)
		return r;
	if (!control_invpcid_valid(v, type, descriptor))
		return control_gp(v);
	mmu_invpcid(v, (unsigned)type, (u16)descriptor[0], descriptor[1]);
	return 0;
}

int
control_xgetbv(struct vcpu *v, const struct insn *in)
{
	u32 which = (u32)v->gpr[CPU_RCX];
	u64 value = v->xcr0;

	(void)in;
	if (!(v->cr4 & CR4_OSXSAVE))
		return vcpu_raise(v, VECTOR_UD);
	if (which == 1 && cpu_model_has(v->model, 0xd, 1, REG_EAX, 2))
		value &= operand_xstate_bv(v); /* components in use */
	else if (which != 0)
		return control_gp(v);
	v->gpr[CPU_RAX] = (u32)value;
	v->gpr[CPU_RDX] = value >> 32;
	return 0;
}

int
control_xsetbv(struct vcpu *v, const struct insn *in)
{
	u64 value = (u32)v->gpr[CPU_RAX] | v->gpr[CPU_RDX] << 32;

	(void)in;
	if (!(v->cr4 & CR4_OSXSAVE))
		return vcpu_raise(v, VECTOR_UD);
	if (v->cpl != 0 || (u32)v->gpr[CPU_RCX] != 0 || !cpu_control_xcr0(v->model, value))
		return control_gp(v);
	v->xcr0 = value;
	vcpu_mode_changed(v);
	return 0;
}

/* The host's caches are coherent: INVD and WBINVD have nothing to do. */
int
control_wbinvd(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return v->cpl != 0 ? control_gp(v) : 0;
}

/* Nor has CLFLUSH, but it faults as a read of one byte does. */
int
control_clflush(struct vcpu *v, const struct insn *in)
{
	u64 linear;
	u8 byte;
	int r = mmu_operand(v, in, 1, false, &linear);

	return r ? r : mmu_read(v, linear, &byte, 1, 0);
}
