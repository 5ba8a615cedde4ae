/*
 * HPET. The counter is a function of the host's monotonic time; a host timer
 * runs only for a comparator whose interrupt is enabled.
 *
 * Periods that the host was too late for are skipped: the comparator moves to
 * the next multiple that lies ahead.
 */
#include "device/hpet.h"

#include <errno.h>
#include <stdlib.h>

#include "state/state.h"

enum {
	HPET_CAP = 0x000,
	HPET_CONFIG = 0x010,
	HPET_STATUS = 0x020,
	HPET_COUNTER = 0x0f0,
	HPET_TIMER0 = 0x100,
	HPET_TIMER_STRIDE = 0x20
};
enum { HPET_TN_CONFIG = 0x00, HPET_TN_COMPARE = 0x08, HPET_TN_FSB = 0x10 };
enum { CONFIG_ENABLE = BIT(0), CONFIG_LEGACY = BIT(1) };

enum {
	TN_LEVEL = BIT(1),
	TN_ENABLE = BIT(2),
	TN_PERIODIC = BIT(3),
	TN_CAN_PERIODIC = BIT(4),
	TN_CAN_64 = BIT(5),
	TN_SET_VALUE = BIT(6),
	TN_32BIT = BIT(8),
	TN_ROUTE_SHIFT = 9,
	TN_FSB = BIT(14),
	TN_CAN_FSB = BIT(15),
	TN_WRITABLE =
		0x3e00 | TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_SET_VALUE | TN_32BIT | TN_FSB,
	TN_CAPABILITIES = TN_CAN_PERIODIC | TN_CAN_64 | TN_CAN_FSB,
};

/* IOAPIC inputs that a comparator may be wired to. */
#define HPET_ROUTES 0x00f00000u
/* Nearer than this two interrupts of one comparator are not made, whatever its period. */
enum { HPET_MIN_NS = 20000 };
#define HPET_NEVER UINT64_MAX

struct hpet_timer {
	struct hpet *hpet;
	unsigned index;
	u32 config;
	u64 compare; /* the next match */
	u64 period;
	u64 fsb;	   /* address << 32 | data */
	bool driven;	   /* level on the line it uses */
	u32 driven_config; /* configuration that line follows from */
	struct loop_timer *timer;
};

struct hpet {
	u64 config;
	u64 status;
	u64 counter;  /* its value when it was stopped, or at start_ns */
	u64 start_ns; /* when it was started */
	struct hpet_timer timers[HPET_TIMERS];
	struct msi_sink msi;
	struct hpet_host host;
	struct memory *memory;
	struct io_region *region;
};

static u64
hpet_counter(const struct hpet *hpet, u64 now)
{
	if (!(hpet->config & CONFIG_ENABLE))
		return hpet->counter;
	return hpet->counter + (now - hpet->start_ns) / HPET_PERIOD_NS;
}

static u64
hpet_mask(const struct hpet_timer *timer)
{
	return timer->config & TN_32BIT ? 0xffffffffu : UINT64_MAX;
}

/* Drives the line that the timer's configuration names. */
static void
hpet_drive(struct hpet_timer *timer, u32 config, bool legacy, bool level)
{
	const struct hpet_host *host = &timer->hpet->host;
	unsigned pin = config >> TN_ROUTE_SHIFT & 31;

	if (legacy && timer->index < 2)
		host->set_legacy(host->opaque, timer->index ? 8 : 0, level);
	else if (HPET_ROUTES & BIT(pin))
		host->set_pin(host->opaque, pin, level);
}

static bool
hpet_legacy(const struct hpet *hpet)
{
	return hpet->config & CONFIG_LEGACY;
}

/* A level-triggered timer's line follows its status bit. */
static void
hpet_update_level(struct hpet_timer *timer)
{
	struct hpet *hpet = timer->hpet;
	bool level = (timer->config & TN_LEVEL) && (timer->config & TN_ENABLE) &&
		     !(timer->config & TN_FSB) && (hpet->status & BIT(timer->index));

	if (timer->driven && (!level || timer->driven_config != timer->config))
		hpet_drive(timer, timer->driven_config, hpet_legacy(hpet), false);
	if (level)
		hpet_drive(timer, timer->config, hpet_legacy(hpet), true);
	timer->driven = level;
	timer->driven_config = timer->config;
}

