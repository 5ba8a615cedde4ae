/*
 * The engine contract (engine/engine.h) over KVM: creation and the table of functions.
 */
#define _GNU_SOURCE
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/tsc.h"

/* Three pages for Intel's CPUs that cannot run real mode by themselves, and one for its page
 * table: in the hole below the firmware. */
enum { KVM_WATCH_SECONDS = 1 };
#define KVM_TSS_GPA 0xfffbd000ull
#define KVM_IDENTITY_GPA 0xfffbc000ull

int
kvm_signal(void)
{
	return SIGRTMIN + 7;
}

int
kvm_ioctl(int fd, unsigned long request, void *argument)
{
	int value;

	do
		value = ioctl(fd, request, argument);
	while (value < 0 && errno == EINTR);
	return value < 0 ? -errno : value;
}

int
kvm_ioctl_value(int fd, unsigned long request, unsigned long value)
{
	return kvm_ioctl(fd, request, (void *)value);
}

static int
kvm_enable(const struct engine *e, u32 cap, u64 arg)
{
	struct kvm_enable_cap enable = {.cap = cap, .args = {arg}};

	return kvm_ioctl(e->vm, KVM_ENABLE_CAP, &enable);
}

/* What KVM does for the sake of old users and no CPU does: LINT0 open after INIT, an absent local
 * APIC that swallows accesses, MONITOR and MWAIT where CPUID has none. */
static int
kvm_disable_quirks(const struct engine *e)
{
	const u64 quirks = KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_LAPIC_MMIO_HOLE |
			   KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS;
	int known = kvm_ioctl_value(e->vm, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2);

	return known > 0 ? kvm_enable(e, KVM_CAP_DISABLE_QUIRKS2, quirks & (u64)known) : 0;
}

