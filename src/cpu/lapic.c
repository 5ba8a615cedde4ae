/*
 * The local APIC. Registers live in s.regs by offset / 16; the timer count is
 * never stored but computed from the time it was started. The bus clock that
 * the timer counts is 1 GHz, so one bus tick is one nanosecond.
 *
 * Invariants: regs[ID] has the form of the mode in use (id << 24 in xAPIC, the
 * whole id in x2APIC); timer_deadline is what was last given to set_timer.
 * Interrupts from other threads rest in posted[] until the owner merges them.
 */
#include "cpu/lapic.h"

#include <errno.h>
#include <string.h>

/* Offsets / 16. */
enum {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_APR = 0x09,
	REG_PPR = 0x0a,
	REG_EOI = 0x0b,
	REG_LDR = 0x0d,
	REG_DFR = 0x0e,
	REG_SVR = 0x0f,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_ICR = 0x30,
	REG_ICR_HIGH = 0x31,
	REG_LVT_TIMER = 0x32,
	REG_LVT_THERMAL = 0x33,
	REG_LVT_PERF = 0x34,
	REG_LVT_LINT0 = 0x35,
	REG_LVT_LINT1 = 0x36,
	REG_LVT_ERROR = 0x37,
	REG_TIMER_INITIAL = 0x38,
	REG_TIMER_CURRENT = 0x39,
	REG_TIMER_DIVIDE = 0x3e,
	REG_SELF_IPI = 0x3f,
	REG_LIMIT = 0x40,
};

enum {
	APIC_BASE_BSP = BIT(8),
	APIC_BASE_EXTD = BIT(10),
	APIC_BASE_EN = BIT(11),
	SVR_ENABLED = BIT(8),
	LVT_MASKED = BIT(16),
	LVT_DELIVERY = 0x700,
	TIMER_PERIODIC = BIT(17),
	TIMER_TSC_DEADLINE = BIT(18),
	TIMER_MODE = TIMER_PERIODIC | TIMER_TSC_DEADLINE,
	ICR_LOGICAL = BIT(11),
	ICR_ASSERT = BIT(14),
	ICR_LEVEL = BIT(15),
	ICR_WRITABLE = 0x000ccfff,
	ESR_SEND_ILLEGAL = BIT(5),
	ESR_RECEIVE_ILLEGAL = BIT(6),
	ESR_REGISTER_ILLEGAL = BIT(7),
	LAPIC_VERSION = 0x00050014, /* six LVT entries */
	LAPIC_FIRST_VECTOR = 16,
	X2APIC_MSR = 0x800,
	MSR_OF_APIC_BASE = 0x1b,
	MSR_OF_TSC_DEADLINE = 0x6e0,
};
#define APIC_BASE_ADDRESS 0x000ffffffffff000ull

/* A guest may ask for a period of a nanosecond; it gets its interrupts no closer than this. */
#define LAPIC_PERIOD_MIN_NS 10000u

static const u32 lapic_lvt_writable[] = {
	[REG_LVT_TIMER] = LVT_MASKED | TIMER_MODE | 0xff,
	[REG_LVT_THERMAL] = LVT_MASKED | LVT_DELIVERY | 0xff,
	[REG_LVT_PERF] = LVT_MASKED | LVT_DELIVERY | 0xff,
	[REG_LVT_LINT0] = LVT_MASKED | BIT(15) | BIT(13) | LVT_DELIVERY | 0xff,
	[REG_LVT_LINT1] = LVT_MASKED | BIT(15) | BIT(13) | LVT_DELIVERY | 0xff,
	[REG_LVT_ERROR] = LVT_MASKED | 0xff,
};

/* The bits of a 256-bit register (ISR, TMR, IRR). */

static bool
lapic_test(const struct lapic *apic, unsigned reg, unsigned vector)
{
	return (apic->s.regs[reg + vector / 32] >> (vector % 32)) & 1;
}

