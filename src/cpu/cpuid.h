/*
 * CPUID as data: the table that a VM's processors show is computed once, at
 * its first start, and then belongs to its configuration.
 */
#ifndef CPU_CPUID_H
#define CPU_CPUID_H

#include "base/types.h"

enum { CPUID_ENTRIES_MAX = 64 };

struct cpuid_entry {
	u32 leaf, subleaf;
	bool indexed; /* SUBLEAF counts */
	u32 eax, ebx, ecx, edx;
};

struct cpu_model {
	char name[32];
	unsigned count;
	struct cpuid_entry entries[CPUID_ENTRIES_MAX];
	u64 tsc_hz;
	u8 phys_bits;
	u64 arch_capabilities; /* MSR 0x10a, 0 if not offered */
};

/* The model that is the host's CPU as far as an engine can show it (engine.h, fit_model): a VM that
 * has it stays with that engine and on such hosts. */
#define CPU_MODEL_HOST "host"

/* Computes the table for "x86-64-v2" or "x86-64-v3" with VCPUS processors, from
 * the host's CPUID (vendor, mitigation bits, frequencies) and what the translator
 * does. 0, -ENOENT unknown name, -ENOTSUP host lacks a bit (its name in *missing). */
int cpu_model_compute(struct cpu_model *model, const char *name, unsigned vcpus,
		      const char **missing);

/* The same for a host that is described: what its CPUID answers, its XCR0 and its TSC's rate. */
struct cpuid_host {
	void (*cpuid)(void *opaque, u32 leaf, u32 subleaf, u32 out[4]);
	void *opaque;
	u64 xcr0;
	u64 tsc_hz;
};

int cpu_model_compute_for(struct cpu_model *model, const char *name, unsigned vcpus,
			  const struct cpuid_host *host, const char **missing);

/* What CPUID answers on vCPU INDEX, with the bits that follow its state (OSXSAVE, APIC id,
 * XSAVE sizes by XCR0). CR4 and XCR0 are the vCPU's. */
void cpu_model_cpuid(const struct cpu_model *model, unsigned index, u64 cr4, u64 xcr0, u32 leaf,
		     u32 subleaf, u32 out[4]);

/* Makes REG (0 EAX to 3 EDX) of a leaf VALUE; a leaf that is not there is added, as one with
 * subleaves. 0 or -ENOSPC. */
int cpu_model_set(struct cpu_model *model, u32 leaf, u32 subleaf, int reg, u32 value);
/* REG of a leaf as the table has it, 0 if it has not. */
u32 cpu_model_get(const struct cpu_model *model, u32 leaf, u32 subleaf, int reg);

/* The name of a feature that MODEL shows and HOST, the table that a host can show, does not; or
 * NULL. */
const char *cpu_model_missing(const struct cpu_model *model, const struct cpu_model *host);

/* Whether both show the same but for the TSC's rate. */
bool cpu_model_same(const struct cpu_model *a, const struct cpu_model *b);

/* Whether the model has the feature bit: register 0 EAX to 3 EDX of a leaf. */
bool cpu_model_has(const struct cpu_model *model, u32 leaf, u32 subleaf, int reg, int bit);

#endif
