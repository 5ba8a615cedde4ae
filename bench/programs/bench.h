/*
 * A benchmark program is a table of loops. `program NAME` runs one of them a
 * fixed number of times and prints its name, nanoseconds (CLOCK_MONOTONIC) and a
 * checksum of what was computed, which must be the same wherever it runs.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

struct bench {
	const char *name;
	uint64_t (*run)(uint64_t rounds); /* returns the checksum */
	uint64_t rounds;		  /* about 0.2 s on a bare machine of 2024 */
};

uint64_t bench_now(void);

/* Numbers that look random, the same everywhere (xorshift64*). */
static inline uint64_t
bench_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

/* main() of such a program: ARGV[1] a name, or "list". */
int bench_main(const struct bench *table, unsigned count, int argc, char **argv);

/* Prints what failed and exits: a benchmark that could not do its work has no time. */
void bench_fail(const char *what) __attribute__((noreturn));

#endif
