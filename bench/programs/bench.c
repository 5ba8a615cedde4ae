/*
 * What all benchmark programs share: the clock and the table's main.
 */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t
bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void
bench_fail(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int
bench_one(const struct bench *b, uint64_t percent)
{
	uint64_t rounds = b->rounds * percent / 100;
	uint64_t start = bench_now();
	uint64_t sum = b->run(rounds ? rounds : 1);
	uint64_t end = bench_now();

	printf("%s %" PRIu64 " %016" PRIx64 "\n", b->name, end - start, sum);
	return 0;
}

int
bench_main(const struct bench *table, unsigned count, int argc, char **argv)
{
	/* A second argument scales the rounds, in percent: for quick tries. */
	uint64_t percent = argc > 2 ? strtoull(argv[2], NULL, 10) : 100;

	if (argc < 2) {
		fprintf(stderr, "usage: %s NAME|list [PERCENT]\n", argv[0]);
		return 2;
	}
	for (unsigned i = 0; i < count; i++) {
		if (!strcmp(argv[1], "list"))
			puts(table[i].name);
		else if (!strcmp(argv[1], table[i].name))
			return bench_one(&table[i], percent);
	}
	return strcmp(argv[1], "list") ? 2 : 0;
}
