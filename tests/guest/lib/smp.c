/*
 * Starting and using other processors (see smp.h).
 */
#include "lib/smp.h"

#include "lib/apic.h"
#include "lib/paging.h"

enum { SMP_TRAMPOLINE = 0x8000, SMP_STACK_PAGES = 4 };

struct smp_cpu {
	void (*fn)(uptr);
	uptr arg;
	u32 apic_id;
	u32 busy;
};

u32 smp_next_stack, smp_cr3; /* for the trampoline; a stack of 0 means: the first CPU */
static struct smp_cpu smp_cpus[CPUS_MAX];
static unsigned smp_count = 1;

extern const u8 smp_trampoline[], smp_trampoline_end[];
__attribute__((noreturn)) void smp_main(void);

void
smp_main(void)
{
	unsigned index = __atomic_load_n(&smp_count, __ATOMIC_ACQUIRE);
	struct smp_cpu *me = &smp_cpus[index];

	trap_init_cpu(index);
	apic_enable();
	me->apic_id = apic_id();
	__atomic_store_n(&smp_count, index + 1, __ATOMIC_RELEASE);
	for (;;) {
		if (__atomic_load_n(&me->busy, __ATOMIC_ACQUIRE)) {
			me->fn(me->arg);
			__atomic_store_n(&me->busy, 0, __ATOMIC_RELEASE);
		}
		cpu_pause();
	}
}

static bool
smp_start_one(u32 id)
{
	unsigned before = smp_count;

	smp_next_stack = (u32)(uptr)page_alloc(SMP_STACK_PAGES) + SMP_STACK_PAGES * (u32)PAGE;
	apic_ipi(id, APIC_INIT | APIC_ASSERT);
	apic_ipi(id, APIC_INIT | APIC_LEVEL);
	apic_ipi(id, APIC_STARTUP | SMP_TRAMPOLINE >> 12);
	return WAIT_FOR(__atomic_load_n(&smp_count, __ATOMIC_ACQUIRE) != before);
}

unsigned
smp_start(void)
{
	unsigned limit = cpu_cpuid(1, 0).b >> 16 & 0xff; /* logical processors in the package */

	apic_enable();
	smp_cpus[0].apic_id = apic_id();
	memcpy((void *)(uptr)SMP_TRAMPOLINE, smp_trampoline,
	       (size_t)(smp_trampoline_end - smp_trampoline));
	smp_cr3 = (u32)cpu_read_cr3();
	for (u32 id = 0; id < limit && smp_count < CPUS_MAX; id++)
		if (id != smp_cpus[0].apic_id)
			(void)smp_start_one(id);
	return smp_count;
}

u32
smp_apic_id(unsigned cpu)
{
	return smp_cpus[cpu].apic_id;
}

void
smp_call(unsigned cpu, void (*fn)(uptr), uptr arg)
{
	smp_cpus[cpu].fn = fn;
	smp_cpus[cpu].arg = arg;
	__atomic_store_n(&smp_cpus[cpu].busy, 1, __ATOMIC_RELEASE);
}

bool
smp_wait(unsigned cpu)
{
	return WAIT_FOR(!__atomic_load_n(&smp_cpus[cpu].busy, __ATOMIC_ACQUIRE));
}
