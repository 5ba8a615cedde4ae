/*
 * A vCPU to and from cpu_state, in the order that KVM needs. SREGS is set first: KVM judges
 * it whole before it takes anything, so a state that it refuses has changed nothing.
 *
 * Clocks: all states of one epoch stand for one reading of the host's TSC. Guests' TSCs are
 * set by their offset, never by writing the MSR, which KVM takes for an attempt to
 * synchronise; the kvm clock is the VM's, and the largest of what the vCPUs ask for wins.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "base/loop.h"
#include "cpu/msr.h"
#include "engine/kvm/convert.h"
#include "engine/kvm/judge.h"

enum {
	FORGET_TRIES = 64, /* exits of an instruction that nobody waits for any more */
	SETTLE_TRIES = 8,
	CLOCK_TRIES = 16,
};
#define STATE_SECOND 1000000000u

/* ---- clocks ---- */

static int
kvm_state_offset(struct engine_vcpu *v, unsigned long request, u64 *offset)
{
	struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL,
				       .attr = KVM_VCPU_TSC_OFFSET,
				       .addr = (u64)(uintptr_t)offset};

	return kvm_ioctl(v->fd, request, &attr);
}

/* Whether the guest's TSC counts as the host's does: then they differ by the offset alone. */
static bool
kvm_state_unscaled(const struct engine_vcpu *v)
{
	u64 host = v->engine->host_hz / 1000, guest = v->engine->config.model->tsc_hz / 1000;

	return host == guest;
}

/* Guests of another TSC rate than the host's get a scaled TSC: so it is read by KVM, not here. */
static int
kvm_state_open(struct engine_vcpu *v, struct kvm_epoch *out)
{
	struct engine *e = v->engine;
	u64 tsc = 0, offset = 0;
	int err = 0;

	pthread_mutex_lock(&e->lock);
	if (!__atomic_load_n(&e->epoch.open, __ATOMIC_ACQUIRE)) {
		err = kvm_state_offset(v, KVM_GET_DEVICE_ATTR, &offset);
		if (!err)
			err = kvm_msr_get_one(v, MSR_TSC, &tsc);
		e->epoch.ticks = tsc - offset;
		e->epoch.host = kvm_state_unscaled(v) ? e->epoch.ticks : __rdtsc();
		e->epoch.clock = 0;
		__atomic_store_n(&e->epoch.open, err == 0, __ATOMIC_RELEASE);
	}
	*out = e->epoch;
	pthread_mutex_unlock(&e->lock);
	return err;
}

void
kvm_state_over(struct engine *e)
{
	if (!__atomic_load_n(&e->epoch.open, __ATOMIC_ACQUIRE))
		return;
	pthread_mutex_lock(&e->lock);
	__atomic_store_n(&e->epoch.open, false, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&e->lock);
}

/* TICKS of a TSC of HZ in ns; negative ones too. */
static i64
kvm_state_ns(i64 ticks, u64 hz)
{
	return (i64)((__int128)ticks * STATE_SECOND / (i64)hz);
}

static int
kvm_state_get_clocks(struct engine_vcpu *v, struct cpu_state *s)
{
	struct kvm_clock_data clock = {0};
	struct kvm_epoch epoch;
	u64 offset;
	int err = kvm_state_open(v, &epoch);

	if (!err)
		err = kvm_state_offset(v, KVM_GET_DEVICE_ATTR, &offset);
	if (!err)
		err = kvm_ioctl(v->engine->vm, KVM_GET_CLOCK, &clock);
	if (err < 0)
		return err;
	if (!(clock.flags & KVM_CLOCK_HOST_TSC))
		clock.host_tsc = __rdtsc();
	s->tsc = epoch.ticks + offset;
	s->host_tsc = epoch.host;
	s->kvmclock = clock.clock +
		      (u64)kvm_state_ns((i64)(epoch.host - clock.host_tsc), v->engine->host_hz);
	return 0;
}

/* Of the host's TSC, from the moment of the state to the epoch. */
static i64
kvm_state_elapsed(const struct cpu_state *s, const struct kvm_epoch *epoch)
{
	return s->host_tsc ? (i64)(epoch->host - s->host_tsc) : 0;
}

/* What the kvm clock is to show at the epoch: 0 stands for the TSC's time. */
static u64
kvm_state_wanted_clock(const struct engine_vcpu *v, const struct cpu_state *s)
{
	const struct engine *e = v->engine;
	u64 then = s->kvmclock;

	if (!then)
		then = (u64)((unsigned __int128)s->tsc * STATE_SECOND / e->config.model->tsc_hz);
	return then + (u64)kvm_state_ns(kvm_state_elapsed(s, &e->epoch), e->host_hz);
}

