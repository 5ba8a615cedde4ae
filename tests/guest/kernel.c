/*
 * What kernels execute all the time: SWAPGS, CLI, STI, STAC, CLAC, RDTSC, PUSHF,
 * VERR and VERW, each many times over in a loop that is chained, with flags kept;
 * and pages that compete for one place in a small TLB, read, written and remapped.
 */
#include "lib/paging.h"
#include "lib/trap.h"

#define VA PAGING_TEST
#define FAR (16ul << 20) /* apart from VA by a multiple of any small TLB */
#define ARITH 0x8d5u	 /* OF SF ZF AF PF CF */
#define ROUNDS 40

static uptr
kernel_flags(unsigned i)
{
	static const u16 bits[] = {1u << 0, 1u << 2, 1u << 4, 1u << 6, 1u << 7, 1u << 11};
	uptr flags = 2;

	for (unsigned n = 0; n < 6; n++)
		flags |= i >> n & 1 ? bits[n] : 0u;
	return flags;
}

/* Runs INSN with flags as given, in a loop of its own; what PUSHF says then. */
#define KERNEL_AFTER(flags, insn)                                                                  \
	({                                                                                         \
		uptr after_;                                                                       \
		__asm__ volatile("push %1; popf\n\t" insn "\n\tpushf; pop %0"                      \
				 : "=r"(after_)                                                    \
				 : "r"(flags)                                                      \
				 : "rax", "rdx", "memory", "cc");                                  \
		after_;                                                                            \
	})

static void
kernel_keeps_flags(void)
{
	bool smap = cpu_cpuid(7, 0).b & 1u << 20;

	if (smap)
		cpu_write_cr4(cpu_read_cr4() | CR4_SMAP);
	for (unsigned i = 0; i < 64; i++) {
		uptr f = kernel_flags(i);

		CHECK_EQ(KERNEL_AFTER(f, ""), f);
		CHECK_EQ(KERNEL_AFTER(f | EFLAGS_DF, "cld"), f);
		CHECK_EQ(KERNEL_AFTER(f, "swapgs; swapgs"), f);
		CHECK_EQ(KERNEL_AFTER(f, "rdtsc"), f);
		CHECK_EQ(KERNEL_AFTER(f, "sti; nop"), f | EFLAGS_IF);
		CHECK_EQ(KERNEL_AFTER(f | EFLAGS_IF, "cli"), f);
		if (!smap)
			continue;
		CHECK_EQ(KERNEL_AFTER(f, "stac"), f | EFLAGS_AC);
		CHECK_EQ(KERNEL_AFTER(f | EFLAGS_AC, "stac"), f | EFLAGS_AC);
		CHECK_EQ(KERNEL_AFTER(f | EFLAGS_AC, "clac"), f);
		CHECK_EQ(KERNEL_AFTER(f, "clac; stac; push %%rax; clac; pop %%rax"), f);
	}
	cpu_write_cr4(cpu_read_cr4() & ~(uptr)CR4_SMAP);
}

/* Flags straight from an operation, not by way of POPF. */
static void
kernel_pushf(void)
{
	static const u32 pairs[][2] = {
		{1, 1}, {0x80000000, 0x80000000}, {0x7fffffff, 1}, {0xffffffff, 1}, {8, 8}, {0, 0}};

	for (unsigned i = 0; i < 6; i++) {
		u32 sum = pairs[i][0];
		uptr flags, ax;

		__asm__ volatile("xor %%eax, %%eax; add %3, %0; pushf; pop %1; lahf; seto %%al"
				 : "+&r"(sum), "=&r"(flags), "=&a"(ax)
				 : "r"(pairs[i][1])
				 : "cc");
		CHECK_EQ(flags & ARITH, (ax >> 8 & 0xd5) | (ax & 1) << 11);
	}
}

/* SWAPGS and its MSR. */
static void
kernel_swapgs(void)
{
	cpu_write_msr(MSR_GS_BASE, 0x1111000);
	cpu_write_msr(MSR_KERNEL_GS_BASE, 0xffff800000222000);
	for (unsigned i = 0; i < ROUNDS; i++) {
		__asm__ volatile("swapgs");
		CHECK_EQ(cpu_read_msr(MSR_GS_BASE), i & 1 ? 0x1111000 : 0xffff800000222000);
		CHECK_EQ(cpu_read_msr(MSR_KERNEL_GS_BASE), i & 1 ? 0xffff800000222000 : 0x1111000);
	}
}

