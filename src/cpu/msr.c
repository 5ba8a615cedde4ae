/*
 * MSRs by table, sorted by number: where each is kept, which bits may be
 * written, which feature it comes with. A kernel on a CPU of the host's vendor
 * reads some without asking whether they exist; those have constant values.
 *
 * What is not in the table does not exist: #GP.
 */
#include "cpu/msr.h"

#include <errno.h>

enum { EAX, EBX, ECX, EDX };

enum msr_kind {
	MSR_STORED,    /* a u64 of cpu_msrs; bits outside the mask raise #GP */
	MSR_LOW,       /* the same, but bits outside the mask are dropped */
	MSR_CANONICAL, /* a u64 of cpu_msrs that holds an address */
	MSR_TYPES,     /* eight memory types (PAT, fixed MTRRs) */
	MSR_CONSTANT,  /* reads VALUE, writing raises #GP */
	MSR_IGNORED,   /* reads VALUE, what is written goes nowhere */
	MSR_COMMAND,   /* write-only */
	MSR_ENGINE,    /* the engine's own */
};

enum msr_condition {
	MSR_FOR_ALL,
	MSR_FOR_INTEL,
	MSR_FOR_AMD,
	MSR_IF_RDTSCP,
	MSR_IF_SPEC_CTRL,
	MSR_IF_IBPB,
	MSR_IF_L1D_FLUSH,
	MSR_IF_ARCH_CAPABILITIES,
};

struct msr_row {
	u32 first, last;
	u8 kind, condition;
	u16 offset; /* in cpu_msrs */
	u64 mask, value;
};

#define STORED(number, field, bits)                                                                \
	{                                                                                          \
		number, number, MSR_STORED, MSR_FOR_ALL, offsetof(struct cpu_msrs, field), bits, 0 \
	}
#define CANONICAL(number, field)                                                                   \
	{                                                                                          \
		number, number, MSR_CANONICAL, MSR_FOR_ALL, offsetof(struct cpu_msrs, field),      \
			UINT64_MAX, 0                                                              \
	}
#define TYPES(first, last, field)                                                                  \
	{                                                                                          \
		first, last, MSR_TYPES, MSR_FOR_ALL, offsetof(struct cpu_msrs, field), UINT64_MAX, \
			0                                                                          \
	}
#define CONSTANT(number, condition, value)                                                         \
	{                                                                                          \
		number, number, MSR_CONSTANT, condition, 0, 0, value                               \
	}
#define IGNORED(first, last, condition, value)                                                     \
	{                                                                                          \
		first, last, MSR_IGNORED, condition, 0, UINT64_MAX, value                          \
	}
#define COMMAND(number, condition, bits)                                                           \
	{                                                                                          \
		number, number, MSR_COMMAND, condition, 0, bits, 0                                 \
	}
#define ENGINE(first, last)                                                                        \
	{                                                                                          \
		first, last, MSR_ENGINE, MSR_FOR_ALL, 0, 0, 0                                      \
	}

enum {
	MSR_MTRR_FIRST = 0x200, /* base and mask by turns */
	MSR_MTRR_LAST = 0x20f,
	MTRR_TYPE = 0xff,
	MTRR_VALID = BIT(11),
	MSR_HWCR_TSC_FREQ = BIT(24), /* the TSC counts at the P0 frequency */
	MSR_DE_CFG_LFENCE = BIT(1),  /* LFENCE serializes */
};

