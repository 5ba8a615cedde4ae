/*
 * MSRs by table: which exist, where they live in cpu_msrs, which bits may be
 * written. MSRs that belong to a part with a life of its own (local APIC, TSC,
 * kvmclock, FS/GS base, EFER) are the engine's and named here as such.
 */
#ifndef CPU_MSR_H
#define CPU_MSR_H

#include "base/types.h"
#include "cpu/cpu_state.h"
#include "cpu/cpuid.h"

enum {
	MSR_TSC = 0x10,
	MSR_APIC_BASE = 0x1b,
	MSR_TSC_ADJUST = 0x3b,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_ARCH_CAPABILITIES = 0x10a,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC_FIRST = 0x800,
	MSR_X2APIC_LAST = 0x8ff,
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define MSR_KVM_WALL_CLOCK_NEW 0x4b564d00u
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u

/* Plain MSRs: 0, or -EINVAL where a CPU raises #GP (unknown, reserved bits, not
 * canonical), or -ENOENT for those that the engine handles itself (see above). */
int msr_read(const struct cpu_msrs *msrs, const struct cpu_model *model, u32 msr, u64 *value);
int msr_write(struct cpu_msrs *msrs, const struct cpu_model *model, u32 msr, u64 value);

#endif
