/*
 * From a VM's configuration and descriptors to a machine.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vm/suspend.h"
#include "vm/vm.h"

static const struct engine_ops *const build_engines[] = {&engine_translator, &engine_kvm};

/* NAME may end in ",force". */
const struct engine_ops *
build_engine(const char *name)
{
	size_t len = strcspn(name, ",");

	for (unsigned i = 0; i < ARRAY_LEN(build_engines); i++) {
		if (strncmp(build_engines[i]->name, name, len) == 0 &&
		    build_engines[i]->name[len] == '\0')
			return build_engines[i];
	}
	return NULL;
}

/* CPU_MODEL_HOST begins as the highest named model that this host has. */
static int
build_begin_model(const struct vm *vm, struct cpu_model *model, const char **missing)
{
	int rc;

	if (strcmp(vm->config.cpu_model, CPU_MODEL_HOST) != 0)
		return cpu_model_compute(model, vm->config.cpu_model, vm->config.cpus, missing);
	rc = cpu_model_compute(model, "x86-64-v3", vm->config.cpus, missing);
	if (rc == -ENOTSUP)
		rc = cpu_model_compute(model, "x86-64-v2", vm->config.cpus, missing);
	if (rc == 0)
		strcpy(model->name, CPU_MODEL_HOST);
	return rc;
}

/* The CPU is cut to what the engine can show here. */
static int
build_fit_model(const struct vm *vm, struct cpu_model *model, char *why, size_t why_size)
{
	const struct engine_ops *engine = build_engine(vm->config.hypervisor);
	int rc = 0;

	if (engine && engine->fit_model && vm->resources.kvm >= 0)
		rc = engine->fit_model(vm->resources.kvm, model);
	else if (strcmp(model->name, CPU_MODEL_HOST) == 0)
		rc = -ENOTSUP;
	if (rc == -ENOTSUP)
		snprintf(
			why, why_size,
			"CPU model host is for the hypervisor kvm only; use --cpu-model x86-64-v3");
	else if (rc < 0)
		snprintf(why, why_size, "the CPU model cannot be made: %s", strerror(-rc));
	return rc;
}

int
build_model(const struct vm *vm, struct cpu_model *model, char *why, size_t why_size)
{
	const char *missing = "";
	int rc = build_begin_model(vm, model, &missing);

	if (rc == 0)
		return build_fit_model(vm, model, why, why_size);
	if (rc == -ENOENT)
		snprintf(why, why_size,
			 "there is no CPU model \"%s\"; use x86-64-v2, x86-64-v3 or host",
			 vm->config.cpu_model);
	else if (rc == -ENOTSUP)
		snprintf(why, why_size,
			 "this host's CPU has no %s, which CPU model %s needs; use --cpu-model "
			 "x86-64-v2",
			 missing, vm->config.cpu_model);
	else if (rc < 0)
		snprintf(why, why_size, "the CPU model cannot be made: %s", strerror(-rc));
	return rc;
}

static void
build_streams(const struct vm *vm, struct machine_config *m)
{
	struct machine_stream console = {vm->resources.console, vm->resources.console};
	const struct machine_stream none = {-1, -1};

	m->serial = vm->config.console == VM_CONSOLE_SERIAL ? console : none;
	m->console = vm->config.console == VM_CONSOLE_VIRTIO ? console : none;
	m->virtio_console = true;
}

static void
build_disks(struct vm *vm, struct machine_config *m, char serials[][21])
{
	m->disk_count = vm->config.disk_count;
	for (unsigned i = 0; i < m->disk_count; i++) {
		snprintf(serials[i], sizeof(serials[i]), "disk%u", i);
		m->disks[i] = (struct machine_disk){.fd = vm->resources.disks[i],
						    .readonly = vm->config.disks[i].readonly,
						    .device = MACHINE_DISK_VIRTIO,
						    .engine = BLOCK_AUTO,
						    .serial = serials[i]};
		vm->resources.disks[i] = -1; /* the machine takes it over */
	}
}

static void
build_boot(const struct vm *vm, struct machine_config *m)
{
	m->kernel_fd = vm->resources.kernel;
	m->kernel_name = vm->config.kernel;
	m->initrds = vm->config.initrd_count;
	for (unsigned i = 0; i < m->initrds; i++) {
		m->initrd_fds[i] = vm->resources.initrds[i];
		m->initrd_names[i] = vm->config.initrds[i];
	}
	m->cmdline = vm->config.append;
}

/* Our own hypervisor needs nothing, so it is where a VM goes on if another one fails. */
static void
build_rescued(void *opaque, const char *from, const char *to, const char *why)
{
	char text[VM_WHY];

	snprintf(text, sizeof(text), "rescued: %s failed (%.200s)", from, why);
	command_switched(opaque, from, to, true, text);
}

int
build_machine(struct vm *vm, char *why, size_t why_size)
{
	const struct vm_config *c = &vm->config;
	struct machine_config m = {.memory = c->memory,
				   .vcpus = c->cpus,
				   .code_cache = c->code_cache,
				   .rng = true,
				   .device = vm->resources.kvm,
				   .unchecked = strstr(c->hypervisor, ",force") != NULL,
				   .debug_exit = c->debug_exit,
				   .testdev = c->testdev,
				   .rescue = &engine_translator,
				   .opaque = vm,
				   .rescued = build_rescued};
	char serials[VM_DISKS_MAX][21];
	int rc = vm->resources.state >= 0 ? suspend_take_model(vm, why, why_size)
					  : build_model(vm, &vm->model, why, why_size);

	if (rc < 0)
		return rc;
	m.model = &vm->model;
	m.engine = build_engine(c->hypervisor);
	if (m.engine == NULL) {
		snprintf(why, why_size, "the hypervisor %s is not built yet; use --hypervisor biga",
			 c->hypervisor);
		return -ENOTSUP;
	}
	m.on_reset = c->reboot ? MACHINE_RESET_REBOOTS : MACHINE_RESET_ENDS;
	build_boot(vm, &m);
	build_streams(vm, &m);
	build_disks(vm, &m, serials);
	if (c->net) {
		m.net_count = 1;
		m.nets[0].fd = vm->resources.net;
		vm->resources.net = -1; /* taken over, like the disks */
		memcpy(m.nets[0].mac, c->mac, sizeof(c->mac));
	}
	m.from_state = vm->resources.state >= 0;
	rc = machine_create(&vm->machine, &m, why, why_size);
	if (rc == 0 && m.from_state)
		rc = suspend_load(vm, why, why_size);
	return rc;
}
