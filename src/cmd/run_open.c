/*
 * Opening the files of a VM (see run_open.h).
 *
 * Disks are locked with flock: the lock belongs to the open file description,
 * so it lives as long as any process of the VM has the disk, and /proc/locks
 * names the process that took it.
 */
#include "cmd/run_open.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { OPEN_LOCK_TRIES = 40, OPEN_LOCK_USEC = 25000 };

static int PRINTF_LIKE(4, 5) open_refuse(int error, char *why, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, size, fmt, args);
	va_end(args);
	return error;
}

static const char *
open_fix(int error, bool write)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
		return "check the path";
	case EACCES:
	case EPERM:
		return write ? "change its permissions, or add ,readonly"
			     : "change its permissions";
	case EROFS:
		return "copy it to a writable place, or add ,readonly";
	case EISDIR:
		return "give a file";
	}
	return "check the path and its permissions";
}

/* An open descriptor, or -errno and WHY. KIND: "kernel", "disk" ... */
static int
open_path(const char *kind, const char *path, int flags, char *why, size_t size)
{
	int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
	int error = errno;

	if (fd < 0)
		return open_refuse(-error, why, size, "%s '%s': %s; %s", kind, path,
				   strerror(error),
				   open_fix(error, (flags & O_ACCMODE) != O_RDONLY));
	return fd;
}

static int
open_boot_file(const char *kind, const char *path, char *why, size_t size)
{
	int fd = open_path(kind, path, O_RDONLY, why, size);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return open_refuse(-EINVAL, why, size, "%s '%s' is not a regular file; give a file",
				   kind, path);
	}
	if (st.st_size == 0) {
		close(fd);
		return open_refuse(-EINVAL, why, size, "%s '%s' is empty; give a complete file",
				   kind, path);
	}
	return fd;
}

/* The process that holds a lock on the file, by /proc/locks; 0 if it cannot be seen. */
static int
open_lock_holder(const struct stat *st)
{
	FILE *locks = fopen("/proc/locks", "re");
	char line[256], kind[16];
	unsigned major_number, minor_number;
	unsigned long long inode;
	int pid, holder = 0;

	if (locks == NULL)
		return 0;
	while (fgets(line, sizeof(line), locks)) {
		/* "1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF" */
		if (sscanf(line, "%*d: %15s %*s %*s %d %x:%x:%llu", kind, &pid, &major_number,
			   &minor_number, &inode) == 5 &&
		    strcmp(kind, "FLOCK") == 0 && inode == st->st_ino &&
		    makedev(major_number, minor_number) == st->st_dev)
			holder = pid;
	}
	fclose(locks);
	return holder > 0 ? holder : 0;
}

/* 0 or -errno; *HOLDER is who has it, if that can be seen. The kernel may keep the file of a
 * process that is gone for a moment, so it is tried again. */
static int
open_try_lock(int fd, bool readonly, const struct stat *st, int *holder)
{
	int how = (readonly ? LOCK_SH : LOCK_EX) | LOCK_NB;

	*holder = 0;
	for (unsigned i = 0; flock(fd, how) < 0; i++) {
		if (errno != EWOULDBLOCK)
			return -errno;
		*holder = open_lock_holder(st);
		if (i == OPEN_LOCK_TRIES || (*holder && (kill(*holder, 0) == 0 || errno == EPERM)))
			return -EWOULDBLOCK;
		usleep(OPEN_LOCK_USEC);
	}
	return 0;
}

static int
open_lock(int fd, const char *path, bool readonly, const struct stat *st, char *why, size_t size)
{
	int holder, rc = open_try_lock(fd, readonly, st, &holder);

	if (rc == 0)
		return 0;
	if (rc != -EWOULDBLOCK)
		return open_refuse(
			rc, why, size,
			"disk '%s' cannot be locked: %s; move it to a file system with locks", path,
			strerror(-rc));
	if (holder == getpid())
		return open_refuse(-EBUSY, why, size,
				   "disk '%s' is given twice; remove one, or make both ,readonly",
				   path);
	if (holder)
		return open_refuse(-EBUSY, why, size,
				   "disk '%s' is locked by another VM (process %d); end that VM, "
				   "or make both disks ,readonly",
				   path, holder);
	return open_refuse(
		-EBUSY, why, size,
		"disk '%s' is locked by another VM; end that VM, or make both disks ,readonly",
		path);
}

