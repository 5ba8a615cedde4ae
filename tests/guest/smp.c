/*
 * Several processors: start by INIT and SIPI, IPIs (fixed, logical, all, NMI),
 * LOCK-prefixed counters (plain, across a cache line, across pages that are apart
 * in memory), CMPXCHG16B, a spin lock, store order, TLB shoot-down, code
 * changed by one CPU and run by another.
 */
#include "lib/apic.h"
#include "lib/paging.h"
#include "lib/smp.h"

enum { VECTOR = 0x50, ROUNDS = 20000 };

static unsigned smp_total;
static volatile u32 smp_hits[CPUS_MAX];
static volatile u32 smp_nmis[CPUS_MAX];

static void
test_note(struct trap_frame *f)
{
	(void)f;
	__atomic_add_fetch(&smp_hits[trap_cpu()], 1, __ATOMIC_RELAXED);
	apic_eoi();
}

static void
test_nmi(struct trap_frame *f)
{
	(void)f;
	__atomic_add_fetch(&smp_nmis[trap_cpu()], 1, __ATOMIC_RELAXED);
}

/* Runs FN(ARG) on all, this one included. */
static void
test_all(void (*fn)(uptr), uptr arg)
{
	for (unsigned i = 1; i < smp_total; i++)
		smp_call(i, fn, arg);
	fn(arg);
	for (unsigned i = 1; i < smp_total; i++)
		CHECK(smp_wait(i));
}

static void
test_halted(uptr arg)
{
	while (smp_hits[trap_cpu()] < arg)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
}

static void
test_ipis(void)
{
	for (unsigned i = 1; i < smp_total; i++) {
		smp_call(i, test_halted, 1);
		apic_ipi(smp_apic_id(i), APIC_ASSERT | VECTOR);
		CHECK(smp_wait(i));
		CHECK_EQ(smp_hits[i], 1);
	}
	for (unsigned i = 1; i < smp_total; i++)
		smp_call(i, test_halted, 2);
	apic_ipi(0, APIC_OTHERS | APIC_ASSERT | VECTOR);
	for (unsigned i = 1; i < smp_total; i++)
		CHECK(smp_wait(i));
	CHECK_EQ(smp_hits[0], 0);
	apic_ipi(0, APIC_ALL | APIC_ASSERT | VECTOR);
	cpu_window();
	CHECK_EQ(smp_hits[0], 1);
	for (unsigned i = 1; i < smp_total; i++) {
		smp_call(i, test_halted, 3);
		CHECK(smp_wait(i));
	}
	/* Flat logical destinations. */
	apic_write(APIC_DFR, 0xffffffff);
	apic_write(APIC_LDR, 1u << 24);
	smp_hits[0] = 0;
	apic_ipi(1, APIC_LOGICAL | APIC_ASSERT | VECTOR);
	cpu_window();
	CHECK_EQ(smp_hits[0], 1);
	apic_ipi(0x80, APIC_LOGICAL | APIC_ASSERT | VECTOR); /* nobody */
	cpu_window();
	CHECK_EQ(smp_hits[0], 1);
	for (unsigned i = 1; i < smp_total; i++) { /* also while it runs with interrupts off */
		apic_ipi(smp_apic_id(i), APIC_NMI | APIC_ASSERT);
		CHECK(WAIT_FOR(smp_nmis[i] == 1));
	}
}

/* Ping-pong: each side waits in HLT for the other. */
static volatile u32 test_turn;
static void
test_pong(uptr rounds)
{
	for (u32 i = 1; i <= rounds; i++) {
		while (test_turn != 2 * i - 1)
			__asm__ volatile("sti; hlt; cli" : : : "memory");
		test_turn = 2 * i;
		apic_ipi(smp_apic_id(0), APIC_ASSERT | VECTOR);
	}
}

static void
test_ping(void)
{
	enum { PINGS = 200 };

	smp_call(1, test_pong, PINGS);
	for (u32 i = 1; i <= PINGS; i++) {
		test_turn = 2 * i - 1;
		apic_ipi(smp_apic_id(1), APIC_ASSERT | VECTOR);
		while (test_turn != 2 * i)
			__asm__ volatile("sti; hlt; cli" : : : "memory");
	}
	CHECK(smp_wait(1));
	CHECK_EQ(test_turn, 2 * PINGS);
}

static void
test_add(uptr at)
{
	for (u32 i = 0; i < ROUNDS; i++)
		__asm__ volatile("lock addl $1, (%0)" : : "r"(at) : "memory", "cc");
}

