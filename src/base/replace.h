/*
 * Putting a whole file in another's place: write-new, fsync, rename, fsync of the
 * folder. A crash or an error at any point leaves the old file or the new one,
 * never a mixture. Where the file system can, the new one has no name until it is
 * whole, so that whoever is killed while writing leaves no litter.
 */
#ifndef BASE_REPLACE_H
#define BASE_REPLACE_H

#include <limits.h>
#include <sys/types.h>

#include "base/types.h"

/* The system's calls, so that tests can make them fail: 0 (a descriptor) or -errno. */
struct replace_ops {
	int (*create)(const char *path, mode_t mode); /* which must not exist: read and write */
	int (*create_nameless)(const char *path, mode_t mode); /* in the folder that PATH is in */
	int (*name)(int fd, const char *path); /* what has none; PATH must not exist */
	int (*sync)(int fd);
	int (*rename)(const char *from, const char *to);
	int (*sync_folder)(const char *path); /* the one that PATH is in */
	int (*unlink)(const char *path);
};

extern const struct replace_ops replace_system;

struct replace {
	const struct replace_ops *ops;
	int fd;	    /* the new file, to be written */
	bool named; /* it is FRESH */
	char path[PATH_MAX], fresh[PATH_MAX];
};

/* Makes the new file, to stand beside PATH. 0 or -errno. */
int replace_begin(struct replace *r, const struct replace_ops *ops, const char *path, mode_t mode);
/* 0: PATH is the new file, and durable. -errno: it is not known to be; the new one is gone if it
 * did not get its place. Closes in either case. */
int replace_commit(struct replace *r);
/* PATH stays as it was, the new file is gone. */
void replace_abort(struct replace *r);

/* LEN bytes as PATH: 0 or -errno. */
int replace_file(const struct replace_ops *ops, const char *path, mode_t mode, const void *data,
		 size_t len);
/* PATH is gone, durably. -ENOENT if it was not there, or another -errno. */
int replace_remove(const struct replace_ops *ops, const char *path);

#endif
