/*
 * Computes a CPU model: the table of features below says what may be shown and
 * on what condition; caches, topology and clocks are made from the host's
 * figures and the number of vCPUs. What is not written here is not shown.
 *
 * The table is the limit of what the translator does: a row comes with the code
 * that does it. docs/cpu.md lists the same for people.
 */
#include "cpu/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <x86intrin.h>

#include "cpu/tsc.h"

enum { EAX, EBX, ECX, EDX };

enum feature_rule {
	FLOOR_V2, /* part of both models: the host must have it */
	FLOOR_V3, /* part of x86-64-v3 only: the host must have it then */
	HOST,	  /* shown if the host has it */
	ALWAYS,	  /* ours alone, or mere advice: shown whatever the host has */
};

struct feature {
	const char *name;
	u32 leaf;
	u8 subleaf, reg, bit;
	enum feature_rule rule;
};

static const struct feature features[] = {
	{"FPU", 1, 0, EDX, 0, FLOOR_V2},
	{"DE", 1, 0, EDX, 2, ALWAYS},
	{"PSE", 1, 0, EDX, 3, ALWAYS},
	{"TSC", 1, 0, EDX, 4, FLOOR_V2},
	{"MSR", 1, 0, EDX, 5, ALWAYS},
	{"PAE", 1, 0, EDX, 6, ALWAYS},
	{"MCE", 1, 0, EDX, 7, ALWAYS},
	{"CX8", 1, 0, EDX, 8, FLOOR_V2},
	{"APIC", 1, 0, EDX, 9, ALWAYS},
	{"SEP", 1, 0, EDX, 11, ALWAYS},
	{"MTRR", 1, 0, EDX, 12, ALWAYS},
	{"PGE", 1, 0, EDX, 13, ALWAYS},
	{"MCA", 1, 0, EDX, 14, ALWAYS},
	{"CMOV", 1, 0, EDX, 15, FLOOR_V2},
	{"PAT", 1, 0, EDX, 16, ALWAYS},
	{"CLFLUSH", 1, 0, EDX, 19, FLOOR_V2},
	{"MMX", 1, 0, EDX, 23, FLOOR_V2},
	{"FXSR", 1, 0, EDX, 24, FLOOR_V2},
	{"SSE", 1, 0, EDX, 25, FLOOR_V2},
	{"SSE2", 1, 0, EDX, 26, FLOOR_V2},

	{"SSE3", 1, 0, ECX, 0, FLOOR_V2},
	{"PCLMULQDQ", 1, 0, ECX, 1, HOST},
	{"SSSE3", 1, 0, ECX, 9, FLOOR_V2},
	{"FMA", 1, 0, ECX, 12, FLOOR_V3},
	{"CMPXCHG16B", 1, 0, ECX, 13, FLOOR_V2},
	{"PCID", 1, 0, ECX, 17, HOST},
	{"SSE4.1", 1, 0, ECX, 19, FLOOR_V2},
	{"SSE4.2", 1, 0, ECX, 20, FLOOR_V2},
	{"x2APIC", 1, 0, ECX, 21, ALWAYS},
	{"MOVBE", 1, 0, ECX, 22, FLOOR_V3},
	{"POPCNT", 1, 0, ECX, 23, FLOOR_V2},
	{"TSC-deadline", 1, 0, ECX, 24, ALWAYS},
	{"AES", 1, 0, ECX, 25, HOST},
	{"XSAVE", 1, 0, ECX, 26, HOST},
	{"AVX", 1, 0, ECX, 28, FLOOR_V3},
	{"F16C", 1, 0, ECX, 29, FLOOR_V3},
	{"RDRAND", 1, 0, ECX, 30, HOST},
	{"hypervisor", 1, 0, ECX, 31, ALWAYS},

	{"ARAT", 6, 0, EAX, 2, ALWAYS},

	{"FSGSBASE", 7, 0, EBX, 0, HOST},
	{"BMI1", 7, 0, EBX, 3, FLOOR_V3},
	{"AVX2", 7, 0, EBX, 5, FLOOR_V3},
	{"FDP_EXCPTN_ONLY", 7, 0, EBX, 6, HOST}, /* the FPU is the host's own */
	{"SMEP", 7, 0, EBX, 7, HOST},
	{"BMI2", 7, 0, EBX, 8, FLOOR_V3},
	{"ERMS", 7, 0, EBX, 9, ALWAYS},
	{"INVPCID", 7, 0, EBX, 10, HOST},
	{"ZERO_FCS_FDS", 7, 0, EBX, 13, HOST},
	{"RDSEED", 7, 0, EBX, 18, HOST},
	{"ADX", 7, 0, EBX, 19, HOST},
	{"SMAP", 7, 0, EBX, 20, HOST},
	{"CLFLUSHOPT", 7, 0, EBX, 23, HOST},
	{"CLWB", 7, 0, EBX, 24, HOST},
	{"SHA", 7, 0, EBX, 29, HOST},
	{"UMIP", 7, 0, ECX, 2, HOST},
	{"FSRM", 7, 0, EDX, 4, ALWAYS},
	/* Mitigations are the host CPU's, since a kernel patches itself for good. ARCH_CAPABILITIES
	 * is an MSR that a program cannot read: without it a kernel assumes the worst. */
	{"MD_CLEAR", 7, 0, EDX, 10, HOST},
	{"IBRS", 7, 0, EDX, 26, HOST},
	{"STIBP", 7, 0, EDX, 27, HOST},
	{"L1D_FLUSH", 7, 0, EDX, 28, HOST},
	{"SSBD", 7, 0, EDX, 31, HOST},
	{"PSFD", 7, 2, EDX, 0, HOST},
	{"IPRED_CTRL", 7, 2, EDX, 1, HOST},
	{"RRSBA_CTRL", 7, 2, EDX, 2, HOST},
	{"DDPD_U", 7, 2, EDX, 3, HOST},
	{"BHI_CTRL", 7, 2, EDX, 4, HOST},
	{"MCDT_NO", 7, 2, EDX, 5, HOST},

	{"XSAVEOPT", 0xd, 1, EAX, 0, HOST},
	{"XSAVEC", 0xd, 1, EAX, 1, HOST},

	{"LAHF", 0x80000001, 0, ECX, 0, FLOOR_V2},
	{"LZCNT", 0x80000001, 0, ECX, 5, FLOOR_V3},
	{"PREFETCHW", 0x80000001, 0, ECX, 8, HOST},
	{"SYSCALL", 0x80000001, 0, EDX, 11, FLOOR_V2},
	{"NX", 0x80000001, 0, EDX, 20, ALWAYS},
	{"1G pages", 0x80000001, 0, EDX, 26, HOST},
	{"RDTSCP", 0x80000001, 0, EDX, 27, HOST},
	{"LM", 0x80000001, 0, EDX, 29, FLOOR_V2},

	{"invariant TSC", 0x80000007, 0, EDX, 8, HOST},

	{"XSAVEERPTR", 0x80000008, 0, EBX, 2, HOST},
	{"IBPB", 0x80000008, 0, EBX, 12, HOST},
	{"AMD IBRS", 0x80000008, 0, EBX, 14, HOST},
	{"AMD STIBP", 0x80000008, 0, EBX, 15, HOST},
	{"IBRS always on", 0x80000008, 0, EBX, 16, HOST},
	{"STIBP always on", 0x80000008, 0, EBX, 17, HOST},
	{"IBRS preferred", 0x80000008, 0, EBX, 18, HOST},
	{"IBRS same mode", 0x80000008, 0, EBX, 19, HOST},
	{"AMD SSBD", 0x80000008, 0, EBX, 24, HOST},
	{"SSB_NO", 0x80000008, 0, EBX, 26, HOST},
	{"AMD PSFD", 0x80000008, 0, EBX, 28, HOST},
	{"BTC_NO", 0x80000008, 0, EBX, 29, HOST},
	{"IBPB_RET", 0x80000008, 0, EBX, 30, HOST},

	{"NO_NESTED_DATA_BP", 0x80000021, 0, EAX, 0, HOST},
	{"LFENCE_RDTSC", 0x80000021, 0, EAX, 2, HOST},
	{"NULL_SEL_CLR_BASE", 0x80000021, 0, EAX, 6, HOST},
	{"NO_SMM_CTL_MSR", 0x80000021, 0, EAX, 9, HOST},
	{"SBPB", 0x80000021, 0, EAX, 27, HOST},
	{"IBPB_BRTYPE", 0x80000021, 0, EAX, 28, HOST},
	{"SRSO_NO", 0x80000021, 0, EAX, 29, HOST},
	{"SRSO_USER_KERNEL_NO", 0x80000021, 0, EAX, 30, HOST},
};

