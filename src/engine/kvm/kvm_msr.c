/*
 * MSRs. KVM keeps those that its guests' code touches often or that have a meaning for
 * KVM itself; a filter makes it ask for every other, and our own table (cpu/msr.h) answers
 * as it does on every hypervisor. x2APIC registers pass any filter.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <string.h>

#include "cpu/msr.h"

enum { EAX, EBX, ECX, EDX };
enum { MSRS_MAX = 20, FILTER_BYTES = 8 };

/* Read and written as they are: number, and place in a cpu_msrs. */
static const struct kvm_msr_row {
	u32 number;
	u16 offset;
} kvm_msr_rows[] = {
	{MSR_SYSENTER_CS, offsetof(struct cpu_msrs, sysenter_cs)},
	{MSR_SYSENTER_ESP, offsetof(struct cpu_msrs, sysenter_esp)},
	{MSR_SYSENTER_EIP, offsetof(struct cpu_msrs, sysenter_eip)},
	{MSR_PAT, offsetof(struct cpu_msrs, pat)},
	{MSR_STAR, offsetof(struct cpu_msrs, star)},
	{MSR_LSTAR, offsetof(struct cpu_msrs, lstar)},
	{MSR_CSTAR, offsetof(struct cpu_msrs, cstar)},
	{MSR_SFMASK, offsetof(struct cpu_msrs, sfmask)},
	{MSR_KERNEL_GS_BASE, offsetof(struct cpu_msrs, kernel_gs_base)},
};

/* Their writes have an effect of their own: never among those that are set together. */
static const struct kvm_msr_row kvm_msr_clock_rows[] = {
	{MSR_KVM_WALL_CLOCK_NEW, offsetof(struct cpu_msrs, kvm_wall_clock)},
	{MSR_KVM_SYSTEM_TIME_NEW, offsetof(struct cpu_msrs, kvm_system_time)},
};

static u64 *
kvm_msr_field(struct cpu_msrs *msrs, u16 offset)
{
	return (u64 *)(void *)((char *)msrs + offset);
}

static bool
kvm_msr_has_tsc_aux(const struct engine *e)
{
	return cpu_model_has(e->config.model, 0x80000001, 0, EDX, 27);
}

/* ---- the filter ---- */

struct kvm_msr_filter_space {
	struct kvm_msr_filter filter;
	u8 bitmaps[KVM_MSR_FILTER_MAX_RANGES][FILTER_BYTES];
};

/* FIRST to LAST, at most 64, are KVM's own. */
static void
kvm_msr_allow(struct kvm_msr_filter_space *space, u32 first, u32 last)
{
	unsigned i = 0;

	while (space->filter.ranges[i].nmsrs)
		i++;
	memset(space->bitmaps[i], 0xff, FILTER_BYTES);
	space->filter.ranges[i] = (struct kvm_msr_filter_range){
		.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
		.nmsrs = last - first + 1,
		.base = first,
		.bitmap = space->bitmaps[i],
	};
}

/* Whether guests may reach the CPU's own: the model shows it and KVM knows it; where KVM does not,
 * our table accepts it and nothing happens. */
static bool
kvm_msr_reaches(const struct engine *e, u32 msr)
{
	struct cpu_msrs none = {0};

	return msr_write(&none, e->config.model, msr, 0) == 0 &&
	       kvm_cpuid_speculation(e->config.device, msr);
}

int
kvm_msr_set_filter(struct engine *e)
{
	struct kvm_msr_filter_space space;

	memset(&space, 0, sizeof(space));
	e->spec_ctrl = kvm_msr_reaches(e, MSR_SPEC_CTRL);
	space.filter.flags = KVM_MSR_FILTER_DEFAULT_DENY;
	kvm_msr_allow(&space, MSR_TSC, MSR_TSC);
	kvm_msr_allow(&space, MSR_APIC_BASE, MSR_APIC_BASE);
	kvm_msr_allow(&space, MSR_SYSENTER_CS, MSR_SYSENTER_EIP);
	kvm_msr_allow(&space, MSR_PAT, MSR_PAT);
	kvm_msr_allow(&space, MSR_TSC_DEADLINE, MSR_TSC_DEADLINE);
	kvm_msr_allow(&space, MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW);
	kvm_msr_allow(&space, MSR_EFER, MSR_SFMASK);
	kvm_msr_allow(&space, MSR_FS_BASE, MSR_KERNEL_GS_BASE);
	if (kvm_msr_has_tsc_aux(e))
		kvm_msr_allow(&space, MSR_TSC_AUX, MSR_TSC_AUX);
	if (e->spec_ctrl)
		kvm_msr_allow(&space, MSR_SPEC_CTRL, MSR_SPEC_CTRL);
	if (kvm_msr_reaches(e, MSR_PRED_CMD))
		kvm_msr_allow(&space, MSR_PRED_CMD, MSR_PRED_CMD);
	return kvm_ioctl(e->vm, KVM_X86_SET_MSR_FILTER, &space.filter);
}

