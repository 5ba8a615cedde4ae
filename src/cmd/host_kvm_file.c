/*
 * Reading the host's small files (see host_kvm_file.h).
 */
#define _GNU_SOURCE
#include "cmd/host_kvm_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int
host_file_path(char *out, size_t size, const char *root, const char *path)
{
	return (size_t)snprintf(out, size, "%s%s", root, path) < size ? 0 : -ENAMETOOLONG;
}

static int
host_file_fd(const char *root, const char *path)
{
	char full[HOST_PATH * 2];
	int fd;

	if (host_file_path(full, sizeof(full), root, path) < 0)
		return -ENAMETOOLONG;
	/* What is meant to be a file may be a FIFO. */
	fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

int
host_file_read(const char *root, const char *path, char *buf, size_t size)
{
	int fd = host_file_fd(root, path);
	size_t len = 0;
	ssize_t n = 0;

	buf[0] = '\0';
	if (fd < 0)
		return fd;
	while (len + 1 < size && (n = read(fd, buf + len, size - 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0 && len == 0)
		n = -errno;
	close(fd);
	buf[len] = '\0';
	return n < 0 && len == 0 ? (int)n : (int)len;
}

int
host_file_line(const char *root, const char *path, char *buf, size_t size)
{
	int n = host_file_read(root, path, buf, size);

	buf[strcspn(buf, "\n")] = '\0';
	return n < 0 ? n : (int)strlen(buf);
}

bool
host_file_exists(const char *root, const char *path)
{
	char full[HOST_PATH * 2];

	return host_file_path(full, sizeof(full), root, path) == 0 && access(full, F_OK) == 0;
}

enum host_truth
host_file_flag(const char *root, const char *path)
{
	char text[8];

	if (host_file_line(root, path, text, sizeof(text)) < 0)
		return HOST_UNKNOWN;
	if (text[0] == '1' || text[0] == 'Y')
		return HOST_YES;
	return text[0] == '0' || text[0] == 'N' ? HOST_NO : HOST_UNKNOWN;
}

int
host_file_link(const char *root, const char *path, char *buf, size_t size)
{
	char full[HOST_PATH * 2];
	ssize_t n;

	buf[0] = '\0';
	if (host_file_path(full, sizeof(full), root, path) < 0)
		return -ENAMETOOLONG;
	n = readlink(full, buf, size - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return 0;
}

FILE *
host_file_open(const char *root, const char *path)
{
	int fd = host_file_fd(root, path);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

	if (file == NULL && fd >= 0)
		close(fd);
	return file;
}

bool
host_text_has_word(const char *text, const char *word)
{
	static const char between[] = " \t\n,";
	size_t len = strlen(word), n;

	while (*text) {
		text += strspn(text, between);
		n = strcspn(text, between);
		if (n == len && n > 0 && memcmp(text, word, n) == 0)
			return true;
		text += n;
	}
	return false;
}

void
host_text_add(char *list, size_t size, const char *word)
{
	size_t len = strlen(list);

	snprintf(list + len, size - len, "%s%s", len ? ", " : "", word);
}

void
host_text_copy(char *to, size_t size, const char *text)
{
	size_t len = strnlen(text, size - 1);

	memcpy(to, text, len);
	to[len] = '\0';
}

void
host_text_clean(char *text)
{
	for (; *text; text++) {
		if (*text < ' ' || *text > '~')
			*text = '?';
	}
}
