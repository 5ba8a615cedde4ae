/*
 * cpu/lapic.c: priorities, end of interrupt, destinations, timers, modes, errors.
 */
#include "unit.h"

#include <errno.h>
#include <pthread.h>

#include "cpu/lapic.h"

enum {
	TPR = 0x80,
	EOI = 0xb0,
	LDR = 0xd0,
	DFR = 0xe0,
	SVR = 0xf0,
	ISR = 0x100,
	TMR = 0x180,
	IRR = 0x200,
	ESR = 0x280,
	ICR = 0x300,
	ICR_HIGH = 0x310,
	LVT_TIMER = 0x320,
	LVT0 = 0x350,
	LVT_ERROR = 0x370,
	INITIAL = 0x380,
	CURRENT = 0x390,
	DIVIDE = 0x3e0,
	DEADLINE_MSR = 0x6e0,
	BASE_MSR = 0x1b,
};

struct world {
	struct lapic apic;
	struct lapic_ipi ipi;
	unsigned ipis;
	int eoi;
	u64 now, deadline;
};

static void
send_ipi(void *opaque, const struct lapic_ipi *ipi)
{
	struct world *w = opaque;

	w->ipi = *ipi;
	w->ipis++;
}

static void
told_eoi(void *opaque, u8 vector)
{
	((struct world *)opaque)->eoi = vector;
}

static void
set_timer(void *opaque, u64 deadline)
{
	((struct world *)opaque)->deadline = deadline;
}

static u64
now_ns(void *opaque)
{
	return ((struct world *)opaque)->now;
}

static u64
guest_tsc(void *opaque)
{
	return ((struct world *)opaque)->now * 3;
}

static u64
tsc_to_ns(void *opaque, u64 tsc)
{
	return tsc / 3;
}

static void
start(struct world *w, u32 id)
{
	struct lapic_host host = {w, send_ipi, told_eoi, set_timer, now_ns, guest_tsc, tsc_to_ns};

	memset(w, 0, sizeof(*w));
	w->eoi = -1;
	w->now = 1000000;
	lapic_init(&w->apic, id, &host);
	lapic_mmio_write(&w->apic, SVR, 0x1ff);
}

static void
highest_vector_first(void **state)
{
	struct world w;

	start(&w, 0);
	assert_int_equal(lapic_pending(&w.apic), -1);
	lapic_post(&w.apic, 0x31, false);
	lapic_post(&w.apic, 0x52, false);
	assert_true(lapic_has_posted(&w.apic));
	assert_int_equal(lapic_pending(&w.apic), 0x52);
	assert_false(lapic_has_posted(&w.apic));
	lapic_accept(&w.apic, 0x52);
	assert_int_equal(lapic_pending(&w.apic), -1); /* 0x31 is of a lower class */
	lapic_post(&w.apic, 0x5f, false);
	assert_int_equal(lapic_pending(&w.apic), -1); /* the same class */
	lapic_post(&w.apic, 0x60, false);
	assert_int_equal(lapic_pending(&w.apic), 0x60);
	lapic_accept(&w.apic, 0x60);
	lapic_mmio_write(&w.apic, EOI, 0);
	lapic_mmio_write(&w.apic, EOI, 0);
	assert_int_equal(lapic_pending(&w.apic), 0x5f);
	assert_int_equal(w.eoi, -1); /* all were edges */
	lapic_mmio_write(&w.apic, TPR, 0x50);
	assert_int_equal(lapic_pending(&w.apic), -1);
	assert_int_equal(lapic_get_cr8(&w.apic), 5);
	lapic_set_cr8(&w.apic, 4);
	assert_int_equal(lapic_pending(&w.apic), 0x5f);
}

