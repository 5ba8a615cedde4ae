/*
 * Where on this host we are: in a container or namespaces of our own, in which
 * control group, in which service.
 *
 * A mark alone (/.dockerenv) does not make a container: images unpacked on disks
 * of whole machines carry them. Processes, users or a root other than those of the
 * first process do.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "cmd/host_kvm_facts.h"

static const struct {
	const char *path, *kind;
} place_marks[] = {
	{"/.dockerenv", "docker"},
	{"/run/.containerenv", "podman"},
	{"/run/systemd/container", ""}, /* says it itself */
	{"/dev/.lxc-boot-id", "lxc"},
};

static const struct {
	const char *part, *kind;
} place_groups[] = {
	{"kubepods", "kubernetes"},   {"libpod", "podman"}, {"docker", "docker"},
	{"containerd", "containerd"}, {"/lxc", "lxc"},	    {"garden", "garden"},
};

/* Inode numbers of the first namespaces, fixed in every kernel (proc_ns.h). */
#define PLACE_FIRST_USER 0xeffffffdul
#define PLACE_FIRST_PID 0xeffffffcul

/* The number in "pid:[4026531836]", 0 if it cannot be read. */
static unsigned long
place_namespace(const char *root, const char *path)
{
	char text[64], *at;

	if (host_file_link(root, path, text, sizeof(text)) < 0)
		return 0;
	at = strchr(text, '[');
	return at ? strtoul(at + 1, NULL, 10) : 0;
}

/* The mount at "/" of a mountinfo: its number, unique on the host, and what is mounted there
 * ("254:0 /"). Anybody may read the first process's; its namespaces are for root, and not
 * always then. */
struct place_root {
	int id;
	char what[128];
};

static bool
place_read_root(struct place_root *r, const char *root, const char *path)
{
	char line[1024], device[32], from[80], to[8];
	FILE *file = host_file_open(root, path);
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%d %*d %31s %79s %7s ", &r->id, device, from, to) == 4)
			found = strcmp(to, "/") == 0;
	}
	if (file)
		fclose(file);
	if (found)
		snprintf(r->what, sizeof(r->what), "%s %s", device, from);
	return found;
}

static void
place_compare_mounts(struct host_place *p, const char *root)
{
	struct place_root mine, first;

	if (!place_read_root(&mine, root, "/proc/self/mountinfo") ||
	    !place_read_root(&first, root, "/proc/1/mountinfo") || mine.id == first.id)
		return;
	host_text_add(p->how, sizeof(p->how), "a mount namespace of its own");
	p->own_root = strcmp(mine.what, first.what) != 0;
}

static void
place_read_namespaces(struct host_place *p, const char *root)
{
	unsigned long pid = place_namespace(root, "/proc/self/ns/pid");
	unsigned long user = place_namespace(root, "/proc/self/ns/user");

	p->user_namespace = user && user != PLACE_FIRST_USER;
	p->pid_namespace = pid && pid != PLACE_FIRST_PID;
	if (p->pid_namespace)
		host_text_add(p->how, sizeof(p->how), "a PID namespace of its own");
	if (p->user_namespace)
		host_text_add(p->how, sizeof(p->how), "a user namespace of its own");
	place_compare_mounts(p, root);
	p->isolated = p->how[0] != '\0';
}

static bool
place_read_mark(struct host_place *p, const char *root)
{
	char text[64];

	for (size_t i = 0; i < ARRAY_LEN(place_marks); i++) {
		if (!host_file_exists(root, place_marks[i].path))
			continue;
		host_text_copy(p->kind, sizeof(p->kind), place_marks[i].kind);
		if (p->kind[0] == '\0' &&
		    host_file_line(root, place_marks[i].path, text, sizeof(text)) > 0)
			host_text_copy(p->kind, sizeof(p->kind), text);
		host_text_add(p->how, sizeof(p->how), place_marks[i].path);
		return true;
	}
	return false;
}

