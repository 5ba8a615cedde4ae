/*
 * Segmentation in 32-bit protected mode: limits (byte and page granular, expand-
 * down), types, conforming code, call gates with parameters and a stack switch,
 * far transfers between rings 0 and 3, LDT, LAR LSL VERR VERW ARPL, 16-bit
 * segments, task switches by JMP, CALL and a task gate for #DF.
 * bits: 32
 */
#include "lib/trap.h"

enum { S0 = SEL_FREE, S1 = SEL_FREE + 8, S2 = SEL_FREE + 16, S3 = SEL_FREE + 24 };

static u64
seg_make(u32 base, u32 limit, u8 access, u8 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
	       (u64)(limit >> 16 & 15) << 48 | (u64)(flags & 15) << 52 | (u64)(base >> 24) << 56;
}

static void
seg_set(unsigned selector, u64 descriptor)
{
	trap_gdt[selector / 8] = descriptor;
	BARRIER();
}

static u32 seg_memory[2048] ALIGNED(4096);

/* A byte read or write through ES = SELECTOR at OFFSET. */
static struct trap
seg_touch(u32 selector, u32 offset, bool write)
{
	if (write)
		return TRY(__asm__ volatile("mov %0, %%es; movb $1, %%es:(%1); push %%ds; pop %%es"
					    :
					    : "r"(selector), "r"(offset)
					    : "memory"));
	return TRY(__asm__ volatile("mov %0, %%es; movb %%es:(%1), %%al; push %%ds; pop %%es"
				    :
				    : "r"(selector), "r"(offset)
				    : "eax", "memory"));
}

static void
seg_base(void)
{
	u32 value;

	seg_memory[4] = 0x1234;
	seg_set(S0, seg_make((u32)seg_memory + 8, 0xfffff, 0x93, 0xc));
	__asm__ volatile("mov %1, %%fs; movl %%fs:8, %0" : "=r"(value) : "r"(S0));
	CHECK_EQ(value, 0x1234);
	__asm__ volatile("mov %1, %%fs; movl %%fs:(%2), %0" : "=r"(value) : "r"(S0), "r"(-8 + 16));
	CHECK_EQ(value, 0x1234);
	/* Accessed: set by the load. */
	seg_set(S0, seg_make(0, 0xfffff, 0x92, 0xc));
	__asm__ volatile("mov %0, %%fs" : : "r"(S0));
	CHECK_EQ(trap_gdt[S0 / 8] >> 40 & 0xff, 0x93);
	/* The hidden part stays when the table changes. */
	seg_set(S0, 0);
	__asm__ volatile("movl %%fs:(%1), %0" : "=r"(value) : "r"(&seg_memory[4]));
	CHECK_EQ(value, 0x1234);
	__asm__ volatile("mov %0, %%fs" : : "r"(0));
}

static void
seg_limits(void)
{
	u32 base = (u32)seg_memory;
	struct trap t;

	if (guest_on_tcg())
		return; /* it checks no limits and no types */
	seg_set(S0, seg_make(base, 99, 0x93, 0x4));
	t = seg_touch(S0, 99, true);
	CHECK_NO_TRAP(t);
	t = seg_touch(S0, 100, true);
	CHECK_TRAP(t, VEC_GP, 0);
	t = seg_touch(S0, 100, false);
	CHECK_TRAP(t, VEC_GP, 0);
	t = seg_touch(S0, 0xffffffff, false);
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(__asm__ volatile("mov %0, %%es; movl %%es:97, %%eax; push %%ds; pop %%es"
				 :
				 : "r"(S0)
				 : "eax"));
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(__asm__ volatile("mov %0, %%es; movl %%es:96, %%eax; push %%ds; pop %%es"
				 :
				 : "r"(S0)
				 : "eax"));
	CHECK_NO_TRAP(t);
	seg_set(S0, seg_make(base, 0, 0x93, 0xc)); /* one page */
	t = seg_touch(S0, 4095, true);
	CHECK_NO_TRAP(t);
	t = seg_touch(S0, 4096, true);
	CHECK_TRAP(t, VEC_GP, 0);
	/* Expand-down: valid above the limit, up to 64 KiB or 4 GiB. */
	seg_set(S0, seg_make(base, 99, 0x97, 0x4));
	t = seg_touch(S0, 99, false);
	CHECK_TRAP(t, VEC_GP, 0);
	t = seg_touch(S0, 100, false);
	CHECK_NO_TRAP(t);
	seg_set(S0, seg_make(base, 99, 0x97, 0x0));
	t = seg_touch(S0, 0xffff, false);
	CHECK_NO_TRAP(t);
	t = seg_touch(S0, 0x10000, false);
	CHECK_TRAP(t, VEC_GP, 0);
	/* Types. */
	seg_set(S0, seg_make(0, 0xfffff, 0x91, 0xc));
	t = seg_touch(S0, base, true);
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(__asm__ volatile("movb $0, %%cs:(%0)" : : "r"(base) : "memory"));
	CHECK_TRAP(t, VEC_GP, 0);
	seg_set(S0, seg_make(0, 0xfffff, 0x99, 0xc)); /* execute only */
	t = TRY(__asm__ volatile("mov %0, %%es" : : "r"(S0)));
	CHECK_TRAP(t, VEC_GP, S0);
	/* The stack segment's limit is #SS. */
	seg_set(S0, seg_make(base, 99, 0x93, 0x4));
	trap_set_handler(VEC_SS, NULL);
	t = TRY(__asm__ volatile("mov %%esp, %%ebx; movl %%ss:(%0), %%eax"
				 :
				 : "r"(base)
				 : "eax", "ebx"));
	CHECK_NO_TRAP(t);
}

