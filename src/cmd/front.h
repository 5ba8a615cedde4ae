/*
 * The front of a one-shot VM: starts the VM process and its network, hands over
 * configuration and descriptors, and then is the terminal's side of the VM
 * until that ends, whatever way.
 */
#ifndef CMD_FRONT_H
#define CMD_FRONT_H

#include "cmd/run_options.h"
#include "vm/resources.h"

/* Runs the VM to its end; RESOURCES are closed once they are handed over. The
 * exit status of `biga run`; all messages were made. */
int front_run(const struct run_options *options, struct vm_resources *resources);

#endif
