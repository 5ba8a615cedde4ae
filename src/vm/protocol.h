/*
 * The control socket's language: JSON objects, one a line, over a Unix stream
 * socket; descriptors ride along (SCM_RIGHTS) in the order of the `give`
 * messages that name them.
 *
 *	both, first	{"hello": "biga", "version": 1}
 *	request		{"do": "info", "id": 7, ...}		see commands.c
 *	reply		{"id": 7, "ok": true, ...}
 *			{"id": 7, "ok": false, "error": "cause; fix"}
 *	event		{"event": "ended", "reason": "powered-off", ...}
 *
 * A VM process is configured, given its descriptors and started by the same
 * messages:	configure {config}	give {what} + 1 descriptor	start
 * The connection over which that happened is the front's: when it closes, the
 * VM ends. Others come by the listening socket that was given as "control", and
 * may come and go. Their process must have the VM's user, or be root's.
 */
#ifndef VM_PROTOCOL_H
#define VM_PROTOCOL_H

#define PROTOCOL_NAME "biga"
enum { PROTOCOL_VERSION = 1, PROTOCOL_LINE_MAX = 128 * 1024, PROTOCOL_FD = 3 };

/* argv[0] by which the program knows that it is a VM process; its control
 * socket is descriptor PROTOCOL_FD. */
#define PROTOCOL_VM_ARGV0 "biga-vm"

#define PROTOCOL_EVENT_STARTED "started"
#define PROTOCOL_EVENT_ENDED "ended"
#define PROTOCOL_EVENT_SWITCHED "switched" /* "from", "to", "rescued", "text" */
#define PROTOCOL_EVENT_HELD "held"	   /* see suspend.h */

/* Reasons of PROTOCOL_EVENT_ENDED; "text" says more, "value" is debug-exit's. */
#define PROTOCOL_END_POWERED_OFF "powered-off"
#define PROTOCOL_END_RESET "reset"
#define PROTOCOL_END_DEBUG_EXIT "debug-exit"
#define PROTOCOL_END_GUEST_FAILED "guest-failed"
#define PROTOCOL_END_ENGINE_FAILED "engine-failed"
#define PROTOCOL_END_QUIT "quit"
#define PROTOCOL_END_SUSPENDED "suspended"

#endif
