/*
 * Accesses across two pages whose second one faults, in loads, stores, read-modify-
 * write, stack operations, strings with REP and unaligned LOCK: nothing of the
 * instruction may have taken effect but what the manuals say (REP stops at an
 * iteration), and it restarts when the page is there.
 */
#include "lib/paging.h"
#include "lib/trap.h"

#define VA (PAGING_TEST + 0x40000000)
#define EDGE (VA + PAGE)

static u8 *cross_pages; /* the two behind VA */

static void
cross_second(u64 flags)
{
	*paging_entry(cpu_read_cr3(), EDGE, 1) = flags ? ((uptr)cross_pages + PAGE) | flags : 0;
	cpu_invlpg(EDGE);
}

static void
cross_fill(void)
{
	for (unsigned i = 0; i < 2 * PAGE; i++)
		cross_pages[i] = (u8)(i * 7 + (i >> 8));
}

static u8
cross_pattern(unsigned i)
{
	return (u8)(i * 7 + (i >> 8));
}

static bool
cross_untouched(void)
{
	for (unsigned i = 0; i < 2 * PAGE; i++)
		if (cross_pages[i] != cross_pattern(i))
			return false;
	return true;
}

static void
cross_fault_at(struct trap t, u32 error, int line)
{
	trap_check(&t, VEC_PF, error, __FILE__, line, "the fault");
	check_equal(t.cr2, EDGE, __FILE__, line, "cr2");
	cross_fill();
}

static void
cross_write_at(struct trap t, u32 error, int line)
{
	check_true(cross_untouched(), __FILE__, line, "memory untouched");
	cross_fault_at(t, error, line);
}

#define cross_check_fault(t, error) cross_fault_at(t, error, __LINE__)
#define cross_check_write(t, error) cross_write_at(t, error, __LINE__)

/* Read and write in one are writes to the check; TCG reads first and sees only that. */
#define cross_check_modify(t, error)                                                               \
	cross_check_write(t, guest_on_tcg() && !((error)&PF_P) ? (error) & ~PF_W : (error))

/* With the second page absent, then read-only. */
static void
cross_writes(u64 flags, u32 error)
{
	uptr at = EDGE - 3;

	cross_fill();
	cross_second(flags);
	cross_check_write(TRY(__asm__ volatile("movl $-1, (%0)" : : "r"(at) : "memory")), error);
	cross_check_write(TRY(__asm__ volatile("movq $-1, (%0)" : : "r"(at) : "memory")), error);
	cross_check_write(TRY(__asm__ volatile("movw $-1, (%0)"
					       :
					       : "r"(at + 2)
					       : "memory")),
			  error);
	cross_check_write(TRY(__asm__ volatile("movups %%xmm0, (%0)"
					       :
					       : "r"(at)
					       : "memory")),
			  error);
	cross_check_modify(TRY(__asm__ volatile("addl $1, (%0)"
						:
						: "r"(at)
						: "memory", "cc")),
			   error);
	cross_check_modify(TRY(__asm__ volatile("notq (%0)" : : "r"(at) : "memory")), error);
	cross_check_modify(TRY(__asm__ volatile("xchgl %%eax, (%0)"
						:
						: "r"(at)
						: "rax", "memory")),
			   error);
	cross_check_modify(TRY(__asm__ volatile("lock incq (%0)"
						:
						: "r"(at)
						: "memory", "cc")),
			   error);
	cross_check_modify(TRY(__asm__ volatile("lock xaddl %%eax, (%0)"
						:
						: "r"(at)
						: "rax", "memory", "cc")),
			   error);
	cross_check_modify(TRY(__asm__ volatile("shldl $3, %%ecx, (%0)"
						:
						: "r"(at)
						: "rcx", "memory", "cc")),
			   error);
	cross_check_write(TRY(__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp; push %%rax"
					       :
					       : "r"(at + 8)
					       : "rbx", "memory")),
			  error);
	cross_check_write(TRY(__asm__ volatile("mov %0, %%rsp; call 1f\n1:"
					       :
					       : "r"(at + 8)
					       : "memory")),
			  error);
	/* These store in several parts; what is written before the fault is not said. */
	cross_check_fault(TRY(__asm__ volatile("sgdt (%0)" : : "r"(at) : "memory")), error);
	cross_check_fault(TRY(__asm__ volatile("fnstenv (%0)" : : "r"(at) : "memory")), error);
	cross_check_fault(TRY(__asm__ volatile("fnsave (%0)" : : "r"(at) : "memory")), error);
	__asm__ volatile("fninit");
	cross_check_fault(TRY(__asm__ volatile("fld1; fstpt (%0)" : : "r"(at) : "memory")), error);
	__asm__ volatile("fninit");
}

