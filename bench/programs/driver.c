/*
 * Runs jobs and prints what they took, the same way on the bare machine and in a
 * guest:
 *
 *	driver JOBS REPEAT
 *
 * A line of JOBS is "group<TAB>name<TAB>kind<TAB>command". A "shell" job is timed
 * here (CLOCK_MONOTONIC, from fork to exit) and its output is digested; a "self"
 * job is a benchmark program that prints its own time and checksum; a "setup" job
 * is not timed. The best of REPEAT runs counts. Output, a line a job:
 *
 *	RESULT group name seconds checksum
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

struct run {
	uint64_t ns;
	uint64_t sum;
	char line[256]; /* the last line printed */
};

static void
digest(struct run *run, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		run->sum = (run->sum ^ (uint8_t)data[i]) * 0x100000001b3ull;
	if (len < sizeof(run->line)) {
		memcpy(run->line, data, len);
		run->line[len] = 0;
	}
}

/* 0, or -1 if the command could not run or failed. */
static int
run_command(const char *command, struct run *run)
{
	int fds[2], status;
	static char buf[65536];
	ssize_t n;
	uint64_t start = bench_now();
	pid_t pid;

	*run = (struct run){.sum = 0xcbf29ce484222325ull};
	if (pipe(fds))
		return -1;
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], 1);
		close(fds[0]);
		close(fds[1]);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	while ((n = read(fds[0], buf, sizeof(buf))) > 0)
		digest(run, buf, (size_t)n);
	close(fds[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	run->ns = bench_now() - start;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static int
parse_self(struct run *run)
{
	char name[64];

	return sscanf(run->line, "%63s %" SCNu64 " %" SCNx64, name, &run->ns, &run->sum) == 3 ? 0
											      : -1;
}

static void
do_job(char *line, int repeat)
{
	char *group = strtok(line, "\t"), *name = strtok(NULL, "\t");
	char *kind = strtok(NULL, "\t"), *command = strtok(NULL, "\n");
	struct run run, best = {.ns = UINT64_MAX};

	if (!command)
		return;
	if (!strcmp(kind, "setup"))
		repeat = 1;
	for (int i = 0; i < repeat; i++) {
		if (run_command(command, &run) || (!strcmp(kind, "self") && parse_self(&run))) {
			printf("FAILED %s %s\n", group, name);
			return;
		}
		if (run.ns < best.ns)
			best = run;
	}
	if (strcmp(kind, "setup"))
		printf("RESULT %s %s %.6f %016" PRIx64 "\n", group, name, (double)best.ns * 1e-9,
		       best.sum);
}

int
main(int argc, char **argv)
{
	static char line[4096];
	uint64_t start = bench_now();
	FILE *jobs;

	if (argc != 3 || !(jobs = fopen(argv[1], "r"))) {
		fprintf(stderr, "usage: driver JOBS REPEAT\n");
		return 2;
	}
	/* The reader of this takes the time of these two lines by its own clock. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("BENCH-BEGIN\n");
	while (fgets(line, sizeof(line), jobs))
		do_job(line, atoi(argv[2]));
	printf("BENCH-END %.3f\n", (double)(bench_now() - start) * 1e-9);
	return 0;
}
