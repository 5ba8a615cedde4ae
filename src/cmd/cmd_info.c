/*
 * `biga info`: what a running VM is, and which hypervisor runs it and why.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "cmd/remote.h"

static const char info_help[] =
	"Usage: biga info NAME [--json]\n"
	"Tells about the running VM NAME; --json: all of it, as one JSON object.\n"
	"\n"
	"Exit status: 0 done; 1 the VM refused or did not answer; 2 no such VM, or wrong usage.\n";

static const char *
info_text(const json_t *info, const char *key)
{
	const char *text = json_string_value(json_object_get(info, key));

	return text ? text : "";
}

static long long
info_number(const json_t *info, const char *key)
{
	return json_integer_value(json_object_get(info, key));
}

static void
info_print(const json_t *info)
{
	long long up = info_number(info, "uptime-ns") / 1000000000;

	printf("name        %s\n", info_text(info, "name"));
	printf("status      %s\n", info_text(info, "status"));
	printf("hypervisor  %s (%s)\n", info_text(info, "hypervisor"), info_text(info, "why"));
	printf("switches    %lld, rescues %lld\n", info_number(info, "switches"),
	       info_number(info, "rescues"));
	printf("uptime      %lld:%02lld:%02lld, %lld resets\n", up / 3600, up / 60 % 60, up % 60,
	       info_number(info, "resets"));
	printf("cpus        %lld of %s\n", info_number(info, "cpus"), info_text(info, "cpu-model"));
	printf("memory      %lldM\n", info_number(info, "memory") >> 20);
	printf("process     %lld\n", info_number(info, "pid"));
}

static int
info_show(const char *name, bool as_json)
{
	json_t *info;
	int status = remote_do(name, "info", &info);

	if (status)
		return status;
	json_object_del(info, "ok");
	json_object_del(info, "id");
	if (as_json) {
		json_dumpf(info, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		info_print(info);
	}
	json_decref(info);
	return fflush(stdout) == 0 ? 0 : REMOTE_REFUSED;
}

int
cmd_info(int argc, char **argv)
{
	const char *name = NULL;
	bool as_json = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			fputs(info_help, stdout);
			return 0;
		}
		if (strcmp(argv[i], "--json") == 0) {
			as_json = true;
		} else if (argv[i][0] == '-' || name) {
			log_error("'%.80s' is not for info; see biga info --help", argv[i]);
			return EXIT_USAGE;
		} else {
			name = argv[i];
		}
	}
	if (!name) {
		log_error("info takes a VM's name; see biga info --help");
		return EXIT_USAGE;
	}
	return info_show(name, as_json);
}
