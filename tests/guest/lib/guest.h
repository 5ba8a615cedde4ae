/*
 * What every bare-metal guest has: integers, output on the first serial port,
 * checks, and the way out. A guest defines guest_main(); when that returns, the
 * machine ends through isa-debug-exit with 0, or 1 if a check failed.
 *
 * Guests are 32-bit (multiboot, no paging at first) or 64-bit (PVH, the first
 * 4 GiB mapped one to one), from the same library.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int32_t i32;
typedef int64_t i64;
typedef uintptr_t uptr;

#define PACKED __attribute__((packed))
#define ALIGNED(n) __attribute__((aligned(n)))
#define NOINLINE __attribute__((noinline))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define BARRIER() __asm__ volatile("" ::: "memory")

/* Code and data of CPL 3. Such functions call nothing outside the section. */
#define USER_CODE __attribute__((section(".user"), noinline, used))
#define USER_DATA __attribute__((section(".user_data"), used))

void guest_main(void);
extern const char guest_name[];
/* What the loader left: EAX and EBX at entry (multiboot magic and information, PVH start_info). */
extern u32 guest_boot_eax, guest_boot_ebx;

/* %s %c %d %u %x %lx (uptr) %llx; no widths. Safe from any CPU, a line at a time. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

__attribute__((noreturn)) void guest_exit(u8 value);

/* Counts a check; prints a line if it failed. */
void check_true(bool good, const char *file, int line, const char *what);
void check_equal(u64 got, u64 want, const char *file, int line, const char *what);

#define CHECK(condition) check_true(!!(condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(got, want) check_equal((u64)(got), (u64)(want), __FILE__, __LINE__, #got)

/* Whether this is QEMU's TCG. It deviates from the manuals in known places; a check that it
 * fails is made under !guest_on_tcg(), with the reason beside it. */
bool guest_on_tcg(void);

/* Whether KVM runs us, which the command line says ("on-kvm"): nothing else tells. What its
 * emulation lacks or does otherwise is left out, with the reason beside it. */
bool guest_on_kvm(void);

/* Says in the log that a part cannot be tried on this machine. */
void check_skip(const char *what);

void *memcpy(void *to, const void *from, size_t len);
void *memset(void *to, int byte, size_t len);
int memcmp(const void *a, const void *b, size_t len);

#endif
