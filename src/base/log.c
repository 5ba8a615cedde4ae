/*
 * A line is formatted on the stack and leaves in one write, so that lines of
 * threads and processes that share a descriptor do not mix. Control characters
 * are replaced: parts of a line may come from a guest.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_LINE_MAX = 1024 };

static atomic_int log_fd = STDERR_FILENO;
static atomic_int log_highest = LOG_WARNING;

static const char *const log_prefixes[] = {
	[LOG_ERROR] = "biga: ",
	[LOG_WARNING] = "biga: warning: ",
	[LOG_INFO] = "biga: ",
	[LOG_DEBUG] = "biga: debug: ",
};

void
log_setup(int fd, enum log_level level)
{
	atomic_store(&log_fd, fd);
	atomic_store(&log_highest, (int)level);
}

static void
log_write(const char *line, size_t len)
{
	int fd = atomic_load(&log_fd);
	ssize_t n;

	while (len > 0) {
		n = write(fd, line, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		line += n;
		len -= (size_t)n;
	}
}

static void
log_clean(char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text[i] = '?';
	}
}

void
log_line(enum log_level level, const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	size_t prefix, len;
	int saved = errno;
	va_list args;
	int n;

	if ((int)level > atomic_load_explicit(&log_highest, memory_order_relaxed))
		return;
	prefix = strlen(log_prefixes[level]);
	memcpy(line, log_prefixes[level], prefix);
	errno = saved; /* for %m */
	va_start(args, fmt);
	n = vsnprintf(line + prefix, sizeof(line) - prefix - 1, fmt, args);
	va_end(args);
	len = prefix + (n < 0 ? 0 : (size_t)n);
	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	log_clean(line, len);
	line[len++] = '\n';
	log_write(line, len);
	errno = saved;
}
