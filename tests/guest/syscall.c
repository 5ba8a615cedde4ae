/*
 * SYSCALL and SYSRET, SYSENTER and SYSEXIT, SWAPGS, FSGSBASE: selectors, masks,
 * what RCX and R11 hold, and where they are undefined.
 */
#include "lib/trap.h"

#define EFLAGS_DEFINED 0x3f7fd7u

extern u8 syscall_entry[], syscall_entry_int[], sysenter_entry[];
extern u8 syscall_user32[], sysenter_user32[];
u64 syscall_seen[8]; /* cs, ss, rflags, rcx, r11, rsp */
u64 syscall_kernel_stack[64];

__asm__(".text\n"
	"syscall_entry:\n\t"
	"mov %cs, %eax; mov %rax, syscall_seen\n\t"
	"mov %ss, %eax; mov %rax, syscall_seen + 8\n\t"
	"mov %rsp, syscall_seen + 40\n\t"
	"lea syscall_kernel_stack + 512, %rsp\n\t"
	"pushf; pop %rax; mov %rax, syscall_seen + 16\n\t"
	"mov %rcx, syscall_seen + 24; mov %r11, syscall_seen + 32\n\t"
	"mov syscall_seen + 40, %rsp\n\t"
	"mov $0x5151, %eax\n\t"
	"sysretq\n"
	"syscall_entry_int:\n\t" /* out of compatibility mode: tells by INT 0x80's kernel twin */
	"mov %cs, %eax; mov %rax, syscall_seen\n\t"
	"mov $0x3232, %eax\n\t"
	"sysretl\n"
	"sysenter_entry:\n\t"
	"mov %cs, %eax; mov %rax, syscall_seen\n\t"
	"mov %ss, %eax; mov %rax, syscall_seen + 8\n\t"
	"mov %rsp, syscall_seen + 40\n\t"
	"pushf; pop %rax; mov %rax, syscall_seen + 16\n\t"
	"lea sysenter_back, %rdx; lea user_stack + 4096, %rcx\n\t"
	"mov $0x6161, %eax; rex.w sysexit\n");

__asm__(".section .user, \"ax\"\n\t"
	".code32\n"
	"syscall_user32:\n\t"
	"syscall\n\t"
	"int $0x80\n\t"
	".code64\n"
	"sysenter_back:\n\t"
	"int $0x80\n\t"
	".text");

static USER_CODE uptr
syscall_user(uptr arg)
{
	uptr ax, cx, r11;

	__asm__ volatile("syscall" : "=a"(ax), "=c"(cx), "=r"(r11) : "D"(arg) : "r11", "memory");
	return ax;
}

static USER_CODE uptr
syscall_user_sysret(uptr arg)
{
	__asm__ volatile("sysretq" : : "c"(arg) : "r11");
	return arg;
}

static USER_CODE uptr
syscall_user_swapgs(uptr arg)
{
	__asm__ volatile("swapgs");
	return arg;
}

static USER_CODE uptr
syscall_user_sysenter(uptr arg)
{
	__asm__ volatile("sysenter" : : : "rcx", "rdx", "memory");
	return arg;
}

static USER_CODE uptr
syscall_user_wrfsbase(uptr arg)
{
	uptr back;

	__asm__ volatile("wrfsbase %1; rdfsbase %0" : "=r"(back) : "r"(arg));
	return back;
}

static void
syscall_set_up(void)
{
	cpu_write_msr(MSR_STAR, 0x0018ull << 48 | (u64)SEL_KERNEL_CODE << 32);
	cpu_write_msr(MSR_LSTAR, (uptr)syscall_entry);
	cpu_write_msr(MSR_CSTAR, (uptr)syscall_entry_int);
	cpu_write_msr(MSR_SFMASK, EFLAGS_DF | EFLAGS_IF | EFLAGS_CF | EFLAGS_AC);
	cpu_write_msr(MSR_EFER, cpu_read_msr(MSR_EFER) | EFER_SCE);
}

