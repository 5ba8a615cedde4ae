/*
 * A machine's life: creation, start, pause, reset and end.
 *
 * What a guest or another thread asks for (end, reset, power button) is only
 * noted where it happens, together with an order to the vCPUs to park; the loop's
 * thread is woken by an eventfd and does it.
 *
 * Lock order: the machine's lock, then the vCPU threads'. The lock is an
 * error-checking mutex, so that functions which callbacks and others may call know
 * whether they hold it already.
 */
#define _GNU_SOURCE
#include "machine/machine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "boot/boot.h"
#include "cpu/cpu_saved.h"
#include "machine/hypervisor.h"
#include "machine/pc.h"
#include "machine/save.h"

/* Disks have this long to end what they were asked for. */
#define MACHINE_SETTLE_NS 30000000000ull

enum machine_request { REQUEST_STOP = BIT(0), REQUEST_BUTTON = BIT(1), REQUEST_WAKE = BIT(2) };

struct machine {
	struct machine_config config; /* strings and model are ours */
	struct cpu_model model;
	char *cmdline, *kernel_name, *initrd_names[MACHINE_INITRDS_MAX];
	pthread_mutex_t lock; /* [m] */
	struct memory *memory;
	struct loop *loop;
	struct hypervisor *hypervisor;
	struct pc *pc;
	int event_fd;
	struct loop_fd *event_watch;
	u32 requests;		    /* [a] enum machine_request */
	enum machine_status status; /* [m] */
	bool reset_wanted;	    /* [m] */
	bool reset_orderly;	    /* [m] the guest had its interrupts shut down */
	bool ended;		    /* [m] END holds the reason */
	struct machine_end end;	    /* [m] */
	bool rescue_wanted;	    /* [m] a vCPU failed, and another hypervisor can go on */
	struct machine_end failure; /* [m] how the VM ends if none can */
	char rescue_why[sizeof(((struct engine_exit *)NULL)->failed.why)]; /* [m] */
	u64 started_ns;
	unsigned resets, switches, rescues;
};

static struct vcpus *
machine_vcpus(const struct machine *machine)
{
	return machine->hypervisor ? hypervisor_vcpus(machine->hypervisor) : NULL;
}

/* ---- asking the loop's thread ---- */