static void
level_vectors_tell_their_end(void **state)
{
	struct world w;

	start(&w, 0);
	lapic_post(&w.apic, 0x41, true);
	assert_int_equal(lapic_pending(&w.apic), 0x41);
	assert_int_equal(lapic_mmio_read(&w.apic, TMR + 0x20), 2);
	assert_int_equal(lapic_mmio_read(&w.apic, IRR + 0x20), 2);
	lapic_accept(&w.apic, 0x41);
	assert_int_equal(lapic_mmio_read(&w.apic, IRR + 0x20), 0);
	assert_int_equal(lapic_mmio_read(&w.apic, ISR + 0x20), 2);
	lapic_mmio_write(&w.apic, EOI, 0);
	assert_int_equal(w.eoi, 0x41);
	lapic_post(&w.apic, 0x41, false); /* now an edge */
	lapic_accept(&w.apic, (u8)lapic_pending(&w.apic));
	w.eoi = -1;
	lapic_mmio_write(&w.apic, EOI, 0);
	assert_int_equal(w.eoi, -1);
}

static void
disabled_takes_nothing(void **state)
{
	struct world w;

	start(&w, 0);
	lapic_mmio_write(&w.apic, SVR, 0xff);
	lapic_post(&w.apic, 0x41, false);
	assert_int_equal(lapic_pending(&w.apic), -1);
	lapic_mmio_write(&w.apic, SVR, 0x1ff);
	assert_int_equal(lapic_pending(&w.apic), -1);
	lapic_mmio_write(&w.apic, LVT0, 0x700);
	assert_true(lapic_accepts_extint(&w.apic));
	lapic_mmio_write(&w.apic, LVT0, 0x10700);
	assert_false(lapic_accepts_extint(&w.apic));
	assert_int_equal(lapic_msr_write(&w.apic, BASE_MSR, 0xfee00000), 0);
	assert_true(lapic_accepts_extint(&w.apic));
}

static void
nmis_merge(void **state)
{
	struct world w;

	start(&w, 0);
	assert_false(lapic_take_nmi(&w.apic));
	lapic_post_nmi(&w.apic);
	lapic_post_nmi(&w.apic);
	assert_true(lapic_has_posted(&w.apic));
	assert_true(lapic_take_nmi(&w.apic));
	assert_false(lapic_take_nmi(&w.apic));
}

static void
one_shot_timer(void **state)
{
	struct world w;

	start(&w, 0);
	lapic_mmio_write(&w.apic, DIVIDE, 0xb); /* by 1 */
	lapic_mmio_write(&w.apic, LVT_TIMER, 0x40);
	lapic_mmio_write(&w.apic, INITIAL, 5000);
	assert_int_equal(w.deadline, 1005000);
	w.now += 2000;
	assert_int_equal(lapic_mmio_read(&w.apic, CURRENT), 3000);
	lapic_timer_expire(&w.apic, w.now); /* early */
	assert_int_equal(w.deadline, 1005000);
	assert_int_equal(lapic_pending(&w.apic), -1);
	lapic_mmio_write(&w.apic, DIVIDE, 0x3); /* by 16: the count goes on */
	assert_int_equal(lapic_mmio_read(&w.apic, CURRENT), 3000);
	assert_int_equal(w.deadline, w.now + 3000 * 16);
	w.now = w.deadline + 10;
	lapic_timer_expire(&w.apic, w.now);
	assert_int_equal(lapic_pending(&w.apic), 0x40);
	assert_int_equal(w.apic.timer_deadline, 0);
	assert_int_equal(lapic_mmio_read(&w.apic, CURRENT), 0);
	lapic_timer_expire(&w.apic, w.now); /* again: nothing */
}

static void
periodic_timer(void **state)
{
	struct world w;

	start(&w, 0);
	lapic_mmio_write(&w.apic, DIVIDE, 0xb);
	lapic_mmio_write(&w.apic, LVT_TIMER, 0x20040);
	lapic_mmio_write(&w.apic, INITIAL, 100000);
	assert_int_equal(w.deadline, 1100000);
	w.now = 1100050;
	lapic_timer_expire(&w.apic, w.now);
	assert_int_equal(lapic_pending(&w.apic), 0x40);
	assert_int_equal(w.deadline, 1200000);
	w.now = 1750000; /* ticks that were missed come as one */
	lapic_timer_expire(&w.apic, w.now);
	assert_int_equal(w.deadline, 1800000);
	assert_int_equal(lapic_mmio_read(&w.apic, CURRENT), 50000);
	lapic_mmio_write(&w.apic, INITIAL, 1); /* a storm is slowed down */
	w.now += 5;
	lapic_timer_expire(&w.apic, w.now);
	assert_true(w.deadline >= w.now + 1000);
	lapic_mmio_write(&w.apic, INITIAL, 0);
	assert_int_equal(w.deadline, 0);
}

