/*
 * Control and debug registers, MSRs, flags, ports, system calls, and the way
 * of a whole vCPU to cpu_state and back.
 */
#include "fake_vcpu.h"

#include "engine/translator/leaf/leaf_system.h"
#include "engine/translator/privileged.h"
#include "engine/translator/pvclock.h"
#include "engine/translator/state.h"

static void
assert_fault(struct vcpu *v, int result, u8 vector)
{
	assert_int_equal(result, HELPER_FAULT);
	assert_true(v->event.pending);
	assert_int_equal(v->event.vector, vector);
	v->event.pending = false;
}

static int
write_cr(struct vcpu *v, unsigned number, u64 value)
{
	struct insn in = {.mode = vcpu_64bit(v) ? 64 : 32,
			  .map = 1,
			  .opcode = 0x22,
			  .reg = (u8)number,
			  .rm = CPU_RBX};

	v->gpr[CPU_RBX] = value;
	return control_mov_cr(v, &in);
}

static int
write_msr(struct vcpu *v, u32 msr, u64 value)
{
	static const struct insn in = {.map = 1, .opcode = 0x30, .len = 2};

	v->gpr[CPU_RCX] = msr;
	v->gpr[CPU_RAX] = (u32)value;
	v->gpr[CPU_RDX] = value >> 32;
	return instance_wrmsr(v, &in);
}

static int
read_msr(struct vcpu *v, u32 msr, u64 *value)
{
	static const struct insn in = {.map = 1, .opcode = 0x32, .len = 2};
	int r;

	v->gpr[CPU_RCX] = msr;
	r = instance_rdmsr(v, &in);
	*value = (u32)v->gpr[CPU_RAX] | v->gpr[CPU_RDX] << 32;
	return r;
}

static void
long_mode_activation(void **state)
{
	struct vcpu *v = fake_vcpu(false, 0);
	const u64 efer = 0xc0000080;

	assert_fault(v, write_cr(v, 0, CR0_PG), VECTOR_GP); /* without PE */
	assert_fault(v, write_cr(v, 0, CR0_PE | CR0_NW), VECTOR_GP);
	assert_int_equal(write_msr(v, efer, EFER_LME | EFER_NXE), 0);
	assert_fault(v, write_cr(v, 0, CR0_PE | CR0_PG), VECTOR_GP); /* without PAE */
	assert_int_equal(write_cr(v, 4, CR4_PAE), 0);
	assert_int_equal(write_cr(v, 0, CR0_PE | CR0_PG), 0);
	assert_int_equal(v->msr.efer, EFER_LME | EFER_NXE | EFER_LMA);
	assert_fault(v, write_msr(v, efer, EFER_NXE), VECTOR_GP); /* LME while paging */
	assert_fault(v, write_msr(v, efer, EFER_LME | BIT(1)), VECTOR_GP);
	assert_fault(v, write_cr(v, 4, 0), VECTOR_GP); /* PAE is needed */
	v->seg[CPU_CS] = fake_segment(FAKE_CS64);
	assert_fault(v, write_cr(v, 0, CR0_PE), VECTOR_GP); /* not from 64-bit code */
	v->seg[CPU_CS] = fake_segment(FAKE_CS0);
	assert_int_equal(write_cr(v, 0, CR0_PE), 0);
	assert_int_equal(v->msr.efer, EFER_LME | EFER_NXE);
}

