/*
 * Clocks and timers: local APIC timer (one-shot, periodic, TSC deadline), HPET
 * counter and comparators, RTC periodic interrupt and time, ACPI PM timer,
 * kvmclock; all of them agree within a few percent.
 */
#include "lib/acpi.h"
#include "lib/apic.h"
#include "lib/paging.h"
#include "lib/trap.h"

#define HPET 0xfed00000ul
enum { VECTOR = 0x50, RTC_VECTOR = 0x51, HPET_VECTOR = 0x52 };
/* A busy host may take the CPU away for longer than what is measured. */
enum { TRIES = 5 };

static volatile unsigned timer_count;
static u64 timer_tsc_per_ms;

static void
timer_note(struct trap_frame *f)
{
	(void)f;
	timer_count++;
	apic_eoi();
}

static bool
timer_wait(unsigned count)
{
	bool good;

	cpu_sti();
	good = WAIT_FOR(timer_count >= count);
	cpu_cli();
	return good;
}

/* Within a half and the double: a host may be busy, a wrong unit is far off. */
static bool
timer_near(u64 got, u64 want)
{
	return got >= want / 2 && got <= want * 2;
}

static u64
timer_hpet(void)
{
	return *(volatile u64 *)(HPET + 0xf0);
}

static u32
timer_pm(void)
{
	return inl(acpi_pm_timer()) & 0xffffff;
}

static void
timer_clocks(void)
{
	u64 period = *(volatile u64 *)HPET >> 32; /* femtoseconds a tick */
	u64 hpet = 0, tsc = 0;
	u32 pm = 0;

	CHECK(period > 0 && period <= 100000000);
	*(volatile u32 *)(HPET + 0x10) |= 1;
	for (int i = 0; i < TRIES; i++) {
		hpet = timer_hpet();
		pm = timer_pm();
		tsc = cpu_rdtsc();
		pit_delay(50000);
		tsc = cpu_rdtsc() - tsc;
		pm = (timer_pm() - pm) & 0xffffff;
		hpet = timer_hpet() - hpet;
		if (timer_near(hpet * period / 1000000, 50000000) && timer_near(pm, 3579545 / 20))
			break;
	}
	CHECK(timer_near(hpet * period / 1000000, 50000000));
	CHECK(timer_near(pm, 3579545 / 20));
	timer_tsc_per_ms = tsc / 50;
	CHECK(timer_tsc_per_ms > 100000);
	if (cpu_cpuid(0x40000000, 0).a >= 0x40000010) /* the TSC's frequency in kHz */
		CHECK(timer_near(timer_tsc_per_ms, cpu_cpuid(0x40000010, 0).a));
}

static void
timer_apic(void)
{
	u32 start;
	u64 tsc;

	trap_set_handler(VECTOR, timer_note);
	apic_write(APIC_TIMER_DIVIDE, 3); /* 16 */
	apic_write(APIC_LVT_TIMER, VECTOR);
	apic_write(APIC_TIMER_INITIAL, 0xffffffff);
	start = apic_read(APIC_TIMER_CURRENT);
	pit_delay(1000);
	start -= apic_read(APIC_TIMER_CURRENT); /* ticks a millisecond */
	CHECK(start > 100);
	timer_count = 0;
	apic_write(APIC_TIMER_INITIAL, start);
	CHECK(timer_wait(1));
	CHECK_EQ(apic_read(APIC_TIMER_CURRENT), 0);
	pit_delay(3000);
	cpu_window();
	CHECK_EQ(timer_count, 1);
	timer_count = 0;
	apic_write(APIC_LVT_TIMER, VECTOR | APIC_PERIODIC);
	tsc = cpu_rdtsc();
	apic_write(APIC_TIMER_INITIAL, start * 2);
	CHECK(timer_wait(10));
	tsc = cpu_rdtsc() - tsc;
	CHECK(tsc >= timer_tsc_per_ms * 10);
	apic_write(APIC_TIMER_INITIAL, 0);
	cpu_window();
	timer_count = 0;
	pit_delay(5000);
	cpu_window();
	CHECK_EQ(timer_count, 0);
	/* HLT is ended by it. */
	apic_write(APIC_LVT_TIMER, VECTOR);
	apic_write(APIC_TIMER_INITIAL, start);
	__asm__ volatile("sti; hlt; cli" : : : "memory");
	CHECK_EQ(timer_count, 1);
}

static void
timer_deadline(void)
{
	u64 deadline;

	if (!(cpu_cpuid(1, 0).c & 1u << 24)) {
		check_skip("TSC deadline");
		return;
	}
	apic_write(APIC_LVT_TIMER, VECTOR | APIC_TSC_DEADLINE);
	__asm__ volatile("mfence" : : : "memory");
	timer_count = 0;
	deadline = cpu_rdtsc() + 2 * timer_tsc_per_ms;
	cpu_write_msr(MSR_TSC_DEADLINE, deadline);
	CHECK_EQ(cpu_read_msr(MSR_TSC_DEADLINE), deadline);
	CHECK(timer_wait(1));
	CHECK(cpu_rdtsc() >= deadline);
	CHECK_EQ(cpu_read_msr(MSR_TSC_DEADLINE), 0);
	cpu_write_msr(MSR_TSC_DEADLINE, 1); /* in the past: at once */
	CHECK(timer_wait(2));
	cpu_write_msr(MSR_TSC_DEADLINE, cpu_rdtsc() + 2 * timer_tsc_per_ms);
	cpu_write_msr(MSR_TSC_DEADLINE, 0); /* disarmed */
	pit_delay(5000);
	cpu_window();
	CHECK_EQ(timer_count, 2);
}

