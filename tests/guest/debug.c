/*
 * Debug registers and single step: instruction, data and I/O breakpoints,
 * TF by POPF and IRET, MOV SS shadow, ICEBP, general detect, RF, DR4 and DR5.
 */
#include "lib/paging.h"
#include "lib/trap.h"

#define DR6_BD (1ul << 13)
#define DR6_BS (1ul << 14)
#define DR7_GD (1ul << 13)
#define DR7_ON(n) (2ul << (2 * (n)) | 0x400)
#define DR7_KIND(n, rw, len) ((uptr)((rw) | (len) << 2) << (16 + 4 * (n)))
enum { RW_EXECUTE, RW_WRITE, RW_IO, RW_ACCESS };
enum { LEN_1, LEN_2, LEN_8, LEN_4 };

static volatile struct {
	unsigned count;
	uptr ip[16], dr6[16];
} debug_log;

static u64 debug_words[4] ALIGNED(32);

static void
debug_note(struct trap_frame *f)
{
	if (debug_log.count < 16) {
		debug_log.ip[debug_log.count] = f->ip;
		debug_log.dr6[debug_log.count] = cpu_read_dr6();
	}
	debug_log.count++;
	cpu_write_dr6(0xffff0ff0);
	if (f->flags & EFLAGS_TF && debug_log.count > 12)
		f->flags &= ~(uptr)EFLAGS_TF;
	f->flags |= EFLAGS_RF;
	if (debug_log.count > 100) /* not for ever, if RF does not help */
		cpu_write_dr7(0x400);
}

static void
debug_reset(void)
{
	cpu_write_dr7(0x400);
	cpu_write_dr6(0xffff0ff0);
	debug_log.count = 0;
}

static void
debug_execute(void)
{
	u32 a = 0;

	debug_reset();
	__asm__ volatile(
		"lea 1f(%%rip), %%rax; mov %%rax, %%dr0; mov %1, %%rax; mov %%rax, %%dr7\n\t"
		"xor %%eax, %%eax; nop\n1:\tinc %%eax; inc %%eax; lea 1b(%%rip), %%rcx\n\t"
		"mov %%rcx, trap_mark"
		: "=&a"(a)
		: "i"(DR7_ON(0))
		: "rcx", "memory", "cc");
	CHECK_EQ(a, 2);
	CHECK_EQ(debug_log.count, 1);
	CHECK_EQ(debug_log.ip[0], trap_mark);
	CHECK_EQ(debug_log.dr6[0] & 0xe00f, 1);
	debug_reset();
}

/* A write of SIZE at debug_words + OFFSET; returns how often #DB came. */
static unsigned
debug_write(unsigned offset, unsigned size)
{
	u8 *at = (u8 *)debug_words + offset;

	debug_log.count = 0;
	switch (size) {
	case 1:
		__asm__ volatile("movb $1, (%0)" : : "r"(at) : "memory");
		break;
	case 2:
		__asm__ volatile("movw $1, (%0)" : : "r"(at) : "memory");
		break;
	case 4:
		__asm__ volatile("movl $1, (%0)" : : "r"(at) : "memory");
		break;
	default:
		__asm__ volatile("movq $1, (%0)" : : "r"(at) : "memory");
	}
	return debug_log.count;
}

static void
debug_data(void)
{
	debug_reset();
	cpu_write_dr1((uptr)debug_words + 8);
	cpu_write_dr7(DR7_ON(1) | DR7_KIND(1, RW_WRITE, LEN_4));
	CHECK_EQ(debug_write(8, 1), 1);
	CHECK_EQ(debug_log.dr6[0] & 0xe00f, 2);
	CHECK_EQ(debug_write(11, 1), 1);
	CHECK_EQ(debug_write(12, 4), 0);
	CHECK_EQ(debug_write(7, 1), 0);
	CHECK_EQ(debug_write(6, 4), 1);
	CHECK_EQ(debug_write(4, 8), 1);
	CHECK_EQ(debug_write(0, 8), 0);
	debug_log.count = 0;
	(void)*(volatile u64 *)&debug_words[1];
	CHECK_EQ(debug_log.count, 0);
	cpu_write_dr7(DR7_ON(1) | DR7_KIND(1, RW_ACCESS, LEN_8));
	(void)*(volatile u64 *)&debug_words[1];
	CHECK_EQ(debug_log.count, 1);
	CHECK_EQ(debug_write(15, 1), 1);
	/* The trap comes behind the instruction. */
	debug_log.count = 0;
	__asm__ volatile("incl (%0)\n771:\tmovq $771b, trap_mark"
			 :
			 : "r"(&debug_words[1])
			 : "memory", "cc");
	CHECK(debug_log.count == 1);
	CHECK_EQ(debug_log.ip[0], trap_mark);
	cpu_write_dr7(0x400);
	CHECK_EQ(debug_write(8, 4), 0);
}

