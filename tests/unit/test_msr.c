/*
 * cpu/msr.c: which MSRs exist for whom, what may be written.
 */
#include "unit.h"

#include <errno.h>

#include "cpu/msr.h"

static struct cpu_model
model_of(bool amd, bool mitigations)
{
	struct cpu_model m = {.count = 4, .phys_bits = 40};

	m.entries[0] = (struct cpuid_entry){.ecx = amd ? 0x444d4163 : 0x6c65746e};
	m.entries[1] = (struct cpuid_entry){.leaf = 0x80000001, .edx = 1u << 27};
	m.entries[2] = (struct cpuid_entry){.leaf = 7, .indexed = true};
	m.entries[3] = (struct cpuid_entry){.leaf = 0x80000008};
	if (mitigations) {
		m.entries[2].edx = 1u << 26 | 1u << 28 | 1u << 29;
		m.arch_capabilities = 0x2b;
	}
	return m;
}

static void
stored(void **state)
{
	static const u32 all_bits[] = {MSR_STAR,	   MSR_LSTAR,	     MSR_CSTAR,
				       MSR_KERNEL_GS_BASE, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP};
	struct cpu_model m = model_of(true, false);
	struct cpu_msrs msrs = {0};
	u64 value;

	for (size_t i = 0; i < ARRAY_LEN(all_bits); i++) {
		assert_int_equal(msr_write(&msrs, &m, all_bits[i], 0xffff800012345678ull + i), 0);
		assert_int_equal(msr_read(&msrs, &m, all_bits[i], &value), 0);
		assert_int_equal(value, 0xffff800012345678ull + i);
	}
	assert_int_equal(msrs.star, 0xffff800012345678ull);
	assert_int_equal(msr_write(&msrs, &m, MSR_LSTAR, 0x0000800000000000ull), -EINVAL);
	assert_int_equal(msr_write(&msrs, &m, MSR_STAR, 0x0000800000000000ull), 0);
	assert_int_equal(msr_write(&msrs, &m, MSR_SFMASK, 0x1ffffffffull), 0);
	assert_int_equal(msrs.sfmask, 0xffffffff);
	assert_int_equal(msr_write(&msrs, &m, MSR_TSC_AUX, 0x100000000ull), -EINVAL);
	assert_int_equal(msr_write(&msrs, &m, MSR_TSC_AUX, 7), 0);
	m.entries[1].edx = 0;
	assert_int_equal(msr_read(&msrs, &m, MSR_TSC_AUX, &value), -EINVAL);
}

static void
memory_types(void **state)
{
	struct cpu_model m = model_of(false, false);
	struct cpu_msrs msrs = {0};
	u64 value;

	assert_int_equal(msr_write(&msrs, &m, MSR_PAT, 0x0007040600070406ull), 0);
	assert_int_equal(msr_write(&msrs, &m, MSR_PAT, 0x0002040600070406ull), -EINVAL);
	assert_int_equal(msr_write(&msrs, &m, 0x26f, 0x0606060606060606ull), 0);
	assert_int_equal(msrs.mtrr_fixed[10], 0x0606060606060606ull);
	assert_int_equal(msr_write(&msrs, &m, 0x26f, 0x0706060606060606ull), -EINVAL);
	assert_int_equal(msr_write(&msrs, &m, MSR_MTRR_DEF_TYPE, 0xc06), 0);
	assert_int_equal(msr_write(&msrs, &m, MSR_MTRR_DEF_TYPE, 0xc07), -EINVAL);
	assert_int_equal(msr_write(&msrs, &m, 0x20e, 0xb0000000), 0);
	assert_int_equal(msr_write(&msrs, &m, 0x20f, 0xfff0000800), 0);
	assert_int_equal(msrs.mtrr_base[7], 0xb0000000);
	assert_int_equal(msrs.mtrr_mask[7], 0xfff0000800);
	assert_int_equal(msr_write(&msrs, &m, 0x20f, 1ull << 40), -EINVAL);
	assert_int_equal(msr_write(&msrs, &m, 0x20e, 0x100), -EINVAL);
	assert_int_equal(msr_read(&msrs, &m, 0xfe, &value), 0);
	assert_int_equal(value & 0xff, 8);
	assert_int_equal(msr_write(&msrs, &m, 0xfe, 0), -EINVAL);
	assert_int_equal(msr_read(&msrs, &m, 0x210, &value), -EINVAL);
}