static void
lapic_put(struct lapic *apic, unsigned reg, unsigned vector, bool value)
{
	u32 bit = BIT(vector % 32);

	if (value)
		apic->s.regs[reg + vector / 32] |= bit;
	else
		apic->s.regs[reg + vector / 32] &= ~bit;
}

static int
lapic_highest(const struct lapic *apic, unsigned reg)
{
	for (int i = 7; i >= 0; i--) {
		if (apic->s.regs[reg + (unsigned)i])
			return i * 32 + 31 - __builtin_clz(apic->s.regs[reg + (unsigned)i]);
	}
	return -1;
}

static bool
lapic_soft_enabled(const struct lapic *apic)
{
	return apic->enabled && (apic->s.regs[REG_SVR] & SVR_ENABLED);
}

/* Makes an interrupt pending on this very thread (16.6.2). */
static void
lapic_set_irr(struct lapic *apic, u8 vector, bool level)
{
	if (!lapic_soft_enabled(apic))
		return;
	lapic_put(apic, REG_TMR, vector, level);
	lapic_put(apic, REG_IRR, vector, true);
}

/* Records an error; the guest sees it once it has written ESR (16.4.6). Bits that wait are
 * kept in the upper half of the register, which reads as zero. */
static void
lapic_error(struct lapic *apic, u32 bit)
{
	u32 lvt = apic->s.regs[REG_LVT_ERROR];
	u32 waiting = apic->s.regs[REG_ESR] >> 16;

	if (waiting & bit)
		return;
	apic->s.regs[REG_ESR] |= bit << 16;
	if (lvt & LVT_MASKED)
		return;
	if ((lvt & 0xff) >= LAPIC_FIRST_VECTOR)
		lapic_set_irr(apic, (u8)lvt, false);
	else
		apic->s.regs[REG_ESR] |= (u32)ESR_RECEIVE_ILLEGAL << 16;
}

static u32
lapic_x2_ldr(u32 id)
{
	return (id >> 4) << 16 | BIT(id & 15);
}

static void
lapic_derive_mode(struct lapic *apic)
{
	apic->enabled = (apic->s.base_msr & APIC_BASE_EN) != 0;
	apic->x2apic = apic->enabled && (apic->s.base_msr & APIC_BASE_EXTD);
	apic->s.regs[REG_VERSION] = LAPIC_VERSION;
	if (apic->x2apic) {
		apic->s.regs[REG_ID] = apic->id;
		apic->s.regs[REG_LDR] = lapic_x2_ldr(apic->id);
	} else {
		apic->s.regs[REG_ID] = apic->id << 24;
	}
}

static void
lapic_arm(struct lapic *apic, u64 deadline)
{
	if (deadline == apic->timer_deadline)
		return;
	apic->timer_deadline = deadline;
	apic->host.set_timer(apic->host.opaque, deadline);
}

static void
lapic_reset_registers(struct lapic *apic)
{
	memset(apic->s.regs, 0, sizeof(apic->s.regs));
	for (unsigned reg = REG_LVT_TIMER; reg <= REG_LVT_ERROR; reg++)
		apic->s.regs[reg] = LVT_MASKED;
	apic->s.regs[REG_SVR] = 0xff;
	apic->s.regs[REG_DFR] = 0xffffffff;
	apic->s.tsc_deadline = 0;
	apic->s.timer_start_ns = 0;
	lapic_derive_mode(apic);
	lapic_arm(apic, 0);
}

void
lapic_init(struct lapic *apic, u32 id, const struct lapic_host *host)
{
	memset(apic, 0, sizeof(*apic));
	apic->host = *host;
	apic->id = id;
	apic->s.base_msr = 0xfee00000u | APIC_BASE_EN | (id == 0 ? APIC_BASE_BSP : 0);
	lapic_reset_registers(apic);
}

