/*
 * Where running VMs can be found: NAME.sock in a folder of the user's own, for
 * as long as the VM runs, and beside it NAME.lock, which its front keeps locked:
 * a socket whose lock is free is left over from a front that was killed.
 *
 *	$XDG_RUNTIME_DIR/biga, /run/user/UID/biga, or (where there is neither)
 *	/tmp/biga-UID; the folder is the user's and nobody else may enter it
 */
#ifndef CMD_ENDPOINT_H
#define CMD_ENDPOINT_H

#include "vm/config.h"

struct endpoint {
	char name[VM_NAME_MAX];
	int folder;   /* -1: not open */
	int lock;     /* -1: not ours */
	int listener; /* -1: handed over, or not made */
};

/* A VM's front: takes the name and listens. 0; -EADDRINUSE if a VM of that name runs; or another
 * -errno. With one line (cause; fix) in WHY. To be closed in any case. */
int endpoint_open(struct endpoint *endpoint, const char *name, char *why, size_t why_size);
/* Removes what endpoint_open made. */
void endpoint_close(struct endpoint *endpoint);

/* A connection to the VM of that name: a descriptor; -ENOENT if none runs; or another
 * -errno. With WHY. */
int endpoint_connect(const char *name, char *why, size_t why_size);

/* Calls FN for the name of each VM that may be running, in alphabetical order, and removes what
 * killed ones left. How many, or -errno and WHY. */
int endpoint_list(void (*fn)(void *opaque, const char *name), void *opaque, char *why,
		  size_t why_size);

#endif
