/*
 * Device registers under instructions that are seldom used on them: push, pop,
 * movs, stos, lods, xchg, cmpxchg, read-modify-write, SSE moves, calls through
 * memory, test and compare, bit tests. On the HPET's main counter (64 bits,
 * stopped, so that it holds what is written) and the IOAPIC's select register.
 */
#include "lib/apic.h"
#include "lib/paging.h"
#include "lib/trap.h"

#define HPET 0xfed00000ul
#define COUNTER (HPET + 0xf0)

static void
mmio_set(u64 value)
{
	*(volatile u64 *)COUNTER = value;
}

static u64
mmio_get(void)
{
	return *(volatile u64 *)COUNTER;
}

static void
mmio_plain(void)
{
	u64 value = 0;

	mmio_set(0x1122334455667788);
	CHECK_EQ(mmio_get(), 0x1122334455667788);
	CHECK_EQ(*(volatile u32 *)COUNTER, 0x55667788);
	CHECK_EQ(*(volatile u32 *)(COUNTER + 4), 0x11223344);
	*(volatile u32 *)(COUNTER + 4) = 0xa;
	CHECK_EQ(mmio_get(), 0xa55667788);
	__asm__ volatile("movslq (%1), %0" : "=r"(value) : "r"(COUNTER));
	CHECK_EQ(value, 0x55667788);
	__asm__ volatile("bswap %%eax; movl (%1), %%eax" : "+a"(value) : "r"(COUNTER));
	CHECK_EQ(value, 0x55667788);
	__asm__ volatile("movq $-5, (%0)" : : "r"(COUNTER) : "memory");
	CHECK_EQ(mmio_get(), (u64)-5);
	__asm__ volatile("mov $0x99, %%eax; movabs %%eax, 0xfed000f0" : : : "rax", "memory");
	CHECK_EQ(mmio_get(), 0xffffffff00000099);
}

static void
mmio_modify(void)
{
	u64 value, flags;

	mmio_set(100);
	__asm__ volatile("addq $5, (%0)" : : "r"(COUNTER) : "memory", "cc");
	CHECK_EQ(mmio_get(), 105);
	__asm__ volatile("negq (%0)" : : "r"(COUNTER) : "memory", "cc");
	CHECK_EQ(mmio_get(), (u64)-105);
	__asm__ volatile("notq (%0); shlq $4, (%0)" : : "r"(COUNTER) : "memory", "cc");
	CHECK_EQ(mmio_get(), 104 << 4);
	__asm__ volatile("lock incq (%0); lock orq $1, (%0)" : : "r"(COUNTER) : "memory", "cc");
	CHECK_EQ(mmio_get(), (104 << 4) + 1);
	value = 7;
	__asm__ volatile("xchgq %0, (%1)" : "+r"(value) : "r"(COUNTER) : "memory");
	CHECK_EQ(value, (104 << 4) + 1);
	CHECK_EQ(mmio_get(), 7);
	value = 7;
	__asm__ volatile("lock cmpxchgq %2, (%1)"
			 : "+a"(value)
			 : "r"(COUNTER), "r"(9ul)
			 : "memory", "cc");
	CHECK_EQ(mmio_get(), 9);
	__asm__ volatile("lock cmpxchgq %2, (%1)"
			 : "+a"(value)
			 : "r"(COUNTER), "r"(1ul)
			 : "memory", "cc");
	CHECK_EQ(value, 9);
	CHECK_EQ(mmio_get(), 9);
	value = 3;
	__asm__ volatile("lock xaddq %0, (%1)" : "+r"(value) : "r"(COUNTER) : "memory", "cc");
	CHECK_EQ(value, 9);
	CHECK_EQ(mmio_get(), 12);
	__asm__ volatile("btsq $40, (%0); btrq $2, (%0)" : : "r"(COUNTER) : "memory", "cc");
	CHECK_EQ(mmio_get(), (1ul << 40) + 8);
	__asm__ volatile("cmpq %2, (%1); pushf; pop %0"
			 : "=r"(flags)
			 : "r"(COUNTER), "r"((1ul << 40) + 8)
			 : "cc");
	CHECK(flags & EFLAGS_ZF);
	__asm__ volatile("testl $8, (%1); pushf; pop %0" : "=r"(flags) : "r"(COUNTER) : "cc");
	CHECK(!(flags & EFLAGS_ZF));
	mmio_set(0x80);
	__asm__ volatile("imulq $3, (%1), %0" : "=r"(value) : "r"(COUNTER) : "cc");
	CHECK_EQ(value, 0x180);
}

static void
mmio_stack(void)
{
	u64 value = 0;

	mmio_set(0x4242);
	__asm__ volatile("pushq (%1); pop %0" : "=r"(value) : "r"(COUNTER) : "memory");
	CHECK_EQ(value, 0x4242);
	__asm__ volatile("push %1; popq (%0)" : : "r"(COUNTER), "r"(0x777ul) : "memory");
	CHECK_EQ(mmio_get(), 0x777);
	/* The stack itself on a device register. */
	__asm__ volatile("mov %%rsp, %%rbx; mov %1, %%rsp; push %2; pop %0; mov %%rbx, %%rsp"
			 : "=r"(value)
			 : "r"(COUNTER + 8), "r"(0x5150ul)
			 : "rbx", "memory");
	CHECK_EQ(value, 0x5150);
	CHECK_EQ(mmio_get(), 0x5150);
	__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp; call 1f\n1:\tmov %%rbx, %%rsp\n\t"
			 "movq $1b, trap_mark"
			 :
			 : "r"(COUNTER + 8)
			 : "rbx", "memory");
	CHECK_EQ(mmio_get(), trap_mark);
	mmio_set((uptr) && out);
	__asm__ goto volatile("jmp *(%0)" : : "r"(COUNTER) : : out);
	CHECK(false);