static const struct msr_row msr_rows[] = {
	CONSTANT(0x0, MSR_FOR_ALL, 0), /* P5_MC_ADDR, P5_MC_TYPE */
	CONSTANT(0x1, MSR_FOR_ALL, 0),
	ENGINE(MSR_TSC, MSR_TSC),
	CONSTANT(0x17, MSR_FOR_INTEL, 0), /* PLATFORM_ID */
	ENGINE(MSR_APIC_BASE, MSR_APIC_BASE),
	CONSTANT(0x2a, MSR_FOR_INTEL, 0), /* EBL_CR_POWERON */
	CONSTANT(0x3a, MSR_FOR_INTEL, 1), /* FEATURE_CONTROL: locked, all off */
	{MSR_SPEC_CTRL, MSR_SPEC_CTRL, MSR_STORED, MSR_IF_SPEC_CTRL,
	 offsetof(struct cpu_msrs, spec_ctrl), 0x5f7, 0},
	COMMAND(MSR_PRED_CMD, MSR_IF_IBPB, 0x81),
	IGNORED(0x79, 0x79, MSR_FOR_INTEL, 0),		  /* microcode update */
	IGNORED(0x8b, 0x8b, MSR_FOR_ALL, 0x100000000ull), /* microcode revision */
	CONSTANT(0xfe, MSR_FOR_ALL, 0x508),		  /* MTRRCAP: 8 ranges, fixed ones, WC */
	CONSTANT(MSR_ARCH_CAPABILITIES, MSR_IF_ARCH_CAPABILITIES, 0),
	COMMAND(0x10b, MSR_IF_L1D_FLUSH, 1), /* FLUSH_CMD */
	STORED(MSR_SYSENTER_CS, sysenter_cs, 0xffffffff),
	CANONICAL(MSR_SYSENTER_ESP, sysenter_esp),
	CANONICAL(MSR_SYSENTER_EIP, sysenter_eip),
	CONSTANT(0x179, MSR_FOR_ALL, 0),       /* MCG_CAP: no banks */
	IGNORED(0x17a, 0x17a, MSR_FOR_ALL, 0), /* MCG_STATUS */
	STORED(MSR_MISC_ENABLE, misc_enable, 0x4c51889),
	IGNORED(0x1d9, 0x1d9, MSR_FOR_ALL, 0), /* DEBUGCTL */
	TYPES(0x250, 0x250, mtrr_fixed[0]),
	TYPES(0x258, 0x259, mtrr_fixed[1]),
	TYPES(0x268, 0x26f, mtrr_fixed[3]),
	TYPES(MSR_PAT, MSR_PAT, pat),
	STORED(MSR_MTRR_DEF_TYPE, mtrr_def_type, 0xcff),
	ENGINE(MSR_TSC_DEADLINE, MSR_TSC_DEADLINE),
	ENGINE(MSR_X2APIC_FIRST, MSR_X2APIC_LAST),
	ENGINE(MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW),
	ENGINE(MSR_EFER, MSR_EFER),
	STORED(MSR_STAR, star, UINT64_MAX),
	CANONICAL(MSR_LSTAR, lstar),
	CANONICAL(MSR_CSTAR, cstar),
	{MSR_SFMASK, MSR_SFMASK, MSR_LOW, MSR_FOR_ALL, offsetof(struct cpu_msrs, sfmask),
	 0xffffffff, 0},
	ENGINE(MSR_FS_BASE, MSR_GS_BASE),
	CANONICAL(MSR_KERNEL_GS_BASE, kernel_gs_base),
	{MSR_TSC_AUX, MSR_TSC_AUX, MSR_STORED, MSR_IF_RDTSCP, offsetof(struct cpu_msrs, tsc_aux),
	 0xffffffff, 0},
	IGNORED(0xc0010000, 0xc0010007, MSR_FOR_AMD, 0), /* performance counters: never count */
	IGNORED(0xc0010010, 0xc0010010, MSR_FOR_AMD, 0), /* SYSCFG */
	IGNORED(0xc0010015, 0xc0010015, MSR_FOR_AMD, MSR_HWCR_TSC_FREQ), /* HWCR */
	IGNORED(0xc001001f, 0xc001001f, MSR_FOR_AMD, 0),		 /* NB_CFG */
	CONSTANT(0xc0010055, MSR_FOR_AMD, 0),		 /* interrupt pending message */
	CONSTANT(0xc0010058, MSR_FOR_AMD, 0),		 /* MMIO configuration base: off */
	IGNORED(0xc0011022, 0xc0011022, MSR_FOR_AMD, 0), /* DC_CFG */
	IGNORED(0xc0011029, 0xc0011029, MSR_FOR_AMD, MSR_DE_CFG_LFENCE),
	IGNORED(0xc001102a, 0xc001102a, MSR_FOR_AMD, 0), /* BU_CFG2 */
};

static bool
msr_is_amd(const struct cpu_model *model)
{
	return model->count > 0 &&
	       (model->entries[0].ecx == 0x444d4163 || model->entries[0].ecx == 0x656e6975);
}

static bool
msr_has_spec_ctrl(const struct cpu_model *model)
{
	return cpu_model_has(model, 7, 0, EDX, 26) || cpu_model_has(model, 7, 0, EDX, 27) ||
	       cpu_model_has(model, 7, 0, EDX, 31) ||
	       cpu_model_has(model, 0x80000008, 0, EBX, 14) ||
	       cpu_model_has(model, 0x80000008, 0, EBX, 15) ||
	       cpu_model_has(model, 0x80000008, 0, EBX, 24);
}

static bool
msr_exists(const struct msr_row *row, const struct cpu_model *model)
{
	switch ((enum msr_condition)row->condition) {
	case MSR_FOR_ALL:
		return true;
	case MSR_FOR_INTEL:
		return !msr_is_amd(model);
	case MSR_FOR_AMD:
		return msr_is_amd(model);
	case MSR_IF_RDTSCP:
		return cpu_model_has(model, 0x80000001, 0, EDX, 27);
	case MSR_IF_SPEC_CTRL:
		return msr_has_spec_ctrl(model);
	case MSR_IF_IBPB:
		return cpu_model_has(model, 7, 0, EDX, 26) ||
		       cpu_model_has(model, 0x80000008, 0, EBX, 12);
	case MSR_IF_L1D_FLUSH:
		return cpu_model_has(model, 7, 0, EDX, 28);
	case MSR_IF_ARCH_CAPABILITIES:
		return cpu_model_has(model, 7, 0, EDX, 29);
	}
	return false;
}