static void
test_mixed(uptr at)
{
	u64 value, next;

	for (u32 i = 0; i < ROUNDS / 4; i++) {
		__asm__ volatile("lock incq (%0)" : : "r"(at) : "memory", "cc");
		next = 1;
		__asm__ volatile("lock xaddq %0, (%1)" : "+r"(next) : "r"(at) : "memory", "cc");
		value = *(volatile u64 *)at;
		do {
			next = value + 1;
			__asm__ volatile("lock cmpxchgq %2, (%1)"
					 : "+a"(value)
					 : "r"(at), "r"(next)
					 : "memory", "cc");
		} while (value + 1 != next);
		__asm__ volatile("lock subq $-1, (%0)" : : "r"(at) : "memory", "cc");
	}
}

static void
test_bits(uptr at)
{
	u64 mine = trap_cpu();

	for (u32 i = 0; i < ROUNDS / 2; i++) {
		bool was;

		__asm__ volatile("lock btsq %2, (%1); setc %b0"
				 : "=q"(was)
				 : "r"(at), "r"(mine)
				 : "memory", "cc");
		if (was)
			CHECK(false);
		__asm__ volatile("lock btrq %2, (%1); setc %b0"
				 : "=q"(was)
				 : "r"(at), "r"(mine)
				 : "memory", "cc");
		if (!was)
			CHECK(false);
	}
}

static void
test_wide(uptr at)
{
	for (u32 i = 0; i < ROUNDS / 4; i++) {
		u64 low = 0, high = 0;
		bool good;

		do { /* both halves count together */
			__asm__ volatile("lock cmpxchg16b (%3); setz %b0"
					 : "=q"(good), "+a"(low), "+d"(high)
					 : "r"(at), "b"(low + 1), "c"(high + 2)
					 : "memory", "cc");
		} while (!good);
	}
}

static void
test_atomics(void)
{
	u8 *memory = page_alloc_aligned(2, 2 * PAGE);
	u8 *apart = page_alloc(5);
	uptr edge = PAGING_TEST + PAGE;
	u64 want = (u64)ROUNDS * smp_total;

	test_all(test_add, (uptr)memory);
	CHECK_EQ(*(u32 *)(void *)memory, want);
	test_all(test_add, (uptr)memory + 62); /* across a cache line */
	CHECK_EQ(*(u32 *)(void *)(memory + 62), want);
	test_all(test_mixed, (uptr)memory + 128);
	CHECK_EQ(*(u64 *)(void *)(memory + 128), want);
	test_all(test_mixed, (uptr)memory + 253);
	CHECK_EQ(*(u64 *)(void *)(memory + 253), want);
	test_all(test_bits, (uptr)memory + 512);
	CHECK_EQ(*(u64 *)(void *)(memory + 512), 0);
	test_all(test_wide, (uptr)memory + 1024);
	CHECK_EQ(*(u64 *)(void *)(memory + 1024), want / 4);
	CHECK_EQ(*(u64 *)(void *)(memory + 1032), want / 2);
	/* Across two pages: first together in memory, then apart. */
	test_all(test_add, (uptr)memory + PAGE - 2);
	CHECK_EQ(*(u32 *)(void *)(memory + PAGE - 2), want);
	paging_map(PAGING_TEST, (uptr)apart + 3 * PAGE, PTE_P | PTE_W, 1);
	paging_map(edge, (uptr)apart, PTE_P | PTE_W, 1);
	test_all(test_mixed, edge - 5);
	CHECK_EQ(*(u64 *)(void *)(edge - 5), want);
}

/* A test-and-set lock around plain memory. */
static u32 test_lock;
static volatile u64 test_guarded[2];
static void
test_locked(uptr rounds)
{
	for (uptr i = 0; i < rounds; i++) {
		while (__atomic_exchange_n(&test_lock, 1, __ATOMIC_ACQUIRE))
			cpu_pause();
		test_guarded[0]++;
		if (test_guarded[0] != ++test_guarded[1])
			CHECK(false);
		__atomic_store_n(&test_lock, 0, __ATOMIC_RELEASE);
	}
}

/* Message passing: x86 keeps the order of stores and of loads. */
static volatile u64 test_message[16];
static void
test_reader(uptr rounds)
{
	u64 seen = 0;

	while (seen < rounds) {
		u64 flag = test_message[8], data = test_message[0];

		if (data < flag)
			CHECK(false);
		seen = flag;
	}
}

static void
test_order(void)
{
	smp_call(1, test_reader, 50000);
	for (u64 i = 1; i <= 50000; i++) {
		test_message[0] = i;
		BARRIER();
		test_message[8] = i;
	}
	CHECK(smp_wait(1));
}

static void
test_shoot_handler(struct trap_frame *f)
{
	cpu_invlpg(PAGING_TEST + 8 * PAGE);
	test_note(f);
}

static volatile u64 test_shot;
static void
test_shoot_reader(uptr at)
{
	cpu_sti();
	while (!test_shot)
		(void)*(volatile u64 *)at;
	CHECK_EQ(*(volatile u64 *)at, 2);
	cpu_cli();
}