static void
debug_push(void)
{
	debug_reset();
	__asm__ volatile(
		"lea -8(%%rsp), %%rax; mov %%rax, %%dr2; mov %0, %%eax; mov %%rax, %%dr7\n\t"
		"push %%rcx; pop %%rcx; mov $0x400, %%eax\n\t"
		"mov %%rax, %%dr7"
		:
		: "i"(DR7_ON(2) | DR7_KIND(2, RW_WRITE, LEN_8))
		: "rax", "memory", "cc");
	CHECK_EQ(debug_log.count, 1);
	CHECK_EQ(debug_log.dr6[0] & 0xe00f, 4);
}

static void
debug_rep(void)
{
	static u8 from[64], to[64];

	debug_reset();
	cpu_write_dr3((uptr)to + 32);
	cpu_write_dr7(DR7_ON(3) | DR7_KIND(3, RW_WRITE, LEN_1));
	from[32] = 7;
	memcpy(to, from, sizeof(to));
	cpu_write_dr7(0x400);
	CHECK_EQ(debug_log.count, 1);
	CHECK_EQ(debug_log.dr6[0] & 0xe00f, 8);
	CHECK_EQ(to[32], 7);
}

static void
debug_io(void)
{
	if (!(cpu_cpuid(1, 0).d & 1u << 2) ||
	    guest_on_kvm()) /* it knows none on ports that it emulates */
		return;
	debug_reset();
	cpu_write_cr4(cpu_read_cr4() | CR4_DE);
	cpu_write_dr0(0x80);
	cpu_write_dr7(DR7_ON(0) | DR7_KIND(0, RW_IO, LEN_1));
	outb(0x81, 0);
	CHECK_EQ(debug_log.count, 0);
	outb(0x80, 0);
	CHECK_EQ(debug_log.count, 1);
	CHECK_EQ(debug_log.dr6[0] & 0xe00f, 1);
	cpu_write_dr7(0x400);
	cpu_write_cr4(cpu_read_cr4() & ~CR4_DE);
}

static void
debug_step(void)
{
	debug_reset();
	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf\n771:\tnop\n772:\tnop\n\t"
			 "pushf; andl $~0x100, (%%rsp); popf\n773:\tmovq $771b, trap_mark"
			 :
			 :
			 : "memory", "cc");
	/* Not behind the POPF that set TF, but behind the one that clears it. */
	CHECK_EQ(debug_log.count, 5);
	CHECK_EQ(debug_log.ip[0], trap_mark + 1);
	CHECK_EQ(debug_log.ip[1], trap_mark + 2);
	CHECK_EQ(debug_log.dr6[0] & 0xe00f, DR6_BS);
	CHECK_EQ(debug_log.dr6[4] & 0xe00f, DR6_BS);
}

static void
debug_step_shadow(void)
{
	debug_reset();
	__asm__ volatile("mov %%ss, %%eax; pushf; orl $0x100, (%%rsp); popf\n"
			 "771:\tmov %%eax, %%ss\n772:\tnop\n773:\tnop\n\t"
			 "pushf; andl $~0x100, (%%rsp); popf; movq $773b, trap_mark"
			 :
			 :
			 : "rax", "memory", "cc");
	/* MOV SS holds the trap until one more instruction has run. */
	CHECK_EQ(debug_log.ip[0], trap_mark);
	CHECK_EQ(debug_log.count, 5);
}