extern u8 seg_conforming[], seg_gate_target[], seg_ring3[], seg_ring3_gate[],
	seg_ring3_conforming[];
u32 seg_seen[8];
__asm__(".text\n"
	"seg_conforming: mov %cs, %eax; lret\n"
	"seg_gate_target:\n\t" /* two parameters: copied to the new stack, dropped by LRET */
	"mov %cs, %eax; movl %eax, seg_seen; mov %ss, %eax; movl %eax, seg_seen + 4\n\t"
	"movl 8(%esp), %eax; movl %eax, seg_seen + 8; movl 12(%esp), %eax; movl %eax, seg_seen + "
	"12\n\t"
	"movl 16(%esp), %eax; movl %eax, seg_seen + 16; movl 20(%esp), %eax; movl %eax, seg_seen + "
	"20\n\t"
	"mov $0x6a7e, %eax; lret $8\n\t"
	".section .user, \"ax\"\n"
	"seg_ring3: mov %cs, %eax; int $0x80\n"
	"seg_ring3_gate: pushl $0x2222; pushl $0x1111; lcall $0x48, $0; int $0x80\n"
	"seg_ring3_conforming: lcall $0x40, $seg_conforming; int $0x80\n\t"
	".text\n");

static struct trap
seg_run_user(const u8 *entry)
{
	return TRY(trap_enter_user((u32)entry, SEL_USER_CODE, 2, (u32)user_stack + 4096,
				   SEL_USER_DATA, 0));
}

static void
seg_transfers(void)
{
	u32 value;
	struct trap t;

	/* Conforming code runs at the caller's level. */
	seg_set(S0, seg_make(0, 0xfffff, 0x9f, 0xc));
	__asm__ volatile("lcall $0x40, $seg_conforming" : "=a"(value) : : "memory");
	CHECK_EQ(value, S0);
	t = seg_run_user(seg_ring3_conforming);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, S0 | 3);
	seg_set(S0, seg_make(0, 0xfffff, 0x9b, 0xc)); /* not conforming: not for ring 3 */
	t = seg_run_user(seg_ring3_conforming);
	CHECK_TRAP(t, VEC_GP, S0);
	/* A call gate with two parameters, from ring 3. */
	seg_set(S1, ((u32)seg_gate_target & 0xffff) | (u64)SEL_KERNEL_CODE << 16 | 0xec02ull << 32 |
			    (u64)((u32)seg_gate_target >> 16) << 48);
	t = seg_run_user(seg_ring3_gate);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, 0x6a7e);
	CHECK_EQ(seg_seen[0], SEL_KERNEL_CODE);
	CHECK_EQ(seg_seen[1], SEL_KERNEL_DATA);
	CHECK_EQ(seg_seen[2], 0x1111);
	CHECK_EQ(seg_seen[3], 0x2222);
	CHECK_EQ(seg_seen[4], (u32)user_stack + 4096 - 8);
	CHECK_EQ(seg_seen[5], SEL_USER_DATA);
	CHECK_EQ(t.sp, (u32)user_stack + 4096);
	trap_gdt[S1 / 8] &= ~(3ull << 45); /* DPL 0: not for ring 3 */
	t = seg_run_user(seg_ring3_gate);
	CHECK_TRAP(t, VEC_GP, S1);
	trap_gdt[S1 / 8] &= ~(1ull << 47);
	trap_gdt[S1 / 8] |= 3ull << 45;
	t = seg_run_user(seg_ring3_gate);
	CHECK_TRAP(t, VEC_NP, S1);
	/* LRET to ring 3. */
	t = TRY(__asm__ volatile("pushl $0x23; pushl %0; pushl $0x1b; pushl $seg_ring3; lret"
				 :
				 : "r"((u32)user_stack + 4096)
				 : "memory"));
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, SEL_USER_CODE);
	/* Not inwards. */
	t = TRY(__asm__ volatile("ljmp $0x1b, $seg_ring3"));
	CHECK_TRAP(t, VEC_GP, SEL_USER_CODE & ~3u);
	t = TRY(__asm__ volatile("ljmp $0x10, $0"));
	CHECK_TRAP(t, VEC_GP, SEL_KERNEL_DATA);
	t = TRY(__asm__ volatile("ljmp $0, $0"));
	CHECK_TRAP(t, VEC_GP, 0);
}

