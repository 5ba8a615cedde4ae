/*
 * cpu/cpuid.c, cpu/cpuid_model.c, cpu/tsc.c: models on this host and on
 * described ones.
 */
#include "unit.h"

#include <errno.h>

#include "cpu/cpu_state.h"
#include "cpu/cpuid.h"
#include "cpu/tsc.h"

enum { EAX, EBX, ECX, EDX };

/* A host that has all there is, less one bit. */
struct fake_host {
	bool amd;
	u32 leaf;
	int reg;
	u32 without;
};

static void
fake_cpuid(void *opaque, u32 leaf, u32 subleaf, u32 out[4])
{
	const struct fake_host *h = opaque;

	for (int i = 0; i < 4; i++)
		out[i] = 0xffffffff;
	if (leaf == 0) {
		out[EAX] = 0x20;
		out[EBX] = h->amd ? 0x68747541 : 0x756e6547;
		out[EDX] = h->amd ? 0x69746e65 : 0x49656e69;
		out[ECX] = h->amd ? 0x444d4163 : 0x6c65746e;
	} else if (leaf == 0x80000000) {
		out[EAX] = 0x80000021;
	} else if (leaf == 0x80000008) {
		out[EAX] = 0x302e;
	} else if (leaf == 4 || leaf == 0x8000001d) {
		out[EAX] = subleaf < 4 ? (subleaf == 3 ? 0x163 : 0x121) | 0xffffc000 : 0;
		out[EBX] = 0x01c0003f;
		out[ECX] = 0x3f;
	}
	if (leaf == h->leaf)
		out[h->reg] &= ~h->without;
}

static int
compute(struct cpu_model *model, const char *name, unsigned vcpus, struct fake_host *fake,
	const char **missing)
{
	struct cpuid_host host = {
		.cpuid = fake_cpuid, .opaque = fake, .xcr0 = 7, .tsc_hz = 2596126000u};

	return cpu_model_compute_for(model, name, vcpus, &host, missing);
}

static void
names_and_floors(void **state)
{
	struct fake_host no_popcnt = {.leaf = 1, .reg = ECX, .without = 1u << 23};
	struct fake_host no_avx2 = {.leaf = 7, .reg = EBX, .without = 1u << 5};
	struct cpu_model model;
	const char *missing;

	assert_int_equal(compute(&model, "x86-64-v9", 1, &no_popcnt, &missing), -ENOENT);
	assert_int_equal(compute(&model, "x86-64-v2", 0, &no_popcnt, &missing), -EINVAL);
	assert_int_equal(compute(&model, "x86-64-v2", 1, &no_popcnt, &missing), -ENOTSUP);
	assert_string_equal(missing, "POPCNT");
	assert_int_equal(compute(&model, "x86-64-v3", 1, &no_avx2, &missing), -ENOTSUP);
	assert_string_equal(missing, "AVX2");
	assert_int_equal(compute(&model, "x86-64-v2", 1, &no_avx2, &missing), 0);
	assert_null(missing);
	assert_false(cpu_model_has(&model, 1, 0, ECX, 28));
}

/* What the translator does not do is shown on no host. */
static void
limits(void **state)
{
	static const struct {
		u32 leaf, subleaf;
		int reg, bit;
	} never[] = {
		{1, 0, ECX, 3},		  /* MONITOR */
		{1, 0, ECX, 5},		  /* VMX */
		{1, 0, EDX, 1},		  /* VME */
		{1, 0, EDX, 17},	  /* PSE36 */
		{7, 0, EBX, 4},		  /* HLE */
		{7, 0, EBX, 11},	  /* RTM */
		{7, 0, EBX, 16},	  /* AVX512F */
		{7, 0, ECX, 3},		  /* PKU */
		{7, 0, ECX, 16},	  /* LA57 */
		{7, 0, EDX, 29},	  /* ARCH_CAPABILITIES */
		{7, 1, EAX, 4},		  /* AVX-VNNI */
		{0xd, 1, EAX, 3},	  /* XSAVES */
		{0x80000001, 0, ECX, 2},  /* SVM */
		{0x80000001, 0, ECX, 6},  /* SSE4A */
		{0x80000001, 0, ECX, 29}, /* MWAITX */
		{0x80000008, 0, EBX, 0},  /* CLZERO */
		{0x80000021, 0, EAX, 8},  /* automatic IBRS */
	};
	struct fake_host amd = {.amd = true}, intel = {0};
	struct cpu_model a, b;
	const char *missing;

	assert_int_equal(compute(&a, "x86-64-v3", 2, &amd, &missing), 0);
	assert_int_equal(compute(&b, "x86-64-v3", 2, &intel, &missing), 0);
	for (size_t i = 0; i < ARRAY_LEN(never); i++) {
		assert_false(cpu_model_has(&a, never[i].leaf, never[i].subleaf, never[i].reg,
					   never[i].bit));
		assert_false(cpu_model_has(&b, never[i].leaf, never[i].subleaf, never[i].reg,
					   never[i].bit));
	}
	assert_true(a.count < CPUID_ENTRIES_MAX && b.count < CPUID_ENTRIES_MAX);
	assert_int_equal(a.phys_bits, 46);
}

