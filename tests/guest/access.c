/*
 * The permission matrix: page bits at two levels x WP, SMEP, SMAP, AC x kernel
 * and user x read, write, execute: whether it faults, the error code, CR2, and
 * the accessed and dirty bits it leaves. (AMD64 APM 2, 5.6; Intel SDM 3, 4.6.)
 */
#include "lib/paging.h"
#include "lib/trap.h"

#define VA PAGING_TEST

enum { READ, WRITE, EXECUTE };

struct access_case {
	bool present, writable, user, nx;	   /* leaf */
	bool above_writable, above_user, above_nx; /* the table above */
	bool wp, smep, smap, ac;
	bool by_user;
	int kind;
};

static unsigned access_bad;
static uptr access_cr4;

static USER_CODE uptr
access_user_read(uptr at)
{
	return *(volatile u64 *)at;
}

static USER_CODE uptr
access_user_write(uptr at)
{
	*(volatile u64 *)at = 0xc3;
	return 0;
}

static USER_CODE uptr
access_user_execute(uptr at)
{
	__asm__ volatile("call *%0" : : "r"(at) : "memory");
	return 0;
}

static bool
access_faults(const struct access_case *c)
{
	bool user = c->user && c->above_user;

	if (!c->present)
		return true;
	if (c->by_user && !user)
		return true;
	if (c->kind == WRITE && !(c->writable && c->above_writable) && (c->by_user || c->wp))
		return true;
	if (c->kind == EXECUTE && (c->nx || c->above_nx))
		return true;
	if (c->by_user || !user)
		return false;
	if (c->kind == EXECUTE)
		return c->smep;
	return c->smap && !c->ac;
}

static u32
access_code(const struct access_case *c)
{
	return (c->present ? PF_P : 0) | (c->kind == WRITE ? PF_W : 0) | (c->by_user ? PF_U : 0) |
	       (c->kind == EXECUTE ? PF_I : 0);
}

static struct trap
access_by_kernel(const struct access_case *c)
{
	uptr flags = 2 | (c->ac ? EFLAGS_AC : 0);

	switch (c->kind) {
	case READ:
		return TRY(__asm__ volatile("push %1; popf; mov (%0), %%rax"
					    :
					    : "r"(VA), "r"(flags)
					    : "rax", "memory", "cc"));
	case WRITE:
		return TRY(__asm__ volatile("push %1; popf; movq $0xc3, (%0)"
					    :
					    : "r"(VA), "r"(flags)
					    : "memory", "cc"));
	default:
		return TRY(__asm__ volatile("push %1; popf; call *%0"
					    :
					    : "r"(VA), "r"(flags)
					    : "memory", "cc"));
	}
}

static struct trap
access_by_user(const struct access_case *c)
{
	static uptr (*const functions[])(uptr) = {access_user_read, access_user_write,
						  access_user_execute};

	return user_run_flags(functions[c->kind], VA, c->ac ? EFLAGS_AC : 0);
}

static void
access_report(const struct access_case *c, const struct trap *t, u64 leaf)
{
	CHECK(false);
	if (access_bad++ > 10)
		return;
	print("     P%d W%d U%d NX%d above W%d U%d NX%d, WP%d SMEP%d SMAP%d AC%d, %s %s: ",
	      c->present, c->writable, c->user, c->nx, c->above_writable, c->above_user,
	      c->above_nx, c->wp, c->smep, c->smap, c->ac, c->by_user ? "user" : "kernel",
	      c->kind == READ	 ? "read"
	      : c->kind == WRITE ? "write"
				 : "execute");
	print("vector %u error 0x%x cr2 0x%lx leaf 0x%llx\n", t->vector, t->error,
	      (unsigned long)t->cr2, (unsigned long long)leaf);
}

static bool
access_good(const struct access_case *c, const struct trap *t, u64 leaf)
{
	if (access_faults(c))
		return t->vector == VEC_PF && t->error == access_code(c) && t->cr2 == VA &&
		       !(leaf & PTE_D);
	if (t->vector != (c->by_user ? (u32)VEC_USER_RETURN : (u32)TRAP_NONE))
		return false;
	return (leaf & PTE_A) && !!(leaf & PTE_D) == (c->kind == WRITE);
}

static void
access_try(const struct access_case *c, u64 page)
{
	volatile u64 *leaf = paging_entry(cpu_read_cr3(), VA, 1);
	volatile u64 *above = paging_entry(cpu_read_cr3(), VA, 2);
	uptr cr0 = cpu_read_cr0();
	struct trap t;

	*leaf = page | (c->present ? PTE_P : 0) | (c->writable ? PTE_W : 0) |
		(c->user ? PTE_U : 0) | (c->nx ? PTE_NX : 0);
	*above = (*above & PTE_ADDRESS) | PTE_P | (c->above_writable ? PTE_W : 0) |
		 (c->above_user ? PTE_U : 0) | (c->above_nx ? PTE_NX : 0);
	cpu_invlpg(VA);
	cpu_write_cr0(c->wp ? cr0 | CR0_WP : cr0 & ~CR0_WP);
	cpu_write_cr4(access_cr4 | (c->smep ? CR4_SMEP : 0) | (c->smap ? CR4_SMAP : 0));
	t = c->by_user ? access_by_user(c) : access_by_kernel(c);
	cpu_write_cr4(access_cr4);
	cpu_write_cr0(cr0);
	if (!access_good(c, &t, *leaf))
		access_report(c, &t, *leaf);
}

void
guest_main(void)
{
	u32 features = cpu_cpuid(7, 0).b;
	bool smep = features & 1u << 7, smap = features & 1u << 20;
	u64 *page = page_alloc(1);

	page[0] = 0xc3; /* RET */
	access_cr4 = cpu_read_cr4();
	(void)paging_entry(cpu_read_cr3(), VA, 1);
	for (u32 n = 0; n < 1u << 12; n++) {
		struct access_case c = {
			n & 1,	     n >> 1 & 1,  n >> 2 & 1, n >> 3 & 1, n >> 4 & 1,
			n >> 5 & 1,  n >> 6 & 1,  n >> 7 & 1, n >> 8 & 1, n >> 9 & 1,
			n >> 10 & 1, n >> 11 & 1, 0,
		};

		if ((c.smep && !smep) || (c.smap && !smap) || (c.ac && !smap))
			continue;
		for (c.kind = READ; c.kind <= EXECUTE; c.kind++)
			access_try(&c, (uptr)page);
	}
	CHECK(access_bad == 0);
	if (!smep || !smap)
		check_skip("SMEP or SMAP");
}
