/*
 * ICH9 power management (ICH9 data sheet 13.8.3; ACPI 6.4, 4.8.3). Status bits
 * are sticky and cleared by writing one; SCI is asserted while an enabled one
 * is set and SCI_EN is on.
 */
#include "device/acpi_pm.h"

#include <errno.h>
#include <stdlib.h>

#include "state/state.h"

enum { PM_TIMER_HZ = 3579545 };
#define PM_SECOND 1000000000ull

enum {
	PM1_TIMER = BIT(0),
	PM1_BUS_MASTER = BIT(4),
	PM1_GLOBAL = BIT(5),
	PM1_POWER_BUTTON = BIT(8),
	PM1_RTC = BIT(10),
	PM1_WAKE = BIT(15)
};
enum {
	PM1_EVENTS = PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_RTC,
	PM1_CLEARABLE = PM1_EVENTS | PM1_BUS_MASTER | PM1_WAKE,
};
enum {
	CONTROL_SCI_EN = BIT(0),
	CONTROL_BM_RLD = BIT(1),
	CONTROL_TYPE_SHIFT = 10,
	CONTROL_SLEEP = BIT(13),
	CONTROL_KEPT = CONTROL_SCI_EN | CONTROL_BM_RLD | 7 << 10
};
enum { SLEEP_OFF_ICH9 = 7 }; /* what the data sheet calls S5 */
enum { PM_SMI_EN = 0x30, PM_SMI_STS = 0x34 };

struct acpi_pm {
	u16 status, enable, control;
	u8 gpe[ACPI_GPE0_SIZE]; /* status half, enable half */
	u32 smi_enable;
	u8 apm[2];	/* SMI command and its status byte */
	u64 start_ns;	/* when the PM timer was 0 */
	u64 timer_seen; /* its ticks up to which TMR_STS is right */
	struct irq_line sci;
	struct loop_timer *timer;
	struct device_host host;
	struct io_region *apm_region;
	struct io_region *region; /* NULL while placed nowhere */
};

static u64
acpi_pm_ticks(const struct acpi_pm *pm)
{
	return (u64)((unsigned __int128)(loop_now() - pm->start_ns) * PM_TIMER_HZ / PM_SECOND);
}

/* Bit 23 of the timer toggling, either way, sets TMR_STS (4.8.3.3). */
static void
acpi_pm_catch_up(struct acpi_pm *pm)
{
	u64 ticks = acpi_pm_ticks(pm);

	if (ticks >> 23 != pm->timer_seen >> 23)
		pm->status |= PM1_TIMER;
	pm->timer_seen = ticks;
}

static bool
acpi_pm_gpe_pending(const struct acpi_pm *pm)
{
	for (unsigned i = 0; i < ACPI_GPE0_SIZE / 2; i++)
		if (pm->gpe[i] & pm->gpe[i + ACPI_GPE0_SIZE / 2])
			return true;
	return false;
}

static void
acpi_pm_update(struct acpi_pm *pm)
{
	bool wanted = (pm->status & pm->enable & PM1_EVENTS) || acpi_pm_gpe_pending(pm);

	irq_set(&pm->sci, wanted && (pm->control & CONTROL_SCI_EN));
	if ((pm->enable & PM1_TIMER) && !(pm->status & PM1_TIMER)) {
		u64 next = ((pm->timer_seen >> 23) + 1) << 23;

		loop_timer_arm(pm->timer,
			       pm->start_ns + (u64)(((unsigned __int128)next * PM_SECOND +
						     PM_TIMER_HZ - 1) /
						    PM_TIMER_HZ));
	} else {
		loop_timer_cancel(pm->timer);
	}
}

static void
acpi_pm_tick(void *opaque)
{
	struct acpi_pm *pm = opaque;

	acpi_pm_catch_up(pm);
	acpi_pm_update(pm);
}

void
acpi_pm_power_button(struct acpi_pm *pm)
{
	pm->status |= PM1_POWER_BUTTON;
	acpi_pm_update(pm);
}

