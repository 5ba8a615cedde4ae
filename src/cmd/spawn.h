/*
 * Starting the processes that belong to a VM: with exactly the descriptors they
 * are meant to have, in a session of their own (the terminal's signals are the
 * front's business), with all signals at their defaults.
 */
#ifndef CMD_SPAWN_H
#define CMD_SPAWN_H

#include <sys/types.h>

#include "base/types.h"

enum { SPAWN_FDS_MAX = 4 };

/* FDS[i] becomes descriptor 3 + i; 0 and 1 are /dev/null, 2 is shared. 0, or
 * -errno also when PATH cannot be executed. */
int spawn(pid_t *pid, const char *path, char *const argv[], const int *fds, unsigned n);

#endif
