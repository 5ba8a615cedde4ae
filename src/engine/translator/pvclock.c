/*
 * The kvm clock. Layouts are the guest ABI: struct pvclock_vcpu_time_info and
 * pvclock_wall_clock. Guest memory is written through checked physical writes;
 * an address that is not RAM is ignored, as the guest asked for it.
 */
#include "engine/translator/pvclock.h"

#include <time.h>
#include <x86intrin.h>

#include "base/bytes.h"
#include "engine/translator/mmu.h"

enum { PVCLOCK_STABLE = 1, PVCLOCK_SIZE = 32, PVCLOCK_NS = 1000000000 };

/* ns = ((ticks << shift, or >> -shift) * mul) >> 32, with mul in its upper half. */
struct pvclock_rate {
	u32 mul;
	i8 shift;
};

u64
pvclock_guest_tsc(const struct vcpu *v)
{
	return __rdtsc() + (u64)v->tsc_offset;
}

static struct pvclock_rate
pvclock_rate(u64 hz)
{
	u64 ns = PVCLOCK_NS;
	struct pvclock_rate rate = {0};

	if (hz == 0)
		hz = ns;
	while (ns < hz / 2 && rate.shift > -31) {
		ns <<= 1;
		rate.shift--;
	}
	while (ns >= hz && rate.shift < 31) {
		hz <<= 1;
		rate.shift++;
	}
	/* Now hz / 2 <= ns < hz, but for rounding. */
	rate.mul = (u32)(((unsigned __int128)ns << 32) / hz);
	return rate;
}

u64
pvclock_ns(const struct vcpu *v, u64 guest_tsc)
{
	struct pvclock_rate rate = pvclock_rate(v->model->tsc_hz);
	unsigned __int128 ticks = guest_tsc - v->clock_tsc;

	ticks = rate.shift < 0 ? ticks >> -rate.shift : ticks << rate.shift;
	return v->clock_ns + (u64)((ticks * rate.mul) >> 32);
}

static void
pvclock_write_versioned(struct vcpu *v, u64 gpa, u8 *raw, unsigned len)
{
	u32 version;

	if (mmu_read_physical(v, gpa, &version, 4))
		return;
	version = (version | 1);
	put_le32(raw, version);
	if (mmu_write_physical(v, gpa, raw, len))
		return;
	__asm__ volatile("" : : : "memory"); /* stores stay in order on this processor */
	put_le32(raw, version + 1);
	mmu_write_physical(v, gpa, raw, 4);
}

void
pvclock_publish(struct vcpu *v)
{
	struct pvclock_rate rate = pvclock_rate(v->model->tsc_hz);
	u8 raw[PVCLOCK_SIZE] = {0};

	if (!(v->msr.kvm_system_time & 1))
		return;
	put_le64(raw + 8, v->clock_tsc); /* at which system_time was right */
	put_le64(raw + 16, v->clock_ns);
	put_le32(raw + 24, rate.mul);
	raw[28] = (u8)rate.shift;
	raw[29] = PVCLOCK_STABLE;
	pvclock_write_versioned(v, v->msr.kvm_system_time & ~1ull, raw, sizeof(raw));
}

void
pvclock_publish_wall(struct vcpu *v, u64 gpa)
{
	u64 uptime = pvclock_ns(v, pvclock_guest_tsc(v)), then;
	struct timespec now;
	u8 raw[12];

	clock_gettime(CLOCK_REALTIME, &now);
	then = (u64)now.tv_sec * PVCLOCK_NS + (u64)now.tv_nsec - uptime;
	put_le32(raw + 4, (u32)(then / PVCLOCK_NS));
	put_le32(raw + 8, (u32)(then % PVCLOCK_NS));
	pvclock_write_versioned(v, gpa, raw, sizeof(raw));
}