void
acpi_pm_raise(struct acpi_pm *pm, unsigned gpe)
{
	pm->gpe[gpe / 8 % (ACPI_GPE0_SIZE / 2)] |= (u8)BIT(gpe % 8);
	acpi_pm_update(pm);
}

static void
acpi_pm_write_control(struct acpi_pm *pm, u16 value)
{
	unsigned type = value >> CONTROL_TYPE_SHIFT & 7;

	/* SCI_EN changes by the SMI command only (4.8.3.2.1), but guests restore it. */
	pm->control = value & CONTROL_KEPT;
	if ((value & CONTROL_SLEEP) && (type == ACPI_SLEEP_OFF || type == SLEEP_OFF_ICH9))
		pm->host.power_off(pm->host.opaque);
}

static u8
acpi_pm_read_byte(const struct acpi_pm *pm, u64 offset)
{
	unsigned shift = offset % 4 * 8;

	if (offset >= ACPI_GPE0 && offset < ACPI_GPE0 + ACPI_GPE0_SIZE)
		return pm->gpe[offset - ACPI_GPE0];
	switch (offset & ~3ull) {
	case ACPI_PM1_EVENT:
		return (u8)((pm->status | (u32)pm->enable << 16) >> shift);
	case ACPI_PM1_CONTROL:
		return (u8)((u32)pm->control >> shift);
	case PM_SMI_EN:
		return (u8)(pm->smi_enable >> shift);
	}
	return 0;
}

static u64
acpi_pm_read(void *opaque, u64 offset, unsigned size)
{
	struct acpi_pm *pm = opaque;
	u64 value = 0;

	if ((offset & ~3ull) == ACPI_PM_TIMER)
		return (acpi_pm_ticks(pm) & 0xffffff) >> offset % 4 * 8;
	acpi_pm_catch_up(pm);
	for (unsigned i = 0; i < size; i++)
		value |= (u64)acpi_pm_read_byte(pm, offset + i) << (i * 8);
	return value;
}

static void
acpi_pm_write_byte(struct acpi_pm *pm, u64 offset, u8 value)
{
	u64 gpe = offset - ACPI_GPE0;

	if (gpe < ACPI_GPE0_SIZE / 2)
		pm->gpe[gpe] &= (u8)~value;
	else if (gpe < ACPI_GPE0_SIZE)
		pm->gpe[gpe] = value;
	else if (offset < 2)
		pm->status &= (u16) ~(value << offset * 8 & PM1_CLEARABLE);
	else if (offset == 2)
		pm->enable = (u16)((pm->enable & 0xff00) | (value & PM1_EVENTS));
	else if (offset == 3)
		pm->enable = (u16)((pm->enable & 0x00ff) | ((value << 8) & PM1_EVENTS));
	else if (offset == ACPI_PM1_CONTROL)
		acpi_pm_write_control(pm, (u16)((pm->control & 0xff00) | value));
	else if (offset == ACPI_PM1_CONTROL + 1)
		acpi_pm_write_control(pm, (u16)((pm->control & 0x00ff) | value << 8));
	else if (offset >= PM_SMI_EN && offset < PM_SMI_EN + 4)
		pm->smi_enable = (pm->smi_enable & ~(0xffu << offset % 4 * 8)) |
				 (u32)value << offset % 4 * 8;
}

static void
acpi_pm_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct acpi_pm *pm = opaque;

	acpi_pm_catch_up(pm);
	for (unsigned i = 0; i < size; i++)
		acpi_pm_write_byte(pm, offset + i, (u8)(value >> (i * 8)));
	acpi_pm_update(pm);
}

static const struct io_ops acpi_pm_ops = {acpi_pm_read, acpi_pm_write};

static u64
acpi_pm_apm_read(void *opaque, u64 offset, unsigned size)
{
	struct acpi_pm *pm = opaque;

	(void)size;
	return pm->apm[offset];
}

