/*
 * 32-bit paging: two-level tables with 4 KiB and 4 MiB pages, PAE with 4 KiB and
 * 2 MiB pages and NX, page-directory pointers as they are loaded, global pages,
 * accessed and dirty bits, error codes; paging switched off and on again.
 * bits: 32
 */
#include "lib/paging.h"
#include "lib/trap.h"

#define VA 0x40000000u

static u32 *paging_directory;
static u64 *paging_pdpt, *paging_directories;

static u32
paging_read(u32 at)
{
	return *(volatile u32 *)at;
}

static void
paging_write(u32 at, u32 value)
{
	*(volatile u32 *)at = value;
}

static void
paging_off(void)
{
	cpu_write_cr0(cpu_read_cr0() & ~CR0_PG);
}

static void
paging_on(uptr cr3)
{
	cpu_write_cr3(cr3);
	cpu_write_cr0(cpu_read_cr0() | CR0_PG | CR0_WP);
}

static USER_CODE uptr
paging_user_read(uptr at)
{
	return *(volatile u32 *)at;
}

static USER_CODE uptr
paging_user_write(uptr at)
{
	*(volatile u32 *)at = 1;
	return 0;
}

/* Two levels; the first 64 MiB one to one by 4 KiB pages, open to the user. */
static void
paging_small(void)
{
	volatile u32 *table = page_alloc(1);
	u32 *page = page_alloc(2);
	struct trap t;

	paging_directory = page_alloc(1);
	for (u32 i = 0; i < 16; i++) {
		u32 *low = page_alloc(1);

		for (u32 k = 0; k < 1024; k++)
			low[k] = i << 22 | k << 12 | 7;
		paging_directory[i] = (u32)low | 7;
	}
	paging_directory[VA >> 22] = (u32)table | 7;
	page[0] = 0x1111;
	page[1024] = 0x2222;
	paging_on((uptr)paging_directory);
	t = TRY(paging_read(VA));
	CHECK_TRAP(t, VEC_PF, 0);
	CHECK_EQ(t.cr2, VA);
	table[0] = (u32)page | 1;
	CHECK_EQ(paging_read(VA), 0x1111);
	CHECK_EQ(table[0] & 0x60, 0x20);
	t = TRY(paging_write(VA + 4, 1));
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	CHECK_EQ(t.cr2, VA + 4);
	table[0] = (u32)page | 3;
	cpu_invlpg(VA);
	paging_write(VA + 4, 5);
	CHECK_EQ(page[1], 5);
	CHECK_EQ(table[0] & 0x60, 0x60);
	t = user_run(paging_user_read, VA);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_U);
	table[0] = (u32)page | 5;
	cpu_invlpg(VA);
	t = user_run(paging_user_read, VA);
	CHECK_TRAP(t, VEC_USER_RETURN, 0);
	CHECK_EQ(t.ax, 0x1111);
	t = user_run(paging_user_write, VA);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W | PF_U);
	table[0] = (u32)(page + 1024) | 7;
	cpu_flush_tlb();
	CHECK_EQ(paging_read(VA), 0x2222);
	/* Without WP the kernel writes where only the user may not. */
	table[0] = (u32)page | 5;
	cpu_invlpg(VA);
	cpu_write_cr0(cpu_read_cr0() & ~CR0_WP);
	t = TRY(paging_write(VA, 9));
	CHECK_NO_TRAP(t);
	cpu_write_cr0(cpu_read_cr0() | CR0_WP);
	CHECK_EQ(page[0], 9);
}

static void
paging_pse(void)
{
	u8 *memory = page_alloc_aligned(1, 0x400000);
	volatile u32 *entry = (u32 *)&paging_directory[(VA >> 22) + 1];
	u32 at = VA + 0x400000;
	struct trap t;

	*(u32 *)(void *)memory = 0x4444;
	*entry = (u32)memory | 0x83;
	t = TRY(paging_read(at)); /* CR4.PSE off: the bit is ignored, this is a table of zeros */
	CHECK(t.vector == VEC_PF);
	cpu_write_cr4(cpu_read_cr4() | CR4_PSE);
	cpu_flush_tlb();
	CHECK_EQ(paging_read(at), 0x4444);
	CHECK_EQ(*entry & 0x60, 0x20);
	paging_write(at + 0x3ff000, 0x55);
	CHECK_EQ(*(u32 *)(void *)(memory + 0x3ff000), 0x55);
	CHECK_EQ(*entry & 0x60, 0x60);
	*entry = (u32)memory | 0x81;
	cpu_invlpg(at + 0x12345);
	t = TRY(paging_write(at + 0x1000, 1));
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	*entry = 0;
	cpu_invlpg(at);
	t = TRY(paging_read(at + 8));
	CHECK_TRAP(t, VEC_PF, 0);
	paging_off();
	CHECK_EQ(paging_read((u32)memory), 0x4444);
	paging_on((uptr)paging_directory);
	CHECK_EQ(paging_read((u32)memory), 0x4444);
	paging_off();
}

