/*
 * Self-modifying code on one CPU: another page, the same page, the block under
 * way, its very next instruction, an instruction across two pages, code changed
 * through an alias, by string instructions, and loops that patch themselves.
 * x86 needs no fence for the same linear address; an alias needs a jump at most.
 */
#include "lib/paging.h"
#include "lib/trap.h"

#define VA PAGING_TEST

typedef u32 smc_fn(void);
static u8 *smc_page; /* identity-mapped, two pages */

/* mov $value, %eax; ret */
static void
smc_put(u8 *at, u32 value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
	BARRIER();
}

static u32
smc_call(const u8 *at)
{
	return ((smc_fn *)(uptr)at)();
}

static void
smc_simple(void)
{
	for (u32 i = 0; i < 300; i++) {
		smc_put(smc_page, i);
		CHECK_EQ(smc_call(smc_page), i);
	}
	/* Run hot before it changes. */
	for (u32 round = 0; round < 5; round++) {
		smc_put(smc_page, round);
		for (int i = 0; i < 2000; i++)
			if (smc_call(smc_page) != round)
				CHECK(false);
	}
	/* Only the immediate's last byte. */
	for (u32 i = 0; i < 100; i++) {
		smc_page[4] = (u8)i;
		BARRIER();
		CHECK_EQ(smc_call(smc_page), i << 24 | 4);
	}
	/* Data beside code, often. */
	for (u32 i = 0; i < 1000; i++) {
		*(volatile u32 *)(smc_page + 512) = i;
		if (smc_call(smc_page) != (99u << 24 | 4))
			CHECK(false);
	}
	CHECK_EQ(*(volatile u32 *)(smc_page + 512), 999);
}

/* Changes the immediate of the next instruction, in the same straight run. */
static void
smc_next(void)
{
	static const u8 code[] = {
		0xc7, 0x05, 3,	  0, 0, 0, 0,
		0,    0,    0,		      /* movl $V, 1f+1(%rip): disp = 1 to the imm */
		0x90, 0x90, 0xb8, 0, 0, 0, 0, /* mov $0, %eax */
		0xc3,
	};

	memcpy(smc_page, code, sizeof(code));
	for (u32 i = 1; i < 200; i++) {
		memcpy(smc_page + 6, &i, 4);
		BARRIER();
		CHECK_EQ(smc_call(smc_page), i);
	}
}

/* A store in the loop's own body that turns INC into DEC half way. */
static void
smc_loop(void)
{
	u32 a = 0;

	__asm__ volatile("mov $100, %%ecx\n"
			 "1:\tcmp $50, %%ecx; jne 2f\n\t"
			 "movb $0xc8, smc_patch + 1\n"
			 "2:\tnop\n"
			 "smc_patch:\t.byte 0xff, 0xc0\n\t" /* inc %eax: ff c0; dec %eax: ff c8 */
			 "dec %%ecx; jnz 1b; movb $0xc0, smc_patch + 1"
			 : "+a"(a)
			 :
			 : "rcx", "memory", "cc");
	CHECK_EQ(a, 0);
}

static void
smc_cross_page(void)
{
	u8 *at = smc_page + PAGE - 3; /* immediate's upper half lies in the second page */

	for (u32 i = 0; i < 200; i++) {
		smc_put(at, i << 16 | i);
		CHECK_EQ(smc_call(at), i << 16 | i);
		smc_page[PAGE] = (u8)(i + 1); /* the second page alone */
		BARRIER();
		CHECK_EQ(smc_call(at), ((i + 1) & 0xff) << 16 | i);
		smc_page[PAGE - 2] = 0x77; /* the first page alone */
		BARRIER();
		CHECK_EQ(smc_call(at) & 0xff, 0x77);
	}
}