void
lapic_reset(struct lapic *apic)
{
	for (unsigned i = 0; i < ARRAY_LEN(apic->posted); i++)
		__atomic_store_n(&apic->posted[i], 0, __ATOMIC_RELAXED);
	__atomic_store_n(&apic->posted_nmi, 0, __ATOMIC_RELAXED);
	lapic_reset_registers(apic);
}

/* Timer. */

static unsigned
lapic_divide_shift(const struct lapic *apic)
{
	u32 value = apic->s.regs[REG_TIMER_DIVIDE];

	return (((value & 3) | ((value >> 1) & 4)) + 1) & 7;
}

static u64
lapic_period_ns(const struct lapic *apic)
{
	return (u64)apic->s.regs[REG_TIMER_INITIAL] << lapic_divide_shift(apic);
}

/* A start out of a saved state may lie before this host's own, below zero. */
static u64
lapic_since(u64 start, u64 now)
{
	return (i64)(now - start) > 0 ? now - start : 0;
}

static u32
lapic_current_count(const struct lapic *apic)
{
	u32 lvt = apic->s.regs[REG_LVT_TIMER];
	u64 period = lapic_period_ns(apic), now, elapsed;

	if (period == 0 || (lvt & TIMER_TSC_DEADLINE) || apic->s.timer_start_ns == 0)
		return 0;
	now = apic->host.now_ns(apic->host.opaque);
	elapsed = lapic_since(apic->s.timer_start_ns, now);
	if (lvt & TIMER_PERIODIC)
		elapsed %= period;
	else if (elapsed >= period)
		return 0;
	return (u32)((period - elapsed) >> lapic_divide_shift(apic));
}

static u64
lapic_count_deadline(const struct lapic *apic)
{
	u64 period = lapic_period_ns(apic), now = apic->host.now_ns(apic->host.opaque);
	u64 start = apic->s.timer_start_ns, deadline;

	if (period == 0 || start == 0)
		return 0;
	if (!(apic->s.regs[REG_LVT_TIMER] & TIMER_PERIODIC))
		return (i64)(start + period) > 0 ? start + period : 1;
	deadline = now + period - lapic_since(start, now) % period;
	if (deadline < now + LAPIC_PERIOD_MIN_NS && period < LAPIC_PERIOD_MIN_NS)
		deadline = now + LAPIC_PERIOD_MIN_NS;
	return deadline;
}

static u64
lapic_tsc_deadline_ns(const struct lapic *apic)
{
	u64 ns;

	if (apic->s.tsc_deadline == 0)
		return 0;
	ns = apic->host.tsc_to_ns(apic->host.opaque, apic->s.tsc_deadline);
	return ns ? ns : 1;
}

/* Computes anew when the timer is due, after anything it depends on has changed. */
static void
lapic_rearm(struct lapic *apic)
{
	if (apic->s.regs[REG_LVT_TIMER] & TIMER_TSC_DEADLINE)
		lapic_arm(apic, lapic_tsc_deadline_ns(apic));
	else
		lapic_arm(apic, lapic_count_deadline(apic));
}

static void
lapic_fire_timer(struct lapic *apic)
{
	u32 lvt = apic->s.regs[REG_LVT_TIMER];

	if (lvt & LVT_MASKED)
		return;
	if ((lvt & 0xff) < LAPIC_FIRST_VECTOR)
		lapic_error(apic, ESR_RECEIVE_ILLEGAL);
	else
		lapic_set_irr(apic, (u8)lvt, false);
}

void
lapic_timer_expire(struct lapic *apic, u64 now_ns)
{
	u64 due = apic->timer_deadline;

	if (due == 0)
		return;
	/* Whatever armed the host's timer has spent it: it is set again below if need be. */
	apic->timer_deadline = 0;
	if (now_ns < due) {
		lapic_arm(apic, due);
		return;
	}
	if (apic->s.regs[REG_LVT_TIMER] & TIMER_TSC_DEADLINE)
		apic->s.tsc_deadline = 0;
	else if (!(apic->s.regs[REG_LVT_TIMER] & TIMER_PERIODIC))
		apic->s.timer_start_ns = 0; /* the count stays zero */
	lapic_fire_timer(apic);
	lapic_rearm(apic);
}

