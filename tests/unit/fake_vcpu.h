/*
 * A vCPU without a translator: memory is one flat array, linear addresses are
 * indices into it. Defines all functions of mmu.c and what leaf helpers ask of
 * the TLB, so that none of the real ones is linked. One page can be made to fault.
 */
#ifndef UNIT_FAKE_VCPU_H
#define UNIT_FAKE_VCPU_H

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/mmu.h"
#include "engine/translator/mode.h"
#include "engine/translator/system.h"

enum { FAKE_MEMORY = 1 << 20 };

static u8 fake_memory[FAKE_MEMORY];
static u64 fake_bad_page = ~0ull; /* accesses here raise #PF */
static unsigned fake_flushes;
static unsigned fake_last_flags; /* of the last write */
static u16 fake_port;
static u32 fake_port_value;
static struct translation fake_translation;

int
vcpu_raise(struct vcpu *v, u8 vector)
{
	v->event = (struct pending_event){.pending = true, .vector = vector};
	return HELPER_FAULT;
}

int
vcpu_raise_code(struct vcpu *v, u8 vector, u32 code)
{
	v->event = (struct pending_event){
		.pending = true, .has_code = true, .vector = vector, .code = code};
	return HELPER_FAULT;
}

void
vcpu_mode_changed(struct vcpu *v)
{
	(void)v;
}

void
mode_select(struct vcpu *v)
{
	(void)v;
}

static int
fake_access(struct vcpu *v, u64 linear, unsigned len, bool write)
{
	u64 last = linear + len - 1;

	if (linear >= FAKE_MEMORY || last >= FAKE_MEMORY ||
	    (linear >> 12 <= fake_bad_page && fake_bad_page <= last >> 12)) {
		v->cr2 = linear;
		return vcpu_raise_code(v, VECTOR_PF, write ? PF_W : 0);
	}
	return 0;
}

int
mmu_read(struct vcpu *v, u64 linear, void *buf, unsigned len, unsigned flags)
{
	int r = fake_access(v, linear, len, false);

	(void)flags;
	if (!r)
		memcpy(buf, fake_memory + linear, len);
	return r;
}

int
mmu_write(struct vcpu *v, u64 linear, const void *buf, unsigned len, unsigned flags)
{
	int r = fake_access(v, linear, len, true);

	fake_last_flags = flags;
	if (!r)
		memcpy(fake_memory + linear, buf, len);
	return r;
}

int
mmu_check_write(struct vcpu *v, u64 linear, unsigned len, unsigned flags)
{
	(void)flags;
	return fake_access(v, linear, len, true);
}

int
mmu_read_physical(struct vcpu *v, u64 gpa, void *buf, unsigned len)
{
	(void)v;
	if (gpa >= FAKE_MEMORY || gpa + len > FAKE_MEMORY)
		return -EFAULT;
	memcpy(buf, fake_memory + gpa, len);
	return 0;
}

int
mmu_write_physical(struct vcpu *v, u64 gpa, const void *buf, unsigned len)
{
	(void)v;
	if (gpa >= FAKE_MEMORY || gpa + len > FAKE_MEMORY)
		return -EFAULT;
	memcpy(fake_memory + gpa, buf, len);
	return 0;
}

int
mmu_linear(struct vcpu *v, enum cpu_segment seg, u64 offset, unsigned len, bool write, u64 *linear)
{
	(void)len;
	(void)write;
	*linear = offset + (vcpu_64bit(v) && seg < CPU_FS ? 0 : v->seg[seg].base);
	return 0;
}

u64
mmu_offset(const struct vcpu *v, const struct insn *in)
{
	return (u64)in->disp + (in->base < CPU_GPRS ? v->gpr[in->base] : 0);
}

int
mmu_operand(struct vcpu *v, const struct insn *in, unsigned len, bool write, u64 *linear)
{
	return mmu_linear(v, in->seg, mmu_offset(v, in), len, write, linear);
}

void
mmu_set_cr3(struct vcpu *v, u64 value)
{
	v->cr3 = value & ~BIT64(63);
}

void
mmu_flush_all(struct vcpu *v)
{
	(void)v;
	fake_flushes++;
}

void
mmu_flush_local(struct vcpu *v)
{
	(void)v;
	fake_flushes++;
}

void
mmu_invlpg(struct vcpu *v, u64 linear)
{
	(void)v;
	(void)linear;
	fake_flushes++;
}

void
mmu_invpcid(struct vcpu *v, unsigned type, u16 pcid, u64 linear)
{
	(void)v;
	(void)type;
	(void)pcid;
	(void)linear;
	fake_flushes++;
}

