/*
 * The control connections of a VM process (see protocol.h). The first belongs to
 * whoever started the VM: when it is lost or breaks the rules, the VM ends. The
 * others come by the listening socket, and only they themselves end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/protocol.h"
#include "vm/suspend.h"
#include "vm/vm.h"

static bool
control_is_front(const struct vm_client *client)
{
	return client == vm_front(client->vm);
}

/* A place is free again once nobody looks at it any more. */
static void
control_free(struct vm_client *client)
{
	if (control_is_front(client) || client->busy)
		return;
	channel_destroy(client->channel);
	client->channel = NULL;
}

static void
control_close(struct vm_client *client)
{
	client->closing = true;
	suspend_client_gone(client);
	if (client->watch) {
		loop_remove_fd(client->watch);
		client->watch = NULL;
	}
	if (control_is_front(client) && client->vm->machine)
		process_stop(client->vm);
	control_free(client);
}

static void
control_watch_output(struct vm_client *client)
{
	if (client->watch)
		loop_set_events(client->watch,
				LOOP_READ | (channel_pending(client->channel) ? LOOP_WRITE : 0));
}

static void
control_send(struct vm_client *client, json_t *message)
{
	if (client->closing) {
		json_decref(message);
		return;
	}
	if (channel_send(client->channel, message, NULL, 0) < 0) {
		control_close(client);
		return;
	}
	control_watch_output(client);
}

void
control_hello(struct vm_client *client)
{
	control_send(client,
		     json_pack("{s:s, s:i}", "hello", PROTOCOL_NAME, "version", PROTOCOL_VERSION));
}

void
control_event(struct vm *vm, const char *name, json_t *extra)
{
	json_t *event = json_pack("{s:s}", "event", name);

	if (event && extra)
		json_object_update(event, extra);
	json_decref(extra);
	for (unsigned i = 0; i < VM_CLIENTS_MAX; i++)
		if (vm->clients[i].channel && vm->clients[i].greeted)
			control_send(&vm->clients[i], json_incref(event));
	json_decref(event);
}

static void
control_refuse(struct vm_client *client, const json_t *id, const char *why)
{
	json_t *reply = json_pack("{s:b, s:s}", "ok", 0, "error", why);

	if (reply && id)
		json_object_set(reply, "id", (json_t *)(uintptr_t)id);
	control_send(client, reply);
}

static void
control_greeting(struct vm_client *client, const json_t *message)
{
	const char *hello = json_string_value(json_object_get(message, "hello"));
	json_int_t version = json_integer_value(json_object_get(message, "version"));

	if (hello && version == PROTOCOL_VERSION) {
		client->greeted = true;
		return;
	}
	control_refuse(client, NULL,
		       "the first message must be a hello of protocol version 1; use programs of "
		       "one version");
	control_close(client);
}

void
control_message(struct vm_client *client, const json_t *message)
{
	const json_t *id = json_object_get(message, "id");
	const char *name = json_string_value(json_object_get(message, "do"));
	char why[VM_WHY] = "";
	json_t *reply;
	int rc;

	if (!client->greeted) {
		control_greeting(client, message);
		return;
	}
	if (name == NULL) {
		control_refuse(client, id, "a request needs a \"do\" that names a command");
		return;
	}
	reply = json_object();
	rc = command_run(client, name, message, reply, why, sizeof(why));
	if (rc < 0) {
		json_decref(reply);
		control_refuse(client, id, why);
		return;
	}
	json_object_set_new(reply, "ok", json_true());
	if (id)
		json_object_set(reply, "id", (json_t *)(uintptr_t)id);
	control_send(client, reply);
}

/* What has come: 0, or why the connection ends. */
static int
control_read(struct vm_client *client)
{
	json_t *message;
	int rc = 0;

	while (!client->closing && (rc = channel_receive(client->channel, &message)) > 0) {
		control_message(client, message);
		json_decref(message);
	}
	return rc;
}

static void
control_ready(void *opaque, int events)
{
	struct vm_client *client = opaque;
	int rc = 0;

	client->busy = true;
	if (events & LOOP_WRITE)
		rc = channel_flush(client->channel);
	if (rc == 0)
		rc = control_read(client);
	if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET && control_is_front(client))
		log_error("the control connection broke the protocol; the VM ends");
	if (rc < 0 && !client->closing)
		control_close(client);
	client->busy = false;
	if (client->closing)
		control_free(client);
	else
		control_watch_output(client);
}

/* ---- further connections ---- */

static bool
control_peer_allowed(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	return peer.uid == geteuid() || peer.uid == 0;
}

/* FD is taken over. 0 or -errno. */
static int
control_admit(struct vm *vm, int fd)
{
	struct vm_client *client = NULL;
	int rc;

	for (unsigned i = 1; i < VM_CLIENTS_MAX && !client; i++)
		client = vm->clients[i].channel ? NULL : &vm->clients[i];
	if (!client || !control_peer_allowed(fd)) {
		close(fd);
		return client ? -EPERM : -ENOBUFS;
	}
	*client = (struct vm_client){.vm = vm};
	rc = channel_create(&client->channel, fd);
	if (rc < 0)
		return rc;
	rc = loop_add_fd(machine_loop(vm->machine), channel_fd(client->channel), LOOP_READ,
			 control_ready, client, &client->watch);
	if (rc < 0) {
		control_close(client);
		return rc;
	}
	control_hello(client);
	return 0;
}

static void
control_accept(void *opaque, int events)
{
	struct vm *vm = opaque;
	int fd = accept4(vm->resources.control, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0 && control_admit(vm, fd) < 0)
		log_warning("a control connection was refused: too many, or not this user's");
}

/* ---- the loop ---- */

static void
control_first_look(void *opaque)
{
	control_ready(opaque, LOOP_READ);
}

int
control_attach(struct vm *vm)
{
	struct loop *loop = machine_loop(vm->machine);
	struct vm_client *front = vm_front(vm);
	int rc;

	rc = loop_add_fd(loop, channel_fd(front->channel), LOOP_READ, control_ready, front,
			 &front->watch);
	if (rc == 0 && vm->resources.control >= 0)
		rc = loop_add_fd(loop, vm->resources.control, LOOP_READ, control_accept, vm,
				 &vm->listener_watch);
	/* What was read together with `start` waits in the channel, not in the socket. */
	if (rc == 0)
		rc = loop_timer_create(loop, control_first_look, front, &vm->first_look);
	if (rc == 0)
		loop_timer_arm(vm->first_look, loop_now());
	return rc;
}

void
control_detach(struct vm *vm)
{
	struct vm_client *front = vm_front(vm);

	for (unsigned i = 1; i < VM_CLIENTS_MAX; i++)
		if (vm->clients[i].channel)
			control_close(&vm->clients[i]);
	if (front->watch)
		loop_remove_fd(front->watch);
	if (vm->listener_watch)
		loop_remove_fd(vm->listener_watch);
	if (vm->first_look)
		loop_timer_destroy(vm->first_look);
	front->watch = vm->listener_watch = NULL;
	vm->first_look = NULL;
}
