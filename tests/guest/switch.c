/*
 * Works until somebody types `q`, and notices whatever a change of the hypervisor
 * beneath could break: sums over all registers, registers that lie still, memory, strings,
 * code that changes, single steps, locked words across pages, answers of devices, the order
 * of time on all processors, and every interrupt once and once only (local APIC timers
 * in three modes, PIT by the 8259, HPET level-triggered by the IOAPIC, RTC, IPIs, NMIs).
 * Driven by tests/boot/switch.py; in no list.
 */
#include "lib/apic.h"
#include "lib/paging.h"
#include "lib/smp.h"

#define HPET 0xfed00000ul
#define HPET_COUNTER (*(volatile u64 *)(HPET + 0xf0))
#define HPET_SPARE (*(volatile u64 *)(HPET + 0x128)) /* comparator 1, not in use */

enum {
	TIMER_VECTOR = 0x50,
	HPET_VECTOR = 0x51,
	RTC_VECTOR = 0x52,
	IPI_VECTOR = 0x60,
	PIC_BASE = 0x20,
	MEMORY_WORDS = 32768,
	STRING_PAGES = 8, /* room for one string */
	STRING_LEN = 5 * 4096 + 77,
	STEPS = 60, /* traps that STEP_CODE makes */
	LOCKED_ADDS = 4,
	PHASE_FIRES = 20,
	CLOCK_MSR = 0x4b564d01,
};

enum phase { PHASE_ONE_SHOT, PHASE_DEADLINE, PHASE_PERIODIC, PHASES };

/* Something that is armed, and then fires once. */
struct shot {
	volatile bool armed;
	volatile u64 fires, doubled;
	u64 since; /* TSC when it was armed */
	u64 lost;
};

struct clock_page {
	u32 version, pad;
	u64 tsc, system_time;
	u32 multiplier;
	i8 shift;
	u8 flags, pad2[2];
} PACKED;

struct worker {
	struct shot timer;
	enum phase phase;
	volatile u64 ticks;
	u64 phase_start, phase_fires, deadline, early;
	volatile u64 ipis, nmis; /* received */
	u64 ipis_sent, nmis_sent;
	u64 rounds;
	volatile u64 steps;
	u64 locked; /* what it has added to locked_word */
	u64 *memory;
	u8 *strings, *code;
	volatile struct clock_page *clock;
};

static struct worker workers[CPUS_MAX];
static struct shot pit, hpet;
static volatile u64 rtc_ticks;
static unsigned cpus, hpet_pin;
static volatile bool stop;
static unsigned finished; /* processors that send nothing more */
static u64 tsc_hz, hpet_hz, last_tsc, last_clock;
static bool has_avx2, has_clock, has_rdtscp;
static u8 locked_pages[2 * PAGE] ALIGNED(PAGE);
#define locked_word ((volatile u64 *)(void *)(locked_pages + PAGE - 3))

/* ---- registers ---- */

/* With the direction flag set, and CF and OF going from each round to the next. */
static u64
sum_general(u64 seed)
{
	__asm__ volatile(
		"push %%rbp; std; xor %%ecx, %%ecx\n\t"
		"mov $20000, %%ecx\n\t"
		"mov %%rax, %%rbx; lea 1(%%rax), %%rdx; lea 2(%%rax), %%rsi\n\t"
		"lea 3(%%rax), %%rdi; lea 4(%%rax), %%r8; lea 5(%%rax), %%r9\n\t"
		"lea 6(%%rax), %%r10; lea 7(%%rax), %%r11; lea 8(%%rax), %%r12\n\t"
		"lea 9(%%rax), %%r13; lea 10(%%rax), %%r14; lea 11(%%rax), %%r15\n\t"
		"lea 12(%%rax), %%rbp\n"
		"1:\tseto %%r15b; adc $5, %%rbx; imul $0x1e3779b1, %%rax, %%rax\n\t"
		"add %%rax, %%rbx; adc %%rbx, %%rdx; rol $7, %%rdx\n\t"
		"xor %%rdx, %%rsi; add %%rsi, %%rdi; bswap %%rdi\n\t"
		"sbb %%rdi, %%r8; add %%r8, %%r9; adc %%r9, %%r10; ror $11, %%r10\n\t"
		"lea (%%r10, %%r9, 2), %%r11; xor %%r11, %%r12; add %%r12, %%r13\n\t"
		"adc %%r13, %%r14; xor %%r14, %%r15; add %%r15, %%rbp\n\t"
		"adc %%rbp, %%rax; loop 1b\n\t"
		"xor %%rbx, %%rax; xor %%rdx, %%rax; xor %%rsi, %%rax; xor %%rdi, %%rax\n\t"
		"xor %%r8, %%rax; xor %%r9, %%rax; xor %%r10, %%rax; xor %%r11, %%rax\n\t"
		"xor %%r12, %%rax; xor %%r13, %%rax; xor %%r14, %%rax; xor %%r15, %%rax\n\t"
		"xor %%rbp, %%rax; pushf; pop %%rdx; cld; and $0x400, %%edx\n\t"
		"xor %%rdx, %%rax; pop %%rbp"
		: "+a"(seed)
		:
		: "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
		  "r15", "cc", "memory");
	return seed;
}

