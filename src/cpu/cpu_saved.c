/*
 * Field tables of cpu_state and cpu_model (see cpu_saved.h).
 */
#include "cpu/cpu_saved.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct state_field saved_segment_fields[] = {
	STATE_NUMBER(struct segment, base),
	STATE_NUMBER(struct segment, limit),
	STATE_NUMBER(struct segment, selector),
	STATE_MAX(struct segment, attr, 0xfff),
	STATE_END,
};

static const struct state_field saved_table_fields[] = {
	STATE_NUMBER(struct descriptor_table, base),
	STATE_NUMBER(struct descriptor_table, limit),
	STATE_END,
};

static const struct state_field saved_event_fields[] = {
	STATE_FLAG(struct cpu_events, exception_pending),
	STATE_FLAG(struct cpu_events, exception_has_code),
	STATE_FLAG(struct cpu_events, interrupt_pending),
	STATE_FLAG(struct cpu_events, nmi_pending),
	STATE_FLAG(struct cpu_events, nmi_masked),
	STATE_FLAG(struct cpu_events, shadow),
	STATE_MAX(struct cpu_events, exception_vector, 31),
	STATE_NUMBER(struct cpu_events, interrupt_vector),
	STATE_NUMBER(struct cpu_events, exception_code),
	STATE_END,
};

static const struct state_field saved_lapic_fields[] = {
	STATE_NUMBER(struct cpu_lapic, base_msr),
	STATE_NUMBER(struct cpu_lapic, tsc_deadline),
	STATE_NUMBERS(struct cpu_lapic, regs, UINT32_MAX),
	STATE_INSTANT(struct cpu_lapic, timer_start_ns),
	STATE_END,
};

static const struct state_field saved_msr_fields[] = {
	STATE_NUMBER(struct cpu_msrs, efer),
	STATE_NUMBER(struct cpu_msrs, star),
	STATE_NUMBER(struct cpu_msrs, lstar),
	STATE_NUMBER(struct cpu_msrs, cstar),
	STATE_NUMBER(struct cpu_msrs, sfmask),
	STATE_NUMBER(struct cpu_msrs, kernel_gs_base),
	STATE_NUMBER(struct cpu_msrs, sysenter_cs),
	STATE_NUMBER(struct cpu_msrs, sysenter_esp),
	STATE_NUMBER(struct cpu_msrs, sysenter_eip),
	STATE_NUMBER(struct cpu_msrs, pat),
	STATE_NUMBER(struct cpu_msrs, tsc_aux),
	STATE_NUMBER(struct cpu_msrs, misc_enable),
	STATE_NUMBER(struct cpu_msrs, mtrr_def_type),
	STATE_NUMBERS(struct cpu_msrs, mtrr_fixed, UINT64_MAX),
	STATE_NUMBERS(struct cpu_msrs, mtrr_base, UINT64_MAX),
	STATE_NUMBERS(struct cpu_msrs, mtrr_mask, UINT64_MAX),
	STATE_NUMBER(struct cpu_msrs, kvm_system_time),
	STATE_NUMBER(struct cpu_msrs, kvm_wall_clock),
	STATE_NUMBER(struct cpu_msrs, spec_ctrl),
	STATE_NUMBER(struct cpu_msrs, tsc_adjust),
	STATE_END,
};

static const struct state_field saved_state_fields[] = {
	STATE_NUMBERS(struct cpu_state, gpr, UINT64_MAX),
	STATE_NUMBER(struct cpu_state, rip),
	STATE_NUMBER(struct cpu_state, rflags),
	STATE_STRUCTS(struct cpu_state, seg, saved_segment_fields),
	STATE_STRUCT(struct cpu_state, tr, saved_segment_fields),
	STATE_STRUCT(struct cpu_state, ldt, saved_segment_fields),
	STATE_STRUCT(struct cpu_state, gdt, saved_table_fields),
	STATE_STRUCT(struct cpu_state, idt, saved_table_fields),
	STATE_NUMBER(struct cpu_state, cr0),
	STATE_NUMBER(struct cpu_state, cr2),
	STATE_NUMBER(struct cpu_state, cr3),
	STATE_NUMBER(struct cpu_state, cr4),
	STATE_MAX(struct cpu_state, cr8, 15),
	STATE_NUMBERS(struct cpu_state, dr, UINT64_MAX),
	STATE_NUMBER(struct cpu_state, dr6),
	STATE_NUMBER(struct cpu_state, dr7),
	STATE_NUMBER(struct cpu_state, xcr0),
	STATE_NUMBER(struct cpu_state, tsc),
	STATE_NUMBER(struct cpu_state, kvmclock),
	STATE_STRUCT(struct cpu_state, msr, saved_msr_fields),
	STATE_STRUCT(struct cpu_state, events, saved_event_fields),
	STATE_MAX(struct cpu_state, run_state, CPU_WAIT_SIPI),
	STATE_STRUCT(struct cpu_state, lapic, saved_lapic_fields),
	STATE_BYTES(struct cpu_state, xsave),
	STATE_END,
};

