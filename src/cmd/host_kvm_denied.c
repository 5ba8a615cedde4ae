/*
 * Who forbids that a module is loaded: modprobe.d(5), or the kernel's command
 * line. Of files of one name, the one in the folder that comes first counts; then
 * all are read in the order of their names.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/host_kvm_facts.h"

enum { DENIED_FILES_MAX = 512, DENIED_NAME = 128 };

static const char *const denied_folders[] = {
	"/etc/modprobe.d",     "/run/modprobe.d", "/usr/local/lib/modprobe.d",
	"/usr/lib/modprobe.d", "/lib/modprobe.d",
};

struct denied_file {
	char name[DENIED_NAME];
	const char *folder;
};

struct denied_list {
	struct denied_file files[DENIED_FILES_MAX];
	size_t count;
};

static bool
denied_list_has(const struct denied_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->files[i].name, name) == 0)
			return true;
	}
	return false;
}

static void
denied_list_add(struct denied_list *list, const char *folder, const char *root)
{
	char path[HOST_PATH];
	struct dirent *entry;
	size_t len;
	DIR *dir;

	snprintf(path, sizeof(path), "%.400s%s", root, folder);
	dir = opendir(path);
	while (dir && list->count < DENIED_FILES_MAX && (entry = readdir(dir)) != NULL) {
		len = strlen(entry->d_name);
		if (len <= 5 || len >= DENIED_NAME || entry->d_name[0] == '.' ||
		    strcmp(entry->d_name + len - 5, ".conf") != 0 ||
		    denied_list_has(list, entry->d_name))
			continue;
		strcpy(list->files[list->count].name, entry->d_name);
		list->files[list->count++].folder = folder;
	}
	if (dir)
		closedir(dir);
}

static int
denied_compare(const void *a, const void *b)
{
	return strcmp(((const struct denied_file *)a)->name, ((const struct denied_file *)b)->name);
}

static bool
denied_is_module(const char *word, const char *module)
{
	for (; *word && *module; word++, module++) {
		if ((*word == '-' ? '_' : *word) != *module)
			return false;
	}
	return *word == *module;
}

/* "/bin/false", "exit 1", ":": a command that loads nothing and does nothing. */
static bool
denied_does_nothing(const char *command)
{
	static const char *const words[] = {"false", "true", ":", "exit"};
	size_t len = strcspn(command, " \t;&|");
	const char *slash = memrchr(command, '/', len);
	const char *name = slash ? slash + 1 : command;

	len -= (size_t)(name - command);
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strlen(words[i]) == len && memcmp(name, words[i], len) == 0)
			return true;
	}
	return false;
}

/* TEXT is one logical line. "blacklist" keeps a module from being loaded for the processor's
 * sake; kvm itself comes as the other's dependency, so for that only "install" counts. */
static bool
denied_by_line(char *text, const char *module)
{
	char *rest = text, *verb = NULL, *name = NULL;

	while (verb == NULL || *verb == '\0') {
		verb = strsep(&rest, " \t");
		if (verb == NULL || *verb == '#')
			return false;
	}
	while (name == NULL || *name == '\0') {
		name = strsep(&rest, " \t");
		if (name == NULL)
			return false;
	}
	if (strcmp(verb, "blacklist") == 0)
		return denied_is_module(name, module);
	if (strcmp(verb, "install") != 0 || rest == NULL)
		return false;
	rest += strspn(rest, " \t");
	return (denied_is_module(name, module) || denied_is_module(name, "kvm")) &&
	       denied_does_nothing(rest);
}

/* Appends the next line of the file to LINE if that ends in a backslash. False at the end. */
static bool
denied_read_line(FILE *file, char *line, size_t size, unsigned *number)
{
	size_t len = 0;

	line[0] = '\0';
	while (len + 1 < size && fgets(line + len, (int)(size - len), file)) {
		++*number;
		len = strcspn(line, "\n");
		line[len] = '\0';
		if (len == 0 || line[len - 1] != '\\')
			return true;
		line[--len] = '\0';
	}
	return len > 0;
}

static void
denied_by_file(struct host_denial *d, const char *module, const struct denied_file *f,
	       const char *root)
{
	char path[HOST_PATH], line[2048], copy[2048];
	unsigned number = 0, first = 1;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", f->folder, f->name);
	file = host_file_open(root, path);
	for (; file && !d->found && denied_read_line(file, line, sizeof(line), &number);
	     first = number + 1) {
		strcpy(copy, line);
		if (!denied_by_line(copy, module))
			continue;
		d->found = true;
		d->line = first;
		host_text_copy(d->where, sizeof(d->where), path);
		host_text_copy(d->text, sizeof(d->text), line + strspn(line, " \t"));
	}
	if (file)
		fclose(file);
}

/* "module_blacklist=" is the kernel's own, "modprobe.blacklist=" is read by modprobe. */
static void
denied_by_command_line(struct host_denial *d, const char *module, const char *root)
{
	static const char *const options[] = {"module_blacklist=", "modprobe.blacklist="};
	char text[4096], *rest = text, *word, *name;

	host_file_line(root, "/proc/cmdline", text, sizeof(text));
	while (!d->found && (word = strsep(&rest, " ")) != NULL) {
		for (size_t i = 0; i < ARRAY_LEN(options); i++) {
			if (strncmp(word, options[i], strlen(options[i])) != 0)
				continue;
			host_text_copy(d->text, sizeof(d->text), word);
			word += strlen(options[i]);
			while ((name = strsep(&word, ",")) != NULL)
				d->found = d->found || denied_is_module(name, module) ||
					   (i == 0 && denied_is_module(name, "kvm"));
			break;
		}
	}
	if (d->found)
		strcpy(d->where, "the kernel's command line");
}

void
host_denial_find(struct host_denial *d, const char *module, const char *root)
{
	struct denied_list *list = calloc(1, sizeof(*list));

	denied_by_command_line(d, module, root);
	for (size_t i = 0; list && i < ARRAY_LEN(denied_folders); i++)
		denied_list_add(list, denied_folders[i], root);
	if (list)
		qsort(list->files, list->count, sizeof(list->files[0]), denied_compare);
	for (size_t i = 0; list && i < list->count && !d->found; i++)
		denied_by_file(d, module, &list->files[i], root);
	free(list);
	if (!d->found)
		d->text[0] = '\0';
	host_text_clean(d->where);
	host_text_clean(d->text);
}
