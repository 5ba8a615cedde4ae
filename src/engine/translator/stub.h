/*
 * The fixed pieces of machine code through which guest code is entered and
 * left; made once per vCPU at the start of its code cache.
 */
#ifndef TRANSLATOR_STUB_H
#define TRANSLATOR_STUB_H

#include <cpuid.h>

#include "engine/translator/emit.h"
#include "engine/translator/translation.h"

/* Emits all stubs and fills t->stub. */
void stub_make(struct vcpu *v, struct emit *e);

/* Flags from RFLAGS to M and back; both spoil T1 only. */
void stub_save_flags(struct translation *t, struct emit *e);
void stub_load_flags(struct translation *t, struct emit *e);

/* Runs guest code from t->resume until something leaves it (t->reason). */
void stub_run(struct translation *t);
/* Whether this process may use XSAVE: the CPU has it and the system has switched it on. */
static inline bool
stub_host_has_xsave(void)
{
	u32 eax, ebx, ecx, edx;

	__cpuid(1, eax, ebx, ecx, edx);
	return (ecx & BIT(27)) != 0;
}

#endif