static void
bits_that_follow_the_state(void **state)
{
	struct fake_host amd = {.amd = true};
	struct cpu_model m;
	const char *missing;
	u32 r[4];

	assert_int_equal(compute(&m, "x86-64-v3", 3, &amd, &missing), 0);
	cpu_model_cpuid(&m, 2, 0, 1, 1, 0, r);
	assert_int_equal(r[EBX], 2 << 24 | 3 << 16 | 8 << 8);
	assert_int_equal(r[ECX] >> 27 & 1, 0);
	assert_int_equal(r[EDX] >> 28 & 1, 1);
	cpu_model_cpuid(&m, 2, CR4_OSXSAVE, 1, 1, 0, r);
	assert_int_equal(r[ECX] >> 27 & 1, 1);
	cpu_model_cpuid(&m, 2, 0, 3, 0xd, 0, r);
	assert_int_equal(r[EAX], 7);
	assert_int_equal(r[EBX], 576);
	assert_int_equal(r[ECX], 832);
	cpu_model_cpuid(&m, 2, 0, 7, 0xd, 0, r);
	assert_int_equal(r[EBX], 832);
	cpu_model_cpuid(&m, 2, 0, 7, 0xd, 1, r);
	assert_int_equal(r[EAX], 3);
	assert_int_equal(r[EBX], 832);
	cpu_model_cpuid(&m, 2, 0, 1, 0xb, 1, r);
	assert_int_equal(r[EAX], 2); /* three vCPUs: two bits */
	assert_int_equal(r[EBX], 3);
	assert_int_equal(r[ECX], 0x201);
	assert_int_equal(r[EDX], 2);
	cpu_model_cpuid(&m, 2, 0, 1, 0xb, 7, r);
	assert_int_equal(r[EBX], 0);
	assert_int_equal(r[ECX], 7);
	cpu_model_cpuid(&m, 2, 0, 1, 0x8000001e, 0, r);
	assert_int_equal(r[EAX], 2);
	assert_int_equal(r[EBX], 2);
	cpu_model_cpuid(&m, 0, 0, 1, 0x80000008, 0, r);
	assert_int_equal(r[ECX], 2 << 12 | 2);
	cpu_model_cpuid(&m, 0, 0, 1, 0x8000001d, 3, r);
	assert_int_equal(r[EAX] >> 14 & 0xfff, 3); /* the last cache is shared by all */
	cpu_model_cpuid(&m, 0, 0, 1, 0x8000001d, 0, r);
	assert_int_equal(r[EAX] >> 14 & 0xfff, 0);
}

static void
leaves_beyond_the_last(void **state)
{
	struct fake_host amd = {.amd = true}, intel = {0};
	struct cpu_model m;
	const char *missing;
	u32 r[4], last[4];

	assert_int_equal(compute(&m, "x86-64-v2", 1, &amd, &missing), 0);
	cpu_model_cpuid(&m, 0, 0, 1, 0x1234, 0, r);
	assert_int_equal(r[EAX] | r[EBX] | r[ECX] | r[EDX], 0);
	assert_int_equal(compute(&m, "x86-64-v2", 1, &intel, &missing), 0);
	cpu_model_cpuid(&m, 0, 0, 1, 0x16, 0, last);
	cpu_model_cpuid(&m, 0, 0, 1, 0x1234, 0, r);
	assert_memory_equal(r, last, sizeof(r));
	cpu_model_cpuid(&m, 0, 0, 1, 0x80000030, 0, r);
	assert_memory_equal(r, last, sizeof(r));
	cpu_model_cpuid(&m, 0, 0, 1, 0x80000008, 0, r);
	assert_int_equal(r[EAX], 0x302e);
	cpu_model_cpuid(&m, 0, 0, 1, 4, 9, r);
	assert_int_equal(r[EAX], 0);
}

static void
clocks(void **state)
{
	struct fake_host intel = {0};
	struct cpu_model m;
	const char *missing;
	u32 r[4];
	u64 hz, error;

	assert_int_equal(compute(&m, "x86-64-v2", 1, &intel, &missing), 0);
	cpu_model_cpuid(&m, 0, 0, 1, 0x15, 0, r);
	hz = (u64)r[ECX] * r[EBX] / r[EAX];
	error = hz > m.tsc_hz ? hz - m.tsc_hz : m.tsc_hz - hz;
	assert_true(error < m.tsc_hz / 1000000);		  /* one in a million */
	assert_true((u64)(r[ECX] / 1000) * r[EBX] <= UINT32_MAX); /* as kernels multiply */
	cpu_model_cpuid(&m, 0, 0, 1, 0x40000000, 0, r);
	assert_int_equal(r[EAX], 0x40000010);
	assert_memory_equal(&r[EBX], "KVMKVMKVM\0\0\0", 12);
	cpu_model_cpuid(&m, 0, 0, 1, 0x40000010, 0, r);
	assert_int_equal(r[EAX], 2596126);
	assert_int_equal(r[EBX], 1000000);
}

static void
this_host(void **state)
{
	struct cpu_model m;
	const char *missing;
	int rc = cpu_model_compute(&m, "x86-64-v2", 2, &missing);

	assert_int_equal(rc, 0);
	assert_true(m.tsc_hz > 500000000u && m.tsc_hz < 10000000000u);
	assert_true(cpu_model_has(&m, 1, 0, ECX, 31));
	assert_true(cpu_model_has(&m, 1, 0, ECX, 21));
	assert_true(cpu_model_has(&m, 7, 0, EBX, 9));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_floors),
		cmocka_unit_test(limits),
		cmocka_unit_test(bits_that_follow_the_state),
		cmocka_unit_test(leaves_beyond_the_last),
		cmocka_unit_test(clocks),
		cmocka_unit_test(this_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