static void
tsc_deadline_timer(void **state)
{
	struct world w;
	u64 value;

	start(&w, 0);
	assert_int_equal(lapic_msr_write(&w.apic, DEADLINE_MSR, 99), 0); /* other mode: ignored */
	assert_int_equal(w.deadline, 0);
	lapic_mmio_write(&w.apic, LVT_TIMER, 0x40040);
	assert_int_equal(lapic_msr_write(&w.apic, DEADLINE_MSR, 6000000), 0);
	assert_int_equal(w.deadline, 2000000);
	lapic_mmio_write(&w.apic, INITIAL, 5); /* ignored in this mode */
	assert_int_equal(w.deadline, 2000000);
	w.now = 2000001;
	lapic_timer_expire(&w.apic, w.now);
	assert_int_equal(lapic_pending(&w.apic), 0x40);
	assert_int_equal(lapic_msr_read(&w.apic, DEADLINE_MSR, &value), 0);
	assert_int_equal(value, 0);
	lapic_accept(&w.apic, 0x40);
	lapic_mmio_write(&w.apic, EOI, 0);
	assert_int_equal(lapic_msr_write(&w.apic, DEADLINE_MSR, 10), 0); /* past: at once */
	assert_int_equal(lapic_pending(&w.apic), 0x40);
	assert_int_equal(w.deadline, 0);
	assert_int_equal(lapic_msr_write(&w.apic, DEADLINE_MSR, 90000000), 0);
	lapic_mmio_write(&w.apic, LVT_TIMER, 0x40); /* leaving the mode disarms */
	assert_int_equal(w.deadline, 0);
}

static void
xapic_ipis(void **state)
{
	struct world w;

	start(&w, 0);
	lapic_mmio_write(&w.apic, ICR_HIGH, 0x03000000);
	lapic_mmio_write(&w.apic, ICR, 0x4041);
	assert_int_equal(w.ipis, 1);
	assert_int_equal(w.ipi.destination, 3);
	assert_int_equal(w.ipi.vector, 0x41);
	assert_int_equal(w.ipi.delivery, LAPIC_FIXED);
	assert_false(w.ipi.logical);
	lapic_mmio_write(&w.apic, ICR, 0xc4500);
	assert_int_equal(w.ipi.delivery, LAPIC_INIT);
	assert_int_equal(w.ipi.shorthand, 3);
	lapic_mmio_write(&w.apic, ICR, 0xc8500); /* INIT de-assert */
	assert_int_equal(w.ipis, 2);
	lapic_mmio_write(&w.apic, ICR, 0xc4608);
	assert_int_equal(w.ipi.delivery, LAPIC_STARTUP);
	lapic_mmio_write(&w.apic, ICR, 0x44033); /* self */
	assert_int_equal(w.ipis, 3);
	assert_int_equal(lapic_pending(&w.apic), 0x33);
	assert_int_equal(lapic_mmio_read(&w.apic, ICR), 0x44033);
}

static void
errors_are_latched(void **state)
{
	struct world w;

	start(&w, 0);
	lapic_mmio_write(&w.apic, LVT_ERROR, 0xfe);
	lapic_mmio_write(&w.apic, ICR, 0x4005); /* vector below 16 */
	assert_int_equal(w.ipis, 0);
	assert_int_equal(lapic_pending(&w.apic), 0xfe);
	assert_int_equal(lapic_mmio_read(&w.apic, ESR), 0);
	lapic_mmio_write(&w.apic, ESR, 0);
	assert_int_equal(lapic_mmio_read(&w.apic, ESR), 0x20);
	lapic_mmio_write(&w.apic, ESR, 0);
	assert_int_equal(lapic_mmio_read(&w.apic, ESR), 0);
	lapic_post(&w.apic, 3, false);
	(void)lapic_pending(&w.apic);
	(void)lapic_mmio_read(&w.apic, 0x40); /* reserved register */
	lapic_mmio_write(&w.apic, ESR, 0);
	assert_int_equal(lapic_mmio_read(&w.apic, ESR), 0xc0);
}