/* User pages are open between STAC and CLAC only; the stack works on both sides. */
static void
kernel_smap(void)
{
	volatile u64 *user = (volatile u64 *)VA;
	u64 value;
	struct trap t;

	if (!(cpu_cpuid(7, 0).b & 1u << 20)) {
		check_skip("SMAP");
		return;
	}
	paging_map(VA, (uptr)page_alloc(1), PTE_P | PTE_W | PTE_U, 1);
	cpu_write_cr4(cpu_read_cr4() | CR4_SMAP);
	for (u64 i = 0; i < ROUNDS; i++) {
		__asm__ volatile("stac; push %1; mov %1, (%2); mov (%2), %0; clac; pop %1"
				 : "=&r"(value)
				 : "r"(i), "r"(user)
				 : "memory", "cc");
		CHECK_EQ(value, i);
		t = TRY(value = *user);
		CHECK_TRAP(t, VEC_PF, PF_P);
		t = TRY(*user = i);
		CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	}
	cpu_write_cr4(cpu_read_cr4() & ~(uptr)CR4_SMAP);
	/* Without SMAP it is just a flag. */
	CHECK_EQ(KERNEL_AFTER(2ul, "stac"), 2 | EFLAGS_AC);
	CHECK_EQ(KERNEL_AFTER(2ul | EFLAGS_AC, "clac"), 2);
}

/* Bit 0: VERR says yes, bit 1: VERW; bit 2: some other flag has changed. */
static USER_CODE uptr
kernel_verify(uptr selector)
{
	u16 word = (u16)selector;
	u8 r, w, rm, wm;
	uptr before, after;

	__asm__ volatile("stc; pushf; pop %4\n\t"
			 "verr %w6; setz %0; verw %w6; setz %1\n\t"
			 "verr %7; setz %2; verw %7; setz %3\n\t"
			 "pushf; pop %5"
			 : "=&q"(r), "=&q"(w), "=&q"(rm), "=&q"(wm), "=&r"(before), "=&r"(after)
			 : "r"(selector), "m"(word)
			 : "cc");
	return r | w << 1 | ((before ^ after) & ~0x40ul ? 4u : 0u) | (rm != r || wm != w ? 8u : 0u);
}

static void
kernel_verify_all(void)
{
	static const struct {
		u16 selector;
		u8 kernel, user;
	} cases[] = {
		{0, 0, 0},
		{3, 0, 0},
		{SEL_KERNEL_CODE, 1, 0},
		{SEL_KERNEL_DATA, 3, 0},
		{SEL_KERNEL_DATA | 3, 0, 0},
		{SEL_USER_CODE, 1, 1},
		{SEL_USER_DATA, 3, 3},
		{SEL_USER_DATA & ~3, 3, 3},
		{SEL_TSS, 0, 0},
		{SEL_FREE, 1, 1},      /* conforming code, readable, DPL 0 */
		{SEL_FREE + 8, 1, 0},  /* data, read only, not accessed */
		{SEL_FREE + 16, 0, 0}, /* code, execute only */
		{0xfff8, 0, 0},
		{SEL_USER_DATA | 4, 0, 0},
	};
	struct trap t;

	trap_gdt[SEL_FREE / 8] = 0x00af9e000000ffff;
	trap_gdt[SEL_FREE / 8 + 1] = 0x00cf90000000ffff;
	trap_gdt[SEL_FREE / 8 + 2] = 0x00af98000000ffff;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (unsigned n = 0; n < 3; n++)
			CHECK_EQ(kernel_verify(cases[i].selector), cases[i].kernel);
		t = user_run(kernel_verify, cases[i].selector);
		CHECK_TRAP(t, VEC_USER_RETURN, 0);
		CHECK_EQ(t.ax, cases[i].user);
	}
	CHECK_EQ(trap_gdt[SEL_FREE / 8 + 1], 0x00cf90000000ffff); /* it did not become accessed */
	t = TRY(__asm__ volatile("verw (%0)" : : "r"(VA + FAR / 2) : "cc"));
	CHECK_TRAP(t, VEC_PF, 0);
}

static USER_CODE uptr
kernel_user_tsc(uptr arg)
{
	u32 low, high;

	(void)arg;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return low | (u64)high << 32;
}

