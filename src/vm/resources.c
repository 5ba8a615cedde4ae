/*
 * Descriptors given to a VM (see resources.h).
 */
#include "vm/resources.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { KVM_MAJOR = 10, KVM_MINOR = 232 };

void
vm_resources_init(struct vm_resources *r)
{
	r->kernel = r->net = r->kvm = r->console = r->control = r->state = -1;
	for (unsigned i = 0; i < VM_INITRDS_MAX; i++)
		r->initrds[i] = -1;
	for (unsigned i = 0; i < VM_DISKS_MAX; i++)
		r->disks[i] = -1;
}

static void
resources_close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void
vm_resources_close(struct vm_resources *r)
{
	resources_close_one(&r->kernel);
	resources_close_one(&r->net);
	resources_close_one(&r->kvm);
	resources_close_one(&r->console);
	resources_close_one(&r->state);
	resources_close_one(&r->control);
	for (unsigned i = 0; i < VM_INITRDS_MAX; i++)
		resources_close_one(&r->initrds[i]);
	for (unsigned i = 0; i < VM_DISKS_MAX; i++)
		resources_close_one(&r->disks[i]);
}

static const char *
resources_check_file(int fd, bool write)
{
	int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return "is not a regular file";
	if (write ? mode != O_RDWR : mode == O_WRONLY)
		return "is not open for what it is needed for";
	return NULL;
}

static const char *
resources_check_disk(int fd, bool readonly)
{
	int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
	struct stat st;

	if (fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
		return "is neither a regular file nor a block device";
	if (mode != (readonly ? O_RDONLY : O_RDWR))
		return readonly ? "is not open for reading only" : "is not open for writing";
	return NULL;
}

static const char *
resources_check_net(int fd)
{
	socklen_t type_len = sizeof(int), domain_len = sizeof(int);
	int type = 0, domain = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) < 0)
		return "is not a socket";
	if (domain != AF_UNIX || (type != SOCK_SEQPACKET && type != SOCK_DGRAM))
		return "is not a socket that keeps frames apart";
	return NULL;
}

static const char *
resources_check_control(int fd)
{
	socklen_t listens_len = sizeof(int), domain_len = sizeof(int), type_len = sizeof(int);
	int listens = 0, domain = 0, type = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0)
		return "is not a socket";
	if (!listens || domain != AF_UNIX || type != SOCK_STREAM)
		return "is not a listening Unix stream socket";
	return NULL;
}

/* The node itself, whatever its path was: misc device 232. */
static const char *
resources_check_kvm(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) ||
	    st.st_rdev != makedev(KVM_MAJOR, KVM_MINOR))
		return "is not /dev/kvm";
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		return "is not open for reading and writing";
	return NULL;
}

static const char *
resources_check_console(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode))
		return "is not a stream of bytes";
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		return "is not open for writing";
	return NULL;
}

/* "disk3": 3 if that is below LIMIT, else -1. */
static int
resources_index(const char *what, const char *prefix, unsigned limit)
{
	size_t len = strlen(prefix);
	unsigned value = 0;

	if (strncmp(what, prefix, len) != 0 || what[len] == '\0' || strlen(what) > len + 2)
		return -1;
	for (what += len; *what; what++) {
		if (*what < '0' || *what > '9')
			return -1;
		value = value * 10 + (unsigned)(*what - '0');
	}
	return value < limit ? (int)value : -1;
}

/* The place for WHAT, NULL if the configuration has none; *BAD says what is wrong with FD. */
static int *
resources_slot(struct vm_resources *r, const struct vm_config *c, const char *what, int fd,
	       const char **bad)
{
	int i;

	if (strcmp(what, "kernel") == 0)
		return *bad = resources_check_file(fd, false), &r->kernel;
	if (strcmp(what, "state") == 0)
		return *bad = resources_check_file(fd, false), &r->state;
	if (strcmp(what, "net") == 0 && c->net)
		return *bad = resources_check_net(fd), &r->net;
	if (strcmp(what, "kvm") == 0)
		return *bad = resources_check_kvm(fd), &r->kvm;
	if (strcmp(what, "console") == 0 && c->console != VM_CONSOLE_NONE)
		return *bad = resources_check_console(fd), &r->console;
	if (strcmp(what, "control") == 0)
		return *bad = resources_check_control(fd), &r->control;
	if ((i = resources_index(what, "initrd", c->initrd_count)) >= 0)
		return *bad = resources_check_file(fd, false), &r->initrds[i];
	if ((i = resources_index(what, "disk", c->disk_count)) >= 0)
		return *bad = resources_check_disk(fd, c->disks[i].readonly), &r->disks[i];
	return NULL;
}

int
vm_resources_give(struct vm_resources *r, const struct vm_config *c, const char *what, int fd,
		  char *why, size_t why_size)
{
	const char *bad = NULL;
	int *slot = resources_slot(r, c, what, fd, &bad);

	if (slot == NULL)
		bad = "has no place in this VM's configuration";
	else if (*slot >= 0 && bad == NULL)
		bad = "was given already";
	if (bad) {
		snprintf(why, why_size, "the descriptor \"%.32s\" %s", what, bad);
		close(fd);
		return -EINVAL;
	}
	*slot = fd;
	return 0;
}

int
vm_resources_check(const struct vm_resources *r, const struct vm_config *c, char *why,
		   size_t why_size)
{
	const char *missing = NULL;

	if (r->kernel < 0)
		missing = "kernel";
	for (unsigned i = 0; i < c->initrd_count; i++)
		missing = r->initrds[i] < 0 ? "initrd" : missing;
	for (unsigned i = 0; i < c->disk_count; i++)
		missing = r->disks[i] < 0 ? "disk" : missing;
	if (c->net && r->net < 0)
		missing = "net";
	if (strncmp(c->hypervisor, "kvm", 3) == 0 && r->kvm < 0)
		missing = "kvm";
	if (c->console != VM_CONSOLE_NONE && r->console < 0)
		missing = "console";
	if (missing == NULL)
		return 0;
	snprintf(why, why_size, "a descriptor is missing: %s; give it before start", missing);
	return -EINVAL;
}