enum {
	CPUID_BASIC_LAST = 0x16,
	HYPERVISOR_LAST = 0x40000010,
	KVM_NOP_IO_DELAY = BIT(1),
	KVM_CLOCKSOURCE2 = BIT(3),
	KVM_CLOCKSOURCE_STABLE = BIT(24),
	AMD_SAME_AS_LEAF_1 = 0x0183f3ff,
	CMP_LEGACY = BIT(1),
	TOPOEXT = BIT(22),
	MMXEXT = BIT(22),
	HTT = BIT(28),
	CACHES_MAX = 4,
	SEEN_MAX = 48,
};

/* An answer of the host's: where the host is a VM itself, each costs it an exit. */
struct cpuid_seen {
	u32 leaf, subleaf;
	u32 regs[4];
};

struct cpuid_builder {
	struct cpu_model *model;
	const struct cpuid_host *host;
	struct cpuid_seen seen[SEEN_MAX];
	unsigned seen_count;
	unsigned vcpus;
	bool v3, amd;
};

static void
model_ask(struct cpuid_builder *b, u32 leaf, u32 subleaf, u32 out[4])
{
	for (unsigned i = 0; i < b->seen_count; i++) {
		if (b->seen[i].leaf != leaf || b->seen[i].subleaf != subleaf)
			continue;
		memcpy(out, b->seen[i].regs, sizeof(b->seen[i].regs));
		return;
	}
	b->host->cpuid(b->host->opaque, leaf, subleaf, out);
	if (b->seen_count == SEEN_MAX)
		return;
	b->seen[b->seen_count].leaf = leaf;
	b->seen[b->seen_count].subleaf = subleaf;
	memcpy(b->seen[b->seen_count++].regs, out, sizeof(b->seen[0].regs));
}