static void
lapic_write_tsc_deadline(struct lapic *apic, u64 value)
{
	if (!(apic->s.regs[REG_LVT_TIMER] & TIMER_TSC_DEADLINE))
		return;
	apic->s.tsc_deadline = value;
	apic->timer_deadline = 0; /* so that an equal deadline is told again */
	if (value != 0 && value <= apic->host.guest_tsc(apic->host.opaque)) {
		apic->s.tsc_deadline = 0;
		lapic_fire_timer(apic);
	}
	apic->timer_deadline = lapic_tsc_deadline_ns(apic);
	apic->host.set_timer(apic->host.opaque, apic->timer_deadline);
}

static void
lapic_write_initial(struct lapic *apic, u32 value)
{
	if (apic->s.regs[REG_LVT_TIMER] & TIMER_TSC_DEADLINE)
		return;
	apic->s.regs[REG_TIMER_INITIAL] = value;
	apic->s.timer_start_ns = value ? apic->host.now_ns(apic->host.opaque) : 0;
	lapic_rearm(apic);
}

/* Another divisor goes on from the count that the timer has reached. */
static void
lapic_write_divide(struct lapic *apic, u32 value)
{
	u32 current = lapic_current_count(apic);
	u64 now, gone;

	apic->s.regs[REG_TIMER_DIVIDE] = value & 0xb;
	if (current == 0)
		return;
	now = apic->host.now_ns(apic->host.opaque);
	gone = (u64)(apic->s.regs[REG_TIMER_INITIAL] - current) << lapic_divide_shift(apic);
	apic->s.timer_start_ns = now != gone ? now - gone : 1;
	lapic_rearm(apic);
}

static void
lapic_write_lvt_timer(struct lapic *apic, u32 value)
{
	u32 old = apic->s.regs[REG_LVT_TIMER];

	apic->s.regs[REG_LVT_TIMER] = value;
	/* To and from TSC-deadline mode, the timer is disarmed (Intel SDM 3, 11.5.4.1). */
	if ((old ^ value) & TIMER_TSC_DEADLINE) {
		apic->s.tsc_deadline = 0;
		apic->s.regs[REG_TIMER_INITIAL] = 0;
		apic->s.timer_start_ns = 0;
	}
	if ((old ^ value) & TIMER_MODE)
		lapic_rearm(apic);
}

/* State. */

/* When the running count was started, or started anew by itself. */
static u64
lapic_last_start(const struct lapic *apic)
{
	u64 period = lapic_period_ns(apic), start = apic->s.timer_start_ns;
	u64 due = apic->timer_deadline;

	if (!(apic->s.regs[REG_LVT_TIMER] & TIMER_PERIODIC) || !start || !period || due < period)
		return start;
	/* A very short period is stretched: then it is due later than it should be. */
	return due - period > start ? due - period : start;
}

/* A period that ran out while nobody had the state is due at once; further ones merge with it. */
static u64
lapic_resumed_deadline(const struct lapic *apic)
{
	u64 first = apic->s.timer_start_ns + lapic_period_ns(apic);

	if ((apic->s.regs[REG_LVT_TIMER] & TIMER_MODE) == TIMER_PERIODIC &&
	    apic->s.timer_start_ns && apic->s.regs[REG_TIMER_INITIAL] &&
	    first < apic->host.now_ns(apic->host.opaque))
		return first;
	return 0;
}

