/*
 * Every exception that can be made in 64-bit mode, with its error code, and
 * where it leaves RIP; double faults; #UD of what 64-bit mode lost.
 */
#include "lib/paging.h"
#include "lib/trap.h"

static USER_CODE uptr
except_user_unaligned(uptr at)
{
	return *(volatile u32 *)(at + 1);
}

static USER_CODE uptr
except_user_unaligned_write(uptr at)
{
	*(volatile u16 *)(at + 7) = 1;
	return 0;
}

static USER_DATA u64 except_user_words[4];

#define UD(bytes)                                                                                  \
	do {                                                                                       \
		struct trap ud_ = TRY(__asm__ volatile(MARK ".byte " bytes "\n\t.fill 8, 1, 0x90"  \
						       :                                           \
						       :                                           \
						       : "rax", "memory"));                        \
		CHECK_TRAP(ud_, VEC_UD, 0);                                                        \
		CHECK_EQ(ud_.ip, trap_mark);                                                       \
	} while (0)

static void
except_undefined(void)
{
	UD("0x0f, 0x0b");	/* UD2 */
	UD("0x0f, 0xb9, 0xc0"); /* UD1 */
	UD("0x06");		/* PUSH ES */
	UD("0x07");
	UD("0x0e");
	UD("0x16");
	UD("0x1e");
	UD("0x1f");
	UD("0x27"); /* DAA */
	UD("0x2f");
	UD("0x37");
	UD("0x3f");
	UD("0x60"); /* PUSHA */
	UD("0x61");
	UD("0x82, 0xc0, 0x01");
	UD("0x9a, 0, 0, 0, 0, 8, 0"); /* far CALL */
	UD("0xce");		      /* INTO */
	UD("0xd4, 0x0a");	      /* AAM */
	UD("0xd5, 0x0a");
	UD("0xd6");
	UD("0xea, 0, 0, 0, 0, 8, 0");
	UD("0xf0, 0x90");		      /* LOCK NOP */
	UD("0xf0, 0x01, 0xc0");		      /* LOCK ADD to a register */
	if (!guest_on_tcg())		      /* it takes LOCK with loads */
		UD("0xf0, 0x8b, 0x04, 0x24"); /* LOCK MOV */
	UD("0x8c, 0xf0");		      /* MOV from segment 6 */
	UD("0x8e, 0xc8");		      /* MOV to CS */
	UD("0x0f, 0x20, 0xc8");		      /* MOV from CR1 */
	UD("0x0f, 0x20, 0xe8");		      /* CR5 */
	UD("0x0f, 0x22, 0xf8");		      /* CR7 */
	UD("0x8d, 0xc0");		      /* LEA of a register */
	UD("0xfe, 0xd0");		      /* group 4, /2 */
	UD("0xff, 0xf8");		      /* group 5, /7 */
	UD("0x0f, 0xc7, 0xc8");		      /* CMPXCHG8B of a register */
}

static void
except_simple(void)
{
	struct trap t;

	t = TRY(__asm__ volatile(MARK "divq %0" : : "r"(0ul), "a"(1ul), "d"(0ul)));
	CHECK_TRAP(t, VEC_DE, 0);
	CHECK_EQ(t.ip, trap_mark);
	t = TRY(__asm__ volatile(MARK "divb %b0" : : "q"(1), "a"(0x100)));
	CHECK_TRAP(t, VEC_DE, 0);
	if (!guest_on_tcg()) { /* it raises #UD */
		t = TRY(__asm__ volatile(MARK "int1"));
		CHECK_TRAP(t, VEC_DB, 0);
		CHECK_EQ(t.ip, trap_mark + 1);
	}
	t = TRY(__asm__ volatile(MARK "int3"));
	CHECK_TRAP(t, VEC_BP, 0);
	CHECK_EQ(t.ip, trap_mark + 1);
	t = TRY(__asm__ volatile(MARK ".byte 0xcd, 3"));
	CHECK_TRAP(t, VEC_BP, 0);
	CHECK_EQ(t.ip, trap_mark + 2);
	t = TRY(__asm__ volatile(MARK "int $4"));
	CHECK_TRAP(t, VEC_OF, 0);
	t = TRY(__asm__ volatile(MARK "int $0x55"));
	CHECK_TRAP(t, 0x55, 0);
	CHECK_EQ(t.ip, trap_mark + 2);
}

