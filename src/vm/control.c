/*
 * The control connection of a VM process (see protocol.h). It belongs to
 * whoever started the VM: when it is lost or breaks the rules, the VM ends.
 */
#include <errno.h>

#include "base/log.h"
#include "vm/protocol.h"
#include "vm/vm.h"

static void
control_close(struct vm *vm)
{
	vm->closing = true;
	if (vm->watch) {
		loop_remove_fd(vm->watch);
		vm->watch = NULL;
	}
	if (vm->machine)
		process_stop(vm);
}

static void
control_send(struct vm *vm, json_t *message)
{
	if (vm->closing) {
		json_decref(message);
		return;
	}
	if (channel_send(vm->channel, message, NULL, 0) < 0) {
		control_close(vm);
		return;
	}
	if (vm->watch)
		loop_set_events(vm->watch,
				LOOP_READ | (channel_pending(vm->channel) ? LOOP_WRITE : 0));
}

void
control_hello(struct vm *vm)
{
	control_send(vm,
		     json_pack("{s:s, s:i}", "hello", PROTOCOL_NAME, "version", PROTOCOL_VERSION));
}

void
control_event(struct vm *vm, const char *name, json_t *extra)
{
	json_t *event = json_pack("{s:s}", "event", name);

	if (event && extra)
		json_object_update(event, extra);
	json_decref(extra);
	control_send(vm, event);
}

static void
control_refuse(struct vm *vm, const json_t *id, const char *why)
{
	json_t *reply = json_pack("{s:b, s:s}", "ok", 0, "error", why);

	if (reply && id)
		json_object_set(reply, "id", (json_t *)(uintptr_t)id);
	control_send(vm, reply);
}

static void
control_greeting(struct vm *vm, const json_t *message)
{
	const char *hello = json_string_value(json_object_get(message, "hello"));
	json_int_t version = json_integer_value(json_object_get(message, "version"));

	if (hello && version == PROTOCOL_VERSION) {
		vm->greeted = true;
		return;
	}
	control_refuse(vm, NULL,
		       "the first message must be a hello of protocol version 1; use programs of "
		       "one version");
	control_close(vm);
}

void
control_message(struct vm *vm, const json_t *message)
{
	const json_t *id = json_object_get(message, "id");
	const char *name = json_string_value(json_object_get(message, "do"));
	char why[VM_WHY] = "";
	json_t *reply;
	int rc;

	if (!vm->greeted) {
		control_greeting(vm, message);
		return;
	}
	if (name == NULL) {
		control_refuse(vm, id, "a request needs a \"do\" that names a command");
		return;
	}
	reply = json_object();
	rc = command_run(vm, name, message, reply, why, sizeof(why));
	if (rc < 0) {
		json_decref(reply);
		control_refuse(vm, id, why);
		return;
	}
	json_object_set_new(reply, "ok", json_true());
	if (id)
		json_object_set(reply, "id", (json_t *)(uintptr_t)id);
	control_send(vm, reply);
}

static void
control_ready(void *opaque, int events)
{
	struct vm *vm = opaque;
	json_t *message;
	int rc = 0;

	if ((events & LOOP_WRITE) && channel_flush(vm->channel) < 0) {
		control_close(vm);
		return;
	}
	while (!vm->closing && (rc = channel_receive(vm->channel, &message)) > 0) {
		control_message(vm, message);
		json_decref(message);
	}
	if (rc < 0) {
		if (rc != -EPIPE)
			log_error("the control connection broke the protocol; the VM ends");
		control_close(vm);
	}
	if (vm->watch)
		loop_set_events(vm->watch,
				LOOP_READ | (channel_pending(vm->channel) ? LOOP_WRITE : 0));
}

static void
control_first_look(void *opaque)
{
	control_ready(opaque, LOOP_READ);
}

int
control_attach(struct vm *vm)
{
	struct loop *loop = machine_loop(vm->machine);
	int rc = loop_add_fd(loop, channel_fd(vm->channel), LOOP_READ, control_ready, vm,
			     &vm->watch);

	if (rc < 0)
		return rc;
	/* What was read together with `start` waits in the channel, not in the socket. */
	rc = loop_timer_create(loop, control_first_look, vm, &vm->first_look);
	if (rc == 0)
		loop_timer_arm(vm->first_look, loop_now());
	return rc;
}

void
control_detach(struct vm *vm)
{
	if (vm->watch)
		loop_remove_fd(vm->watch);
	if (vm->first_look)
		loop_timer_destroy(vm->first_look);
	vm->watch = NULL;
	vm->first_look = NULL;
}
