/*
 * Virtual-8086 mode: real-mode addresses at CPL 3, what is sensitive to IOPL,
 * the frame that an interrupt pushes, I/O by the bitmap, paging below it.
 * bits: 32
 */
#include "lib/trap.h"

enum { V86_BASE = 0x20000, V86_SEGMENT = 0x2000, V86_SP = 0x1000 };

extern const u8 v86_start[], v86_end[];
extern const u8 v86_move[], v86_cli[], v86_pushf[], v86_int[], v86_in[], v86_hlt[], v86_ud[];
extern const u8 v86_far[], v86_wrap[], v86_popf[], v86_iret[], v86_cr0[], v86_lar[];

__asm__(".section .rodata\n.code16\n"
	"v86_start:\n"
	"v86_move: mov $0x2100, %ax; mov %ax, %ds; movw $0x1234, 0x10; mov $0x2101, %ax; mov %ax, "
	"%es\n\t"
	"mov %es:0, %ax; int $0x80\n"
	"v86_cli: cli; mov $0xc11, %ax; int $0x80\n"
	"v86_pushf: pushf; pop %ax; int $0x80\n"
	"v86_popf: push $0x0200; popf; pushf; pop %ax; int $0x80\n"
	"v86_int: int $0x21; int $0x80\n"
	"v86_in: in $0x80, %al; mov $0x11, %ax; int $0x80\n"
	"v86_hlt: hlt\n"
	"v86_ud: ud2\n"
	"v86_iret: iret\n"
	"v86_cr0: mov %cr0, %eax; int $0x80\n"
	"v86_lar: lar %ax, %ax; int $0x80\n"
	"v86_far: lcall $0x2000, $v86_sub - v86_start; int $0x80\n"
	"v86_sub: mov %cs, %ax; lret\n"
	"v86_wrap: mov $0xffff, %bx; mov 1(%bx), %al; xor %ah, %ah; int $0x80\n"
	"v86_end:\n"
	".code32\n.text\n"
	"v86_enter:\n\t" /* (ip, flags) */
	"mov 4(%esp), %eax; mov 8(%esp), %ecx\n\t"
	"pushl $0x2400; pushl $0x2300; pushl $0x2200; pushl $0x2000; pushl $0x2000; pushl "
	"$0x1000\n\t"
	"push %ecx; pushl $0x2000; push %eax; xor %eax, %eax; iret\n");
__attribute__((noreturn)) void v86_enter(u32 ip, u32 flags);

static struct trap
v86_run(const u8 *entry, u32 flags)
{
	return TRY(v86_enter((u32)(entry - v86_start), flags | EFLAGS_VM | 2));
}

static void
v86_basic(void)
{
	struct trap t;

	t = v86_run(v86_move, EFLAGS_IOPL3);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax & 0xffff, 0x1234);
	CHECK_EQ(*(u16 *)0x21010, 0x1234);
	CHECK(t.flags & EFLAGS_VM);
	CHECK_EQ(t.cs, V86_SEGMENT);
	CHECK_EQ(t.ss, V86_SEGMENT);
	CHECK_EQ(t.sp, V86_SP);
	CHECK_EQ(t.frame.v86_ds, 0x2100);
	CHECK_EQ(t.frame.v86_es, 0x2101);
	CHECK_EQ(t.frame.v86_gs, 0x2400);
	CHECK_EQ(t.frame.v86_fs, 0x2300);
	t = v86_run(v86_far, EFLAGS_IOPL3);
	CHECK_EQ(t.ax & 0xffff, V86_SEGMENT);
	t = v86_run(v86_wrap, EFLAGS_IOPL3); /* FFFFh + 1 wraps to 0: DS is 2200h */
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax & 0xff, 0x7e);
	t = v86_run(v86_ud, 0);
	CHECK_TRAP(t, VEC_UD, 0);
	CHECK_EQ(t.ip, (u32)(v86_ud - v86_start));
}

static void
v86_sensitive(void)
{
	static const u8 *const by_iopl[] = {v86_cli, v86_pushf, v86_popf, v86_iret};
	struct trap t;

	for (unsigned i = 0; i < ARRAY_LEN(by_iopl); i++) {
		t = v86_run(by_iopl[i], 0);
		CHECK_TRAP(t, VEC_GP, 0);
		CHECK(t.flags & EFLAGS_VM);
	}
	t = v86_run(v86_cli, EFLAGS_IOPL3 | EFLAGS_IF);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK(!(t.flags & EFLAGS_IF));
	t = v86_run(v86_pushf, EFLAGS_IOPL3);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax & 0x3000, 0x3000);
	t = v86_run(v86_popf, EFLAGS_IOPL3); /* IF as asked, IOPL stays */
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax & 0x3200, 0x3200);
	t = v86_run(v86_int, 0); /* INT n at IOPL below 3 */
	CHECK_TRAP(t, VEC_GP, 0);
	t = v86_run(v86_int, EFLAGS_IOPL3); /* DPL 0 gate */
	CHECK_TRAP(t, VEC_GP, 0x21 * 8 + 2);
	t = v86_run(v86_hlt, EFLAGS_IOPL3);
	CHECK_TRAP(t, VEC_GP, 0);
	t = v86_run(v86_cr0, EFLAGS_IOPL3);
	CHECK_TRAP(t, VEC_GP, 0);
	t = v86_run(v86_lar, EFLAGS_IOPL3);
	CHECK_TRAP(t, VEC_UD, 0);
	t = v86_run(v86_in, EFLAGS_IOPL3); /* IOPL does not matter: the bitmap does */
	CHECK_TRAP(t, VEC_GP, 0);
}

/* An interrupt goes to ring 0 and IRET brings it back into v86 mode. */
static unsigned v86_breaks;
static void
v86_handler(struct trap_frame *f)
{
	CHECK(f->flags & EFLAGS_VM);
	v86_breaks++;
	f->ip += 2; /* over UD2, into IRET, which faults at IOPL 0 */
}

static void
v86_return(void)
{
	struct trap t;

	trap_set_handler(VEC_UD, v86_handler);
	t = v86_run(v86_ud, 0);
	trap_set_handler(VEC_UD, NULL);
	CHECK_EQ(v86_breaks, 1);
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK_EQ(t.ip, (u32)(v86_iret - v86_start));
	CHECK_EQ(t.frame.v86_gs, 0x2400);
}

void
guest_main(void)
{
	memcpy((void *)V86_BASE, v86_start, (size_t)(v86_end - v86_start));
	*(u8 *)0x22000 = 0x7e;
	v86_basic();
	v86_sensitive();
	v86_return();
}
