/*
 * Everything that one x86-64 virtual CPU is, however it is run. Registers
 * cross between a machine, its loaders and its hypervisors as this only.
 * Sections are those of AMD64 APM volume 2.
 */
#ifndef CPU_CPU_STATE_H
#define CPU_CPU_STATE_H

#include "base/types.h"

enum cpu_gpr {
	CPU_RAX,
	CPU_RCX,
	CPU_RDX,
	CPU_RBX,
	CPU_RSP,
	CPU_RBP,
	CPU_RSI,
	CPU_RDI, /* R8 to R15 follow as 8 to 15 */
	CPU_GPRS = 16
};

/* In the order of their encoding in an instruction. */
enum cpu_segment { CPU_ES, CPU_CS, CPU_SS, CPU_DS, CPU_FS, CPU_GS, CPU_SEGMENTS };

/* A segment register with its hidden part. ATTR as in a VMCB (15.5.1): bits 0-3
 * type, 4 S, 5-6 DPL, 7 P, 8 AVL, 9 L, 10 D/B, 11 G. LIMIT is in bytes, G applied. */
struct segment {
	u64 base;
	u32 limit;
	u16 selector;
	u16 attr;
};

enum {
	SEGMENT_TYPE = 0x00f,
	SEGMENT_S = BIT(4),
	SEGMENT_DPL_SHIFT = 5,
	SEGMENT_P = BIT(7),
	SEGMENT_AVL = BIT(8),
	SEGMENT_L = BIT(9),
	SEGMENT_DB = BIT(10),
	SEGMENT_G = BIT(11),
};

struct descriptor_table {
	u64 base;
	u16 limit;
};

enum {
	CR0_PE = BIT(0),
	CR0_MP = BIT(1),
	CR0_EM = BIT(2),
	CR0_TS = BIT(3),
	CR0_ET = BIT(4),
	CR0_NE = BIT(5),
	CR0_WP = BIT(16),
	CR0_AM = BIT(18),
	CR0_NW = BIT(29),
	CR0_CD = BIT(30),
};
#define CR0_PG 0x80000000u

enum {
	CR4_VME = BIT(0),
	CR4_PVI = BIT(1),
	CR4_TSD = BIT(2),
	CR4_DE = BIT(3),
	CR4_PSE = BIT(4),
	CR4_PAE = BIT(5),
	CR4_MCE = BIT(6),
	CR4_PGE = BIT(7),
	CR4_PCE = BIT(8),
	CR4_OSFXSR = BIT(9),
	CR4_OSXMMEXCPT = BIT(10),
	CR4_UMIP = BIT(11),
	CR4_FSGSBASE = BIT(16),
	CR4_PCIDE = BIT(17),
	CR4_OSXSAVE = BIT(18),
	CR4_SMEP = BIT(20),
	CR4_SMAP = BIT(21),
};

enum {
	EFER_SCE = BIT(0),
	EFER_LME = BIT(8),
	EFER_LMA = BIT(10),
	EFER_NXE = BIT(11),
	EFER_SVME = BIT(12),
	EFER_FFXSR = BIT(14),
};

enum {
	RFLAGS_CF = BIT(0),
	RFLAGS_FIXED = BIT(1),
	RFLAGS_PF = BIT(2),
	RFLAGS_AF = BIT(4),
	RFLAGS_ZF = BIT(6),
	RFLAGS_SF = BIT(7),
	RFLAGS_TF = BIT(8),
	RFLAGS_IF = BIT(9),
	RFLAGS_DF = BIT(10),
	RFLAGS_OF = BIT(11),
	RFLAGS_IOPL = BIT(12) | BIT(13),
	RFLAGS_NT = BIT(14),
	RFLAGS_RF = BIT(16),
	RFLAGS_VM = BIT(17),
	RFLAGS_AC = BIT(18),
	RFLAGS_VIF = BIT(19),
	RFLAGS_VIP = BIT(20),
	RFLAGS_ID = BIT(21),
	RFLAGS_ARITH = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF,
};

enum cpu_vector {
	VECTOR_DE = 0,
	VECTOR_DB = 1,
	VECTOR_NMI = 2,
	VECTOR_BP = 3,
	VECTOR_OF = 4,
	VECTOR_BR = 5,
	VECTOR_UD = 6,
	VECTOR_NM = 7,
	VECTOR_DF = 8,
	VECTOR_TS = 10,
	VECTOR_NP = 11,
	VECTOR_SS = 12,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
	VECTOR_MF = 16,
	VECTOR_AC = 17,
	VECTOR_MC = 18,
	VECTOR_XM = 19,
};

/* Page fault error code (8.4.2). */
enum { PF_P = BIT(0), PF_W = BIT(1), PF_U = BIT(2), PF_RSVD = BIT(3), PF_I = BIT(4) };

enum cpu_run_state { CPU_RUNNING, CPU_HALTED, CPU_WAIT_INIT, CPU_WAIT_SIPI };

/* Events that wait for the next instruction boundary. */
struct cpu_events {
	bool exception_pending;
	bool exception_has_code;
	bool interrupt_pending; /* taken from the controller, not yet delivered */
	bool nmi_pending;
	bool nmi_masked;
	bool shadow; /* by STI or MOV SS: none until one more instruction has run */
	u8 exception_vector;
	u8 interrupt_vector;
	u32 exception_code;
};

/* Local APIC registers by their offset / 16 (16.3.2), x2APIC ids 32 bits wide. */
struct cpu_lapic {
	u64 base_msr;
	u64 tsc_deadline;
	u32 regs[64];
	u64 timer_start_ns; /* monotonic, when the running count was started */
};

/* MSRs that are plain storage or have a meaning; cpu/msr.h says which. */
struct cpu_msrs {
	u64 efer;
	u64 star, lstar, cstar, sfmask;
	u64 kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 pat;
	u64 tsc_aux;
	u64 misc_enable;
	u64 mtrr_def_type;
	u64 mtrr_fixed[11];
	u64 mtrr_base[8], mtrr_mask[8];
	u64 kvm_system_time, kvm_wall_clock;
	u64 spec_ctrl;
	u64 tsc_adjust;
};

enum { CPU_XSAVE_SIZE = 4096 };

struct cpu_state {
	u64 gpr[CPU_GPRS];
	u64 rip;
	u64 rflags;
	struct segment seg[CPU_SEGMENTS];
	struct segment tr, ldt;
	struct descriptor_table gdt, idt;
	u64 cr0, cr2, cr3, cr4, cr8;
	u64 dr[4], dr6, dr7;
	u64 xcr0;
	u64 tsc;      /* guest TSC at the moment of get_state */
	u64 kvmclock; /* ns that the kvm clock shows at that moment, 0: counts from TSC 0 */
	/* This host's TSC at that moment: both go on as if they had never stopped. 0, as in a saved
	 * state: they go on from these values at set_state. */
	u64 host_tsc;
	struct cpu_msrs msr;
	struct cpu_events events;
	enum cpu_run_state run_state;
	struct cpu_lapic lapic;
	u8 xsave[CPU_XSAVE_SIZE] ALIGNED(64); /* standard format */
};

/* As after power-up or RESET# (14.1.3): CS:RIP f000:fff0, real mode. ID is the
 * x2APIC id; vCPU 0 is the bootstrap processor, the others wait for SIPI. */
void cpu_state_reset(struct cpu_state *state, u32 id);

#endif