static void
except_fpu(void)
{
	uptr cr0 = cpu_read_cr0();
	struct trap t;
	static const u16 control = 0x37e; /* invalid operation unmasked */

	cpu_write_cr0(cr0 | CR0_TS);
	t = TRY(__asm__ volatile(MARK "fld1"));
	CHECK_TRAP(t, VEC_NM, 0);
	CHECK_EQ(t.ip, trap_mark);
	t = TRY(__asm__ volatile("movaps %xmm0, %xmm1"));
	CHECK_TRAP(t, VEC_NM, 0);
	t = TRY(__asm__ volatile("fwait")); /* TS and MP */
	CHECK_TRAP(t, VEC_NM, 0);
	cpu_write_cr0((cr0 | CR0_TS) & ~CR0_MP);
	t = TRY(__asm__ volatile("fwait"));
	CHECK_NO_TRAP(t);
	cpu_write_cr0(cr0);
	cpu_write_cr0(cr0 | CR0_EM);
	t = TRY(__asm__ volatile("fld1"));
	CHECK_TRAP(t, VEC_NM, 0);
	t = TRY(__asm__ volatile("movaps %xmm0, %xmm1"));
	CHECK_TRAP(t, VEC_UD, 0);
	cpu_write_cr0(cr0);
	__asm__ volatile("fninit; fldcw %0; fldz; fldz; fdivp" : : "m"(control));
	t = TRY(__asm__ volatile(MARK "fwait"));
	CHECK_TRAP(t, VEC_MF, 0);
	CHECK_EQ(t.ip, trap_mark);
	__asm__ volatile("fninit");
}

static void
except_sse(void)
{
	static const u32 unmasked = 0x1f80 & ~0x0200u; /* divide by zero */
	static const u32 masked = 0x1f80;
	static const u32 one = 0x3f800000;
	uptr cr4 = cpu_read_cr4();
	struct trap t;

	__asm__ volatile("ldmxcsr %0; movss %1, %%xmm0; xorps %%xmm1, %%xmm1"
			 :
			 : "m"(unmasked), "m"(one));
	t = TRY(__asm__ volatile(MARK "divss %xmm1, %xmm0"));
	/* TCG has no unmasked SSE exceptions. */
	if (!guest_on_tcg()) {
		CHECK_TRAP(t, VEC_XM, 0);
		CHECK_EQ(t.ip, trap_mark);
		cpu_write_cr4(cr4 & ~CR4_OSXMMEXCPT);
		t = TRY(__asm__ volatile("divss %xmm1, %xmm0"));
		CHECK_TRAP(t, VEC_UD, 0);
	}
	cpu_write_cr4(cr4);
	__asm__ volatile("ldmxcsr %0" : : "m"(masked));
	t = TRY(__asm__ volatile("ldmxcsr %0" : : "m"(*(const u32 *)&(const u32){0x10000})));
	if (!guest_on_tcg()) /* it ignores reserved MXCSR bits */
		CHECK_TRAP(t, VEC_GP, 0);
	__asm__ volatile("ldmxcsr %0" : : "m"(masked));
	t = TRY(__asm__ volatile("movaps (%0), %%xmm0" : : "r"((uptr)except_user_words + 8)));
	if (!guest_on_tcg()) /* it does not check alignment */
		CHECK_TRAP(t, VEC_GP, 0);
	cpu_write_cr4(cr4 & ~CR4_OSFXSR);
	t = TRY(__asm__ volatile("addps %xmm0, %xmm0"));
	CHECK_TRAP(t, VEC_UD, 0);
	cpu_write_cr4(cr4);
}

