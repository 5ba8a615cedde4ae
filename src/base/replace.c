/*
 * Atomic replacement of files (see replace.h).
 */
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
	char copy[PATH_MAX];
	int fd, rc = 0;

	if ((size_t)snprintf(copy, sizeof(copy), "%s", path) >= sizeof(copy))
		return -ENAMETOOLONG;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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
					   .sync = replace_sync,
					   .rename = replace_rename,
					   .sync_folder = replace_sync_folder,
					   .unlink = replace_unlink};

int
replace_begin(struct replace *r, const struct replace_ops *ops, const char *path, mode_t mode)
{
	r->ops = ops;
	r->fd = -EEXIST;
	if (strlen(path) + 32 >= sizeof(r->path))
		return -ENAMETOOLONG;
	strcpy(r->path, path);
	for (unsigned i = 0; r->fd == -EEXIST && i < REPLACE_TRIES; i++) {
		snprintf(r->fresh, sizeof(r->fresh), "%.*s.new-%d-%u", (int)sizeof(r->path) - 32,
			 path, (int)getpid(), i);
		r->fd = ops->create(r->fresh, mode);
	}
	return r->fd < 0 ? r->fd : 0;
}

void
replace_abort(struct replace *r)
{
	if (r->fd < 0)
		return;
	close(r->fd);
	r->ops->unlink(r->fresh);
	r->fd = -1;
}

int
replace_commit(struct replace *r)
{
	int rc = r->ops->sync(r->fd);

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