void
kvm_msr_exit(struct engine_vcpu *v)
{
	const struct cpu_model *model = v->engine->config.model;
	struct kvm_run *run = v->run;
	u64 value = 0;
	int err;

	if (run->exit_reason == KVM_EXIT_X86_RDMSR) {
		err = msr_read(&v->msr, model, run->msr.index, &value);
		run->msr.data = value;
	} else {
		err = msr_write(&v->msr, model, run->msr.index, run->msr.data);
	}
	run->msr.error = err != 0; /* #GP */
}

/* ---- state ---- */

struct kvm_msr_batch {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[MSRS_MAX];
};

static void
kvm_msr_add(struct kvm_msr_batch *list, u32 number, u64 value)
{
	list->entries[list->head.nmsrs++] = (struct kvm_msr_entry){.index = number, .data = value};
}

int
kvm_msr_set_one(struct engine_vcpu *v, u32 msr, u64 value)
{
	struct kvm_msr_batch list = {.head = {0}};
	int done;

	kvm_msr_add(&list, msr, value);
	done = kvm_ioctl(v->fd, KVM_SET_MSRS, &list);
	return done < 0 ? done : done == 1 ? 0 : -EINVAL;
}

int
kvm_msr_get_one(struct engine_vcpu *v, u32 msr, u64 *value)
{
	struct kvm_msr_batch list = {.head = {0}};
	int done;

	kvm_msr_add(&list, msr, 0);
	done = kvm_ioctl(v->fd, KVM_GET_MSRS, &list);
	*value = list.entries[0].data;
	return done < 0 ? done : done == 1 ? 0 : -EINVAL;
}

/* All that are KVM's, with their values in MSRS. */
static void
kvm_msr_list(const struct engine_vcpu *v, struct cpu_msrs *msrs, struct kvm_msr_batch *list)
{
	list->head.nmsrs = 0;
	for (unsigned i = 0; i < ARRAY_LEN(kvm_msr_rows); i++)
		kvm_msr_add(list, kvm_msr_rows[i].number,
			    *kvm_msr_field(msrs, kvm_msr_rows[i].offset));
	if (kvm_msr_has_tsc_aux(v->engine))
		kvm_msr_add(list, MSR_TSC_AUX, msrs->tsc_aux);
	if (v->engine->spec_ctrl)
		kvm_msr_add(list, MSR_SPEC_CTRL, msrs->spec_ctrl);
}

static void
kvm_msr_take(const struct kvm_msr_entry *entry, struct cpu_msrs *msrs)
{
	for (unsigned i = 0; i < ARRAY_LEN(kvm_msr_rows); i++) {
		if (kvm_msr_rows[i].number == entry->index)
			*kvm_msr_field(msrs, kvm_msr_rows[i].offset) = entry->data;
	}
	for (unsigned i = 0; i < ARRAY_LEN(kvm_msr_clock_rows); i++) {
		if (kvm_msr_clock_rows[i].number == entry->index)
			*kvm_msr_field(msrs, kvm_msr_clock_rows[i].offset) = entry->data;
	}
	if (entry->index == MSR_TSC_AUX)
		msrs->tsc_aux = entry->data;
	if (entry->index == MSR_SPEC_CTRL)
		msrs->spec_ctrl = entry->data;
}

int
kvm_msr_get(struct engine_vcpu *v, struct cpu_state *s)
{
	struct kvm_msr_batch list = {.head = {0}};
	u64 efer = s->msr.efer;
	int done;

	s->msr = v->msr;
	s->msr.efer = efer;
	kvm_msr_list(v, &s->msr, &list);
	for (unsigned i = 0; i < ARRAY_LEN(kvm_msr_clock_rows); i++)
		kvm_msr_add(&list, kvm_msr_clock_rows[i].number, 0);
	kvm_msr_add(&list, MSR_TSC_DEADLINE, 0);
	done = kvm_ioctl(v->fd, KVM_GET_MSRS, &list);
	if (done < 0)
		return done;
	if ((u32)done != list.head.nmsrs)
		return -EIO;
	for (u32 i = 0; i + 1 < list.head.nmsrs; i++)
		kvm_msr_take(&list.entries[i], &s->msr);
	s->lapic.tsc_deadline = list.entries[list.head.nmsrs - 1].data;
	return 0;
}

int
kvm_msr_set(struct engine_vcpu *v, const struct cpu_state *s)
{
	struct kvm_msr_batch list = {.head = {0}};
	struct cpu_msrs msrs = s->msr;
	int done;

	kvm_msr_list(v, &msrs, &list);
	done = kvm_ioctl(v->fd, KVM_SET_MSRS, &list);
	if (done < 0)
		return done;
	if ((u32)done != list.head.nmsrs)
		return -EINVAL;
	v->msr = s->msr;
	return 0;
}
