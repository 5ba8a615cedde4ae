/*
 * Page tables of a 64-bit guest. The first 4 GiB are mapped one to one, for the
 * kernel only, except .user sections, which are user pages of 4 KiB. Guests map
 * what they like from PAGING_TEST up.
 */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "lib/cpu.h"

#define PAGE 4096ul
#define PTE_P (1ull << 0)
#define PTE_W (1ull << 1)
#define PTE_U (1ull << 2)
#define PTE_PWT (1ull << 3)
#define PTE_PCD (1ull << 4)
#define PTE_A (1ull << 5)
#define PTE_D (1ull << 6)
#define PTE_PS (1ull << 7)
#define PTE_G (1ull << 8)
#define PTE_NX (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull

#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_I 16u

/* Zeroed pages, one after the other in memory, never freed. Aligned to ALIGN (a power of two). */
void *page_alloc(unsigned count);
void *page_alloc_aligned(unsigned count, uptr align);

#ifdef __x86_64__
#define PAGING_TEST 0x8000000000ull /* nothing is mapped from here on */

void paging_init(void);
/* The entry for VA at LEVEL (1: 4K, 2: 2M, 3: 1G, 4), tables above made as needed (with U, W)
 * and large pages split. In the tables of CR3. */
volatile u64 *paging_entry(u64 cr3, uptr va, int level);
/* Sets that entry in the current tables and flushes VA. */
void paging_map(uptr va, u64 pa, u64 flags, int level);
/* A copy of the current top table with all its lower ones shared. */
u64 paging_clone(void);
#endif

#endif
