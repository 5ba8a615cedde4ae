/*
 * Suspending a VM into a file and starting one from it, as messages:
 *
 *	suspend + 1 descriptor	pauses, saves into it (an empty file), and stays paused:
 *				the asker now gives the file its name
 *	suspended		it has one: the VM ends
 *	suspend-undo		it has none, or the asker is gone: the VM goes on
 *
 * Before it goes on, the front must renew its disks' marks, because the file may be
 * somewhere all the same: it is sent the event "held", and answers "go". In the same
 * way a VM that was started with "hold" waits for the first "go", which may bring a
 * "host" object: what only the front understands, kept for the state's note.
 *
 *	note	{"biga": 1, "config": {...}, "host": {...}}
 */
#ifndef VM_SUSPEND_H
#define VM_SUSPEND_H

#include "vm/vm.h"

/* 0, or -errno and WHY: then the VM goes on. FD is taken over. */
int suspend_save(struct vm_client *client, int fd, json_t *reply, char *why, size_t why_size);
int suspend_finish(struct vm_client *client, char *why, size_t why_size);
int suspend_undo(struct vm_client *client, char *why, size_t why_size);
int suspend_go(struct vm_client *client, const json_t *request, char *why, size_t why_size);
/* A connection ends. */
void suspend_client_gone(struct vm_client *client);
/* Whether the VM stands still for one of these, and nobody else may let it go on. */
bool suspend_holds(const struct vm *vm);

/* The descriptor "state": its model, checked against this host, becomes vm->model. 0, or -errno
 * and WHY. */
int suspend_take_model(struct vm *vm, char *why, size_t why_size);
/* And all the rest of it goes into vm->machine, which was made for it. */
int suspend_load(struct vm *vm, char *why, size_t why_size);

#endif
