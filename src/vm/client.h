/*
 * The other end of a VM's control socket (protocol.h), for programs that ask a
 * running VM for something. Calls wait, each with its own limit of time; events
 * that come meanwhile are passed over.
 */
#ifndef VM_CLIENT_H
#define VM_CLIENT_H

#include <jansson.h>

#include "base/types.h"

struct client;

/* Greets over FD, a connected socket, which is taken over in any case. 0, or
 * -errno and one line (cause; fix) in WHY. */
int client_create(struct client **out, int fd, char *why, size_t why_size);
void client_destroy(struct client *client); /* NULL is fine */

/* Sends REQUEST (whose reference it takes; its "id" is set here) with N descriptors,
 * which stay the caller's, and waits for the answer. 0 and *REPLY, a new reference;
 * -EREMOTEIO if the VM refused, then WHY is what it said; or another -errno and WHY. */
int client_call(struct client *client, json_t *request, const int *fds, size_t n, json_t **reply,
		int timeout_ms, char *why, size_t why_size);

#endif
