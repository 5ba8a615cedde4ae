/*
 * Page allocation and, for 64-bit guests, page tables (see paging.h).
 */
#include "lib/paging.h"

extern u8 guest_end[];

static uptr page_next;

void *
page_alloc_aligned(unsigned count, uptr align)
{
	uptr at = page_next ? page_next : (uptr)guest_end;

	at = (at + align - 1) & ~(align - 1);
	page_next = at + count * PAGE;
	return memset((void *)at, 0, count * PAGE);
}

void *
page_alloc(unsigned count)
{
	return page_alloc_aligned(count, PAGE);
}

#ifdef __x86_64__
extern u8 user_begin[], user_end[];

static volatile u64 *
paging_split(volatile u64 *entry, int level)
{
	u64 *table = page_alloc(1);
	u64 old = *entry;
	u64 step = 1ull << (12 + 9 * (level - 2));

	if (old & PTE_P)
		for (unsigned i = 0; i < 512; i++)
			table[i] = (level == 2 ? old & ~PTE_PS : old) + i * step;
	*entry = (uptr)table | PTE_P | PTE_W | PTE_U;
	return table;
}

volatile u64 *
paging_entry(u64 cr3, uptr va, int level)
{
	volatile u64 *table = (u64 *)(uptr)(cr3 & PTE_ADDRESS);

	for (int at = 4;; at--) {
		volatile u64 *entry = &table[va >> (12 + 9 * (at - 1)) & 511];

		if (at == level)
			return entry;
		if (!(*entry & PTE_P) || (at < 4 && (*entry & PTE_PS))) {
			table = paging_split(entry, at);
		} else {
			*entry |= PTE_U;
			table = (u64 *)(uptr)(*entry & PTE_ADDRESS);
		}
	}
}

void
paging_map(uptr va, u64 pa, u64 flags, int level)
{
	*paging_entry(cpu_read_cr3(), va, level) = pa | flags | (level > 1 ? PTE_PS : 0);
	cpu_invlpg(va);
}

u64
paging_clone(void)
{
	u64 *top = page_alloc(1);

	memcpy(top, (void *)(cpu_read_cr3() & PTE_ADDRESS), PAGE);
	return (u64)(uptr)top;
}

void
paging_init(void)
{
	for (uptr at = (uptr)user_begin; at < (uptr)user_end; at += PAGE)
		*paging_entry(cpu_read_cr3(), at, 1) |= PTE_U;
	cpu_flush_tlb();
}
#endif
