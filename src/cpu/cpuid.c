/*
 * Answers of a frozen CPUID table. Few bits follow the vCPU's state; they are
 * added here, so that the table is one for all vCPUs and all times.
 */
#include "cpu/cpuid.h"

#include <errno.h>
#include <string.h>

#include "cpu/cpu_state.h"

enum { EAX, EBX, ECX, EDX };
enum { XSAVE_LEGACY_SIZE = 576, XSAVE_AVX_SIZE = 256, XCR0_AVX = 4 };

static const struct cpuid_entry *
cpuid_find(const struct cpu_model *model, u32 leaf, u32 subleaf)
{
	const struct cpuid_entry *entry;

	for (unsigned i = 0; i < model->count && i < CPUID_ENTRIES_MAX; i++) {
		entry = &model->entries[i];
		if (entry->leaf == leaf && (!entry->indexed || entry->subleaf == subleaf))
			return entry;
	}
	return NULL;
}

/* Beyond the last basic leaf an Intel CPU repeats it, an AMD CPU gives zeros. */
static u32
cpuid_clamp_leaf(const struct cpu_model *model, u32 leaf)
{
	const struct cpuid_entry *first = cpuid_find(model, 0, 0);
	const struct cpuid_entry *base = cpuid_find(model, leaf & 0xffff0000u, 0);

	if (!first || first->ecx != 0x6c65746e) /* "ntel" */
		return leaf;
	if (base && leaf <= base->eax)
		return leaf;
	return first->eax;
}

static u32
cpuid_xsave_size(u64 xcr0)
{
	return XSAVE_LEGACY_SIZE + (xcr0 & XCR0_AVX ? XSAVE_AVX_SIZE : 0);
}

static void
cpuid_add_state(const struct cpu_model *model, unsigned index, u64 cr4, u64 xcr0, u32 leaf,
		u32 subleaf, u32 out[4])
{
	switch (leaf) {
	case 1:
		out[EBX] |= index << 24;
		if ((cr4 & CR4_OSXSAVE) && (out[ECX] & BIT(26)))
			out[ECX] |= BIT(27);
		break;
	case 0xb:
		/* Levels that do not exist repeat their number and the id (APM 3, E.4.6). */
		out[ECX] |= subleaf & 0xff;
		out[EDX] = index;
		break;
	case 0xd:
		if (subleaf == 0)
			out[EBX] = cpuid_xsave_size(xcr0);
		else if (subleaf == 1 && (out[EAX] & BIT(1)))
			out[EBX] = cpuid_xsave_size(xcr0);
		break;
	case 0x8000001e:
		if (cpuid_find(model, leaf, 0)) {
			out[EAX] = index;
			out[EBX] |= index & 0xff;
		}
		break;
	default:
		break;
	}
}

void
cpu_model_cpuid(const struct cpu_model *model, unsigned index, u64 cr4, u64 xcr0, u32 leaf,
		u32 subleaf, u32 out[4])
{
	const struct cpuid_entry *entry;

	leaf = cpuid_clamp_leaf(model, leaf);
	entry = cpuid_find(model, leaf, subleaf);
	memset(out, 0, 4 * sizeof(*out));
	if (entry) {
		out[EAX] = entry->eax;
		out[EBX] = entry->ebx;
		out[ECX] = entry->ecx;
		out[EDX] = entry->edx;
	}
	cpuid_add_state(model, index, cr4, xcr0, leaf, subleaf, out);
}

u32
cpu_model_get(const struct cpu_model *model, u32 leaf, u32 subleaf, int reg)
{
	const struct cpuid_entry *entry = cpuid_find(model, leaf, subleaf);

	if (!entry)
		return 0;
	return reg == EAX   ? entry->eax
	       : reg == EBX ? entry->ebx
	       : reg == ECX ? entry->ecx
			    : entry->edx;
}

int
cpu_model_set(struct cpu_model *model, u32 leaf, u32 subleaf, int reg, u32 value)
{
	const struct cpuid_entry *found = cpuid_find(model, leaf, subleaf);
	struct cpuid_entry *entry;

	if (!found && model->count == CPUID_ENTRIES_MAX)
		return -ENOSPC;
	if (!found) {
		found = &model->entries[model->count++];
		model->entries[model->count - 1] =
			(struct cpuid_entry){.leaf = leaf, .subleaf = subleaf, .indexed = true};
	}
	entry = &model->entries[found - model->entries];
	*(reg == EAX   ? &entry->eax
	  : reg == EBX ? &entry->ebx
	  : reg == ECX ? &entry->ecx
		       : &entry->edx) = value;
	return 0;
}

bool
cpu_model_has(const struct cpu_model *model, u32 leaf, u32 subleaf, int reg, int bit)
{
	if (bit < 0 || bit > 31)
		return false;
	return (cpu_model_get(model, leaf, subleaf, reg) >> bit) & 1;
}

/* Leaves that tell frequencies, which are measured anew on some hosts. */
static bool
cpuid_is_rate(u32 leaf)
{
	return leaf == 0x15 || leaf == 0x16 || leaf == 0x40000010;
}

bool
cpu_model_same(const struct cpu_model *a, const struct cpu_model *b)
{
	if (a->count != b->count || a->phys_bits != b->phys_bits ||
	    a->arch_capabilities != b->arch_capabilities)
		return false;
	for (unsigned i = 0; i < a->count && i < CPUID_ENTRIES_MAX; i++) {
		const struct cpuid_entry *x = &a->entries[i];
		const struct cpuid_entry *y = cpuid_find(b, x->leaf, x->subleaf);

		if (cpuid_is_rate(x->leaf))
			continue;
		if (!y || x->eax != y->eax || x->ebx != y->ebx || x->ecx != y->ecx ||
		    x->edx != y->edx)
			return false;
	}
	return true;
}
