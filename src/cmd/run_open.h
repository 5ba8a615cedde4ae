/*
 * The host's side of `biga run`: opens and locks what the options name. Every
 * refusal is one line with cause and fix.
 */
#ifndef CMD_RUN_OPEN_H
#define CMD_RUN_OPEN_H

#include "cmd/run_options.h"
#include "vm/resources.h"

/* Opens kernel, initrds and disks (locked: against each other writer, and a writer
 * against readers), and FILE of --console FILE unless it is a dry run. 0, or
 * -errno and WHY; RESOURCES is to be closed in either case. */
int run_open(struct vm_resources *resources, const struct run_options *options, char *why,
	     size_t why_size);

#endif