/* What the host answers; zeros for leaves it does not have. */
static void
model_host(struct cpuid_builder *b, u32 leaf, u32 subleaf, u32 out[4])
{
	u32 last[4];

	model_ask(b, leaf & 0x80000000u, 0, last);
	memset(out, 0, 4 * sizeof(*out));
	if (leaf <= last[EAX])
		model_ask(b, leaf, subleaf, out);
}

static void
model_add(struct cpuid_builder *b, u32 leaf, u32 subleaf, bool indexed, const u32 regs[4])
{
	struct cpu_model *model = b->model;

	if (model->count == CPUID_ENTRIES_MAX)
		return;
	model->entries[model->count++] = (struct cpuid_entry){.leaf = leaf,
							      .subleaf = subleaf,
							      .indexed = indexed,
							      .eax = regs[EAX],
							      .ebx = regs[EBX],
							      .ecx = regs[ECX],
							      .edx = regs[EDX]};
}

static void
model_add_plain(struct cpuid_builder *b, u32 leaf, u32 eax, u32 ebx, u32 ecx, u32 edx)
{
	model_add(b, leaf, 0, false, (const u32[4]){eax, ebx, ecx, edx});
}

/* Whether the host lets its programs use what the bit names. */
static bool
model_host_has(struct cpuid_builder *b, const struct feature *f)
{
	u32 regs[4], leaf1[4];
	bool vex = f->rule == FLOOR_V3 && (f->leaf == 1 || f->leaf == 7) &&
		   (strcmp(f->name, "AVX") == 0 || strcmp(f->name, "AVX2") == 0 ||
		    strcmp(f->name, "FMA") == 0 || strcmp(f->name, "F16C") == 0);

	model_host(b, 1, 0, leaf1);
	if (vex && (!(leaf1[ECX] & BIT(27)) || (b->host->xcr0 & 6) != 6))
		return false;
	if (f->leaf == 1 && f->reg == ECX && f->bit == 26 && !(leaf1[ECX] & BIT(27)))
		return false;
	model_host(b, f->leaf, f->subleaf, regs);
	return (regs[f->reg] >> f->bit) & 1;
}