/* The whole x87 stack as it turns round, then rounding up. */
static u64
sum_x87(u32 seed)
{
	static const u16 round_up = 0x0b7f;
	struct {
		u64 mantissa;
		u16 exponent;
	} PACKED out;
	u16 control, status;

	__asm__ volatile("fninit; fldcw %3\n\t"
			 "fld1; fldl2t; fldl2e; fldpi; fldlg2; fldln2; fldpi; fildl %4\n\t"
			 "mov $20000, %%ecx\n"
			 "1:\tfxch %%st(3); fincstp; dec %%ecx; jnz 1b\n\t"
			 "faddp; fmulp; faddp; fmulp; faddp; fmulp; fsqrt; faddp\n\t"
			 "fnstcw %1; fnstsw %2; fstpt %0"
			 : "=m"(out), "=m"(control), "=m"(status)
			 : "m"(round_up), "m"(seed)
			 : "ecx", "cc");
	return out.mantissa ^ (u64)out.exponent << 48 ^ control ^ (u64)status << 16;
}

static u64
sum_sse(u64 seed)
{
	static const u32 round_zero = 0x7f80;
	u64 out;
	u32 mxcsr;

	__asm__ volatile(
		"ldmxcsr %3; movq %2, %%xmm0; pshufd $0x1b, %%xmm0, %%xmm0\n\t"
		"movdqa %%xmm0, %%xmm1; movdqa %%xmm0, %%xmm2; movdqa %%xmm0, %%xmm3\n\t"
		"movdqa %%xmm0, %%xmm4; movdqa %%xmm0, %%xmm5; movdqa %%xmm0, %%xmm6\n\t"
		"movdqa %%xmm0, %%xmm7; movdqa %%xmm0, %%xmm8; movdqa %%xmm0, %%xmm9\n\t"
		"movdqa %%xmm0, %%xmm10; movdqa %%xmm0, %%xmm11; movdqa %%xmm0, %%xmm12\n\t"
		"movdqa %%xmm0, %%xmm13; movdqa %%xmm0, %%xmm14; cvtdq2ps %%xmm0, %%xmm15\n\t"
		"mov $20000, %%ecx\n"
		"1:\tpaddq %%xmm0, %%xmm1; pmuludq %%xmm1, %%xmm2; pxor %%xmm2, %%xmm3\n\t"
		"paddd %%xmm3, %%xmm4; pshufd $0x39, %%xmm4, %%xmm5; psubq %%xmm5, %%xmm6\n\t"
		"pxor %%xmm6, %%xmm7; paddq %%xmm7, %%xmm8; pmuludq %%xmm8, %%xmm9\n\t"
		"paddw %%xmm9, %%xmm10; pxor %%xmm10, %%xmm11; paddq %%xmm11, %%xmm12\n\t"
		"psllq $3, %%xmm12; pxor %%xmm12, %%xmm13; paddq %%xmm13, %%xmm14\n\t"
		"sqrtps %%xmm15, %%xmm15; pxor %%xmm14, %%xmm0; dec %%ecx; jnz 1b\n\t"
		"pxor %%xmm15, %%xmm0; pshufd $0x4e, %%xmm0, %%xmm1; pxor %%xmm1, %%xmm0\n\t"
		"stmxcsr %1; movq %%xmm0, %0"
		: "=r"(out), "=m"(mxcsr)
		: "r"(seed), "m"(round_zero)
		: "ecx", "cc");
	return out ^ mxcsr;
}