static void
the_engine_has_its_own(void **state)
{
	static const u32 own[] = {MSR_TSC,
				  MSR_APIC_BASE,
				  MSR_TSC_DEADLINE,
				  0x800,
				  0x83f,
				  MSR_EFER,
				  MSR_FS_BASE,
				  MSR_GS_BASE,
				  MSR_KVM_SYSTEM_TIME_NEW,
				  MSR_KVM_WALL_CLOCK_NEW};
	struct cpu_model m = model_of(true, false);
	struct cpu_msrs msrs = {0};
	u64 value;

	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		assert_int_equal(msr_read(&msrs, &m, own[i], &value), -ENOENT);
		assert_int_equal(msr_write(&msrs, &m, own[i], 0), -ENOENT);
	}
}

static void
vendors(void **state)
{
	struct cpu_model amd = model_of(true, false), intel = model_of(false, false);
	struct cpu_msrs msrs = {0};
	u64 value;

	assert_int_equal(msr_read(&msrs, &amd, 0xc0010015, &value), 0);
	assert_int_equal(value, 1u << 24);
	assert_int_equal(msr_read(&msrs, &intel, 0xc0010015, &value), -EINVAL);
	assert_int_equal(msr_read(&msrs, &intel, 0x17, &value), 0);
	assert_int_equal(msr_read(&msrs, &amd, 0x17, &value), -EINVAL);
	assert_int_equal(msr_read(&msrs, &amd, 0x12345, &value), -EINVAL);
	assert_int_equal(msr_write(&msrs, &amd, 0xffffffff, 0), -EINVAL);
	assert_int_equal(msr_read(&msrs, &amd, 0, &value), 0);
}

static void
mitigations(void **state)
{
	struct cpu_model with = model_of(false, true), without = model_of(false, false);
	struct cpu_msrs msrs = {0};
	u64 value;

	assert_int_equal(msr_write(&msrs, &without, MSR_SPEC_CTRL, 1), -EINVAL);
	assert_int_equal(msr_write(&msrs, &without, MSR_PRED_CMD, 1), -EINVAL);
	assert_int_equal(msr_read(&msrs, &without, MSR_ARCH_CAPABILITIES, &value), -EINVAL);
	assert_int_equal(msr_write(&msrs, &with, MSR_SPEC_CTRL, 1), 0);
	assert_int_equal(msr_read(&msrs, &with, MSR_SPEC_CTRL, &value), 0);
	assert_int_equal(value, 1);
	assert_int_equal(msr_write(&msrs, &with, MSR_SPEC_CTRL, 1ull << 40), -EINVAL);
	assert_int_equal(msr_write(&msrs, &with, MSR_PRED_CMD, 1), 0);
	assert_int_equal(msr_read(&msrs, &with, MSR_PRED_CMD, &value), -EINVAL);
	assert_int_equal(msr_write(&msrs, &with, 0x10b, 1), 0);
	assert_int_equal(msr_read(&msrs, &with, MSR_ARCH_CAPABILITIES, &value), 0);
	assert_int_equal(value, 0x2b);
}

/* The table is searched by halves: every row must be found. */
static void
every_number_is_answered_alike(void **state)
{
	struct cpu_model m = model_of(true, true);
	struct cpu_msrs msrs = {0};
	unsigned found = 0;
	u64 value;

	for (u32 msr = 0; msr < 0x2000; msr++)
		found += msr_read(&msrs, &m, msr, &value) != -EINVAL;
	assert_true(found > 256 + 16 + 11);
	for (u32 msr = 0xc0000000; msr < 0xc0012000; msr++)
		found += msr_read(&msrs, &m, msr, &value) != -EINVAL;
	assert_true(found > 256 + 16 + 11 + 20);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stored),
		cmocka_unit_test(memory_types),
		cmocka_unit_test(the_engine_has_its_own),
		cmocka_unit_test(vendors),
		cmocka_unit_test(mitigations),
		cmocka_unit_test(every_number_is_answered_alike),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
