/*
 * All facts together (see host_kvm_facts.h), with those that are a file or a
 * system call each.
 */
#define _GNU_SOURCE
#include "cmd/host_kvm_facts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <linux/landlock.h>

#include "base/bytes.h"

enum { FACTS_LOG_READ = 3, FACTS_LOG_SIZE = 10, FACTS_LOG_MAX = 4 << 20, FACTS_LIST_HEAD = 28 };

#define FACTS_VARIABLES "/sys/firmware/efi/efivars/"
#define FACTS_GLOBAL "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
#define FACTS_SHIM "-605dab50-e046-4300-abb6-3dd810dd8b23"

void
host_limits_identify(struct host_limits *l)
{
	struct rlimit space;
	long version;

	/* A ring of nothing with no parameters: refused for those, if rings are allowed. */
	if (syscall(SYS_io_uring_setup, 0, NULL) < 0 && errno != EFAULT && errno != EINVAL)
		l->io_uring = errno;
	version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	l->landlock = version > 0 ? (int)version : 0;
	if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
		l->address_space = space.rlim_cur;
}

void
host_facts_identify(struct host_facts *f)
{
	struct utsname name;

	host_cpu_identify(&f->cpu);
	host_limits_identify(&f->limits);
	if (uname(&name) == 0)
		host_text_copy(f->modules.release, sizeof(f->modules.release), name.release);
	host_text_clean(f->modules.release);
}

/* "MemTotal:  123 kB" of /proc/meminfo, in bytes. */
static u64
facts_meminfo(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtoull(at + strlen(key), NULL, 10) << 10 : 0;
}

/* The smallest limit of our control group and those above it; 0: none. */
static u64
facts_group_limit(const char *root, const char *folder, const char *group, const char *file)
{
	char path[HOST_PATH], text[32], name[256];
	u64 limit = 0, value;

	host_text_copy(name, sizeof(name), group);
	for (;;) {
		snprintf(path, sizeof(path), "%s%s/%s", folder, name, file);
		if (host_file_line(root, path, text, sizeof(text)) > 0 &&
		    strcmp(text, "max") != 0) {
			value = strtoull(text, NULL, 10);
			/* Version 1 says "none" by a number next to the greatest. */
			if (value && value < 1ull << 60 && (limit == 0 || value < limit))
				limit = value;
		}
		if (strrchr(name, '/') == NULL)
			return limit;
		*strrchr(name, '/') = '\0';
	}
}

/* The choice in "none [integrity] confidentiality"; "" if there is none. */
static void
facts_read_choice(const char *root, const char *path, char *out, size_t size)
{
	char text[96], *start, *end;

	host_file_line(root, path, text, sizeof(text));
	start = strchr(text, '[');
	end = start ? strchr(start, ']') : NULL;
	if (end == NULL)
		return;
	*end = '\0';
	host_text_copy(out, size, start + 1);
	host_text_clean(out);
}

void
host_limits_inspect(struct host_limits *l, const char *root)
{
	char text[4096], group[256];
	bool version1;

	host_file_read(root, "/proc/meminfo", text, sizeof(text));
	l->total = facts_meminfo(text, "MemTotal:");
	l->available = facts_meminfo(text, "MemAvailable:");
	if (host_file_line(root, "/proc/sys/vm/max_map_count", text, sizeof(text)) > 0)
		l->mappings = strtoull(text, NULL, 10);
	facts_read_choice(root, "/sys/kernel/mm/transparent_hugepage/shmem_enabled", l->large_pages,
			  sizeof(l->large_pages));
	version1 = host_place_group(root, "memory", group, sizeof(group));
	l->cgroup = version1 ? facts_group_limit(root, "/sys/fs/cgroup/memory", group,
						 "memory.limit_in_bytes")
			     : facts_group_limit(root, "/sys/fs/cgroup", group, "memory.max");
}