static const struct msr_row *
msr_find(const struct cpu_model *model, u32 msr)
{
	size_t low = 0, high = ARRAY_LEN(msr_rows), middle;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (msr > msr_rows[middle].last)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == ARRAY_LEN(msr_rows) || msr < msr_rows[low].first ||
	    !msr_exists(&msr_rows[low], model))
		return NULL;
	return &msr_rows[low];
}

static bool
msr_canonical(u64 value)
{
	return (u64)((i64)(value << 16) >> 16) == value;
}

/* UC, WC, WT, WP, WB; UC- in the PAT only (7.7.2, 7.8.2). */
static bool
msr_memory_type(u64 type, bool pat)
{
	return type < 2 || (type >= 4 && type <= 6) || (pat && type == 7);
}

static bool
msr_memory_types(u64 value, bool pat)
{
	for (int i = 0; i < 64; i += 8) {
		if (!msr_memory_type((value >> i) & 0xff, pat))
			return false;
	}
	return true;
}

static u64 *
msr_field(struct cpu_msrs *msrs, const struct msr_row *row, u32 msr)
{
	return (u64 *)(void *)((char *)msrs + row->offset) + (msr - row->first);
}

/* Variable MTRRs: bases at even numbers, masks at odd ones (7.7.3). */
static u64 *
msr_mtrr(struct cpu_msrs *msrs, u32 msr)
{
	unsigned index = (msr - MSR_MTRR_FIRST) / 2;

	return msr & 1 ? &msrs->mtrr_mask[index] : &msrs->mtrr_base[index];
}

static int
msr_write_mtrr(struct cpu_msrs *msrs, const struct cpu_model *model, u32 msr, u64 value)
{
	u64 address = ((1ull << model->phys_bits) - 1) & ~0xfffull;
	u64 low = msr & 1 ? MTRR_VALID : MTRR_TYPE;

	if ((value & ~(address | low)) ||
	    (!(msr & 1) && !msr_memory_type(value & MTRR_TYPE, false)))
		return -EINVAL;
	*msr_mtrr(msrs, msr) = value;
	return 0;
}

static bool
msr_is_mtrr(u32 msr)
{
	return msr >= MSR_MTRR_FIRST && msr <= MSR_MTRR_LAST;
}

int
msr_read(const struct cpu_msrs *msrs, const struct cpu_model *model, u32 msr, u64 *value)
{
	struct cpu_msrs *from = (struct cpu_msrs *)(uintptr_t)msrs; /* read only, below */
	const struct msr_row *row;

	if (msr_is_mtrr(msr)) {
		*value = *msr_mtrr(from, msr);
		return 0;
	}
	row = msr_find(model, msr);
	if (!row)
		return -EINVAL;
	switch ((enum msr_kind)row->kind) {
	case MSR_STORED:
	case MSR_LOW:
	case MSR_CANONICAL:
	case MSR_TYPES:
		*value = *msr_field(from, row, msr);
		return 0;
	case MSR_CONSTANT:
	case MSR_IGNORED:
		*value = msr == MSR_ARCH_CAPABILITIES ? model->arch_capabilities : row->value;
		return 0;
	case MSR_ENGINE:
		return -ENOENT;
	case MSR_COMMAND:
		break;
	}
	return -EINVAL;
}

int
msr_write(struct cpu_msrs *msrs, const struct cpu_model *model, u32 msr, u64 value)
{
	const struct msr_row *row;

	if (msr_is_mtrr(msr))
		return msr_write_mtrr(msrs, model, msr, value);
	row = msr_find(model, msr);
	if (!row)
		return -EINVAL;
	switch ((enum msr_kind)row->kind) {
	case MSR_STORED:
		if (value & ~row->mask)
			return -EINVAL;
		if (msr == MSR_MTRR_DEF_TYPE && !msr_memory_type(value & MTRR_TYPE, false))
			return -EINVAL;
		break;
	case MSR_LOW:
		value &= row->mask;
		break;
	case MSR_CANONICAL:
		if (!msr_canonical(value))
			return -EINVAL;
		break;
	case MSR_TYPES:
		if (!msr_memory_types(value, msr == MSR_PAT))
			return -EINVAL;
		break;
	case MSR_IGNORED:
		return 0;
	case MSR_COMMAND:
		return value & ~row->mask ? -EINVAL : 0;
	case MSR_ENGINE:
		return -ENOENT;
	case MSR_CONSTANT:
		return -EINVAL;
	}
	*msr_field(msrs, row, msr) = value;
	return 0;
}