static int
open_check_format(int fd, const char *path, char *why, size_t size)
{
	static const struct {
		const char *name, *magic;
		size_t len;
	} formats[] = {
		{"qcow2", "QFI\xfb", 4}, {"vmdk", "KDMV", 4}, {"vhdx", "vhdxfile", 8},
		{"vhd", "conectix", 8},	 {"qed", "QED\0", 4},
	};
	char head[8] = "";

	if (pread(fd, head, sizeof(head), 0) < 0)
		return open_refuse(-errno, why, size,
				   "disk '%s' cannot be read: %s; check the disk", path,
				   strerror(errno));
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		if (memcmp(head, formats[i].magic, formats[i].len) == 0)
			return open_refuse(-EINVAL, why, size,
					   "disk '%s' is a %s image, and only raw ones can be used "
					   "yet; qemu-img convert -O raw, or add ,format=raw if it "
					   "is raw after all",
					   path, formats[i].name);
	}
	return 0;
}

static int
open_check_size(int fd, const char *path, const struct stat *st, char *why, size_t size)
{
	u64 bytes = (u64)st->st_size;

	if (S_ISBLK(st->st_mode) && ioctl(fd, BLKGETSIZE64, &bytes) < 0)
		return open_refuse(-errno, why, size,
				   "disk '%s': its size cannot be read: %s; check the device", path,
				   strerror(errno));
	if (bytes == 0)
		return open_refuse(-EINVAL, why, size,
				   "disk '%s' is empty; make it, for example: truncate -s 8G FILE",
				   path);
	if (bytes % 512)
		return open_refuse(-EINVAL, why, size,
				   "disk '%s' is %llu bytes, no multiple of 512; it is cut short, "
				   "or: truncate -s %%512 FILE",
				   path, (unsigned long long)bytes);
	return 0;
}

/* A sparse image on a full file system would fail at the guest's first write. */
static int
open_check_space(int fd, const char *path, const struct stat *st, char *why, size_t size)
{
	struct statvfs fs;

	if (!S_ISREG(st->st_mode) || st->st_blocks >= st->st_size / 512 || fstatvfs(fd, &fs) < 0 ||
	    fs.f_bavail > 0 || fs.f_blocks == 0)
		return 0;
	return open_refuse(-ENOSPC, why, size,
			   "disk '%s' can still grow, but its file system is full; free some "
			   "space, or add ,readonly",
			   path);
}

static int
open_disk(const struct vm_disk *disk, bool raw, char *why, size_t size)
{
	int fd = open_path("disk", disk->path, disk->readonly ? O_RDONLY : O_RDWR, why, size);
	struct stat st;
	int rc = 0;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
		rc = open_refuse(-EINVAL, why, size,
				 "disk '%s' is neither a file nor a block device; give one",
				 disk->path);
	if (rc == 0)
		rc = open_lock(fd, disk->path, disk->readonly, &st, why, size);
	if (rc == 0 && !raw)
		rc = open_check_format(fd, disk->path, why, size);
	if (rc == 0)
		rc = open_check_size(fd, disk->path, &st, why, size);
	if (rc == 0 && !disk->readonly)
		rc = open_check_space(fd, disk->path, &st, why, size);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

static int
open_check_memory(u64 memory, char *why, size_t size)
{
	struct sysinfo info;
	u64 host;

	if (sysinfo(&info) < 0)
		return 0;
	host = ((u64)info.totalram + (u64)info.totalswap) * info.mem_unit;
	if (memory <= host)
		return 0;
	return open_refuse(-ENOMEM, why, size,
			   "--memory %lluM is more than this host has (%lluM with swap); use less",
			   (unsigned long long)(memory >> 20), (unsigned long long)(host >> 20));
}

int
run_open(struct vm_resources *r, const struct run_options *o, char *why, size_t size)
{
	const struct vm_config *c = &o->config;
	int rc;

	vm_resources_init(r);
	rc = open_check_memory(c->memory, why, size);
	if (rc < 0)
		return rc;
	r->kernel = rc = open_boot_file("kernel", c->kernel, why, size);
	for (unsigned i = 0; rc >= 0 && i < c->initrd_count; i++)
		r->initrds[i] = rc = open_boot_file("initrd", c->initrds[i], why, size);
	for (unsigned i = 0; rc >= 0 && i < c->disk_count; i++)
		r->disks[i] = rc = open_disk(&c->disks[i], o->disk_raw[i], why, size);
	if (rc >= 0 && o->console == RUN_CONSOLE_FILE && !o->dry_run)
		r->console = rc = open_path("console", o->console_path,
					    O_WRONLY | O_CREAT | O_TRUNC, why, size);
	return rc < 0 ? rc : 0;
}
