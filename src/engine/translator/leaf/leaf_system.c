/*
 * Leaf helpers of system instructions: see leaf_system.h. Each checks all of
 * its conditions, then changes the vCPU; the full helpers in syscall.c, iret.c,
 * flags.c and segment.c are the rule that these must not differ from.
 */
#include "engine/translator/leaf/leaf_system.h"

#include "base/bytes.h"
#include "engine/translator/leaf/flat.h"
#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/mode.h"
#include "engine/translator/vendor.h"

enum { IRETQ_FRAME = 40 };

static bool
leaf_interrupt_waits(const struct vcpu *v)
{
	return vcpu_translation(v)->irq_waiting;
}

static bool
leaf_model_has_edx(const struct vcpu *v, u32 leaf, int bit)
{
	const struct cpu_model *model = v->model;

	for (unsigned i = 0; i < model->count; i++) {
		if (model->entries[i].leaf == leaf)
			return (model->entries[i].edx >> bit) & 1;
	}
	return false;
}

int
leaf_syscall(struct vcpu *v, const struct insn *in)
{
	u16 selector = (u16)(v->msr.star >> 32);

	if (!(v->msr.efer & EFER_SCE) || (v->rflags & RFLAGS_TF))
		return LEAF_SLOW;
	v->gpr[CPU_RCX] = v->rip + in->len;
	v->gpr[11] = v->rflags & ~(u64)RFLAGS_RF;
	v->rflags = (v->rflags & ~(v->msr.sfmask | RFLAGS_RF)) | RFLAGS_FIXED;
	v->seg[CPU_CS] = flat_code(selector, 0, true);
	v->seg[CPU_SS] = flat_data((u16)(selector + 8), 0);
	v->cpl = 0;
	v->rip = v->msr.lstar;
	return LEAF_JUMP;
}

int
leaf_sysret(struct vcpu *v, const struct insn *in)
{
	u16 selector = (u16)(v->msr.star >> 48);
	u64 rip = v->gpr[CPU_RCX];

	(void)in;
	if (!(v->msr.efer & EFER_SCE) || v->cpl != 0 || !vcpu_canonical(rip) ||
	    ((v->gpr[11] | v->rflags) & RFLAGS_TF))
		return LEAF_SLOW;
	v->rflags = (v->gpr[11] & FLAT_SYSRET_FLAGS) | RFLAGS_FIXED;
	v->seg[CPU_SS] =
		flat_sysret_stack(&v->seg[CPU_SS], (u16)(selector + 8), vendor_is_intel(v));
	v->seg[CPU_CS] = flat_code((u16)(selector + 16), 3, true);
	v->cpl = 3;
	v->rip = rip;
	return LEAF_JUMP;
}

/* The GDT entry of SELECTOR if it can be had. */
static bool
leaf_read_descriptor(struct vcpu *v, u16 selector, struct segment *seg)
{
	u32 index = selector & 0xfff8u, low, high;
	u64 address = v->gdt.base + index;
	const u8 *host;

	if ((selector & 4) || index == 0 || index + 7 > v->gdt.limit ||
	    (address & 0xfff) > 0x1000 - 8)
		return false;
	host = leaf_host_system(v, address, 8, false);
	if (!host)
		return false;
	low = get_le32(host);
	high = get_le32(host + 4);
	seg->selector = selector;
	seg->base = (low >> 16) | ((high & 0xff) << 16) | (high & 0xff000000);
	seg->limit = (low & 0xffff) | (high & 0xf0000);
	seg->attr = (u16)(((high >> 8) & 0xff) | ((high >> 12) & 0xf00));
	if (seg->attr & SEGMENT_G)
		seg->limit = seg->limit << 12 | 0xfff;
	return true;
}

/* The same, present and accessed. */
static bool
leaf_descriptor(struct vcpu *v, u16 selector, struct segment *seg)
{
	const u16 want = SEGMENT_P | SEGMENT_S | 1;

	return leaf_read_descriptor(v, selector, seg) && (seg->attr & want) == want;
}

