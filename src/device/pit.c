/*
 * 8254 (Intel data sheet 231164). A channel's count is a function of the time
 * since it was started; only edges of channel 0's output that somebody hears
 * cost a timer.
 *
 * Edges that the host was too late for are not made up for: guests that count
 * ticks would otherwise be flooded after a pause.
 */
#include "device/pit.h"

#include <errno.h>
#include <stdlib.h>

#include "state/state.h"

enum { PIT_CHANNELS = 3, PIT_CONTROL = 3 };
enum { PIT_MIN_NS = 50000 }; /* the shortest time between two of our own wakeups */
#define PIT_NEVER UINT64_MAX
#define PIT_SECOND 1000000000ull

enum pit_access { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct pit_channel {
	u8 mode; /* 0 to 5 */
	u8 access;
	bool bcd;
	bool gate;
	bool loaded;	 /* a count was written since the control word */
	bool running;	 /* counting: start_ns holds */
	bool write_high; /* the next byte written is the high one */
	bool read_high;
	bool status_latched;
	u8 latched; /* bytes of the latched count still to be read */
	u8 status;
	u8 write_low;
	u16 latch;
	u32 count;	   /* 1 to 0x10000 (10000 in BCD) */
	u64 start_ns;	   /* when counting began */
	u64 stopped_ticks; /* ticks counted when the gate went low */
};

struct pit {
	struct pit_channel channel[PIT_CHANNELS];
	bool speaker;
	struct irq_line irq;
	struct pit_host host;
	struct loop_timer *timer;
	struct memory *memory;
	struct io_region *regions[2];
};

static u64
pit_ns_to_ticks(u64 ns)
{
	return (u64)((unsigned __int128)ns * PIT_HZ / PIT_SECOND);
}

/* Rounded up, so that at the time returned the tick has happened. */
static u64
pit_ticks_to_ns(u64 ticks)
{
	return (u64)(((unsigned __int128)ticks * PIT_SECOND + PIT_HZ - 1) / PIT_HZ);
}

static u64
pit_elapsed(const struct pit_channel *ch, u64 now)
{
	if (!ch->running)
		return ch->stopped_ticks;
	return pit_ns_to_ticks(now - ch->start_ns);
}

static bool
pit_periodic(const struct pit_channel *ch)
{
	return ch->mode == 2 || ch->mode == 3;
}

static bool
pit_output(const struct pit_channel *ch, u64 now)
{
	u64 ticks = pit_elapsed(ch, now);

	if (!ch->loaded)
		return ch->mode != 0;
	switch (ch->mode) {
	case 0:
		return ticks >= ch->count;
	case 1:
		return !ch->running || ticks >= ch->count;
	case 2:
		return !ch->running || ticks % ch->count != ch->count - 1;
	case 3:
		return !ch->running || ticks % ch->count < (ch->count + 1) / 2;
	default:
		return !ch->running || ticks != ch->count;
	}
}

static u16
pit_to_bcd(u64 value)
{
	return (u16)(value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 |
		     value / 1000 % 10 << 12);
}

static u16
pit_counter(const struct pit_channel *ch, u64 now)
{
	u64 ticks = pit_elapsed(ch, now);
	u64 modulus = ch->bcd ? 10000 : 0x10000;
	u64 value;

	if (ch->mode == 3)
		value = ch->count - ticks * 2 % ch->count;
	else if (ch->mode == 2)
		value = ch->count - ticks % ch->count;
	else
		value = (ch->count + modulus - ticks % modulus) % modulus;
	return ch->bcd ? pit_to_bcd(value % modulus) : (u16)value;
}

/* Monotonic time of channel 0's next rising edge after NOW. */
static u64
pit_next_edge(const struct pit_channel *ch, u64 now)
{
	u64 ticks;

	if (!ch->loaded || !ch->running)
		return PIT_NEVER;
	ticks = pit_elapsed(ch, now);
	if (pit_periodic(ch))
		return ch->start_ns + pit_ticks_to_ns((ticks / ch->count + 1) * ch->count);
	if (ticks >= ch->count)
		return PIT_NEVER;
	return ch->start_ns + pit_ticks_to_ns(ch->count);
}

static void
pit_arm(struct pit *pit)
{
	u64 now = loop_now();
	u64 next = pit_next_edge(&pit->channel[0], now);

	if (next == PIT_NEVER || (pit->host.heard && !pit->host.heard(pit->host.opaque))) {
		loop_timer_cancel(pit->timer);
		return;
	}
	if (next < now + PIT_MIN_NS && pit_periodic(&pit->channel[0]))
		next = now + PIT_MIN_NS;
	loop_timer_arm(pit->timer, next);
}

static void
pit_tick(void *opaque)
{
	struct pit *pit = opaque;

	irq_set(&pit->irq, false);
	irq_set(&pit->irq, true);
	pit_arm(pit);
}

void
pit_wake(struct pit *pit)
{
	pit_arm(pit);
}

static void
pit_start(struct pit *pit, struct pit_channel *ch)
{
	ch->start_ns = loop_now();
	ch->stopped_ticks = 0;
	ch->running = ch->gate;
	if (ch == &pit->channel[0]) {
		irq_set(&pit->irq, ch->mode != 0);
		pit_arm(pit);
	}
}

static u32
pit_decode(const struct pit_channel *ch, u16 value)
{
	u32 count = value;

	if (ch->bcd)
		count = (value & 15u) + (value >> 4 & 15u) * 10 + (value >> 8 & 15u) * 100 +
			(value >> 12) * 1000u;
	if (!count)
		return ch->bcd ? 10000 : 0x10000;
	return count;
}

static void
pit_load(struct pit *pit, struct pit_channel *ch, u16 value)
{
	ch->count = pit_decode(ch, value);
	/* Modes 1 and 5 start at the gate's rising edge only. */
	if (ch->mode == 1 || ch->mode == 5) {
		ch->loaded = true;
		return;
	}
	ch->loaded = true;
	pit_start(pit, ch);
}

static void
pit_write_count(struct pit *pit, struct pit_channel *ch, u8 value)
{
	switch (ch->access) {
	case ACCESS_LOW:
		pit_load(pit, ch, value);
		break;
	case ACCESS_HIGH:
		pit_load(pit, ch, (u16)(value << 8));
		break;
	default:
		if (!ch->write_high)
			ch->write_low = value;
		else
			pit_load(pit, ch, (u16)(value << 8 | ch->write_low));
		ch->write_high = !ch->write_high;
		break;
	}
}

static u8
pit_latched_byte(struct pit_channel *ch)
{
	u8 value = ch->access == ACCESS_HIGH || ch->latched == 1 ? (u8)(ch->latch >> 8)
								 : (u8)ch->latch;

	if (ch->access == ACCESS_LOW)
		value = (u8)ch->latch;
	ch->latched--;
	return value;
}

static u8
pit_read_count(struct pit_channel *ch)
{
	u16 value;

	if (ch->status_latched) {
		ch->status_latched = false;
		return ch->status;
	}
	if (ch->latched)
		return pit_latched_byte(ch);
	value = pit_counter(ch, loop_now());
	if (ch->access == ACCESS_BOTH) {
		ch->read_high = !ch->read_high;
		return ch->read_high ? (u8)value : (u8)(value >> 8);
	}
	return ch->access == ACCESS_HIGH ? (u8)(value >> 8) : (u8)value;
}

static void
pit_latch_count(struct pit_channel *ch)
{
	if (ch->latched)
		return;
	ch->latch = pit_counter(ch, loop_now());
	ch->latched = ch->access == ACCESS_BOTH ? 2 : 1;
}

static void
pit_latch_status(struct pit_channel *ch)
{
	if (ch->status_latched)
		return;
	ch->status_latched = true;
	ch->status = (u8)(pit_output(ch, loop_now()) << 7 | !ch->loaded << 6 | ch->access << 4 |
			  ch->mode << 1 | ch->bcd);
}

static void
pit_read_back(struct pit *pit, u8 value)
{
	for (unsigned i = 0; i < PIT_CHANNELS; i++) {
		if (!(value & BIT(i + 1)))
			continue;
		if (!(value & BIT(5)))
			pit_latch_count(&pit->channel[i]);
		if (!(value & BIT(4)))
			pit_latch_status(&pit->channel[i]);
	}
}

static void
pit_write_control(struct pit *pit, u8 value)
{
	struct pit_channel *ch;

	if (value >> 6 == 3) {
		pit_read_back(pit, value);
		return;
	}
	ch = &pit->channel[value >> 6];
	if ((value >> 4 & 3) == ACCESS_LATCH) {
		pit_latch_count(ch);
		return;
	}
	ch->access = value >> 4 & 3;
	ch->mode = value >> 1 & 7;
	if (ch->mode > 5)
		ch->mode -= 4; /* 6 and 7 are 2 and 3 */
	ch->bcd = value & 1;
	ch->loaded = ch->running = false;
	ch->write_high = ch->read_high = ch->status_latched = false;
	ch->latched = 0;
	ch->stopped_ticks = 0;
	if (ch == &pit->channel[0]) {
		irq_set(&pit->irq, ch->mode != 0);
		pit_arm(pit);
	}
}

static void
pit_set_gate(struct pit *pit, struct pit_channel *ch, bool gate)
{
	bool rose = gate && !ch->gate;

	if (gate == ch->gate)
		return;
	ch->gate = gate;
	if (!ch->loaded)
		return;
	if (rose && ch->mode != 0 && ch->mode != 4) {
		pit_start(pit, ch);
	} else if (rose) { /* modes 0 and 4 go on where they stood */
		ch->start_ns = loop_now() - pit_ticks_to_ns(ch->stopped_ticks);
		ch->running = true;
	} else if (ch->mode != 1 && ch->mode != 5) {
		ch->stopped_ticks = pit_elapsed(ch, loop_now());
		ch->running = false;
	}
}

static u64
pit_read(void *opaque, u64 offset, unsigned size)
{
	struct pit *pit = opaque;

	(void)size;
	return offset < PIT_CHANNELS ? pit_read_count(&pit->channel[offset]) : 0xff;
}

static void
pit_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct pit *pit = opaque;

