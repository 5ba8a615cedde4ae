/*
 * IN and OUT of one value, and the permission check by IOPL and the TSS's
 * bitmap (AMD64 APM 2, 12.2.4).
 */
#include "engine/translator/port.h"

#include "engine/translator/descriptor.h"
#include "engine/translator/operand.h"
#include "engine/translator/privileged.h"
#include "engine/translator/translation.h"

static int
port_check_bitmap(struct vcpu *v, u16 port, unsigned size)
{
	const u16 type = SEGMENT_P | (SEGMENT_TYPE & ~DESCRIPTOR_TSS_BUSY);
	u16 base, bits;
	u32 at;
	int r;

	if ((v->tr.attr & type) != (SEGMENT_P | DESCRIPTOR_TSS) || v->tr.limit < 0x67)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = mmu_read16(v, descriptor_linear(v, v->tr.base + 0x66), &base, MMU_SUPERVISOR);
	if (r)
		return r;
	/* Two bytes are read, whatever the size: the map ends with a byte of ones. */
	at = (u32)base + port / 8u;
	if (at + 1 > v->tr.limit)
		return vcpu_raise_code(v, VECTOR_GP, 0);
	r = mmu_read16(v, descriptor_linear(v, v->tr.base + at), &bits, MMU_SUPERVISOR);
	if (r)
		return r;
	if (((u32)bits >> (port & 7)) & (BIT(size) - 1))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	return 0;
}

int
port_check(struct vcpu *v, u16 port, unsigned size)
{
	unsigned iopl = (v->rflags >> 12) & 3;

	if (!(v->cr0 & CR0_PE) || (!(v->rflags & RFLAGS_VM) && v->cpl <= iopl))
		return 0;
	return port_check_bitmap(v, port, size);
}

void
port_watch(struct vcpu *v, u16 port, unsigned size)
{
	static const u8 lengths[4] = {1, 2, 8, 4};

	if (!(v->cr4 & CR4_DE) || !(v->dr7 & 0xff))
		return;
	for (unsigned i = 0; i < 4; i++) {
		unsigned kind = (v->dr7 >> (16 + 4 * i)) & 3, length;

		length = lengths[(v->dr7 >> (18 + 4 * i)) & 3];
		if (!((v->dr7 >> (2 * i)) & 3) || kind != 2)
			continue;
		if (v->dr[i] < (u64)port + size && port < v->dr[i] + length)
			vcpu_translation(v)->watch_hits |= BIT64(i);
	}
}

static unsigned
port_size(const struct insn *in)
{
	if (!(in->opcode & 1))
		return 1;
	return in->opsize == 2 ? 2 : 4;
}

static u16
port_number(const struct vcpu *v, const struct insn *in)
{
	return (u16)(in->opcode & 8 ? v->gpr[CPU_RDX] & 0xffff : in->imm & 0xff);
}

int
port_in(struct vcpu *v, const struct insn *in)
{
	unsigned size = port_size(in);
	u16 port = port_number(v, in);
	u32 value = 0;
	int r = port_check(v, port, size);

	if (!r)
		r = mmu_port_read(v, port, size, &value);
	if (r)
		return r;
	operand_set_gpr(v, CPU_RAX, size, value);
	port_watch(v, port, size);
	return 0;
}

int
port_out(struct vcpu *v, const struct insn *in)
{
	unsigned size = port_size(in);
	u16 port = port_number(v, in);
	int r = port_check(v, port, size);

	if (!r)
		r = mmu_port_write(v, port, size, (u32)(v->gpr[CPU_RAX] & operand_mask(size)));
	if (!r)
		port_watch(v, port, size);
	return r;
}