/* A variable of the firmware: four bytes of attributes, then its value. */
static void
facts_read_secure_boot(struct host_security *s, const char *root)
{
	char value[8];
	int n = host_file_read(root, FACTS_VARIABLES "SecureBoot" FACTS_GLOBAL, value,
			       sizeof(value));

	if (n == 5)
		s->secure_boot = value[4] == 1 ? HOST_YES : HOST_NO;
	else if (host_file_exists(root, "/sys/firmware") &&
		 !host_file_exists(root, "/sys/firmware/efi"))
		s->secure_boot = HOST_NO;
}

/* Keys in a list of the firmware (UEFI 32.4.1, EFI_SIGNATURE_LIST): a GUID, then the sizes of
 * the list, its header and each signature. -1 if it is damaged. */
static int
facts_count_keys(const u8 *list, size_t size)
{
	int keys = 0;

	while (size >= FACTS_LIST_HEAD) {
		u32 bytes = get_le32(list + 16), header = get_le32(list + 20);
		u32 each = get_le32(list + 24);

		if (bytes > size || bytes < FACTS_LIST_HEAD || header > bytes - FACTS_LIST_HEAD ||
		    each == 0)
			return -1;
		keys += (int)((bytes - FACTS_LIST_HEAD - header) / each);
		list += bytes;
		size -= bytes;
	}
	return keys;
}

/* The machine owner's keys, as shim shows them to the system. */
static void
facts_read_mok(struct host_security *s, const char *root)
{
	char value[65536];
	int n = host_file_read(root, FACTS_VARIABLES "MokListRT" FACTS_SHIM, value, sizeof(value));

	s->mok_keys = n == -ENOENT ? 0 : -1;
	if (n >= 4)
		s->mok_keys = facts_count_keys((const u8 *)value + 4, (size_t)n - 4);
	s->mok_pending = HOST_UNKNOWN;
	if (host_file_exists(root, FACTS_VARIABLES))
		s->mok_pending = host_file_exists(root, FACTS_VARIABLES "MokNew" FACTS_SHIM)
					 ? HOST_YES
					 : HOST_NO;
}

static void
facts_read_security(struct host_security *s, const char *root)
{
	facts_read_choice(root, "/sys/kernel/security/lockdown", s->lockdown, sizeof(s->lockdown));
	facts_read_secure_boot(s, root);
	facts_read_mok(s, root);
	s->sig_enforce = host_file_flag(root, "/sys/module/module/parameters/sig_enforce");
	host_file_line(root, "/sys/kernel/security/lsm", s->lsm, sizeof(s->lsm));
	host_file_line(root, "/proc/self/attr/current", s->label, sizeof(s->label));
	host_text_clean(s->lsm);
	host_text_clean(s->label);
}

/* The kernel's log where it may be read, for as long as it still tells of the start. */
static char *
facts_read_log(const char *root)
{
	int size = root[0] ? FACTS_LOG_MAX : klogctl(FACTS_LOG_SIZE, NULL, 0), n;
	char *log;

	if (size <= 0 || size > FACTS_LOG_MAX)
		return NULL;
	log = malloc((size_t)size + 1);
	if (log == NULL)
		return NULL;
	n = root[0] ? host_file_read(root, "/dev/kmsg", log, (size_t)size)
		    : klogctl(FACTS_LOG_READ, log, size);
	log[n > 0 ? n : 0] = '\0';
	return log;
}

void
host_facts_inspect(struct host_facts *f, const char *root)
{
	char *log;

	facts_read_security(&f->security, root);
	host_place_inspect(&f->place, root);
	host_cpu_inspect(&f->cpu, root);
	host_modules_inspect(&f->modules, &f->cpu, root);
	host_limits_inspect(&f->limits, root);
	if (f->modules.registered == HOST_YES)
		return;
	log = facts_read_log(root);
	if (log == NULL)
		return;
	if (f->cpu.has_virt)
		host_cpu_log(&f->cpu, log);
	host_modules_log(&f->modules, log);
	free(log);
}
