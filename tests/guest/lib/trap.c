/*
 * Descriptor tables and traps (see trap.h). A CPU finds its own data by its TSS
 * selector, which needs no memory and works at every privilege level but 3.
 */
#include "lib/trap.h"

#ifdef __x86_64__
struct trap_tss_format {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3, io_map;
} PACKED;
struct trap_gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_middle;
	u32 offset_high, reserved;
};
#else
struct trap_tss_format {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
	u32 eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, io_map;
};
struct trap_gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_high;
};
#endif

enum { TRAP_STACK = 8192, VECTORS = 256 };

uptr volatile trap_mark;
u64 trap_gdt[GDT_SIZE / 8] ALIGNED(16) = {
#ifdef __x86_64__
	[SEL_KERNEL_CODE / 8] = 0x00af9b000000ffff,   [SEL_KERNEL_DATA / 8] = 0x00cf93000000ffff,
	[SEL_USER_CODE32 / 8] = 0x00cffb000000ffff,   [SEL_USER_DATA / 8] = 0x00cff3000000ffff,
	[SEL_USER_CODE / 8] = 0x00affb000000ffff,     [SEL_USER_DATA64 / 8] = 0x00cff3000000ffff,
	[SEL_KERNEL_CODE32 / 8] = 0x00cf9b000000ffff,
#else
	[SEL_KERNEL_CODE / 8] = 0x00cf9b000000ffff,   [SEL_KERNEL_DATA / 8] = 0x00cf93000000ffff,
	[SEL_USER_CODE / 8] = 0x00cffb000000ffff,     [SEL_USER_DATA / 8] = 0x00cff3000000ffff,
	[SEL_KERNEL_CODE16 / 8] = 0x00009b000000ffff, [SEL_KERNEL_DATA16 / 8] = 0x000093000000ffff,
#endif
};
static struct trap_gate trap_idt[VECTORS] ALIGNED(16);
static struct trap_tss_format trap_tsses[CPUS_MAX] ALIGNED(128);
static u8 trap_stacks[CPUS_MAX][3][TRAP_STACK] ALIGNED(16);
static struct trap_catch *trap_catches[CPUS_MAX];
static trap_handler_fn *trap_handlers[VECTORS];

u8 user_stack[4096 * 2] ALIGNED(4096) __attribute__((section(".user_data")));

unsigned
trap_cpu(void)
{
	return (unsigned)(cpu_str() - SEL_TSS) / 16;
}

void *
trap_tss(void)
{
	return &trap_tsses[trap_cpu()];
}

void
trap_set_gate(u8 vector, uptr entry, u16 selector, u8 type_dpl, u8 ist)
{
	trap_idt[vector] = (struct trap_gate){
		.offset_low = (u16)entry,
		.selector = selector,
		.ist = ist,
		.type = type_dpl,
#ifdef __x86_64__
		.offset_middle = (u16)(entry >> 16),
		.offset_high = (u32)(entry >> 32),
#else
		.offset_high = (u16)(entry >> 16),
#endif
	};
}

#ifdef __x86_64__
void
trap_set_ist(u8 vector, u8 ist)
{
	trap_idt[vector].ist = ist;
}
#endif

static void
trap_init_idt(void)
{
	for (unsigned i = 0; i < VECTORS; i++) {
		bool user = i == VEC_BP || i == VEC_OF || i == VEC_USER_RETURN;

		trap_set_gate((u8)i, trap_entries[i], SEL_KERNEL_CODE, user ? 0xee : 0x8e, 0);
	}
#ifdef __x86_64__
	trap_set_ist(VEC_DF, 1);
#endif
}

static void
trap_init_tss(unsigned index)
{
	struct trap_tss_format *tss = &trap_tsses[index];
	uptr base = (uptr)tss;

#ifdef __x86_64__
	tss->rsp[0] = (uptr)trap_stacks[index][1];
	tss->ist[0] = (uptr)trap_stacks[index][2];
	tss->ist[1] = (uptr)trap_stacks[index][2] + TRAP_STACK;
#else
	tss->esp0 = (uptr)trap_stacks[index][1];
	tss->ss0 = SEL_KERNEL_DATA;
#endif
	tss->io_map = sizeof(*tss);
	trap_gdt[SEL_TSS / 8 + 2 * index] = (u64)(base & 0xffffff) << 16 |
					    (u64)(base >> 24 & 0xff) << 56 | 0x890000000000 |
					    (sizeof(*tss) - 1);
	trap_gdt[SEL_TSS / 8 + 2 * index + 1] = (u64)base >> 32;
}