/* The upper halves. No two lanes are alike, or they would hide each other's loss. */
static u64
sum_avx(u64 seed)
{
	u64 out;

	__asm__ volatile(
		"vmovq %1, %%xmm0; vpermq $0xd2, %%ymm0, %%ymm0\n\t"
		"vpaddq %%ymm0, %%ymm0, %%ymm1; vpaddq %%ymm1, %%ymm0, %%ymm2\n\t"
		"vpaddq %%ymm2, %%ymm0, %%ymm3; vpaddq %%ymm3, %%ymm0, %%ymm15\n\t"
		"mov $20000, %%ecx\n"
		"1:\tvpaddq %%ymm1, %%ymm0, %%ymm0; vpermq $0x39, %%ymm0, %%ymm0\n\t"
		"vpmuludq %%ymm0, %%ymm2, %%ymm4; vpxor %%ymm4, %%ymm3, %%ymm3\n\t"
		"vpaddd %%ymm3, %%ymm15, %%ymm15; vpxor %%ymm15, %%ymm1, %%ymm1\n\t"
		"dec %%ecx; jnz 1b\n\t"
		"vpxor %%ymm15, %%ymm0, %%ymm0; vextracti128 $1, %%ymm0, %%xmm1\n\t"
		"vpxor %%xmm1, %%xmm0, %%xmm0; vpextrq $1, %%xmm0, %0; movq %%xmm0, %%rcx\n\t"
		"xor %%rcx, %0; vzeroupper"
		: "=&r"(out)
		: "r"(seed)
		: "rcx", "cc");
	return out;
}

static uptr USER_CODE
sum_user(uptr seed)
{
	for (unsigned i = 0; i < 20000; i++)
		seed = (seed << 7 | seed >> 57) * 0x2545f4914f6cdd1dull + i;
	return seed;
}

static u64
sum_memory(struct worker *w)
{
	u64 sum = w->rounds;

	for (unsigned i = 0; i < MEMORY_WORDS; i += 7) {
		u64 want = (w->rounds - 1) * 0x9e3779b97f4a7c15ull + i;

		if (w->rounds > 1 && w->memory[i] != want)
			sum = 0;
		w->memory[i] = want + 0x9e3779b97f4a7c15ull;
	}
	return sum;
}

static void
check_sums(struct worker *w)
{
	static u64 general, x87, sse, avx, user;
	struct trap t;

	if (w == &workers[0] && w->rounds == 1) {
		general = sum_general(42);
		x87 = sum_x87(42);
		sse = sum_sse(42);
		avx = has_avx2 ? sum_avx(42) : 0;
		user = user_run(sum_user, 42).ax;
	}
	CHECK_EQ(sum_general(42), general);
	CHECK_EQ(sum_x87(42), x87);
	CHECK_EQ(sum_sse(42), sse);
	if (has_avx2)
		CHECK_EQ(sum_avx(42), avx);
	if (w == &workers[0]) { /* its stack is the only one of its kind */
		t = user_run_flags(sum_user, 42, 0x202);
		CHECK_TRAP(t, VEC_USER_RETURN, 0);
		CHECK_EQ(t.ax, user);
		cpu_sti();
	}
	CHECK_EQ(sum_memory(w), w->rounds);
}

/* ---- registers that lie still ---- */

static const struct kept_msr {
	u32 msr;
	u64 value, step; /* a processor */
} kept_msrs[] = {
	{MSR_FS_BASE, 0x00007f0012345000, 0x1000},
	{MSR_GS_BASE, 0xffff888012345000, 0x1000},
	{MSR_KERNEL_GS_BASE, 0xffffc90000abc000, 0x1000},
	{MSR_STAR, 0x0023001000000000, 0},
	{MSR_LSTAR, 0xffffffff81800000, 0x40},
	{MSR_CSTAR, 0xffffffff81900000, 0x40},
	{MSR_SFMASK, 0x47700, 1},
	{MSR_SYSENTER_CS, 0x10, 0x100},
	{MSR_SYSENTER_ESP, 0x76543000, 0x1000}, /* AMD's are 32 bits wide */
	{MSR_SYSENTER_EIP, 0x65432000, 0x1000},
	{MSR_PAT, 0x0407050600070106, 0},
	{MSR_TSC_AUX, 0x5a, 1},
};

