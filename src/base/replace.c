/*
 * Atomic replacement of files (see replace.h).
 */
#define _GNU_SOURCE
#include "base/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { REPLACE_TRIES = 100 };

static int
replace_create(const char *path, mode_t mode)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	return fd < 0 ? -errno : fd;
}

/* The folder of PATH: 0 or -errno. */
static int
replace_folder(const char *path, char folder[PATH_MAX])
{
	char copy[PATH_MAX];

	if ((size_t)snprintf(copy, sizeof(copy), "%s", path) >= sizeof(copy))
		return -ENAMETOOLONG;
	strcpy(folder, dirname(copy));
	return 0;
}

static int
replace_create_nameless(const char *path, mode_t mode)
{
	char folder[PATH_MAX];
	int fd, rc = replace_folder(path, folder);

	if (rc)
		return rc;
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
	return fd < 0 ? -errno : fd;
}

static int
replace_name(int fd, const char *path)
{
	char self[32];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static int
replace_sync(int fd)
{
	return fsync(fd) < 0 ? -errno : 0;
}

static int
replace_rename(const char *from, const char *to)
{
	return rename(from, to) < 0 ? -errno : 0;
}

static int
replace_sync_folder(const char *path)
{
	char folder[PATH_MAX];
	int fd, rc = replace_folder(path, folder);

	if (rc)
		return rc;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

static int
replace_unlink(const char *path)
{
	return unlink(path) < 0 ? -errno : 0;
}

const struct replace_ops replace_system = {.create = replace_create,
					   .create_nameless = replace_create_nameless,
					   .name = replace_name,
					   .sync = replace_sync,
					   .rename = replace_rename,
					   .sync_folder = replace_sync_folder,
					   .unlink = replace_unlink};

/* A name that is free, for the new file or a new file: that one's descriptor or 0, or -errno. */
static int
replace_take_name(struct replace *r, mode_t mode)
{
	int rc = -EEXIST;

	for (unsigned i = 0; rc == -EEXIST && i < REPLACE_TRIES; i++) {
		snprintf(r->fresh, sizeof(r->fresh), "%.*s.new-%d-%u", (int)sizeof(r->path) - 32,
			 r->path, (int)getpid(), i);
		rc = r->fd >= 0 ? r->ops->name(r->fd, r->fresh) : r->ops->create(r->fresh, mode);
	}
	r->named = rc >= 0;
	return rc;
}

int
replace_begin(struct replace *r, const struct replace_ops *ops, const char *path, mode_t mode)
{
	r->ops = ops;
	r->fd = -1;
	r->named = false;
	if (strlen(path) + 32 >= sizeof(r->path))
		return -ENAMETOOLONG;
	strcpy(r->path, path);
	r->fd = ops->create_nameless(path, mode);
	if (r->fd < 0) /* many file systems cannot */
		r->fd = replace_take_name(r, mode);
	return r->fd < 0 ? r->fd : 0;
}

void
replace_abort(struct replace *r)
{
	if (r->fd < 0)
		return;
	close(r->fd);
	if (r->named)
		r->ops->unlink(r->fresh);
	r->fd = -1;
}

int
replace_commit(struct replace *r)
{
	int rc = r->ops->sync(r->fd);

	if (rc == 0 && !r->named)
		rc = replace_take_name(r, 0);
	if (rc == 0)
		rc = r->ops->rename(r->fresh, r->path);
	if (rc) {
		replace_abort(r);
		return rc;
	}
	close(r->fd);
	r->fd = -1;
	return r->ops->sync_folder(r->path);
}

int
replace_file(const struct replace_ops *ops, const char *path, mode_t mode, const void *data,
	     size_t len)
{
	struct replace r;
	int rc = replace_begin(&r, ops, path, mode);
	ssize_t n;

	if (rc)
		return rc;
	n = write(r.fd, data, len);
	if (n == (ssize_t)len)
		return replace_commit(&r);
	rc = n < 0 ? -errno : -ENOSPC;
	replace_abort(&r);
	return rc;
}

int
replace_remove(const struct replace_ops *ops, const char *path)
{
	int rc = ops->unlink(path);

	return rc ? rc : ops->sync_folder(path);
}
