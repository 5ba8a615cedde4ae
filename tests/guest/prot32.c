/*
 * 32-bit protected mode: exceptions with their error codes, saved EIP and flags,
 * restart behind a repaired cause, INT n and IRET, change to CPL 3 and back.
 * bits: 32
 */
#include "lib/trap.h"

static u32 prot_hits;

static USER_CODE uptr
prot_user_add(uptr arg)
{
	return arg + 1;
}

static USER_CODE uptr
prot_user_cli(uptr arg)
{
	__asm__ volatile("cli");
	return arg;
}

static USER_CODE uptr
prot_user_int(uptr arg)
{
	__asm__ volatile("int $0x21");
	return arg;
}

static USER_CODE uptr
prot_user_in(uptr arg)
{
	u8 value;

	__asm__ volatile("inb $0x80, %0" : "=a"(value));
	return arg + value;
}

static USER_CODE uptr
prot_user_hlt(uptr arg)
{
	__asm__ volatile("hlt");
	return arg;
}

static USER_CODE uptr
prot_user_int3(uptr arg)
{
	__asm__ volatile("int3");
	return arg;
}

static void
prot_faults(void)
{
	struct trap t;

	t = TRY(__asm__ volatile(MARK "divl %0" : : "r"(0), "a"(1), "d"(0)));
	CHECK_TRAP(t, VEC_DE, 0);
	CHECK_EQ(t.ip, trap_mark);
	t = TRY(__asm__ volatile(MARK "idivl %0" : : "r"(-1), "a"(0x80000000u), "d"(-1)));
	CHECK_TRAP(t, VEC_DE, 0);
	t = TRY(__asm__ volatile(MARK "aam $0" : : "a"(1)));
	CHECK_TRAP(t, VEC_DE, 0);
	CHECK_EQ(t.ip, trap_mark);
	t = TRY(__asm__ volatile(MARK "ud2"));
	CHECK_TRAP(t, VEC_UD, 0);
	CHECK_EQ(t.ip, trap_mark);
	t = TRY(__asm__ volatile(MARK ".byte 0xf0, 0x90")); /* LOCK NOP */
	CHECK_TRAP(t, VEC_UD, 0);
	t = TRY(__asm__ volatile(MARK "int3"));
	CHECK_TRAP(t, VEC_BP, 0);
	CHECK_EQ(t.ip, trap_mark + 1);
	t = TRY(__asm__ volatile("movl $0x7fffffff, %%eax; addl $1, %%eax\n\t" MARK "into"
				 :
				 :
				 : "eax"));
	CHECK_TRAP(t, VEC_OF, 0);
	CHECK_EQ(t.ip, trap_mark + 1);
	t = TRY(__asm__ volatile("xorl %%eax, %%eax\n\tinto" : : : "eax"));
	CHECK_NO_TRAP(t);
}

static void
prot_bound(void)
{
	i32 bounds[2] = {10, 20};
	struct trap t;

	t = TRY(__asm__ volatile(MARK "boundl %0, %1" : : "r"(21), "m"(bounds)));
	CHECK_TRAP(t, VEC_BR, 0);
	CHECK_EQ(t.ip, trap_mark);
	t = TRY(__asm__ volatile("boundl %0, %1" : : "r"(9), "m"(bounds)));
	CHECK_TRAP(t, VEC_BR, 0);
	t = TRY(__asm__ volatile("boundl %0, %1; boundl %2, %1" : : "r"(10), "m"(bounds), "r"(20)));
	CHECK_NO_TRAP(t);
}

static void
prot_selectors(void)
{
	struct trap t;

	t = TRY(__asm__ volatile(MARK "mov %0, %%es" : : "r"(0x1230)));
	CHECK_TRAP(t, VEC_GP, 0x1230);
	CHECK_EQ(t.ip, trap_mark);
	t = TRY(__asm__ volatile("mov %0, %%es" : : "r"(0x4c))); /* in the (absent) LDT */
	CHECK_TRAP(t, VEC_GP, 0x4c);
	trap_gdt[SEL_FREE / 8] = 0x00cf13000000ffff; /* not present */
	t = TRY(__asm__ volatile("mov %0, %%es" : : "r"(SEL_FREE)));
	CHECK_TRAP(t, VEC_NP, SEL_FREE);
	t = TRY(__asm__ volatile("mov %0, %%ss" : : "r"(SEL_FREE)));
	CHECK_TRAP(t, VEC_SS, SEL_FREE);
	t = TRY(__asm__ volatile("mov %0, %%ss" : : "r"(0)));
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(__asm__ volatile("mov %0, %%ss" : : "r"(SEL_KERNEL_CODE)));
	CHECK_TRAP(t, VEC_GP, SEL_KERNEL_CODE);
	t = TRY(__asm__ volatile("mov %0, %%ss" : : "r"(SEL_USER_DATA)));
	CHECK_TRAP(t, VEC_GP, SEL_USER_DATA & ~3u);
	if (!guest_on_tcg()) { /* it checks neither limits nor null selectors */
		t = TRY(__asm__ volatile("mov %0, %%fs\n\t" MARK "movl %%fs:0, %%eax"
					 :
					 : "r"(0)
					 : "eax")); /* null is loaded, then used */
		CHECK_TRAP(t, VEC_GP, 0);
		CHECK_EQ(t.ip, trap_mark);
	}
	t = TRY(__asm__ volatile("ltr %0" : : "r"((u16)SEL_TSS))); /* busy already */
	CHECK_TRAP(t, VEC_GP, SEL_TSS);
	t = TRY(__asm__ volatile("lldt %0" : : "r"((u16)SEL_KERNEL_DATA)));
	CHECK_TRAP(t, VEC_GP, SEL_KERNEL_DATA);
}

