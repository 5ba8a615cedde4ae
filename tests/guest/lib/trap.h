/*
 * Descriptor tables, exceptions and interrupts.
 *
 *	struct trap t = TRY(asm volatile("ud2"));
 *	CHECK_TRAP(t, VEC_UD, 0);
 *
 * TRY runs a statement; if it raises an exception or an interrupt that has no
 * handler, control comes back behind TRY with what happened, on the stack and
 * with the flags it began with. TRYs do not nest. USER_RETURN (INT 0x80) is how
 * user code comes back, so user_run(f, arg) tells of a good end with that vector.
 */
#ifndef GUEST_TRAP_H
#define GUEST_TRAP_H

#include "lib/cpu.h"

enum { TRAP_NONE = 0xffff, CPUS_MAX = 8 };

enum trap_selector {
	SEL_KERNEL_CODE = 0x08,
	SEL_KERNEL_DATA = 0x10,
	SEL_USER_CODE32 = 0x18 | 3,
	SEL_USER_DATA = 0x20 | 3,
#ifdef __x86_64__
	SEL_USER_CODE = 0x28 | 3,
	SEL_USER_DATA64 = 0x30 | 3, /* SYSEXIT wants it here */
	SEL_KERNEL_CODE32 = 0x38,
#else
	SEL_USER_CODE = SEL_USER_CODE32,
	SEL_KERNEL_CODE16 = 0x28,
	SEL_KERNEL_DATA16 = 0x30,
#endif
	SEL_FREE = 0x40, /* to 0x7f: for a guest's own descriptors */
	SEL_TSS = 0x80,	 /* + 16 * CPU */
	GDT_SIZE = SEL_TSS + 16 * CPUS_MAX,
};

struct trap_frame {
#ifdef __x86_64__
	u64 r15, r14, r13, r12, r11, r10, r9, r8;
	u64 di, si, bp, bx, dx, cx, ax;
	u64 vector, error;
	u64 ip, cs, flags, sp, ss;
#else
	u32 gs, fs, es, ds;
	u32 di, si, bp, unused, bx, dx, cx, ax;
	u32 vector, error;
	u32 ip, cs, flags;
	u32 sp, ss;			    /* only if the privilege level changed */
	u32 v86_es, v86_ds, v86_fs, v86_gs; /* only out of virtual-8086 mode */
#endif
};

struct trap {
	u32 vector; /* TRAP_NONE: nothing happened */
	u32 error;
	uptr ip, cs, flags, sp, ss, cr2, ax;
	struct trap_frame frame;
};

/* Written by trap_arm in assembly: the first nine words are its own. */
struct trap_catch {
	uptr saved[9];
	struct trap trap;
};

int trap_arm(struct trap_catch *c) __attribute__((returns_twice));
void trap_disarm(void);

#define TRY(...)                                                                                   \
	({                                                                                         \
		static struct trap_catch catch_[CPUS_MAX];                                         \
		if (trap_arm(&catch_[trap_cpu()]) == 0) {                                          \
			__VA_ARGS__;                                                               \
			trap_disarm();                                                             \
		}                                                                                  \
		catch_[trap_cpu()].trap;                                                           \
	})

/* In a TRY's assembly, before the instruction that is to trap: notes its address. */
#ifdef __x86_64__
#define MARK "movq $771f, trap_mark\n771:\n\t"
#else
#define MARK "movl $771f, trap_mark\n771:\n\t"
#endif
extern uptr volatile trap_mark;

void trap_check(const struct trap *t, u32 vector, u32 error, const char *file, int line,
		const char *what);
/* Vector and error code (0 where there is none). */
#define CHECK_TRAP(t, vector, error) trap_check(&(t), vector, error, __FILE__, __LINE__, #t)
#define CHECK_NO_TRAP(t) CHECK_TRAP(t, TRAP_NONE, 0)

/* Interrupt handlers; they return to what was interrupted. NULL takes it away. */
typedef void trap_handler_fn(struct trap_frame *frame);
void trap_set_handler(u8 vector, trap_handler_fn *fn);

/* Loads GDT, IDT and TSS of CPU number INDEX. Done for CPU 0 before guest_main. */
void trap_init_cpu(unsigned index);
unsigned trap_cpu(void);

/* Descriptor tables, to be changed by guests. */
extern u64 trap_gdt[GDT_SIZE / 8];
void trap_set_gate(u8 vector, uptr entry, u16 selector, u8 type_dpl, u8 ist);
extern const u32 trap_entries[]; /* the address of each vector's own entry */
void *trap_tss(void);		 /* this CPU's TSS, format by mode */
#ifdef __x86_64__
void trap_set_ist(u8 vector, u8 ist); /* 1 or 2: a stack of its own; 0: none */
#endif

/* Runs FN(ARG) at CPL 3 until it returns (then vector USER_RETURN, AX its result) or traps. */
struct trap user_run(uptr (*fn)(uptr), uptr arg);
/* The same with flags (IF, IOPL, AC, TF) of the caller's choice. */
struct trap user_run_flags(uptr (*fn)(uptr), uptr arg, uptr flags);
extern u8 user_stack[4096 * 2];
void user_stub(void);
__attribute__((noreturn)) void trap_enter_user(uptr ip, uptr cs, uptr flags, uptr sp, uptr ss,
					       uptr arg);

#endif
