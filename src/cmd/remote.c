/*
 * Reaching a running VM (see remote.h).
 */
#include "cmd/remote.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "cmd/endpoint.h"

int
remote_open(struct client **out, const char *name)
{
	char why[VM_WHY];
	int fd;

	if (!vm_name_valid(name)) {
		log_error("'%.80s' cannot be a VM's name; `biga list` shows those that run", name);
		return EXIT_USAGE;
	}
	fd = endpoint_connect(name, why, sizeof(why));
	if (fd < 0) {
		log_error("%s", why);
		return EXIT_USAGE;
	}
	if (client_create(out, fd, why, sizeof(why))) {
		log_error("%s", why);
		return REMOTE_REFUSED;
	}
	return 0;
}

int
remote_call(struct client *client, json_t *request, int fd, json_t **reply)
{
	char why[VM_WHY];
	json_t *got = NULL;

	if (client_call(client, request, &fd, fd >= 0 ? 1 : 0, &got, REMOTE_TIMEOUT_MS, why,
			sizeof(why))) {
		log_error("%s", why);
		return REMOTE_REFUSED;
	}
	if (reply)
		*reply = got;
	else
		json_decref(got);
	return 0;
}

int
remote_do(const char *name, const char *command, json_t **reply)
{
	struct client *client;
	int status = remote_open(&client, name);

	if (status)
		return status;
	status = remote_call(client, json_pack("{s:s}", "do", command), -1, reply);
	client_destroy(client);
	return status;
}

const char *
remote_name(int argc, char **argv, const char *help, int *status)
{
	*status = EXIT_USAGE;
	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(help, stdout);
		*status = 0;
		return NULL;
	}
	if (argc != 2 || argv[1][0] == '-') {
		log_error("%s takes one VM's name; see biga %s --help", argv[0], argv[0]);
		return NULL;
	}
	return argv[1];
}