/* Non-conforming 64-bit code at the level of its selector, which is 0 or 3. */
static bool
leaf_return_cs(struct vcpu *v, u16 selector, struct segment *cs)
{
	unsigned rpl = selector & 3;

	if (rpl != 0 && rpl != 3)
		return false;
	return leaf_descriptor(v, selector, cs) && cs->base == 0 && (cs->attr & 12) == 8 &&
	       (cs->attr & (SEGMENT_L | SEGMENT_DB)) == SEGMENT_L &&
	       ((cs->attr >> SEGMENT_DPL_SHIFT) & 3) == rpl;
}

/* Writable data at level CPL, or null at CPL 0. */
static bool
leaf_return_ss(struct vcpu *v, u16 selector, unsigned cpl, struct segment *ss)
{
	if (cpl == 0 && selector == 0) {
		*ss = (struct segment){.selector = 0};
		return true;
	}
	return leaf_descriptor(v, selector, ss) && (selector & 3) == cpl && (ss->attr & 10) == 2 &&
	       ((ss->attr >> SEGMENT_DPL_SHIFT) & 3) == cpl;
}

/* Whether a data segment would have to become null on the way out. */
static bool
leaf_keeps_segments(const struct vcpu *v)
{
	static const u8 data[] = {CPU_ES, CPU_DS, CPU_FS, CPU_GS};

	for (unsigned i = 0; i < ARRAY_LEN(data); i++) {
		const struct segment *seg = &v->seg[data[i]];

		if ((seg->attr & SEGMENT_P) && ((seg->attr >> SEGMENT_DPL_SHIFT) & 3) < 3 &&
		    (seg->attr & 12) != 12)
			return false;
	}
	return true;
}

int
leaf_iretq(struct vcpu *v, const struct insn *in)
{
	const u64 keep = RFLAGS_VM;
	const u64 take = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL |
			 RFLAGS_NT | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID;
	u64 rsp = v->gpr[CPU_RSP], rip, flags;
	u16 cs_selector, ss_selector;
	struct segment cs, ss;
	const u8 *frame;

	(void)in;
	/* Only breakpoints care for RF, which is not taken here. */
	if (v->cpl != 0 || v->nmi_masked || (v->rflags & (RFLAGS_NT | RFLAGS_TF)) ||
	    (v->dr7 & 0xff) || (rsp & 0xfff) > 0x1000 - IRETQ_FRAME)
		return LEAF_SLOW;
	frame = leaf_host(v, rsp, IRETQ_FRAME, false);
	if (!frame)
		return LEAF_SLOW;
	rip = get_le64(frame);
	flags = get_le64(frame + 16);
	rsp = get_le64(frame + 24);
	cs_selector = get_le16(frame + 8);
	ss_selector = get_le16(frame + 32);
	if ((flags & RFLAGS_TF) || !vcpu_canonical(rip) || !leaf_return_cs(v, cs_selector, &cs) ||
	    !leaf_return_ss(v, ss_selector, cs_selector & 3, &ss))
		return LEAF_SLOW;
	if ((cs.selector & 3) == 3 && !leaf_keeps_segments(v))
		return LEAF_SLOW;
	v->rflags = (v->rflags & keep) | (flags & take) | RFLAGS_FIXED;
	v->seg[CPU_CS] = cs;
	v->seg[CPU_SS] = ss;
	v->cpl = cs.selector & 3;
	v->gpr[CPU_RSP] = rsp;
	v->rip = rip;
	return LEAF_JUMP;
}

int
leaf_swapgs(struct vcpu *v, const struct insn *in)
{
	u64 base = v->seg[CPU_GS].base;

	(void)in;
	if (v->cpl != 0)
		return LEAF_SLOW;
	v->seg[CPU_GS].base = v->msr.kernel_gs_base;
	v->msr.kernel_gs_base = base;
	return LEAF_DONE;
}

int
leaf_fsgsbase(struct vcpu *v, const struct insn *in)
{
	unsigned which = (in->modrm >> 3) & 7;
	struct segment *seg = &v->seg[which & 1 ? CPU_GS : CPU_FS];
	u64 value = v->gpr[in->rm];

	if (!(v->cr4 & CR4_FSGSBASE))
		return LEAF_SLOW;
	if (which < 2) {
		v->gpr[in->rm] = in->opsize == 8 ? seg->base : (u32)seg->base;
		return LEAF_DONE;
	}
	if (in->opsize != 8)
		value = (u32)value;
	if (!vcpu_canonical(value))
		return LEAF_SLOW;
	seg->base = value;
	return LEAF_DONE;
}