static void
seg_queries(void)
{
	u32 value = 0;
	u8 good;

	__asm__ volatile("lar %2, %0; setz %1"
			 : "=r"(value), "=q"(good)
			 : "r"(SEL_KERNEL_CODE)
			 : "cc");
	CHECK(good);
	CHECK_EQ(value & 0xf0ff00, 0xc09b00);
	__asm__ volatile("lsl %2, %0; setz %1"
			 : "=r"(value), "=q"(good)
			 : "r"(SEL_KERNEL_DATA)
			 : "cc");
	CHECK(good);
	CHECK_EQ(value, 0xffffffff);
	seg_set(S0, seg_make(0, 0x1234, 0x93, 4));
	__asm__ volatile("lsl %2, %0; setz %1" : "=r"(value), "=q"(good) : "r"(S0) : "cc");
	CHECK_EQ(value, 0x1234);
	__asm__ volatile("lsl %2, %0; setz %1" : "+r"(value), "=q"(good) : "r"(0xfff8) : "cc");
	CHECK(!good);
	CHECK_EQ(value, 0x1234);
	__asm__ volatile("verr %w1; setz %0" : "=q"(good) : "r"(SEL_KERNEL_CODE) : "cc");
	CHECK(good);
	__asm__ volatile("verw %w1; setz %0" : "=q"(good) : "r"(SEL_KERNEL_CODE) : "cc");
	CHECK(!good);
	__asm__ volatile("verw %w1; setz %0" : "=q"(good) : "r"(SEL_KERNEL_DATA) : "cc");
	CHECK(good);
	value = 0x50;
	__asm__ volatile("arpl %w2, %w0; setz %1" : "+r"(value), "=q"(good) : "r"(3) : "cc");
	CHECK(good);
	CHECK_EQ(value, 0x53);
}

static void
seg_local(void)
{
	static u64 table[4];
	u32 value;

	table[1] = seg_make((u32)seg_memory, 0xfffff, 0x93, 0xc);
	seg_set(S2, seg_make((u32)table, sizeof(table) - 1, 0x82, 0));
	seg_memory[3] = 0x33;
	__asm__ volatile("lldt %w1; mov %2, %%fs; movl %%fs:12, %0"
			 : "=r"(value)
			 : "r"(S2), "r"(0x0c));
	CHECK_EQ(value, 0x33);
	__asm__ volatile("sldt %0" : "=r"(value));
	CHECK_EQ(value, S2);
	struct trap t = TRY(__asm__ volatile("mov %0, %%fs" : : "r"(0x24)));
	CHECK_TRAP(t, VEC_GP, 0x24);
	__asm__ volatile("mov %0, %%fs; lldt %w0" : : "r"(0));
}

static void
seg_sixteen(void)
{
	u32 sp, value;

	/* A 16-bit stack segment: pushes use SP and leave ESP's upper half. */
	seg_set(S0, seg_make((u32)seg_memory, 0xffff, 0x93, 0));
	__asm__ volatile(
		"mov %%esp, %%edx; mov %2, %%ss; mov $0x56780400, %%esp; push $0x1234\n\t"
		"mov %%esp, %0; movl (%3), %1; mov $0x10, %%ecx; mov %%ecx, %%ss; mov %%edx, %%esp"
		: "=&S"(sp), "=&D"(value)
		: "r"(S0), "b"((u32)seg_memory + 0x3fc)
		: "ecx", "edx", "memory");
	CHECK_EQ(sp, 0x567803fc);
	CHECK_EQ(value, 0x1234);
	/* SP wraps at 64 KiB. */
	__asm__ volatile("mov %%esp, %%edx; mov %1, %%ss; mov $0x10000, %%esp; pop %%eax\n\t"
			 "mov %%esp, %0; mov $0x10, %%ecx; mov %%ecx, %%ss; mov %%edx, %%esp"
			 : "=&S"(sp)
			 : "r"(S0)
			 : "eax", "ecx", "edx", "memory");
	CHECK_EQ(sp, 0x10004);
}