int
mmu_port_read(struct vcpu *v, u16 port, unsigned size, u32 *value)
{
	(void)v;
	(void)size;
	fake_port = port;
	*value = fake_port_value;
	return 0;
}

int
mmu_port_write(struct vcpu *v, u16 port, unsigned size, u32 value)
{
	(void)v;
	(void)size;
	fake_port = port;
	fake_port_value = value;
	return 0;
}

u8 *
leaf_host(struct vcpu *v, u64 linear, unsigned len, unsigned write)
{
	(void)v;
	(void)write;
	if (linear + len > FAKE_MEMORY || linear >> 12 == fake_bad_page)
		return NULL;
	return fake_memory + linear;
}

u8 *
leaf_host_system(struct vcpu *v, u64 linear, unsigned len, unsigned write)
{
	return leaf_host(v, linear, len, write);
}

/*
 * What tests build on.
 */

enum {
	FAKE_GDT = 0x1000,
	FAKE_IDT = 0x2000,
	FAKE_TSS = 0x4000,
	FAKE_KERNEL_STACK = 0x8000,
	FAKE_USER_STACK = 0xa000,
	FAKE_IST_STACK = 0xc000,
	FAKE_HANDLER = 0x10000, /* + 16 * vector */
	/* selectors */
	FAKE_CS0 = 0x08,
	FAKE_SS0 = 0x10,
	FAKE_CS3 = 0x18,
	FAKE_SS3 = 0x20,
	FAKE_TR = 0x30,
	FAKE_CS64 = 0x40,   /* 64-bit, DPL 0 */
	FAKE_CS64_3 = 0x48, /* 64-bit, DPL 3 */
	FAKE_FREE = 0x50,   /* for a test's own */
	FAKE_GDT_LIMIT = 0xff,
};

static inline struct cpu_model *
fake_model(const char *vendor)
{
	static struct cpu_model model;

	memset(&model, 0, sizeof(model));
	model.phys_bits = 40;
	model.tsc_hz = 2000000000;
	model.entries[0] = (struct cpuid_entry){.leaf = 0, .eax = 0xd};
	if (strcmp(vendor, "intel") == 0) {
		model.entries[0].ebx = 0x756e6547;
		model.entries[0].edx = 0x49656e69;
		model.entries[0].ecx = 0x6c65746e;
	} else {
		model.entries[0].ebx = 0x68747541;
		model.entries[0].edx = 0x69746e65;
		model.entries[0].ecx = 0x444d4163;
	}
	model.entries[1] = (struct cpuid_entry){
		.leaf = 1, .eax = 0x00a20f10, .ecx = BIT(17) | BIT(26), .edx = ~BIT(30)};
	model.entries[2] = (struct cpuid_entry){.leaf = 7,
						.indexed = true,
						.ebx = BIT(0) | BIT(7) | BIT(10) | BIT(20),
						.ecx = BIT(2) | BIT(22)};
	model.entries[3] = (struct cpuid_entry){.leaf = 0xd, .indexed = true, .eax = 7};
	model.entries[4] = (struct cpuid_entry){.leaf = 0x40000001, .eax = BIT(3) | BIT(24)};
	model.entries[5] = (struct cpuid_entry){.leaf = 0x80000001,
						.edx = BIT(11) | BIT(20) | BIT(27) | BIT(29)};
	model.count = 6;
	return &model;
}

/* An 8-byte descriptor: ATTR as in struct segment, limit in its own units. */
static inline void
fake_descriptor(u16 selector, u32 base, u32 limit, u16 attr)
{
	u8 *p = fake_memory + FAKE_GDT + (selector & ~7u);

	put_le32(p, (limit & 0xffff) | base << 16);
	put_le32(p + 4, ((base >> 16) & 0xff) | (u32)(attr & 0xff) << 8 | (limit & 0xf0000) |
				(u32)(attr & 0xf00) << 12 | (base & 0xff000000));
}

static inline u32
fake_descriptor_high(u16 selector)
{
	return get_le32(fake_memory + FAKE_GDT + (selector & ~7u) + 4);
}

/* A gate of 16 bytes in long mode, 8 otherwise. TYPE with P and DPL. */
static inline void
fake_gate(const struct vcpu *v, u8 vector, u16 selector, u8 type, u8 ist)
{
	u8 *p = fake_memory + FAKE_IDT + vector * (vcpu_long_mode(v) ? 16u : 8u);
	u32 offset = FAKE_HANDLER + vector * 16u;

	put_le16(p, (u16)offset);
	put_le16(p + 2, selector);
	p[4] = ist;
	p[5] = type;
	put_le16(p + 6, (u16)(offset >> 16));
	if (vcpu_long_mode(v))
		memset(p + 8, 0, 8);
}

