/*
 * Direct branches from one page to another: what is there may be remapped, changed,
 * taken away, be something else for the same code at another address or in
 * another address space, and loops over several pages are interrupted.
 */
#include "lib/apic.h"
#include "lib/paging.h"
#include "lib/trap.h"

#define VA PAGING_TEST
#define VA2 (PAGING_TEST + 0x5000000)
enum { VECTOR = 0x50, HOT = 500 };

/* Where on the first page what kind of branch to the second one is. */
enum { CALL = 16, JMP = 64, TAKEN = 96, NOT_TAKEN = 128, LOOP = 192 };

static u8 *links_from, *links_to[3];
static volatile u32 links_stop;

/* A 32-bit displacement at AT that leads to the start of the second page, or OFFSET from there. */
static void
links_displacement(u32 at, u32 offset)
{
	u32 disp = (u32)PAGE + offset - (at + 4);

	memcpy(links_from + at, &disp, 4);
}

static void
links_make_from(void)
{
	static const u8 call[] = {0xe8, 0, 0, 0, 0, 0xc3};
	static const u8 jump[] = {0xe9};
	static const u8 taken[] = {0x31, 0xc0, 0x0f, 0x84};		     /* xor eax, eax; je */
	static const u8 not_taken[] = {0x31, 0xc0, 0x0f, 0x85, 0, 0,   0, 0, /* jne */
				       0xb8, 77,   0,	 0,    0, 0xc3};

	memcpy(links_from + CALL, call, sizeof(call));
	links_displacement(CALL + 1, 0);
	memcpy(links_from + JMP, jump, sizeof(jump));
	links_displacement(JMP + 1, 0);
	memcpy(links_from + TAKEN, taken, sizeof(taken));
	links_displacement(TAKEN + 4, 0);
	memcpy(links_from + NOT_TAKEN, not_taken, sizeof(not_taken));
	links_displacement(NOT_TAKEN + 4, 0);
	memcpy(links_from + LOOP, jump, sizeof(jump));
	links_displacement(LOOP + 1, 512);
}

/* mov eax, VALUE; ret */
static void
links_make_to(u8 *page, u32 value)
{
	page[0] = 0xb8;
	memcpy(page + 1, &value, 4);
	page[5] = 0xc3;
	BARRIER();
}

static u32
links_call(uptr at)
{
	return ((u32(*)(void))at)();
}

static void
links_check(uptr va, u32 value)
{
	CHECK_EQ(links_call(va + CALL), value);
	CHECK_EQ(links_call(va + JMP), value);
	CHECK_EQ(links_call(va + TAKEN), value);
	CHECK_EQ(links_call(va + NOT_TAKEN), 77);
}

static void
links_hot(uptr va, u32 value)
{
	for (int i = 0; i < HOT; i++)
		if (links_call(va + CALL) != value || links_call(va + JMP) != value ||
		    links_call(va + TAKEN) != value)
			CHECK(false);
}

static void
links_remapped(void)
{
	for (u32 i = 0; i < 60; i++) {
		paging_map(VA + PAGE, (uptr)links_to[i % 3], PTE_P | PTE_W, 1);
		links_check(VA, i % 3 + 1);
	}
	links_hot(VA, 3);
	*paging_entry(cpu_read_cr3(), VA + PAGE, 1) = (uptr)links_to[0] | PTE_P;
	cpu_flush_tlb();
	links_hot(VA, 1);
}

static void
links_changed(void)
{
	for (u32 i = 0; i < 100; i++) {
		links_make_to(links_to[0], 1000 + i);
		links_check(VA, 1000 + i);
		links_check(VA, 1000 + i);
	}
	links_hot(VA, 1099);
	links_make_to(links_to[0], 1);
	links_hot(VA, 1);
	/* The branch itself. */
	links_displacement(JMP + 1, 1024);
	links_make_to(links_to[0] + 1024, 5);
	CHECK_EQ(links_call(VA + JMP), 5);
	links_displacement(JMP + 1, 0);
	links_check(VA, 1);
}