static void
timer_hpet_interrupts(void)
{
	u64 period = *(volatile u64 *)HPET >> 32;
	u64 ticks = 1000000000000ull / period; /* a millisecond */
	volatile u64 *config = (volatile u64 *)(HPET + 0x100), *comparator = config + 1;
	unsigned pin = 16; /* those below are shared with other devices */

	while (pin < 31 && !(*config >> 32 >> pin & 1))
		pin++;
	trap_set_handler(HPET_VECTOR, timer_note);
	ioapic_route(pin, HPET_VECTOR, (u8)apic_id());
	*(volatile u64 *)(HPET + 0x10) = 1; /* runs, no legacy replacement */
	*config = 0;
	*comparator = 0;
	*comparator =
		timer_hpet() + 20 * ticks; /* first the match, then its interrupt: none is stale */
	timer_count = 0;
	*config = (u64)pin << 9 | 1 << 2; /* one-shot, edge, enabled */
	CHECK(timer_wait(1));
	pit_delay(3000);
	cpu_window();
	CHECK_EQ(timer_count, 1);
	if (*config & 1 << 4) {
		*(volatile u64 *)(HPET + 0x10) = 0;
		*(volatile u64 *)(HPET + 0xf0) = 0;
		*config = (u64)pin << 9 | 1 << 2 | 1 << 3 | 1 << 6;
		*comparator = ticks;
		*comparator = ticks;
		timer_count = 0;
		*(volatile u64 *)(HPET + 0x10) = 1;
		CHECK(timer_wait(5));
	} else {
		check_skip("HPET periodic");
	}
	*config = 0;
	ioapic_route(pin, APIC_MASKED, 0);
}

static u8
timer_cmos(u8 index)
{
	outb(0x70, index);
	return inb(0x71);
}

static void
timer_rtc_note(struct trap_frame *f)
{
	(void)timer_cmos(0x0c); /* reading C lets the next one come */
	timer_note(f);
}

static void
timer_rtc(void)
{
	u8 a, b, month;

	trap_set_handler(RTC_VECTOR, timer_rtc_note);
	ioapic_route(8, RTC_VECTOR, (u8)apic_id());
	a = timer_cmos(0x0a);
	b = timer_cmos(0x0b);
	outb(0x70, 0x0a);
	outb(0x71, (u8)((a & 0xf0) | 6)); /* 1024 Hz */
	outb(0x70, 0x0b);
	outb(0x71, b | 0x40);
	(void)timer_cmos(0x0c);
	timer_count = 0;
	CHECK(timer_wait(5));
	outb(0x70, 0x0b);
	outb(0x71, (u8)(b & ~0x40u));
	(void)timer_cmos(0x0c);
	ioapic_route(8, APIC_MASKED, 0);
	month = timer_cmos(8);
	month = (b & 4) ? month : (u8)((month >> 4) * 10 + (month & 15));
	CHECK(month >= 1 && month <= 12);
	CHECK(timer_cmos(0x0d) & 0x80);
}

struct timer_pvclock {
	u32 version, pad;
	u64 tsc, system_time;
	u32 multiplier;
	i8 shift;
	u8 flags, pad2[2];
} PACKED;

static u64
timer_pvclock_ns(const volatile struct timer_pvclock *clock)
{
	u64 delta = cpu_rdtsc() - clock->tsc;

	delta = clock->shift < 0 ? delta >> -clock->shift : delta << clock->shift;
	return clock->system_time + (u64)((unsigned __int128)delta * clock->multiplier >> 32);
}

static void
timer_kvmclock(void)
{
	struct cpuid id = cpu_cpuid(0x40000000, 0);
	volatile struct timer_pvclock *clock;
	u64 passed = 0;

	if (id.b != 0x4b4d564b || !(cpu_cpuid(0x40000001, 0).a & 8)) { /* "KVMK" */
		check_skip("kvmclock");
		return;
	}
	clock = page_alloc(1);
	cpu_write_msr(0x4b564d01, (uptr)clock | 1);
	CHECK(clock->version && !(clock->version & 1));
	CHECK(clock->multiplier != 0);
	for (int i = 0; i < TRIES && !timer_near(passed, 20000000); i++) {
		passed = timer_pvclock_ns(clock);
		pit_delay(20000);
		passed = timer_pvclock_ns(clock) - passed;
	}
	CHECK(timer_near(passed, 20000000));
	cpu_write_msr(0x4b564d00, (uptr)clock + 64);
	CHECK(((volatile u32 *)clock)[17] > 1600000000); /* seconds of 1970 at its start */
	cpu_write_msr(0x4b564d01, 0);
}

void
guest_main(void)
{
	apic_enable();
	pic_init(0x20, 0xffff);
	timer_clocks();
	timer_apic();
	timer_deadline();
	timer_hpet_interrupts();
	timer_rtc();
	timer_kvmclock();
}