struct seg_tss {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
	u32 eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, io_map;
};
struct seg_tss seg_task;
static u8 seg_task_stack[4096] ALIGNED(16);
extern u8 seg_task_entry[], seg_task_df[];
u32 seg_task_saw[4];
__asm__(".text\n"
	"seg_task_entry:\n\t"
	"incl seg_task_saw; str %eax; movl %eax, seg_task_saw + 4\n\t"
	"mov %cr0, %eax; movl %eax, seg_task_saw + 8; clts; iret\n\t"
	"jmp seg_task_entry\n"
	"seg_task_df:\n\t" /* by the task gate: an error code, then back into the interrupted task
			    */
	"pop %eax; movl %eax, seg_task_saw + 12; incl seg_task_saw\n\t"
	"mov trap_tss_of_main, %ecx; movl $seg_df_back, 32(%ecx); iret\n\t"
	"jmp seg_task_df\n");
u32 trap_tss_of_main;

static void
seg_task_prepare(const u8 *entry)
{
	seg_task = (struct seg_tss){.eip = (u32)entry,
				    .eflags = 2,
				    .esp = (u32)seg_task_stack + sizeof(seg_task_stack),
				    .es = SEL_KERNEL_DATA,
				    .cs = SEL_KERNEL_CODE,
				    .ss = SEL_KERNEL_DATA,
				    .ds = SEL_KERNEL_DATA,
				    .io_map = sizeof(struct seg_tss)};
	memset(seg_task_saw, 0, sizeof(seg_task_saw));
	seg_set(S3, seg_make((u32)&seg_task, sizeof(seg_task) - 1, 0x89, 0));
}

static void
seg_tasks(void)
{
	struct trap t;

	seg_task_prepare(seg_task_entry);
	__asm__ volatile("lcall $0x58, $0"
			 :
			 :
			 : "memory", "cc", "eax", "ecx", "edx", "ebx", "esi", "edi");
	CHECK_EQ(seg_task_saw[0], 1);
	CHECK_EQ(seg_task_saw[1], S3);
	CHECK(seg_task_saw[2] & CR0_TS);
	CHECK_EQ(seg_task.link, SEL_TSS);
	CHECK_EQ(cpu_str(), SEL_TSS);
	CHECK_EQ(trap_gdt[S3 / 8] >> 40 & 0xf, 9); /* no longer busy */
	CHECK(!(cpu_flags() & EFLAGS_NT));
	__asm__ volatile("clts");
	__asm__ volatile("lcall $0x58, $0"
			 :
			 :
			 : "memory", "cc", "eax", "ecx", "edx", "ebx", "esi", "edi");
	CHECK_EQ(seg_task_saw[0], 2); /* it went on behind its IRET */
	__asm__ volatile("clts");
	trap_gdt[S3 / 8] &= ~(1ull << 47);
	t = TRY(__asm__ volatile("lcall $0x58, $0"));
	CHECK_TRAP(t, VEC_NP, S3);
	t = TRY(__asm__ volatile("lcall $0x80, $0")); /* its own: busy */
	CHECK_TRAP(t, VEC_GP, SEL_TSS);
	/* TCG forgets a #GP that KVM has seen first. */
	if (guest_on_kvm() && guest_on_tcg())
		return;
	/* #DF by a task gate: the exception's gate is absent, twice. */
	seg_task_prepare(seg_task_df);
	trap_tss_of_main = (u32)trap_tss();
	trap_set_gate(VEC_DF, 0, S3, 0x85, 0);
	trap_set_gate(VEC_GP, trap_entries[VEC_GP], SEL_KERNEL_CODE, 0x0e, 0);
	__asm__ volatile("mov $0xfff8, %%eax; mov %%eax, %%fs\n\tud2\nseg_df_back:"
			 :
			 :
			 : "memory", "cc", "eax", "ecx", "edx", "ebx", "esi", "edi");
	trap_set_gate(VEC_GP, trap_entries[VEC_GP], SEL_KERNEL_CODE, 0x8e, 0);
	trap_set_gate(VEC_DF, trap_entries[VEC_DF], SEL_KERNEL_CODE, 0x8e, 0);
	__asm__ volatile("clts");
	CHECK_EQ(seg_task_saw[0], 1);
	CHECK_EQ(seg_task_saw[3], 0);
	CHECK_EQ(cpu_str(), SEL_TSS);
}

void
guest_main(void)
{
	seg_base();
	seg_limits();
	seg_transfers();
	seg_queries();
	seg_local();
	seg_sixteen();
	seg_tasks();
}
