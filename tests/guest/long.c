/*
 * Long mode: page sizes 4 KiB, 2 MiB and 1 GiB, canonical addresses, page faults
 * with their codes and CR2, accessed and dirty bits, reserved bits, R8 to R15.
 */
#include "lib/paging.h"
#include "lib/trap.h"

#define VA PAGING_TEST
#define VA2 (PAGING_TEST + 0x40000000)
#define VA3 (PAGING_TEST + 0x80000000)

static u64
long_read(uptr at)
{
	return *(volatile u64 *)at;
}

static void
long_write(uptr at, u64 value)
{
	*(volatile u64 *)at = value;
}

static void
long_small_pages(void)
{
	u64 *a = page_alloc(1), *b = page_alloc(1);
	struct trap t;

	a[0] = 0xaaaa;
	b[0] = 0xbbbb;
	t = TRY(long_read(VA + 8));
	CHECK_TRAP(t, VEC_PF, 0);
	CHECK_EQ(t.cr2, VA + 8);
	paging_map(VA, (uptr)a, PTE_P | PTE_W, 1);
	CHECK_EQ(long_read(VA), 0xaaaa);
	long_write(VA + 16, 1);
	CHECK_EQ(a[2], 1);
	paging_map(VA, (uptr)b, PTE_P, 1);
	CHECK_EQ(long_read(VA), 0xbbbb);
	t = TRY(long_write(VA, 2)); /* CR0.WP is on */
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	CHECK_EQ(t.cr2, VA);
	CHECK_EQ(b[0], 0xbbbb);
	cpu_write_cr0(cpu_read_cr0() & ~CR0_WP);
	t = TRY(long_write(VA, 3));
	CHECK_NO_TRAP(t);
	cpu_write_cr0(cpu_read_cr0() | CR0_WP);
	CHECK_EQ(b[0], 3);
}

static void
long_large_pages(void)
{
	u8 *memory = page_alloc_aligned(1024, 0x200000);

	*(u64 *)(void *)(memory + 0x1ff008) = 0x1234;
	paging_map(VA2, (uptr)memory, PTE_P | PTE_W, 2);
	CHECK_EQ(long_read(VA2 + 0x1ff008), 0x1234);
	long_write(VA2 + 0x100000, 0x77);
	CHECK_EQ(*(u64 *)(void *)(memory + 0x100000), 0x77);
	CHECK(*paging_entry(cpu_read_cr3(), VA2, 2) & PTE_D);
	if (cpu_cpuid(0x80000001, 0).d & 1u << 26) {
		paging_map(VA3, 0, PTE_P | PTE_W, 3);
		CHECK_EQ(long_read(VA3 + (uptr)memory + 0x1ff008), 0x1234);
		long_write(VA3 + (uptr)memory + 0x1ff010, 0x88);
		CHECK_EQ(*(u64 *)(void *)(memory + 0x1ff010), 0x88);
	} else {
		check_skip("1 GiB pages");
	}
}

static void
long_accessed_dirty(void)
{
	volatile u64 *entry = paging_entry(cpu_read_cr3(), VA + PAGE, 1);
	u64 *page = page_alloc(1);

	paging_map(VA + PAGE, (uptr)page, PTE_P | PTE_W, 1);
	CHECK_EQ(*entry & (PTE_A | PTE_D), 0);
	(void)long_read(VA + PAGE);
	CHECK_EQ(*entry & (PTE_A | PTE_D), PTE_A);
	long_write(VA + PAGE, 1);
	CHECK_EQ(*entry & (PTE_A | PTE_D), PTE_A | PTE_D);
	*entry &= ~(PTE_A | PTE_D);
	cpu_invlpg(VA + PAGE);
	__asm__ volatile("lock addq $1, (%0)" : : "r"(VA + PAGE) : "memory");
	CHECK_EQ(*entry & (PTE_A | PTE_D), PTE_A | PTE_D);
	CHECK_EQ(page[0], 2);
	/* The tables above are accessed too. */
	CHECK(*paging_entry(cpu_read_cr3(), VA + PAGE, 2) & PTE_A);
	CHECK(*paging_entry(cpu_read_cr3(), VA + PAGE, 4) & PTE_A);
}

static void
long_reserved(void)
{
	u64 phys = cpu_cpuid(0x80000008, 0).a & 0xff;
	volatile u64 *entry = paging_entry(cpu_read_cr3(), VA + 2 * PAGE, 1);
	/* TCG leaves out P, which RSVD implies (Intel SDM 3, 4.7). */
	u32 present = guest_on_tcg() ? 0 : PF_P;
	struct trap t;

	if (phys < 52) {
		*entry = 1ull << phys | PTE_P | PTE_W;
		cpu_invlpg(VA + 2 * PAGE);
		t = TRY(long_read(VA + 2 * PAGE));
		CHECK_TRAP(t, VEC_PF, present | PF_RSVD);
		t = TRY(long_write(VA + 2 * PAGE, 1));
		CHECK_TRAP(t, VEC_PF, present | PF_W | PF_RSVD);
	}
	*entry = 0;
	*paging_entry(cpu_read_cr3(), VA2 + 0x200000, 2) = 0x201000 | PTE_P | PTE_PS;
	t = TRY(long_read(VA2 +
			  0x200000)); /* bits 13 to 20 of a 2 MiB page are reserved; 12 is PAT */
	CHECK_NO_TRAP(t);
	*paging_entry(cpu_read_cr3(), VA2 + 0x200000, 2) = 0x202000 | PTE_P | PTE_PS;
	cpu_invlpg(VA2 + 0x200000);
	t = TRY(long_read(VA2 + 0x200000));
	CHECK_TRAP(t, VEC_PF, present | PF_RSVD);
}

static void
long_canonical(void)
{
	struct trap t;
	uptr hole = 0x800000000000;

	t = TRY(long_read(hole));
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(long_read(0xffff7ffffffffff8));
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(long_read(0xffff800000000000));
	CHECK_TRAP(t, VEC_PF, 0);
	CHECK_EQ(t.cr2, 0xffff800000000000);
	/* TCG looks at the first byte only, raises #GP also for the stack, and blames a
	 * jump's target for the jump. */
	if (guest_on_tcg())
		return;
	t = TRY(long_read(hole - 4)); /* its second half is not canonical */
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp\n\t" MARK
				 "push %%rax; mov %%rbx, %%rsp"
				 :
				 : "r"(hole + 64)
				 : "rbx", "memory"));
	CHECK_TRAP(t, VEC_SS, 0);
	t = TRY(__asm__ volatile(MARK "jmp *%0" : : "r"(hole)));
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK_EQ(t.ip, trap_mark);
}

static void
long_registers(void)
{
	u64 a, b;

	__asm__("mov $0x1122334455667788, %%r8; mov $-1, %%r15; mov %%r8d, %%r15d\n\t"
		"mov %%r15, %0; movb $0, %%r8b; mov %%r8, %1"
		: "=&r"(a), "=&r"(b)
		:
		: "r8", "r15");
	CHECK_EQ(a, 0x55667788);
	CHECK_EQ(b, 0x1122334455667700);
}

void
guest_main(void)
{
	trap_set_ist(VEC_SS, 2);
	long_small_pages();
	long_large_pages();
	long_accessed_dirty();
	long_reserved();
	long_canonical();
	long_registers();
}