static void
prot_interrupts(void)
{
	struct trap t;

	t = TRY(__asm__ volatile("int $0x21"));
	CHECK_TRAP(t, 0x21, 0);
	trap_set_gate(0x22, trap_entries[0x22], SEL_KERNEL_CODE, 0x0e, 0);
	t = TRY(__asm__ volatile(MARK "int $0x22"));
	CHECK_TRAP(t, VEC_NP, 0x22 * 8 + 2);
	CHECK_EQ(t.ip, trap_mark);
	trap_set_gate(0x22, trap_entries[0x22], SEL_KERNEL_DATA, 0x8e, 0);
	t = TRY(__asm__ volatile("int $0x22"));
	CHECK_TRAP(t, VEC_GP, SEL_KERNEL_DATA);
	trap_set_gate(0x22, trap_entries[0x22], 0, 0x8e, 0);
	t = TRY(__asm__ volatile("int $0x22"));
	CHECK_TRAP(t, VEC_GP, 0);
	/* A trap gate leaves IF alone, an interrupt gate clears it. */
	trap_set_gate(0x22, trap_entries[0x22], SEL_KERNEL_CODE, 0x8f, 0);
	t = TRY(__asm__ volatile("int $0x22"));
	CHECK_TRAP(t, 0x22, 0);
}

static void
prot_count(struct trap_frame *f)
{
	prot_hits += (cpu_flags() & EFLAGS_IF) ? 0x100 : 1;
	f->ax = 0x1234;
}

static void
prot_iret(void)
{
	u32 ax = 0;

	trap_set_handler(0x23, prot_count);
	__asm__ volatile("int $0x23" : "+a"(ax));
	CHECK_EQ(ax, 0x1234);
	CHECK_EQ(prot_hits, 1);
	trap_set_gate(0x23, trap_entries[0x23], SEL_KERNEL_CODE, 0x8f, 0);
	__asm__ volatile("sti; int $0x23; cli" : "+a"(ax));
	CHECK_EQ(prot_hits, 0x101);
	__asm__ volatile("pushfl; pushl %%cs; pushl $1f; iret; 1:" : : : "memory");
}

/* The cause is repaired in the handler, and the instruction runs again. */
static void
prot_repair(struct trap_frame *f)
{
	prot_hits++;
	f->cx = 3;
}

static void
prot_restart(void)
{
	u32 a = 12, c = 0, d = 0;

	prot_hits = 0;
	trap_set_handler(VEC_DE, prot_repair);
	__asm__ volatile("divl %%ecx" : "+a"(a), "+c"(c), "+d"(d));
	trap_set_handler(VEC_DE, NULL);
	CHECK_EQ(prot_hits, 1);
	CHECK_EQ(a, 4);
	CHECK_EQ(d, 0);
}

static void
prot_user(void)
{
	struct trap t;

	t = user_run(prot_user_add, 41);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, 42);
	CHECK_EQ(t.cs & 3, 3);
	CHECK_EQ(t.ss, SEL_USER_DATA);
	t = user_run(prot_user_cli, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	t = user_run_flags(prot_user_cli, 0, EFLAGS_IOPL3 | EFLAGS_IF);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK(!(t.flags & EFLAGS_IF));
	t = user_run(prot_user_int, 0);
	CHECK_TRAP(t, VEC_GP, 0x21 * 8 + 2);
	t = user_run(prot_user_in, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	t = user_run_flags(prot_user_in, 0, EFLAGS_IOPL3);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	t = user_run_flags(prot_user_hlt, 0, EFLAGS_IOPL3);
	CHECK_TRAP(t, VEC_GP, 0);
	t = user_run(prot_user_int3, 0);
	CHECK_TRAP(t, VEC_BP, 0);
}

void
guest_main(void)
{
	prot_faults();
	prot_bound();
	prot_selectors();
	prot_interrupts();
	prot_iret();
	prot_restart();
	prot_user();
}
