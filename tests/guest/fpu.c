/*
 * x87, SSE and AVX state: FXSAVE, XSAVE with its variants and header, XCR0 and
 * its rules, CR0.TS and EM, lazy switching by #NM, deferred #MF, formats.
 */
#include "lib/paging.h"
#include "lib/trap.h"

static u8 fpu_area[4096] ALIGNED(64), fpu_other[4096] ALIGNED(64);

static u64
fpu_word(const u8 *area, unsigned offset)
{
	u64 value;

	memcpy(&value, area + offset, 8);
	return value;
}

static void
fpu_set_xmm0(u64 value)
{
	__asm__ volatile("movq %0, %%xmm0" : : "r"(value));
}

static u64
fpu_get_xmm0(void)
{
	u64 value;

	__asm__ volatile("movq %%xmm0, %0" : "=r"(value));
	return value;
}

static void
fpu_fxsave(void)
{
	static const u32 control = 0x1f80;
	struct trap t;

	__asm__ volatile("fninit; fld1; fldpi; ldmxcsr %0" : : "m"(control));
	fpu_set_xmm0(0x1234);
	__asm__ volatile("fxsaveq %0" : "=m"(fpu_area) : : "memory");
	CHECK_EQ(fpu_word(fpu_area, 0) & 0xffff, 0x37f);
	CHECK_EQ(fpu_word(fpu_area, 0) >> 16 & 0x3800, 6 << 11); /* TOP */
	CHECK_EQ(fpu_area[4], 0xc0);				 /* abridged tags */
	CHECK_EQ(fpu_word(fpu_area, 24) & 0xffffffff, 0x1f80);
	CHECK_EQ(fpu_word(fpu_area, 32), 0xc90fdaa22168c235);
	CHECK_EQ(fpu_word(fpu_area, 48), 0x8000000000000000);
	CHECK_EQ(fpu_word(fpu_area, 160), 0x1234);
	__asm__ volatile("fninit");
	fpu_set_xmm0(1);
	__asm__ volatile("fxrstorq %0" : : "m"(fpu_area) : "memory");
	CHECK_EQ(fpu_get_xmm0(), 0x1234);
	__asm__ volatile("fxsaveq %0" : "=m"(fpu_other) : : "memory");
	CHECK_EQ(memcmp(fpu_area, fpu_other, 416), 0);
	if (guest_on_tcg()) /* it checks neither */
		return;
	t = TRY(__asm__ volatile("fxsave 8(%0)" : : "r"(fpu_area) : "memory"));
	CHECK_TRAP(t, VEC_GP, 0);
	fpu_area[26] = 0xff; /* reserved MXCSR bits */
	t = TRY(__asm__ volatile("fxrstor %0" : : "m"(fpu_area) : "memory"));
	CHECK_TRAP(t, VEC_GP, 0);
}

static u64
fpu_xgetbv(u32 index)
{
	u32 low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(index));
	return (u64)high << 32 | low;
}

static void
fpu_xsetbv(u32 index, u64 value)
{
	__asm__ volatile("xsetbv"
			 :
			 : "c"(index), "a"((u32)value), "d"((u32)(value >> 32))
			 : "memory");
}

static USER_CODE uptr
fpu_user_xsetbv(uptr arg)
{
	__asm__ volatile("xsetbv" : : "c"(0), "a"((u32)arg), "d"(0) : "memory");
	return arg;
}

static void
fpu_xcr0(u64 offered)
{
	struct trap t;

	CHECK(!(cpu_cpuid(1, 0).c & 1u << 27));
	t = TRY((void)fpu_xgetbv(0));
	CHECK_TRAP(t, VEC_UD, 0);
	t = TRY(__asm__ volatile("xsave %0" : "=m"(fpu_area) : "a"(3), "d"(0)));
	CHECK_TRAP(t, VEC_UD, 0);
	cpu_write_cr4(cpu_read_cr4() | CR4_OSXSAVE);
	CHECK(cpu_cpuid(1, 0).c & 1u << 27);
	CHECK_EQ(fpu_xgetbv(0), 1);
	CHECK_EQ(cpu_cpuid(0xd, 0).b, 576);
	t = TRY(fpu_xsetbv(0, 0)); /* x87 cannot be off */
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(fpu_xsetbv(0, 5)); /* AVX needs SSE */
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(fpu_xsetbv(0, 1ull << 62 | 3));
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(fpu_xsetbv(1, 1));
	CHECK_TRAP(t, VEC_GP, 0);
	t = user_run(fpu_user_xsetbv, 3);
	CHECK_TRAP(t, VEC_GP, 0);
	fpu_xsetbv(0, 3);
	CHECK_EQ(fpu_xgetbv(0), 3);
	if (offered & 4) {
		t = TRY(__asm__ volatile("vxorps %ymm0, %ymm0, %ymm0"));
		CHECK_TRAP(t, VEC_UD, 0);
		fpu_xsetbv(0, 7);
		CHECK_EQ(fpu_xgetbv(0), 7);
		CHECK(cpu_cpuid(0xd, 0).b >= 832);
		t = TRY(__asm__ volatile("vxorps %ymm0, %ymm0, %ymm0"));
		CHECK_NO_TRAP(t);
	} else {
		check_skip("AVX");
	}
}

