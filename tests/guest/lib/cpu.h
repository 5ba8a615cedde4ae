/*
 * The CPU's privileged registers and instructions, one inline function each.
 */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#include "lib/guest.h"

#define CR0_PE (1ul << 0)
#define CR0_MP (1ul << 1)
#define CR0_EM (1ul << 2)
#define CR0_TS (1ul << 3)
#define CR0_NE (1ul << 5)
#define CR0_WP (1ul << 16)
#define CR0_AM (1ul << 18)
#define CR0_NW (1ul << 29)
#define CR0_CD (1ul << 30)
#define CR0_PG (1ul << 31)

#define CR4_VME (1ul << 0)
#define CR4_TSD (1ul << 2)
#define CR4_DE (1ul << 3)
#define CR4_PSE (1ul << 4)
#define CR4_PAE (1ul << 5)
#define CR4_PGE (1ul << 7)
#define CR4_OSFXSR (1ul << 9)
#define CR4_OSXMMEXCPT (1ul << 10)
#define CR4_UMIP (1ul << 11)
#define CR4_FSGSBASE (1ul << 16)
#define CR4_PCIDE (1ul << 17)
#define CR4_OSXSAVE (1ul << 18)
#define CR4_SMEP (1ul << 20)
#define CR4_SMAP (1ul << 21)

#define EFLAGS_CF (1u << 0)
#define EFLAGS_ZF (1u << 6)
#define EFLAGS_TF (1u << 8)
#define EFLAGS_IF (1u << 9)
#define EFLAGS_DF (1u << 10)
#define EFLAGS_IOPL3 (3u << 12)
#define EFLAGS_NT (1u << 14)
#define EFLAGS_RF (1u << 16)
#define EFLAGS_VM (1u << 17)
#define EFLAGS_AC (1u << 18)

enum cpu_vector {
	VEC_DE,
	VEC_DB,
	VEC_NMI,
	VEC_BP,
	VEC_OF,
	VEC_BR,
	VEC_UD,
	VEC_NM,
	VEC_DF,
	VEC_TS = 10,
	VEC_NP,
	VEC_SS,
	VEC_GP,
	VEC_PF,
	VEC_MF = 16,
	VEC_AC,
	VEC_MC,
	VEC_XM,
	VEC_USER_RETURN = 0x80,
};

#define MSR_TSC 0x10u
#define MSR_APIC_BASE 0x1bu
#define MSR_SYSENTER_CS 0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_PAT 0x277u
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define EFER_SCE (1u << 0)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)

struct table_pointer {
	u16 limit;
	uptr base;
} PACKED;

#define CPU_REGISTER(name)                                                                         \
	static inline uptr cpu_read_##name(void)                                                   \
	{                                                                                          \
		uptr value;                                                                        \
		__asm__ volatile("mov %%" #name ", %0" : "=r"(value) : : "memory");                \
		return value;                                                                      \
	}                                                                                          \
	static inline void cpu_write_##name(uptr value)                                            \
	{                                                                                          \
		__asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory");                    \
	}
CPU_REGISTER(cr0)
CPU_REGISTER(cr2)
CPU_REGISTER(cr3)
CPU_REGISTER(cr4)
CPU_REGISTER(dr0)
CPU_REGISTER(dr1)
CPU_REGISTER(dr2)
CPU_REGISTER(dr3)
CPU_REGISTER(dr6)
CPU_REGISTER(dr7)
#ifdef __x86_64__
CPU_REGISTER(cr8)
#endif
#undef CPU_REGISTER

static inline u8
inb(u16 port)
{
	u8 value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline u16
inw(u16 port)
{
	u16 value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline u32
inl(u16 port)
{
	u32 value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline void
outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void
outw(u16 port, u16 value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void
outl(u16 port, u32 value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void
cpu_pause(void)
{
	__asm__ volatile("pause" : : : "memory");
}

static inline u64
cpu_read_msr(u32 msr)
{
	u32 low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (u64)high << 32 | low;
}

static inline void
cpu_write_msr(u32 msr, u64 value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64
cpu_rdtsc(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

struct cpuid {
	u32 a, b, c, d;
};

static inline struct cpuid
cpu_cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid id;

	__asm__ volatile("cpuid"
			 : "=a"(id.a), "=b"(id.b), "=c"(id.c), "=d"(id.d)
			 : "a"(leaf), "c"(subleaf));
	return id;
}

static inline bool
cpu_is_amd(void)
{
	return cpu_cpuid(0, 0).c == 0x444d4163; /* "cAMD" */
}

static inline void
cpu_invlpg(uptr address)
{
	__asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static inline void
cpu_flush_tlb(void)
{
	cpu_write_cr3(cpu_read_cr3());
}

static inline uptr
cpu_flags(void)
{
	uptr flags;

	__asm__ volatile("pushf; pop %0" : "=r"(flags) : : "memory");
	return flags;
}

static inline void
cpu_set_flags(uptr flags)
{
	__asm__ volatile("push %0; popf" : : "r"(flags) : "memory", "cc");
}

static inline void
cpu_sti(void)
{
	__asm__ volatile("sti" : : : "memory");
}

static inline void
cpu_cli(void)
{
	__asm__ volatile("cli" : : : "memory");
}

/* Takes the interrupts that are pending now. */
static inline void
cpu_window(void)
{
	__asm__ volatile("sti; nop; nop; cli" : : : "memory");
}

static inline u16
cpu_str(void)
{
	u16 selector;

	__asm__ volatile("str %0" : "=r"(selector));
	return selector;
}

static inline void
cpu_lgdt(const struct table_pointer *table)
{
	__asm__ volatile("lgdt %0" : : "m"(*table) : "memory");
}

static inline void
cpu_lidt(const struct table_pointer *table)
{
	__asm__ volatile("lidt %0" : : "m"(*table) : "memory");
}

/* Waits for CONDITION for about two seconds of any likely TSC; true if it came. */
#define WAIT_FOR(condition)                                                                        \
	({                                                                                         \
		u64 wait_start_ = cpu_rdtsc();                                                     \
		bool wait_good_;                                                                   \
		while (!(wait_good_ = !!(condition)) && cpu_rdtsc() - wait_start_ < 8000000000ull) \
			cpu_pause();                                                               \
		wait_good_;                                                                        \
	})

#endif
