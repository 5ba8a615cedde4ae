/*
 * MC146818A (Motorola data sheet) as in an ICH9. Time registers are computed
 * when read; the flags of register C are brought up to date when looked at, so
 * that a timer is armed only for an interrupt that is enabled and whose flag
 * is still clear.
 */
#include "device/rtc.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "state/state.h"

enum { RTC_SIZE = 128 };
#define RTC_SECOND 1000000000ull
#define RTC_NEVER UINT64_MAX
#define RTC_LAST_SECOND 9000000000ll
/* Before each second's update UIP is set for this long (data sheet: 244 us). */
#define RTC_UIP_NS 244000ull

enum {
	RTC_SEC = 0x00,
	RTC_SEC_ALARM = 0x01,
	RTC_MIN = 0x02,
	RTC_MIN_ALARM = 0x03,
	RTC_HOUR = 0x04,
	RTC_HOUR_ALARM = 0x05,
	RTC_WEEKDAY = 0x06,
	RTC_DAY = 0x07,
	RTC_MONTH = 0x08,
	RTC_YEAR = 0x09,
	RTC_A = 0x0a,
	RTC_B = 0x0b,
	RTC_C = 0x0c,
	RTC_D = 0x0d,
	RTC_BASE_KIB = 0x15,
	RTC_EXTENDED_KIB = 0x17,
	RTC_EXTENDED_KIB_2 = 0x30,
	RTC_CENTURY = 0x32,
	RTC_ABOVE_16M = 0x34, /* in 64 KiB, up to 4 GiB */
	RTC_ABOVE_4G = 0x5b,  /* in 64 KiB, three bytes */
	RTC_MORE_CPUS = 0x5f,
};

enum { A_UIP = BIT(7), A_DIVIDER = 0x70, A_RUNNING = 0x20, A_RATE = 0x0f };
enum {
	B_24H = BIT(1),
	B_BINARY = BIT(2),
	B_UIE = BIT(4),
	B_AIE = BIT(5),
	B_PIE = BIT(6),
	B_SET = BIT(7)
};
enum { C_UF = BIT(4), C_AF = BIT(5), C_PF = BIT(6), C_IRQF = BIT(7) };
enum { D_VALID = BIT(7) };

struct rtc {
	u8 cmos[RTC_SIZE]; /* registers too; time ones hold while SET */
	u8 index;
	i64 offset_ns;	/* guest time = host time + offset */
	u64 checked_ns; /* guest time up to which register C is right */
	struct irq_line irq;
	struct loop_timer *timer;
	struct memory *memory;
	struct io_region *region;
};

static u64
rtc_now(const struct rtc *rtc)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (u64)ts.tv_sec * RTC_SECOND + (u64)ts.tv_nsec + (u64)rtc->offset_ns;
}

/* The clock counts unless the guest is setting it or holds the divider in reset. */
static bool
rtc_running(const struct rtc *rtc)
{
	return !(rtc->cmos[RTC_B] & B_SET) && (rtc->cmos[RTC_A] & 0x60) != 0x60;
}

static u8
rtc_encode(const struct rtc *rtc, int value)
{
	if (rtc->cmos[RTC_B] & B_BINARY)
		return (u8)value;
	return (u8)(value / 10 << 4 | value % 10);
}

static int
rtc_decode(const struct rtc *rtc, u8 value)
{
	if (rtc->cmos[RTC_B] & B_BINARY)
		return value;
	return (value >> 4) * 10 + (value & 15);
}