static void
hpet_interrupt(struct hpet_timer *timer)
{
	struct hpet *hpet = timer->hpet;

	if (timer->config & TN_LEVEL)
		hpet->status |= BIT(timer->index);
	if (!(timer->config & TN_ENABLE))
		return;
	if (timer->config & TN_FSB) {
		hpet->msi.send(hpet->msi.opaque, timer->fsb >> 32, (u32)timer->fsb);
	} else if (timer->config & TN_LEVEL) {
		hpet_update_level(timer);
	} else {
		hpet_drive(timer, timer->config, hpet_legacy(hpet), true);
		hpet_drive(timer, timer->config, hpet_legacy(hpet), false);
	}
}

/* Moves a periodic comparator to its first match after the counter. */
static void
hpet_advance(struct hpet_timer *timer, u64 counter)
{
	u64 mask = hpet_mask(timer);
	u64 behind = (counter - timer->compare) & mask;
	u64 period = timer->period & mask;

	/* In the nearer half ahead: not passed yet. */
	if (!(timer->config & TN_PERIODIC) || !period || behind > mask / 2)
		return;
	timer->compare = (timer->compare + (behind / period + 1) * period) & mask;
}

/* Monotonic time of the next match, HPET_NEVER if it is beyond all measure. */
static u64
hpet_next(const struct hpet_timer *timer, u64 now)
{
	u64 ahead = (timer->compare - hpet_counter(timer->hpet, now)) & hpet_mask(timer);

	if (ahead > UINT64_MAX / HPET_PERIOD_NS / 4)
		return HPET_NEVER;
	return now + ahead * HPET_PERIOD_NS;
}

static void
hpet_arm(struct hpet_timer *timer)
{
	struct hpet *hpet = timer->hpet;
	u64 now = loop_now();
	u64 next;

	if (!(hpet->config & CONFIG_ENABLE) || !(timer->config & TN_ENABLE)) {
		loop_timer_cancel(timer->timer);
		return;
	}
	hpet_advance(timer, hpet_counter(hpet, now));
	next = hpet_next(timer, now);
	if (next == HPET_NEVER) {
		loop_timer_cancel(timer->timer);
		return;
	}
	if ((timer->config & TN_PERIODIC) && next < now + HPET_MIN_NS)
		next = now + HPET_MIN_NS;
	loop_timer_arm(timer->timer, next);
}

static void
hpet_tick(void *opaque)
{
	struct hpet_timer *timer = opaque;

	hpet_interrupt(timer);
	/* One-shot: the next match is a whole turn of the counter away. */
	if (timer->config & (TN_PERIODIC | TN_32BIT))
		hpet_arm(timer);
}

static void
hpet_arm_all(struct hpet *hpet)
{
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		hpet_arm(&hpet->timers[i]);
}

static void
hpet_write_config(struct hpet *hpet, u64 value)
{
	u64 now = loop_now();
	u64 changed;

	value &= CONFIG_ENABLE | CONFIG_LEGACY;
	changed = value ^ hpet->config;
	if (changed & CONFIG_LEGACY) {
		for (unsigned i = 0; i < HPET_TIMERS; i++)
			if (hpet->timers[i].driven)
				hpet_drive(&hpet->timers[i], hpet->timers[i].driven_config,
					   hpet_legacy(hpet), false);
	}
	if (changed & CONFIG_ENABLE) {
		hpet->counter = hpet_counter(hpet, now);
		hpet->start_ns = now;
	}
	hpet->config = value;
	if (changed & CONFIG_LEGACY) {
		hpet->host.legacy(hpet->host.opaque, value & CONFIG_LEGACY);
		for (unsigned i = 0; i < HPET_TIMERS; i++)
			hpet_update_level(&hpet->timers[i]);
	}
	hpet_arm_all(hpet);
}

static void
hpet_write_status(struct hpet *hpet, u64 value)
{
	hpet->status &= ~value;
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		hpet_update_level(&hpet->timers[i]);
}

static void
hpet_write_counter(struct hpet *hpet, u64 value)
{
	/* Only allowed while it is halted (2.3.7); then there is nothing to arm. */
	if (!(hpet->config & CONFIG_ENABLE))
		hpet->counter = value;
}