static void
paging_pae(void)
{
	volatile u64 *table = page_alloc(1);
	u32 *page = page_alloc(1);
	volatile u64 *big;
	struct trap t;

	paging_pdpt = page_alloc(1);
	paging_directories = page_alloc(4);
	for (u32 i = 0; i < 4; i++)
		paging_pdpt[i] = (u32)(paging_directories + 512 * i) | 1;
	for (u32 i = 0; i < 32; i++)
		paging_directories[i] = i << 21 | 0x87;
	paging_directories[512] = (u32)table | 7; /* VA */
	big = &paging_directories[513];
	cpu_write_cr4(cpu_read_cr4() | CR4_PAE);
	cpu_write_msr(MSR_EFER, cpu_read_msr(MSR_EFER) | EFER_NXE);
	paging_on((uptr)paging_pdpt);
	CHECK(!(cpu_read_msr(MSR_EFER) & EFER_LMA));
	page[0] = 0xc3;
	t = TRY(paging_read(VA));
	CHECK_TRAP(t, VEC_PF, 0);
	table[0] = (u32)page | 3;
	CHECK_EQ(paging_read(VA), 0xc3);
	t = TRY(((void (*)(void))VA)());
	CHECK_NO_TRAP(t);
	table[0] = (u32)page | 3 | PTE_NX;
	cpu_invlpg(VA);
	t = TRY(((void (*)(void))VA)());
	CHECK_TRAP(t, VEC_PF, PF_P | PF_I);
	CHECK_EQ(t.cr2, VA);
	CHECK_EQ(paging_read(VA), 0xc3);
	*big = 0x400000 | 0x83;
	CHECK_EQ(paging_read(VA + 0x200000), paging_read(0x400000));
	CHECK_EQ(*big & 0x60, 0x20);
	paging_pdpt[1] = 0; /* counts only when CR3 is loaded */
	cpu_write_cr3((uptr)paging_pdpt);
	t = TRY(paging_read(VA));
	CHECK_TRAP(t, VEC_PF, 0);
	paging_pdpt[1] = (u32)(paging_directories + 512) | 1 | 1 << 5; /* reserved bit 5 */
	t = TRY(cpu_write_cr3((uptr)paging_pdpt));
	if (!guest_on_tcg()) /* it reads the pointers at each walk, and checks nothing */
		CHECK_TRAP(t, VEC_GP, 0);
	paging_pdpt[1] = (u32)(paging_directories + 512) | 1;
	cpu_write_cr3((uptr)paging_pdpt);
	CHECK_EQ(paging_read(VA), 0xc3);
	/* An address beyond 4 GiB has no RAM here, but is legal. */
	table[1] = 1ull << 35 | 3;
	t = TRY(paging_read(VA + 0x1000));
	CHECK(t.vector == TRAP_NONE || t.error == (PF_P | PF_RSVD));
	paging_off();
	cpu_write_cr4(cpu_read_cr4() & ~CR4_PAE);
}

static void
paging_global(void)
{
	volatile u32 *table = page_alloc(1);
	u32 *page = page_alloc(2);

	page[0] = 1;
	page[1024] = 2;
	paging_directory[VA >> 22] = (u32)table | 7;
	cpu_write_cr4(cpu_read_cr4() | CR4_PGE);
	paging_on((uptr)paging_directory);
	table[0] = (u32)page | 0x103;
	CHECK_EQ(paging_read(VA), 1);
	table[0] = (u32)(page + 1024) | 0x103;
	cpu_write_cr4(cpu_read_cr4() & ~CR4_PGE);
	CHECK_EQ(paging_read(VA), 2);
	paging_off();
}

void
guest_main(void)
{
	paging_small();
	paging_pse();
	paging_pae();
	paging_global();
}
