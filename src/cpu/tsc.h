/*
 * The rate of this host's time-stamp counter.
 */
#ifndef CPU_TSC_H
#define CPU_TSC_H

#include "base/types.h"

/* In Hz. Asks CPUID, then the kernel's figure (checked against the clock for
 * 2 ms), and measures for 20 ms if neither will do. */
u64 tsc_host_hz(void);

#endif