static void
hpet_write_timer_config(struct hpet_timer *timer, u64 value)
{
	timer->config = (u32)(value & TN_WRITABLE) | TN_CAPABILITIES;
	if (timer->config & TN_32BIT) {
		timer->compare &= 0xffffffffu;
		timer->period &= 0xffffffffu;
	}
	if (!(timer->config & TN_LEVEL))
		timer->hpet->status &= ~(u64)BIT(timer->index);
	hpet_update_level(timer);
	hpet_arm(timer);
}

/* In periodic mode a write is the period, and with the "set value" bit the next match (2.3.9.2.2).
 */
static void
hpet_write_compare(struct hpet_timer *timer, u64 value)
{
	value &= hpet_mask(timer);
	if (timer->config & TN_PERIODIC)
		timer->period = value;
	if (!(timer->config & TN_PERIODIC) || (timer->config & TN_SET_VALUE))
		timer->compare = value;
	timer->config &= ~(u32)TN_SET_VALUE;
	hpet_arm(timer);
}

static u64
hpet_read_timer(struct hpet *hpet, u64 offset)
{
	struct hpet_timer *timer = &hpet->timers[offset / HPET_TIMER_STRIDE];

	switch (offset % HPET_TIMER_STRIDE) {
	case HPET_TN_CONFIG:
		return timer->config | (u64)HPET_ROUTES << 32;
	case HPET_TN_COMPARE:
		if (hpet->config & CONFIG_ENABLE)
			hpet_advance(timer, hpet_counter(hpet, loop_now()));
		return timer->compare;
	case HPET_TN_FSB:
		return timer->fsb;
	}
	return 0;
}

static u64
hpet_read_register(struct hpet *hpet, u64 offset)
{
	switch (offset) {
	case HPET_CAP:
		return HPET_CAPABILITIES | (u64)(HPET_PERIOD_NS * 1000000u) << 32;
	case HPET_CONFIG:
		return hpet->config;
	case HPET_STATUS:
		return hpet->status;
	case HPET_COUNTER:
		return hpet_counter(hpet, loop_now());
	}
	if (offset >= HPET_TIMER0 && offset < HPET_TIMER0 + HPET_TIMERS * HPET_TIMER_STRIDE)
		return hpet_read_timer(hpet, offset - HPET_TIMER0);
	return 0;
}

static void
hpet_write_timer(struct hpet *hpet, u64 offset, u64 value)
{
	struct hpet_timer *timer = &hpet->timers[offset / HPET_TIMER_STRIDE];

	switch (offset % HPET_TIMER_STRIDE) {
	case HPET_TN_CONFIG:
		hpet_write_timer_config(timer, value);
		break;
	case HPET_TN_COMPARE:
		hpet_write_compare(timer, value);
		break;
	case HPET_TN_FSB:
		timer->fsb = value;
		break;
	}
}

static void
hpet_write_register(struct hpet *hpet, u64 offset, u64 value)
{
	switch (offset) {
	case HPET_CONFIG:
		hpet_write_config(hpet, value);
		return;
	case HPET_STATUS:
		hpet_write_status(hpet, value);
		return;
	case HPET_COUNTER:
		hpet_write_counter(hpet, value);
		return;
	}
	if (offset >= HPET_TIMER0 && offset < HPET_TIMER0 + HPET_TIMERS * HPET_TIMER_STRIDE)
		hpet_write_timer(hpet, offset - HPET_TIMER0, value);
}

static u64
hpet_read(void *opaque, u64 offset, unsigned size)
{
	(void)size;
	return hpet_read_register(opaque, offset & ~7ull) >> (offset & 7) * 8;
}

/* What a register's other half holds, for a 32-bit write. The status register is cleared by
 * ones, and a comparator half that is not written keeps what the guest wrote before. */
static u64
hpet_other_half(struct hpet *hpet, u64 offset)
{
	u64 timer = offset - HPET_TIMER0;

	if (offset == HPET_STATUS)
		return 0;
	if (offset >= HPET_TIMER0 && offset < HPET_TIMER0 + HPET_TIMERS * HPET_TIMER_STRIDE &&
	    timer % HPET_TIMER_STRIDE == HPET_TN_COMPARE) {
		const struct hpet_timer *t = &hpet->timers[timer / HPET_TIMER_STRIDE];

		return t->config & TN_PERIODIC && !(t->config & TN_SET_VALUE) ? t->period
									      : t->compare;
	}
	return hpet_read_register(hpet, offset);
}