static void
cr3_cr4_and_pcid(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);

	assert_fault(v, write_cr(v, 4, CR4_PAE | BIT(12)), VECTOR_GP);
	assert_fault(v, write_cr(v, 4, CR4_PAE | BIT64(40)), VECTOR_GP);
	assert_int_equal(write_cr(v, 3, 0x1018), 0);
	assert_fault(v, write_cr(v, 4, CR4_PAE | CR4_PCIDE), VECTOR_GP); /* CR3 bits 11:0 */
	assert_fault(v, write_cr(v, 3, 0x1000 | BIT64(63)), VECTOR_GP);
	assert_fault(v, write_cr(v, 3, 0x1000 | BIT64(40)), VECTOR_GP);
	assert_int_equal(write_cr(v, 3, 0x1000), 0);
	assert_int_equal(write_cr(v, 4, CR4_PAE | CR4_PCIDE), 0);
	assert_int_equal(write_cr(v, 3, 0x2007 | BIT64(63)), 0);
	assert_int_equal(v->cr3, 0x2007);
	v->seg[CPU_CS] = fake_segment(FAKE_CS0);
	assert_fault(v, write_cr(v, 0, CR0_PE), VECTOR_GP); /* PCIDE holds PG */
	v->cpl = 3;
	assert_fault(v, write_cr(v, 3, 0), VECTOR_GP);
	assert_fault(v, write_cr(v, 1, 0), VECTOR_UD);
}

static void
pae_pdptes(void **state)
{
	struct vcpu *v = fake_vcpu(false, 0);

	put_le64(fake_memory + 0x6020, 0x7001);
	put_le64(fake_memory + 0x6028, 0x1e6); /* not present: anything goes */
	assert_int_equal(write_cr(v, 3, 0x6020), 0);
	assert_int_equal(write_cr(v, 4, CR4_PAE), 0);
	assert_int_equal(write_cr(v, 0, CR0_PE | CR0_PG), 0);
	assert_int_equal(v->pdpte[0], 0x7001);
	put_le64(fake_memory + 0x6028, 0x1e7);
	assert_fault(v, write_cr(v, 3, 0x6020), VECTOR_GP);
	put_le64(fake_memory + 0x6028, 0x1 | BIT64(40));
	assert_fault(v, write_cr(v, 3, 0x6020), VECTOR_GP);
	assert_fault(v, write_cr(v, 3, 0x10000000), VECTOR_GP); /* no memory there */
	assert_int_equal(v->pdpte[1], 0x1e6);
}

static void
debug_registers(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);
	struct insn in = {.mode = 64, .map = 1, .opcode = 0x23, .reg = 7, .rm = CPU_RBX};

	v->gpr[CPU_RBX] = 0xffff;
	assert_int_equal(control_mov_dr(v, &in), 0);
	assert_int_equal(v->dr7, 0x27ff);
	assert_fault(v, control_mov_dr(v, &in), VECTOR_DB); /* GD */
	assert_true(v->dr6 & BIT(13));
	v->dr7 = 0x400;
	v->gpr[CPU_RBX] = BIT64(32);
	assert_fault(v, control_mov_dr(v, &in), VECTOR_GP);
	in.reg = 4;
	v->gpr[CPU_RBX] = 0;
	assert_int_equal(control_mov_dr(v, &in), 0);
	assert_int_equal(v->dr6, 0xffff0ff0);
	v->cr4 |= CR4_DE;
	assert_fault(v, control_mov_dr(v, &in), VECTOR_UD);
}

static void
msrs(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);
	u64 value;

	assert_fault(v, read_msr(v, 0x12345, &value), VECTOR_GP);
	assert_fault(v, read_msr(v, 0x12345, &value), VECTOR_GP);
	assert_int_equal(v->refused_count, 1);
	assert_int_equal(write_msr(v, 0xc0000100, 0xffff800000000000ull), 0);
	assert_int_equal(v->seg[CPU_FS].base, 0xffff800000000000ull);
	assert_fault(v, write_msr(v, 0xc0000100, 0x800000000000ull), VECTOR_GP);
	assert_int_equal(write_msr(v, 0x10, 0), 0);
	assert_int_equal(read_msr(v, 0x10, &value), 0);
	assert_true(value < 100000000);
	v->cpl = 3;
	assert_fault(v, read_msr(v, 0x10, &value), VECTOR_GP);
}

