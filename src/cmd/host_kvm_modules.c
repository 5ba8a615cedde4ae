/*
 * KVM's modules: whether they are in the kernel, and what keeps them out. Nothing
 * is loaded here.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <string.h>

#include "cmd/host_kvm_facts.h"

enum { KVM_MINOR = 232 };

static const char modules_signature[] = "~Module signature appended~\n";

/* Other hypervisors' drivers; while one has the processor's virtualization on, KVM is refused. */
static const struct {
	const char *module, *who;
} modules_rivals[] = {
	{"vboxdrv", "VirtualBox"},  {"vmmon", "VMware"},  {"prl_hypervisor", "Parallels"},
	{"jailhouse", "Jailhouse"}, {"acrn_hsm", "ACRN"}, {"bhyve", "bhyve"},
	{"gunyah", "Gunyah"},
};

/* '-' and '_' are one letter in names of modules; a file's ends at its first '.'. */
static bool
modules_same_name(const char *a, size_t len, const char *b)
{
	size_t i;

	for (i = 0; i < len && a[i] != '.'; i++) {
		if (b[i] == '\0' || (a[i] == '-' ? '_' : a[i]) != b[i])
			return false;
	}
	return b[i] == '\0';
}

static void
modules_read_loaded(struct host_modules *m, const char *root)
{
	char path[HOST_PATH];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "%.400s/sys/module", root);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, "kvm") == 0)
			m->core = true;
		else if (strncmp(entry->d_name, "kvm_", 4) == 0)
			m->vendor = true;
		else
			continue;
		host_text_add(m->loaded, sizeof(m->loaded), entry->d_name);
	}
	if (dir)
		closedir(dir);
	host_text_clean(m->loaded);
}

/* /proc/misc has "232 kvm" while a driver for the node is there. */
static void
modules_read_registered(struct host_modules *m, const char *root)
{
	char text[4096], wanted[16];
	int n = host_file_read(root, "/proc/misc", text, sizeof(text));

	snprintf(wanted, sizeof(wanted), "%d kvm\n", KVM_MINOR);
	if ((n > 0 && strstr(text, wanted)) || host_file_exists(root, "/sys/class/misc/kvm"))
		m->registered = HOST_YES;
	else if (n >= 0 || host_file_exists(root, "/sys/class/misc"))
		m->registered = HOST_NO;
}

/* Whether PATH's last part, up to END, is the file of MODULE. */
static bool
modules_is_file_of(const char *path, size_t len, const char *module)
{
	const char *slash = memrchr(path, '/', len);
	const char *name = slash ? slash + 1 : path;

	return modules_same_name(name, len - (size_t)(name - path), module);
}

/* The line of an index of /lib/modules/RELEASE that is of MODULE: its path, or false. */
static bool
modules_index_find(const char *root, const char *release, const char *index, const char *module,
		   char *path, size_t size)
{
	char name[HOST_PATH], line[2048];
	bool found = false;
	size_t len;
	FILE *file;

	snprintf(name, sizeof(name), "/lib/modules/%s/%s", release, index);
	file = host_file_open(root, name);
	while (file && !found && fgets(line, sizeof(line), file)) {
		len = strcspn(line, ":\n");
		if (!modules_is_file_of(line, len, module))
			continue;
		found = true;
		snprintf(path, size, "/lib/modules/%s/%.*s", release, (int)len, line);
	}
	if (file)
		fclose(file);
	return found;
}

/* The signature is told by the file's last bytes; a compressed one is not looked into. */
static enum host_truth
modules_is_signed(const char *root, const char *path)
{
	size_t len = sizeof(modules_signature) - 1;
	char tail[sizeof(modules_signature)];
	const char *end = strrchr(path, '.');
	enum host_truth truth = HOST_UNKNOWN;
	FILE *file;

	if (end == NULL || strcmp(end, ".ko") != 0)
		return HOST_UNKNOWN;
	file = host_file_open(root, path);
	if (file == NULL)
		return HOST_UNKNOWN;
	if (fseek(file, -(long)len, SEEK_END) == 0 && fread(tail, 1, len, file) == len)
		truth = memcmp(tail, modules_signature, len) == 0 ? HOST_YES : HOST_NO;
	fclose(file);
	return truth;
}

static void
modules_read_files(struct host_modules *m, const char *module, const char *root)
{
	char path[HOST_PATH];

	snprintf(path, sizeof(path), "/lib/modules/%s", m->release);
	m->folder = host_file_exists(root, path);
	if (!m->folder)
		return;
	m->builtin =
		modules_index_find(root, m->release, "modules.builtin", module, path, sizeof(path));
	if (modules_index_find(root, m->release, "modules.dep", module, m->file, sizeof(m->file)))
		m->is_signed = modules_is_signed(root, m->file);
	host_text_clean(m->file);
}

/* The kernel that runs after the next restart may be one of these. */
static void
modules_read_lacking(struct host_modules *m, const char *module, const char *root)
{
	char path[HOST_PATH], name[HOST_PATH];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "%.400s/lib/modules", root);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) != NULL) {
		snprintf(name, sizeof(name), "/lib/modules/%.200s/modules.dep", entry->d_name);
		if (entry->d_name[0] == '.' || strcmp(entry->d_name, m->release) == 0 ||
		    !host_file_exists(root, name) || strlen(entry->d_name) >= sizeof(m->release))
			continue;
		if (!modules_index_find(root, entry->d_name, "modules.dep", module, name,
					sizeof(name)) &&
		    !modules_index_find(root, entry->d_name, "modules.builtin", module, name,
					sizeof(name)))
			host_text_add(m->lacking, sizeof(m->lacking), entry->d_name);
	}
	if (dir)
		closedir(dir);
	host_text_clean(m->lacking);
}

static void
modules_read_rivals(struct host_modules *m, const char *root)
{
	char line[512], text[64];
	FILE *file = host_file_open(root, "/proc/modules");

	m->loadable = file != NULL;
	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, " \n")] = '\0';
		for (size_t i = 0; i < ARRAY_LEN(modules_rivals); i++) {
			if (strcmp(line, modules_rivals[i].module) != 0)
				continue;
			snprintf(text, sizeof(text), "%.32s (%s)", line, modules_rivals[i].who);
			host_text_add(m->rivals, sizeof(m->rivals), text);
		}
	}
	if (file)
		fclose(file);
}

void
host_modules_inspect(struct host_modules *m, const struct host_cpu *cpu, const char *root)
{
	modules_read_loaded(m, root);
	modules_read_registered(m, root);
	modules_read_rivals(m, root);
	m->disabled = host_file_flag(root, "/proc/sys/kernel/modules_disabled");
	modules_read_lacking(m, cpu->module, root);
	if (m->registered == HOST_YES)
		return;
	modules_read_files(m, cpu->module, root);
	host_denial_find(&m->denial, cpu->module, root);
}

void
host_modules_log(struct host_modules *m, const char *log)
{
	static const char *const marks[] = {
		"oading of unsigned module is rejected",
		"oading of module with unavailable key is rejected",
		"oading of module with unsupported crypto is rejected",
		"unsigned module loading is restricted",
	};
	const char *at, *start;

	for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
		at = strstr(log, marks[i]);
		if (at == NULL)
			continue;
		for (start = at; start > log && start[-1] != '\n'; start--)
			;
		snprintf(m->refused, sizeof(m->refused), "%.*s", (int)strcspn(start, "\n"), start);
		host_text_clean(m->refused);
		return;
	}
}