static void
kept_set(unsigned cpu)
{
	for (unsigned i = 0; i < ARRAY_LEN(kept_msrs); i++)
		if (has_rdtscp || kept_msrs[i].msr != MSR_TSC_AUX)
			cpu_write_msr(kept_msrs[i].msr,
				      kept_msrs[i].value + cpu * kept_msrs[i].step);
	cpu_write_dr0(0x1000 + cpu);
	cpu_write_dr1(0xffff800000002000 + cpu);
	cpu_write_dr2(0x3000 + cpu);
	cpu_write_dr3(0x4000 + cpu);
	cpu_write_cr2(0xffffa00000005000 + cpu);
	cpu_write_cr8(1);
}

static void
check_kept(unsigned cpu)
{
	for (unsigned i = 0; i < ARRAY_LEN(kept_msrs); i++)
		if (has_rdtscp || kept_msrs[i].msr != MSR_TSC_AUX)
			CHECK_EQ(cpu_read_msr(kept_msrs[i].msr),
				 kept_msrs[i].value + cpu * kept_msrs[i].step);
	CHECK_EQ(cpu_read_dr0(), 0x1000 + cpu);
	CHECK_EQ(cpu_read_dr1(), 0xffff800000002000 + cpu);
	CHECK_EQ(cpu_read_dr2(), 0x3000 + cpu);
	CHECK_EQ(cpu_read_dr3(), 0x4000 + cpu);
	CHECK_EQ(cpu_read_dr7(), 0x400);
	CHECK_EQ(cpu_read_cr2(), 0xffffa00000005000 + cpu);
	CHECK_EQ(cpu_read_cr8(), 1);
}

/* ---- instructions that take long, or change what runs ---- */

/* Each string instruction tells how far from where it should be it ended. */

static u64
string_fill(u8 *to, u64 word)
{
	u64 n = STRING_LEN / 8 + 2;
	u8 *end = to + n * 8;

	__asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(word) : "memory");
	return n | (u64)(end - to);
}

static u64
string_move(u8 *to, const u8 *from)
{
	u64 n = STRING_LEN, gone = (u64)(to - from);
	u8 *end = to + n;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return n | (u64)(end - to) | ((u64)(to - from) ^ gone);
}

static u64
string_move_down(u8 *to, const u8 *from)
{
	u64 n = STRING_LEN, gone = (u64)(to - from);
	u8 *end = to - 1;

	to += n - 1;
	from += n - 1;
	__asm__ volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return n | (u64)(end - to) | ((u64)(to - from) ^ gone);
}

static u64
string_compare(const u8 *a, const u8 *b)
{
	u64 n = STRING_LEN, gone = (u64)(a - b);
	bool equal;

	__asm__ volatile("repe cmpsb" : "+D"(a), "+S"(b), "+c"(n), "=@cce"(equal) : : "memory");
	return n | !equal | ((u64)(a - b) ^ gone);
}

static u64
string_search(const u8 *in, u8 absent)
{
	u64 n = STRING_LEN;
	const u8 *end = in + n;
	bool found;

	__asm__ volatile("repne scasb"
			 : "+D"(in), "+c"(n), "=@cce"(found)
			 : "a"(absent)
			 : "memory");
	return n | found | (u64)(end - in);
}

static void
check_strings(const struct worker *w)
{
	u8 *a = w->strings, *b = a + STRING_PAGES * PAGE, *c = b + STRING_PAGES * PAGE;

	CHECK_EQ(string_fill(a, w->rounds * 0x0101010101010102), 0);
	for (unsigned i = 0; i < STRING_LEN; i += 500)
		a[i] = (u8)(w->rounds + i / 500);
	for (unsigned i = 0; i < STRING_LEN + 3; i++)
		if (a[i] == 0xee)
			a[i] = 0;
	CHECK_EQ(string_move(b + 5, a + 3), 0);
	CHECK_EQ(string_move_down(c + 9, b + 5), 0);
	CHECK_EQ(string_compare(c + 9, a + 3), 0);
	CHECK_EQ(string_search(c + 9, 0xee), 0);
}

