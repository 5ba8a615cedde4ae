/*
 * /dev/kvm as a file: what it is, and who may open it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cmd/host_kvm_facts.h"

/* devices.txt of the kernel: misc is 10, KVM's minor is its own. */
enum { NODE_MAJOR = 10, NODE_MINOR = 232, NODE_READ_WRITE = 06 };

static void
node_path(char path[HOST_PATH], const char *root)
{
	snprintf(path, HOST_PATH, "%.400s/dev/kvm", root);
}

int
host_node_open(struct host_node *n, const char *root)
{
	char path[HOST_PATH];
	struct stat st;
	int fd;

	node_path(path, root);
	if (stat(path, &st) < 0) {
		n->stat_error = n->open_error = errno;
		return -1;
	}
	n->mode = st.st_mode;
	n->uid = st.st_uid;
	n->gid = st.st_gid;
	n->rdev = st.st_rdev;
	/* Opening some other device may do something. */
	if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(NODE_MAJOR, NODE_MINOR))
		return -1;
	n->is_kvm = true;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		n->open_error = errno;
		return -1;
	}
	if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != n->rdev) {
		close(fd);
		n->is_kvm = false;
		return -1;
	}
	return fd;
}

static bool
node_in_group(gid_t group)
{
	gid_t *list;
	bool found = getegid() == group;
	int n = getgroups(0, NULL);

	list = n > 0 ? calloc((size_t)n, sizeof(*list)) : NULL;
	n = list ? getgroups(n, list) : 0;
	for (int i = 0; i < n && !found; i++)
		found = list[i] == group;
	free(list);
	return found;
}

static bool
node_has_capability(const char *root)
{
	char text[8192], *at;

	host_file_read(root, "/proc/self/status", text, sizeof(text));
	at = strstr(text, "\nCapEff:");
	return at && strtoull(at + 8, NULL, 16) & BIT64(CAP_DAC_OVERRIDE);
}

static bool
node_mode_allows(const struct host_node *n, const struct host_place *place, const char *root)
{
	unsigned shift = geteuid() == n->uid ? 6 : node_in_group(n->gid) ? 3 : 0;

	if ((n->mode >> shift & NODE_READ_WRITE) == NODE_READ_WRITE)
		return true;
	/* In a user namespace the capability does not reach the host's files. */
	return !place->user_namespace && node_has_capability(root);
}

static void
node_read_user(struct host_node *n)
{
	const struct passwd *user = getpwuid(geteuid());

	snprintf(n->user, sizeof(n->user), "%u", (unsigned)geteuid());
	if (user)
		host_text_copy(n->user, sizeof(n->user), user->pw_name);
	host_text_clean(n->user);
}

/* The user database may list a membership that this session began without. */
static void
node_read_group(struct host_node *n)
{
	const struct passwd *user = getpwuid(geteuid());
	const struct group *group;

	n->listed = user && user->pw_gid == n->gid;
	snprintf(n->group, sizeof(n->group), "%u", (unsigned)n->gid);
	group = getgrgid(n->gid);
	if (group == NULL)
		return;
	host_text_copy(n->group, sizeof(n->group), group->gr_name);
	for (char **member = group->gr_mem; *member; member++) {
		host_text_add(n->members, sizeof(n->members), *member);
		n->listed = n->listed || strcmp(*member, n->user) == 0;
	}
}

static void
node_read_names(struct host_node *n)
{
	const struct passwd *owner = getpwuid(n->uid);

	snprintf(n->owner, sizeof(n->owner), "%u", (unsigned)n->uid);
	if (owner)
		host_text_copy(n->owner, sizeof(n->owner), owner->pw_name);
	node_read_group(n);
}

void
host_node_inspect(struct host_node *n, const struct host_place *place, const char *root)
{
	char path[HOST_PATH];
	struct statvfs fs;

	node_read_user(n);
	if (n->stat_error)
		return;
	node_path(path, root);
	n->nodev = statvfs(path, &fs) == 0 && fs.f_flag & ST_NODEV;
	/* logind and udev give the user at the seat access by such a list. */
	n->acl = getxattr(path, "system.posix_acl_access", NULL, 0) > 0;
	n->mode_allows = node_mode_allows(n, place, root);
	n->group_opens = (n->mode >> 3 & NODE_READ_WRITE) == NODE_READ_WRITE && n->gid != 0;
	n->world = (n->mode & NODE_READ_WRITE) == NODE_READ_WRITE;
	node_read_names(n);
	host_text_clean(n->owner);
	host_text_clean(n->group);
	host_text_clean(n->members);
}
