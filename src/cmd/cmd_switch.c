/*
 * `biga switch`: a running VM moves to another hypervisor.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "cmd/host_kvm_choose.h"
#include "cmd/remote.h"

static const char switch_help[] =
	"Usage: biga switch NAME kvm|kvm,force|biga\n"
	"Moves the running VM NAME to the host's hypervisor, or to Biga's own. The guest goes on\n"
	"at the instruction where it was, with its devices, connections and clocks; it is not\n"
	"rebooted. If the other hypervisor cannot run it, it goes on where it is. kvm is tested\n"
	"before, unless it is forced.\n"
	"\n"
	"Exit status: 0 it has moved; 1 it has not, and the reason was said; 2 no such VM, wrong\n"
	"usage, or kvm cannot be used.\n";

static int
switch_call(struct client *client, const char *name, const char *to)
{
	json_t *reply;
	int status;

	status = remote_call(client, json_pack("{s:s, s:s}", "do", "switch", "to", to), -1, &reply);
	if (status)
		return status;
	printf("%s moved from %s to %s; it stood still for %.1f ms\n", name,
	       json_string_value(json_object_get(reply, "from")),
	       json_string_value(json_object_get(reply, "to")),
	       (double)json_integer_value(json_object_get(reply, "pause-ns")) / 1e6);
	json_decref(reply);
	return 0;
}

/* The VM process opens nothing itself, and does not move to what fails its test. */
static int
switch_give_kvm(struct client *client, const char *wanted)
{
	struct host_choice choice;
	int status;

	if (host_choose(&choice, wanted, host_kvm_engine(), "") < 0) {
		log_error("%s", choice.line);
		return EXIT_USAGE;
	}
	if (choice.warn)
		log_warning("%s", choice.line);
	status = remote_call(client, json_pack("{s:s, s:s}", "do", "give", "what", "kvm"),
			     choice.device, NULL);
	close(choice.device);
	return status;
}

static bool
switch_known(const char *to)
{
	return strcmp(to, "kvm") == 0 || strcmp(to, "kvm,force") == 0 || strcmp(to, "biga") == 0;
}

int
cmd_switch(int argc, char **argv)
{
	struct client *client;
	int status;

	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(switch_help, stdout);
		return 0;
	}
	if (argc != 3 || !switch_known(argv[2])) {
		log_error("switch takes a VM's name and kvm or biga; see biga switch --help");
		return EXIT_USAGE;
	}
	status = remote_open(&client, argv[1]);
	if (status)
		return status;
	if (strcmp(argv[2], "biga") != 0)
		status = switch_give_kvm(client, argv[2]);
	if (status == 0)
		status = switch_call(client, argv[1], argv[2]);
	client_destroy(client);
	return status;
}
