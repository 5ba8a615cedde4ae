/*
 * What the front keeps in a saved state's note (vm/suspend.h), so that the VM can
 * be started again from that file alone: files by their whole paths, the network's
 * options, and by what to know each disk again.
 */
#ifndef CMD_STATE_NOTE_H
#define CMD_STATE_NOTE_H

#include <jansson.h>

#include "cmd/run_options.h"
#include "vm/resources.h"

/* The "host" object of a "go" message, with fresh marks for the disks. NULL if out of memory. */
json_t *state_note_host(const struct run_options *options);

/* Opens the state that the options name and replaces their configuration by the one in it, but for
 * what was given beside it: a descriptor, or -errno and one line (cause; fix) in WHY. */
int state_note_open(struct run_options *options, char *why, size_t why_size);
/* Whether the disks are the state's and have not moved on: 0, or -errno and WHY. */
int state_note_check(const struct run_options *options, const struct vm_resources *resources,
		     char *why, size_t why_size);

/* Marks the disks that the state in FD is of: 0, or -errno and WHY. */
int state_note_mark(int fd, char *why, size_t why_size);

#endif