void
lapic_get(const struct lapic *apic, struct cpu_lapic *state)
{
	u32 posted, level;

	*state = apic->s;
	state->timer_start_ns = lapic_last_start(apic);
	state->regs[REG_TIMER_CURRENT] = lapic_current_count(apic);
	for (unsigned i = 0; i < ARRAY_LEN(apic->posted) && lapic_soft_enabled(apic); i++) {
		posted = __atomic_load_n(&apic->posted[i], __ATOMIC_ACQUIRE);
		level = __atomic_load_n(&apic->posted_level[i], __ATOMIC_RELAXED);
		state->regs[REG_IRR + i] |= posted;
		state->regs[REG_TMR + i] = (state->regs[REG_TMR + i] & ~posted) | (posted & level);
	}
}

void
lapic_set(struct lapic *apic, const struct cpu_lapic *state)
{
	apic->s = *state;
	for (unsigned i = 0; i < ARRAY_LEN(apic->posted); i++)
		__atomic_store_n(&apic->posted[i], 0, __ATOMIC_RELAXED);
	lapic_derive_mode(apic);
	apic->timer_deadline = 0;
	apic->host.set_timer(apic->host.opaque, 0);
	if (lapic_resumed_deadline(apic))
		lapic_arm(apic, lapic_resumed_deadline(apic));
	else
		lapic_rearm(apic);
}

/* Interrupts. */

void
lapic_post(struct lapic *apic, u8 vector, bool level)
{
	u32 bit = BIT(vector % 32);
	unsigned i = vector / 32;

	if (level)
		__atomic_fetch_or(&apic->posted_level[i], bit, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&apic->posted_level[i], ~bit, __ATOMIC_RELAXED);
	__atomic_fetch_or(&apic->posted[i], bit, __ATOMIC_RELEASE);
}

void
lapic_post_nmi(struct lapic *apic)
{
	__atomic_store_n(&apic->posted_nmi, 1, __ATOMIC_RELEASE);
}

bool
lapic_has_posted(const struct lapic *apic)
{
	u32 any = __atomic_load_n(&apic->posted_nmi, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < ARRAY_LEN(apic->posted); i++)
		any |= __atomic_load_n(&apic->posted[i], __ATOMIC_ACQUIRE);
	return any != 0;
}

bool
lapic_take_nmi(struct lapic *apic)
{
	if (__atomic_load_n(&apic->posted_nmi, __ATOMIC_RELAXED) == 0)
		return false;
	return __atomic_exchange_n(&apic->posted_nmi, 0, __ATOMIC_ACQUIRE) != 0;
}

static void
lapic_merge_word(struct lapic *apic, unsigned i)
{
	u32 posted = __atomic_exchange_n(&apic->posted[i], 0, __ATOMIC_ACQUIRE);
	u32 level = __atomic_load_n(&apic->posted_level[i], __ATOMIC_RELAXED);

	if (!lapic_soft_enabled(apic))
		return;
	if (i == 0 && (posted & 0xffff)) {
		posted &= 0xffff0000;
		lapic_error(apic, ESR_RECEIVE_ILLEGAL);
	}
	apic->s.regs[REG_IRR + i] |= posted;
	apic->s.regs[REG_TMR + i] = (apic->s.regs[REG_TMR + i] & ~posted) | (posted & level);
}

static void
lapic_merge(struct lapic *apic)
{
	for (unsigned i = 0; i < ARRAY_LEN(apic->posted); i++) {
		if (__atomic_load_n(&apic->posted[i], __ATOMIC_RELAXED))
			lapic_merge_word(apic, i);
	}
}

/* Processor priority (16.6.3). */
static u32
lapic_ppr(const struct lapic *apic)
{
	int isr = lapic_highest(apic, REG_ISR);
	u32 in_service = isr < 0 ? 0 : (u32)isr & 0xf0;
	u32 task = apic->s.regs[REG_TPR] & 0xff;

	return (task & 0xf0) >= in_service ? task : in_service;
}

int
lapic_pending(struct lapic *apic)
{
	int vector;

	lapic_merge(apic);
	if (!apic->enabled)
		return -1;
	vector = lapic_highest(apic, REG_IRR);
	if (vector < 0 || ((u32)vector & 0xf0) <= (lapic_ppr(apic) & 0xf0))
		return -1;
	return vector;
}