int
leaf_cli(struct vcpu *v, const struct insn *in)
{
	(void)in;
	if (v->cpl > ((v->rflags >> 12) & 3))
		return LEAF_SLOW;
	v->rflags &= ~(u64)RFLAGS_IF;
	return LEAF_DONE;
}

int
leaf_sti(struct vcpu *v, const struct insn *in)
{
	(void)in;
	if (v->cpl > ((v->rflags >> 12) & 3) || leaf_interrupt_waits(v))
		return LEAF_SLOW;
	if (!(v->rflags & RFLAGS_IF))
		v->shadow = true;
	v->rflags |= RFLAGS_IF;
	return LEAF_DONE;
}

/* The stack slot of 8 bytes at RSP, if it is aligned (so inside a page) and RAM. */
static u8 *
leaf_slot(struct vcpu *v, u64 rsp, unsigned write)
{
	return rsp & 7 ? NULL : leaf_host(v, rsp, 8, write);
}

int
leaf_pushf(struct vcpu *v, const struct insn *in)
{
	u64 rsp = v->gpr[CPU_RSP] - 8;
	u8 *slot = leaf_slot(v, rsp, true);

	(void)in;
	if (!slot)
		return LEAF_SLOW;
	put_le64(slot, v->rflags & ~(u64)(RFLAGS_VM | RFLAGS_RF));
	v->gpr[CPU_RSP] = rsp;
	return LEAF_DONE;
}

int
leaf_popf(struct vcpu *v, const struct insn *in)
{
	u64 rsp = v->gpr[CPU_RSP], image, changed;
	u64 mask = RFLAGS_ARITH | RFLAGS_DF | RFLAGS_NT | RFLAGS_TF | RFLAGS_AC | RFLAGS_ID;
	const u8 *slot = leaf_slot(v, rsp, false);

	(void)in;
	if (!slot)
		return LEAF_SLOW;
	image = get_le64(slot);
	if (v->cpl <= ((v->rflags >> 12) & 3))
		mask |= RFLAGS_IF;
	if (v->cpl == 0)
		mask |= RFLAGS_IOPL;
	changed = (v->rflags ^ image) & mask;
	if ((changed & (RFLAGS_AC | RFLAGS_TF)) || (v->rflags & (RFLAGS_TF | RFLAGS_RF)) ||
	    ((changed & image & RFLAGS_IF) && leaf_interrupt_waits(v)))
		return LEAF_SLOW;
	v->rflags ^= changed;
	v->gpr[CPU_RSP] = rsp + 8;
	return LEAF_DONE;
}

int
leaf_ac(struct vcpu *v, const struct insn *in)
{
	u64 value = in->modrm == 0xcb ? RFLAGS_AC : 0;

	/* CR4.SMAP can only be set where the instruction exists. */
	if (v->cpl != 0 || !(v->cr4 & CR4_SMAP))
		return LEAF_SLOW;
	if ((v->rflags & RFLAGS_AC) != value) {
		v->rflags ^= RFLAGS_AC;
		mode_select(v);
	}
	return LEAF_DONE;
}

int
leaf_rdtsc(struct vcpu *v, const struct insn *in)
{
	bool with_aux = in->opcode == 0x01;
	u32 low, high;
	u64 tsc;

	if (((v->cr4 & CR4_TSD) && v->cpl > 0) ||
	    (with_aux && !leaf_model_has_edx(v, 0x80000001, 27)))
		return LEAF_SLOW;
	if (with_aux) /* waits for what came before */
		__asm__ volatile("lfence" ::: "memory");
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
	tsc = (low | (u64)high << 32) + (u64)v->tsc_offset;
	v->gpr[CPU_RAX] = (u32)tsc;
	v->gpr[CPU_RDX] = tsc >> 32;
	if (with_aux)
		v->gpr[CPU_RCX] = (u32)v->msr.tsc_aux;
	return LEAF_DONE;
}