static void
step_came(struct trap_frame *f)
{
	(void)f;
	workers[trap_cpu()].steps++;
	cpu_write_dr6(0xffff0ff0);
}

/* Every instruction between the two POPFs, and the second one, traps once. */
static void
check_steps(const struct worker *w)
{
	u64 before = w->steps, sum = 0, want = 0;

	__asm__ volatile("pushf; orl $0x100, (%%rsp); popf\n\t"
			 ".rept 19\n\tlea 1(%0, %0, 2), %0; add $7, %0; rol $3, %0\n\t.endr\n\t"
			 "pushf; andl $0xfffffeff, (%%rsp); popf"
			 : "+r"(sum)
			 :
			 : "memory", "cc");
	for (unsigned i = 0; i < 19; i++) {
		want = want * 3 + 8;
		want = want << 3 | want >> 61;
	}
	CHECK_EQ(sum, want);
	CHECK_EQ(w->steps - before, STEPS);
}

/* mov $ROUNDS, %eax; ret: not what stood there before. */
static void
check_code(const struct worker *w)
{
	u32 value = (u32)w->rounds;

	w->code[0] = 0xb8;
	memcpy(w->code + 1, &value, 4);
	w->code[5] = 0xc3;
	BARRIER();
	for (unsigned i = 0; i < 20; i++)
		CHECK_EQ(((u32(*)(void))(uptr)w->code)(), value);
}

static void
locked_add(struct worker *w)
{
	for (unsigned i = 0; i < LOCKED_ADDS; i++)
		__asm__ volatile("lock addq %1, %0" : "+m"(*locked_word) : "r"(0x100000001) : "cc");
	w->locked += LOCKED_ADDS * 0x100000001;
}

/* ---- devices that answer ---- */