void
lapic_accept(struct lapic *apic, u8 vector)
{
	lapic_put(apic, REG_IRR, vector, false);
	lapic_put(apic, REG_ISR, vector, true);
}

static void
lapic_eoi(struct lapic *apic)
{
	int vector = lapic_highest(apic, REG_ISR);

	if (vector < 0)
		return;
	lapic_put(apic, REG_ISR, (unsigned)vector, false);
	if (lapic_test(apic, REG_TMR, (unsigned)vector))
		apic->host.eoi(apic->host.opaque, (u8)vector);
}

bool
lapic_accepts_extint(const struct lapic *apic)
{
	u32 lvt = apic->s.regs[REG_LVT_LINT0];

	if (!apic->enabled)
		return true;
	return !(lvt & LVT_MASKED) && (lvt & LVT_DELIVERY) == LAPIC_EXTINT << 8;
}

/* Logical destination in xAPIC mode (16.6.1): flat or cluster, by DFR. */
static bool
lapic_matches_flat(const struct lapic *apic, u32 destination)
{
	u32 ldr = apic->s.regs[REG_LDR] >> 24;

	if (destination > 0xff)
		return false;
	if (destination == 0xff)
		return true;
	if (apic->s.regs[REG_DFR] >> 28 == 0xf)
		return (ldr & destination) != 0;
	return ldr >> 4 == destination >> 4 && (ldr & destination & 0xf);
}

bool
lapic_matches(const struct lapic *apic, bool logical, u32 destination, bool wide)
{
	u32 ldr = apic->s.regs[REG_LDR];

	if (destination == (wide ? 0xffffffff : 0xff))
		return true;
	if (!logical)
		return destination == apic->id;
	if (!apic->x2apic)
		return lapic_matches_flat(apic, destination);
	return ldr >> 16 == destination >> 16 && (ldr & destination & 0xffff);
}

static void
lapic_send_ipi(struct lapic *apic)
{
	u32 icr = apic->s.regs[REG_ICR], high = apic->s.regs[REG_ICR_HIGH];
	struct lapic_ipi ipi = {
		.delivery = (enum lapic_delivery)((icr >> 8) & 7),
		.vector = (u8)icr,
		.level = (icr & ICR_LEVEL) != 0,
		.assert = (icr & ICR_ASSERT) != 0,
		.logical = (icr & ICR_LOGICAL) != 0,
		.shorthand = (icr >> 18) & 3,
		.destination = apic->x2apic ? high : high >> 24,
	};

	/* INIT level de-assert has had no effect since the Pentium 4. */
	if (ipi.delivery == LAPIC_INIT && ipi.level && !ipi.assert)
		return;
	if (ipi.delivery == LAPIC_EXTINT || (unsigned)ipi.delivery == 3)
		return;
	if (ipi.delivery <= LAPIC_LOWEST && ipi.vector < LAPIC_FIRST_VECTOR) {
		lapic_error(apic, ESR_SEND_ILLEGAL);
		return;
	}
	if (ipi.shorthand == 1 && ipi.delivery <= LAPIC_LOWEST)
		lapic_set_irr(apic, ipi.vector, false);
	else
		apic->host.send_ipi(apic->host.opaque, &ipi);
}

static void
lapic_self_ipi(struct lapic *apic, u32 value)
{
	if ((value & 0xff) < LAPIC_FIRST_VECTOR)
		lapic_error(apic, ESR_SEND_ILLEGAL);
	else
		lapic_set_irr(apic, (u8)value, false);
}

/* Registers. */

static void
lapic_write_svr(struct lapic *apic, u32 value)
{
	apic->s.regs[REG_SVR] = value & 0x3ff;
	if (value & SVR_ENABLED)
		return;
	for (unsigned reg = REG_LVT_TIMER; reg <= REG_LVT_ERROR; reg++)
		apic->s.regs[reg] |= LVT_MASKED;
}

