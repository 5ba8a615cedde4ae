/*
 * Waiting for the host's hypervisor: a VM that was to have it, and could not, is
 * told once it can. Looks when /dev/kvm appears or changes, and now and then
 * otherwise; each look is a child process, so that nothing here ever waits.
 */
#ifndef CMD_FRONT_WATCH_H
#define CMD_FRONT_WATCH_H

#include <sys/types.h>

#include "base/types.h"

struct front_watch {
	/* Whether the host's hypervisor can be used: in a child, may take seconds. */
	bool (*check)(void);
	int events;   /* inotify, -1: off, or not to be had */
	pid_t child;  /* that looks, 0: none */
	i64 next_ms;  /* of the next look, by CLOCK_MONOTONIC; 0: the watch is off */
	i64 pause_ms; /* after that one */
};

/* FOLDER is where the node KVM would appear ("/dev"). */
void front_watch_start(struct front_watch *watch, const char *folder, bool (*check)(void));
/* Harmless if it is off. A child that still looks is the caller's to reap. */
void front_watch_stop(struct front_watch *watch);

/* To poll for reading: a descriptor or -1; and the time by which front_watch_serve is due, or 0. */
int front_watch_fd(const struct front_watch *watch);
i64 front_watch_deadline(const struct front_watch *watch);
void front_watch_serve(struct front_watch *watch, i64 now_ms, bool readable);

/* PID ended with STATUS (of waitpid): if it was the looking child, *USABLE says what it found. */
bool front_watch_reaped(struct front_watch *watch, pid_t pid, int status, bool *usable);

#endif
