/*
 * What CPUID offers works and what it does not offer is refused: MSRs, control
 * register bits, TSC and RDTSCP with CR4.TSD, RDRAND, UMIP, user privileges, PMC.
 */
#include "lib/trap.h"

static bool
ident_cr4_refused(uptr bit)
{
	uptr cr4 = cpu_read_cr4();
	struct trap t = TRY(cpu_write_cr4(cr4 | bit));

	cpu_write_cr4(cr4);
	return t.vector == VEC_GP && t.error == 0;
}

static void
ident_cr4(void)
{
	u32 c1 = cpu_cpuid(1, 0).c, b7 = cpu_cpuid(7, 0).b, c7 = cpu_cpuid(7, 0).c;
	const struct {
		uptr bit;
		bool offered;
		const char *name;
	} bits[] = {
		{CR4_OSXSAVE, c1 & 1u << 26, "OSXSAVE"}, {CR4_PCIDE, c1 & 1u << 17, "PCIDE"},
		{CR4_FSGSBASE, b7 & 1, "FSGSBASE"},	 {CR4_SMEP, b7 & 1u << 7, "SMEP"},
		{CR4_SMAP, b7 & 1u << 20, "SMAP"},	 {CR4_UMIP, c7 & 1u << 2, "UMIP"},
		{1ul << 22, c7 & 1u << 3, "PKE"},	 {1ul << 12, c7 & 1u << 16, "LA57"},
	};

	for (unsigned i = 0; i < ARRAY_LEN(bits); i++) {
		bool refused;

		if (bits[i].bit == 1ul << 12 && bits[i].offered)
			continue; /* LA57 cannot change in long mode */
		refused = ident_cr4_refused(bits[i].bit);
		if (refused == bits[i].offered && !(guest_on_tcg() && !refused))
			print("     CR4.%s: offered %d, refused %d\n", bits[i].name,
			      bits[i].offered, refused);
		/* TCG drops what it does not offer in silence. */
		CHECK(guest_on_tcg() ? !(refused && bits[i].offered) : refused != bits[i].offered);
	}
}

static void
ident_msrs(void)
{
	static const u32 unknown[] = {0x4321, 0x12345678, 0xc0000fff, 0xffffffff, 0x7fffffff};
	struct trap t;

	for (unsigned i = 0; i < ARRAY_LEN(unknown) && !guest_on_tcg(); i++) { /* it reads 0 */
		t = TRY((void)cpu_read_msr(unknown[i]));
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(cpu_write_msr(unknown[i], 0));
		CHECK_TRAP(t, VEC_GP, 0);
	}
	t = TRY(cpu_write_msr(MSR_EFER, cpu_read_msr(MSR_EFER) | 1ull << 40));
	if (!guest_on_tcg()) { /* it masks */
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(cpu_write_msr(MSR_PAT, 0x0007040600070402)); /* type 2 is reserved */
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(cpu_write_msr(MSR_GS_BASE, 0x8000000000000000));
		CHECK_TRAP(t, VEC_GP, 0);
	}
	cpu_write_msr(MSR_PAT, 0x0007040600070401);
	CHECK_EQ(cpu_read_msr(MSR_PAT), 0x0007040600070401);
	cpu_write_msr(MSR_PAT, 0x0007040600070406);
	cpu_write_msr(MSR_KERNEL_GS_BASE, 0xffff800012345678);
	CHECK_EQ(cpu_read_msr(MSR_KERNEL_GS_BASE), 0xffff800012345678);
	CHECK(cpu_read_msr(MSR_APIC_BASE) & 1 << 8); /* bootstrap processor */
	CHECK_EQ(cpu_read_msr(MSR_APIC_BASE) & 0xfffff000, 0xfee00000);
}

static USER_CODE uptr
ident_user_rdtsc(uptr arg)
{
	__asm__ volatile("rdtsc" : : : "rax", "rdx");
	return arg;
}

static USER_CODE uptr
ident_user_rdtscp(uptr arg)
{
	u32 aux;

	__asm__ volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
	return aux + 0 * arg;
}