int
leaf_mov_from_segment(struct vcpu *v, const struct insn *in)
{
	unsigned seg = in->reg & 7;
	u64 *gpr = &v->gpr[in->rm];

	if (seg >= CPU_SEGMENTS || in->mem)
		return LEAF_SLOW;
	if (in->opsize == 2)
		*gpr = (*gpr & ~0xffffull) | v->seg[seg].selector;
	else
		*gpr = v->seg[seg].selector;
	return LEAF_DONE;
}

int
leaf_mov_to_segment(struct vcpu *v, const struct insn *in)
{
	unsigned seg = in->reg & 7;
	u16 selector = (u16)v->gpr[in->rm];

	if (in->mem || (seg != CPU_DS && seg != CPU_ES) || (selector & ~3u))
		return LEAF_SLOW;
	v->seg[seg] = (struct segment){.selector = selector};
	return LEAF_DONE;
}

/* Linear address of a memory operand of 64-bit code. */
static u64
leaf_operand(const struct vcpu *v, const struct insn *in)
{
	u64 offset = vcpu_offset(v, in);

	return in->seg == CPU_FS || in->seg == CPU_GS ? offset + v->seg[in->seg].base : offset;
}

/* Kernels execute VERW on each return to user mode, for what it does to buffers of the CPU. */
int
leaf_verify(struct vcpu *v, const struct insn *in)
{
	bool write = (in->reg & 1) != 0, good;
	u16 selector = (u16)v->gpr[in->rm];
	struct segment seg;
	const u8 *host;
	u64 linear;
	u8 dpl;

	if (in->mem) {
		linear = leaf_operand(v, in);
		host = linear & 1 ? NULL : leaf_host(v, linear, 2, false);
		if (!host)
			return LEAF_SLOW;
		selector = get_le16(host);
	}
	if (!leaf_read_descriptor(v, selector, &seg))
		return LEAF_SLOW;
	dpl = (seg.attr >> SEGMENT_DPL_SHIFT) & 3;
	good = (seg.attr & SEGMENT_S) &&
	       (seg.attr & 8 ? !write && (seg.attr & 2) : !write || (seg.attr & 2));
	if ((seg.attr & 12) != 12 && (v->cpl > dpl || (selector & 3) > dpl))
		good = false;
	v->rflags = (v->rflags & ~(u64)RFLAGS_ZF) | (good ? RFLAGS_ZF : 0);
	return LEAF_DONE;
}

static leaf_fn *
leaf_system_0(const struct insn *in)
{
	switch (in->opcode) {
	case 0x8c:
		return in->mem ? NULL : leaf_mov_from_segment;
	case 0x8e:
		return in->mem ? NULL : leaf_mov_to_segment;
	case 0x9c:
		return in->opsize == 8 ? leaf_pushf : NULL;
	case 0x9d:
		return in->opsize == 8 ? leaf_popf : NULL;
	case 0xcf:
		return in->opsize == 8 ? leaf_iretq : NULL;
	case 0xfa:
		return leaf_cli;
	case 0xfb:
		return leaf_sti;
	default:
		return NULL;
	}
}

static leaf_fn *
leaf_system_1(const struct insn *in)
{
	switch (in->opcode) {
	case 0x00:
		return (in->modrm & 0x30) == 0x20 ? leaf_verify : NULL;
	case 0x01:
		if (in->modrm == 0xf8)
			return leaf_swapgs;
		if (in->modrm == 0xf9)
			return leaf_rdtsc;
		return in->modrm == 0xca || in->modrm == 0xcb ? leaf_ac : NULL;
	case 0x05:
		return leaf_syscall;
	case 0x07:
		return in->rex & 8 ? leaf_sysret : NULL;
	case 0x31:
		return leaf_rdtsc;
	case 0xae:
		return (in->prefixes & INSN_REP) && !in->mem && ((in->modrm >> 3) & 7) < 4
			       ? leaf_fsgsbase
			       : NULL;
	default:
		return NULL;
	}
}

leaf_fn *
leaf_system(const struct insn *in)
{
	if (in->mode != 64 || (in->prefixes & INSN_VEX))
		return NULL;
	if (in->map == 0)
		return leaf_system_0(in);
	return in->map == 1 ? leaf_system_1(in) : NULL;
}
