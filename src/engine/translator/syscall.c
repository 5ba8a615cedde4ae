/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT (AMD64 APM 2, 6.1; APM 3; Intel SDM 2).
 * The vendors differ: Intel has SYSCALL and SYSRET in 64-bit mode only and
 * checks RCX in SYSRET; AMD has no SYSENTER and SYSEXIT in long mode. The
 * common case is in leaf/leaf_system.c.
 */
#include "engine/translator/far.h"
#include "engine/translator/leaf/flat.h"
#include "engine/translator/privileged.h"
#include "engine/translator/vendor.h"

static int
syscall_enter(struct vcpu *v, const struct segment *cs, u64 rip, const struct segment *ss)
{
	far_enter(v, cs, rip, ss);
	return HELPER_JUMP;
}

/* #UD where SYSCALL and SYSRET do not exist. */
static bool
syscall_exists(const struct vcpu *v)
{
	if (!(v->msr.efer & EFER_SCE) || !vcpu_protected(v))
		return false;
	return vcpu_64bit(v) || !vendor_is_intel(v);
}

static int
syscall_legacy(struct vcpu *v, const struct insn *in)
{
	struct segment cs = flat_code((u16)(v->msr.star >> 32), 0, false);
	struct segment ss = flat_data((u16)((u16)(v->msr.star >> 32) + 8), 0);

	v->gpr[CPU_RCX] = (u32)(v->rip + in->len);
	v->rflags &= ~(u64)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
	return syscall_enter(v, &cs, (u32)v->msr.star, &ss);
}

int
syscall_syscall(struct vcpu *v, const struct insn *in)
{
	struct segment cs = flat_code((u16)(v->msr.star >> 32), 0, true);
	struct segment ss = flat_data((u16)((u16)(v->msr.star >> 32) + 8), 0);
	u64 target = vcpu_64bit(v) ? v->msr.lstar : v->msr.cstar;

	if (!syscall_exists(v))
		return vcpu_raise(v, VECTOR_UD);
	if (!vcpu_long_mode(v))
		return syscall_legacy(v, in);
	v->gpr[CPU_RCX] = v->rip + in->len;
	if (!vcpu_64bit(v))
		v->gpr[CPU_RCX] = (u32)v->gpr[CPU_RCX];
	v->gpr[11] = v->rflags & ~(u64)RFLAGS_RF;
	v->rflags = (v->rflags & ~(v->msr.sfmask | RFLAGS_RF)) | RFLAGS_FIXED;
	return syscall_enter(v, &cs, target, &ss);
}

int
syscall_sysret(struct vcpu *v, const struct insn *in)
{
	bool intel = vendor_is_intel(v), wide = vcpu_64bit(v) && (in->rex & 8);
	u16 base = (u16)(v->msr.star >> 48);
	struct segment cs = flat_code((u16)(base + (wide ? 16 : 0)), 3, wide);
	struct segment ss = flat_sysret_stack(&v->seg[CPU_SS], (u16)(base + 8), intel);
	u64 rip = wide ? v->gpr[CPU_RCX] : (u32)v->gpr[CPU_RCX];

	if (!syscall_exists(v))
		return vcpu_raise(v, VECTOR_UD);
	if (v->cpl != 0 || (wide && intel && !vcpu_canonical(rip)))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	if (vcpu_long_mode(v))
		v->rflags = (v->gpr[11] & FLAT_SYSRET_FLAGS) | RFLAGS_FIXED;
	else
		v->rflags |= RFLAGS_IF;
	return syscall_enter(v, &cs, rip, &ss);
}

/* SYSENTER and SYSEXIT: #UD in AMD's long mode, #GP without a target segment. */
static int
syscall_check_fast(struct vcpu *v)
{
	if (vcpu_long_mode(v) && !vendor_is_intel(v))
		return vcpu_raise(v, VECTOR_UD);
	if (!(v->cr0 & CR0_PE) || !(v->msr.sysenter_cs & 0xfffc))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	return 0;
}

int
syscall_sysenter(struct vcpu *v, const struct insn *in)
{
	bool wide = vcpu_long_mode(v);
	u16 base = (u16)v->msr.sysenter_cs;
	struct segment cs = flat_code(base, 0, wide);
	struct segment ss = flat_data((u16)((base & ~3u) + 8), 0);
	int r = syscall_check_fast(v);

	(void)in;
	if (r)
		return r;
	v->rflags &= ~(u64)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
	v->gpr[CPU_RSP] = wide ? v->msr.sysenter_esp : (u32)v->msr.sysenter_esp;
	return syscall_enter(v, &cs, wide ? v->msr.sysenter_eip : (u32)v->msr.sysenter_eip, &ss);
}

int
syscall_sysexit(struct vcpu *v, const struct insn *in)
{
	bool wide = vcpu_64bit(v) && (in->rex & 8);
	u16 base = (u16)((v->msr.sysenter_cs & ~3u) + (wide ? 32 : 16));
	struct segment cs = flat_code(base, 3, wide);
	struct segment ss = flat_data((u16)(base + 8), 3);
	u64 rip = v->gpr[CPU_RDX], rsp = v->gpr[CPU_RCX];
	int r = syscall_check_fast(v);

	if (r)
		return r;
	if (!vcpu_protected(v) || v->cpl != 0 ||
	    (wide && (!vcpu_canonical(rip) || !vcpu_canonical(rsp))))
		return vcpu_raise_code(v, VECTOR_GP, 0);
	v->gpr[CPU_RSP] = wide ? rsp : (u32)rsp;
	return syscall_enter(v, &cs, wide ? rip : (u32)rip, &ss);
}
