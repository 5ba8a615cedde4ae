/*
 * What the commands that reach a running VM have in common: one request, one
 * answer, one line of error.
 */
#ifndef CMD_REMOTE_H
#define CMD_REMOTE_H

#include <jansson.h>

#include "vm/client.h"

/* Their exit statuses beside 0 (and EXIT_USAGE, which also says that there is no such VM). */
enum { REMOTE_REFUSED = 1 };
enum { REMOTE_TIMEOUT_MS = 30000 };

/* Connects to the VM named NAME: 0, or an exit status with the error said. */
int remote_open(struct client **out, const char *name);
/* One request (whose reference is taken), with one descriptor or -1, and its answer:
 * 0 and *REPLY (a new reference; REPLY may be NULL), or an exit status with the error said. */
int remote_call(struct client *client, json_t *request, int fd, json_t **reply);
/* Both: `do` COMMAND of the VM named NAME. */
int remote_do(const char *name, const char *command, json_t **reply);

/* The command line of a command with one NAME and no options but --help: NULL and
 * *STATUS if there is nothing to do. */
const char *remote_name(int argc, char **argv, const char *help, int *status);

#endif