static void
smc_alias(void)
{
	u8 *alias = (u8 *)(VA + 0x123000);

	paging_map((uptr)alias, (uptr)smc_page, PTE_P | PTE_W, 1);
	for (u32 i = 0; i < 200; i++) {
		smc_put(alias + 256, i); /* written there, run here */
		CHECK_EQ(smc_call(smc_page + 256), i);
		smc_put(smc_page + 256, ~i); /* and the other way round */
		CHECK_EQ(smc_call(alias + 256), ~i);
	}
	/* A large page as the alias. */
	paging_map(VA + 0x40000000, 0, PTE_P | PTE_W, 2);
	paging_map(VA + 0x40200000, 0x200000, PTE_P | PTE_W, 2);
	paging_map(VA + 0x40400000, 0x400000, PTE_P | PTE_W, 2);
	alias = smc_page + VA + 0x40000000;
	for (u32 i = 0; i < 100; i++) {
		smc_put(alias + 256, i);
		CHECK_EQ(smc_call(smc_page + 256), i);
	}
}

static void
smc_string(void)
{
	u8 image[16];

	for (u32 i = 0; i < 200; i++) {
		smc_put(image, i);
		memcpy(smc_page + 64, image, 6);
		CHECK_EQ(smc_call(smc_page + 64), i);
	}
	memset(smc_page, 0x90, PAGE);
	smc_put(smc_page + 1000, 5);
	CHECK_EQ(smc_call(smc_page), 5);
	/* LOCK CMPXCHG, an SSE store and a push change code as well. */
	__asm__ volatile("lock cmpxchgb %b1, (%0)"
			 :
			 : "r"(smc_page + 1001), "q"(9), "a"(5)
			 : "memory", "cc");
	CHECK_EQ(smc_call(smc_page), 9);
	smc_put(image, 0x5e5e);
	memset(image + 6, 0x90, 10);
	__asm__ volatile("movups %1, %%xmm0; movups %%xmm0, (%0)"
			 :
			 : "r"(smc_page + 1000), "m"(image)
			 : "memory");
	CHECK_EQ(smc_call(smc_page), 0x5e5e);
	__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp; push %1; mov %%rbx, %%rsp"
			 :
			 : "r"(smc_page + 1008), "r"(*(u64 *)(void *)(smc_page + 1000) ^ 0x100)
			 : "rbx", "memory");
	CHECK_EQ(smc_call(smc_page), 0x5e5f);
}

/* A call whose return address is pushed over code, and many functions in one page. */
static void
smc_many(void)
{
	for (u32 i = 0; i < 400; i++)
		smc_put(smc_page + 8 * i, i);
	for (u32 round = 0; round < 20; round++) {
		u32 changed = round * 17 % 400;

		for (u32 i = 0; i < 400; i++)
			if (smc_call(smc_page + 8 * i) != i) {
				print("     function %u, %u changed\n", i, changed);
				CHECK_EQ(smc_call(smc_page + 8 * i), i);
			}
		smc_put(smc_page + 8 * changed, 7);
		CHECK_EQ(smc_call(smc_page + 8 * changed), 7);
		smc_put(smc_page + 8 * changed, changed);
	}
	CHECK_EQ(smc_call(smc_page + 8 * 399), 399);
}

/* A write that faults half way into a code page must leave the code alone. */
static void
smc_fault(void)
{
	u8 *at = (u8 *)(VA + 0x200000);
	struct trap t;

	paging_map((uptr)at, (uptr)smc_page, PTE_P | PTE_W, 1);
	*paging_entry(cpu_read_cr3(), (uptr)at + PAGE, 1) = 0;
	cpu_invlpg((uptr)at + PAGE);
	smc_put(smc_page + PAGE - 6, 0x1234);
	CHECK_EQ(smc_call(smc_page + PAGE - 6), 0x1234);
	t = TRY(*(volatile u64 *)(void *)(at + PAGE - 6) = 0);
	CHECK_TRAP(t, VEC_PF, PF_W);
	CHECK_EQ(t.cr2, (uptr)at + PAGE);
	CHECK_EQ(smc_call(smc_page + PAGE - 6), 0x1234);
}

void
guest_main(void)
{
	smc_page = page_alloc(2);
	smc_simple();
	smc_next();
	smc_loop();
	smc_cross_page();
	smc_alias();
	smc_string();
	smc_many();
	smc_fault();
}
