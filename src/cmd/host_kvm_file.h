/*
 * Reading the host's small files. Every path lies beneath ROOT: "" is this host;
 * unit tests have a folder of their own, and nothing else has.
 */
#ifndef CMD_HOST_KVM_FILE_H
#define CMD_HOST_KVM_FILE_H

#include <stdio.h>

#include "base/types.h"

enum { HOST_PATH = 512 };

/* What could be found out: a state that cannot be read is not a "no". */
enum host_truth { HOST_UNKNOWN, HOST_NO, HOST_YES };

/* The bytes read, at most SIZE - 1, with a zero after them; or -errno, and BUF is "". */
int host_file_read(const char *root, const char *path, char *buf, size_t size);
/* The same of the first line alone, without its end. */
int host_file_line(const char *root, const char *path, char *buf, size_t size);
bool host_file_exists(const char *root, const char *path);
/* "0" or "N", "1" or "Y". */
enum host_truth host_file_flag(const char *root, const char *path);
/* Where a symbolic link leads. 0 or -errno, and BUF is "". */
int host_file_link(const char *root, const char *path, char *buf, size_t size);
/* To be closed by fclose; NULL if it cannot be opened. */
FILE *host_file_open(const char *root, const char *path);

/* Whether WORD stands in TEXT between blanks, commas or ends. */
bool host_text_has_word(const char *text, const char *word);
/* Adds ", WORD" (or WORD alone to an empty LIST). */
void host_text_add(char *list, size_t size, const char *word);
/* Cuts at SIZE; unlike strncpy it always ends the text. */
void host_text_copy(char *to, size_t size, const char *text);
/* What is not printable ASCII becomes '?': texts of files reach terminals and JSON. */
void host_text_clean(char *text);

#endif