static u8
rtc_encode_hour(const struct rtc *rtc, int hour)
{
	if (rtc->cmos[RTC_B] & B_24H)
		return rtc_encode(rtc, hour);
	return rtc_encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static int
rtc_decode_hour(const struct rtc *rtc, u8 value)
{
	if (rtc->cmos[RTC_B] & B_24H)
		return rtc_decode(rtc, value);
	return rtc_decode(rtc, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

/* Time registers from the clock. */
static void
rtc_load_time(struct rtc *rtc)
{
	time_t seconds = (time_t)(rtc_now(rtc) / RTC_SECOND);
	struct tm tm;

	if (!gmtime_r(&seconds, &tm))
		return;
	rtc->cmos[RTC_SEC] = rtc_encode(rtc, tm.tm_sec);
	rtc->cmos[RTC_MIN] = rtc_encode(rtc, tm.tm_min);
	rtc->cmos[RTC_HOUR] = rtc_encode_hour(rtc, tm.tm_hour);
	rtc->cmos[RTC_WEEKDAY] = rtc_encode(rtc, tm.tm_wday + 1);
	rtc->cmos[RTC_DAY] = rtc_encode(rtc, tm.tm_mday);
	rtc->cmos[RTC_MONTH] = rtc_encode(rtc, tm.tm_mon + 1);
	rtc->cmos[RTC_YEAR] = rtc_encode(rtc, (tm.tm_year + 1900) % 100);
	rtc->cmos[RTC_CENTURY] = rtc_encode(rtc, (tm.tm_year + 1900) / 100 % 100);
}

/* The clock from the time registers, at the start of that second. Nonsense is normalised. */
static void
rtc_store_time(struct rtc *rtc)
{
	struct tm tm = {
		.tm_sec = rtc_decode(rtc, rtc->cmos[RTC_SEC]),
		.tm_min = rtc_decode(rtc, rtc->cmos[RTC_MIN]),
		.tm_hour = rtc_decode_hour(rtc, rtc->cmos[RTC_HOUR]),
		.tm_mday = rtc_decode(rtc, rtc->cmos[RTC_DAY]),
		.tm_mon = rtc_decode(rtc, rtc->cmos[RTC_MONTH]) - 1,
		.tm_year = rtc_decode(rtc, rtc->cmos[RTC_CENTURY]) * 100 +
			   rtc_decode(rtc, rtc->cmos[RTC_YEAR]) - 1900,
	};
	time_t seconds = timegm(&tm);

	/* What 64 bits of nanoseconds hold: 1970 to 2255. */
	if (seconds < 0)
		seconds = 0;
	if (seconds > RTC_LAST_SECOND)
		seconds = RTC_LAST_SECOND;
	rtc->offset_ns = (i64)((u64)rtc->offset_ns + (u64)seconds * RTC_SECOND - rtc_now(rtc));
	rtc->checked_ns = rtc_now(rtc);
}

/* Whether an alarm register matches; the two top bits set mean "any". */
static bool
rtc_alarm_field(const struct rtc *rtc, unsigned reg, int value)
{
	u8 alarm = rtc->cmos[reg];

	if ((alarm & 0xc0) == 0xc0)
		return true;
	if (reg == RTC_HOUR_ALARM)
		return rtc_decode_hour(rtc, alarm) == value;
	return rtc_decode(rtc, alarm) == value;
}

/* The second after FROM (guest ns) at which the alarm is due, at most a day ahead. */
static u64
rtc_next_alarm(const struct rtc *rtc, u64 from)
{
	u64 second = from / RTC_SECOND + 1;

	for (unsigned i = 0; i < 86400; i++, second++) {
		int of_day = (int)(second % 86400);

		if (rtc_alarm_field(rtc, RTC_HOUR_ALARM, of_day / 3600) &&
		    rtc_alarm_field(rtc, RTC_MIN_ALARM, of_day / 60 % 60) &&
		    rtc_alarm_field(rtc, RTC_SEC_ALARM, of_day % 60))
			return second * RTC_SECOND;
	}
	return RTC_NEVER;
}

/* The periodic rate in 1/32768 s, or 0. */
static u64
rtc_period(const struct rtc *rtc)
{
	unsigned rate = rtc->cmos[RTC_A] & A_RATE;

	if (!rate || (rtc->cmos[RTC_A] & A_DIVIDER) != A_RUNNING)
		return 0;
	return 1ull << (rate <= 2 ? rate + 6 : rate - 1);
}

static u64
rtc_next_period(const struct rtc *rtc, u64 from)
{
	u64 period = rtc_period(rtc);
	u64 tick, next;

	if (!period)
		return RTC_NEVER;
	tick = (u64)((unsigned __int128)from * 32768 / RTC_SECOND);
	next = (tick / period + 1) * period;
	return (u64)(((unsigned __int128)next * RTC_SECOND + 32767) / 32768);
}

static u64
rtc_next(const struct rtc *rtc, u8 flag, u64 from)
{
	if (flag == C_PF)
		return rtc_next_period(rtc, from);
	if (!rtc_running(rtc))
		return RTC_NEVER;
	if (flag == C_AF)
		return rtc_next_alarm(rtc, from);
	return (from / RTC_SECOND + 1) * RTC_SECOND;
}

static const u8 rtc_flags[] = {C_UF, C_AF, C_PF};

static void
rtc_update_irq(struct rtc *rtc)
{
	u8 enabled = rtc->cmos[RTC_B] & (B_UIE | B_AIE | B_PIE);

	if (rtc->cmos[RTC_C] & enabled)
		rtc->cmos[RTC_C] |= C_IRQF;
	else
		rtc->cmos[RTC_C] &= (u8)~C_IRQF;
	irq_set(&rtc->irq, rtc->cmos[RTC_C] & C_IRQF);
}

/* Sets the flags of what happened since the last look. */
static void
rtc_catch_up(struct rtc *rtc)
{
	u64 now = rtc_now(rtc);

	for (unsigned i = 0; i < ARRAY_LEN(rtc_flags); i++) {
		if (!(rtc->cmos[RTC_C] & rtc_flags[i]) &&
		    rtc_next(rtc, rtc_flags[i], rtc->checked_ns) <= now)
			rtc->cmos[RTC_C] |= rtc_flags[i];
	}
	rtc->checked_ns = now;
	rtc_update_irq(rtc);
}

static void
rtc_arm(struct rtc *rtc)
{
	u64 now = rtc_now(rtc);
	u64 next = RTC_NEVER;

	for (unsigned i = 0; i < ARRAY_LEN(rtc_flags); i++) {
		u8 flag = rtc_flags[i]; /* at the same bit in B it is enabled */
		u64 at;

		if (!(rtc->cmos[RTC_B] & flag) || (rtc->cmos[RTC_C] & flag))
			continue;
		at = rtc_next(rtc, flag, now);
		if (at < next)
			next = at;
	}
	if (next == RTC_NEVER)
		loop_timer_cancel(rtc->timer);
	else
		loop_timer_arm(rtc->timer, loop_now() + (next - now));
}

static void
rtc_tick(void *opaque)
{
	struct rtc *rtc = opaque;

	rtc_catch_up(rtc);
	rtc_arm(rtc);
}

static u8
rtc_read_a(const struct rtc *rtc)
{
	u8 value = rtc->cmos[RTC_A] & (u8)~A_UIP;

	if (rtc_running(rtc) && rtc_now(rtc) % RTC_SECOND >= RTC_SECOND - RTC_UIP_NS)
		value |= A_UIP;
	return value;
}

/* Reading register C ends the interrupt. */
static u8
rtc_read_c(struct rtc *rtc)
{
	u8 value;

	rtc_catch_up(rtc);
	value = rtc->cmos[RTC_C];
	rtc->cmos[RTC_C] = 0;
	rtc_update_irq(rtc);
	rtc_arm(rtc);
	return value;
}

static bool
rtc_is_time(unsigned index)
{
	return index == RTC_CENTURY || index == RTC_SEC || index == RTC_MIN || index == RTC_HOUR ||
	       (index >= RTC_WEEKDAY && index <= RTC_YEAR);
}

static u8
rtc_read_register(struct rtc *rtc, unsigned index)
{
	if (index == RTC_A)
		return rtc_read_a(rtc);
	if (index == RTC_C)
		return rtc_read_c(rtc);
	if (rtc_is_time(index) && rtc_running(rtc))
		rtc_load_time(rtc);
	return rtc->cmos[index];
}

static void
rtc_write_time(struct rtc *rtc, unsigned index, u8 value)
{
	if (!rtc_running(rtc)) {
		rtc->cmos[index] = value;
		return;
	}
	rtc_load_time(rtc);
	rtc->cmos[index] = value;
	if (index != RTC_WEEKDAY) /* follows from the date */
		rtc_store_time(rtc);
}

/* A and B may stop and start the clock: what stands in the registers then counts. */
static void
rtc_write_control(struct rtc *rtc, unsigned index, u8 value)
{
	bool was_running = rtc_running(rtc);

	rtc_catch_up(rtc);
	if (was_running)
		rtc_load_time(rtc);
	if (index == RTC_A)
		value &= (u8)~A_UIP;
	else if (value & B_SET)
		value &= (u8)~B_UIE; /* data sheet: SET clears UIE */
	rtc->cmos[index] = value;
	if (!was_running && rtc_running(rtc))
		rtc_store_time(rtc);
	rtc_update_irq(rtc);
}

static void
rtc_write_register(struct rtc *rtc, unsigned index, u8 value)
{
	if (index == RTC_C || index == RTC_D)
		return;
	if (index == RTC_A || index == RTC_B)
		rtc_write_control(rtc, index, value);
	else if (rtc_is_time(index))
		rtc_write_time(rtc, index, value);
	else
		rtc->cmos[index] = value;
	if (index <= RTC_B || index == RTC_CENTURY)
		rtc_arm(rtc);
}

static u64
rtc_read(void *opaque, u64 offset, unsigned size)
{
	struct rtc *rtc = opaque;

	(void)size;
	return offset ? rtc_read_register(rtc, rtc->index) : 0xff;
}

static void
rtc_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct rtc *rtc = opaque;

	if (!offset)
		rtc->index = value & 0x7f; /* bit 7 gates NMI, of which there is no source */
	if (offset || size > 1)
		rtc_write_register(rtc, rtc->index, (u8)(offset ? value : value >> 8));
}

static const struct io_ops rtc_ops = {rtc_read, rtc_write};

static void
rtc_put16(struct rtc *rtc, unsigned index, u64 value)
{
	if (value > 0xffff)
		value = 0xffff;
	rtc->cmos[index] = (u8)value;
	rtc->cmos[index + 1] = (u8)(value >> 8);
}

static void
rtc_describe_memory(struct rtc *rtc, unsigned vcpus)
{
	u64 low = memory_low_size(rtc->memory);
	u64 high = memory_high_size(rtc->memory) >> 16;
	u64 above_1m = low > (1u << 20) ? (low - (1u << 20)) >> 10 : 0;

	rtc_put16(rtc, RTC_BASE_KIB, 640);
	rtc_put16(rtc, RTC_EXTENDED_KIB, above_1m);
	rtc_put16(rtc, RTC_EXTENDED_KIB_2, above_1m);
	rtc_put16(rtc, RTC_ABOVE_16M, low > (16u << 20) ? (low - (16u << 20)) >> 16 : 0);
	rtc_put16(rtc, RTC_ABOVE_4G, high & 0xffff);
	rtc->cmos[RTC_ABOVE_4G + 2] = (u8)(high >> 16);
	rtc->cmos[RTC_MORE_CPUS] = (u8)(vcpus - 1);
}

void
rtc_reset(struct rtc *rtc)
{
	rtc->cmos[RTC_B] &= (u8) ~(B_UIE | B_AIE | B_PIE | B_SET);
	rtc->cmos[RTC_C] = 0;
	rtc->index = 0;
	rtc_update_irq(rtc);
	rtc_arm(rtc);
}

int
rtc_create(struct rtc **out, const struct device_host *host, struct irq_line irq, unsigned vcpus)
{
	struct rtc *rtc = calloc(1, sizeof(*rtc));
	int err;

	if (!rtc)
		return -ENOMEM;
	rtc->irq = irq;
	rtc->memory = host->memory;
	rtc->cmos[RTC_A] = 0x26;
	rtc->cmos[RTC_B] = B_24H;
	rtc->cmos[RTC_D] = D_VALID;
	rtc->checked_ns = rtc_now(rtc);
	rtc_describe_memory(rtc, vcpus);
	err = loop_timer_create(host->loop, rtc_tick, rtc, &rtc->timer);
	if (err)
		goto fail;
	err = -ENOMEM;
	rtc->region = memory_add_ports(host->memory, 0x70, 2, &rtc_ops, rtc);
	if (!rtc->region)
		goto fail;
	rtc_reset(rtc);
	*out = rtc;
	return 0;
fail:
	rtc_destroy(rtc);
	return err;
}

void
rtc_destroy(struct rtc *rtc)
{
	if (!rtc)
		return;
	if (rtc->region)
		memory_remove_region(rtc->memory, rtc->region);
	if (rtc->timer)
		loop_timer_destroy(rtc->timer);
	free(rtc);
}

/* ---- saved state ---- */

/* The clock is the wall's: it has gone on when a state is loaded. */
static const struct state_field rtc_fields[] = {
	STATE_BYTES(struct rtc, cmos),
	STATE_MAX(struct rtc, index, RTC_SIZE - 1),
	STATE_NUMBER(struct rtc, offset_ns),
	STATE_MAX(struct rtc, checked_ns, RTC_LAST_SECOND *RTC_SECOND),
	STATE_END,
};

static bool
rtc_state_check(const void *staged)
{
	return rtc_now(staged) <= RTC_LAST_SECOND * RTC_SECOND;
}

static void
rtc_state_loaded(void *object)
{
	rtc_arm(object);
}

static const struct state_type rtc_state_type = {"rtc", 1, rtc_fields, rtc_state_check,
						 rtc_state_loaded};

void
rtc_state(struct rtc *rtc, struct state_list *list)
{
	state_list_add(list, &rtc_state_type, 0, rtc, sizeof(*rtc));
}
