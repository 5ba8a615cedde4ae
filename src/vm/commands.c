/*
 * What one can ask of a VM over its control socket: a row each.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vm/protocol.h"
#include "vm/suspend.h"
#include "vm/vm.h"

struct command_call {
	struct vm_client *client;
	const json_t *request;
	json_t *reply;
	char *why;
	size_t why_size;
};

static int
command_configure(struct vm *vm, struct command_call *call)
{
	int rc = vm_config_from_json(&vm->config, json_object_get(call->request, "config"),
				     call->why, call->why_size);

	if (rc == 0)
		vm->phase = VM_CONFIGURED;
	return rc;
}

static int
command_give(struct vm *vm, struct command_call *call)
{
	const char *what = json_string_value(json_object_get(call->request, "what"));
	int fd = channel_take_fd(call->client->channel);

	if (fd < 0 || what == NULL) {
		snprintf(call->why, call->why_size, "give needs a \"what\" and one descriptor");
		if (fd >= 0)
			close(fd);
		return -EINVAL;
	}
	if (vm->phase == VM_BUILT && strcmp(what, "kvm") != 0) {
		snprintf(call->why, call->why_size, "a running VM takes no \"%.32s\"", what);
		close(fd);
		return -EBUSY;
	}
	if (vm->phase == VM_BUILT && vm->resources.kvm >= 0) {
		close(fd); /* it may be in use, and is as good as another */
		return 0;
	}
	return vm_resources_give(&vm->resources, &vm->config, what, fd, call->why, call->why_size);
}

static void
command_note_why(struct vm *vm, const json_t *request)
{
	const char *why = json_string_value(json_object_get(request, "why"));

	snprintf(vm->hypervisor_why, sizeof(vm->hypervisor_why), "%s", why ? why : "as asked for");
}

static int
command_start(struct vm *vm, struct command_call *call)
{
	int rc = vm_resources_check(&vm->resources, &vm->config, call->why, call->why_size);

	if (rc == 0)
		rc = build_machine(vm, call->why, call->why_size);
	vm->held = json_is_true(json_object_get(call->request, "hold"));
	if (rc == 0)
		vm->phase = vm->held ? VM_HELD : VM_BUILT;
	command_note_why(vm, call->request);
	return rc;
}

static const char *
command_status_name(const struct vm *vm)
{
	static const char *const names[] = {
		[MACHINE_CREATED] = "created",
		[MACHINE_RUNNING] = "running",
		[MACHINE_PAUSED] = "paused",
		[MACHINE_ENDED] = "ended",
	};

	return vm->machine ? names[machine_status(vm->machine)] : "configured";
}

static int
command_info(struct vm *vm, struct command_call *call)
{
	const struct vm_config *c = &vm->config;
	json_t *info = json_pack("{s:s, s:s, s:s, s:i, s:I, s:i, s:s}", "name", c->name,
				 "hypervisor", c->hypervisor, "status", command_status_name(vm),
				 "cpus", (int)c->cpus, "memory", (json_int_t)c->memory, "pid",
				 (int)getpid(), "cpu-model", c->cpu_model);

	if (info && vm->machine) {
		json_object_set_new(info, "uptime-ns",
				    json_integer((json_int_t)machine_uptime_ns(vm->machine)));
		json_object_set_new(info, "why", json_string(vm->hypervisor_why));
		json_object_set_new(info, "resets", json_integer(machine_resets(vm->machine)));
		json_object_set_new(info, "switches", json_integer(machine_switches(vm->machine)));
		json_object_set_new(info, "rescues", json_integer(machine_rescues(vm->machine)));
	}
	json_object_update(call->reply, info);
	json_decref(info);
	return 0;
}

static int
command_quit(struct vm *vm, struct command_call *call)
{
	(void)call;
	process_stop(vm);
	return 0;
}

static int
command_power_button(struct vm *vm, struct command_call *call)
{
	(void)call;
	machine_power_button(vm->machine);
	return 0;
}

static int
command_pause(struct vm *vm, struct command_call *call)
{
	(void)call;
	if (suspend_holds(vm))
		vm->was_paused = true; /* as it then is if it is not suspended after all */
	machine_pause(vm->machine);
	return 0;
}

static int
command_resume(struct vm *vm, struct command_call *call)
{
	if (suspend_holds(vm)) {
		snprintf(call->why, call->why_size, "the VM is being suspended; wait until it is");
		return -EBUSY;
	}
	machine_resume(vm->machine);
	return 0;
}

void
command_switched(struct vm *vm, const char *from, const char *to, bool rescued, const char *text)
{
	snprintf(vm->config.hypervisor, sizeof(vm->config.hypervisor), "%s", to);
	snprintf(vm->hypervisor_why, sizeof(vm->hypervisor_why), "%s", text);
	control_event(vm, PROTOCOL_EVENT_SWITCHED,
		      json_pack("{s:s, s:s, s:b, s:s}", "from", from, "to", to, "rescued", rescued,
				"text", text));
}

/* "to" as in a configuration: kvm,force is not tested first. "fresh": another instance even of the
 * one that it runs on. For tests of the way itself. */
