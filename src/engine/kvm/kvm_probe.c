/*
 * Whether the host's KVM can be used: its interface, a VM, and a guest in it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/kvm/kvm.h"
#include "engine/kvm/kvm_selftest.h"

/* Below this a system is no use: instructions a second. */
#define PROBE_SLOW 8000000u

static const struct {
	u32 number;
	const char *name;
} probe_capabilities[] = {
#define CAP(name)                                                                                  \
	{                                                                                          \
		KVM_CAP_##name, #name                                                              \
	}
	CAP(USER_MEMORY),
	CAP(SET_TSS_ADDR),
	CAP(EXT_CPUID),
	CAP(MP_STATE),
	CAP(IRQFD),
	CAP(IOEVENTFD),
	CAP(IRQ_ROUTING),
	CAP(SIGNAL_MSI),
	CAP(VCPU_EVENTS),
	CAP(DEBUGREGS),
	CAP(XSAVE),
	CAP(ADJUST_CLOCK),
	CAP(GET_TSC_KHZ),
	CAP(TSC_DEADLINE_TIMER),
	CAP(SPLIT_IRQCHIP),
	CAP(X2APIC_API),
	CAP(X86_USER_SPACE_MSR),
	CAP(X86_MSR_FILTER),
	CAP(VCPU_ATTRIBUTES),
#undef CAP
};

static void PRINTF_LIKE(4, 5) probe_refuse(struct engine_probe *p, const char *cause,
					   const char *fix, const char *fmt, ...)
{
	va_list args;

	p->usable = false;
	p->cause = cause;
	snprintf(p->fix, sizeof(p->fix), "%s", fix);
	va_start(args, fmt);
	vsnprintf(p->evidence, sizeof(p->evidence), fmt, args);
	va_end(args);
}

static void
probe_interface(int device, struct engine_probe *p)
{
	int version = kvm_ioctl_value(device, KVM_GET_API_VERSION, 0);

	if (version < 0) {
		probe_refuse(p, "not-kvm", "check what the node /dev/kvm is",
			     "it does not answer as KVM does: %s", strerror(-version));
		return;
	}
	if (version != KVM_API_VERSION) {
		probe_refuse(p, "api", "use a kernel from Linux 5.16 on",
			     "its interface is version %d, not %d", version, KVM_API_VERSION);
		return;
	}
	for (unsigned i = 0; i < ARRAY_LEN(probe_capabilities); i++) {
		if (kvm_ioctl_value(device, KVM_CHECK_EXTENSION, probe_capabilities[i].number) > 0)
			continue;
		probe_refuse(p, "capability", "use a kernel from Linux 5.16 on",
			     "KVM_CAP_%s is missing", probe_capabilities[i].name);
		return;
	}
}

static void
probe_no_vm(struct engine_probe *p, int error)
{
	if (error == -EBUSY)
		probe_refuse(p, "held", "end the VMs of the other hypervisor on this host",
			     "another hypervisor holds the CPU's virtualization");
	else if (error == -ENOMEM)
		probe_refuse(p, "no-memory", "free some memory", "no memory for a VM");
	else
		probe_refuse(p, "unsound", "see the host's kernel log", "KVM_CREATE_VM: %s",
			     strerror(-error));
}

/* What VMs are shown here must be what guests can be given. */
static void
probe_model(int device, struct engine_probe *p)
{
	const char *missing = NULL, *lacks;
	struct cpu_model model;
	int err = cpu_model_compute(&model, "x86-64-v3", 1, &lacks);

	if (err)
		err = cpu_model_compute(&model, "x86-64-v2", 1, &lacks);
	if (!err)
		err = kvm_cpuid_missing(device, &model, &missing);
	if (err)
		probe_refuse(p, "capability", "use another host",
			     "no CPU model can be made here: %s", strerror(-err));
	else if (missing)
		probe_refuse(p, "capability", "use a newer kernel",
			     "guests are not given %s, which this CPU has", missing);
}

static void
probe_speed(struct engine_probe *p)
{
	u64 slower = p->kernel_speed < p->user_speed ? p->kernel_speed : p->user_speed;

	if (slower < PROBE_SLOW)
		probe_refuse(p, "slow",
			     "give this host hardware virtualization (it may be a VM without it)",
			     "%u.%u million instructions a second in %s mode",
			     (unsigned)(slower / 1000000), (unsigned)(slower / 100000 % 10),
			     slower == p->kernel_speed ? "kernel" : "user");
}

void
kvm_probe(int device, struct engine_probe *p)
{
	int vm;

	memset(p, 0, sizeof(*p));
	p->usable = true;
	probe_interface(device, p);
	if (!p->usable)
		return;
	vm = kvm_ioctl_value(device, KVM_CREATE_VM, 0);
	if (vm < 0) {
		probe_no_vm(p, vm);
		return;
	}
	kvm_selftest(device, vm, p);
	close(vm);
	if (p->usable)
		probe_speed(p);
	if (p->usable)
		probe_model(device, p);
}
