/*
 * Starting biga-net for a VM.
 */
#ifndef CMD_FRONT_NET_H
#define CMD_FRONT_NET_H

#include <sys/types.h>

#include "cmd/run_options.h"

struct front_net {
	pid_t pid;  /* 0: none */
	int frames; /* the VM's end, -1: none */
	int status; /* its one line comes here, -1: none */
};

/* 0, or -errno and WHY. */
int front_net_start(struct front_net *net, const struct run_options *options, char *why,
		    size_t why_size);
/* Waits until the network is up: 0, or -errno and WHY. */
int front_net_wait(struct front_net *net, char *why, size_t why_size);
void front_net_close(struct front_net *net);

#endif
