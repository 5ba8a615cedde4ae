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

enum vm_phase { VM_NEW, VM_CONFIGURED, VM_BUILT, VM_OVER };

struct vm {
	enum vm_phase phase;
	struct channel *channel;
	struct loop_fd *watch; /* of the channel, once the machine's loop runs */
	struct loop_timer *first_look;
	bool greeted; /* the peer's hello was good */
	bool closing; /* the connection ends, or is to end */
	struct vm_config config;
	struct vm_resources resources;
	struct cpu_model model;
	struct machine *machine;
};

/* control.c: greets; handles one message (not taking its reference); an event
 * with its other members in EXTRA (taken, may be NULL). All survive a lost peer. */
void control_hello(struct vm *vm);
void control_message(struct vm *vm, const json_t *message);
void control_event(struct vm *vm, const char *name, json_t *extra);
/* From now on messages arrive by the machine's loop. 0 or -errno. */
int control_attach(struct vm *vm);
void control_detach(struct vm *vm);

/* commands.c: 0, or -errno and one line in WHY; members of the reply go into REPLY. */
int command_run(struct vm *vm, const char *name, const json_t *request, json_t *reply, char *why,
		size_t why_size);

/* build.c: configuration and descriptors become vm->machine. 0, or -errno and WHY. */
int build_machine(struct vm *vm, char *why, size_t why_size);

/* Ends the VM, and after some seconds the process if that does not work. */
void process_stop(struct vm *vm);

#endif