static void
hpet_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct hpet *hpet = opaque;
	unsigned shift = (unsigned)(offset & 7) * 8;
	u64 mask;

	if (size == 8) {
		hpet_write_register(hpet, offset & ~7ull, value);
		return;
	}
	mask = ((1ull << size * 8) - 1) << shift;
	value = (value << shift & mask) | (hpet_other_half(hpet, offset & ~7ull) & ~mask);
	hpet_write_register(hpet, offset & ~7ull, value);
}

static const struct io_ops hpet_ops = {hpet_read, hpet_write};

void
hpet_reset(struct hpet *hpet)
{
	bool legacy = hpet_legacy(hpet);

	hpet->status = 0;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		struct hpet_timer *timer = &hpet->timers[i];

		hpet_update_level(timer);
		timer->config = TN_CAPABILITIES;
		timer->compare = UINT64_MAX;
		timer->period = timer->fsb = 0;
		loop_timer_cancel(timer->timer);
	}
	hpet->config = 0;
	hpet->counter = 0;
	if (legacy)
		hpet->host.legacy(hpet->host.opaque, false);
}

int
hpet_create(struct hpet **out, const struct device_host *host, const struct hpet_host *hpet_host)
{
	struct hpet *hpet = calloc(1, sizeof(*hpet));
	int err = 0;

	if (!hpet)
		return -ENOMEM;
	hpet->msi = host->msi;
	hpet->host = *hpet_host;
	hpet->memory = host->memory;
	for (unsigned i = 0; i < HPET_TIMERS && !err; i++) {
		struct hpet_timer *timer = &hpet->timers[i];

		timer->hpet = hpet;
		timer->index = i;
		err = loop_timer_create(host->loop, hpet_tick, timer, &timer->timer);
	}
	if (err)
		goto fail;
	err = -ENOMEM;
	hpet->region = memory_add_mmio(host->memory, HPET_GPA, HPET_SIZE, &hpet_ops, hpet);
	if (!hpet->region)
		goto fail;
	hpet_reset(hpet);
	*out = hpet;
	return 0;
fail:
	hpet_destroy(hpet);
	return err;
}

void
hpet_destroy(struct hpet *hpet)
{
	if (!hpet)
		return;
	if (hpet->region)
		memory_remove_region(hpet->memory, hpet->region);
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		if (hpet->timers[i].timer)
			loop_timer_destroy(hpet->timers[i].timer);
	free(hpet);
}

/* ---- saved state ---- */

static const struct state_field hpet_timer_fields[] = {
	STATE_NUMBER(struct hpet_timer, config),
	STATE_NUMBER(struct hpet_timer, compare),
	STATE_NUMBER(struct hpet_timer, period),
	STATE_NUMBER(struct hpet_timer, fsb),
	STATE_FLAG(struct hpet_timer, driven),
	STATE_NUMBER(struct hpet_timer, driven_config),
	STATE_END,
};

static const struct state_field hpet_fields[] = {
	STATE_MAX(struct hpet, config, CONFIG_ENABLE | CONFIG_LEGACY),
	STATE_MAX(struct hpet, status, BIT(HPET_TIMERS) - 1),
	STATE_NUMBER(struct hpet, counter),
	STATE_INSTANT(struct hpet, start_ns),
	STATE_STRUCTS(struct hpet, timers, hpet_timer_fields),
	STATE_END,
};

static bool
hpet_state_check(const void *staged)
{
	const struct hpet *hpet = staged;

	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		const struct hpet_timer *timer = &hpet->timers[i];

		if ((timer->config & ~(u32)TN_WRITABLE) != TN_CAPABILITIES)
			return false;
		if ((timer->config & TN_32BIT) && ((timer->compare | timer->period) >> 32))
			return false;
	}
	return true;
}

static void
hpet_state_loaded(void *object)
{
	hpet_arm_all(object);
}

static const struct state_type hpet_state_type = {"hpet", 1, hpet_fields, hpet_state_check,
						  hpet_state_loaded};

void
hpet_state(struct hpet *hpet, struct state_list *list)
{
	state_list_add(list, &hpet_state_type, 0, hpet, sizeof(*hpet));
}
