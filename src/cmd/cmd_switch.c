/*
 * `biga switch`: a running VM moves to another hypervisor.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "cmd/remote.h"

static const char switch_help[] =
	"Usage: biga switch NAME kvm|biga\n"
	"Moves the running VM NAME to the host's hypervisor, or to Biga's own. The guest goes on\n"
	"at the instruction where it was, with its devices, connections and clocks; it is not\n"
	"rebooted. If the other hypervisor cannot run it, it goes on where it is. kvm,force does\n"
	"not test the host's hypervisor first.\n"
	"\n"
	"Exit status: 0 it has moved; 1 it has not, and the reason was said; 2 no such VM, wrong\n"
	"usage, or no /dev/kvm.\n";

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

/* The VM process opens nothing itself. */
static int
switch_give_kvm(struct client *client)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), status;

	if (fd < 0) {
		log_error("/dev/kvm cannot be opened: %s; see biga doctor", strerror(errno));
		return EXIT_USAGE;
	}
	status =
		remote_call(client, json_pack("{s:s, s:s}", "do", "give", "what", "kvm"), fd, NULL);
	close(fd);
	return status;
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
	if (argc != 3 || (strcmp(argv[2], "kvm") != 0 && strcmp(argv[2], "kvm,force") != 0 &&
			  strcmp(argv[2], "biga") != 0)) {
		log_error("switch takes a VM's name and kvm or biga; see biga switch --help");
		return EXIT_USAGE;
	}
	status = remote_open(&client, argv[1]);
	if (status)
		return status;
	if (strncmp(argv[2], "kvm", 3) == 0)
		status = switch_give_kvm(client);
	if (status == 0)
		status = switch_call(client, argv[1], argv[2]);
	client_destroy(client);
	return status;
}