static void
machine_request(struct machine *machine, u32 request)
{
	u64 one = 1;
	ssize_t n;

	__atomic_or_fetch(&machine->requests, request, __ATOMIC_RELEASE);
	do
		n = write(machine->event_fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
}

/* With the lock: the VM ends for this reason, unless it already has one. */
static void PRINTF_LIKE(4, 5) machine_end(struct machine *machine, enum machine_end_kind kind,
					  u32 value, const char *fmt, ...)
{
	va_list args;

	if (machine->ended)
		return;
	machine->ended = true;
	machine->end.kind = kind;
	machine->end.value = value;
	va_start(args, fmt);
	vsnprintf(machine->end.text, sizeof(machine->end.text), fmt, args);
	va_end(args);
	if (machine_vcpus(machine))
		vcpus_ask_park(machine_vcpus(machine));
	machine_request(machine, REQUEST_WAKE);
}

/* ---- what devices ask for; with the lock ---- */

static void
machine_power_off(void *opaque)
{
	machine_end(opaque, MACHINE_POWERED_OFF, 0, "the guest powered off");
}

static void
machine_debug_exit(void *opaque, u32 value)
{
	machine_end(opaque, MACHINE_DEBUG_EXIT, value, "the guest ended with value %#x", value);
}

static void
machine_reset(void *opaque)
{
	struct machine *machine = opaque;

	if (machine->reset_wanted || machine->ended)
		return;
	machine->reset_wanted = true;
	machine->reset_orderly = pc_quiet(machine->pc);
	if (machine_vcpus(machine))
		vcpus_ask_park(machine_vcpus(machine));
	machine_request(machine, REQUEST_WAKE);
}

static void
machine_send_msi(void *opaque, u64 address, u32 data)
{
	struct machine *machine = opaque;

	hypervisor_send_msi(machine->hypervisor, address, data);
}

static int
machine_bind_notify(void *opaque, u64 gpa, unsigned size, int eventfd)
{
	struct machine *machine = opaque;

	return hypervisor_bind_notify(machine->hypervisor, gpa, size, eventfd);
}

static void
machine_unbind_notify(void *opaque, u64 gpa, unsigned size, int eventfd)
{
	struct machine *machine = opaque;

	hypervisor_unbind_notify(machine->hypervisor, gpa, size, eventfd);
}

/* ---- what vCPUs report ---- */

static void
machine_eoi(void *opaque, u8 vector)
{
	struct machine *machine = opaque;

	pc_eoi(machine->pc, vector);
}

static int
machine_extint_vector(void *opaque)
{
	struct machine *machine = opaque;
	int vector;

	pthread_mutex_lock(&machine->lock);
	vector = pc_acknowledge(machine->pc);
	pthread_mutex_unlock(&machine->lock);
	return vector;
}

static void
machine_describe_state(const struct cpu_state *s, char *text, size_t size)
{
	static const char names[CPU_GPRS][4] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP",
						"RSI", "RDI", "R8 ", "R9 ", "R10", "R11",
						"R12", "R13", "R14", "R15"};
	size_t n = 0;

	for (unsigned i = 0; i < CPU_GPRS && n < size; i++)
		n += (size_t)snprintf(text + n, size - n, "%s%s %016llx", i % 4 ? "  " : "\n",
				      names[i], (unsigned long long)s->gpr[i]);
	if (n < size)
		snprintf(text + n, size - n,
			 "\nRIP %016llx  RFLAGS %08llx  CS %04x:%llx  SS %04x:%llx"
			 "\nCR0 %08llx  CR2 %016llx  CR3 %016llx  CR4 %08llx  EFER %llx"
			 "\nIDT %016llx+%x  GDT %016llx+%x",
			 (unsigned long long)s->rip, (unsigned long long)s->rflags,
			 s->seg[CPU_CS].selector, (unsigned long long)s->seg[CPU_CS].base,
			 s->seg[CPU_SS].selector, (unsigned long long)s->seg[CPU_SS].base,
			 (unsigned long long)s->cr0, (unsigned long long)s->cr2,
			 (unsigned long long)s->cr3, (unsigned long long)s->cr4,
			 (unsigned long long)s->msr.efer, (unsigned long long)s->idt.base,
			 s->idt.limit, (unsigned long long)s->gdt.base, s->gdt.limit);
}

/* With the lock: another hypervisor may go on from here. */
static bool
machine_can_rescue(const struct machine *machine, const struct engine_exit *exit)
{
	const struct engine_ops *rescue = machine->config.rescue;

	return exit->kind == EXIT_FAILED && exit->failed.sound && rescue &&
	       rescue != hypervisor_ops(machine->hypervisor);
}

static void
machine_ask_rescue(struct machine *machine, const char *why, const struct machine_end *failure)
{
	if (machine->rescue_wanted || machine->ended)
		return; /* the first reason is said */
	machine->rescue_wanted = true;
	machine->failure = *failure;
	snprintf(machine->rescue_why, sizeof(machine->rescue_why), "%s", why);
	vcpus_ask_park(machine_vcpus(machine));
	machine_request(machine, REQUEST_WAKE);
}

static void
machine_vcpu_failed(void *opaque, unsigned index, const struct engine_exit *exit,
		    const struct cpu_state *state)
{
	struct machine *machine = opaque;
	struct machine_end end = {.kind = MACHINE_ENGINE_FAILED};
	char registers[MACHINE_TEXT - 256] = "";

	if (state)
		machine_describe_state(state, registers, sizeof(registers));
	if (exit->kind == EXIT_SHUTDOWN) {
		end.kind = MACHINE_GUEST_FAILED;
		snprintf(end.text, sizeof(end.text),
			 "the guest failed: triple fault on processor %u%s", index, registers);
	} else {
		snprintf(end.text, sizeof(end.text),
			 "the hypervisor failed on processor %u: %.*s%s", index,
			 (int)sizeof(exit->failed.why), exit->failed.why, registers);
	}
	pthread_mutex_lock(&machine->lock);
	if (machine_can_rescue(machine, exit))
		machine_ask_rescue(machine, exit->failed.why, &end);
	else
		machine_end(machine, end.kind, 0, "%s", end.text);
	pthread_mutex_unlock(&machine->lock);
}

static void
machine_vcpus_halted(void *opaque)
{
	struct machine *machine = opaque;

	pthread_mutex_lock(&machine->lock);
	machine_end(machine, MACHINE_GUEST_FAILED, 0,
		    "the guest halted all its processors with interrupts off");
	pthread_mutex_unlock(&machine->lock);
}