static void
kvm_clock(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);
	u32 mul;
	u64 tsc, ns;

	assert_int_equal(write_msr(v, 0x4b564d01, 0x6001), 0);
	mul = fake_read32(0x6018);
	assert_int_equal(fake_read32(0x6000), 2);
	assert_int_equal(fake_memory[0x601c], 0); /* 2 GHz: mul is one half */
	assert_int_equal(mul, 0x80000000);
	assert_int_equal(fake_memory[0x601d], 1);
	tsc = pvclock_guest_tsc(v);
	ns = pvclock_ns(v, tsc);
	assert_int_equal(ns, tsc / 2);
	/* The guest writes its TSC: the clock goes on. */
	assert_int_equal(write_msr(v, 0x10, 1000), 0);
	assert_true(pvclock_ns(v, pvclock_guest_tsc(v)) - ns < 1000000000);
	assert_int_equal(fake_read64(0x6008), v->msr.tsc_adjust);
	assert_int_equal(write_msr(v, 0x4b564d00, 0x7000), 0);
	assert_true(fake_read32(0x7004) > 1600000000);
	assert_fault(v, write_msr(v, 0x12, 0x6001), VECTOR_GP); /* the old number is not offered */
	assert_int_equal(write_msr(v, 0x4b564d01, 0xfffffffffff1ull), 0); /* nowhere: ignored */
}

static void
interrupt_flag(void **state)
{
	struct vcpu *v = fake_vcpu(false, 3);
	struct insn in = {.mode = 32, .opcode = 0xfa, .opsize = 4, .len = 1};

	assert_fault(v, flags_cli(v, &in), VECTOR_GP);
	v->rflags |= RFLAGS_IOPL;
	assert_int_equal(flags_cli(v, &in), 0);
	assert_false(v->rflags & RFLAGS_IF);
	assert_int_equal(flags_sti(v, &in), 0);
	assert_true(v->shadow);
	v->shadow = false;
	assert_int_equal(flags_sti(v, &in), 0);
	assert_false(v->shadow);
	v->rflags &= ~(u64)RFLAGS_IOPL;
	v->cr4 |= CR4_PVI;
	assert_int_equal(flags_sti(v, &in), 0);
	assert_true(v->rflags & RFLAGS_VIF);
	v->rflags |= RFLAGS_VIP;
	assert_fault(v, flags_sti(v, &in), VECTOR_GP);
}

static void
popf_masks(void **state)
{
	struct vcpu *v = fake_vcpu(true, 3);
	struct insn in = {.mode = 64, .opcode = 0x9d, .opsize = 8, .len = 1};

	put_le64(fake_memory + FAKE_USER_STACK, 0xffffffff);
	v->rflags = RFLAGS_FIXED;
	assert_int_equal(flags_popf(v, &in), 0);
	assert_int_equal(v->rflags, RFLAGS_FIXED | RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF |
					    RFLAGS_NT | RFLAGS_AC | RFLAGS_ID);
	v = fake_vcpu(true, 0);
	put_le64(fake_memory + FAKE_KERNEL_STACK, 0xffffffff & ~RFLAGS_TF);
	assert_int_equal(flags_popf(v, &in), 0);
	assert_int_equal(v->rflags, RFLAGS_FIXED | RFLAGS_ARITH | RFLAGS_DF | RFLAGS_NT |
					    RFLAGS_IF | RFLAGS_IOPL | RFLAGS_AC | RFLAGS_ID);
	in.opcode = 0x9c;
	v->rflags |= RFLAGS_RF;
	assert_int_equal(flags_pushf(v, &in), 0);
	assert_int_equal(fake_read64(FAKE_KERNEL_STACK), v->rflags & ~(u64)RFLAGS_RF);
}

