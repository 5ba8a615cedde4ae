/*
 * Which values control registers may have on a CPU model, however it is run.
 */
#ifndef CPU_CONTROL_H
#define CPU_CONTROL_H

#include "base/types.h"
#include "cpu/cpuid.h"

/* CR4 bits that the model has; all others are reserved. */
u64 cpu_control_cr4(const struct cpu_model *model);
/* EFER bits that may be set, LMA included. */
u64 cpu_control_efer(const struct cpu_model *model);
/* Whether XCR0 may hold VALUE (APM 2, 11.5.2). */
bool cpu_control_xcr0(const struct cpu_model *model, u64 value);
/* Whether these can stand together: PG needs PE, long mode PAE and so on (14.6, 5.5.1). */
bool cpu_control_consistent(u64 cr0, u64 cr4, u64 efer);

#endif