/* ---- boot ---- */

static int
machine_fail(int err, const char *what, char *why, size_t why_size)
{
	if (err)
		snprintf(why, why_size, "%s: %s", what, strerror(-err));
	return err;
}

static int
machine_load_kernel(struct machine *machine, u64 rsdp, struct cpu_state *bsp, char *why,
		    size_t why_size)
{
	const struct machine_config *c = &machine->config;
	struct boot_file initrds[MACHINE_INITRDS_MAX];
	struct boot_config boot = {
		.kernel = {.fd = c->kernel_fd, .name = machine->kernel_name},
		.initrds = initrds,
		.initrd_count = c->initrds,
		.cmdline = machine->cmdline,
		.rsdp = rsdp,
		.phys_bits = machine->model.phys_bits,
	};

	for (unsigned i = 0; i < c->initrds; i++)
		initrds[i] = (struct boot_file){.fd = c->initrd_fds[i],
						.name = machine->initrd_names[i]};
	return boot_load(machine->memory, &boot, bsp, why, why_size);
}

/* The other processors wait for the first, with memory types as firmware gives them to all. */
static int
machine_set_cpus(struct machine *machine, struct cpu_state *bsp)
{
	struct cpu_state state;
	int err = vcpus_set_state(machine_vcpus(machine), 0, bsp);

	for (unsigned i = 1; i < machine->config.vcpus && !err; i++) {
		cpu_state_reset(&state, i);
		state.msr.mtrr_def_type = bsp->msr.mtrr_def_type;
		memcpy(state.msr.mtrr_fixed, bsp->msr.mtrr_fixed, sizeof(state.msr.mtrr_fixed));
		memcpy(state.msr.mtrr_base, bsp->msr.mtrr_base, sizeof(state.msr.mtrr_base));
		memcpy(state.msr.mtrr_mask, bsp->msr.mtrr_mask, sizeof(state.msr.mtrr_mask));
		err = vcpus_set_state(machine_vcpus(machine), i, &state);
	}
	return err;
}

/* Power-on of everything, vCPUs parked: devices, tables, kernel, processors. */
static int
machine_boot(struct machine *machine, char *why, size_t why_size)
{
	struct cpu_state bsp;
	u64 rsdp = pc_power_on(machine->pc);
	int err;

	if (machine->config.from_state && machine->status == MACHINE_CREATED)
		return 0;
	err = machine_load_kernel(machine, rsdp, &bsp, why, why_size);
	if (err)
		return err;
	return machine_fail(machine_set_cpus(machine, &bsp),
			    "the processors do not take their first state", why, why_size);
}

/* ---- the loop's thread ---- */

/* Releases the lock if it is held, and tells so. */
static bool
machine_unlock(struct machine *machine)
{
	return pthread_mutex_unlock(&machine->lock) == 0;
}

static void
machine_relock(struct machine *machine, bool held)
{
	if (held)
		pthread_mutex_lock(&machine->lock);
}

/* vCPUs may need the lock to get to where they can park. */
static void
machine_park(struct machine *machine)
{
	bool held = machine_unlock(machine);

	vcpus_park(machine_vcpus(machine));
	machine_relock(machine, held);
}

static void
machine_do_reset(struct machine *machine)
{
	char why[256] = "";

	machine_park(machine);
	machine->reset_wanted = false;
	if (machine->ended)
		return;
	if (machine->config.on_reset == MACHINE_RESET_ENDS) {
		machine_end(machine, MACHINE_RESET, 0, "the guest asked for a reset%s",
			    machine->reset_orderly
				    ? ""
				    : " in the middle of its work, as after a panic");
		return;
	}
	if (!machine->reset_orderly) {
		machine_end(machine, MACHINE_GUEST_FAILED, 0,
			    "the guest reset itself in the middle of its work, as after a panic");
		return;
	}
	machine->resets++;
	if (machine_boot(machine, why, sizeof(why)))
		machine_end(machine, MACHINE_ENGINE_FAILED, 0,
			    "the guest cannot be started again: %s", why);
	else if (machine->status == MACHINE_RUNNING)
		vcpus_resume(machine_vcpus(machine));
}

/* ---- another hypervisor ---- */

