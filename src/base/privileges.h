/*
 * Giving up what a process could do, one visible step after another. None of
 * it can be taken back, and all of it passes on to children.
 */
#ifndef BASE_PRIVILEGES_H
#define BASE_PRIVILEGES_H

#include "base/types.h"

/* No exec gains privilege from now on; every capability is gone from all sets; no
 * core dump (it would hold a guest's memory). 0 or -errno. */
int privileges_drop(void);

#endif