static void
except_selectors(void)
{
	/* TCG multiplies the vector by 16 where long mode's IDT is meant (Intel SDM 3, 6.13). */
	u32 scale = guest_on_tcg() ? 16 : 8;
	struct trap t;

	trap_gdt[SEL_FREE / 8] = 0x00cf13000000ffff; /* data, not present */
	t = TRY(__asm__ volatile("mov %0, %%es" : : "r"(SEL_FREE)));
	CHECK_TRAP(t, VEC_NP, SEL_FREE);
	t = TRY(__asm__ volatile("mov %0, %%ss" : : "r"(SEL_FREE)));
	CHECK_TRAP(t, VEC_SS, SEL_FREE);
	t = TRY(__asm__ volatile("mov %0, %%fs" : : "r"(0xfff8)));
	CHECK_TRAP(t, VEC_GP, 0xfff8);
	t = TRY(__asm__ volatile("mov %0, %%ss" : : "r"(0))); /* allowed in 64-bit mode, CPL 0 */
	CHECK_NO_TRAP(t);
	__asm__ volatile("mov %0, %%ss" : : "r"(SEL_KERNEL_DATA));
	t = TRY(__asm__ volatile("push $0x10; push $0; pushf; push $0x43; push $0; iretq"));
	CHECK_TRAP(t, VEC_GP, SEL_FREE);
	trap_set_gate(0x60, trap_entries[0x60], SEL_KERNEL_CODE, 0x0e, 0);
	t = TRY(__asm__ volatile("int $0x60"));
	CHECK_TRAP(t, VEC_NP, 0x60 * scale + 2);
	trap_set_gate(0x60, trap_entries[0x60], SEL_USER_CODE, 0x8e, 0);
	t = TRY(__asm__ volatile("int $0x60"));
	CHECK_TRAP(t, VEC_GP, SEL_USER_CODE & ~3u);
	trap_set_gate(0x60, trap_entries[0x60], SEL_KERNEL_CODE32, 0x8e, 0);
	t = TRY(__asm__ volatile("int $0x60"));
	CHECK_TRAP(t, VEC_GP, SEL_KERNEL_CODE32);
	trap_set_gate(0x60, trap_entries[0x60], SEL_KERNEL_CODE, 0x85, 0); /* task gate */
	t = TRY(__asm__ volatile("int $0x60"));
	CHECK_TRAP(t, VEC_GP, 0x60 * scale + 2);
}

static void
except_general(void)
{
	uptr cr0 = cpu_read_cr0(), cr4 = cpu_read_cr4();
	struct trap t;

	if (!guest_on_tcg()) { /* it takes these as they come */
		t = TRY(__asm__ volatile("mov %0, %%cr0" : : "r"(cr0 & ~CR0_PE)));
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(__asm__ volatile("mov %0, %%cr0" : : "r"(cr0 | 1ul << 40)));
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(cpu_write_cr0((cr0 & ~CR0_CD) | CR0_NW));
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(cpu_write_cr4(cr4 | 1ul << 31));
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(cpu_write_cr4(cr4 & ~CR4_PAE));
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(cpu_write_cr8(16));
		CHECK_TRAP(t, VEC_GP, 0);
		t = TRY(cpu_write_msr(MSR_EFER, cpu_read_msr(MSR_EFER) & ~(u64)EFER_LME));
		CHECK_TRAP(t, VEC_GP, 0);
	}
	t = TRY(__asm__ volatile("pushf; orl $0x4000, (%rsp); popf; iretq")); /* NT */
	CHECK_TRAP(t, VEC_GP, 0);
	cpu_set_flags(cpu_flags() & ~(uptr)EFLAGS_NT);
	cpu_write_cr0(cr0);
	/* Longer than 15 bytes. */
	t = TRY(__asm__ volatile(MARK ".fill 15, 1, 0x66\n\tnop"));
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK_EQ(t.ip, trap_mark);
}