/* TF over INT: cleared at entry, back with IRET; the trap behind INT comes after the handler. */
static unsigned debug_int_seen;
static void
debug_int_handler(struct trap_frame *f)
{
	debug_int_seen += (cpu_flags() & EFLAGS_TF) ? 100 : 1;
	(void)f;
}

static void
debug_step_int(void)
{
	debug_reset();
	trap_set_handler(0x61, debug_int_handler);
	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf\n"
			 "771:\tint $0x61\n772:\tnop\n773:\tnop\n\t"
			 "pushf; andl $~0x100, (%%rsp); popf; movq $772b, trap_mark"
			 :
			 :
			 : "memory", "cc");
	CHECK_EQ(debug_int_seen, 1);
	CHECK_EQ(debug_log.ip[0], trap_mark + 1);
	CHECK_EQ(debug_log.count, 5);
}

static void
debug_icebp(void)
{
	if (guest_on_tcg()) /* it raises #UD */
		return;
	debug_reset();
	__asm__ volatile("int1\n771:\tmovq $771b, trap_mark" : : : "memory");
	CHECK_EQ(debug_log.count, 1);
	CHECK_EQ(debug_log.ip[0], trap_mark);
	CHECK_EQ(debug_log.dr6[0] & 0xe00f, 0);
}

static void
debug_registers(void)
{
	struct trap t;

	debug_reset();
	if (!guest_on_tcg()) { /* it has no general detect */
		cpu_write_dr7(0x400 | DR7_GD);
		__asm__ volatile(MARK "mov %%dr0, %%rax" : : : "rax");
		CHECK_EQ(debug_log.count, 1); /* the handler itself runs with GD clear */
		CHECK_EQ(debug_log.ip[0], trap_mark);
		CHECK_EQ(debug_log.dr6[0] & 0xe00f, DR6_BD);
	}
	cpu_write_dr7(0x400);
	t = TRY(__asm__ volatile("mov %%dr4, %%rax" : : : "rax"));
	CHECK_NO_TRAP(t); /* CR4.DE off: that is DR6 */
	cpu_write_cr4(cpu_read_cr4() | CR4_DE);
	t = TRY(__asm__ volatile("mov %%dr4, %%rax" : : : "rax"));
	CHECK_TRAP(t, VEC_UD, 0);
	cpu_write_cr4(cpu_read_cr4() & ~CR4_DE);
	if (!guest_on_tcg()) { /* it lets them pass */
		t = TRY(cpu_write_dr7(1ul << 32));
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(cpu_write_dr6(1ul << 32));
		CHECK_TRAP(t, VEC_GP, 0);
	}
	cpu_write_dr6(0);
	CHECK_EQ(cpu_read_dr6() & 0xffff0ff0, 0xffff0ff0);
	cpu_write_dr7(0);
	CHECK_EQ(cpu_read_dr7(), 0x400);
	cpu_write_dr0(0xffff800000001234);
	CHECK_EQ(cpu_read_dr0(), 0xffff800000001234);
}

static USER_CODE uptr
debug_user_step(uptr arg)
{
	__asm__ volatile("nop");
	return arg;
}

static void
debug_user(void)
{
	struct trap t;

	debug_reset();
	t = user_run_flags(debug_user_step, 5, EFLAGS_TF);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, 5);
	CHECK(debug_log.count >= 3); /* TF by IRET: the first trap is behind one instruction */
	CHECK(debug_log.ip[0] > (uptr)debug_user_step);
	CHECK(debug_log.ip[0] <= (uptr)debug_user_step + 8);
	trap_set_handler(VEC_DB, NULL);
	t = TRY(__asm__ volatile("mov %%dr0, %%rax" : : : "rax"));
	CHECK_NO_TRAP(t);
}

void
guest_main(void)
{
	trap_set_handler(VEC_DB, debug_note);
	debug_execute();
	debug_data();
	debug_push();
	debug_rep();
	debug_io();
	debug_step();
	debug_step_shadow();
	debug_step_int();
	debug_icebp();
	debug_registers();
	debug_user();
}