	(void)size;
	if (offset == PIT_CONTROL)
		pit_write_control(pit, (u8)value);
	else
		pit_write_count(pit, &pit->channel[offset], (u8)value);
}

/* Port 0x61 (NMI_SC): bit 0 gate 2, 1 speaker, 4 refresh toggle, 5 output 2. */
static u64
pit_speaker_read(void *opaque, u64 offset, unsigned size)
{
	struct pit *pit = opaque;
	u64 now = loop_now();

	(void)offset;
	(void)size;
	return (u64)(pit->channel[2].gate | pit->speaker << 1 | (int)(now / 15085 & 1) << 4 |
		     pit_output(&pit->channel[2], now) << 5);
}

static void
pit_speaker_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct pit *pit = opaque;

	(void)offset;
	(void)size;
	pit_set_gate(pit, &pit->channel[2], value & 1);
	pit->speaker = value & 2;
}

static const struct io_ops pit_ops = {pit_read, pit_write};
static const struct io_ops pit_speaker_ops = {pit_speaker_read, pit_speaker_write};

void
pit_reset(struct pit *pit)
{
	for (unsigned i = 0; i < PIT_CHANNELS; i++) {
		pit->channel[i] = (struct pit_channel){
			.mode = 3, .access = ACCESS_BOTH, .gate = i != 2, .count = 0x10000};
	}
	pit->speaker = false;
	irq_set(&pit->irq, false);
	pit_arm(pit);
}