static void
port_permission(void **state)
{
	struct vcpu *v = fake_vcpu(false, 3);
	struct insn in = {.mode = 32, .opcode = 0xe4, .opsize = 4, .len = 2, .imm = 0x60};

	put_le16(fake_memory + FAKE_TSS + 0x66, 0x68); /* the map starts behind the limit */
	assert_fault(v, port_in(v, &in), VECTOR_GP);
	v->tr.limit = 0x68 + 0x20;
	fake_port_value = 0x12345678;
	v->gpr[CPU_RAX] = 0xaabbccdd11223344;
	assert_int_equal(port_in(v, &in), 0);
	assert_int_equal(v->gpr[CPU_RAX], 0xaabbccdd11223378ull);
	in.opcode = 0xe5;
	assert_int_equal(port_in(v, &in), 0);
	assert_int_equal(v->gpr[CPU_RAX], 0x12345678);
	fake_memory[FAKE_TSS + 0x68 + 12] = 8; /* port 0x63: within four bytes of 0x60 */
	assert_fault(v, port_in(v, &in), VECTOR_GP);
	in.opcode = 0xe4;
	assert_int_equal(port_in(v, &in), 0);
	in.opcode = 0xec;
	v->gpr[CPU_RDX] = 0xffff;
	assert_fault(v, port_in(v, &in), VECTOR_GP); /* beyond the map */
	v->rflags |= RFLAGS_IOPL;
	assert_int_equal(port_in(v, &in), 0);
	assert_int_equal(fake_port, 0xffff);
}

static void
xcr0(void **state)
{
	struct vcpu *v = fake_vcpu(true, 0);
	struct insn in = {.mode = 64, .map = 1, .opcode = 1, .modrm = 0xd1};

	v->gpr[CPU_RAX] = 7;
	assert_fault(v, control_xsetbv(v, &in), VECTOR_UD);
	v->cr4 |= CR4_OSXSAVE;
	assert_int_equal(control_xsetbv(v, &in), 0);
	assert_int_equal(v->xcr0, 7);
	v->gpr[CPU_RAX] = 5; /* AVX without SSE */
	assert_fault(v, control_xsetbv(v, &in), VECTOR_GP);
	v->gpr[CPU_RAX] = 6;
	assert_fault(v, control_xsetbv(v, &in), VECTOR_GP);
	v->gpr[CPU_RAX] = 0x207;
	assert_fault(v, control_xsetbv(v, &in), VECTOR_GP);
	assert_int_equal(v->xcr0, 7);
}

static struct vcpu *
syscall_vcpu(u8 cpl, const char *vendor)
{
	struct vcpu *v = fake_vcpu(true, cpl);

	v->model = fake_model(vendor);
	v->msr.star = 0x0023001000000000ull;
	v->msr.lstar = 0xffffffff81000000ull;
	v->msr.sfmask = RFLAGS_IF | RFLAGS_DF;
	v->gpr[CPU_RCX] = 0x7000;
	v->gpr[11] = 0x246;
	return v;
}

static void
syscall_and_leaf_agree(void **state)
{
	static const char *const vendors[] = {"amd", "intel"};
	const struct insn syscall = {.mode = 64, .map = 1, .opcode = 5, .len = 2};
	const struct insn sysret = {.mode = 64, .map = 1, .opcode = 7, .rex = 0x48, .len = 3};

	for (int i = 0; i < 2; i++) {
		struct vcpu *v = syscall_vcpu(3, vendors[i]), leaf;

		assert_int_equal(leaf_syscall(v, &syscall), LEAF_JUMP);
		leaf = *v;
		v = syscall_vcpu(3, vendors[i]);
		assert_int_equal(syscall_syscall(v, &syscall), HELPER_JUMP);
		assert_memory_equal(v, &leaf, offsetof(struct vcpu, xsave));
		assert_int_equal(v->rip, 0xffffffff81000000ull);
		assert_int_equal(v->gpr[CPU_RCX], 0x5002);
		assert_int_equal(v->gpr[11], 0x202);
		assert_int_equal(v->rflags, 2);
		assert_int_equal(v->seg[CPU_CS].selector, 0x10);

		v = syscall_vcpu(0, vendors[i]);
		v->seg[CPU_SS] = (struct segment){0};
		assert_int_equal(leaf_sysret(v, &sysret), LEAF_JUMP);
		leaf = *v;
		v = syscall_vcpu(0, vendors[i]);
		v->seg[CPU_SS] = (struct segment){0};
		assert_int_equal(syscall_sysret(v, &sysret), HELPER_JUMP);
		assert_memory_equal(v, &leaf, offsetof(struct vcpu, xsave));
		assert_int_equal(v->cpl, 3);
		assert_int_equal(v->rip, 0x7000);
		assert_int_equal(v->seg[CPU_CS].selector, 0x33);
		assert_int_equal(v->seg[CPU_SS].selector, 0x2b);
		assert_int_equal(v->seg[CPU_SS].limit, i == 1 ? 0xffffffff : 0);
	}
}

