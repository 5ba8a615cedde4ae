/*
 * Suspend and resume of a VM process (see suspend.h).
 */
#include "vm/suspend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state/file.h"
#include "vm/protocol.h"

enum { SUSPEND_NOTE = 1 };

/* The note of a state, to be freed; NULL if out of memory. */
static char *
suspend_note(const struct vm *vm)
{
	json_t *host = vm->host_note ? json_incref(vm->host_note) : json_object();
	json_t *note = json_pack("{s:i, s:o, s:o}", PROTOCOL_NAME, SUSPEND_NOTE, "config",
				 vm_config_to_json(&vm->config), "host", host);
	char *text = note ? json_dumps(note, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	json_decref(note);
	return text;
}

static int
suspend_check_file(int fd, char *why, size_t why_size)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != 0 ||
	    (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) {
		snprintf(why, why_size,
			 "suspend needs one descriptor: an empty file that is open for writing");
		return -EINVAL;
	}
	return 0;
}

/* What only the front may end: the VM stands, and its disks' marks are old. */
static void
suspend_hold(struct vm *vm)
{
	vm->suspender = NULL;
	vm->held = true;
	control_event(vm, PROTOCOL_EVENT_HELD, NULL);
}

int
suspend_save(struct vm_client *client, int fd, json_t *reply, char *why, size_t why_size)
{
	struct vm *vm = client->vm;
	struct state_io io = state_io_fd(fd);
	u64 start = loop_now();
	char *note;
	int rc = suspend_check_file(fd, why, why_size);

	if (rc == 0 && suspend_holds(vm)) {
		snprintf(why, why_size, "the VM is being suspended already");
		rc = -EBUSY;
	}
	note = rc == 0 ? suspend_note(vm) : NULL;
	if (rc == 0) {
		vm->was_paused = machine_status(vm->machine) == MACHINE_PAUSED;
		machine_pause(vm->machine);
		rc = note ? machine_save(vm->machine, &io, note, why, why_size) : -ENOMEM;
		if (rc == 0)
			vm->suspender = client;
		else if (!vm->was_paused)
			machine_resume(vm->machine);
	}
	json_object_set_new(reply, "ns", json_integer((json_int_t)(loop_now() - start)));
	free(note);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int
suspend_check_client(const struct vm_client *client, char *why, size_t why_size)
{
	if (client->vm->suspender == client)
		return 0;
	snprintf(why, why_size, "this connection has not suspended the VM");
	return -EPERM;
}

int
suspend_finish(struct vm_client *client, char *why, size_t why_size)
{
	int rc = suspend_check_client(client, why, why_size);

	if (rc)
		return rc;
	/* From here on the state is what goes on: that this connection ends changes nothing. */
	machine_retire(client->vm->machine);
	client->vm->suspender = NULL;
	return 0;
}

int
suspend_undo(struct vm_client *client, char *why, size_t why_size)
{
	int rc = suspend_check_client(client, why, why_size);

	if (rc == 0)
		suspend_hold(client->vm);
	return rc;
}

void
suspend_client_gone(struct vm_client *client)
{
	if (client->vm->suspender == client && client->vm->machine &&
	    machine_status(client->vm->machine) == MACHINE_PAUSED)
		suspend_hold(client->vm);
}

bool
suspend_holds(const struct vm *vm)
{
	return vm->held || vm->suspender;
}

int
suspend_go(struct vm_client *client, const json_t *request, char *why, size_t why_size)
{
	json_t *host = json_object_get(request, "host");
	struct vm *vm = client->vm;

	if (client != vm_front(vm) || !vm->held || (host && !json_is_object(host))) {
		snprintf(why, why_size, "go is the front's, and only for a VM that is held");
		return -EPERM;
	}
	if (host) {
		json_decref(vm->host_note);
		vm->host_note = json_incref(host);
	}
	vm->held = false;
	if (vm->phase == VM_HELD)
		vm->phase = VM_BUILT;
	else if (!vm->was_paused)
		machine_resume(vm->machine);
	return 0;
}

/* ---- from a file ---- */

static int
suspend_rewind(int fd, char *why, size_t why_size)
{
	if (lseek(fd, 0, SEEK_SET) == 0)
		return 0;
	snprintf(why, why_size, "the state cannot be read: %s", strerror(errno));
	return -errno;
}

/* A VM with the host's CPU is for hosts that show the very same. */
static int
suspend_check_host(const struct vm *vm, char *why, size_t why_size)
{
	struct cpu_model here;
	int rc = build_model(vm, &here, why, why_size);

	if (rc == 0 && !cpu_model_same(&vm->model, &here)) {
		snprintf(why, why_size,
			 "the VM was saved with CPU model host on another kind of machine or "
			 "kernel; resume it there");
		rc = -ENOTSUP;
	}
	return rc;
}

int
suspend_take_model(struct vm *vm, char *why, size_t why_size)
{
	struct state_io io = state_io_fd(vm->resources.state);
	u64 ram = 0;
	int rc = suspend_rewind(vm->resources.state, why, why_size);

	if (rc == 0)
		rc = machine_peek(&io, NULL, &vm->model, &ram, why, why_size);
	if (rc == 0 && ram != vm->config.memory) {
		snprintf(why, why_size, "the state is not of the machine that it says it is of");
		rc = -EINVAL;
	}
	if (rc == 0 && strcmp(vm->model.name, CPU_MODEL_HOST) == 0)
		return suspend_check_host(vm, why, why_size);
	if (rc == 0)
		rc = machine_model_fits(&vm->model, vm->config.cpus, why, why_size);
	return rc;
}

int
suspend_load(struct vm *vm, char *why, size_t why_size)
{
	struct state_io io = state_io_fd(vm->resources.state);
	int rc = suspend_rewind(vm->resources.state, why, why_size);

	return rc ? rc : machine_load(vm->machine, &io, why, why_size);
}