static int
kvm_set_up_vm(struct engine *e)
{
	u64 identity = KVM_IDENTITY_GPA;
	int err = kvm_ioctl_value(e->vm, KVM_SET_TSS_ADDR, KVM_TSS_GPA);

	if (err >= 0)
		err = kvm_ioctl(e->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (err >= 0)
		err = kvm_enable(e, KVM_CAP_SPLIT_IRQCHIP, KVM_PINS);
	if (err >= 0)
		err = kvm_enable(e, KVM_CAP_X2APIC_API,
				 KVM_X2APIC_API_USE_32BIT_IDS |
					 KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
	if (err >= 0)
		err = kvm_enable(e, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER);
	if (err >= 0)
		err = kvm_disable_quirks(e);
	if (err >= 0)
		err = kvm_msr_set_filter(e);
	if (err >= 0)
		err = kvm_irq_init(e);
	return err < 0 ? err : 0;
}

static int
kvm_check_model(const struct engine_config *config)
{
	const char *missing = NULL;
	int err = kvm_cpuid_missing(config->device, config->model, &missing);

	if (!err && missing && !config->unchecked) {
		log_error("the CPU model has %s, which this host's kvm does not give to guests",
			  missing);
		err = -ENOTSUP;
	}
	return err;
}

static void
kvm_destroy(struct engine *e)
{
	memory_remove_listener(e->config.memory, kvm_slots_written, e);
	if (e->vm >= 0)
		close(e->vm);
	kvm_slots_destroy(e);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static int
kvm_create(struct engine **out, const struct engine_config *config)
{
	struct engine *e;
	int err, size;

	if (config->vcpus == 0 || config->vcpus > KVM_VCPUS_MAX || config->device < 0)
		return -EINVAL;
	err = kvm_check_model(config);
	if (err)
		return err;
	size = kvm_ioctl_value(config->device, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return size < 0 ? size : -ENOTSUP;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->config = *config;
	e->run_size = (size_t)size;
	e->host_hz = tsc_host_hz();
	pthread_mutex_init(&e->lock, NULL);
	e->vm = err = kvm_ioctl_value(config->device, KVM_CREATE_VM, 0);
	if (err >= 0)
		err = kvm_set_up_vm(e);
	if (err >= 0)
		err = memory_add_listener(config->memory, kvm_slots_written, e);
	if (err < 0) {
		kvm_destroy(e);
		return err;
	}
	*out = e;
	return 0;
}

/* ---- vCPUs ---- */

int
kvm_set_signal_mask(int fd)
{
	union {
		struct kvm_signal_mask mask;
		u8 bytes[sizeof(struct kvm_signal_mask) + 8];
	} argument;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, kvm_signal());
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	sigdelset(&set, kvm_signal());
	argument.mask.len = 8; /* as the kernel's own signal sets */
	memcpy(argument.bytes + sizeof(argument.mask), &set, 8);
	return kvm_ioctl(fd, KVM_SET_SIGNAL_MASK, &argument);
}

/* HLT is the kernel's business, so it does not say that a vCPU has halted for ever. */
static int
kvm_start_watch(struct engine_vcpu *v)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = kvm_signal()};
	const struct itimerspec second = {.it_interval = {.tv_sec = KVM_WATCH_SECONDS},
					  .it_value = {.tv_sec = KVM_WATCH_SECONDS}};

#ifdef sigev_notify_thread_id
	event.sigev_notify_thread_id = v->thread;
#else
	event._sigev_un._tid = v->thread;
#endif
	if (timer_create(CLOCK_MONOTONIC, &event, &v->watch))
		return -errno;
	v->watching = true;
	return timer_settime(v->watch, 0, &second, NULL) ? -errno : 0;
}

static int
kvm_reset_vcpu(struct engine_vcpu *v)
{
	struct cpu_state *reset = aligned_alloc(64, align_up(sizeof(*reset), 64));
	int err;

	if (!reset)
		return -ENOMEM;
	cpu_state_reset(reset, v->index);
	err = kvm_state_set(v, reset);
	free(reset);
	return err;
}

static void
kvm_vcpu_destroy(struct engine_vcpu *v)
{
	pthread_mutex_lock(&v->engine->lock);
	v->engine->vcpus[v->index] = NULL;
	pthread_mutex_unlock(&v->engine->lock);
	if (v->watching)
		timer_delete(v->watch);
	if (v->run)
		munmap(v->run, v->engine->run_size);
	if (v->fd >= 0)
		close(v->fd);
	free(v);
}

static int
kvm_set_up_vcpu(struct engine_vcpu *v)
{
	u64 khz = (v->engine->config.model->tsc_hz + 500) / 1000;
	void *run = mmap(NULL, v->engine->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	int err;

	if (run == MAP_FAILED)
		return -errno;
	v->run = run;
	err = kvm_set_signal_mask(v->fd);
	if (!err)
		err = kvm_cpuid_set(v);
	if (!err)
		err = kvm_ioctl_value(v->fd, KVM_SET_TSC_KHZ, khz);
	if (!err)
		err = kvm_reset_vcpu(v);
	if (!err)
		err = kvm_start_watch(v);
	return err;
}

static int
kvm_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **out)
{
	struct engine_vcpu *v;
	int err;

	if (index >= e->config.vcpus)
		return -EINVAL;
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->engine = e;
	v->index = index;
	v->thread = (pid_t)syscall(SYS_gettid);
	v->fd = err = kvm_ioctl_value(e->vm, KVM_CREATE_VCPU, index);
	if (err >= 0)
		err = kvm_set_up_vcpu(v);
	if (err < 0) {
		kvm_vcpu_destroy(v);
		return err;
	}
	pthread_mutex_lock(&e->lock);
	e->vcpus[index] = v;
	pthread_mutex_unlock(&e->lock);
	*out = v;
	return 0;
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.probe = kvm_probe,
	.fit_model = kvm_model_fit,
	.create = kvm_create,
	.destroy = kvm_destroy,
	.map = kvm_slots_map,
	.unmap = kvm_slots_unmap,
	.take_dirty = kvm_slots_take_dirty,
	.send_msi = kvm_irq_send_msi,
	.set_extint = kvm_run_set_extint,
	.vcpu_create = kvm_vcpu_create,
	.vcpu_destroy = kvm_vcpu_destroy,
	.run = kvm_run_vcpu,
	.kick = kvm_run_kick,
	.get_state = kvm_state_get,
	.set_state = kvm_state_set,
	.bind_notify = kvm_irq_bind_notify,
	.unbind_notify = kvm_irq_unbind_notify,
	.bind_irq = kvm_irq_bind,
	.unbind_irq = kvm_irq_unbind,
	.set_ioapic_routes = kvm_irq_set_ioapic_routes,
};
