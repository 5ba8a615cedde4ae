/*
 * What keeps and what drops translations: INVLPG, MOV CR3, global pages and
 * CR4.PGE, PCIDs with bit 63 of CR3, INVPCID of all four types. Stale entries are
 * allowed to be dropped early, so only "must be gone" is checked, and that
 * entries of different PCIDs do not mix.
 */
#include "lib/paging.h"
#include "lib/trap.h"

#define VA PAGING_TEST
#define CR3_KEEP (1ull << 63)

static u64 *pcid_pages[2];

static u64
pcid_read(void)
{
	return *(volatile u64 *)VA;
}

/* Changes the entry without any flush. */
static void
pcid_set(unsigned page, u64 flags)
{
	*paging_entry(cpu_read_cr3(), VA, 1) = (uptr)pcid_pages[page] | PTE_P | PTE_W | flags;
	BARRIER();
}

static void
pcid_plain(void)
{
	paging_map(VA, (uptr)pcid_pages[0], PTE_P | PTE_W, 1);
	CHECK_EQ(pcid_read(), 100);
	pcid_set(1, 0);
	cpu_invlpg(VA + 5);
	CHECK_EQ(pcid_read(), 101);
	pcid_set(0, 0);
	cpu_flush_tlb();
	CHECK_EQ(pcid_read(), 100);
	/* Not present is never cached: no flush is needed to make it present. */
	*paging_entry(cpu_read_cr3(), VA, 1) = 0;
	cpu_invlpg(VA);
	struct trap t = TRY((void)pcid_read());
	CHECK_TRAP(t, VEC_PF, 0);
	pcid_set(1, 0);
	CHECK_EQ(pcid_read(), 101);
	/* Toggling paging-related bits flushes. */
	pcid_set(0, 0);
	cpu_write_cr4(cpu_read_cr4() ^ CR4_PGE);
	cpu_write_cr4(cpu_read_cr4() ^ CR4_PGE);
	CHECK_EQ(pcid_read(), 100);
}

static void
pcid_global(void)
{
	cpu_write_cr4(cpu_read_cr4() | CR4_PGE);
	pcid_set(0, PTE_G);
	cpu_invlpg(VA);
	CHECK_EQ(pcid_read(), 100);
	pcid_set(1, PTE_G);
	cpu_invlpg(VA); /* drops global ones too */
	CHECK_EQ(pcid_read(), 101);
	pcid_set(0, PTE_G);
	cpu_write_cr4(cpu_read_cr4() & ~CR4_PGE); /* likewise */
	CHECK_EQ(pcid_read(), 100);
	pcid_set(0, 0);
	cpu_flush_tlb();
}

/* Code is translated through the same tables. */
static void
pcid_execute(void)
{
	static const u8 one[] = {0xb8, 1, 0, 0, 0, 0xc3}, two[] = {0xb8, 2, 0, 0, 0, 0xc3};
	u32 (*call)(void) = (u32(*)(void))(VA + 64);

	memcpy((u8 *)pcid_pages[0] + 64, one, sizeof(one));
	memcpy((u8 *)pcid_pages[1] + 64, two, sizeof(two));
	pcid_set(0, 0);
	cpu_invlpg(VA);
	for (unsigned i = 0; i < 50; i++)
		CHECK_EQ(call(), 1);
	pcid_set(1, 0);
	cpu_invlpg(VA);
	CHECK_EQ(call(), 2);
	pcid_set(0, 0);
	cpu_flush_tlb();
	CHECK_EQ(call(), 1);
	pcid_set(0, PTE_NX);
	cpu_invlpg(VA);
	struct trap t = TRY((void)call());
	CHECK_TRAP(t, VEC_PF, PF_P | PF_I);
}

static void
pcid_invpcid(u64 type, u64 pcid, u64 address)
{
	struct {
		u64 pcid, address;
	} descriptor = {pcid, address};

	__asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"(type) : "memory");
}

static void
pcid_contexts(void)
{
	u64 root = cpu_read_cr3() & PTE_ADDRESS;
	u64 other = paging_clone();
	struct trap t;

	cpu_write_cr4(cpu_read_cr4() | CR4_PCIDE);
	/* VA differs between the two: the other has its own lower tables for it. */
	((u64 *)(uptr)other)[VA >> 39] = 0;
	*paging_entry(other, VA, 1) = (uptr)pcid_pages[1] | PTE_P | PTE_W;
	pcid_set(0, 0);
	cpu_flush_tlb();
	for (int i = 0; i < 20; i++) {
		cpu_write_cr3(other | 2 | CR3_KEEP);
		CHECK_EQ(pcid_read(), 101);
		CHECK_EQ(cpu_read_cr3(), other | 2);
		cpu_write_cr3(root | 1 | CR3_KEEP);
		CHECK_EQ(pcid_read(), 100);
	}
	/* Bit 63 clear: the new PCID's entries go. */
	pcid_set(1, 0);
	cpu_write_cr3(root | 1);
	CHECK_EQ(pcid_read(), 101);
	cpu_write_cr3(root | 7);
	CHECK_EQ(pcid_read(), 101);
	cpu_write_cr4(cpu_read_cr4() & ~CR4_PCIDE); /* flushes all; legal with any PCID */
	cpu_write_cr3(root | 0x18);
	t = TRY(cpu_write_cr4(cpu_read_cr4() | CR4_PCIDE)); /* CR3's low bits must be 0 */
	if (!guest_on_tcg())				    /* it does not look at them */
		CHECK_TRAP(t, VEC_GP, 0);
	cpu_write_cr4(cpu_read_cr4() & ~CR4_PCIDE);
	cpu_write_cr3(root);
}

static void
pcid_invalidate(void)
{
	u64 root = cpu_read_cr3() & PTE_ADDRESS;
	struct trap t;

	if (!(cpu_cpuid(7, 0).b & 1u << 10)) {
		t = TRY(pcid_invpcid(2, 0, 0));
		CHECK_TRAP(t, VEC_UD, 0);
		check_skip("INVPCID");
		return;
	}
	for (u64 type = 0; type < 4; type++) {
		pcid_set(0, 0);
		pcid_invpcid(2, 0, 0);
		CHECK_EQ(pcid_read(), 100);
		pcid_set(1, 0);
		pcid_invpcid(type, 0, type == 0 ? VA : 0);
		CHECK_EQ(pcid_read(), 101);
	}
	t = TRY(pcid_invpcid(4, 0, 0));
	CHECK_TRAP(t, VEC_GP, 0);
	t = TRY(pcid_invpcid(0, 0x1000, 0)); /* reserved bits of the descriptor */
	if (!guest_on_tcg())		     /* it does not look at them */
		CHECK_TRAP(t, VEC_GP, 0);
	cpu_write_cr3(root);
}

void
guest_main(void)
{
	for (unsigned i = 0; i < 2; i++) {
		pcid_pages[i] = page_alloc(1);
		pcid_pages[i][0] = 100 + i;
	}
	pcid_plain();
	pcid_global();
	pcid_execute();
	pcid_set(0, 0);
	cpu_invlpg(VA);
	if (cpu_cpuid(1, 0).c & 1u << 17)
		pcid_contexts();
	else
		check_skip("PCID");
	pcid_set(0, 0);
	cpu_flush_tlb();
	pcid_invalidate();
}