static void
test_shoot_down(void)
{
	u64 *one = page_alloc(1), *two = page_alloc(1);
	uptr at = PAGING_TEST + 8 * PAGE;

	one[0] = 1;
	two[0] = 2;
	trap_set_handler(VECTOR, test_shoot_handler);
	for (int round = 0; round < 50; round++) {
		u32 before = smp_hits[1];

		paging_map(at, (uptr)one, PTE_P | PTE_W, 1);
		test_shot = 0;
		smp_call(1, test_shoot_reader, at);
		paging_map(at, (uptr)two, PTE_P | PTE_W, 1);
		apic_ipi(smp_apic_id(1), APIC_ASSERT | VECTOR);
		CHECK(WAIT_FOR(smp_hits[1] != before));
		test_shot = 1;
		CHECK(smp_wait(1));
	}
	trap_set_handler(VECTOR, test_note);
}

/* Cross-modifying code, as Linux does it: INT3 first, then the tail, then the head, each
 * followed by all others serializing. */
static u8 *test_code;
static volatile u32 test_stop, test_breaks, test_wrong;
static void
test_int3(struct trap_frame *f)
{
	__atomic_add_fetch(&test_breaks, 1, __ATOMIC_RELAXED);
	f->ip--; /* try again */
	cpu_pause();
}

static void
test_runner(uptr arg)
{
	u32 (*fn)(void) = (u32(*)(void))arg;

	cpu_sti();
	while (!test_stop) {
		u32 value = fn();

		if (value != 0x11111111 && value != 0x22222222)
			test_wrong = value;
	}
	cpu_cli();
}

static void
test_sync_handler(struct trap_frame *f)
{
	(void)cpu_cpuid(0, 0);
	test_note(f);
}

static void
test_sync(void)
{
	u32 before[CPUS_MAX];

	for (unsigned i = 1; i < smp_total; i++)
		before[i] = smp_hits[i];
	apic_ipi(0, APIC_OTHERS | APIC_ASSERT | VECTOR);
	for (unsigned i = 1; i < smp_total; i++)
		if (!WAIT_FOR(smp_hits[i] != before[i]))
			CHECK(false);
}

/* The code changes while nobody runs it; all see the new one. */
static volatile u32 test_expected;
static void
test_run_once(uptr arg)
{
	for (int i = 0; i < 20; i++)
		if (((u32(*)(void))arg)() != test_expected)
			test_wrong++;
}

static void
test_modify_quiet(void)
{
	for (u32 round = 0; round < 200; round++) {
		test_expected = round * 0x01010101u;
		memcpy(test_code + 1, (const void *)&test_expected, 4);
		test_all(test_run_once, (uptr)test_code);
	}
	CHECK_EQ(test_wrong, 0);
	memset(test_code + 1, 0x11, 4);
}

static void
test_cross_modify(void)
{
	static const u8 image[] = {0xb8, 0x11, 0x11, 0x11, 0x11, 0xc3};

	memcpy(test_code, image, sizeof(image));
	test_modify_quiet();
	if (guest_on_tcg())
		return; /* it may translate bytes that change before it watches the page */
	trap_set_handler(VEC_BP, test_int3);
	trap_set_handler(VECTOR, test_sync_handler);
	for (unsigned i = 1; i < smp_total; i++)
		smp_call(i, test_runner, (uptr)test_code);
	for (u32 round = 0; round < 200; round++) {
		*(volatile u8 *)test_code = 0xcc;
		test_sync();
		memset(test_code + 1, round & 1 ? 0x11 : 0x22, 4);
		test_sync();
		*(volatile u8 *)test_code = 0xb8;
		test_sync();
	}
	test_stop = 1;
	for (unsigned i = 1; i < smp_total; i++)
		CHECK(smp_wait(i));
	CHECK_EQ(test_wrong, 0);
	CHECK_EQ(((u32(*)(void))test_code)(), 0x11111111);
	trap_set_handler(VECTOR, test_note);
	trap_set_handler(VEC_BP, NULL);
}

void
guest_main(void)
{
	u32 offered = cpu_cpuid(1, 0).b >> 16 & 0xff;

	trap_set_handler(VECTOR, test_note);
	trap_set_handler(VEC_NMI, test_nmi);
	smp_total = smp_start();
	print("%u CPUs\n", smp_total);
	CHECK_EQ(smp_total, offered ? offered : 1);
	if (smp_total < 2)
		return;
	test_ipis();
	test_ping();
	test_atomics();
	test_all(test_locked, ROUNDS / 4);
	CHECK_EQ(test_guarded[0], (u64)ROUNDS / 4 * smp_total);
	test_code = page_alloc(1);
	test_order();
	test_shoot_down();
	test_cross_modify();
}