static void
syscall_faults_by_vendor(void **state)
{
	const struct insn syscall = {.mode = 64, .map = 1, .opcode = 5, .len = 2};
	const struct insn sysret = {.mode = 64, .map = 1, .opcode = 7, .rex = 0x48, .len = 3};
	const struct insn sysenter = {.mode = 64, .map = 1, .opcode = 0x34, .len = 2};
	struct vcpu *v = syscall_vcpu(0, "intel");

	v->gpr[CPU_RCX] = BIT64(50);
	assert_int_equal(leaf_sysret(v, &sysret), LEAF_SLOW);
	assert_fault(v, syscall_sysret(v, &sysret), VECTOR_GP);
	assert_int_equal(v->cpl, 0);
	assert_fault(v, syscall_sysenter(v, &sysenter), VECTOR_GP); /* SYSENTER_CS is null */
	v->msr.sysenter_cs = 0x10;
	v->msr.sysenter_eip = 0x1234;
	v->msr.sysenter_esp = 0x5678;
	assert_int_equal(syscall_sysenter(v, &sysenter), HELPER_JUMP);
	assert_int_equal(v->gpr[CPU_RSP], 0x5678);
	v->seg[CPU_CS] = fake_segment(FAKE_CS0); /* compatibility mode */
	assert_fault(v, syscall_syscall(v, &syscall), VECTOR_UD);

	v = syscall_vcpu(0, "amd");
	v->gpr[CPU_RCX] = BIT64(50);
	assert_int_equal(syscall_sysret(v, &sysret), HELPER_JUMP); /* faults at CPL 3 */
	assert_fault(v, syscall_sysret(v, &sysret), VECTOR_GP);
	assert_fault(v, syscall_sysenter(v, &sysenter), VECTOR_UD);
	v->msr.efer &= ~(u64)EFER_SCE;
	assert_fault(v, syscall_syscall(v, &syscall), VECTOR_UD);
}

static void
leaf_flags_agree(void **state)
{
	static const u64 images[] = {0,	    0x246,     0xffffffff,
				     0x200, RFLAGS_TF, RFLAGS_AC | RFLAGS_IOPL};
	const struct insn popf = {.mode = 64, .opcode = 0x9d, .opsize = 8, .len = 1};

	for (unsigned i = 0; i < ARRAY_LEN(images) * 4; i++) {
		u8 cpl = i & 1 ? 3 : 0;
		struct vcpu *v = fake_vcpu(true, cpl), leaf, before;
		int r;

		fake_translation.irq_waiting = (i >> 1) & 1;
		v->rflags &= ~(u64)RFLAGS_IF;
		put_le64(fake_memory + v->gpr[CPU_RSP], images[i / 4]);
		before = *v;
		r = leaf_popf(v, &popf);
		leaf = *v;
		*v = before;
		if (r == LEAF_SLOW) {
			assert_memory_equal(&leaf, &before, sizeof(leaf));
			continue;
		}
		assert_int_equal(flags_popf(v, &popf), 0);
		assert_memory_equal(v, &leaf, offsetof(struct vcpu, xsave));
		assert_false(fake_translation.irq_waiting && (v->rflags & RFLAGS_IF));
	}
}

static void
lapic_nothing(void *opaque)
{
	(void)opaque;
}

static u64
lapic_zero(void *opaque)
{
	lapic_nothing(opaque);
	return 0;
}

static void
lapic_no_ipi(void *opaque, const struct lapic_ipi *ipi)
{
	(void)ipi;
	lapic_nothing(opaque);
}