/* There is no SMM: what its handler would do is done here. */
static void
acpi_pm_apm_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct acpi_pm *pm = opaque;

	(void)size;
	pm->apm[offset] = (u8)value;
	if (offset)
		return;
	if ((u8)value == ACPI_ENABLE)
		pm->control |= CONTROL_SCI_EN;
	else if ((u8)value == ACPI_DISABLE)
		pm->control &= (u16)~CONTROL_SCI_EN;
	acpi_pm_update(pm);
}

static const struct io_ops acpi_pm_apm_ops = {acpi_pm_apm_read, acpi_pm_apm_write};

int
acpi_pm_place(struct acpi_pm *pm, u16 port)
{
	if (pm->region)
		memory_remove_region(pm->host.memory, pm->region);
	pm->region = NULL;
	if (!port)
		return 0;
	pm->region = memory_add_ports(pm->host.memory, port, ACPI_PM_SIZE, &acpi_pm_ops, pm);
	return pm->region ? 0 : -ENOMEM;
}

void
acpi_pm_reset(struct acpi_pm *pm)
{
	pm->status = pm->enable = pm->control = 0;
	for (unsigned i = 0; i < ACPI_GPE0_SIZE; i++)
		pm->gpe[i] = 0;
	pm->smi_enable = 0;
	pm->apm[0] = pm->apm[1] = 0;
	pm->timer_seen = acpi_pm_ticks(pm);
	acpi_pm_update(pm);
}

int
acpi_pm_create(struct acpi_pm **out, const struct device_host *host, struct irq_line sci)
{
	struct acpi_pm *pm = calloc(1, sizeof(*pm));
	int err;

	if (!pm)
		return -ENOMEM;
	pm->host = *host;
	pm->sci = sci;
	pm->start_ns = loop_now();
	err = loop_timer_create(host->loop, acpi_pm_tick, pm, &pm->timer);
	if (err)
		goto fail;
	pm->apm_region = memory_add_ports(host->memory, ACPI_SMI_COMMAND, 2, &acpi_pm_apm_ops, pm);
	err = -ENOMEM;
	if (!pm->apm_region)
		goto fail;
	acpi_pm_reset(pm);
	*out = pm;
	return 0;
fail:
	acpi_pm_destroy(pm);
	return err;
}

void
acpi_pm_destroy(struct acpi_pm *pm)
{
	if (!pm)
		return;
	acpi_pm_place(pm, 0);
	if (pm->apm_region)
		memory_remove_region(pm->host.memory, pm->apm_region);
	if (pm->timer)
		loop_timer_destroy(pm->timer);
	free(pm);
}

/* ---- saved state ---- */

static const struct state_field acpi_pm_fields[] = {
	STATE_MAX(struct acpi_pm, status, PM1_CLEARABLE),
	STATE_MAX(struct acpi_pm, enable, PM1_EVENTS),
	STATE_MAX(struct acpi_pm, control, CONTROL_KEPT),
	STATE_BYTES(struct acpi_pm, gpe),
	STATE_NUMBER(struct acpi_pm, smi_enable),
	STATE_BYTES(struct acpi_pm, apm),
	STATE_INSTANT(struct acpi_pm, start_ns),
	STATE_NUMBER(struct acpi_pm, timer_seen),
	STATE_END,
};

/* Beyond the timer's ticks lies no time that could be armed for. */
static bool
acpi_pm_state_check(const void *staged)
{
	const struct acpi_pm *pm = staged;

	return pm->timer_seen <= acpi_pm_ticks(pm);
}

static void
acpi_pm_state_loaded(void *object)
{
	acpi_pm_update(object);
}

static const struct state_type acpi_pm_state_type = {"acpi-pm", 1, acpi_pm_fields,
						     acpi_pm_state_check, acpi_pm_state_loaded};

void
acpi_pm_state(struct acpi_pm *pm, struct state_list *list)
{
	state_list_add(list, &acpi_pm_state_type, 0, pm, sizeof(*pm));
}