static void
ident_tsc(void)
{
	u64 before = cpu_rdtsc(), after;
	struct trap t;

	for (int i = 0; i < 1000; i++) {
		after = cpu_rdtsc();
		if (after < before)
			CHECK(false);
		before = after;
	}
	t = user_run(ident_user_rdtsc, 0);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	cpu_write_cr4(cpu_read_cr4() | CR4_TSD);
	t = user_run(ident_user_rdtsc, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY((void)cpu_rdtsc());
	CHECK_NO_TRAP(t);
	if (cpu_cpuid(0x80000001, 0).d & 1u << 27) {
		t = user_run(ident_user_rdtscp, 0);
		CHECK_TRAP(t, VEC_GP, 0);
		cpu_write_cr4(cpu_read_cr4() & ~CR4_TSD);
		cpu_write_msr(MSR_TSC_AUX, 0x1234);
		t = user_run(ident_user_rdtscp, 0);
		CHECK_TRAP(t, VEC_USER_RETURN, 0);
		CHECK_EQ(t.ax, 0x1234);
	} else {
		check_skip("RDTSCP");
	}
	cpu_write_cr4(cpu_read_cr4() & ~CR4_TSD);
}

static void
ident_rdrand(void)
{
	u64 all = 0, one = ~0ull, value;
	unsigned good = 0;

	if (!(cpu_cpuid(1, 0).c & 1u << 30)) {
		check_skip("RDRAND");
		return;
	}
	for (int i = 0; i < 100; i++) {
		bool carry;

		__asm__ volatile("rdrand %0; setc %b1" : "=r"(value), "=q"(carry) : : "cc");
		if (!carry)
			continue;
		good++;
		all |= value;
		one &= value;
	}
	CHECK(good > 90);
	CHECK_EQ(all, ~0ull);
	CHECK_EQ(one, 0);
}

#define IDENT_USER(name, code)                                                                     \
	static USER_CODE uptr ident_user_##name(uptr arg)                                          \
	{                                                                                          \
		__asm__ volatile(code : : "r"(arg) : "rax", "rcx", "rdx", "memory");               \
		return 0;                                                                          \
	}
static USER_DATA u64 ident_space[4];
IDENT_USER(sgdt, "sgdt (%0)")
IDENT_USER(sidt, "sidt (%0)")
IDENT_USER(sldt, "sldt %%eax")
IDENT_USER(str, "str %%eax")
IDENT_USER(smsw, "smsw %%eax")
IDENT_USER(lgdt, "lgdt (%0)")
IDENT_USER(ltr, "ltr %%ax")
IDENT_USER(lmsw, "lmsw %%ax")
IDENT_USER(clts, "clts")
IDENT_USER(invd, "invd")
IDENT_USER(wbinvd, "wbinvd")
IDENT_USER(invlpg, "invlpg (%0)")
IDENT_USER(rdmsr, "xor %%ecx, %%ecx; rdmsr")
IDENT_USER(wrmsr, "xor %%ecx, %%ecx; wrmsr")
IDENT_USER(cr0, "mov %%cr0, %%rax")
IDENT_USER(cr3, "mov %%rax, %%cr3")
IDENT_USER(dr0, "mov %%dr0, %%rax")
IDENT_USER(hlt, "hlt")
IDENT_USER(sti, "sti")
IDENT_USER(out, "outb %%al, $0x80")
IDENT_USER(rdpmc, "xor %%ecx, %%ecx; rdpmc")

static void
ident_privileges(void)
{
	static uptr (*const privileged[])(uptr) = {
		ident_user_lgdt,  ident_user_ltr,    ident_user_lmsw,	ident_user_clts,
		ident_user_invd,  ident_user_wbinvd, ident_user_invlpg, ident_user_rdmsr,
		ident_user_wrmsr, ident_user_cr0,    ident_user_cr3,	ident_user_dr0,
		ident_user_hlt,	  ident_user_sti,    ident_user_out,	ident_user_rdpmc,
	};
	static uptr (*const stores[])(uptr) = {ident_user_sgdt, ident_user_sidt, ident_user_sldt,
					       ident_user_str, ident_user_smsw};
	bool umip = cpu_cpuid(7, 0).c & 1u << 2;
	struct trap t;

	for (unsigned i = 0; i < ARRAY_LEN(privileged); i++) {
		if (guest_on_tcg() && privileged[i] == ident_user_rdpmc)
			continue; /* it raises #UD */
		t = user_run(privileged[i], (uptr)ident_space);
		CHECK_TRAP(t, VEC_GP, 0);
		if (t.vector != VEC_GP)
			print("     privileged instruction %u\n", i);
	}
	for (unsigned i = 0; i < ARRAY_LEN(stores); i++) {
		t = user_run(stores[i], (uptr)ident_space);
		CHECK_TRAP(t, VEC_USER_RETURN, 0);
		if (!umip)
			continue;
		cpu_write_cr4(cpu_read_cr4() | CR4_UMIP);
		t = user_run(stores[i], (uptr)ident_space);
		CHECK_TRAP(t, VEC_GP, 0);
		cpu_write_cr4(cpu_read_cr4() & ~CR4_UMIP);
	}
	if (!umip)
		check_skip("UMIP");
}

/* An I/O permission bitmap lets single ports through (AMD64 APM 2, 12.2.4). */
static void
ident_io_bitmap(void)
{
	static u8 tss[256 + 16 + 1] ALIGNED(128);
	u8 *own = trap_tss();
	struct trap t;

	memcpy(tss, own, 104);
	memset(tss + 104, 0xff, sizeof(tss) - 104);
	tss[102] = 104;
	tss[103] = 0;
	tss[104 + 0x80 / 8] = 0xfe; /* port 80h only */
	trap_gdt[SEL_FREE / 8] = (u64)((uptr)tss & 0xffffff) << 16 | (u64)((uptr)tss >> 24) << 56 |
				 0x890000000000 | (104 + 0x80 / 8 + 1);
	trap_gdt[SEL_FREE / 8 + 1] = 0;
	/* The library finds its CPU by TR: keep the index 0 by copying over the old one. */
	trap_gdt[SEL_TSS / 8] = trap_gdt[SEL_FREE / 8];
	__asm__ volatile("ltr %0" : : "r"((u16)SEL_TSS));
	t = user_run(ident_user_out, 0);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	tss[104 + 0x80 / 8] = 0xff;
	t = user_run(ident_user_out, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	tss[104 + 0x80 / 8] = 0;
	trap_gdt[SEL_TSS / 8] = (trap_gdt[SEL_FREE / 8] & ~0xffffull) | (104 + 0x80 / 8);
	__asm__ volatile("ltr %0" : : "r"((u16)SEL_TSS));
	t = user_run(ident_user_out, 0); /* the second byte of its pair is beyond the limit */
	CHECK_TRAP(t, VEC_GP, 0);
}

static void
ident_cpuid(void)
{
	struct cpuid top = cpu_cpuid(0x80000000, 0);

	CHECK(cpu_cpuid(0, 0).a >= 7);
	CHECK(top.a >= 0x80000008);
	CHECK((cpu_cpuid(0x80000008, 0).a & 0xff) >= 36);
	CHECK_EQ(cpu_cpuid(0x80000008, 0).a >> 8 & 0xff, cpu_cpuid(7, 0).c & 1u << 16 ? 57 : 48);
	CHECK(cpu_cpuid(0x80000001, 0).d & 1u << 29); /* long mode */
	CHECK_EQ(cpu_cpuid(1, 0).b >> 24, 0);	      /* APIC id of the first CPU */
	/* A bit for CR4.OSXSAVE follows it. */
	if (cpu_cpuid(1, 0).c & 1u << 26) {
		CHECK(!(cpu_cpuid(1, 0).c & 1u << 27));
		cpu_write_cr4(cpu_read_cr4() | CR4_OSXSAVE);
		CHECK(cpu_cpuid(1, 0).c & 1u << 27);
		cpu_write_cr4(cpu_read_cr4() & ~CR4_OSXSAVE);
		CHECK(!(cpu_cpuid(1, 0).c & 1u << 27));
	}
	/* MONITOR is not offered, so it is undefined. */
	if (!(cpu_cpuid(1, 0).c & 8)) {
		struct trap t = TRY(__asm__ volatile("monitor"
						     :
						     : "a"(ident_space), "c"(0), "d"(0)));

		CHECK_TRAP(t, VEC_UD, 0);
	}
}

void
guest_main(void)
{
	ident_cpuid();
	ident_cr4();
	ident_msrs();
	ident_tsc();
	ident_rdrand();
	ident_privileges();
	ident_io_bitmap();
}
