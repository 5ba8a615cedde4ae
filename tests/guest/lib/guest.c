/*
 * Output, checks and the way out (see guest.h).
 */
#include "lib/cpu.h"
#include "lib/guest.h"

enum { SERIAL = 0x3f8, SERIAL_LSR = SERIAL + 5, LSR_THRE = 0x20, DEBUG_EXIT = 0xf4 };

static u32 guest_checks, guest_failures;
static u32 guest_print_lock;

u32 guest_boot_eax, guest_boot_ebx;

static void
guest_putc(char c)
{
	while (!(inb(SERIAL_LSR) & LSR_THRE))
		;
	outb(SERIAL, (u8)c);
}

static void
guest_puts(const char *s)
{
	while (*s)
		guest_putc(*s++);
}

static void
guest_put_hex(u64 value)
{
	int shift = 60;

	while (shift > 0 && !(value >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		guest_putc("0123456789abcdef"[(value >> shift) & 15]);
}

static void
guest_put_decimal(u32 value)
{
	char digits[12];
	int n = 0;

	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	while (n)
		guest_putc(digits[--n]);
}

static u64
guest_next_number(va_list *args, int longs)
{
	if (longs >= 2)
		return va_arg(*args, unsigned long long);
	if (longs == 1)
		return va_arg(*args, unsigned long);
	return va_arg(*args, unsigned);
}

static void
guest_put_value(char kind, int longs, va_list *args)
{
	u64 value;

	switch (kind) {
	case 's':
		guest_puts(va_arg(*args, const char *));
		return;
	case 'c':
		guest_putc((char)va_arg(*args, int));
		return;
	case 'd':
	case 'u':
	case 'x':
		break;
	default:
		guest_putc(kind);
		return;
	}
	value = guest_next_number(args, longs);
	if (kind == 'x') {
		guest_put_hex(value);
		return;
	}
	if (kind == 'd' && (i32)value < 0) {
		guest_putc('-');
		value = (u64) - (i64)(i32)value;
	}
	guest_put_decimal((u32)value);
}

void
print(const char *format, ...)
{
	va_list args;

	while (__atomic_exchange_n(&guest_print_lock, 1, __ATOMIC_ACQUIRE))
		cpu_pause();
	va_start(args, format);
	for (; *format; format++) {
		int longs = 0;

		if (*format == '\n')
			guest_putc('\r');
		if (*format != '%') {
			guest_putc(*format);
			continue;
		}
		for (format++; *format == 'l'; format++)
			longs++;
		guest_put_value(*format, longs, &args);
	}
	va_end(args);
	__atomic_store_n(&guest_print_lock, 0, __ATOMIC_RELEASE);
}

void
guest_exit(u8 value)
{
	outb(DEBUG_EXIT, value);
	for (;;)
		__asm__ volatile("cli; hlt");
}

void
check_true(bool good, const char *file, int line, const char *what)
{
	__atomic_add_fetch(&guest_checks, 1, __ATOMIC_RELAXED);
	if (good)
		return;
	__atomic_add_fetch(&guest_failures, 1, __ATOMIC_RELAXED);
	print("FAIL %s:%d: %s\n", file, line, what);
}

void
check_equal(u64 got, u64 want, const char *file, int line, const char *what)
{
	__atomic_add_fetch(&guest_checks, 1, __ATOMIC_RELAXED);
	if (got == want)
		return;
	__atomic_add_fetch(&guest_failures, 1, __ATOMIC_RELAXED);
	print("FAIL %s:%d: %s is 0x%llx, not 0x%llx\n", file, line, what, (unsigned long long)got,
	      (unsigned long long)want);
}

bool
guest_on_tcg(void)
{
	/* "TCGT" of TCG itself; " TCG" in the brand string where a hypervisor runs on it. */
	return ((cpu_cpuid(1, 0).c & 1u << 31) && cpu_cpuid(0x40000000, 0).b == 0x54474354) ||
	       cpu_cpuid(0x80000002, 0).b == 0x47435420;
}

static bool guest_kvm;

bool
guest_on_kvm(void)
{
	return guest_kvm;
}

/* Before anything has changed memory's first MiB. PVH has its start information in EBX,
 * multiboot its own. */
static const char *
guest_command_line(void)
{
	const u32 *info = (const u32 *)(uptr)guest_boot_ebx;

	if (guest_boot_eax == 0x2badb002)
		return info[0] & 4 ? (const char *)(uptr)info[4] : "";
	return info[0] == 0x336ec578 && info[6] ? (const char *)(uptr)info[6] : "";
}

static bool
guest_has_word(const char *text, const char *word)
{
	size_t len = 0;

	while (word[len])
		len++;
	for (; *text; text++) {
		if (memcmp(text, word, len) == 0)
			return true;
	}
	return false;
}

void
check_skip(const char *what)
{
	print("skip: %s\n", what);
}

/* Called by start-up code. */
__attribute__((noreturn)) void guest_start(u32 eax, u32 ebx);

void
guest_start(u32 eax, u32 ebx)
{
	guest_boot_eax = eax;
	guest_boot_ebx = ebx;
	guest_kvm = guest_has_word(guest_command_line(), "on-kvm");
	outb(0x21, 0xff); /* firmware may have left the PIC's timer running */
	outb(0xa1, 0xff);
	guest_main();
	print("%s: %s, %u checks, %u failed\n", guest_name, guest_failures ? "FAILED" : "ok",
	      guest_checks, guest_failures);
	guest_exit(guest_failures ? 1 : 0);
}

void *
memcpy(void *to, const void *from, size_t len)
{
	void *d = to;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(len) : : "memory");
	return to;
}

void *
memset(void *to, int byte, size_t len)
{
	void *d = to;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(len) : "a"(byte) : "memory");
	return to;
}

int
memcmp(const void *a, const void *b, size_t len)
{
	const u8 *x = a, *y = b;

	for (; len; len--, x++, y++)
		if (*x != *y)
			return *x < *y ? -1 : 1;
	return 0;
}