static void
lapic_no_timer(void *opaque, u64 deadline)
{
	(void)deadline;
	lapic_nothing(opaque);
}

static struct vcpu *
whole_vcpu(bool wide, u8 cpl)
{
	static const struct lapic_host host = {.send_ipi = lapic_no_ipi,
					       .set_timer = lapic_no_timer,
					       .now_ns = lapic_zero,
					       .guest_tsc = lapic_zero};
	struct vcpu *v = fake_vcpu(wide, cpl);

	lapic_init(&v->lapic, 0, &host);
	put_le32(v->xsave + 24, 0x1f80);
	return v;
}

static void
state_round_trip(void **state)
{
	static struct cpu_state first, second;
	struct vcpu *v = whole_vcpu(true, 3);

	for (int i = 0; i < CPU_GPRS; i++)
		v->gpr[i] = 0x1111111111111111ull * (u64)i;
	v->cr3 = 0x3000;
	v->nmi_masked = true;
	v->tsc_offset = 12345;
	vcpu_raise_code(v, VECTOR_GP, 0x77);
	vcpu_get_state(v, &first, 1000000);
	assert_int_equal(first.tsc, 1012345);
	v = whole_vcpu(false, 0);
	assert_int_equal(vcpu_set_state(v, &first, 2000000), 0);
	assert_int_equal(v->cpl, 3);
	assert_true(v->event.pending);
	assert_int_equal(v->event.code, 0x77);
	vcpu_get_state(v, &second, 2000000);
	assert_int_equal(second.host_tsc, 2000000);
	second.host_tsc = first.host_tsc;
	assert_memory_equal(&first, &second, sizeof(first));
}

/* It goes on from what it showed elsewhere, at any TSC, and is published so. */
static void
kvm_clock_crosses(void **state)
{
	static struct cpu_state s;
	struct vcpu *v = whole_vcpu(true, 0);
	u64 hz = v->model->tsc_hz, before;

	vcpu_get_state(v, &s, 0);
	s.tsc = 5 * hz;
	s.kvmclock = 77000000123;
	s.msr.kvm_system_time = 0x5001;
	assert_int_equal(vcpu_set_state(v, &s, 1000), 0);
	assert_int_equal(pvclock_ns(v, 5 * hz), 77000000123);
	assert_int_equal(pvclock_ns(v, 7 * hz) / 1000, 79000000);
	assert_int_equal(get_le64(fake_memory + 0x5008), 5 * hz);
	assert_int_equal(get_le64(fake_memory + 0x5010), 77000000123);
	vcpu_get_state(v, &s, 1000);
	assert_int_equal(s.tsc, 5 * hz);
	assert_int_equal(s.kvmclock, 77000000123);
	/* The guest moves its TSC, and the clock does not follow. */
	before = pvclock_ns(v, pvclock_guest_tsc(v));
	assert_int_equal(write_msr(v, 0x10, 3), 0);
	assert_in_range(pvclock_ns(v, pvclock_guest_tsc(v)), before, before + 1000000000);
	vcpu_get_state(v, &s, 1000);
	s.kvmclock = 0; /* not known: as from power-on */
	assert_int_equal(vcpu_set_state(v, &s, 1000), 0);
	assert_int_equal(pvclock_ns(v, s.msr.tsc_adjust + 5 * hz) / 1000, 5000000);
}