static void
links_taken_away(void)
{
	uptr sp = 0;
	struct trap t;

	for (int i = 0; i < 20; i++) {
		links_check(VA, 1);
		*paging_entry(cpu_read_cr3(), VA + PAGE, 1) = 0;
		cpu_invlpg(VA + PAGE);
		t = TRY(links_call(VA + JMP));
		CHECK_TRAP(t, VEC_PF, PF_I);
		CHECK_EQ(t.ip, VA + PAGE);
		CHECK_EQ(t.cr2, VA + PAGE);
		t = TRY(__asm__ volatile("mov %%rsp, %0; call *%1"
					 : "=m"(sp)
					 : "r"(VA + CALL)
					 : "rax", "memory"));
		CHECK_TRAP(t, VEC_PF, PF_I);
		CHECK_EQ(t.ip, VA + PAGE);
		CHECK_EQ(t.sp, sp - 16);
		paging_map(VA + PAGE, (uptr)links_to[0], PTE_P | PTE_NX, 1);
		t = TRY(links_call(VA + JMP));
		CHECK_TRAP(t, VEC_PF, PF_P | PF_I);
		paging_map(VA + PAGE, (uptr)links_to[0], PTE_P, 1);
	}
}

/* The same page twice, with another one behind it. */
static void
links_alias(void)
{
	paging_map(VA2, (uptr)links_from, PTE_P | PTE_W, 1);
	paging_map(VA2 + PAGE, (uptr)links_to[1], PTE_P | PTE_W, 1);
	for (int i = 0; i < HOT; i++) {
		links_check(VA, 1);
		links_check(VA2, 2);
	}
	for (int i = 0; i < 5; i++) {
		links_hot(VA2, 2);
		links_hot(VA, 1);
	}
	for (u32 i = 0; i < 50; i++) {
		links_make_to(links_to[1], 50 + i);
		links_check(VA2, 50 + i);
		links_check(VA, 1);
	}
	links_make_to(links_to[1], 2);
}

/* The same address in another address space. */
static void
links_spaces(void)
{
	u64 here = cpu_read_cr3(), other = paging_clone();

	*paging_entry(other, VA, 4) = 0;
	*paging_entry(other, VA, 1) = (uptr)links_from | PTE_P | PTE_W;
	*paging_entry(other, VA + PAGE, 1) = (uptr)links_to[2] | PTE_P | PTE_W;
	for (int i = 0; i < 100; i++) {
		links_check(VA, 1);
		cpu_write_cr3(other);
		links_check(VA, 3);
		cpu_write_cr3(here);
	}
}

static void
links_interrupt(struct trap_frame *f)
{
	(void)f;
	links_stop = 1;
	apic_eoi();
}

/* Round and round over two pages: jmp; cmp dword [rdi], 0; je back. */
static void
links_loop(void)
{
	static const u8 code[] = {0x83, 0x3f, 0x00, 0x0f, 0x84};
	static const u8 ret = 0xc3;
	u32 disp = (u32)LOOP - ((u32)PAGE + 512 + (u32)sizeof(code) + 4);

	memcpy(links_to[0] + 512, code, sizeof(code));
	memcpy(links_to[0] + 512 + sizeof(code), &disp, 4);
	memcpy(links_to[0] + 512 + sizeof(code) + 4, &ret, 1);
	trap_set_handler(VECTOR, links_interrupt);
	apic_enable();
	apic_write(APIC_TIMER_DIVIDE, 3);
	apic_write(APIC_LVT_TIMER, VECTOR);
	for (int i = 0; i < 20; i++) {
		links_stop = 0;
		apic_write(APIC_TIMER_INITIAL, 100000);
		__asm__ volatile("sti; call *%0; cli"
				 :
				 : "r"(VA + LOOP), "D"(&links_stop)
				 : "memory", "cc", "rax");
		CHECK_EQ(links_stop, 1);
	}
}

void
guest_main(void)
{
	links_from = page_alloc(1);
	for (u32 i = 0; i < 3; i++) {
		links_to[i] = page_alloc(1);
		links_make_to(links_to[i], i + 1);
	}
	links_make_from();
	paging_map(VA, (uptr)links_from, PTE_P | PTE_W, 1);
	links_remapped();
	links_changed();
	links_taken_away();
	links_alias();
	links_spaces();
	links_loop();
}
