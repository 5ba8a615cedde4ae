/*
 * Integer names, and the few GNU C extensions that Biga uses, named once.
 */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define BIT(n) (1u << (n))
#define BIT64(n) (1ull << (n))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define NORETURN __attribute__((noreturn))
#define PACKED __attribute__((packed))
#define ALIGNED(n) __attribute__((aligned(n)))
#define UNUSED __attribute__((unused))
#define MUST_CHECK __attribute__((warn_unused_result))

static inline u64
align_down(u64 value, u64 power_of_two)
{
	return value & ~(power_of_two - 1);
}

static inline u64
align_up(u64 value, u64 power_of_two)
{
	return align_down(value + power_of_two - 1, power_of_two);
}

#endif