static bool
model_shows(struct cpuid_builder *b, const struct feature *f)
{
	switch (f->rule) {
	case FLOOR_V2:
	case ALWAYS:
		return true;
	case FLOOR_V3:
		return b->v3;
	case HOST:
		return model_host_has(b, f);
	}
	return false;
}

static const char *
model_find_missing(struct cpuid_builder *b)
{
	for (size_t i = 0; i < ARRAY_LEN(features); i++) {
		if (features[i].rule != FLOOR_V2 && !(features[i].rule == FLOOR_V3 && b->v3))
			continue;
		if (!model_host_has(b, &features[i]))
			return features[i].name;
	}
	return NULL;
}

/* The feature bits of a leaf, into REGS. */
static void
model_features(struct cpuid_builder *b, u32 leaf, u32 subleaf, u32 regs[4])
{
	memset(regs, 0, 4 * sizeof(*regs));
	for (size_t i = 0; i < ARRAY_LEN(features); i++) {
		const struct feature *f = &features[i];

		if (f->leaf == leaf && f->subleaf == subleaf && model_shows(b, f))
			regs[f->reg] |= BIT(f->bit);
	}
}

/* Bits of an APIC id that tell the vCPUs apart. */
static unsigned
model_id_bits(unsigned vcpus)
{
	unsigned bits = 0;

	while (1u << bits < vcpus)
		bits++;
	return bits;
}

static void
model_add_leaf_1(struct cpuid_builder *b)
{
	u32 host[4], regs[4];

	model_host(b, 1, 0, host);
	model_features(b, 1, 0, regs);
	regs[EAX] = host[EAX] & 0x0fff3fff;
	regs[EBX] = 8 << 8 | (b->vcpus & 0xff) << 16; /* CLFLUSH line of 64 bytes */
	if (b->vcpus > 1)
		regs[EDX] |= HTT;
	model_add(b, 1, 0, false, regs);
}

/* What a host that tells nothing is taken for: 32 KiB + 32 KiB, 512 KiB, 16 MiB. */
static const u32 model_default_caches[CACHES_MAX][4] = {
	{0x00000121, 0x01c0003f, 0x0000003f, 0},
	{0x00000122, 0x01c0003f, 0x0000003f, 0},
	{0x00000143, 0x01c0003f, 0x000003ff, 0},
	{0x00000163, 0x03c0003f, 0x00003fff, 0},
};

/* Leaf 4 (Intel) or 8000001d (AMD): the host's caches, shared as our vCPUs share them. */
static void
model_add_caches(struct cpuid_builder *b, u32 leaf)
{
	static const u32 none[4];
	u32 regs[4], first[4], last_id = (1u << model_id_bits(b->vcpus)) - 1;

	model_host(b, leaf, 0, first);
	for (u32 i = 0; i < CACHES_MAX; i++) {
		if (first[EAX] & 0x1f)
			model_host(b, leaf, i, regs);
		else
			memcpy(regs, model_default_caches[i], sizeof(regs));
		if ((regs[EAX] & 0x1f) == 0)
			break;
		regs[EAX] &= 0x3ff;
		if (((regs[EAX] >> 5) & 7) >= 3)
			regs[EAX] |= last_id << 14;
		if (leaf == 4)
			regs[EAX] |= (last_id < 63 ? last_id : 63) << 26;
		model_add(b, leaf, i, true, regs);
	}
	model_add(b, leaf, CACHES_MAX, true, none);
}

static void
model_add_topology(struct cpuid_builder *b)
{
	u32 smt[4] = {0, 1, 1 << 8, 0};
	u32 core[4] = {model_id_bits(b->vcpus), b->vcpus, 2 << 8, 0};

	model_add(b, 0xb, 0, true, smt);
	model_add(b, 0xb, 1, true, core);
}

