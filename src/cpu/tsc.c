/*
 * A wrong rate makes guest clocks drift, so the sources are taken by trust:
 * what a hypervisor or the CPU states exactly; /proc/cpuinfo's figure, which is
 * the kernel's own calibration unless it is a momentary frequency (aperfmperf);
 * our own measurement against CLOCK_MONOTONIC_RAW.
 */
#include "cpu/tsc.h"

#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

enum { TSC_CHECK_NS = 2000000, TSC_MEASURE_NS = 20000000, TSC_TRIES = 16 };
/* How far a 2 ms measurement may be off a figure that is right: 1 part in 4000. */
enum { TSC_TOLERANCE = 4000 };

struct tsc_point {
	u64 tsc, ns;
};

static u64
tsc_clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

/* Both clocks at one moment: of several tries, that with the least time between. */
static struct tsc_point
tsc_sample(void)
{
	struct tsc_point best = {0, 0};
	u64 shortest = UINT64_MAX, before, ns, after;

	for (int i = 0; i < TSC_TRIES; i++) {
		before = __rdtsc();
		ns = tsc_clock_ns();
		after = __rdtsc();
		if (after - before >= shortest)
			continue;
		shortest = after - before;
		best = (struct tsc_point){before + (after - before) / 2, ns};
	}
	return best;
}

static u64
tsc_measure(u64 duration_ns)
{
	struct tsc_point start = tsc_sample(), end;
	struct timespec pause = {.tv_nsec = (long)duration_ns};

	nanosleep(&pause, NULL);
	end = tsc_sample();
	if (end.ns <= start.ns || end.tsc <= start.tsc)
		return 0;
	return (u64)((unsigned __int128)(end.tsc - start.tsc) * 1000000000u / (end.ns - start.ns));
}

static u64
tsc_from_cpuid(void)
{
	u32 eax, ebx, ecx, edx;

	__cpuid(0, eax, ebx, ecx, edx);
	if (eax >= 0x15) {
		__cpuid(0x15, eax, ebx, ecx, edx);
		if (eax && ebx && ecx)
			return (u64)ecx * ebx / eax;
	}
	__cpuid(1, eax, ebx, ecx, edx);
	if (!(ecx & BIT(31)))
		return 0;
	__cpuid(0x40000000, eax, ebx, ecx, edx);
	if (eax < 0x40000010 || eax > 0x400000ff)
		return 0;
	__cpuid(0x40000010, eax, ebx, ecx, edx);
	return (u64)eax * 1000;
}

/* The kernel's figure, 0 if there is none or it follows the frequency of the moment. */
static u64
tsc_from_kernel(void)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	bool varies = true;
	char line[4096];
	double mhz = 0;
	const char *colon;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file) && strcmp(line, "\n") != 0) {
		colon = strchr(line, ':');
		if (!colon)
			continue;
		if (strncmp(line, "cpu MHz", 7) == 0)
			mhz = strtod(colon + 1, NULL);
		if (strncmp(line, "flags", 5) == 0)
			varies = strstr(colon, " aperfmperf") != NULL;
	}
	fclose(file);
	if (varies || mhz < 100 || mhz > 100000)
		return 0;
	return (u64)(mhz * 1000 + 0.5) * 1000;
}

u64
tsc_host_hz(void)
{
	u64 hz = tsc_from_cpuid(), measured;

	if (hz)
		return hz;
	hz = tsc_from_kernel();
	if (hz) {
		measured = tsc_measure(TSC_CHECK_NS);
		if (measured > hz - hz / TSC_TOLERANCE && measured < hz + hz / TSC_TOLERANCE)
			return hz;
	}
	hz = tsc_measure(TSC_MEASURE_NS);
	return hz ? hz : 1000000000u;
}
