/*
 * The frozen CPUID table on KVM: checked against what KVM can give, given to each vCPU, and
 * read back, since there are KVMs that make another of it in silence.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/msr.h"

enum { EAX, EBX, ECX, EDX };
enum { CPUID_SUPPORTED_MAX = 256 };

/* What a model must not have unless KVM gives it: what changes how guests' code runs. Advice and
 * mitigation bits are the host CPU's, known to this kernel's KVM or not; clocks, x2APIC and the
 * hypervisor's leaves do not depend on it. */
static const struct kvm_cpuid_rule {
	u32 leaf, subleaf;
	u8 reg;
	u32 mask;
} kvm_cpuid_rules[] = {
	{1, 0, EDX, 0x0fffffff}, /* but HTT */
	{1, 0, ECX, 0x76d83203}, /* SSE to F16C and RDRAND, PCID, XSAVE; not TSC deadline, x2APIC */
	{7, 0, EBX, 0xbffffdff}, /* but ERMS */
	{7, 0, ECX, 0x00000004}, /* UMIP */
	{0xd, 0, EAX, 0xffffffff},	  {0xd, 1, EAX, 0x0000000f},
	{0x80000001, 0, ECX, 0x00000121}, {0x80000001, 0, EDX, 0x2c100800},
};

static const struct {
	u32 leaf, subleaf;
	u8 reg, bit;
	const char *name;
} kvm_cpuid_names[] = {
	{1, 0, ECX, 17, "PCID"},
	{1, 0, ECX, 26, "XSAVE"},
	{1, 0, ECX, 28, "AVX"},
	{1, 0, ECX, 30, "RDRAND"},
	{1, 0, ECX, 25, "AES"},
	{1, 0, ECX, 12, "FMA"},
	{7, 0, EBX, 0, "FSGSBASE"},
	{7, 0, EBX, 5, "AVX2"},
	{7, 0, EBX, 7, "SMEP"},
	{7, 0, EBX, 8, "BMI2"},
	{7, 0, EBX, 10, "INVPCID"},
	{7, 0, EBX, 20, "SMAP"},
	{7, 0, ECX, 2, "UMIP"},
	{0xd, 1, EAX, 0, "XSAVEOPT"},
	{0xd, 1, EAX, 1, "XSAVEC"},
	{0x80000001, 0, EDX, 26, "1 GiB pages"},
	{0x80000001, 0, EDX, 27, "RDTSCP"},
	{0x80000001, 0, EDX, 20, "NX"},
};

struct kvm_cpuid2 *
kvm_cpuid_alloc(void)
{
	struct kvm_cpuid2 *table;

	table = calloc(1, sizeof(*table) + CPUID_SUPPORTED_MAX * sizeof(table->entries[0]));
	if (table)
		table->nent = CPUID_SUPPORTED_MAX;
	return table;
}

