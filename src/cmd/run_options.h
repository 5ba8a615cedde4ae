/*
 * The command line of `biga run` as data. Nothing is opened here.
 */
#ifndef CMD_RUN_OPTIONS_H
#define CMD_RUN_OPTIONS_H

#include "net/forward.h"
#include "vm/config.h"

/* What a VM that auto did not put on kvm does once it could be there. */
enum run_promote { RUN_PROMOTE_ASK, RUN_PROMOTE_ALWAYS, RUN_PROMOTE_NEVER };
enum run_console { RUN_CONSOLE_STDIO, RUN_CONSOLE_NONE, RUN_CONSOLE_FILE };

struct run_options {
	struct vm_config config;
	const char *hypervisor;	     /* as given: auto, biga, kvm or kvm,force */
	char hypervisor_why[VM_WHY]; /* why the one that was chosen was, for `biga info` */
	enum run_promote promote;
	enum run_console console;
	const char *console_path;
	bool disk_raw[VM_DISKS_MAX];		/* format=raw was said: no guessing by content */
	const char *forwards[NET_FORWARDS_MAX]; /* as given, and valid */
	unsigned forward_count;
	char *net_text; /* what FORWARDS point into */
	bool host_loopback, ipv6;
	const char *state_path; /* NULL: it boots */
	json_t *state_note;	/* the state's own (state_note.h), or NULL */
	u32 given;		/* which options were given, see run_options_given */
	bool dry_run, quiet, help, version;
};

/* Strings of ARGV are referred to. 0, or -EINVAL and one line (cause; fix) in
 * WHY. To be cleared in either case. */
int run_options_parse(struct run_options *options, int argc, char **argv, char *why,
		      size_t why_size);
/* Whether the option NAME stood on the command line. */
bool run_options_given(const struct run_options *options, const char *name);
/* Takes what --net takes. 0, or -EINVAL and WHY. */
int run_options_net(struct run_options *options, const char *net, char *why, size_t why_size);
void run_options_clear(struct run_options *options);

extern const char run_options_help[];

/* "512M": bytes with an optional K, M, G or T (powers of 1024). */
bool run_options_size(const char *text, u64 *bytes);

#endif