static void
state_refuses(void **state)
{
	static struct cpu_state good, bad;
	struct vcpu *v = whole_vcpu(true, 0), before;

	vcpu_get_state(v, &good, 0);
	before = *v;
	bad = good;
	bad.cr0 &= ~(u64)CR0_PE;
	assert_int_equal(vcpu_set_state(v, &bad, 0), -EINVAL);
	bad = good;
	bad.cr4 |= BIT(30);
	assert_int_equal(vcpu_set_state(v, &bad, 0), -EINVAL);
	bad = good;
	bad.msr.efer &= ~(u64)EFER_LMA;
	assert_int_equal(vcpu_set_state(v, &bad, 0), -EINVAL);
	bad = good;
	bad.xcr0 = 0x207;
	assert_int_equal(vcpu_set_state(v, &bad, 0), -EINVAL);
	bad = good;
	bad.seg[CPU_CS].attr &= (u16)~SEGMENT_L;
	bad.seg[CPU_CS].base = BIT64(32);
	assert_int_equal(vcpu_set_state(v, &bad, 0), -EINVAL);
	assert_memory_equal(v, &before, sizeof(before));
	/* What XRSTOR would refuse is made harmless. */
	memset(good.xsave + 512, 0xff, 64);
	put_le32(good.xsave + 24, 0xffffffff);
	assert_int_equal(vcpu_set_state(v, &good, 0), 0);
	assert_int_equal(get_le64(v->xsave + 512), 7);
	assert_int_equal(get_le64(v->xsave + 520), 0);
	assert_int_equal(get_le32(v->xsave + 24), 0xffff);
}

static void
init_and_sipi(void **state)
{
	struct vcpu *v = whole_vcpu(true, 3);

	v->index = 1;
	v->lapic.s.base_msr &= ~(u64)BIT(8);
	v->msr.lstar = 0x1234;
	v->xcr0 = 7;
	system_init(v);
	assert_int_equal(v->run_state, CPU_WAIT_SIPI);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->msr.efer, 0);
	assert_int_equal(v->msr.lstar, 0x1234);
	assert_int_equal(v->xcr0, 7);
	assert_int_equal(v->gpr[CPU_RDX], 0x00a20f10);
	system_sipi(v, 0x9a);
	assert_int_equal(v->run_state, CPU_RUNNING);
	assert_int_equal(v->seg[CPU_CS].selector, 0x9a00);
	assert_int_equal(v->seg[CPU_CS].base, 0x9a000);
	assert_int_equal(v->rip, 0);
	v->rip = 0x55;
	system_sipi(v, 0x10); /* not waiting: ignored */
	assert_int_equal(v->rip, 0x55);
}

static void
table_finds_helpers(void **state)
{
	const struct insn swapgs = {
		.mode = 64, .map = 1, .opcode = 1, .has_modrm = true, .modrm = 0xf8, .reg = 7};
	const struct insn monitor = {
		.mode = 64, .map = 1, .opcode = 1, .has_modrm = true, .modrm = 0xc8, .reg = 1};
	const struct insn mov = {.mode = 64, .opcode = 0x89, .has_modrm = true, .modrm = 0xc0};
	const struct insn sfence = {
		.mode = 64, .map = 1, .opcode = 0xae, .has_modrm = true, .modrm = 0xf8, .reg = 7};
	const struct insn vex_lds = {.mode = 64, .map = 1, .opcode = 0x05, .prefixes = INSN_VEX};

	assert_ptr_equal(system_helper(&swapgs), segment_swapgs);
	assert_ptr_equal(system_helper(&monitor), instance_ud);
	assert_null(system_helper(&mov));
	assert_null(system_helper(&sfence));
	assert_null(system_helper(&vex_lds));
	assert_ptr_equal(leaf_system(&swapgs), leaf_swapgs);
	assert_null(leaf_system(&mov));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_mode_activation),
		cmocka_unit_test(cr3_cr4_and_pcid),
		cmocka_unit_test(pae_pdptes),
		cmocka_unit_test(debug_registers),
		cmocka_unit_test(msrs),
		cmocka_unit_test(kvm_clock),
		cmocka_unit_test(interrupt_flag),
		cmocka_unit_test(popf_masks),
		cmocka_unit_test(port_permission),
		cmocka_unit_test(xcr0),
		cmocka_unit_test(syscall_and_leaf_agree),
		cmocka_unit_test(syscall_faults_by_vendor),
		cmocka_unit_test(leaf_flags_agree),
		cmocka_unit_test(state_round_trip),
		cmocka_unit_test(kvm_clock_crosses),
		cmocka_unit_test(state_refuses),
		cmocka_unit_test(init_and_sipi),
		cmocka_unit_test(table_finds_helpers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
