/*
 * What identifies, times and stops this processor: CPUID, the TSC, MSRs, HLT,
 * hypercalls (AMD64 APM 3; MSRs APM 2, appendix A). Plain MSRs are in
 * cpu/msr.c; the ones here act.
 */
#include <errno.h>

#include "base/log.h"
#include "cpu/msr.h"
#include "engine/translator/control.h"
#include "engine/translator/operand.h"
#include "engine/translator/privileged.h"
#include "engine/translator/pvclock.h"

enum {
	MSR_KVM_WALL_CLOCK = 0x11,
	MSR_KVM_SYSTEM_TIME = 0x12,
	KVM_FEATURE_CLOCKSOURCE = 0,
	KVM_FEATURE_CLOCKSOURCE2 = 3,
	KVM_HC_VAPIC_POLL_IRQ = 1,
	KVM_ENOSYS = 1000,
};

enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

static int
instance_gp(struct vcpu *v)
{
	return vcpu_raise_code(v, VECTOR_GP, 0);
}

int
instance_ud(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return vcpu_raise(v, VECTOR_UD);
}

int
instance_cpuid(struct vcpu *v, const struct insn *in)
{
	u32 out[4];

	(void)in;
	cpu_model_cpuid(v->model, v->index, v->cr4, v->xcr0, (u32)v->gpr[CPU_RAX],
			(u32)v->gpr[CPU_RCX], out);
	v->gpr[CPU_RAX] = out[REG_EAX];
	v->gpr[CPU_RBX] = out[REG_EBX];
	v->gpr[CPU_RCX] = out[REG_ECX];
	v->gpr[CPU_RDX] = out[REG_EDX];
	return 0;
}

static void
instance_set_edx_eax(struct vcpu *v, u64 value)
{
	v->gpr[CPU_RAX] = (u32)value;
	v->gpr[CPU_RDX] = value >> 32;
}

int
instance_rdtsc(struct vcpu *v, const struct insn *in)
{
	(void)in;
	if ((v->cr4 & CR4_TSD) && v->cpl > 0)
		return instance_gp(v);
	instance_set_edx_eax(v, pvclock_guest_tsc(v));
	return 0;
}

int
instance_rdtscp(struct vcpu *v, const struct insn *in)
{
	int r;

	if (!cpu_model_has(v->model, 0x80000001, 0, REG_EDX, 27))
		return vcpu_raise(v, VECTOR_UD);
	r = instance_rdtsc(v, in);
	if (!r)
		v->gpr[CPU_RCX] = (u32)v->msr.tsc_aux;
	return r;
}

int
instance_rdpid(struct vcpu *v, const struct insn *in)
{
	if (in->mem || !cpu_model_has(v->model, 7, 0, REG_ECX, 22))
		return vcpu_raise(v, VECTOR_UD);
	operand_set_gpr(v, in->rm, in->mode == 64 ? 8 : 4, (u32)v->msr.tsc_aux);
	return 0;
}

/* There are no performance counters. */
int
instance_rdpmc(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return instance_gp(v);
}

int
instance_hlt(struct vcpu *v, const struct insn *in)
{
	(void)in;
	return v->cpl == 0 ? HELPER_HALT : instance_gp(v);
}

/* The kvm calling convention, of which nothing is needed. */
int
instance_vmcall(struct vcpu *v, const struct insn *in)
{
	i64 result = -KVM_ENOSYS;

	(void)in;
	if (v->cpl != 0)
		result = -EPERM;
	else if (v->gpr[CPU_RAX] == KVM_HC_VAPIC_POLL_IRQ)
		result = 0;
	operand_set_gpr(v, CPU_RAX, vcpu_64bit(v) ? 8 : 4, (u64)result);
	return 0;
}

static bool
instance_has_clock(const struct vcpu *v, u32 msr)
{
	int bit = msr == MSR_KVM_WALL_CLOCK || msr == MSR_KVM_SYSTEM_TIME
			  ? KVM_FEATURE_CLOCKSOURCE
			  : KVM_FEATURE_CLOCKSOURCE2;

	return cpu_model_has(v->model, 0x40000001, 0, REG_EAX, bit);
}