static void
lapic_write_lvt(struct lapic *apic, unsigned reg, u32 value)
{
	value &= lapic_lvt_writable[reg];
	if (!lapic_soft_enabled(apic))
		value |= LVT_MASKED;
	if (reg == REG_LVT_TIMER)
		lapic_write_lvt_timer(apic, value);
	else
		apic->s.regs[reg] = value;
}

/* What reads the same in both modes. */
static u32
lapic_read(struct lapic *apic, unsigned reg)
{
	switch (reg) {
	case REG_PPR:
		return lapic_ppr(apic);
	case REG_ESR:
		return apic->s.regs[REG_ESR] & 0xffff;
	case REG_TIMER_CURRENT:
		return lapic_current_count(apic);
	default:
		break;
	}
	if (reg >= REG_IRR && reg < REG_IRR + 8)
		lapic_merge(apic);
	return apic->s.regs[reg];
}

/* What is written the same in both modes; false if REG is not writable. */
static bool
lapic_write(struct lapic *apic, unsigned reg, u32 value)
{
	switch (reg) {
	case REG_TPR:
		apic->s.regs[REG_TPR] = value & 0xff;
		return true;
	case REG_EOI:
		lapic_eoi(apic);
		return true;
	case REG_SVR:
		lapic_write_svr(apic, value);
		return true;
	case REG_ESR:
		apic->s.regs[REG_ESR] >>= 16; /* what waited is shown, nothing waits */
		return true;
	case REG_ICR:
		apic->s.regs[REG_ICR] = value & ICR_WRITABLE;
		lapic_send_ipi(apic);
		return true;
	case REG_LVT_TIMER:
	case REG_LVT_THERMAL:
	case REG_LVT_PERF:
	case REG_LVT_LINT0:
	case REG_LVT_LINT1:
	case REG_LVT_ERROR:
		lapic_write_lvt(apic, reg, value);
		return true;
	case REG_TIMER_INITIAL:
		lapic_write_initial(apic, value);
		return true;
	case REG_TIMER_DIVIDE:
		lapic_write_divide(apic, value);
		return true;
	default:
		return false;
	}
}

static bool
lapic_readable(unsigned reg)
{
	switch (reg) {
	case REG_ID:
	case REG_VERSION:
	case REG_TPR:
	case REG_PPR:
	case REG_LDR:
	case REG_SVR:
	case REG_ESR:
	case REG_ICR:
	case REG_TIMER_INITIAL:
	case REG_TIMER_CURRENT:
	case REG_TIMER_DIVIDE:
		return true;
	default:
		return (reg >= REG_ISR && reg < REG_IRR + 8) ||
		       (reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR);
	}
}

u32
lapic_mmio_read(struct lapic *apic, u32 offset)
{
	unsigned reg = (offset >> 4) & 0xff;

	if (offset & 0xf)
		return 0;
	if (reg < REG_LIMIT && (lapic_readable(reg) || reg == REG_DFR || reg == REG_ICR_HIGH ||
				reg == REG_APR || reg == REG_EOI || reg == 0x0c))
		return lapic_read(apic, reg);
	lapic_error(apic, ESR_REGISTER_ILLEGAL);
	return 0;
}

void
lapic_mmio_write(struct lapic *apic, u32 offset, u32 value)
{
	unsigned reg = (offset >> 4) & 0xff;

	if (offset & 0xf)
		return;
	switch (reg) {
	case REG_LDR:
		apic->s.regs[reg] = value & 0xff000000;
		return;
	case REG_DFR:
		apic->s.regs[reg] = value | 0x0fffffff;
		return;
	case REG_ICR_HIGH:
		apic->s.regs[reg] = value & 0xff000000;
		return;
	case REG_ID: /* read-only here: the vCPU is known by it */
		return;
	default:
		break;
	}
	if (!lapic_write(apic, reg, value))
		lapic_error(apic, ESR_REGISTER_ILLEGAL);
}

