/*
 * One VM as a process: what the files of vm/ share. control.c moves messages,
 * commands.c does what they ask, build.c makes the machine, process.c is the
 * process from its start to its end.
 *
 * Single-threaded: everything here happens on the main thread, once the machine
 * runs under its lock, in callbacks of its loop.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include "machine/machine.h"
#include "vm/channel.h"
#include "vm/config.h"
#include "vm/resources.h"

enum vm_phase {
	VM_NEW,
	VM_CONFIGURED,
	VM_HELD, /* there is a machine; it waits for the front's "go" */
	VM_BUILT,
	VM_OVER
};
enum { VM_CLIENTS_MAX = 17, VM_HYPERVISOR_WHY = 256 };

/* A control connection. */
struct vm_client {
	struct vm *vm;
	struct channel *channel; /* NULL: this place is free */
	struct loop_fd *watch;	 /* of the channel, once the machine's loop runs */
	bool greeted;		 /* the peer's hello was good */
	bool closing;		 /* the connection ends, or is to end */
	bool busy;		 /* its messages are being read: not the moment to free it */
};

struct vm {
	enum vm_phase phase;
	struct vm_client clients[VM_CLIENTS_MAX]; /* the first is the front's */
	struct loop_fd *listener_watch;
	struct loop_timer *first_look;
	char hypervisor_why[VM_HYPERVISOR_WHY]; /* why it runs on the one that it runs on */
	struct vm_config config;
	struct vm_resources resources;
	struct cpu_model model;
	struct machine *machine;
	/* suspend.c */
	json_t *host_note;	     /* the front's part of a state's note, or NULL */
	struct vm_client *suspender; /* has a state, and will say what became of it */
	bool held;		     /* waits for "go" */
	bool was_paused;	     /* before it was suspended, or meanwhile */
};

static inline struct vm_client *
vm_front(struct vm *vm)
{
	return &vm->clients[0];
}

/* control.c: greets; handles one message (not taking its reference); an event for
 * all with its other members in EXTRA (taken, may be NULL). All survive a lost peer. */
void control_hello(struct vm_client *client);
void control_message(struct vm_client *client, const json_t *message);
void control_event(struct vm *vm, const char *name, json_t *extra);
/* From now on messages and connections arrive by the machine's loop. 0 or -errno. */
int control_attach(struct vm *vm);
void control_detach(struct vm *vm);

/* commands.c: 0, or -errno and one line in WHY; members of the reply go into REPLY. */
int command_run(struct vm_client *client, const char *name, const json_t *request, json_t *reply,
		char *why, size_t why_size);

/* build.c: configuration and descriptors become vm->machine. 0, or -errno and WHY. */
int build_machine(struct vm *vm, char *why, size_t why_size);
/* The CPU that the configuration asks for, as this host and its hypervisor can show it. Likewise.
 */
int build_model(const struct vm *vm, struct cpu_model *model, char *why, size_t why_size);
/* NULL if there is none of that name. */
const struct engine_ops *build_engine(const char *name);

/* commands.c: the VM runs on TO now, TEXT is one line that says why. Tells everybody. */
void command_switched(struct vm *vm, const char *from, const char *to, bool rescued,
		      const char *text);

/* Ends the VM, and after some seconds the process if that does not work. */
void process_stop(struct vm *vm);

#endif
