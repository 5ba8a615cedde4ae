/*
 * `biga pause` and `biga unpause`: a running VM's processors stand still, and go on.
 */
#include <stddef.h>

#include "cmd/commands.h"
#include "cmd/remote.h"

static const char pause_help[] =
	"Usage: biga pause NAME\n"
	"Stops the processors of the running VM NAME. Its devices, and the clock that the guest\n"
	"sees, go on. Harmless if it is paused already.\n"
	"\n"
	"Exit status: 0 done; 1 the VM refused or did not answer; 2 no such VM, or wrong usage.\n";

static const char unpause_help[] =
	"Usage: biga unpause NAME\n"
	"Lets the processors of the paused VM NAME go on. Harmless if it runs.\n"
	"\n"
	"Exit status: 0 done; 1 the VM refused or did not answer; 2 no such VM, or wrong usage.\n";

int
cmd_pause(int argc, char **argv)
{
	int status;
	const char *name = remote_name(argc, argv, pause_help, &status);

	return name ? remote_do(name, "pause", NULL) : status;
}

int
cmd_unpause(int argc, char **argv)
{
	int status;
	const char *name = remote_name(argc, argv, unpause_help, &status);

	return name ? remote_do(name, "resume", NULL) : status;
}
