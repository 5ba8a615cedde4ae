/*
 * Marks of disks (see disk_mark.h).
 */
#include "cmd/disk_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/replace.h"

#define MARK_ATTRIBUTE "user.biga.generation"
enum { MARK_DIGITS = DISK_MARK - 1 };

int
disk_mark_new(char mark[DISK_MARK])
{
	u8 bytes[MARK_DIGITS / 2];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return -EIO;
	for (unsigned i = 0; i < sizeof(bytes); i++)
		snprintf(mark + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}

static bool
mark_valid(const char *mark, size_t len)
{
	return len == MARK_DIGITS && strspn(mark, "0123456789abcdef") >= MARK_DIGITS;
}

bool
disk_mark_valid(const char *mark)
{
	return mark && mark_valid(mark, strlen(mark));
}

static bool
mark_beside_path(const char *path, char *beside, size_t size)
{
	return (size_t)snprintf(beside, size, "%s.biga", path) < size;
}

/* The file beside it, which may be of another disk that had this path. */
static void
mark_get_beside(int fd, const char *path, char mark[DISK_MARK])
{
	char beside[PATH_MAX], text[DISK_MARK];
	unsigned long long inode;
	struct stat st;
	FILE *f;

	if (!mark_beside_path(path, beside, sizeof(beside)) || fstat(fd, &st) < 0)
		return;
	f = fopen(beside, "re");
	if (f == NULL)
		return;
	if (fscanf(f, "%32s %llu", text, &inode) == 2 && inode == st.st_ino &&
	    mark_valid(text, strlen(text)))
		memcpy(mark, text, DISK_MARK);
	fclose(f);
}

void
disk_mark_get(int fd, const char *path, char mark[DISK_MARK])
{
	char text[DISK_MARK] = "";
	ssize_t n = fgetxattr(fd, MARK_ATTRIBUTE, text, MARK_DIGITS);

	mark[0] = '\0';
	if (n > 0 && mark_valid(text, (size_t)n))
		memcpy(mark, text, DISK_MARK);
	else if (n < 0)
		mark_get_beside(fd, path, mark);
}

static int
mark_refuse(int error, const char *path, const char *what, char *why, size_t why_size)
{
	snprintf(why, why_size,
		 "disk '%s' cannot be %s: %s; move it to a file system with extended attributes, "
		 "or into a folder that can be written to",
		 path, what, strerror(-error));
	return error;
}

static int
mark_set_beside(int fd, const char *path, const char *mark)
{
	char beside[PATH_MAX], text[64];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!mark_beside_path(path, beside, sizeof(beside)))
		return -ENAMETOOLONG;
	snprintf(text, sizeof(text), "%s %llu\n", mark, (unsigned long long)st.st_ino);
	return replace_file(&replace_system, beside, 0600, text, strlen(text));
}

int
disk_mark_set(const char *path, const char mark[DISK_MARK], char *why, size_t why_size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return mark_refuse(-errno, path, "marked", why, why_size);
	if (fsetxattr(fd, MARK_ATTRIBUTE, mark, MARK_DIGITS, 0) < 0)
		rc = mark_set_beside(fd, path, mark);
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	close(fd);
	return rc ? mark_refuse(rc, path, "marked", why, why_size) : 0;
}

static int
mark_clear_beside(const char *path)
{
	char beside[PATH_MAX];
	int rc;

	if (!mark_beside_path(path, beside, sizeof(beside)) || access(beside, F_OK) < 0)
		return 0;
	rc = replace_remove(&replace_system, beside);
	return rc == -ENOENT ? 0 : rc;
}

int
disk_mark_clear(const char *path, char *why, size_t why_size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), rc = 0;
	char byte;

	if (fd < 0)
		return mark_refuse(-errno, path, "cleared of its mark", why, why_size);
	if (fgetxattr(fd, MARK_ATTRIBUTE, &byte, 0) >= 0 &&
	    (fremovexattr(fd, MARK_ATTRIBUTE) < 0 || fsync(fd) < 0))
		rc = -errno;
	close(fd);
	if (rc == 0)
		rc = mark_clear_beside(path);
	return rc ? mark_refuse(rc, path, "cleared of its mark", why, why_size) : 0;
}