#define XSAVE(kind, area, mask)                                                                    \
	__asm__ volatile(kind " %0" : "+m"(area) : "a"((u32)(mask)), "d"(0) : "memory")

static void
fpu_xsave(u64 enabled)
{
	struct trap t;

	memset(fpu_area, 0, sizeof(fpu_area));
	__asm__ volatile("fninit");
	fpu_set_xmm0(0xabcd);
	XSAVE("xsave", fpu_area, enabled);
	CHECK_EQ(fpu_word(fpu_area, 160), 0xabcd);
	CHECK_EQ(fpu_word(fpu_area, 512) & 2, 2); /* SSE is not in its first state */
	CHECK_EQ(fpu_word(fpu_area, 520), 0);
	fpu_set_xmm0(0);
	XSAVE("xrstor", fpu_area, 2);
	CHECK_EQ(fpu_get_xmm0(), 0xabcd);
	/* A clear bit in XSTATE_BV: the first state. */
	fpu_area[512] = 1;
	XSAVE("xrstor", fpu_area, 2);
	CHECK_EQ(fpu_get_xmm0(), 0);
	/* Only what the mask names is saved. */
	fpu_set_xmm0(0x77);
	memset(fpu_area, 0xee, 512);
	memset(fpu_area + 512, 0, 64);
	XSAVE("xsave", fpu_area, 1);
	CHECK_EQ(fpu_word(fpu_area, 160), 0xeeeeeeeeeeeeeeee);
	/* Only what the mask names is loaded. */
	fpu_area[512] = 3;
	XSAVE("xrstor", fpu_area, 1);
	CHECK_EQ(fpu_get_xmm0(), 0x77);
	fpu_area[512 + 8] = 1; /* XCOMP_BV without bit 63 */
	t = TRY(XSAVE("xrstor", fpu_area, 3));
	CHECK_TRAP(t, VEC_GP, 0);
	fpu_area[512 + 8] = 0;
	fpu_area[512 + 7] = 0x40; /* a component that is not enabled */
	t = TRY(XSAVE("xrstor", fpu_area, 3));
	CHECK_TRAP(t, VEC_GP, 0);
	fpu_area[512 + 7] = 0;
	t = TRY(__asm__ volatile("xsave 16(%0)" : : "r"(fpu_area), "a"(3), "d"(0) : "memory"));
	CHECK_TRAP(t, VEC_GP, 0);
}

static void
fpu_xsaveopt(u32 features)
{
	if (features & 1) {
		memset(fpu_area, 0, sizeof(fpu_area));
		fpu_set_xmm0(0x99);
		XSAVE("xsaveopt", fpu_area, 3);
		CHECK_EQ(fpu_word(fpu_area, 160), 0x99);
		fpu_set_xmm0(0x100);
		XSAVE("xsaveopt", fpu_area, 3);
		CHECK_EQ(fpu_word(fpu_area, 160), 0x100);
		/* Another area after the same one was restored: nothing may be left out. */
		XSAVE("xrstor", fpu_area, 3);
		memset(fpu_other, 0, sizeof(fpu_other));
		XSAVE("xsaveopt", fpu_other, 3);
		CHECK_EQ(fpu_word(fpu_other, 160), 0x100);
	} else {
		check_skip("XSAVEOPT");
	}
	if (features & 2) {
		memset(fpu_area, 0xee, sizeof(fpu_area));
		memset(fpu_area + 512, 0, 64);
		fpu_set_xmm0(0x42);
		XSAVE("xsavec", fpu_area, 3);
		CHECK_EQ(fpu_word(fpu_area, 520), 1ull << 63 | 3);
		CHECK_EQ(fpu_word(fpu_area, 160), 0x42);
		fpu_set_xmm0(0);
		XSAVE("xrstor", fpu_area, 3);
		CHECK_EQ(fpu_get_xmm0(), 0x42);
	} else {
		check_skip("XSAVEC");
	}
}