static inline struct segment
fake_segment(u16 selector)
{
	const u8 *p = fake_memory + FAKE_GDT + (selector & ~7u);
	u32 low = get_le32(p), high = get_le32(p + 4);
	struct segment seg = {.selector = selector};

	seg.base = (low >> 16) | ((high & 0xff) << 16) | (high & 0xff000000);
	seg.limit = (low & 0xffff) | (high & 0xf0000);
	if (high & BIT(23))
		seg.limit = seg.limit << 12 | 0xfff;
	seg.attr = (u16)(((high >> 8) & 0xff) | ((high >> 12) & 0xf00));
	return seg;
}

/* A vCPU at CPL, in 32-bit protected or (wide) 64-bit mode, with flat segments and tables. */
static inline struct vcpu *
fake_vcpu(bool wide, u8 cpl)
{
	static struct vcpu vcpu;
	struct vcpu *v = &vcpu;

	memset(v, 0, sizeof(*v));
	memset(fake_memory, 0, sizeof(fake_memory));
	memset(&fake_translation, 0, sizeof(fake_translation));
	fake_bad_page = ~0ull;
	fake_flushes = 0;
	v->tr_state = &fake_translation;
	v->model = fake_model("amd");
	v->cr0 = CR0_PE | CR0_ET;
	v->dr6 = 0xffff0ff0;
	v->dr7 = 0x400;
	v->xcr0 = 1;
	v->rflags = RFLAGS_FIXED | RFLAGS_IF;
	v->gdt = (struct descriptor_table){.base = FAKE_GDT, .limit = FAKE_GDT_LIMIT};
	v->idt = (struct descriptor_table){.base = FAKE_IDT, .limit = 0xfff};
	v->tr = (struct segment){
		.base = FAKE_TSS, .limit = 0x67, .selector = FAKE_TR, .attr = SEGMENT_P | 11};
	fake_descriptor(FAKE_CS0, 0, 0xfffff, 0xc9b);
	fake_descriptor(FAKE_SS0, 0, 0xfffff, 0xc93);
	fake_descriptor(FAKE_CS3, 0, 0xfffff, 0xcfb);
	fake_descriptor(FAKE_SS3, 0, 0xfffff, 0xcf3);
	fake_descriptor(FAKE_TR, FAKE_TSS, 0x67, SEGMENT_P | 11);
	fake_descriptor(FAKE_CS64, 0, 0xfffff, 0xa9b);
	fake_descriptor(FAKE_CS64_3, 0, 0xfffff, 0xafb);
	if (wide) {
		v->cr0 |= CR0_PG;
		v->cr4 |= CR4_PAE;
		v->msr.efer = EFER_LME | EFER_LMA | EFER_SCE;
		put_le64(fake_memory + FAKE_TSS + 4, FAKE_KERNEL_STACK);
		put_le64(fake_memory + FAKE_TSS + 0x24, FAKE_IST_STACK);
		v->seg[CPU_CS] = fake_segment(cpl ? FAKE_CS64_3 | 3 : FAKE_CS64);
	} else {
		put_le32(fake_memory + FAKE_TSS + 4, FAKE_KERNEL_STACK);
		put_le16(fake_memory + FAKE_TSS + 8, FAKE_SS0);
		v->seg[CPU_CS] = fake_segment(cpl ? FAKE_CS3 | 3 : FAKE_CS0);
	}
	v->seg[CPU_SS] = fake_segment(cpl ? FAKE_SS3 | 3 : FAKE_SS0);
	v->seg[CPU_DS] = v->seg[CPU_ES] = v->seg[CPU_SS];
	v->cpl = cpl;
	v->gpr[CPU_RSP] = cpl ? FAKE_USER_STACK : FAKE_KERNEL_STACK;
	v->rip = 0x5000;
	return v;
}

/* A vCPU as after reset, but with IVT and stack in the fake memory. */
static inline struct vcpu *
fake_vcpu_real(void)
{
	struct vcpu *v = fake_vcpu(false, 0);

	v->cr0 = CR0_ET;
	v->idt = (struct descriptor_table){.base = 0, .limit = 0x3ff};
	for (int i = 0; i < CPU_SEGMENTS; i++)
		v->seg[i] = (struct segment){.limit = 0xffff, .attr = SEGMENT_P | SEGMENT_S | 3};
	v->seg[CPU_CS].attr |= 8;
	v->gpr[CPU_RSP] = 0x7000;
	return v;
}

static inline u64
fake_read64(u64 at)
{
	return get_le64(fake_memory + at);
}

static inline u32
fake_read32(u64 at)
{
	return get_le32(fake_memory + at);
}

#endif