/* Standard format: legacy area and header 576 bytes, then AVX at 576. */
static void
model_add_xsave(struct cpuid_builder *b)
{
	const struct feature xsave = {"XSAVE", 1, 0, ECX, 26, HOST};
	u32 sizes[4] = {b->v3 ? 7 : 3, 576, b->v3 ? 832 : 576, 0};
	u32 regs[4];

	if (!model_host_has(b, &xsave))
		return;
	model_add(b, 0xd, 0, true, sizes);
	model_features(b, 0xd, 1, regs);
	model_add(b, 0xd, 1, true, regs);
	if (b->v3)
		model_add(b, 0xd, 2, true, (const u32[4]){256, 576, 0, 0});
}

/* TSC : 1 GHz as a fraction whose numerator is so small that the product with a frequency in
 * kHz, as kernels compute it, fits 32 bits: the best such one by continued fractions. */
static void
model_tsc_ratio(u64 hz, u32 *numerator, u32 *denominator)
{
	u64 a = hz, b = 1000000000u, q, r;
	u64 p0 = 0, p1 = 1, q0 = 1, q1 = 0, p2, q2;

	while (b != 0) {
		q = a / b;
		r = a % b;
		p2 = q * p1 + p0;
		q2 = q * q1 + q0;
		if (p2 > 4294 || q2 > 1000000)
			break;
		p0 = p1;
		p1 = p2;
		q0 = q1;
		q1 = q2;
		a = b;
		b = r;
	}
	*numerator = (u32)p1;
	*denominator = q1 ? (u32)q1 : 1;
}

static void
model_add_clocks(struct cpuid_builder *b)
{
	u32 mhz = (u32)((b->model->tsc_hz + 500000) / 1000000) & 0xffff;
	u32 numerator, denominator;

	model_tsc_ratio(b->model->tsc_hz, &numerator, &denominator);
	model_add_plain(b, 0x15, denominator, numerator, 1000000000u, 0);
	model_add_plain(b, 0x16, mhz, mhz, 100, 0);
}

static void
model_add_basic(struct cpuid_builder *b)
{
	u32 regs[4];

	model_host(b, 0, 0, regs);
	model_add_plain(b, 0, CPUID_BASIC_LAST, regs[EBX], regs[ECX], regs[EDX]);
	model_add_leaf_1(b);
	if (!b->amd) {
		model_add_plain(b, 2, 0x00feff01, 0, 0, 0); /* "see leaf 4" */
		model_add_caches(b, 4);
	}
	model_features(b, 6, 0, regs);
	model_add(b, 6, 0, false, regs);
	model_features(b, 7, 0, regs);
	regs[EAX] = 2;
	model_add(b, 7, 0, true, regs);
	model_features(b, 7, 2, regs);
	model_add(b, 7, 2, true, regs);
	model_add_topology(b);
	model_add_xsave(b);
	model_add_clocks(b);
}

/* The kvm clock interface, and the leaf in which VMware tells frequencies in kHz. */
static void
model_add_hypervisor(struct cpuid_builder *b)
{
	u32 features_eax = KVM_NOP_IO_DELAY | KVM_CLOCKSOURCE2 | KVM_CLOCKSOURCE_STABLE;

	model_add_plain(b, 0x40000000, HYPERVISOR_LAST, 0x4b4d564b, 0x564b4d56, 0x4d);
	model_add_plain(b, 0x40000001, features_eax, 0, 0, 0);
	model_add_plain(b, 0x40000010, (u32)(b->model->tsc_hz / 1000), 1000000, 0, 0);
}

static void
model_add_extended_1(struct cpuid_builder *b)
{
	u32 host[4], regs[4], leaf1[4];

	model_host(b, 0x80000001, 0, host);
	model_features(b, 0x80000001, 0, regs);
	if (b->amd) {
		model_features(b, 1, 0, leaf1);
		regs[EAX] = host[EAX];
		regs[EDX] |= (leaf1[EDX] & AMD_SAME_AS_LEAF_1) | (host[EDX] & MMXEXT);
		regs[ECX] |= TOPOEXT | (b->vcpus > 1 ? CMP_LEGACY : 0);
	}
	model_add(b, 0x80000001, 0, false, regs);
}