/* Container managers tell the first process what it is in. */
static bool
place_read_environment(struct host_place *p, const char *root)
{
	char text[8192];
	int n = host_file_read(root, "/proc/1/environ", text, sizeof(text));

	for (const char *at = text; n > 0 && at < text + n; at += strlen(at) + 1) {
		if (strncmp(at, "container=", 10) != 0)
			continue;
		host_text_copy(p->kind, sizeof(p->kind), at + 10);
		host_text_add(p->how, sizeof(p->how), "container= in /proc/1/environ");
		return true;
	}
	return false;
}

static bool
place_read_group_name(struct host_place *p, const char *root)
{
	char text[4096];

	host_file_read(root, "/proc/1/cgroup", text, sizeof(text));
	for (size_t i = 0; i < ARRAY_LEN(place_groups); i++) {
		if (strstr(text, place_groups[i].part) == NULL)
			continue;
		host_text_copy(p->kind, sizeof(p->kind), place_groups[i].kind);
		host_text_add(p->how, sizeof(p->how), "/proc/1/cgroup");
		return true;
	}
	return false;
}

/* The last part of the control group's path that is a service. */
static void
place_read_unit(struct host_place *p)
{
	char copy[sizeof(p->cgroup)], *rest = copy, *part;
	size_t len;

	strcpy(copy, p->cgroup);
	while ((part = strsep(&rest, "/")) != NULL) {
		len = strlen(part);
		if (len > 8 && strcmp(part + len - 8, ".service") == 0)
			host_text_copy(p->unit, sizeof(p->unit), part);
	}
}

bool
host_place_group(const char *root, const char *controller, char *group, size_t size)
{
	char line[512], *name, *path;
	bool version1 = false;
	FILE *file = host_file_open(root, "/proc/self/cgroup");

	group[0] = '\0';
	while (file && !version1 && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		name = strchr(line, ':');
		path = name ? strchr(name + 1, ':') : NULL;
		if (path == NULL)
			continue;
		*path++ = '\0';
		version1 = host_text_has_word(name + 1, controller);
		if (version1 || name[1] == '\0')
			host_text_copy(group, size, path);
	}
	if (file)
		fclose(file);
	return version1;
}

/* A row of a device list: "a *:* rwm", "c 10:232 rwm", "c 10:* rw". */
static bool
place_row_allows(const char *row)
{
	char kind, major[16], minor[16], access[8];

	if (sscanf(row, " %c %15[^:]:%15s %7s", &kind, major, minor, access) != 4)
		return false;
	return (kind == 'a' || kind == 'c') &&
	       (strcmp(major, "*") == 0 || strcmp(major, "10") == 0) &&
	       (strcmp(minor, "*") == 0 || strcmp(minor, "232") == 0) && strchr(access, 'r') &&
	       strchr(access, 'w');
}

static void
place_read_devices(struct host_place *p, const char *root)
{
	char path[HOST_PATH], line[128];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/fs/cgroup/devices%s/devices.list", p->cgroup);
	file = host_file_open(root, path);
	if (file == NULL)
		return;
	p->device_allowed = HOST_NO;
	while (fgets(line, sizeof(line), file)) {
		if (place_row_allows(line))
			p->device_allowed = HOST_YES;
	}
	fclose(file);
}

void
host_place_inspect(struct host_place *p, const char *root)
{
	bool marked;

	place_read_namespaces(p, root);
	/* Device rules of version 2 are programs, which cannot be read. */
	if (host_place_group(root, "devices", p->cgroup, sizeof(p->cgroup)))
		place_read_devices(p, root);
	place_read_unit(p);
	marked = place_read_mark(p, root) || place_read_environment(p, root) ||
		 place_read_group_name(p, root);
	p->container = marked && (p->pid_namespace || p->user_namespace || p->own_root);
	host_text_clean(p->kind);
	host_text_clean(p->how);
	host_text_clean(p->cgroup);
	host_text_clean(p->unit);
}