out:
	CHECK(true);
}

static void
mmio_strings(void)
{
	u64 words[2] = {0x1234567, 0x89abcdef};
	u64 to[2] = {0, 0};
	uptr si, di, cx;

	si = (uptr)words;
	di = COUNTER;
	__asm__ volatile("movsq" : "+S"(si), "+D"(di) : : "memory");
	CHECK_EQ(mmio_get(), 0x1234567);
	CHECK_EQ(si, (uptr)words + 8);
	CHECK_EQ(di, COUNTER + 8);
	si = COUNTER;
	di = (uptr)to;
	cx = 2;
	__asm__ volatile("rep movsl" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
	CHECK_EQ(to[0], 0x1234567);
	CHECK_EQ(cx, 0);
	di = COUNTER;
	__asm__ volatile("stosq" : "+D"(di) : "a"(0x99ul) : "memory");
	CHECK_EQ(mmio_get(), 0x99);
	si = COUNTER;
	__asm__ volatile("lodsq" : "+S"(si), "=a"(cx) : : "memory");
	CHECK_EQ(cx, 0x99);
	/* Device to device: both sides of one instruction. */
	*(volatile u32 *)IOAPIC_MMIO = 1;
	si = IOAPIC_MMIO;
	di = COUNTER;
	__asm__ volatile("movsl" : "+S"(si), "+D"(di) : : "memory");
	CHECK_EQ(mmio_get(), 1);
	si = (uptr)words;
	di = COUNTER;
	words[0] = 1;
	__asm__ volatile("cmpsq; pushf; pop %2" : "+S"(si), "+D"(di), "=r"(cx) : : "memory", "cc");
	CHECK(cx & EFLAGS_ZF);
}

static void
mmio_sse(void)
{
	static const u64 words[2] ALIGNED(16) = {0xfeed, 0xbeef};
	u64 value;

	if (guest_on_kvm()) /* it emulates few instructions of vectors and of x87 */
		return;
	__asm__ volatile("movq %1, %%xmm0; movq %%xmm0, (%0)"
			 :
			 : "r"(COUNTER), "m"(words[0])
			 : "memory");
	CHECK_EQ(mmio_get(), 0xfeed);
	mmio_set(0x1212);
	__asm__ volatile("movq (%1), %%xmm1; movq %%xmm1, %0" : "=r"(value) : "r"(COUNTER));
	CHECK_EQ(value, 0x1212);
	__asm__ volatile("cvtsi2sdq (%1), %%xmm1; cvttsd2si %%xmm1, %0"
			 : "=r"(value)
			 : "r"(COUNTER));
	CHECK_EQ(value, 0x1212);
	__asm__ volatile("fildll (%1); fistpll %0" : "=m"(value) : "r"(COUNTER));
	CHECK_EQ(value, 0x1212);
	__asm__ volatile("fildll %1; fistpll (%0)" : : "r"(COUNTER), "m"(words[1]) : "memory");
	CHECK_EQ(mmio_get(), 0xbeef);
}

static void
mmio_ioapic(void)
{
	u32 version = ioapic_read(1), value = 0x10;

	__asm__ volatile("xchgl %0, (%1)" : "+r"(value) : "r"(IOAPIC_MMIO) : "memory");
	CHECK_EQ(*(volatile u32 *)IOAPIC_MMIO, 0x10);
	__asm__ volatile("movl $1, (%0)" : : "r"(IOAPIC_MMIO) : "memory");
	value = *(volatile u32 *)(IOAPIC_MMIO + 0x10);
	CHECK_EQ(value, version);
	/* A read with no device behind it: all ones, as on PCI (QEMU says 0). */
	if (guest_on_tcg())
		return;
	CHECK_EQ(*(volatile u32 *)0xfe000000ul, 0xffffffff);
	CHECK_EQ(*(volatile u8 *)0xfe000001ul, 0xff);
}

/* A device page through a mapping of its own, and then RAM in its place. */
static void
mmio_mapping(void)
{
	u64 *page = page_alloc(1);

	paging_map(PAGING_TEST, HPET, PTE_P | PTE_W | PTE_PCD, 1);
	mmio_set(0x31337);
	CHECK_EQ(*(volatile u64 *)(PAGING_TEST + 0xf0), 0x31337);
	page[0xf0 / 8] = 4;
	paging_map(PAGING_TEST, (uptr)page, PTE_P | PTE_W, 1);
	CHECK_EQ(*(volatile u64 *)(PAGING_TEST + 0xf0), 4);
	paging_map(PAGING_TEST, HPET, PTE_P | PTE_PCD, 1);
	CHECK_EQ(*(volatile u64 *)(PAGING_TEST + 0xf0), 0x31337);
	struct trap t = TRY(*(volatile u64 *)(PAGING_TEST + 0xf0) = 1);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	CHECK_EQ(mmio_get(), 0x31337);
}

void
guest_main(void)
{
	*(volatile u32 *)(HPET + 0x10) &= ~1u; /* stopped */
	mmio_plain();
	mmio_modify();
	mmio_stack();
	mmio_strings();
	mmio_sse();
	mmio_ioapic();
	mmio_mapping();
}