/* With the lock, vCPUs parked: lets them go on if they may. */
static void
machine_go_on(struct machine *machine)
{
	if (machine->status == MACHINE_RUNNING && !machine->ended && !machine->reset_wanted &&
	    !machine->rescue_wanted)
		vcpus_resume(machine_vcpus(machine));
}

/* The other one is there: parks, moves, goes on here or there. */
static int
machine_move(struct machine *machine, u64 *pause_ns)
{
	u64 start = loop_now();
	int err;

	vcpus_park(machine_vcpus(machine));
	pthread_mutex_lock(&machine->lock);
	err = machine->ended ? -ESHUTDOWN : hypervisor_take_over(machine->hypervisor);
	if (!err)
		machine->rescue_wanted = false; /* whatever failed was the old one */
	machine_go_on(machine);
	pthread_mutex_unlock(&machine->lock);
	*pause_ns = loop_now() - start;
	return err;
}

static const char *
machine_move_error(int err)
{
	switch (err) {
	case -ESHUTDOWN:
		return "it has just ended";
	case -EINVAL:
		return "its processors are in a state that the other hypervisor does not take";
	default:
		return strerror(-err);
	}
}

/* Without the lock, while the guest runs. */
static int
machine_prepare(struct machine *machine, const struct engine_ops *engine, int device, bool force,
		char *why, size_t why_size)
{
	struct engine_probe probe = {.usable = force};
	int err;

	if (!force)
		engine->probe(device, &probe);
	if (!probe.usable) {
		snprintf(why, why_size, "the hypervisor %s cannot run here: %s (%.100s); %.140s",
			 engine->name, probe.cause ? probe.cause : "unknown cause", probe.evidence,
			 probe.fix);
		return -ENOTSUP;
	}
	err = hypervisor_prepare(machine->hypervisor, engine, device, force);
	if (err)
		snprintf(why, why_size,
			 "the hypervisor %s does not start: %s; the VM goes on as it was",
			 engine->name, strerror(-err));
	return err;
}

static bool
machine_pinned(const struct machine *machine)
{
	return strcmp(machine->model.name, CPU_MODEL_HOST) == 0;
}

int
machine_switch(struct machine *machine, const struct engine_ops *engine, int device, bool force,
	       struct machine_switch_times *times, char *why, size_t why_size)
{
	bool held;
	u64 start = loop_now();
	int err;

	if (machine->status != MACHINE_RUNNING && machine->status != MACHINE_PAUSED) {
		snprintf(why, why_size, "the VM does not run; start it");
		return -ESHUTDOWN;
	}
	if (machine_pinned(machine) && engine != hypervisor_ops(machine->hypervisor)) {
		snprintf(why, why_size,
			 "the VM stays on the hypervisor %s, since its CPU model is host; start it "
			 "with --cpu-model x86-64-v3 to switch it",
			 machine_engine_name(machine));
		return -ENOTSUP;
	}
	held = machine_unlock(machine);
	err = machine_prepare(machine, engine, device, force, why, why_size);
	times->prepare = loop_now() - start;
	if (!err) {
		err = machine_move(machine, &times->pause);
		hypervisor_dismiss(machine->hypervisor);
		if (err)
			snprintf(
				why, why_size,
				"the VM cannot move to the hypervisor %s: %s; it goes on as it was",
				engine->name, machine_move_error(err));
	}
	machine_relock(machine, held);
	if (!err)
		machine->switches++;
	return err;
}

/* A vCPU failed: the VM goes on elsewhere, or ends as it would have. */
static void
machine_do_rescue(struct machine *machine)
{
	const char *from = hypervisor_ops(machine->hypervisor)->name;
	const struct engine_ops *rescue = machine->config.rescue;
	struct machine_switch_times times;
	char why[256];

	if (machine->ended)
		return;
	if (machine_switch(machine, rescue, -1, false, &times, why, sizeof(why))) {
		machine_end(machine, machine->failure.kind, 0, "%s", machine->failure.text);
		return;
	}
	machine->switches--;
	machine->rescues++;
	log_warning("the hypervisor %s failed (%s): the VM goes on with %s", from,
		    machine->rescue_why, rescue->name);
	if (machine->config.rescued)
		machine->config.rescued(machine->config.opaque, from, rescue->name,
					machine->rescue_why);
}