static void
destinations(void **state)
{
	struct world w;

	start(&w, 5);
	assert_true(lapic_matches(&w.apic, false, 5, false));
	assert_false(lapic_matches(&w.apic, false, 4, false));
	assert_true(lapic_matches(&w.apic, false, 0xff, false));
	assert_false(lapic_matches(&w.apic, false, 0xff, true));
	assert_true(lapic_matches(&w.apic, false, 0xffffffff, true));
	lapic_mmio_write(&w.apic, LDR, 0x20000000);
	assert_true(lapic_matches(&w.apic, true, 0x30, false));
	assert_false(lapic_matches(&w.apic, true, 0x10, false));
	lapic_mmio_write(&w.apic, DFR, 0x0fffffff); /* cluster */
	lapic_mmio_write(&w.apic, LDR, 0x24000000);
	assert_true(lapic_matches(&w.apic, true, 0x2c, false));
	assert_false(lapic_matches(&w.apic, true, 0x3c, false));
	assert_false(lapic_matches(&w.apic, true, 0x28, false));
	assert_int_equal(lapic_msr_write(&w.apic, BASE_MSR, 0xfee00c00), 0);
	assert_true(lapic_matches(&w.apic, true, 0x20, true));
	assert_true(lapic_matches(&w.apic, true, 0x20, false));
	assert_false(lapic_matches(&w.apic, true, 0x10020, true));
}

static void
x2apic_mode(void **state)
{
	struct world w;
	u64 value;

	start(&w, 0x123);
	assert_int_equal(lapic_msr_read(&w.apic, 0x802, &value), -EINVAL);
	assert_int_equal(lapic_msr_write(&w.apic, BASE_MSR, 0xfee00400), -EINVAL);
	assert_int_equal(lapic_msr_write(&w.apic, BASE_MSR, 0xfee00c01), -EINVAL);
	assert_int_equal(lapic_msr_write(&w.apic, BASE_MSR, 0xfee00c00), 0);
	assert_int_equal(lapic_msr_write(&w.apic, BASE_MSR, 0xfee00800), -EINVAL);
	assert_int_equal(lapic_msr_read(&w.apic, 0x802, &value), 0);
	assert_int_equal(value, 0x123);
	assert_int_equal(lapic_msr_read(&w.apic, 0x80d, &value), 0);
	assert_int_equal(value, 0x120008);
	assert_int_equal(lapic_msr_read(&w.apic, 0x803, &value), 0);
	assert_int_equal(value & 0xff, 0x14);
	assert_int_equal(lapic_msr_write(&w.apic, 0x802, 1), -EINVAL);
	assert_int_equal(lapic_msr_write(&w.apic, 0x80e, 1), -EINVAL);
	assert_int_equal(lapic_msr_read(&w.apic, 0x80b, &value), -EINVAL);
	assert_int_equal(lapic_msr_write(&w.apic, 0x80b, 1), -EINVAL);
	assert_int_equal(lapic_msr_write(&w.apic, 0x80b, 0), 0);
	assert_int_equal(lapic_msr_write(&w.apic, 0x808, 0x100), -EINVAL);
	assert_int_equal(lapic_msr_write(&w.apic, 0x8ff, 0), -EINVAL);
	assert_int_equal(lapic_msr_write(&w.apic, 0x831, 0), -EINVAL);
	assert_int_equal(lapic_msr_write(&w.apic, 0x830, 0x0000020000004841ull), 0);
	assert_int_equal(w.ipi.destination, 0x200);
	assert_true(w.ipi.logical);
	assert_int_equal(lapic_msr_read(&w.apic, 0x830, &value), 0);
	assert_int_equal(value, 0x0000020000004841ull);
	assert_int_equal(lapic_msr_write(&w.apic, 0x83f, 0x61), 0);
	assert_int_equal(lapic_pending(&w.apic), 0x61);
	assert_int_equal(lapic_msr_write(&w.apic, BASE_MSR, 0xfee00000), 0); /* off */
	assert_int_equal(lapic_pending(&w.apic), -1);
	assert_int_equal(lapic_msr_write(&w.apic, BASE_MSR, 0xfee00800), 0);
	assert_int_equal(lapic_mmio_read(&w.apic, SVR), 0xff);
}

