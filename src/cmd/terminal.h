/*
 * The user's terminal while a VM has it: raw, and given back as it was on every
 * way out. A small helper process watches the front: should that die without a
 * word (SIGKILL, a crash), the helper restores the terminal.
 */
#ifndef CMD_TERMINAL_H
#define CMD_TERMINAL_H

#include <sys/types.h>
#include <termios.h>

#include "base/types.h"

struct terminal {
	int fd; /* -1: standard input is no terminal */
	bool raw;
	struct termios saved;
	pid_t keeper; /* 0: none */
	int keeper_pipe;
};

/* Puts /dev/null where standard input, output or error is closed, so that no file
 * opened later takes that place. First of all. 0 or -errno. */
int terminal_fill_standard(void);

/* Looks at standard input and output. 0, or -errno and one line in WHY: closed, or a terminal that
 * belongs to another job now. */
int terminal_open(struct terminal *terminal, char *why, size_t why_size);
bool terminal_is(const struct terminal *terminal);

/* Raw input (output processing stays) / as before. Harmless when already so, or no terminal. */
int terminal_raw(struct terminal *terminal);
void terminal_restore(struct terminal *terminal);
/* Restores, and sends the helper home. */
void terminal_close(struct terminal *terminal);

/* The keys of Ctrl-A, as a filter over typed bytes. */
enum terminal_key { KEY_QUIT = BIT(0), KEY_HELP = BIT(1), KEY_POWER = BIT(2), KEY_SWITCH = BIT(3) };
struct terminal_keys {
	bool prefix; /* Ctrl-A was the last byte */
};
/* Copies what is for the guest from IN to OUT (room for LEN + 1) and sets *KEYS to what was asked.
 */
size_t terminal_filter(struct terminal_keys *state, const char *in, size_t len, char *out,
		       unsigned *keys);
extern const char terminal_help[];

#endif