static void
machine_on_event(void *opaque, int events)
{
	struct machine *machine = opaque;
	u32 requests;
	u64 count;

	(void)events;
	while (read(machine->event_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
	requests = __atomic_exchange_n(&machine->requests, 0, __ATOMIC_ACQ_REL);
	if (requests & REQUEST_STOP)
		machine_end(machine, MACHINE_STOPPED, 0, "the VM was stopped");
	if ((requests & REQUEST_BUTTON) && !machine->ended)
		pc_power_button(machine->pc);
	if (machine->rescue_wanted)
		machine_do_rescue(machine);
	if (machine->reset_wanted)
		machine_do_reset(machine);
	if (machine->ended)
		loop_stop(machine->loop);
}

/* ---- creation ---- */

static char *
machine_copy_text(const char *text, const char *otherwise, int *err)
{
	char *copy = strdup(text ? text : otherwise);

	if (!copy)
		*err = -ENOMEM;
	return copy;
}

static int
machine_copy_config(struct machine *machine, const struct machine_config *config)
{
	int err = 0;

	machine->config = *config;
	machine->model = *config->model;
	machine->config.model = &machine->model;
	machine->cmdline = machine_copy_text(config->cmdline, "", &err);
	machine->kernel_name = machine_copy_text(config->kernel_name, "file", &err);
	for (unsigned i = 0; i < config->initrds && i < MACHINE_INITRDS_MAX; i++)
		machine->initrd_names[i] =
			machine_copy_text(config->initrd_names[i], "initrd", &err);
	return err;
}

static int
machine_check(const struct machine_config *c, char *why, size_t why_size)
{
	if (!c->vcpus || c->vcpus > MACHINE_VCPUS_MAX)
		snprintf(why, why_size, "%u processors are not possible; give 1 to %u", c->vcpus,
			 MACHINE_VCPUS_MAX);
	else if (c->memory < MACHINE_MEMORY_MIN || c->memory > MACHINE_MEMORY_MAX ||
		 c->memory % (1u << 20))
		snprintf(why, why_size, "%llu bytes of memory are not possible; give 2M to 256G",
			 (unsigned long long)c->memory);
	else if (c->initrds > MACHINE_INITRDS_MAX || c->disk_count > MACHINE_DISKS_MAX ||
		 c->net_count > MACHINE_NETS_MAX)
		snprintf(why, why_size, "too many initrds, disks or networks");
	else
		return 0;
	return -EINVAL;
}

static int
machine_init_lock(struct machine *machine)
{
	pthread_mutexattr_t attr;
	int err;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	err = pthread_mutex_init(&machine->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	return -err;
}

static int
machine_create_hypervisor(struct machine *machine)
{
	struct hypervisor_config config = {
		.ops = machine->config.engine,
		.device = machine->config.device,
		.unchecked = machine->config.unchecked,
		.memory = machine->memory,
		.model = &machine->model,
		.vcpus = machine->config.vcpus,
		.code_cache = machine->config.code_cache,
		.lock = &machine->lock,
		.opaque = machine,
		.extint_vector = machine_extint_vector,
		.eoi = machine_eoi,
		.failed = machine_vcpu_failed,
		.halted = machine_vcpus_halted,
	};

	return hypervisor_create(&machine->hypervisor, &config);
}

static int
machine_create_loop(struct machine *machine)
{
	int err = loop_create(&machine->loop, &machine->lock);

	if (err)
		return err;
	machine->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (machine->event_fd < 0)
		return -errno;
	return loop_add_fd(machine->loop, machine->event_fd, LOOP_READ, machine_on_event, machine,
			   &machine->event_watch);
}

static int
machine_create_pc(struct machine *machine, char *why, size_t why_size)
{
	struct device_host host = {
		.memory = machine->memory,
		.loop = machine->loop,
		.msi = {machine_send_msi, machine},
		.opaque = machine,
		.power_off = machine_power_off,
		.reset = machine_reset,
		.debug_exit = machine_debug_exit,
		.bind_notify = machine_bind_notify,
		.unbind_notify = machine_unbind_notify,
	};
	struct pc_config config = {
		.machine = &machine->config,
		.host = &host,
		.hypervisor = machine->hypervisor,
		.phys_bits = machine->model.phys_bits,
	};

	return pc_create(&machine->pc, &config, why, why_size);
}

static int
machine_build(struct machine *machine, char *why, size_t why_size)
{
	int err;

	err = machine_fail(memory_create(&machine->memory, machine->config.memory),
			   "the guest's memory cannot be had; give it less", why, why_size);
	if (!err)
		err = machine_fail(machine_create_loop(machine), "no event loop", why, why_size);
	if (!err)
		err = machine_fail(machine_create_hypervisor(machine),
				   "the hypervisor does not start", why, why_size);
	if (!err)
		err = machine_create_pc(machine, why, why_size);
	if (!err)
		err = machine_boot(machine, why, why_size);
	return err;
}

static void
machine_close_taken(struct machine_config *config)
{
	for (unsigned i = 0; i < config->disk_count && i < MACHINE_DISKS_MAX; i++)
		if (config->disks[i].fd >= 0)
			close(config->disks[i].fd);
	for (unsigned i = 0; i < config->net_count && i < MACHINE_NETS_MAX; i++)
		if (config->nets[i].fd >= 0)
			close(config->nets[i].fd);
}

int
machine_create(struct machine **out, const struct machine_config *config, char *why,
	       size_t why_size)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	struct machine_config taken = *config;
	int err = -ENOMEM;

	if (!machine) {
		snprintf(why, why_size, "out of memory");
		machine_close_taken(&taken);
		return err;
	}
	machine->event_fd = -1;
	err = machine_fail(machine_init_lock(machine), "no lock", why, why_size);
	if (err) {
		machine_close_taken(&taken);
		free(machine);
		return err;
	}
	err = machine_fail(machine_copy_config(machine, config), "no memory", why, why_size);
	if (!err)
		err = machine_check(&machine->config, why, why_size);
	if (!err)
		err = machine_build(machine, why, why_size);
	if (err) {
		machine_destroy(machine);
		return err;
	}
	*out = machine;
	return 0;
}

void
machine_destroy(struct machine *machine)
{
	if (!machine)
		return;
	/* Devices may still signal processors while they go. */
	if (machine_vcpus(machine))
		vcpus_park(machine_vcpus(machine));
	pc_destroy(machine->pc);
	hypervisor_destroy(machine->hypervisor);
	if (machine->event_watch)
		loop_remove_fd(machine->event_watch);
	loop_destroy(machine->loop);
	memory_destroy(machine->memory);
	if (machine->event_fd >= 0)
		close(machine->event_fd);
	machine_close_taken(&machine->config);
	pthread_mutex_destroy(&machine->lock);
	for (unsigned i = 0; i < MACHINE_INITRDS_MAX; i++)
		free(machine->initrd_names[i]);
	free(machine->kernel_name);
	free(machine->cmdline);
	free(machine);
}

/* ---- running ---- */

int
machine_start(struct machine *machine)
{
	if (machine->status != MACHINE_CREATED)
		return -EALREADY;
	if (machine->config.from_state)
		return -EINVAL;
	machine->status = MACHINE_RUNNING;
	machine->started_ns = loop_now();
	vcpus_resume(machine_vcpus(machine));
	return 0;
}

void
machine_run(struct machine *machine, struct machine_end *end)
{
	loop_run(machine->loop); /* an end that came before it began has left its event */
	vcpus_park(machine_vcpus(machine));
	pthread_mutex_lock(&machine->lock);
	pc_flush(machine->pc);
	machine->status = MACHINE_ENDED;
	if (!machine->ended)
		machine_end(machine, MACHINE_STOPPED, 0, "the VM was stopped");
	*end = machine->end;
	pthread_mutex_unlock(&machine->lock);
}

void
machine_pause(struct machine *machine)
{
	if (machine->status != MACHINE_RUNNING)
		return;
	machine->status = MACHINE_PAUSED;
	machine_park(machine);
}

void
machine_resume(struct machine *machine)
{
	if (machine->status != MACHINE_PAUSED)
		return;
	machine->status = MACHINE_RUNNING;
	machine_go_on(machine);
}

void
machine_stop(struct machine *machine)
{
	machine_request(machine, REQUEST_STOP);
}

void
machine_power_button(struct machine *machine)
{
	machine_request(machine, REQUEST_BUTTON);
}

enum machine_status
machine_status(const struct machine *machine)
{
	return machine->status;
}

const char *
machine_engine_name(const struct machine *machine)
{
	return hypervisor_ops(machine->hypervisor)->name;
}

u64
machine_uptime_ns(const struct machine *machine)
{
	return machine->started_ns ? loop_now() - machine->started_ns : 0;
}

unsigned
machine_resets(const struct machine *machine)
{
	return machine->resets;
}

unsigned
machine_switches(const struct machine *machine)
{
	return machine->switches;
}

unsigned
machine_rescues(const struct machine *machine)
{
	return machine->rescues;
}

struct loop *
machine_loop(struct machine *machine)
{
	return machine->loop;
}

struct memory *
machine_memory(struct machine *machine)
{
	return machine->memory;
}

int
machine_vcpu_state(struct machine *machine, unsigned index, struct cpu_state *state)
{
	if (machine->status != MACHINE_PAUSED)
		return -EBUSY;
	return vcpus_get_state(machine_vcpus(machine), index, state);
}

/* ---- saved state ---- */

static struct save_machine
machine_parts(struct machine *machine)
{
	return (struct save_machine){.memory = machine->memory,
				     .pc = machine->pc,
				     .vcpus = machine_vcpus(machine),
				     .vcpu_count = machine->config.vcpus,
				     .model = &machine->model,
				     .resets = &machine->resets};
}

/* With the lock. What is due is done first: no timer is lost between two processes. */
static int
machine_save_locked(struct machine *machine, const struct state_io *io, const char *note, char *why,
		    size_t why_size)
{
	struct save_machine parts = machine_parts(machine);
	u64 now = loop_now();
	int err = pc_settle(machine->pc, now + MACHINE_SETTLE_NS, why, why_size);

	if (err)
		return err;
	now = loop_now();
	loop_expire(machine->loop, now);
	if (machine->ended || machine->reset_wanted) {
		snprintf(why, why_size, "the VM is about to end, or to start again; try once more");
		return -EBUSY;
	}
	return save_write(&parts, io, note, now, why, why_size);
}

int
machine_save(struct machine *machine, const struct state_io *io, const char *note, char *why,
	     size_t why_size)
{
	/* -EDEADLK: a callback's caller holds the lock for us. */
	bool held = pthread_mutex_lock(&machine->lock) == EDEADLK;
	int err = -EBUSY;

	if (machine->status == MACHINE_PAUSED ||
	    (machine->status == MACHINE_CREATED && !machine->config.from_state))
		err = machine_save_locked(machine, io, note, why, why_size);
	else
		snprintf(why, why_size, "the VM is not paused");
	if (!held)
		pthread_mutex_unlock(&machine->lock);
	return err;
}

int
machine_load(struct machine *machine, const struct state_io *io, char *why, size_t why_size)
{
	struct save_machine parts = machine_parts(machine);
	int err;

	if (machine->status != MACHINE_CREATED || !machine->config.from_state) {
		snprintf(why, why_size, "the machine has a state already");
		return -EALREADY;
	}
	pthread_mutex_lock(&machine->lock);
	err = save_read(&parts, io, loop_now(), why, why_size);
	if (!err && !machine->config.same_generation)
		err = machine_fail(pc_new_generation(machine->pc), "no random numbers", why,
				   why_size);
	machine->config.from_state = err != 0;
	pthread_mutex_unlock(&machine->lock);
	return err;
}

void
machine_retire(struct machine *machine)
{
	bool held = pthread_mutex_lock(&machine->lock) == EDEADLK;

	machine_end(machine, MACHINE_SUSPENDED, 0, "the VM was suspended");
	if (!held)
		pthread_mutex_unlock(&machine->lock);
}

int
machine_peek(const struct state_io *io, char **note, struct cpu_model *model, u64 *ram_size,
	     char *why, size_t why_size)
{
	return save_peek(io, note, model, ram_size, why, why_size);
}

int
machine_model_fits(const struct cpu_model *model, unsigned vcpus, char *why, size_t why_size)
{
	const char *missing = "";
	struct cpu_model host;
	int err = cpu_model_compute(&host, model->name, vcpus, &missing);

	if (err == -ENOTSUP)
		snprintf(why, why_size,
			 "this host's CPU has no %s, which CPU model %s of the saved VM needs; use "
			 "a "
			 "host that has",
			 missing, model->name);
	else if (err)
		snprintf(why, why_size, "the state's CPU model %s is not known here", model->name);
	return err ? err : cpu_saved_fits(model, &host, why, why_size);
}