/* 0, or -EINVAL where RDMSR raises #GP. */
static int
instance_read_msr(struct vcpu *v, u32 msr, u64 *value)
{
	switch (msr) {
	case MSR_TSC:
		*value = pvclock_guest_tsc(v);
		return 0;
	case MSR_TSC_ADJUST:
		*value = v->msr.tsc_adjust;
		return cpu_model_has(v->model, 7, 0, REG_EBX, 1) ? 0 : -EINVAL;
	case MSR_EFER:
		*value = v->msr.efer;
		return 0;
	case MSR_FS_BASE:
		*value = v->seg[CPU_FS].base;
		return 0;
	case MSR_GS_BASE:
		*value = v->seg[CPU_GS].base;
		return 0;
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		*value = v->msr.kvm_wall_clock;
		return instance_has_clock(v, msr) ? 0 : -EINVAL;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		*value = v->msr.kvm_system_time;
		return instance_has_clock(v, msr) ? 0 : -EINVAL;
	default:
		break;
	}
	if (msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE ||
	    (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST))
		return lapic_msr_read(&v->lapic, msr, value);
	return msr_read(&v->msr, v->model, msr, value) ? -EINVAL : 0;
}

/* The guest's TSC moves by DELTA; the kvm clock does not. */
static int
instance_move_tsc(struct vcpu *v, u64 delta)
{
	v->tsc_offset = (i64)((u64)v->tsc_offset + delta);
	v->msr.tsc_adjust += delta;
	v->clock_tsc += delta;
	pvclock_publish(v);
	return 0;
}

static int
instance_write_base(struct vcpu *v, enum cpu_segment seg, u64 value)
{
	if (!vcpu_canonical(value))
		return -EINVAL;
	v->seg[seg].base = value;
	vcpu_mode_changed(v);
	return 0;
}

static int
instance_write_clock(struct vcpu *v, u32 msr, u64 value)
{
	if (!instance_has_clock(v, msr))
		return -EINVAL;
	if (msr == MSR_KVM_SYSTEM_TIME || msr == MSR_KVM_SYSTEM_TIME_NEW) {
		v->msr.kvm_system_time = value;
		pvclock_publish(v);
	} else {
		v->msr.kvm_wall_clock = value;
		pvclock_publish_wall(v, value);
	}
	return 0;
}

/* 0, HELPER_FAULT, or -EINVAL where WRMSR raises #GP. */
static int
instance_write_msr(struct vcpu *v, u32 msr, u64 value)
{
	switch (msr) {
	case MSR_TSC:
		return instance_move_tsc(v, value - pvclock_guest_tsc(v));
	case MSR_TSC_ADJUST:
		if (!cpu_model_has(v->model, 7, 0, REG_EBX, 1))
			return -EINVAL;
		return instance_move_tsc(v, value - v->msr.tsc_adjust);
	case MSR_EFER:
		return control_write_efer(v, value);
	case MSR_FS_BASE:
		return instance_write_base(v, CPU_FS, value);
	case MSR_GS_BASE:
		return instance_write_base(v, CPU_GS, value);
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		return instance_write_clock(v, msr, value);
	default:
		break;
	}
	if (msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE ||
	    (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST))
		return lapic_msr_write(&v->lapic, msr, value);
	return msr_write(&v->msr, v->model, msr, value) ? -EINVAL : 0;
}

/* Says once per MSR (as far as the list goes) that the guest asked for one that is not there. */
static int
instance_refuse_msr(struct vcpu *v, u32 msr, const char *what)
{
	for (unsigned i = 0; i < v->refused_count; i++) {
		if (v->refused_msrs[i] == msr)
			return instance_gp(v);
	}
	if (v->refused_count < ARRAY_LEN(v->refused_msrs)) {
		v->refused_msrs[v->refused_count++] = msr;
		log_debug("vcpu %u: %s of MSR 0x%x refused", v->index, what, msr);
	}
	return instance_gp(v);
}

int
instance_rdmsr(struct vcpu *v, const struct insn *in)
{
	u32 msr = (u32)v->gpr[CPU_RCX];
	u64 value;

	(void)in;
	if (v->cpl != 0)
		return instance_gp(v);
	if (instance_read_msr(v, msr, &value))
		return instance_refuse_msr(v, msr, "read");
	instance_set_edx_eax(v, value);
	return 0;
}

int
instance_wrmsr(struct vcpu *v, const struct insn *in)
{
	u32 msr = (u32)v->gpr[CPU_RCX];
	u64 value = (u32)v->gpr[CPU_RAX] | v->gpr[CPU_RDX] << 32;
	int r;

	(void)in;
	if (v->cpl != 0)
		return instance_gp(v);
	r = instance_write_msr(v, msr, value);
	if (r == -EINVAL)
		return instance_refuse_msr(v, msr, "write");
	return r;
}