/* The host's time, and its TSC at that moment: of several tries, that with the least time between,
 * since what passes in between would be added to the guest's clock. */
static u64
kvm_state_host_time(u64 *tsc)
{
	u64 shortest = UINT64_MAX, time = 0, before, after;
	struct timespec now;

	for (int i = 0; i < CLOCK_TRIES; i++) {
		before = __rdtsc();
		clock_gettime(CLOCK_REALTIME, &now);
		after = __rdtsc();
		if (after - before >= shortest)
			continue;
		shortest = after - before;
		*tsc = before + shortest / 2;
		time = (u64)now.tv_sec * STATE_SECOND + (u64)now.tv_nsec;
	}
	return time;
}

/* The clock shows VALUE at the host's TSC; KVM is told by the host's time, where it can be, so
 * that it does not matter how long that takes. */
static int
kvm_state_tell_clock(struct engine *e, u64 value, u64 host)
{
	struct kvm_clock_data clock = {.flags = KVM_CLOCK_REALTIME};
	u64 now = host;
	int err;

	clock.realtime = kvm_state_host_time(&now);
	clock.clock = value + (u64)kvm_state_ns((i64)(now - host), e->host_hz);
	err = kvm_ioctl(e->vm, KVM_SET_CLOCK, &clock);
	if (err != -EINVAL)
		return err;
	clock.flags = 0;
	return kvm_ioctl(e->vm, KVM_SET_CLOCK, &clock);
}

static int
kvm_state_set_clock(struct engine_vcpu *v, const struct cpu_state *s)
{
	struct engine *e = v->engine;
	u64 wanted;
	int err;

	pthread_mutex_lock(&e->lock);
	wanted = kvm_state_wanted_clock(v, s);
	if (wanted > e->epoch.clock)
		e->epoch.clock = wanted;
	err = kvm_state_tell_clock(e, e->epoch.clock, e->epoch.host);
	pthread_mutex_unlock(&e->lock);
	if (!err)
		err = kvm_msr_set_one(v, MSR_KVM_WALL_CLOCK_NEW, s->msr.kvm_wall_clock);
	if (!err)
		err = kvm_msr_set_one(v, MSR_KVM_SYSTEM_TIME_NEW, s->msr.kvm_system_time);
	return err;
}

static int
kvm_state_set_tsc(struct engine_vcpu *v, const struct cpu_state *s)
{
	const struct engine *e = v->engine;
	struct kvm_epoch epoch;
	i64 elapsed;
	u64 offset;
	int err = kvm_state_open(v, &epoch);

	if (err)
		return err;
	elapsed = kvm_state_elapsed(s, &epoch);
	if (!kvm_state_unscaled(v))
		elapsed = (i64)((__int128)elapsed * (i64)e->config.model->tsc_hz / (i64)e->host_hz);
	offset = s->tsc + (u64)elapsed - epoch.ticks;
	return kvm_state_offset(v, KVM_SET_DEVICE_ATTR, &offset);
}

/* ---- out ---- */

static int
kvm_state_get_registers(struct engine_vcpu *v, struct cpu_state *s)
{
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	struct kvm_debugregs debug;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	int err;

	/* First: it has KVM take an INIT or SIPI that waits, which changes all others. */
	err = kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp_state);
	if (!err)
		err = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events);
	if (!err)
		err = kvm_ioctl(v->fd, KVM_GET_REGS, &regs);
	if (!err)
		err = kvm_ioctl(v->fd, KVM_GET_SREGS, &sregs);
	if (!err)
		err = kvm_ioctl(v->fd, KVM_GET_DEBUGREGS, &debug);
	if (err)
		return err;
	s->run_state = convert_from_mp_state(mp_state.mp_state);
	convert_from_events(&events, s);
	convert_from_regs(&regs, s);
	convert_from_sregs(&sregs, s);
	convert_from_debug(&debug, s);
	return 0;
}

/* KVM has no XCR0 where the CPU has none. */
static bool
kvm_state_has_xcr0(const struct engine_vcpu *v)
{
	return cpu_model_has(v->engine->config.model, 1, 0, 2, 26);
}

static int
kvm_state_get_xstate(struct engine_vcpu *v, struct cpu_state *s)
{
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs = {.nr_xcrs = 0};
	int err = 0;

	if (kvm_state_has_xcr0(v))
		err = kvm_ioctl(v->fd, KVM_GET_XCRS, &xcrs);
	if (!err)
		err = kvm_ioctl(v->fd, KVM_GET_XSAVE, &xsave);
	if (err)
		return err;
	s->xcr0 = 1;
	for (u32 i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++) {
		if (xcrs.xcrs[i].xcr == 0)
			s->xcr0 = xcrs.xcrs[i].value;
	}
	convert_from_xsave(&xsave, s);
	return 0;
}