void
trap_init_cpu(unsigned index)
{
	struct table_pointer gdt = {sizeof(trap_gdt) - 1, (uptr)trap_gdt};
	struct table_pointer idt = {sizeof(trap_idt) - 1, (uptr)trap_idt};

	if (index == 0)
		trap_init_idt();
	trap_init_tss(index);
	cpu_lgdt(&gdt);
	cpu_lidt(&idt);
	__asm__ volatile("ltr %0" : : "r"((u16)(SEL_TSS + 16 * index)));
}

void
trap_set_handler(u8 vector, trap_handler_fn *fn)
{
	trap_handlers[vector] = fn;
	BARRIER();
}

/* The second half of trap_arm. */
int trap_arm_catch(struct trap_catch *c);
__attribute__((noreturn)) void trap_resume(struct trap_catch *c);
void trap_handle(struct trap_frame *frame);

int
trap_arm_catch(struct trap_catch *c)
{
	c->trap = (struct trap){.vector = TRAP_NONE};
	trap_catches[trap_cpu()] = c;
	return 0;
}

void
trap_disarm(void)
{
	trap_catches[trap_cpu()] = NULL;
	BARRIER();
}

static void
trap_unexpected(const struct trap_frame *f)
{
	print("unexpected vector %u, error 0x%lx at 0x%lx:0x%lx, flags 0x%lx, cr2 0x%lx, CPU %u\n",
	      (unsigned)f->vector, (unsigned long)f->error, (unsigned long)f->cs,
	      (unsigned long)f->ip, (unsigned long)f->flags, (unsigned long)cpu_read_cr2(),
	      trap_cpu());
	guest_exit(0x7f);
}

static void
trap_note(struct trap *t, const struct trap_frame *f)
{
	t->vector = (u32)f->vector;
	t->error = (u32)f->error;
	t->ip = f->ip;
	t->cs = f->cs;
	t->flags = f->flags;
	t->cr2 = cpu_read_cr2();
	t->ax = f->ax;
#ifdef __x86_64__
	t->frame = *f;
	t->sp = f->sp;
	t->ss = f->ss;
#else
	/* The rest of a frame from another level may lie at the very end of a stack: copy by need.
	 */
	memcpy(&t->frame, f, offsetof(struct trap_frame, sp));
	if ((f->cs & 3) || (f->flags & EFLAGS_VM)) {
		t->sp = t->frame.sp = f->sp;
		t->ss = t->frame.ss = f->ss;
	}
	if (f->flags & EFLAGS_VM)
		t->frame = *f;
#endif
}

/* Called by the entries. */
void
trap_handle(struct trap_frame *frame)
{
	trap_handler_fn *fn = trap_handlers[frame->vector & 0xff];
	struct trap_catch *c = trap_catches[trap_cpu()];

	if (fn) {
		fn(frame);
		return;
	}
	if (!c)
		trap_unexpected(frame);
	trap_catches[trap_cpu()] = NULL;
	trap_note(&c->trap, frame);
	trap_resume(c);
}

void
trap_check(const struct trap *t, u32 vector, u32 error, const char *file, int line,
	   const char *what)
{
	bool good = t->vector == vector && t->error == error;

	check_true(good, file, line, what);
	if (!good)
		print("     vector %u error 0x%x, not %u 0x%x; at 0x%lx cr2 0x%lx\n", t->vector,
		      t->error, vector, error, (unsigned long)t->ip, (unsigned long)t->cr2);
}

struct trap
user_run_flags(uptr (*fn)(uptr), uptr arg, uptr flags)
{
	uptr *sp = (uptr *)(void *)(user_stack + sizeof(user_stack) - 64);

#ifdef __x86_64__
	bool smap = cpu_read_cr4() & CR4_SMAP;

	if (smap)
		__asm__ volatile("stac" : : : "memory");
	*--sp = (uptr)user_stub;
	if (smap)
		__asm__ volatile("clac" : : : "memory");
#else
	*--sp = arg;
	*--sp = (uptr)user_stub;
#endif
	return TRY(
		trap_enter_user((uptr)fn, SEL_USER_CODE, flags | 2, (uptr)sp, SEL_USER_DATA, arg));
}

struct trap
user_run(uptr (*fn)(uptr), uptr arg)
{
	return user_run_flags(fn, arg, 0);
}