static const struct state_type saved_state_type = {"cpu", 1, saved_state_fields, NULL, NULL};

void
cpu_saved_state(struct cpu_state *state, u32 index, struct state_list *list)
{
	state_list_add(list, &saved_state_type, index, state, sizeof(*state));
}

/* ---- the model ---- */

static const struct state_field saved_entry_fields[] = {
	STATE_NUMBER(struct cpuid_entry, leaf),	 STATE_NUMBER(struct cpuid_entry, subleaf),
	STATE_FLAG(struct cpuid_entry, indexed), STATE_NUMBER(struct cpuid_entry, eax),
	STATE_NUMBER(struct cpuid_entry, ebx),	 STATE_NUMBER(struct cpuid_entry, ecx),
	STATE_NUMBER(struct cpuid_entry, edx),	 STATE_END,
};

static const struct state_field saved_model_fields[] = {
	STATE_BYTES(struct cpu_model, name),
	STATE_RANGE(struct cpu_model, count, 1, CPUID_ENTRIES_MAX),
	STATE_STRUCTS(struct cpu_model, entries, saved_entry_fields),
	STATE_RANGE(struct cpu_model, tsc_hz, 1000000, 1000000000000),
	STATE_RANGE(struct cpu_model, phys_bits, 36, 52),
	STATE_NUMBER(struct cpu_model, arch_capabilities),
	STATE_END,
};

static bool
saved_model_check(const void *staged)
{
	const struct cpu_model *model = staged;

	return memchr(model->name, 0, sizeof(model->name)) != NULL;
}

static const struct state_type saved_model_type = {"cpu-model", 1, saved_model_fields,
						   saved_model_check, NULL};

void
cpu_saved_model(struct cpu_model *model, struct state_list *list)
{
	state_list_add(list, &saved_model_type, 0, model, sizeof(*model));
}

static const struct cpuid_entry *
saved_vendor(const struct cpu_model *model)
{
	for (unsigned i = 0; i < model->count && i < CPUID_ENTRIES_MAX; i++)
		if (model->entries[i].leaf == 0)
			return &model->entries[i];
	return NULL;
}

static bool
saved_same_vendor(const struct cpu_model *a, const struct cpu_model *b)
{
	const struct cpuid_entry *x = saved_vendor(a), *y = saved_vendor(b);

	return x && y && x->ebx == y->ebx && x->ecx == y->ecx && x->edx == y->edx;
}

/* Within what clocks of one make differ by, and less than guests notice. */
static bool
saved_same_rate(u64 a, u64 b)
{
	return (a > b ? a - b : b - a) < a / 2000;
}

int
cpu_saved_fits(const struct cpu_model *model, const struct cpu_model *host, char *why,
	       size_t why_size)
{
	const char *missing = cpu_model_missing(model, host);

	if (!saved_same_vendor(model, host))
		snprintf(why, why_size,
			 "the VM was saved on a CPU of another vendor; use a host with such a CPU");
	else if (missing)
		snprintf(why, why_size,
			 "this host's CPU has no %s, which the saved VM uses; use a host that has",
			 missing);
	else if (model->phys_bits > host->phys_bits)
		snprintf(why, why_size,
			 "the saved VM has addresses of %u bits, this host's CPU has %u",
			 model->phys_bits, host->phys_bits);
	else if (!saved_same_rate(model->tsc_hz, host->tsc_hz))
		snprintf(why, why_size,
			 "the saved VM's time-stamp counter runs at %llu MHz, this host's at %llu",
			 (unsigned long long)(model->tsc_hz / 1000000),
			 (unsigned long long)(host->tsc_hz / 1000000));
	else
		return 0;
	return -ENOTSUP;
}