static void
cross_reads(void)
{
	uptr at = EDGE - 3;
	u64 value;
	struct trap t;

	cross_fill();
	cross_second(0);
	t = TRY(__asm__ volatile("movl (%0), %%eax" : : "r"(at) : "rax"));
	cross_check_write(t, 0);
	t = TRY(__asm__ volatile("mov $0x55, %%eax; movq (%0), %%rax" : : "r"(at) : "rax"));
	cross_check_write(t, 0);
	CHECK_EQ(t.ax, 0x55);
	t = TRY(__asm__ volatile("mov $7, %%eax; addl (%0), %%eax" : : "r"(at) : "rax"));
	cross_check_write(t, 0);
	CHECK_EQ(t.ax, 7);
	t = TRY(__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp; pop %%rax"
				 :
				 : "r"(at)
				 : "rax", "rbx"));
	CHECK_TRAP(t, VEC_PF, 0);
	t = TRY(__asm__ volatile("movups (%0), %%xmm0" : : "r"(at)));
	cross_check_write(t, 0);
	t = TRY(__asm__ volatile("fldt (%0)" : : "r"(at)));
	cross_check_write(t, 0);
	t = TRY(__asm__ volatile("lidt (%0)" : : "r"(at)));
	cross_check_write(t, 0);
	cross_second(PTE_P);
	__asm__ volatile("movq (%1), %0" : "=r"(value) : "r"(at));
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(value >> (8 * i) & 0xff, cross_pattern((unsigned)PAGE - 3 + i));
}

static void
cross_movs(void)
{
	static u8 from[64];
	struct trap t;

	for (unsigned i = 0; i < sizeof(from); i++)
		from[i] = (u8)(200 + i);
	cross_fill();
	cross_second(0);
	t = TRY(__asm__ volatile(MARK "rep movsb"
				 :
				 : "S"(from), "D"(EDGE - 20), "c"(50ul)
				 : "memory"));
	CHECK_TRAP(t, VEC_PF, PF_W);
	CHECK_EQ(t.cr2, EDGE);
	CHECK_EQ(t.ip, trap_mark);
	CHECK_EQ(t.frame.cx, 30);
	CHECK_EQ(t.frame.di, EDGE);
	CHECK_EQ(t.frame.si, (uptr)from + 20);
	CHECK_EQ(memcmp(cross_pages + PAGE - 20, from, 20), 0);
	/* Elements that cross: the fifth quad does, and is not done in part. */
	cross_fill();
	t = TRY(__asm__ volatile("rep movsq" : : "S"(from), "D"(EDGE - 36), "c"(8ul) : "memory"));
	CHECK_TRAP(t, VEC_PF, PF_W);
	CHECK_EQ(t.frame.cx, 4);
	CHECK_EQ(t.frame.di, EDGE - 4);
	CHECK_EQ(t.frame.si, (uptr)from + 32);
	CHECK_EQ(memcmp(cross_pages + PAGE - 36, from, 32), 0);
	CHECK_EQ(cross_pages[PAGE - 4], cross_pattern((unsigned)PAGE - 4));
	/* Backwards into an absent first page. */
	*paging_entry(cpu_read_cr3(), VA, 1) = 0;
	cpu_invlpg(VA);
	cross_second(PTE_P | PTE_W);
	t = TRY(__asm__ volatile("std; rep movsb; cld"
				 :
				 : "S"(from + 63), "D"(EDGE + 9), "c"(40ul)
				 : "memory"));
	CHECK_TRAP(t, VEC_PF, PF_W);
	CHECK_EQ(t.cr2, EDGE - 1);
	CHECK_EQ(t.frame.cx, 30);
	CHECK_EQ(t.frame.di, EDGE - 1);
	__asm__ volatile("cld");
	paging_map(VA, (uptr)cross_pages, PTE_P | PTE_W, 1);
}

static void
cross_other_strings(void)
{
	struct trap t;

	cross_fill();
	cross_second(0);
	t = TRY(__asm__ volatile("rep stosl"
				 :
				 : "a"(0x11223344), "D"(EDGE - 16), "c"(9ul)
				 : "memory"));
	CHECK_TRAP(t, VEC_PF, PF_W);
	CHECK_EQ(t.frame.cx, 5);
	CHECK_EQ(t.frame.di, EDGE);
	t = TRY(__asm__ volatile("rep lodsb" : : "S"(EDGE - 5), "c"(9ul), "a"(0)));
	CHECK_TRAP(t, VEC_PF, 0);
	CHECK_EQ(t.frame.cx, 4);
	CHECK_EQ(t.frame.si, EDGE);
	CHECK_EQ(t.ax & 0xff, 0x11);
	memset(cross_pages, 0x41, 2 * PAGE);
	t = TRY(__asm__ volatile("repe scasb" : : "a"(0x41), "D"(EDGE - 7), "c"(100ul) : "cc"));
	CHECK_TRAP(t, VEC_PF, 0);
	CHECK_EQ(t.frame.cx, 93);
	CHECK_EQ(t.frame.di, EDGE);
	t = TRY(__asm__ volatile("repne scasb" : : "a"(0x42), "D"(EDGE - 7), "c"(100ul) : "cc"));
	CHECK_EQ(t.frame.cx, 93);
	t = TRY(__asm__ volatile("repe cmpsb"
				 :
				 : "S"(EDGE - 9), "D"(VA), "c"(100ul)
				 : "cc", "memory"));
	CHECK_TRAP(t, VEC_PF, 0);
	CHECK_EQ(t.frame.cx, 91);
	CHECK_EQ(t.frame.si, EDGE);
	CHECK_EQ(t.frame.di, VA + 9);
	/* No count, no access. */
	t = TRY(__asm__ volatile("rep movsb; rep stosb; repe cmpsb"
				 :
				 : "S"(EDGE), "D"(EDGE), "c"(0ul)
				 : "memory", "cc"));
	CHECK_NO_TRAP(t);
}