static void
kernel_tsc(void)
{
	u64 last = cpu_rdtsc(), now;
	struct trap t;

	for (unsigned i = 0; i < ROUNDS; i++) {
		t = user_run(kernel_user_tsc, 0);
		CHECK_TRAP(t, VEC_USER_RETURN, 0);
		now = cpu_rdtsc();
		CHECK(last < t.ax && t.ax < now);
		last = now;
	}
	cpu_write_cr4(cpu_read_cr4() | CR4_TSD);
	t = user_run(kernel_user_tsc, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK(cpu_rdtsc() > last);
	cpu_write_cr4(cpu_read_cr4() & ~(uptr)CR4_TSD);
	t = user_run(kernel_user_tsc, 0);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
}

/* One page is read and another written where both have the same place. */
static void
kernel_halves(void)
{
	volatile u64 *a = (volatile u64 *)VA, *b = (volatile u64 *)(VA + FAR);
	u64 *pages[3];
	struct trap t;

	for (unsigned i = 0; i < 3; i++)
		pages[i] = page_alloc(1);
	paging_map(VA, (uptr)pages[0], PTE_P | PTE_W, 1);
	paging_map(VA + FAR, (uptr)pages[1], PTE_P | PTE_W, 1);
	for (u64 i = 0; i < ROUNDS; i++) {
		*a = i;
		*b = *a + 100;
		CHECK_EQ(*b, i + 100);
		a[1] = b[0] + 1;
		CHECK_EQ(a[1], i + 101);
		b[1]++;
	}
	CHECK_EQ(pages[0][1], ROUNDS + 100);
	CHECK_EQ(pages[1][1], ROUNDS);
	/* Read here, written there, then remapped: both halves forget. */
	pages[0][0] = 7;
	pages[2][0] = 9;
	CHECK_EQ(*a, 7);
	*b = 1;
	paging_map(VA, (uptr)pages[2], PTE_P | PTE_W, 1);
	CHECK_EQ(*a, 9);
	*a = 10;
	CHECK_EQ(pages[2][0], 10);
	CHECK_EQ(pages[0][0], 7);
	*b = 2;
	CHECK_EQ(*a, 10);
	paging_map(VA + FAR, (uptr)pages[0], PTE_P, 1);
	cpu_write_cr0(cpu_read_cr0() | CR0_WP);
	t = TRY(*b = 3);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	CHECK_EQ(*b, 7);
	CHECK_EQ(pages[1][0], 2);
	/* A page becomes dirty by its first write only. */
	paging_map(VA + FAR, (uptr)pages[0], PTE_P | PTE_W, 1);
	CHECK_EQ(*b, 7);
	CHECK_EQ(*paging_entry(cpu_read_cr3(), VA + FAR, 1) & PTE_D, 0);
	*b = 4;
	CHECK(*paging_entry(cpu_read_cr3(), VA + FAR, 1) & PTE_D);
	CHECK_EQ(pages[0][0], 4);
}

enum { RIVALS = 4 };

/* Several pages compete for one place, by turns more often than not. */
static void
kernel_rivals(void)
{
	volatile u64 *at[RIVALS];
	u64 *pages[RIVALS + 1];

	for (unsigned i = 0; i < RIVALS; i++) {
		at[i] = (volatile u64 *)(VA + i * FAR);
		pages[i] = page_alloc(1);
		paging_map(VA + i * FAR, (uptr)pages[i], PTE_P | PTE_W, 1);
	}
	pages[RIVALS] = page_alloc(1);
	for (u64 n = 0; n < 50 * ROUNDS; n++) {
		unsigned i = (unsigned)(n * n / 3) % RIVALS, j = (unsigned)(n / 7) % RIVALS;

		at[i][1]++;
		at[j][2] = at[i][1] + at[i][2];
		__asm__ volatile("lock incq %0" : "+m"(at[j][3]));
		*(volatile u32 *)((uptr)at[i] + 4092 - 3 * (n & 1)) ^= 1u; /* up to the end */
		CHECK_EQ(pages[i][1], at[i][1]);
		CHECK_EQ(pages[j][2], at[j][2]);
	}
	CHECK_EQ(pages[0][1] + pages[1][1] + pages[2][1] + pages[3][1], 50 * ROUNDS);
	CHECK_EQ(pages[0][3] + pages[1][3] + pages[2][3] + pages[3][3], 50 * ROUNDS);
	/* Wherever it is kept, a translation ends with INVLPG or MOV CR3. */
	for (unsigned i = 0; i < 2 * RIVALS; i++) {
		unsigned n = i % RIVALS;
		u64 *old = pages[n];

		for (unsigned k = 0; k < 3 * RIVALS; k++)
			at[k % RIVALS][0] = k;
		pages[n] = pages[RIVALS];
		pages[RIVALS] = old;
		pages[n][0] = 1000 + i;
		*paging_entry(cpu_read_cr3(), (uptr)at[n], 1) = (uptr)pages[n] | PTE_P | PTE_W;
		if (i < RIVALS)
			cpu_invlpg((uptr)at[n]);
		else
			cpu_flush_tlb();
		CHECK_EQ(at[n][0], 1000 + i);
		at[n][0] = 2000 + i;
		CHECK_EQ(pages[n][0], 2000 + i);
		CHECK_EQ(old[0] < 3 * RIVALS, 1);
	}
}

/* Stores to code are seen however the page is found. */
static void
kernel_rival_code(void)
{
	u32 (*call)(void) = (u32(*)(void))VA;
	volatile u8 *code = (volatile u8 *)VA;
	volatile u64 *other = (volatile u64 *)(VA + FAR);
	static const u8 bytes[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov eax, 0; ret */

	for (unsigned i = 0; i < sizeof(bytes); i++)
		code[i] = bytes[i];
	for (u32 n = 0; n < ROUNDS; n++) {
		code[1] = (u8)n;
		if (n & 1)
			other[0] = n;
		if (n & 2)
			(void)other[1];
		CHECK_EQ(call(), n);
		if (n & 4)
			other[0] = n;
	}
}

void
guest_main(void)
{
	kernel_keeps_flags();
	kernel_pushf();
	kernel_swapgs();
	kernel_smap();
	kernel_verify_all();
	kernel_tsc();
	kernel_halves();
	kernel_rivals();
	kernel_rival_code();
}