static void
syscall_fast(void)
{
	struct trap t;

	t = user_run_flags(syscall_user, 0, EFLAGS_IF | EFLAGS_AC);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, 0x5151);
	CHECK_EQ(t.cs, SEL_USER_CODE);
	CHECK_EQ(t.ss, SEL_USER_DATA);
	CHECK(t.flags & EFLAGS_IF);
	CHECK_EQ(syscall_seen[0], SEL_KERNEL_CODE);
	CHECK_EQ(syscall_seen[1], SEL_KERNEL_DATA);
	CHECK_EQ(syscall_seen[2] & (EFLAGS_IF | EFLAGS_AC | EFLAGS_DF), 0);
	CHECK_EQ(syscall_seen[4] & (EFLAGS_IF | EFLAGS_AC), EFLAGS_IF | EFLAGS_AC);
	CHECK(syscall_seen[3] > (uptr)syscall_user && syscall_seen[3] < (uptr)syscall_user + 64);
	CHECK_EQ(t.flags & EFLAGS_DEFINED & ~0x8d5u, syscall_seen[4] & EFLAGS_DEFINED & ~0x8d5u);
	t = user_run(syscall_user_sysret, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	t = user_run(syscall_user_swapgs, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	cpu_write_msr(MSR_EFER, cpu_read_msr(MSR_EFER) & ~(u64)EFER_SCE);
	t = user_run(syscall_user, 0);
	CHECK_TRAP(t, VEC_UD, 0);
	t = TRY(__asm__ volatile("sysretq"));
	CHECK_TRAP(t, VEC_UD, 0);
	cpu_write_msr(MSR_EFER, cpu_read_msr(MSR_EFER) | EFER_SCE);
	if (!guest_on_tcg()) { /* it stores what it is given */
		t = TRY(cpu_write_msr(MSR_LSTAR, 0x800000000000));
		CHECK_TRAP(t, VEC_GP, 0);
	}
}

static void
syscall_compat(void)
{
	struct trap t;
	uptr sp = (uptr)user_stack + 4096;

	t = TRY(trap_enter_user((uptr)syscall_user32, SEL_USER_CODE32, 2, sp, SEL_USER_DATA, 0));
	if (!cpu_is_amd()) { /* Intel has no SYSCALL in compatibility mode */
		CHECK_TRAP(t, VEC_UD, 0);
		return;
	}
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, 0x3232);
	CHECK_EQ(t.cs, SEL_USER_CODE32);
	CHECK_EQ(syscall_seen[0], SEL_KERNEL_CODE);
}

static void
syscall_enter(void)
{
	struct trap t;

	cpu_write_msr(MSR_SYSENTER_CS, SEL_KERNEL_CODE);
	cpu_write_msr(MSR_SYSENTER_ESP, (uptr)syscall_kernel_stack + 512);
	cpu_write_msr(MSR_SYSENTER_EIP, (uptr)sysenter_entry);
	t = user_run_flags(syscall_user_sysenter, 0, EFLAGS_IF);
	if (cpu_is_amd()) { /* AMD has none in long mode */
		CHECK_TRAP(t, VEC_UD, 0);
		return;
	}
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, 0x6161);
	CHECK_EQ(t.cs, SEL_USER_CODE);
	CHECK_EQ(t.ss, SEL_USER_DATA64);
	CHECK_EQ(syscall_seen[0], SEL_KERNEL_CODE);
	CHECK_EQ(syscall_seen[1], SEL_KERNEL_DATA);
	CHECK_EQ(syscall_seen[2] & EFLAGS_IF, 0);
	CHECK_EQ(syscall_seen[5], (uptr)syscall_kernel_stack + 512);
	cpu_write_msr(MSR_SYSENTER_CS, 0);
	t = user_run(syscall_user_sysenter, 0);
	CHECK_TRAP(t, VEC_GP, 0);
}

static void
syscall_bases(void)
{
	static u64 words[2] = {0x1111, 0x2222};
	u64 value;
	struct trap t;

	cpu_write_msr(MSR_GS_BASE, (uptr)&words[0]);
	cpu_write_msr(MSR_KERNEL_GS_BASE, (uptr)&words[1]);
	__asm__ volatile("mov %%gs:0, %0" : "=r"(value));
	CHECK_EQ(value, 0x1111);
	__asm__ volatile("swapgs; mov %%gs:0, %0" : "=r"(value));
	CHECK_EQ(value, 0x2222);
	CHECK_EQ(cpu_read_msr(MSR_KERNEL_GS_BASE), (uptr)&words[0]);
	cpu_write_msr(MSR_FS_BASE, (uptr)words - 0x1000);
	__asm__ volatile("mov %%fs:0x1008, %0" : "=r"(value));
	CHECK_EQ(value, 0x2222);
	t = TRY(cpu_write_msr(MSR_FS_BASE, 0x800000000000));
	if (!guest_on_tcg()) /* it stores what it is given */
		CHECK_TRAP(t, VEC_GP, 0);
	/* Loading a selector loads its base. */
	trap_gdt[SEL_FREE / 8] = 0x00cf93000000ffff | 0x12340000ull;
	__asm__ volatile("mov %0, %%fs" : : "r"(SEL_FREE));
	CHECK_EQ(cpu_read_msr(MSR_FS_BASE), 0x1234);
	if (!(cpu_cpuid(7, 0).b & 1)) {
		check_skip("FSGSBASE");
		return;
	}
	t = user_run(syscall_user_wrfsbase, 0x123456789000);
	CHECK_TRAP(t, VEC_UD, 0);
	cpu_write_cr4(cpu_read_cr4() | CR4_FSGSBASE);
	t = user_run(syscall_user_wrfsbase, 0x123456789000);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, 0x123456789000);
	CHECK_EQ(cpu_read_msr(MSR_FS_BASE), 0x123456789000);
}

void
guest_main(void)
{
	syscall_set_up();
	syscall_fast();
	syscall_compat();
	syscall_enter();
	syscall_bases();
}