static void
state_round_trip(void **state)
{
	struct cpu_lapic saved;
	struct world a, b;

	start(&a, 2);
	lapic_mmio_write(&a.apic, DIVIDE, 0xb);
	lapic_mmio_write(&a.apic, LVT_TIMER, 0x40);
	lapic_mmio_write(&a.apic, INITIAL, 5000);
	lapic_post(&a.apic, 0x77, true);
	lapic_get(&a.apic, &saved);
	start(&b, 2);
	b.now = a.now + 100000; /* the timer ran out meanwhile: it is not lost */
	lapic_set(&b.apic, &saved);
	assert_int_equal(b.deadline, a.deadline);
	lapic_timer_expire(&b.apic, b.now);
	assert_int_equal(lapic_pending(&b.apic), 0x77);
	lapic_accept(&b.apic, 0x77);
	lapic_mmio_write(&b.apic, EOI, 0);
	assert_int_equal(b.eoi, 0x77);
	assert_int_equal(lapic_pending(&b.apic), 0x40);
}

/* Each period is told once, before or after the state has moved. */
static void
periodic_timer_moves(void **state)
{
	struct cpu_lapic saved;
	struct world a, b;

	start(&a, 0);
	lapic_mmio_write(&a.apic, DIVIDE, 0xb);
	lapic_mmio_write(&a.apic, LVT_TIMER, 0x20040);
	lapic_mmio_write(&a.apic, INITIAL, 100000); /* from 1000000 on */
	a.now = 1210000;
	lapic_timer_expire(&a.apic, a.now); /* at 1100000 and 1200000, as one */
	a.now = 1250000;
	lapic_get(&a.apic, &saved);
	start(&b, 0);
	b.now = 1290000;
	lapic_set(&b.apic, &saved);
	assert_int_equal(b.deadline, 1300000);
	start(&b, 0);
	b.now = 1340000;
	lapic_set(&b.apic, &saved); /* the one at 1300000 nobody has been told of */
	assert_int_equal(b.deadline, 1300000);
	lapic_timer_expire(&b.apic, b.now);
	assert_int_equal(lapic_pending(&b.apic), 0x40);
	assert_int_equal(b.deadline, 1400000);
	b.now = 1395000;
	lapic_get(&b.apic, &saved);
	start(&a, 0);
	a.now = 1396000;
	lapic_set(&a.apic, &saved);
	assert_int_equal(a.deadline, 1400000);
}

static void *
post_many(void *opaque)
{
	for (int i = 0; i < 20000; i++)
		lapic_post(opaque, (u8)(32 + i % 200), i & 1);
	return NULL;
}

static void
posting_from_threads_loses_none(void **state)
{
	bool seen[256] = {false};
	pthread_t threads[2];
	struct world w;
	int vector;

	start(&w, 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, post_many, &w.apic);
	for (int i = 0; i < 20000; i++) {
		vector = lapic_pending(&w.apic);
		if (vector < 0)
			continue;
		seen[vector] = true;
		lapic_accept(&w.apic, (u8)vector);
		lapic_mmio_write(&w.apic, EOI, 0);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	while ((vector = lapic_pending(&w.apic)) >= 0) {
		seen[vector] = true;
		lapic_accept(&w.apic, (u8)vector);
		lapic_mmio_write(&w.apic, EOI, 0);
	}
	for (int i = 32; i < 232; i++)
		assert_true(seen[i]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(highest_vector_first),
		cmocka_unit_test(level_vectors_tell_their_end),
		cmocka_unit_test(disabled_takes_nothing),
		cmocka_unit_test(nmis_merge),
		cmocka_unit_test(one_shot_timer),
		cmocka_unit_test(periodic_timer),
		cmocka_unit_test(tsc_deadline_timer),
		cmocka_unit_test(xapic_ipis),
		cmocka_unit_test(errors_are_latched),
		cmocka_unit_test(destinations),
		cmocka_unit_test(x2apic_mode),
		cmocka_unit_test(state_round_trip),
		cmocka_unit_test(periodic_timer_moves),
		cmocka_unit_test(posting_from_threads_loses_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