static unsigned cross_faults;

/* Brings the page in, as a kernel would; the instruction goes on. */
static void
cross_page_in(struct trap_frame *f)
{
	(void)f;
	cross_faults++;
	cross_second(PTE_P | PTE_W);
}

static void
cross_restart(void)
{
	static u8 from[256];
	u64 value;

	for (unsigned i = 0; i < sizeof(from); i++)
		from[i] = (u8)(i ^ 0x5a);
	trap_set_handler(VEC_PF, cross_page_in);
	cross_fill();
	cross_second(0);
	memcpy((void *)(EDGE - 100), from, 200);
	CHECK_EQ(memcmp((void *)(EDGE - 100), from, 200), 0);
	CHECK_EQ(cross_faults, 1);
	cross_second(0);
	*(u64 *)(void *)(cross_pages + PAGE - 4) = 0xffffffff;
	__asm__ volatile("lock incq (%0)" : : "r"(EDGE - 4) : "memory", "cc");
	CHECK_EQ(*(u64 *)(void *)(cross_pages + PAGE - 4), 0x100000000);
	cross_second(0);
	__asm__ volatile("mov %%rsp, %%rbx; mov %1, %%rsp; push %2; pop %0; mov %%rbx, %%rsp"
			 : "=r"(value)
			 : "r"(EDGE + 4), "r"(0x1122334455667788)
			 : "rbx", "memory");
	CHECK_EQ(value, 0x1122334455667788);
	cross_second(0);
	__asm__ volatile(
		"movq $1, %%rax; movq %%rax, %%xmm0; movups %%xmm0, (%0); movups (%0), %%xmm1\n\t"
		"movq %%xmm1, %1"
		:
		: "r"(EDGE - 9), "r"(value)
		: "rax", "memory");
	CHECK_EQ(cross_faults, 4);
	trap_set_handler(VEC_PF, NULL);
}

/* Physically far apart: the second page is not behind the first. */
static void
cross_scattered(void)
{
	u8 *first = page_alloc(1), *gap = page_alloc(3), *second = page_alloc(1);
	u64 value = 0x0102030405060708;

	(void)gap;
	paging_map(VA, (uptr)second, PTE_P | PTE_W, 1);
	paging_map(EDGE, (uptr)first, PTE_P | PTE_W, 1);
	*(volatile u64 *)(EDGE - 3) = value;
	CHECK_EQ(second[PAGE - 3], 8);
	CHECK_EQ(first[0], 5);
	CHECK_EQ(*(volatile u64 *)(EDGE - 3), value);
	__asm__ volatile("lock addq %1, (%0)" : : "r"(EDGE - 3), "r"(0x1000000ul) : "memory", "cc");
	CHECK_EQ(*(volatile u64 *)(EDGE - 3), value + 0x1000000);
	CHECK_EQ(first[0], 6);
	__asm__ volatile("lock cmpxchgq %2, (%1)"
			 : "+a"(value)
			 : "r"(EDGE - 3), "r"(5ul)
			 : "memory", "cc");
	CHECK_EQ(value, 0x0102030406060708);
	CHECK_EQ(*(volatile u64 *)(EDGE - 3), value);
	paging_map(VA, (uptr)cross_pages, PTE_P | PTE_W, 1);
}

/* Code that runs into a page that is not there, also in the middle of an instruction. */
static void
cross_fetch(void)
{
	struct trap t;

	cross_second(0);
	memset(cross_pages, 0x90, PAGE);
	t = TRY(((void (*)(void))(EDGE - 2))());
	CHECK_TRAP(t, VEC_PF, PF_I);
	CHECK_EQ(t.cr2, EDGE);
	CHECK_EQ(t.ip, EDGE);
	cross_pages[PAGE - 2] = 0xb8;
	t = TRY(((void (*)(void))(EDGE - 3))());
	CHECK_TRAP(t, VEC_PF, PF_I);
	CHECK_EQ(t.cr2, EDGE);
	CHECK_EQ(t.ip, EDGE - 2);
	/* One that ends in front of the edge does not touch the other side. */
	cross_pages[PAGE - 2] = 0x90;
	cross_pages[PAGE - 1] = 0xc3;
	t = TRY(((void (*)(void))(EDGE - 2))());
	CHECK_NO_TRAP(t);
}

void
guest_main(void)
{
	trap_set_ist(VEC_PF, 2); /* the stack itself is in the pages at times */
	cross_pages = page_alloc(2);
	paging_map(VA, (uptr)cross_pages, PTE_P | PTE_W, 1);
	cross_reads();
	cross_writes(0, PF_W);
	cross_writes(PTE_P, PF_P | PF_W);
	cross_movs();
	cross_other_strings();
	cross_restart();
	cross_scattered();
	cross_fetch();
}
