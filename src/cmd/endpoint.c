/*
 * Names of running VMs (see endpoint.h).
 *
 * The lock file decides. It is removed by who holds its lock, so whoever has
 * locked one looks whether it is still the one that has the name.
 */
#define _GNU_SOURCE
#include "cmd/endpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ENDPOINT_PATH = 512, ENDPOINT_BACKLOG = 16, ENDPOINT_FILE = VM_NAME_MAX + 8 };
enum { ENDPOINT_SUFFIX = 5 }; /* .sock, which names may hold too */

static int PRINTF_LIKE(4, 5)
	endpoint_refuse(int error, char *why, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, size, fmt, args);
	va_end(args);
	return error;
}

/* ---- the folder ---- */

static bool
endpoint_is_mine(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

static void
endpoint_path(char *path, size_t size)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	char user[64];

	snprintf(user, sizeof(user), "/run/user/%u", (unsigned)geteuid());
	if (xdg && xdg[0] == '/')
		snprintf(path, size, "%s/biga", xdg);
	else if (endpoint_is_mine(user))
		snprintf(path, size, "%s/biga", user);
	else
		snprintf(path, size, "/tmp/biga-%u", (unsigned)geteuid());
}

/* A descriptor of the folder, which is made if MAKE says so. */
static int
endpoint_folder(bool make, char *why, size_t size)
{
	char path[ENDPOINT_PATH];
	struct stat st;
	int fd;

	endpoint_path(path, sizeof(path));
	if (make && mkdir(path, 0700) < 0 && errno != EEXIST)
		return endpoint_refuse(-errno, why, size,
				       "the folder for control sockets, %s, cannot be made: %s; "
				       "set XDG_RUNTIME_DIR to a folder of yours",
				       path, strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return endpoint_refuse(-errno, why, size,
				       "the folder for control sockets, %s, cannot be opened: %s; "
				       "set XDG_RUNTIME_DIR to a folder of yours",
				       path, strerror(errno));
	if (fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 077)) {
		close(fd);
		return endpoint_refuse(-EPERM, why, size,
				       "the folder for control sockets, %s, is open to others; "
				       "chmod 700 it, or remove it if it is not yours",
				       path);
	}
	return fd;
}

static void
endpoint_file(char file[ENDPOINT_FILE], const char *name, const char *kind)
{
	snprintf(file, ENDPOINT_FILE, "%s.%s", name, kind);
}

/* By the folder's descriptor: a socket's address has little room. */
static void
endpoint_address(struct sockaddr_un *address, int folder, const char *name)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%.*s.sock", folder,
		 VM_NAME_MAX, name);
}

/* ---- the lock ---- */

/* The lock of NAME: a descriptor, -EADDRINUSE if somebody has it, or another -errno. */
static int
endpoint_lock(int folder, const char *name)
{
	char file[ENDPOINT_FILE];
	struct stat mine, named;
	int fd;

	endpoint_file(file, name, "lock");
	for (;;) {
		fd = openat(folder, file, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			int error = errno == EWOULDBLOCK ? EADDRINUSE : errno;

			close(fd);
			return -error;
		}
		if (fstat(fd, &mine) == 0 && fstatat(folder, file, &named, 0) == 0 &&
		    mine.st_ino == named.st_ino && mine.st_dev == named.st_dev)
			return fd;
		close(fd); /* its last owner removed it meanwhile */
	}
}

/* With the lock held, which this releases. */
static void
endpoint_remove(int folder, const char *name, int lock)
{
	char file[ENDPOINT_FILE];

	endpoint_file(file, name, "sock");
	unlinkat(folder, file, 0);
	endpoint_file(file, name, "lock");
	unlinkat(folder, file, 0);
	close(lock);
}

/* ---- a VM's front ---- */

static int
endpoint_listen(struct endpoint *e, char *why, size_t size)
{
	struct sockaddr_un address;
	char file[ENDPOINT_FILE];
	mode_t mask;
	int rc;

	endpoint_file(file, e->name, "sock");
	unlinkat(e->folder, file, 0);
	endpoint_address(&address, e->folder, e->name);
	e->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(077);
	rc = e->listener < 0 ||
			     bind(e->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
			     listen(e->listener, ENDPOINT_BACKLOG) < 0
		     ? -errno
		     : 0;
	umask(mask);
	if (rc)
		return endpoint_refuse(rc, why, size, "the control socket cannot be made: %s",
				       strerror(-rc));
	return 0;
}

int
endpoint_open(struct endpoint *e, const char *name, char *why, size_t size)
{
	*e = (struct endpoint){.folder = -1, .lock = -1, .listener = -1};
	snprintf(e->name, sizeof(e->name), "%s", name);
	e->folder = endpoint_folder(true, why, size);
	if (e->folder < 0)
		return e->folder;
	e->lock = endpoint_lock(e->folder, name);
	if (e->lock == -EADDRINUSE)
		return endpoint_refuse(-EADDRINUSE, why, size,
				       "a VM named %s runs already; give another --name, or end "
				       "that one",
				       name);
	if (e->lock < 0)
		return endpoint_refuse(e->lock, why, size,
				       "the name %s cannot be taken: %s; give another --name", name,
				       strerror(-e->lock));
	return endpoint_listen(e, why, size);
}

void
endpoint_close(struct endpoint *e)
{
	if (e->listener >= 0)
		close(e->listener);
	if (e->lock >= 0)
		endpoint_remove(e->folder, e->name, e->lock);
	if (e->folder >= 0)
		close(e->folder);
	*e = (struct endpoint){.folder = -1, .lock = -1, .listener = -1};
}

/* ---- the others ---- */

int
endpoint_connect(const char *name, char *why, size_t size)
{
	int folder = endpoint_folder(false, why, size), fd, rc = 0;
	struct sockaddr_un address;

	if (folder < 0 && folder != -ENOENT)
		return folder;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (folder >= 0)
		endpoint_address(&address, folder, name);
	if (folder < 0)
		rc = folder;
	else if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		rc = errno == ECONNREFUSED ? -ENOENT : -errno;
	if (folder >= 0)
		close(folder);
	if (rc == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	if (rc == -ENOENT)
		return endpoint_refuse(rc, why, size,
				       "no VM named %s runs; `biga list` shows those that do",
				       name);
	return endpoint_refuse(rc, why, size, "the VM %s cannot be reached: %s; is it this user's?",
			       name, strerror(-rc));
}

static int
endpoint_is_socket(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return len > ENDPOINT_SUFFIX && strcmp(entry->d_name + len - ENDPOINT_SUFFIX, ".sock") == 0;
}

/* Whether the VM of that name may run; else what is left of it goes. */
static bool
endpoint_runs(int folder, const char *name)
{
	int lock = endpoint_lock(folder, name);

	if (lock < 0)
		return true;
	endpoint_remove(folder, name, lock);
	return false;
}

int
endpoint_list(void (*fn)(void *opaque, const char *name), void *opaque, char *why, size_t size)
{
	int folder = endpoint_folder(false, why, size), n, count = 0;
	struct dirent **entries;

	if (folder < 0)
		return folder == -ENOENT ? 0 : folder;
	n = scandirat(folder, ".", &entries, endpoint_is_socket, alphasort);
	for (int i = 0; i < n; i++) {
		char *name = entries[i]->d_name;

		name[strlen(name) - ENDPOINT_SUFFIX] = '\0';
		if (vm_name_valid(name) && endpoint_runs(folder, name)) {
			fn(opaque, name);
			count++;
		}
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
	close(folder);
	return count;
}