static void
fpu_ymm(void)
{
	static const u64 words[4] = {1, 2, 3, 4};
	unsigned offset = cpu_cpuid(0xd, 2).b;
	u64 back[4];

	CHECK_EQ(cpu_cpuid(0xd, 2).a, 256);
	memset(fpu_area, 0, sizeof(fpu_area));
	__asm__ volatile("vmovups %0, %%ymm5" : : "m"(words));
	XSAVE("xsave", fpu_area, 7);
	CHECK_EQ(fpu_word(fpu_area, 160 + 5 * 16), 1);
	CHECK_EQ(fpu_word(fpu_area, offset + 5 * 16 + 8), 4);
	__asm__ volatile("vzeroall");
	XSAVE("xrstor", fpu_area, 7);
	__asm__ volatile("vmovups %%ymm5, %0" : "=m"(back));
	CHECK_EQ(memcmp(back, words, 32), 0);
	__asm__ volatile("vmovaps %xmm5, %xmm5"); /* a VEX write clears the upper half */
	__asm__ volatile("vmovups %%ymm5, %0" : "=m"(back));
	CHECK_EQ(back[2] | back[3], 0);
	/* The legacy write keeps it. */
	__asm__ volatile("vmovups %0, %%ymm5; movups %1, %%xmm5; vmovups %%ymm5, %2"
			 :
			 : "m"(words), "m"(words[2]), "m"(back)
			 : "memory");
	CHECK_EQ(back[0], 3);
	CHECK_EQ(back[2], 3);
}

static unsigned fpu_switches;
static void
fpu_lazy(struct trap_frame *f)
{
	(void)f;
	fpu_switches++;
	__asm__ volatile("clts");
}

static void
fpu_task_switched(void)
{
	static const u32 three = 3;
	u32 value;

	trap_set_handler(VEC_NM, fpu_lazy);
	for (int i = 0; i < 10; i++) {
		cpu_write_cr0(cpu_read_cr0() | CR0_TS);
		__asm__ volatile("fninit; fildl %1; fistpl %0" : "=m"(value) : "m"(three));
		CHECK_EQ(value, 3);
		CHECK(!(cpu_read_cr0() & CR0_TS));
		cpu_write_cr0(cpu_read_cr0() | CR0_TS);
		fpu_set_xmm0(5);
		CHECK_EQ(fpu_get_xmm0(), 5);
	}
	CHECK_EQ(fpu_switches, 20);
	trap_set_handler(VEC_NM, NULL);
}

/* An unmasked x87 exception waits for the next x87 instruction. */
static void
fpu_deferred(void)
{
	static const u16 control = 0x37b; /* divide by zero unmasked */
	u16 status = 0;
	struct trap t;

	__asm__ volatile("fninit; fldcw %0; fldz; fld1" : : "m"(control));
	t = TRY(__asm__ volatile("fdiv %%st(1), %%st\n\tnop\n\t" MARK "fld1" : : : "memory"));
	if (!guest_on_tcg()) { /* it looks at FWAIT only */
		CHECK_TRAP(t, VEC_MF, 0);
		CHECK_EQ(t.ip, trap_mark);
	}
	__asm__ volatile("fnstsw %0" : "=m"(status)); /* no-wait forms do not trap */
	CHECK(status & 4);
	CHECK(status & 0x80);
	__asm__ volatile("fnclex");
	t = TRY(__asm__ volatile("fwait"));
	CHECK_NO_TRAP(t);
	__asm__ volatile("fninit");
}

static void
fpu_precision(void)
{
	static const double third = 1.0, three = 3.0;
	u8 wide[10];
	u64 mantissa;

	/* 80-bit results: 1/3 is 0xaaaaaaaaaaaaaaab * 2^-65. */
	__asm__ volatile("fninit; fldl %1; fdivl %2; fstpt %0"
			 : "=m"(wide)
			 : "m"(third), "m"(three));
	memcpy(&mantissa, wide, 8);
	CHECK_EQ(mantissa, 0xaaaaaaaaaaaaaaab);
}

void
guest_main(void)
{
	u64 offered;

	fpu_fxsave();
	fpu_precision();
	fpu_deferred();
	fpu_task_switched();
	if (!(cpu_cpuid(1, 0).c & 1u << 26)) {
		check_skip("XSAVE");
		return;
	}
	offered = cpu_cpuid(0xd, 0).a;
	fpu_xcr0(offered);
	fpu_xsave(offered & 7);
	fpu_xsaveopt(cpu_cpuid(0xd, 1).a);
	if (offered & 4)
		fpu_ymm();
}