static void
model_add_sizes(struct cpuid_builder *b)
{
	u32 host[4], regs[4], bits;

	model_host(b, 0x80000008, 0, host);
	model_features(b, 0x80000008, 0, regs);
	bits = host[EAX] & 0xff;
	if (bits < 36 || bits > 52)
		bits = 40;
	b->model->phys_bits = (u8)bits;
	regs[EAX] = bits | 48 << 8;
	if (b->amd)
		regs[ECX] = ((b->vcpus - 1) & 0xff) | model_id_bits(b->vcpus) << 12;
	model_add(b, 0x80000008, 0, false, regs);
}

static void
model_add_extended(struct cpuid_builder *b)
{
	u32 regs[4];

	model_host(b, 0x80000000, 0, regs);
	model_add_plain(b, 0x80000000, b->amd ? 0x80000021 : 0x80000008, regs[EBX], regs[ECX],
			regs[EDX]);
	model_add_extended_1(b);
	for (u32 leaf = 0x80000002; leaf <= 0x80000006; leaf++) {
		model_host(b, leaf, 0, regs);
		model_add(b, leaf, 0, false, regs);
	}
	model_features(b, 0x80000007, 0, regs);
	model_add(b, 0x80000007, 0, false, regs);
	model_add_sizes(b);
	if (!b->amd)
		return;
	model_add_caches(b, 0x8000001d);
	model_add_plain(b, 0x8000001e, 0, 0, 0, 0);
	model_features(b, 0x80000021, 0, regs);
	model_add(b, 0x80000021, 0, false, regs);
}

int
cpu_model_compute_for(struct cpu_model *model, const char *name, unsigned vcpus,
		      const struct cpuid_host *host, const char **missing)
{
	struct cpuid_builder b = {.model = model, .host = host, .vcpus = vcpus};
	u32 vendor[4];

	*missing = NULL;
	if (vcpus == 0)
		return -EINVAL;
	b.v3 = strcmp(name, "x86-64-v3") == 0;
	if (!b.v3 && strcmp(name, "x86-64-v2") != 0)
		return -ENOENT;
	memset(model, 0, sizeof(*model));
	snprintf(model->name, sizeof(model->name), "%s", name);
	model->tsc_hz = host->tsc_hz;
	host->cpuid(host->opaque, 0, 0, vendor);
	/* AuthenticAMD, HygonGenuine */
	b.amd = vendor[ECX] == 0x444d4163 || vendor[ECX] == 0x656e6975;
	*missing = model_find_missing(&b);
	if (*missing)
		return -ENOTSUP;
	model_add_basic(&b);
	model_add_hypervisor(&b);
	model_add_extended(&b);
	return 0;
}

static void
model_real_cpuid(void *opaque, u32 leaf, u32 subleaf, u32 out[4])
{
	(void)opaque;
	__cpuid_count(leaf, subleaf, out[EAX], out[EBX], out[ECX], out[EDX]);
}

static u64
model_real_xcr0(void)
{
	u32 regs[4], low, high;

	model_real_cpuid(NULL, 1, 0, regs);
	if (!(regs[ECX] & BIT(27)))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (u64)high << 32 | low;
}

int
cpu_model_compute(struct cpu_model *model, const char *name, unsigned vcpus, const char **missing)
{
	struct cpuid_host host = {
		.cpuid = model_real_cpuid,
		.xcr0 = model_real_xcr0(),
		.tsc_hz = tsc_host_hz(),
	};

	return cpu_model_compute_for(model, name, vcpus, &host, missing);
}

const char *
cpu_model_missing(const struct cpu_model *model, const struct cpu_model *host)
{
	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		const struct feature *f = &features[i];

		if (cpu_model_has(model, f->leaf, f->subleaf, f->reg, f->bit) &&
		    !cpu_model_has(host, f->leaf, f->subleaf, f->reg, f->bit))
			return f->name;
	}
	return NULL;
}
