/*
 * A VM process from its start to its end (see process.h).
 */
#include "vm/process.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/privileges.h"
#include "vm/protocol.h"
#include "vm/vm.h"

enum { PROCESS_STOP_SECONDS = 10, PROCESS_FLUSH_TRIES = 100 };

void
process_stop(struct vm *vm)
{
	/* Should a vCPU not obey, SIGALRM's default action ends the process. */
	alarm(PROCESS_STOP_SECONDS);
	vm_front(vm)->closing = vm_front(vm)->closing || vm->machine == NULL;
	if (vm->machine)
		machine_stop(vm->machine);
}

static json_t *
process_end_json(const struct machine_end *end)
{
	static const char *const reasons[] = {
		[MACHINE_POWERED_OFF] = PROTOCOL_END_POWERED_OFF,
		[MACHINE_RESET] = PROTOCOL_END_RESET,
		[MACHINE_DEBUG_EXIT] = PROTOCOL_END_DEBUG_EXIT,
		[MACHINE_GUEST_FAILED] = PROTOCOL_END_GUEST_FAILED,
		[MACHINE_ENGINE_FAILED] = PROTOCOL_END_ENGINE_FAILED,
		[MACHINE_STOPPED] = PROTOCOL_END_QUIT,
		[MACHINE_SUSPENDED] = PROTOCOL_END_SUSPENDED,
	};
	/* Text may quote guest bytes: what is not UTF-8 would make json_string fail. */
	json_t *text = json_string(end->text);

	return json_pack("{s:s, s:I, s:o}", "reason", reasons[end->kind], "value",
			 (json_int_t)end->value, "text",
			 text ? text : json_string("(not readable)"));
}

/* Until `start` has built the machine. 0 or -errno. */
static int
process_prepare(struct vm *vm)
{
	struct vm_client *front = vm_front(vm);
	json_t *message;
	int rc;

	control_hello(front);
	while (vm->phase != VM_BUILT && !front->closing) {
		rc = channel_wait(front->channel, &message, -1);
		if (rc < 0)
			return rc;
		control_message(front, message);
		json_decref(message);
	}
	return vm->phase == VM_BUILT ? 0 : -ECANCELED;
}

/* The front is told to the last word. */
static void
process_flush(struct vm_client *front)
{
	for (int i = 0; i < PROCESS_FLUSH_TRIES; i++) {
		if (front->closing || !channel_pending(front->channel))
			return;
		usleep(10000);
		if (channel_flush(front->channel) < 0)
			return;
	}
}

static void
process_run(struct vm *vm)
{
	struct machine_end end = {.kind = MACHINE_ENGINE_FAILED};
	int rc = control_attach(vm);

	if (rc == 0)
		rc = machine_start(vm->machine);
	if (rc < 0) {
		strcpy(end.text, "the machine cannot start: ");
		strncat(end.text, strerror(-rc), sizeof(end.text) - strlen(end.text) - 1);
	} else {
		control_event(vm, PROTOCOL_EVENT_STARTED, NULL);
		machine_run(vm->machine, &end);
	}
	vm->phase = VM_OVER;
	control_event(vm, PROTOCOL_EVENT_ENDED, process_end_json(&end));
	process_flush(vm_front(vm));
	alarm(PROCESS_STOP_SECONDS);
	control_detach(vm);
	machine_destroy(vm->machine);
	vm->machine = NULL;
}

int
vm_process_main(int control)
{
	struct vm vm = {.phase = VM_NEW};
	int rc;

	prctl(PR_SET_NAME, PROTOCOL_VM_ARGV0);
	signal(SIGPIPE, SIG_IGN);
	rc = privileges_drop();
	if (rc < 0) {
		log_error("the VM process cannot drop its privileges: %s", strerror(-rc));
		return 2;
	}
	vm_resources_init(&vm.resources);
	vm_front(&vm)->vm = &vm;
	rc = channel_create(&vm_front(&vm)->channel, control);
	if (rc < 0) {
		log_error("the VM process has no control socket (%s); start VMs with `biga run`",
			  strerror(-rc));
		return 2;
	}
	rc = process_prepare(&vm);
	if (rc == 0)
		process_run(&vm);
	machine_destroy(vm.machine);
	json_decref(vm.host_note);
	vm_resources_close(&vm.resources);
	vm_config_clear(&vm.config);
	channel_destroy(vm_front(&vm)->channel);
	return rc == 0 ? 0 : 2;
}
