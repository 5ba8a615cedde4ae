/*
 * Bytes between the user's standard input and output and the VM's console
 * socket, with a small buffer each way: a side that does not take its bytes
 * stops the other, and never the front itself.
 */
#ifndef CMD_RELAY_H
#define CMD_RELAY_H

#include <poll.h>

#include "cmd/terminal.h"

enum { RELAY_POLLS = 3 };

struct relay {
	int console;   /* our end of the console socket; -1: none, or at its end */
	int in;	       /* standard input, -1: at its end or not used */
	int out;       /* standard output, -1: gone */
	bool out_ours; /* OUT is a description of our own and non-blocking */
	bool filter;   /* input is a terminal: Ctrl-A is ours */
	struct terminal_keys keys;
	char to_vm[4096 + 1], to_user[16384];
	size_t to_vm_len, to_vm_sent, to_user_len, to_user_sent;
};

/* CONSOLE is taken over; -1: nothing is relayed. */
void relay_init(struct relay *relay, int console, bool terminal);
void relay_close(struct relay *relay);

/* What to wait for, RELAY_POLLS entries, and what to do then: the keys that were typed. */
void relay_polls(const struct relay *relay, struct pollfd *polls);
unsigned relay_serve(struct relay *relay, const struct pollfd *polls);

/* Whether the VM's output has ended and all of it was delivered, or cannot be. */
bool relay_done(const struct relay *relay);

#endif