const struct kvm_cpuid_entry2 *
kvm_cpuid_find(const struct kvm_cpuid2 *table, u32 leaf, u32 subleaf)
{
	for (u32 i = 0; i < table->nent && i < CPUID_SUPPORTED_MAX; i++) {
		const struct kvm_cpuid_entry2 *entry = &table->entries[i];

		if (entry->function == leaf &&
		    (!(entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || entry->index == subleaf))
			return entry;
	}
	return NULL;
}

u32
kvm_cpuid_reg(const struct kvm_cpuid_entry2 *entry, u8 reg)
{
	const u32 regs[4] = {entry->eax, entry->ebx, entry->ecx, entry->edx};

	return regs[reg];
}

static const char *
kvm_cpuid_name(const struct kvm_cpuid_rule *rule, u32 bits)
{
	for (unsigned i = 0; i < ARRAY_LEN(kvm_cpuid_names); i++) {
		if (kvm_cpuid_names[i].leaf == rule->leaf &&
		    kvm_cpuid_names[i].subleaf == rule->subleaf &&
		    kvm_cpuid_names[i].reg == rule->reg && (bits >> kvm_cpuid_names[i].bit & 1))
			return kvm_cpuid_names[i].name;
	}
	return "an instruction set";
}

static const char *
kvm_cpuid_compare(const struct kvm_cpuid2 *table, const struct cpu_model *model)
{
	const struct kvm_cpuid_entry2 *entry;
	u32 regs[4], bits;

	for (unsigned i = 0; i < ARRAY_LEN(kvm_cpuid_rules); i++) {
		const struct kvm_cpuid_rule *rule = &kvm_cpuid_rules[i];

		cpu_model_cpuid(model, 0, 0, 1, rule->leaf, rule->subleaf, regs);
		entry = kvm_cpuid_find(table, rule->leaf, rule->subleaf);
		bits = regs[rule->reg] & rule->mask &
		       ~(entry ? kvm_cpuid_reg(entry, rule->reg) : 0);
		if (bits)
			return kvm_cpuid_name(rule, bits);
	}
	return NULL;
}

int
kvm_cpuid_missing(int device, const struct cpu_model *model, const char **missing)
{
	struct kvm_cpuid2 *table = kvm_cpuid_alloc();
	int err;

	*missing = NULL;
	if (!table)
		return -ENOMEM;
	err = kvm_ioctl(device, KVM_GET_SUPPORTED_CPUID, table);
	if (err >= 0)
		*missing = kvm_cpuid_compare(table, model);
	free(table);
	return err < 0 ? err : 0;
}

bool
kvm_cpuid_speculation(int device, u32 msr)
{
	static const struct {
		u32 msr, leaf;
		u8 reg;
		u32 mask;
	} rows[] = {
		{0, 7, EDX, BIT(26)}, /* both */
		{MSR_PRED_CMD, 0x80000008, EBX, BIT(12)},
		{MSR_SPEC_CTRL, 7, EDX, BIT(27) | BIT(31)},
		{MSR_SPEC_CTRL, 0x80000008, EBX, BIT(14) | BIT(15) | BIT(24)},
	};
	struct kvm_cpuid2 *table = kvm_cpuid_alloc();
	const struct kvm_cpuid_entry2 *entry;
	bool known = false;

	if (table && kvm_ioctl(device, KVM_GET_SUPPORTED_CPUID, table) >= 0) {
		for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
			entry = kvm_cpuid_find(table, rows[i].leaf, 0);
			if (rows[i].msr && rows[i].msr != msr)
				continue;
			known = known ||
				(entry && (kvm_cpuid_reg(entry, rows[i].reg) & rows[i].mask));
		}
	}
	free(table);
	return known;
}

static void
kvm_cpuid_fill(struct kvm_cpuid2 *table, const struct cpu_model *model, unsigned index)
{
	table->nent = model->count;
	for (u32 i = 0; i < model->count; i++) {
		const struct cpuid_entry *from = &model->entries[i];
		struct kvm_cpuid_entry2 *to = &table->entries[i];
		u32 regs[4];

		cpu_model_cpuid(model, index, 0, 1, from->leaf, from->subleaf, regs);
		*to = (struct kvm_cpuid_entry2){
			.function = from->leaf,
			.index = from->subleaf,
			.flags = from->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = regs[EAX],
			.ebx = regs[EBX],
			.ecx = regs[ECX],
			.edx = regs[EDX],
		};
	}
}

/* OSXSAVE, and the size of the enabled XSAVE area, follow the vCPU's state. */
static void
kvm_cpuid_mask_state(struct kvm_cpuid_entry2 *entry)
{
	if (entry->function == 1)
		entry->ecx &= ~BIT(27);
	if (entry->function == 0xd)
		entry->ebx = 0;
}

static bool
kvm_cpuid_same(const struct kvm_cpuid2 *asked, const struct kvm_cpuid2 *got)
{
	for (u32 i = 0; i < asked->nent; i++) {
		struct kvm_cpuid_entry2 want = asked->entries[i], have;
		const struct kvm_cpuid_entry2 *found;

		found = kvm_cpuid_find(got, want.function, want.index);
		if (!found)
			return false;
		have = *found;
		kvm_cpuid_mask_state(&want);
		kvm_cpuid_mask_state(&have);
		if (want.eax != have.eax || want.ebx != have.ebx || want.ecx != have.ecx ||
		    want.edx != have.edx)
			return false;
	}
	return true;
}

int
kvm_cpuid_set(struct engine_vcpu *v)
{
	struct kvm_cpuid2 *asked = kvm_cpuid_alloc(), *got = kvm_cpuid_alloc();
	int err = -ENOMEM;

	if (!asked || !got)
		goto out;
	kvm_cpuid_fill(asked, v->engine->config.model, v->index);
	err = kvm_ioctl(v->fd, KVM_SET_CPUID2, asked);
	if (err >= 0)
		err = kvm_ioctl(v->fd, KVM_GET_CPUID2, got);
	if (err >= 0)
		err = kvm_cpuid_same(asked, got) || v->engine->config.unchecked ? 0 : -ENOTSUP;
out:
	free(asked);
	free(got);
	return err;
}