static void
except_alignment(void)
{
	uptr cr0 = cpu_read_cr0();
	struct trap t;

	cpu_write_cr0(cr0 | CR0_AM);
	t = user_run_flags(except_user_unaligned, (uptr)except_user_words, EFLAGS_AC);
	if (!guest_on_tcg()) { /* it has no alignment check */
		CHECK_TRAP(t, VEC_AC, 0);
		t = user_run_flags(except_user_unaligned_write, (uptr)except_user_words, EFLAGS_AC);
		CHECK_TRAP(t, VEC_AC, 0);
	}
	t = user_run(except_user_unaligned, (uptr)except_user_words);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	cpu_write_cr0(cr0);
	t = user_run_flags(except_user_unaligned, (uptr)except_user_words, EFLAGS_AC);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
}

static void
except_double(void)
{
	struct trap t;

	/* TCG forgets a #GP that KVM has seen first. */
	if (guest_on_kvm() && guest_on_tcg())
		return;
	/* #GP while #GP is delivered: contributory after contributory. */
	trap_set_gate(VEC_GP, trap_entries[VEC_GP], SEL_KERNEL_CODE, 0x0e, 0);
	t = TRY(__asm__ volatile("mov %0, %%es" : : "r"(0xfff8)));
	CHECK_TRAP(t, VEC_DF, 0);
	trap_set_gate(VEC_GP, trap_entries[VEC_GP], SEL_KERNEL_CODE, 0x8e, 0);
	/* #PF, its gate absent: #NP after #PF. */
	trap_set_gate(VEC_PF, trap_entries[VEC_PF], SEL_KERNEL_CODE, 0x0e, 0);
	t = TRY(*(volatile int *)PAGING_TEST);
	CHECK_TRAP(t, VEC_DF, 0);
	trap_set_gate(VEC_PF, trap_entries[VEC_PF], SEL_KERNEL_CODE, 0x8e, 0);
	/* #DE, its gate absent: contributory as well. */
	trap_set_gate(VEC_DE, trap_entries[VEC_DE], SEL_KERNEL_CODE, 0x0e, 0);
	t = TRY(__asm__ volatile("divl %0" : : "r"(0), "a"(0), "d"(0)));
	CHECK_TRAP(t, VEC_DF, 0);
	trap_set_gate(VEC_DE, trap_entries[VEC_DE], SEL_KERNEL_CODE, 0x8e, 0);
	/* #UD, its gate absent: benign first, so the second one is served. */
	trap_set_gate(VEC_UD, trap_entries[VEC_UD], SEL_KERNEL_CODE, 0x0e, 0);
	t = TRY(__asm__ volatile("ud2"));
	t.error &= ~1u; /* EXT: set on Intel, not said by AMD */
	CHECK_TRAP(t, VEC_NP, VEC_UD * (guest_on_tcg() ? 16u : 8u) + 2);
	trap_set_gate(VEC_UD, trap_entries[VEC_UD], SEL_KERNEL_CODE, 0x8e, 0);
	/* A stack that is not there: #PF pushing for #UD is served if #PF has a stack, here IST 2.
	 */
	trap_set_ist(VEC_PF, 2);
	t = TRY(__asm__ volatile("mov %0, %%rsp; ud2" : : "r"(PAGING_TEST + 64)));
	CHECK_TRAP(t, VEC_PF, PF_W);
	trap_set_ist(VEC_PF, 0);
	t = TRY(__asm__ volatile("mov %0, %%rsp; ud2" : : "r"(PAGING_TEST + 64)));
	CHECK_TRAP(t, VEC_DF, 0);
	CHECK_EQ(t.sp, PAGING_TEST + 64);
}

void
guest_main(void)
{
	except_undefined();
	except_simple();
	except_fpu();
	except_sse();
	except_selectors();
	except_general();
	except_alignment();
	except_double();
}
