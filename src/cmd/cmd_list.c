/*
 * `biga list`: which VMs of this user run.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "cmd/endpoint.h"
#include "cmd/remote.h"

static const char list_help[] =
	"Usage: biga list\n"
	"Lists this user's running VMs, a line each: name, hypervisor, status, processors,\n"
	"memory, seconds since its start, process. See biga info for one of them.\n"
	"\n"
	"Exit status: 0; 1 the list cannot be written; 2 wrong usage, or no folder for sockets.\n";

static void
list_print(void *opaque, const char *name)
{
	json_t *info;

	(void)opaque;
	if (remote_do(name, "info", &info))
		return;
	printf("%-24s %-6s %-8s %2d CPUs %7lldM %8llds  process %d\n", name,
	       json_string_value(json_object_get(info, "hypervisor")),
	       json_string_value(json_object_get(info, "status")),
	       (int)json_integer_value(json_object_get(info, "cpus")),
	       (long long)json_integer_value(json_object_get(info, "memory")) >> 20,
	       (long long)json_integer_value(json_object_get(info, "uptime-ns")) / 1000000000,
	       (int)json_integer_value(json_object_get(info, "pid")));
	json_decref(info);
}

int
cmd_list(int argc, char **argv)
{
	char why[VM_WHY];

	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(list_help, stdout);
		return 0;
	}
	if (argc != 1) {
		log_error("list takes no arguments; see biga list --help");
		return EXIT_USAGE;
	}
	if (endpoint_list(list_print, NULL, why, sizeof(why)) < 0) {
		log_error("%s", why);
		return EXIT_USAGE;
	}
	return fflush(stdout) == 0 ? 0 : REMOTE_REFUSED;
}