/* Of all processors together, each register by one at a time. */
static void
check_devices(void)
{
	static u32 lock;
	static u8 bytes[16];
	u8 value = (u8)cpu_rdtsc();
	u64 spare;
	u16 count = sizeof(bytes);
	u8 *to = bytes;

	while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
		cpu_pause();
	outb(0x3ff, value); /* the UART's scratch register */
	CHECK_EQ(inb(0x3ff), value);
	__asm__ volatile("cld; rep insb" : "+c"(count), "+D"(to) : "d"(0x3ff) : "memory");
	for (unsigned i = 0; i < sizeof(bytes); i++)
		CHECK_EQ(bytes[i], value);
	HPET_SPARE = value;
	spare = HPET_SPARE;
	HPET_SPARE += 3; /* a question and a store in one instruction */
	CHECK_EQ(HPET_SPARE, spare + 3);
	CHECK_EQ(ioapic_read(1) >> 16 & 0xff, 23);
	__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

/* ---- time ---- */

/* VALUE was read after *LAST, and becomes it if it is later. True if time did not go back. */
static bool
time_passed(u64 *last, u64 before, u64 value)
{
	u64 seen = before;

	while (value > seen && !__atomic_compare_exchange_n(last, &seen, value, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	return value >= before;
}

static u64
time_tsc(void)
{
	__asm__ volatile("lfence" : : : "memory");
	return cpu_rdtsc();
}

static u64
time_clock(const volatile struct clock_page *c)
{
	u64 delta, ns;
	u32 version;

	do {
		version = c->version;
		BARRIER();
		delta = time_tsc() - c->tsc;
		delta = c->shift < 0 ? delta >> -c->shift : delta << c->shift;
		ns = c->system_time + (u64)((unsigned __int128)delta * c->multiplier >> 32);
		BARRIER();
	} while ((version & 1) || version != c->version);
	return ns;
}

static void
check_time(struct worker *w)
{
	u64 before;

	for (unsigned i = 0; i < 20; i++) {
		before = __atomic_load_n(&last_tsc, __ATOMIC_SEQ_CST);
		CHECK(time_passed(&last_tsc, before, time_tsc()));
		if (!w->clock)
			continue;
		before = __atomic_load_n(&last_clock, __ATOMIC_SEQ_CST);
		CHECK(time_passed(&last_clock, before, time_clock(w->clock)));
	}
}

/* ---- interrupts that come once ---- */

static void
shot_fired(struct shot *s)
{
	if (!s->armed)
		s->doubled++;
	s->armed = false;
	s->fires++;
}

/* Before the device is told. */
static void
shot_arm(struct shot *s)
{
	s->since = cpu_rdtsc();
	s->armed = true;
}

static bool
shot_ready(struct shot *s)
{
	if (!s->armed)
		return true;
	if (cpu_rdtsc() - s->since > 10 * tsc_hz) {
		s->lost++;
		return true;
	}
	return false;
}

static void
check_shot(const struct shot *s, const char *what)
{
	print("%s: %u fired, %u doubled, %u lost\n", what, (unsigned)s->fires, (unsigned)s->doubled,
	      (unsigned)s->lost);
	CHECK(s->fires > 0);
	CHECK_EQ(s->doubled, 0);
	CHECK_EQ(s->lost, 0);
}

static void
pit_fired(struct trap_frame *f)
{
	(void)f;
	shot_fired(&pit);
	pic_eoi(0);
}

static void
hpet_fired(struct trap_frame *f)
{
	(void)f;
	shot_fired(&hpet);
	*(volatile u64 *)(HPET + 0x20) = 1; /* the line goes down */
	apic_eoi();
}

static void
rtc_fired(struct trap_frame *f)
{
	(void)f;
	rtc_ticks++;
	outb(0x70, 0x0c);
	(void)inb(0x71);
	apic_eoi();
}

static void
timer_fired(struct trap_frame *f)
{
	struct worker *w = &workers[trap_cpu()];

	(void)f;
	if (w->phase == PHASE_PERIODIC)
		w->ticks++;
	else
		shot_fired(&w->timer);
	if (w->phase == PHASE_DEADLINE && cpu_rdtsc() < w->deadline)
		w->early++;
	apic_eoi();
}

static void
ipi_came(struct trap_frame *f)
{
	(void)f;
	workers[trap_cpu()].ipis++;
	apic_eoi();
}

static void
nmi_came(struct trap_frame *f)
{
	(void)f;
	workers[trap_cpu()].nmis++;
}

static void
pit_next(void)
{
	if (!shot_ready(&pit))
		return;
	shot_arm(&pit);
	pit_start(0, 800); /* 0.67 ms */
}

/* A comparator that was passed before it was set never fires: then its status bit stays 0. */
static bool
hpet_missed(void)
{
	return HPET_COUNTER - *(volatile u64 *)(HPET + 0x108) - 1 < hpet_hz * 60 &&
	       cpu_rdtsc() - hpet.since > tsc_hz / 2 && !(*(volatile u64 *)(HPET + 0x20) & 1);
}

static void
hpet_next(void)
{
	volatile u64 *config = (volatile u64 *)(HPET + 0x100), *comparator = config + 1;

	if (!shot_ready(&hpet) && !hpet_missed())
		return;
	*config = 0;
	*comparator = HPET_COUNTER + hpet_hz / 1000;
	shot_arm(&hpet);
	*config = (u64)hpet_pin << 9 | 1 << 2 | 1 << 1; /* enabled, level-triggered */
}

static void
periodic_end(struct worker *w)
{
	u64 time = cpu_rdtsc() - w->phase_start;

	if (time < tsc_hz / 100)
		return;
	apic_write(APIC_TIMER_INITIAL, 0);
	cpu_window();
	cpu_sti();
	/* Not more than there were periods of 0.5 ms; and not none. */
	CHECK(w->ticks <= time / (tsc_hz / 2000) + 1);
	CHECK(w->ticks > 0);
	w->phase = PHASE_ONE_SHOT;
	w->phase_fires = 0;
	apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
}

static void
timer_next(struct worker *w)
{
	if (w->phase == PHASE_PERIODIC) {
		periodic_end(w);
		return;
	}
	if (!shot_ready(&w->timer))
		return;
	if (++w->phase_fires > PHASE_FIRES) {
		w->phase_fires = 0;
		w->phase++;
		w->ticks = 0;
		w->phase_start = cpu_rdtsc();
		apic_write(APIC_LVT_TIMER,
			   TIMER_VECTOR | (w->phase == PHASE_DEADLINE ? APIC_TSC_DEADLINE
								      : APIC_PERIODIC));
		__asm__ volatile("mfence" : : : "memory");
	}
	if (w->phase == PHASE_PERIODIC) {
		apic_write(APIC_TIMER_INITIAL, 500000);
		return;
	}
	w->deadline = cpu_rdtsc() + tsc_hz / 2000;
	shot_arm(&w->timer);
	if (w->phase == PHASE_DEADLINE)
		cpu_write_msr(MSR_TSC_DEADLINE, w->deadline);
	else
		apic_write(APIC_TIMER_INITIAL, 300000);
}

/* One to the next processor, when the last one has arrived. */
static void
ipi_next(unsigned cpu)
{
	struct worker *w = &workers[cpu], *to = &workers[(cpu + 1) % cpus];
	u64 since = cpu_rdtsc();

	while (to->ipis < w->ipis_sent || to->nmis < w->nmis_sent) {
		if (cpu_rdtsc() - since > 10 * tsc_hz) {
			print("FAIL: lost: %u of %u IPIs, %u of %u NMIs\n", (unsigned)to->ipis,
			      (unsigned)w->ipis_sent, (unsigned)to->nmis, (unsigned)w->nmis_sent);
			CHECK(false);
			return;
		}
		if (stop)
			return;
		cpu_pause();
	}
	CHECK_EQ(to->ipis, w->ipis_sent);
	CHECK_EQ(to->nmis, w->nmis_sent);
	if (cpus == 1)
		return;
	w->ipis_sent++;
	apic_ipi(smp_apic_id((cpu + 1) % cpus), IPI_VECTOR);
	w->nmis_sent++;
	apic_ipi(smp_apic_id((cpu + 1) % cpus), APIC_NMI);
}

/* ---- the work ---- */

static void
work_set_up(unsigned cpu)
{
	struct worker *w = &workers[cpu];

	cpu_write_cr4(cpu_read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	if (has_avx2) {
		cpu_write_cr4(cpu_read_cr4() | CR4_OSXSAVE);
		__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	}
	if (has_clock)
		cpu_write_msr(CLOCK_MSR, (uptr)w->clock | 1);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
	kept_set(cpu);
	cpu_sti();
}

static void
work(uptr cpu)
{
	struct worker *w = &workers[cpu];

	work_set_up((unsigned)cpu);
	do {
		w->rounds++;
		check_sums(w);
		check_kept((unsigned)cpu);
		check_strings(w);
		check_steps(w);
		check_code(w);
		locked_add(w);
		check_devices();
		check_time(w);
		timer_next(w);
		ipi_next((unsigned)cpu);
		if (cpu == 0) {
			pit_next();
			hpet_next();
			stop = (inb(0x3fd) & 1) && inb(0x3f8) == 'q';
		}
		if (w->rounds % 16 == cpu && w->timer.armed) /* it wakes us, or another one does */
			__asm__ volatile("hlt");
	} while (!stop);
	/* What the others send until they know, and what is armed, still comes. */
	__atomic_fetch_add(&finished, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&finished, __ATOMIC_SEQ_CST) < cpus)
		cpu_pause();
	for (u64 since = cpu_rdtsc(); cpu_rdtsc() - since < tsc_hz / 5;)
		cpu_pause();
	cpu_cli();
}

static void
switch_prepare(void)
{
	volatile u64 *config = (volatile u64 *)(HPET + 0x100);

	tsc_hz = (u64)cpu_cpuid(0x40000010, 0).a * 1000;
	hpet_hz = 1000000000000000ull / (*(volatile u64 *)HPET >> 32);
	has_avx2 = cpu_cpuid(7, 0).b >> 5 & 1;
	has_clock = cpu_cpuid(0x40000001, 0).a >> 3 & 1;
	has_rdtscp = cpu_cpuid(0x80000001, 0).d >> 27 & 1;
	for (unsigned i = 0; i < cpus; i++) {
		workers[i].memory = page_alloc(MEMORY_WORDS * 8 / PAGE);
		workers[i].strings = page_alloc(3 * STRING_PAGES);
		workers[i].code = page_alloc(1);
		workers[i].clock = has_clock ? page_alloc(1) : NULL;
	}
	trap_set_handler(TIMER_VECTOR, timer_fired);
	trap_set_handler(HPET_VECTOR, hpet_fired);
	trap_set_handler(RTC_VECTOR, rtc_fired);
	trap_set_handler(IPI_VECTOR, ipi_came);
	trap_set_handler(VEC_NMI, nmi_came);
	trap_set_handler(VEC_DB, step_came);
	trap_set_handler(PIC_BASE, pit_fired);
	pic_init(PIC_BASE, 0xfffe);
	apic_write(APIC_LVT_LINT0, APIC_EXTINT);
	for (hpet_pin = 16; hpet_pin < 31 && !(*config >> 32 >> hpet_pin & 1);)
		hpet_pin++;
	*(volatile u64 *)(HPET + 0x10) = 1;
	ioapic_route(hpet_pin, HPET_VECTOR | APIC_LEVEL, (u8)apic_id());
	ioapic_route(8, RTC_VECTOR, (u8)apic_id());
	outb(0x70, 0x0b);
	outb(0x71, 0x42); /* periodic, 1024 Hz by default, 24 hours */
	outb(0x70, 0x0c);
	(void)inb(0x71);
}

static void
switch_judge(u64 tsc, u64 hpet_ticks, u64 clock)
{
	u64 us = hpet_ticks * 1000 / (hpet_hz / 1000);
	u64 tsc_us = tsc * 1000 / (tsc_hz / 1000), locked = 0;

	for (unsigned i = 0; i < cpus; i++) {
		print("cpu %u: %u rounds, %u IPIs, %u NMIs\n", i, (unsigned)workers[i].rounds,
		      (unsigned)workers[i].ipis, (unsigned)workers[i].nmis);
		check_shot(&workers[i].timer, "  timer");
		locked += workers[i].locked;
		CHECK_EQ(workers[i].early, 0);
		CHECK(cpus == 1 || workers[i].ipis > 0);
		CHECK_EQ(workers[(i + 1) % cpus].ipis, workers[i].ipis_sent);
		CHECK_EQ(workers[(i + 1) % cpus].nmis, workers[i].nmis_sent);
	}
	CHECK_EQ(*locked_word, locked);
	check_shot(&pit, "PIT");
	check_shot(&hpet, "HPET");
	print("RTC: %u; %u us by HPET, %u by TSC, %u by kvmclock\n", (unsigned)rtc_ticks,
	      (unsigned)us, (unsigned)tsc_us, (unsigned)(clock / 1000));
	CHECK(rtc_ticks > 0 && rtc_ticks <= us * 1024 / 1000000 + 2);
	CHECK(us > tsc_us - tsc_us / 1000 - 1000 && us < tsc_us + tsc_us / 1000 + 1000);
	if (has_clock)
		CHECK(us > clock / 1000 - us / 1000 - 1000 && us < clock / 1000 + us / 1000 + 1000);
}

/* All clocks at one moment: read again if the host took the processor away in between. */
struct moment {
	u64 ticks, tsc, clock;
};

static struct moment
moment_now(void)
{
	struct moment now = {0};

	for (int tries = 0; tries < 1000; tries++) {
		now.tsc = cpu_rdtsc();
		now.ticks = HPET_COUNTER;
		if (has_clock)
			now.clock = time_clock(workers[0].clock);
		if (cpu_rdtsc() - now.tsc < tsc_hz / 5000)
			break;
	}
	return now;
}

void
guest_main(void)
{
	struct moment start, end;

	cpus = smp_start();
	switch_prepare();
	if (has_clock)
		cpu_write_msr(CLOCK_MSR, (uptr)workers[0].clock | 1);
	start = moment_now();
	print("working, %u CPUs\n", cpus);
	workers[0].rounds = 1;
	work_set_up(0);
	check_sums(&workers[0]);
	for (unsigned i = 1; i < cpus; i++)
		smp_call(i, work, i);
	work(0);
	for (unsigned i = 1; i < cpus; i++)
		CHECK(smp_wait(i));
	end = moment_now();
	switch_judge(end.tsc - start.tsc, end.ticks - start.ticks, end.clock - start.clock);
}
