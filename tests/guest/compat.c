/*
 * Compatibility mode under a 64-bit kernel: 32- and 16-bit code segments, what
 * instructions mean there, interrupts out of it and IRET back, far transfers
 * between modes, addresses cut to 32 bits, limits of segments.
 */
#include "lib/paging.h"
#include "lib/trap.h"

extern u8 compat_inc[], compat_regs[], compat_wrap[], compat_far[], compat_limit[], compat_pusha[];
extern u8 compat_addr16[], compat_into[], compat_ud[];
u32 compat_words[8] __attribute__((section(".user_data")));

__asm__(".section .user, \"ax\"\n\t.code32\n"
	"compat_inc:\n\t" /* 40h is INC EAX here, a REX prefix in 64-bit mode */
	"mov $0x7fffffff, %eax; .byte 0x40; int $0x80\n"
	"compat_regs:\n\t" /* stack of 4 bytes a push, address of 32 bits */
	"mov %esp, %ecx; push $1; push $2; pop %eax; pop %edx; shl $8, %eax; or %edx, %eax\n\t"
	"sub %esp, %ecx; add %ecx, %eax; int $0x80\n"
	"compat_wrap:\n\t"
	"mov $0x23, %ecx; mov %ecx, %ds; " /* IRET took the kernel's DS away */
	"mov $0xffffffff, %ebx; movl compat_words + 1(%ebx), %eax; int $0x80\n"
	"compat_far:\n\t" /* to 64-bit code and back again */
	"ljmp $0x2b, $1f\n\t"
	".code64\n1:\tmov $0x123456789, %rax; shr $32, %rax\n\t"
	"mov %rsp, %r8; push $0x1b; lea 2f(%rip), %rcx; push %rcx; lretq\n\t"
	".code32\n2:\tadd $0x70, %eax; int $0x80\n"
	"compat_limit:\n\t"
	"mov $0x43, %ecx; mov %ecx, %es; movb %es:0xf, %al; movb %es:0x10, %al; int $0x80\n"
	"compat_pusha:\n\t"
	"mov $5, %ebx; pusha; xor %ebx, %ebx; popa; mov %ebx, %eax; aad; int $0x80\n"
	"compat_addr16:\n\t"
	"mov $compat_words, %ebx; sub $0x10000, %ebx; and $0xffff, %ebx\n\t"
	"mov $0x4b, %ecx; mov %ecx, %es; mov $0x10000, %esi; addr16 movl %es:(%si), %eax; int "
	"$0x80\n"
	"compat_into:\n\tmov $0x7fffffff, %eax; inc %eax; into; int $0x80\n"
	"compat_ud:\n\tud2\n\t"
	".code64\n\t.text");

static struct trap
compat_run(const u8 *entry)
{
	uptr sp = (uptr)user_stack + 4096;

	return TRY(trap_enter_user((uptr)entry, SEL_USER_CODE32, 2, sp, SEL_USER_DATA, 0));
}

static void
compat_basic(void)
{
	struct trap t;

	t = compat_run(compat_inc);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ((u32)t.ax, 0x80000000u);
	CHECK_EQ(t.cs, SEL_USER_CODE32);
	t = compat_run(compat_regs);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ((u32)t.ax, 0x201);
	compat_words[0] = 0x4711;
	t = compat_run(compat_wrap);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ((u32)t.ax, 0x4711);
	t = compat_run(compat_far);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ((u32)t.ax, 0x71);
	t = compat_run(compat_pusha);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ((u32)t.ax, 5);
	t = compat_run(compat_into);
	CHECK_TRAP(t, VEC_OF, 0);
	t = compat_run(compat_ud);
	CHECK_TRAP(t, VEC_UD, 0);
	CHECK_EQ(t.ip, (uptr)compat_ud);
}

static void
compat_segments(void)
{
	u64 base = (uptr)compat_words;
	struct trap t;

	/* A data segment of 16 bytes over compat_words. */
	trap_gdt[SEL_FREE / 8] =
		0x0040f30000000000 | 0xf | (base & 0xffffff) << 16 | (base >> 24) << 56;
	t = compat_run(compat_limit);
	if (!guest_on_tcg()) /* it checks no limits */
		CHECK_TRAP(t, VEC_GP, 0);
	/* Flat, for the 16-bit address. */
	trap_gdt[SEL_FREE / 8 + 1] =
		0x00cff30000000000 | 0xffff | (base & 0xffffff) << 16 | (base >> 24) << 56;
	compat_words[0] = 0x8086;
	t = compat_run(compat_addr16);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ((u32)t.ax, 0x8086);
}

/* A 16-bit code segment over its own start. */
extern u8 compat_16[];
__asm__(".section .user, \"ax\"\n\t.code16\n"
	"compat_16:\n\t"
	"mov $0x1234, %ax; push %ax; pop %cx; call 1f\n1:\tpop %dx; movzwl %ax, %eax\n\t"
	"movzwl %cx, %ecx; shll $16, %ecx; orl %ecx, %eax; int $0x80\n\t"
	".code64\n\t.text");

static void
compat_sixteen(void)
{
	u64 base = (uptr)compat_16;
	struct trap t;

	trap_gdt[SEL_FREE / 8] = 0x0000fb000000ffff | (base & 0xffffff) << 16 | (base >> 24) << 56;
	t = TRY(trap_enter_user(0, SEL_FREE | 3, 2, (uptr)user_stack + 4096, SEL_USER_DATA, 0));
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ((u32)t.ax, 0x12341234);
	CHECK_EQ(t.sp, (uptr)user_stack + 4096);
}

/* Far transfers of 64-bit code at CPL 0, through a call gate and to a 32-bit segment. */
static void
compat_gates(void)
{
	u64 target, ax = 0;
	struct {
		u32 offset; /* 64 bits wide with REX.W on Intel only */
		u16 selector;
	} PACKED pointer = {0, SEL_FREE};
	struct trap t;

	__asm__ volatile("lea compat_gate_target(%%rip), %0" : "=r"(target));
	trap_gdt[SEL_FREE / 8] = (target & 0xffff) | (u64)SEL_KERNEL_CODE << 16 | 0x8cull << 40 |
				 (target >> 16 & 0xffff) << 48;
	trap_gdt[SEL_FREE / 8 + 1] = target >> 32;
	t = TRY(__asm__ volatile("lcall *%1\n\tjmp 1f\n"
				 "compat_gate_target:\n\tmov $0x6a7e, %%eax; rex.w lret\n1:"
				 : "=a"(ax)
				 : "m"(pointer)
				 : "memory"));
	CHECK_NO_TRAP(t);
	CHECK_EQ(ax, 0x6a7e);
	trap_gdt[SEL_FREE / 8] &= ~(1ull << 47); /* not present */
	t = TRY(__asm__ volatile("lcall *%0" : : "m"(pointer) : "memory"));
	CHECK_TRAP(t, VEC_NP, SEL_FREE);
	t = TRY(__asm__ volatile("push $0x38; push $1f; lretq\n\t.code32\n1:\tljmp $0x08, $2f\n\t"
				 ".code64\n2:"
				 :
				 :
				 : "memory"));
	CHECK_NO_TRAP(t);
}

void
guest_main(void)
{
	compat_basic();
	compat_segments();
	compat_sixteen();
	compat_gates();
}
