/*
 * The host's monotonic clock (CLOCK_MONOTONIC): never goes back, has no zero that means anything.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <time.h>

#include "base/types.h"

static inline u64
clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000000u + (u64)now.tv_nsec;
}

static inline i64
clock_now_ms(void)
{
	return (i64)(clock_now_ns() / 1000000);
}

#endif