/* Bits that x2APIC writes may have set (16.11.1); none for registers that cannot be written. */
static u64
lapic_x2_writable(unsigned reg)
{
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI:
		return 0xff;
	case REG_SVR:
		return 0x3ff;
	case REG_ICR:
		return 0xffffffff00000000ull | ICR_WRITABLE | BIT(12);
	case REG_TIMER_INITIAL:
		return 0xffffffff;
	case REG_TIMER_DIVIDE:
		return 0xb;
	default:
		break;
	}
	if (reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR)
		return lapic_lvt_writable[reg] | BIT(12) | BIT(14); /* status bits are ignored */
	return 0;						    /* EOI and ESR take zero */
}

static int
lapic_x2_read(struct lapic *apic, unsigned reg, u64 *value)
{
	if (!apic->x2apic || reg >= REG_LIMIT || !lapic_readable(reg))
		return -EINVAL;
	*value = lapic_read(apic, reg);
	if (reg == REG_ICR)
		*value |= (u64)apic->s.regs[REG_ICR_HIGH] << 32;
	return 0;
}

static int
lapic_x2_write(struct lapic *apic, unsigned reg, u64 value)
{
	if (!apic->x2apic || (value & ~lapic_x2_writable(reg)))
		return -EINVAL;
	if (reg == REG_SELF_IPI) {
		lapic_self_ipi(apic, (u32)value);
		return 0;
	}
	if (reg == REG_ICR)
		apic->s.regs[REG_ICR_HIGH] = (u32)(value >> 32);
	return lapic_write(apic, reg, (u32)value) ? 0 : -EINVAL;
}

/* Only these mode changes exist (16.9): off - xAPIC - x2APIC - off. */
static int
lapic_write_base(struct lapic *apic, u64 value)
{
	u64 known = APIC_BASE_ADDRESS | APIC_BASE_BSP | APIC_BASE_EXTD | APIC_BASE_EN;
	bool enabled = (value & APIC_BASE_EN) != 0, extended = (value & APIC_BASE_EXTD) != 0;
	bool was_enabled = apic->enabled, was_x2apic = apic->x2apic;

	if ((value & ~known) || (extended && !enabled))
		return -EINVAL;
	if ((was_x2apic && enabled && !extended) || (!was_enabled && extended))
		return -EINVAL;
	apic->s.base_msr = value;
	if (was_enabled != enabled)
		lapic_reset_registers(apic);
	else
		lapic_derive_mode(apic);
	if (apic->x2apic && !was_x2apic)
		apic->s.regs[REG_ICR_HIGH] = 0;
	return 0;
}

int
lapic_msr_read(struct lapic *apic, u32 msr, u64 *value)
{
	if (msr == MSR_OF_APIC_BASE) {
		*value = apic->s.base_msr;
		return 0;
	}
	if (msr == MSR_OF_TSC_DEADLINE) {
		*value = apic->s.tsc_deadline;
		return 0;
	}
	return lapic_x2_read(apic, msr - X2APIC_MSR, value);
}

int
lapic_msr_write(struct lapic *apic, u32 msr, u64 value)
{
	if (msr == MSR_OF_APIC_BASE)
		return lapic_write_base(apic, value);
	if (msr == MSR_OF_TSC_DEADLINE) {
		lapic_write_tsc_deadline(apic, value);
		return 0;
	}
	return lapic_x2_write(apic, msr - X2APIC_MSR, value);
}

u64
lapic_get_cr8(const struct lapic *apic)
{
	return (apic->s.regs[REG_TPR] >> 4) & 0xf;
}

void
lapic_set_cr8(struct lapic *apic, u64 value)
{
	apic->s.regs[REG_TPR] = (u32)(value & 0xf) << 4;
}