static int
command_switch(struct vm *vm, struct command_call *call)
{
	const char *to = json_string_value(json_object_get(call->request, "to"));
	const char *from = machine_engine_name(vm->machine);
	const struct engine_ops *engine = to ? build_engine(to) : NULL;
	struct machine_switch_times times;
	int rc;

	if (!engine) {
		snprintf(call->why, call->why_size,
			 "there is no hypervisor \"%.32s\"; switch to kvm or biga", to ? to : "");
		return -ENOENT;
	}
	if (suspend_holds(vm)) {
		snprintf(call->why, call->why_size, "the VM is being suspended; wait until it is");
		return -EBUSY;
	}
	if (strcmp(from, engine->name) == 0 &&
	    !json_is_true(json_object_get(call->request, "fresh"))) {
		snprintf(call->why, call->why_size, "the VM runs on %s already", to);
		return -EALREADY;
	}
	rc = machine_switch(vm->machine, engine, vm->resources.kvm, strcmp(engine->name, to) != 0,
			    &times, call->why, call->why_size);
	if (rc < 0)
		return rc;
	command_switched(vm, from, engine->name, false, "switched by request");
	json_object_set_new(call->reply, "from", json_string(from));
	json_object_set_new(call->reply, "to", json_string(engine->name));
	json_object_set_new(call->reply, "prepare-ns", json_integer((json_int_t)times.prepare));
	json_object_set_new(call->reply, "pause-ns", json_integer((json_int_t)times.pause));
	return 0;
}

static int
command_suspend(struct vm *vm, struct command_call *call)
{
	(void)vm;
	return suspend_save(call->client, channel_take_fd(call->client->channel), call->reply,
			    call->why, call->why_size);
}

static int
command_suspended(struct vm *vm, struct command_call *call)
{
	(void)vm;
	return suspend_finish(call->client, call->why, call->why_size);
}

static int
command_suspend_undo(struct vm *vm, struct command_call *call)
{
	(void)vm;
	return suspend_undo(call->client, call->why, call->why_size);
}

static int
command_go(struct vm *vm, struct command_call *call)
{
	(void)vm;
	return suspend_go(call->client, call->request, call->why, call->why_size);
}

/* 64 bits do not fit a JSON number of every reader. */
static void
command_add_hex(json_t *object, const char *name, u64 value)
{
	char text[20];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
	json_object_set_new(object, name, json_string(text));
}

static int
command_registers(struct vm *vm, struct command_call *call)
{
	static const char *const gprs[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",	 "r10", "r11", "r12", "r13", "r14", "r15"};
	json_int_t index = json_integer_value(json_object_get(call->request, "vcpu"));
	struct cpu_state state;
	int rc;

	if (index < 0 || index >= (json_int_t)vm->config.cpus) {
		snprintf(call->why, call->why_size,
			 "this VM has no such vcpu; they count from 0 to %u", vm->config.cpus - 1);
		return -EINVAL;
	}
	rc = machine_vcpu_state(vm->machine, (unsigned)index, &state);
	if (rc < 0) {
		snprintf(call->why, call->why_size,
			 "registers can be read only while the VM is paused; pause it");
		return rc;
	}
	for (unsigned i = 0; i < CPU_GPRS; i++)
		command_add_hex(call->reply, gprs[i], state.gpr[i]);
	command_add_hex(call->reply, "rip", state.rip);
	command_add_hex(call->reply, "rflags", state.rflags);
	command_add_hex(call->reply, "cs-base", state.seg[CPU_CS].base);
	command_add_hex(call->reply, "cr0", state.cr0);
	command_add_hex(call->reply, "cr2", state.cr2);
	command_add_hex(call->reply, "cr3", state.cr3);
	command_add_hex(call->reply, "cr4", state.cr4);
	command_add_hex(call->reply, "efer", state.msr.efer);
	return 0;
}

enum {
	IN_NEW = BIT(VM_NEW),
	IN_CONFIGURED = BIT(VM_CONFIGURED),
	IN_HELD = BIT(VM_HELD),
	IN_BUILT = BIT(VM_BUILT)
};

static const struct command {
	const char *name;
	unsigned phases; /* in which it makes sense */
	int (*run)(struct vm *vm, struct command_call *call);
} commands[] = {
	{"configure", IN_NEW, command_configure},
	{"give", IN_CONFIGURED | IN_BUILT, command_give},
	{"start", IN_CONFIGURED, command_start},
	{"info", IN_CONFIGURED | IN_HELD | IN_BUILT, command_info},
	{"quit", IN_NEW | IN_CONFIGURED | IN_HELD | IN_BUILT, command_quit},
	{"power-button", IN_BUILT, command_power_button},
	{"pause", IN_BUILT, command_pause},
	{"resume", IN_BUILT, command_resume},
	{"switch", IN_BUILT, command_switch},
	{"suspend", IN_BUILT, command_suspend},
	{"suspended", IN_BUILT, command_suspended},
	{"suspend-undo", IN_BUILT, command_suspend_undo},
	{"go", IN_HELD | IN_BUILT, command_go},
	{"registers", IN_BUILT, command_registers},
};

int
command_run(struct vm_client *client, const char *name, const json_t *request, json_t *reply,
	    char *why, size_t why_size)
{
	struct command_call call = {client, request, reply, why, why_size};
	struct vm *vm = client->vm;

	for (unsigned i = 0; i < ARRAY_LEN(commands); i++) {
		if (strcmp(commands[i].name, name) != 0)
			continue;
		if (!(commands[i].phases & BIT(vm->phase))) {
			snprintf(why, why_size, "\"%s\" is not possible in this phase of the VM",
				 name);
			return -EBUSY;
		}
		return commands[i].run(vm, &call);
	}
	snprintf(why, why_size, "there is no command \"%.64s\"", name);
	return -ENOENT;
}