int
pit_create(struct pit **out, const struct device_host *host, struct irq_line irq,
	   const struct pit_host *pit_host)
{
	struct pit *pit = calloc(1, sizeof(*pit));
	int err;

	if (!pit)
		return -ENOMEM;
	pit->irq = irq;
	pit->memory = host->memory;
	if (pit_host)
		pit->host = *pit_host;
	err = loop_timer_create(host->loop, pit_tick, pit, &pit->timer);
	if (err)
		goto fail;
	err = -ENOMEM;
	pit->regions[0] = memory_add_ports(host->memory, 0x40, 4, &pit_ops, pit);
	pit->regions[1] = memory_add_ports(host->memory, 0x61, 1, &pit_speaker_ops, pit);
	if (!pit->regions[0] || !pit->regions[1])
		goto fail;
	pit_reset(pit);
	*out = pit;
	return 0;
fail:
	pit_destroy(pit);
	return err;
}

void
pit_destroy(struct pit *pit)
{
	if (!pit)
		return;
	for (unsigned i = 0; i < ARRAY_LEN(pit->regions); i++)
		if (pit->regions[i])
			memory_remove_region(pit->memory, pit->regions[i]);
	if (pit->timer)
		loop_timer_destroy(pit->timer);
	free(pit);
}

/* ---- saved state ---- */

static const struct state_field pit_channel_fields[] = {
	STATE_MAX(struct pit_channel, mode, 5),
	STATE_RANGE(struct pit_channel, access, ACCESS_LOW, ACCESS_BOTH),
	STATE_FLAG(struct pit_channel, bcd),
	STATE_FLAG(struct pit_channel, gate),
	STATE_FLAG(struct pit_channel, loaded),
	STATE_FLAG(struct pit_channel, running),
	STATE_FLAG(struct pit_channel, write_high),
	STATE_FLAG(struct pit_channel, read_high),
	STATE_FLAG(struct pit_channel, status_latched),
	STATE_MAX(struct pit_channel, latched, 2),
	STATE_NUMBER(struct pit_channel, status),
	STATE_NUMBER(struct pit_channel, write_low),
	STATE_NUMBER(struct pit_channel, latch),
	STATE_RANGE(struct pit_channel, count, 1, 0x10000),
	STATE_INSTANT(struct pit_channel, start_ns),
	STATE_NUMBER(struct pit_channel, stopped_ticks),
	STATE_END,
};

static const struct state_field pit_fields[] = {
	STATE_STRUCTS(struct pit, channel, pit_channel_fields),
	STATE_FLAG(struct pit, speaker),
	STATE_END,
};

static void
pit_state_loaded(void *object)
{
	pit_arm(object);
}

static const struct state_type pit_state_type = {"pit", 1, pit_fields, NULL, pit_state_loaded};

void
pit_state(struct pit *pit, struct state_list *list)
{
	state_list_add(list, &pit_state_type, 0, pit, sizeof(*pit));
}
