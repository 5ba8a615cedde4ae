/*
 * biga: finds the subcommand. The same program is also the VM process, when it
 * was started under that name with a control socket.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "vm/process.h"
#include "vm/protocol.h"

#ifdef __SANITIZE_ADDRESS__
/* The translator has signal handlers, and alternate stacks for them, of its own. */
const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
	return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:use_sigaltstack=0";
}
#endif

static const struct subcommand {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *about;
} subcommands[] = {
	{"run", cmd_run, "run a one-shot VM in this terminal"},
	{"list", cmd_list, "list the VMs that run"},
	{"info", cmd_info, "tell about a running VM"},
	{"switch", cmd_switch, "move a running VM to another hypervisor"},
	{"suspend", cmd_suspend, "save a running VM in a file, and end it"},
	{"pause", cmd_pause, "stop a running VM's processors"},
	{"unpause", cmd_unpause, "let them go on"},
	{"doctor", cmd_doctor, "say which hypervisors this host has, and why not"},
	{"version", cmd_version, "say which version this is"},
};

static void
biga_usage(FILE *out)
{
	fputs("Usage: biga COMMAND [OPTIONS]\n"
	      "Virtual machines on Linux, with the host's hypervisor or without it.\n\n",
	      out);
	for (size_t i = 0; i < ARRAY_LEN(subcommands); i++)
		fprintf(out, "  %-10s %s\n", subcommands[i].name, subcommands[i].about);
	fputs("  help       show this\n\n"
	      "`biga COMMAND --help` says more.\n",
	      out);
}

/* Its messages go where the front's go, as loud as argv[1] says. */
static int
biga_vm_process(int argc, char **argv)
{
	int level = argc > 1 ? atoi(argv[1]) : LOG_WARNING;

	log_setup(2, level < LOG_ERROR || level > LOG_DEBUG ? LOG_WARNING : (enum log_level)level);
	return vm_process_main(PROTOCOL_FD);
}

int
main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	if (argc > 0 && strcmp(argv[0], PROTOCOL_VM_ARGV0) == 0)
		return biga_vm_process(argc, argv);
	if (name == NULL) {
		biga_usage(stderr);
		return EXIT_USAGE;
	}
	for (size_t i = 0; i < ARRAY_LEN(subcommands); i++) {
		if (strcmp(subcommands[i].name, name) == 0)
			return subcommands[i].run(argc - 1, argv + 1);
	}
	if (strcmp(name, "--version") == 0)
		return cmd_version(1, argv + 1);
	if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
		biga_usage(stdout);
		return 0;
	}
	log_error("unknown command '%s'; see biga --help", name);
	return EXIT_USAGE;
}
