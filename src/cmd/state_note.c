/*
 * The front's part of a state's note (see state_note.h).
 *
 *	{"net": "user,...", "kernel": PATH, "initrds": [PATH],
 *	 "disks": [{"path": PATH, "size": N, "mark": MARK}]}
 *
 * A disk that is only read has no mark: "inode" and "mtime" (ns) stand for it.
 */
#include "cmd/state_note.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/disk_mark.h"
#include "machine/machine.h"
#include "state/file.h"
#include "vm/protocol.h"

static int PRINTF_LIKE(4, 5) note_refuse(int error, char *why, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, size, fmt, args);
	va_end(args);
	return error;
}

/* ---- making one ---- */

static json_t *
note_path(const char *path)
{
	char whole[PATH_MAX];

	return json_string(path && realpath(path, whole) ? whole : path ? path : "");
}

static u64
note_disk_size(int fd, const struct stat *st)
{
	u64 bytes = (u64)st->st_size;

	if (S_ISBLK(st->st_mode) && ioctl(fd, BLKGETSIZE64, &bytes) < 0)
		return 0;
	return bytes;
}

static json_t *
note_disk(const struct vm_disk *disk)
{
	json_t *note = json_pack("{s:o}", "path", note_path(disk->path));
	char mark[DISK_MARK];
	struct stat st;
	int fd = open(disk->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		memset(&st, 0, sizeof(st));
	json_object_set_new(note, "size", json_integer((json_int_t)note_disk_size(fd, &st)));
	if (disk->readonly) {
		json_object_set_new(note, "inode", json_integer((json_int_t)st.st_ino));
		json_object_set_new(note, "mtime",
				    json_integer((json_int_t)(st.st_mtim.tv_sec * 1000000000ll +
							      st.st_mtim.tv_nsec)));
	} else if (disk_mark_new(mark) == 0) {
		json_object_set_new(note, "mark", json_string(mark));
	}
	if (fd >= 0)
		close(fd);
	return note;
}

/* What --net would have to be given. */
static json_t *
note_net(const struct run_options *o)
{
	const u8 *m = o->config.mac;
	char text[NET_FORWARDS_MAX * 80 + 128];
	size_t n;

	if (!o->config.net)
		return json_string("none");
	n = (size_t)snprintf(text, sizeof(text),
			     "user,hostloop=%s,ipv6=%s,mac=%02x:%02x:%02x:%02x:%02x:%02x",
			     o->host_loopback ? "on" : "off", o->ipv6 ? "on" : "off", m[0], m[1],
			     m[2], m[3], m[4], m[5]);
	for (unsigned i = 0; i < o->forward_count && n < sizeof(text); i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, ",forward=%s", o->forwards[i]);
	return json_string(text);
}

json_t *
state_note_host(const struct run_options *o)
{
	const struct vm_config *c = &o->config;
	json_t *initrds = json_array(), *disks = json_array();

	for (unsigned i = 0; i < c->initrd_count; i++)
		json_array_append_new(initrds, note_path(c->initrds[i]));
	for (unsigned i = 0; i < c->disk_count; i++)
		json_array_append_new(disks, note_disk(&c->disks[i]));
	return json_pack("{s:o, s:o, s:o, s:o}", "net", note_net(o), "kernel", note_path(c->kernel),
			 "initrds", initrds, "disks", disks);
}

/* ---- reading one ---- */

/* The note of the state in FD, from its start: a new reference, or NULL and WHY. */
static json_t *
note_load(int fd, char *why, size_t size)
{
	struct state_io io = state_io_fd(fd);
	json_error_t error;
	char *text = NULL;
	json_t *note;

	if (lseek(fd, 0, SEEK_SET) != 0) {
		note_refuse(-EINVAL, why, size, "it is no regular file");
		return NULL;
	}
	if (machine_peek(&io, &text, NULL, NULL, why, size))
		return NULL;
	note = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	free(text);
	if (json_integer_value(json_object_get(note, PROTOCOL_NAME)) == 1)
		return note;
	note_refuse(-EINVAL, why, size, "the state does not say what it is of");
	json_decref(note);
	return NULL;
}

static int
note_take_path(char **to, const json_t *from)
{
	const char *path = json_string_value(from);

	if (!path || strlen(path) != json_string_length(from) || path[0] != '/')
		return -EINVAL;
	free(*to);
	*to = strdup(path);
	return *to ? 0 : -ENOMEM;
}

static int
note_take_paths(struct run_options *o, const json_t *host)
{
	const json_t *initrds = json_object_get(host, "initrds");
	const json_t *disks = json_object_get(host, "disks");
	struct vm_config *c = &o->config;
	int rc = note_take_path(&c->kernel, json_object_get(host, "kernel"));

	if (json_array_size(initrds) != c->initrd_count || json_array_size(disks) != c->disk_count)
		return -EINVAL;
	for (unsigned i = 0; i < c->initrd_count && !rc; i++)
		rc = note_take_path(&c->initrds[i], json_array_get(initrds, i));
	for (unsigned i = 0; i < c->disk_count && !rc; i++)
		rc = note_take_path(&c->disks[i].path,
				    json_object_get(json_array_get(disks, i), "path"));
	return rc;
}

/* The configuration in NOTE, with what was given on the command line on top. */
static int
note_take_config(struct run_options *o, const json_t *note, char *why, size_t size)
{
	const json_t *host = json_object_get(note, "host");
	const char *net = json_string_value(json_object_get(host, "net"));
	struct vm_config given = o->config;
	int rc = vm_config_from_json(&o->config, json_object_get(note, "config"), why, size);

	if (rc) {
		o->config = given;
		return rc;
	}
	if (run_options_given(o, "name"))
		strcpy(o->config.name, given.name);
	if (run_options_given(o, "code-cache"))
		o->config.code_cache = given.code_cache;
	vm_config_clear(&given);
	rc = note_take_paths(o, host);
	if (rc || !net)
		return note_refuse(-EINVAL, why, size, "the state does not say what it is of");
	if (o->console == RUN_CONSOLE_NONE)
		o->config.console = VM_CONSOLE_NONE;
	else if (o->config.console == VM_CONSOLE_NONE)
		o->config.console = VM_CONSOLE_SERIAL;
	rc = run_options_net(o, net, why, size);
	return rc ? rc : vm_config_check(&o->config, why, size);
}

int
state_note_open(struct run_options *o, char *why, size_t size)
{
	int fd = open(o->state_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), rc;
	char reason[VM_WHY];
	json_t *note;

	if (fd < 0)
		return note_refuse(-errno, why, size, "state '%s': %s; check the path",
				   o->state_path, strerror(errno));
	note = note_load(fd, reason, sizeof(reason));
	rc = note ? note_take_config(o, note, reason, sizeof(reason)) : -EINVAL;
	if (rc == 0) {
		o->state_note = note;
		return fd;
	}
	json_decref(note);
	close(fd);
	return note_refuse(rc, why, size, "state '%s': %.200s", o->state_path, reason);
}

/* ---- the disks ---- */

static bool
note_same_file(const json_t *disk, const struct stat *st)
{
	json_int_t mtime = (json_int_t)(st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec);

	return json_integer_value(json_object_get(disk, "inode")) == (json_int_t)st->st_ino &&
	       json_integer_value(json_object_get(disk, "mtime")) == mtime;
}

static int
note_check_disk(const struct run_options *o, unsigned i, int fd, char *why, size_t size)
{
	const json_t *disk =
		json_array_get(json_object_get(json_object_get(o->state_note, "host"), "disks"), i);
	const char *path = o->config.disks[i].path;
	const char *mark = json_string_value(json_object_get(disk, "mark"));
	char found[DISK_MARK];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return note_refuse(-errno, why, size, "disk '%s': %s", path, strerror(errno));
	if ((json_int_t)note_disk_size(fd, &st) !=
	    json_integer_value(json_object_get(disk, "size")))
		return note_refuse(-ESTALE, why, size,
				   "disk '%s' has another size than when state '%s' was saved; "
				   "start the VM without the state",
				   path, o->state_path);
	disk_mark_get(fd, path, found);
	if (o->config.disks[i].readonly ? note_same_file(disk, &st)
					: disk_mark_valid(mark) && strcmp(mark, found) == 0)
		return 0;
	return note_refuse(-ESTALE, why, size,
			   "disk '%s' has moved on since state '%s' was saved; the state is of no "
			   "use any more: start the VM without it",
			   path, o->state_path);
}

int
state_note_check(const struct run_options *o, const struct vm_resources *r, char *why, size_t size)
{
	int rc = 0;

	for (unsigned i = 0; i < o->config.disk_count && !rc; i++)
		rc = note_check_disk(o, i, r->disks[i], why, size);
	return rc;
}

int
state_note_mark(int fd, char *why, size_t size)
{
	json_t *note = note_load(fd, why, size), *disk;
	const char *path, *mark;
	int rc = note ? 0 : -EINVAL;
	size_t i;

	json_array_foreach(json_object_get(json_object_get(note, "host"), "disks"), i, disk)
	{
		path = json_string_value(json_object_get(disk, "path"));
		mark = json_string_value(json_object_get(disk, "mark"));
		if (!path || !(mark ? disk_mark_valid(mark) : !!json_object_get(disk, "inode")))
			rc = note_refuse(-EINVAL, why, size,
					 "the VM gave a state that does not know its disks again");
		else if (mark)
			rc = disk_mark_set(path, mark, why, size);
		if (rc)
			break;
	}
	json_decref(note);
	return rc;
}
