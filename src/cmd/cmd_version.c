/*
 * `biga version`: the release, and what it was built with.
 */
#include <stdio.h>

#include "base/types.h"
#include "cmd/commands.h"
#include "cmd/version.h"
#include "vm/protocol.h"

int
cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("biga %s (control protocol %d)\n", BIGA_VERSION, PROTOCOL_VERSION);
	return fflush(stdout) == 0 ? 0 : EXIT_USAGE;
}
