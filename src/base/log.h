/*
 * Messages for people, one line each, to a descriptor (standard error unless
 * told otherwise).  Threads may call at any time; a line is one write.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/types.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* Lines above LEVEL are dropped; the others go to FD. */
void log_setup(int fd, enum log_level level);
void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

/* Says a line the first time FLAG is seen false, and sets it. */
#define log_once(flag, level, ...)                                                                 \
	do {                                                                                       \
		if (!(flag)) {                                                                     \
			(flag) = true;                                                             \
			log_line((level), __VA_ARGS__);                                            \
		}                                                                                  \
	} while (0)

#endif