/* KVM counts on when it does not run the vCPU, but only puts a count's interrupt into the IRR when
 * it does: so once more, if a count ended between that and the reading. */
static int
kvm_state_settle(struct engine_vcpu *v, struct kvm_lapic_state *lapic)
{
	struct kvm_lapic_state before;
	int err = kvm_ioctl(v->fd, KVM_GET_LAPIC, &before);

	for (int i = 0; i < SETTLE_TRIES && !err; i++) {
		err = kvm_run_settle(v);
		if (!err)
			err = kvm_ioctl(v->fd, KVM_GET_LAPIC, lapic);
		if (!err && !convert_timer_passed(&before, lapic))
			break;
		before = *lapic;
	}
	return err;
}

int
kvm_state_get(struct engine_vcpu *v, struct cpu_state *s)
{
	struct kvm_lapic_state lapic;
	int err;

	memset(s, 0, sizeof(*s));
	/* First: it may move an interrupt from the IRR into the events that are read next. */
	err = kvm_state_settle(v, &lapic);
	if (err)
		return err;
	convert_from_lapic(&lapic, loop_now(), s);
	err = kvm_state_get_registers(v, s);
	if (!err)
		err = kvm_state_get_xstate(v, s);
	if (!err)
		err = kvm_msr_get(v, s);
	if (!err)
		err = kvm_state_get_clocks(v, s);
	return err < 0 ? err : 0;
}

/* ---- in ---- */

/* What KVM holds back and would mix with the new state: I/O to complete, INIT, SIPI, NMIs. */
static void
kvm_state_forget(struct engine_vcpu *v)
{
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;

	for (int i = 0; i < FORGET_TRIES && kvm_run_settle(v) == -EBUSY; i++)
		v->held = false;
	v->held = false;
	v->pending = PENDING_NONE;
	v->io_done = 0;
	kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp_state);
	kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events);
}

static int
kvm_state_set_sregs(struct engine_vcpu *v, const struct cpu_state *s)
{
	struct kvm_sregs sregs;

	convert_to_sregs(s, &sregs);
	return kvm_ioctl(v->fd, KVM_SET_SREGS, &sregs);
}

static int
kvm_state_set_xstate(struct engine_vcpu *v, const struct cpu_state *s)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = s->xcr0}}};
	struct kvm_xsave xsave;
	int err = 0;

	if (kvm_state_has_xcr0(v))
		err = kvm_ioctl(v->fd, KVM_SET_XCRS, &xcrs);
	convert_to_xsave(s, &xsave);
	return err ? err : kvm_ioctl(v->fd, KVM_SET_XSAVE, &xsave);
}

static int
kvm_state_set_lapic(struct engine_vcpu *v, const struct cpu_state *s)
{
	struct kvm_lapic_state lapic;
	int err;

	convert_to_lapic(s, loop_now(), &lapic);
	err = kvm_ioctl(v->fd, KVM_SET_LAPIC, &lapic);
	return err ? err : kvm_msr_set_one(v, MSR_TSC_DEADLINE, s->lapic.tsc_deadline);
}

static int
kvm_state_set_registers(struct engine_vcpu *v, const struct cpu_state *s)
{
	struct kvm_mp_state mp_state = {.mp_state = convert_to_mp_state(s->run_state)};
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	struct kvm_regs regs;
	int err;

	convert_to_regs(s, &regs);
	convert_to_debug(s, &debug);
	convert_to_events(s, &events);
	err = kvm_ioctl(v->fd, KVM_SET_REGS, &regs);
	if (!err)
		err = kvm_ioctl(v->fd, KVM_SET_DEBUGREGS, &debug);
	if (!err)
		err = kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events);
	if (!err)
		err = kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp_state);
	return err;
}

int
kvm_state_set(struct engine_vcpu *v, const struct cpu_state *s)
{
	int err;

	if (!judge_state(s, v->engine->config.model, v->index))
		return -EINVAL;
	kvm_state_forget(v);
	err = kvm_state_set_sregs(v, s);
	if (!err)
		err = kvm_state_set_xstate(v, s);
	if (!err)
		err = kvm_msr_set(v, s);
	if (!err)
		err = kvm_state_set_tsc(v, s);
	if (!err)
		err = kvm_state_set_lapic(v, s);
	if (!err)
		err = kvm_state_set_registers(v, s);
	if (!err)
		err = kvm_state_set_clock(v, s);
	v->stale = true;
	return err < 0 ? err : 0;
}
