/*
 * VM configurations as JSON (see config.h). One table says which keys there
 * are; what is not in it is refused, so that a typing error cannot pass for a
 * setting.
 */
#include "vm/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const vm_console_names[] = {
	[VM_CONSOLE_NONE] = "none",
	[VM_CONSOLE_SERIAL] = "serial",
	[VM_CONSOLE_VIRTIO] = "virtio",
};

static int PRINTF_LIKE(3, 4) config_refuse(char *why, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, size, fmt, args);
	va_end(args);
	return -EINVAL;
}

void
vm_config_init(struct vm_config *config)
{
	static const u8 mac[6] = {0x52, 0x54, 0x00, 0xb1, 0x9a, 0x01};

	memset(config, 0, sizeof(*config));
	strcpy(config->name, "vm");
	strcpy(config->hypervisor, "biga");
	strcpy(config->cpu_model, "x86-64-v3");
	config->cpus = 1;
	config->memory = 512ull << 20;
	config->reboot = true;
	memcpy(config->mac, mac, sizeof(mac));
}

void
vm_config_clear(struct vm_config *config)
{
	free(config->kernel);
	free(config->append);
	for (unsigned i = 0; i < config->initrd_count; i++)
		free(config->initrds[i]);
	for (unsigned i = 0; i < config->disk_count; i++)
		free(config->disks[i].path);
	memset(config, 0, sizeof(*config));
}

bool
vm_name_valid(const char *name)
{
	static const char set[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t len = strlen(name);

	return len > 0 && len < VM_NAME_MAX && strspn(name, set) == len && name[0] != '.' &&
	       name[0] != '-';
}

bool
vm_mac_parse(const char *text, u8 mac[6])
{
	static const char hex[] = "0123456789abcdef";
	const char *high, *low;

	if (strlen(text) != 17)
		return false;
	for (unsigned i = 0; i < 6; i++, text += 3) {
		high = strchr(hex, text[0] | 0x20);
		low = strchr(hex, text[1] | 0x20);
		if (high == NULL || low == NULL || (i < 5 && text[2] != ':'))
			return false;
		mac[i] = (u8)((high - hex) << 4 | (low - hex));
	}
	return !(mac[0] & 1);
}

static int
config_check_sizes(const struct vm_config *c, char *why, size_t size)
{
	if (c->cpus < 1 || c->cpus > VM_CPUS_MAX)
		return config_refuse(why, size, "%u CPUs are not possible; use 1 to %d", c->cpus,
				     VM_CPUS_MAX);
	if (c->memory < VM_MEMORY_MIN)
		return config_refuse(
			why, size,
			"%llu bytes of memory are too few; use at least %lluM, for example 512M",
			(unsigned long long)c->memory, VM_MEMORY_MIN >> 20);
	if (c->memory > VM_MEMORY_MAX)
		return config_refuse(why, size,
				     "more than %lluG of memory is not possible; use less",
				     VM_MEMORY_MAX >> 30);
	if (c->memory % VM_MEMORY_UNIT)
		return config_refuse(why, size, "memory must be whole MiB; use for example %lluM",
				     (unsigned long long)(c->memory >> 20) + 1);
	if (c->code_cache &&
	    (c->code_cache < VM_CODE_CACHE_MIN || c->code_cache > VM_CODE_CACHE_MAX))
		return config_refuse(why, size, "the code cache must be from %lluM to %lluM",
				     VM_CODE_CACHE_MIN >> 20, VM_CODE_CACHE_MAX >> 20);
	return 0;
}

int
vm_config_check(const struct vm_config *c, char *why, size_t size)
{
	int rc;

	if (!vm_name_valid(c->name))
		return config_refuse(why, size,
				     "the name may have up to %d letters, digits and . _ -, and "
				     "begin with a letter or digit",
				     VM_NAME_MAX - 1);
	rc = config_check_sizes(c, why, size);
	if (rc < 0)
		return rc;
	if (c->kernel == NULL)
		return config_refuse(why, size,
				     "no kernel: booting a disk by firmware is not built yet; give "
				     "--kernel FILE");
	if (c->append && strlen(c->append) >= VM_APPEND_MAX)
		return config_refuse(
			why, size, "the kernel's command line is longer than %d bytes; shorten it",
			VM_APPEND_MAX - 1);
	if (c->mac[0] & 1)
		return config_refuse(
			why, size,
			"the MAC address is a multicast one; its first byte must be even");
	return 0;
}

static json_t *
config_strings_to_json(char *const *strings, unsigned n)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(array, json_string(strings[i]));
	return array;
}

static json_t *
config_disks_to_json(const struct vm_config *config)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < config->disk_count; i++) {
		const struct vm_disk *disk = &config->disks[i];

		json_array_append_new(array, json_pack("{s:s?, s:s, s:s, s:b}", "path", disk->path,
						       "format", "raw", "device", "virtio",
						       "readonly", disk->readonly));
	}
	return array;
}

static json_t *
config_net_to_json(const struct vm_config *config)
{
	const u8 *m = config->mac;
	char mac[18];

	if (!config->net)
		return json_null();
	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
		 m[5]);
	return json_pack("{s:s, s:s}", "device", "virtio", "mac", mac);
}

json_t *
vm_config_to_json(const struct vm_config *c)
{
	return json_pack(
		"{s:s, s:s, s:s, s:i, s:I, s:I, s:s?, s:o, s:s?, s:o, s:o, s:s, s:b, s:b, s:b}",
		"name", c->name, "hypervisor", c->hypervisor, "cpu-model", c->cpu_model, "cpus",
		(int)c->cpus, "memory", (json_int_t)c->memory, "code-cache",
		(json_int_t)c->code_cache, "kernel", c->kernel, "initrds",
		config_strings_to_json(c->initrds, c->initrd_count), "append", c->append, "disks",
		config_disks_to_json(c), "net", config_net_to_json(c), "console",
		vm_console_names[c->console], "debug-exit", c->debug_exit, "testdev", c->testdev,
		"reboot", c->reboot);
}

/* Setters: VALUE is of the JSON type that the table asks for, or null if it may be. */

static bool
config_copy(char *to, size_t size, const json_t *value)
{
	size_t len = json_string_length(value);

	if (len >= size || strlen(json_string_value(value)) != len)
		return false;
	memcpy(to, json_string_value(value), len + 1);
	return true;
}

static char *
config_dup(const json_t *value)
{
	/* A zero inside would cut the string behind the checks' back. */
	if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
		return NULL;
	return strdup(json_string_value(value));
}

static bool
config_set_name(struct vm_config *c, const json_t *value)
{
	return config_copy(c->name, sizeof(c->name), value);
}

static bool
config_set_hypervisor(struct vm_config *c, const json_t *value)
{
	return config_copy(c->hypervisor, sizeof(c->hypervisor), value);
}

static bool
config_set_cpu_model(struct vm_config *c, const json_t *value)
{
	return config_copy(c->cpu_model, sizeof(c->cpu_model), value);
}

static bool
config_set_cpus(struct vm_config *c, const json_t *value)
{
	json_int_t n = json_integer_value(value);

	if (n < 1 || n > VM_CPUS_MAX)
		return false;
	c->cpus = (unsigned)n;
	return true;
}

static bool
config_set_memory(struct vm_config *c, const json_t *value)
{
	c->memory = json_integer_value(value) < 0 ? 0 : (u64)json_integer_value(value);
	return true;
}

static bool
config_set_code_cache(struct vm_config *c, const json_t *value)
{
	c->code_cache = (u64)json_integer_value(value);
	return json_integer_value(value) >= 0;
}

static bool
config_set_kernel(struct vm_config *c, const json_t *value)
{
	c->kernel = config_dup(value);
	return c->kernel != NULL;
}

static bool
config_set_append(struct vm_config *c, const json_t *value)
{
	c->append = config_dup(value);
	return c->append != NULL;
}

static bool
config_set_initrds(struct vm_config *c, const json_t *value)
{
	if (json_array_size(value) > VM_INITRDS_MAX)
		return false;
	for (size_t i = 0; i < json_array_size(value); i++) {
		char *path = config_dup(json_array_get(value, i));

		if (path == NULL)
			return false;
		c->initrds[c->initrd_count++] = path;
	}
	return true;
}

static bool
config_set_disk(struct vm_config *c, const json_t *value)
{
	struct vm_disk *disk = &c->disks[c->disk_count];
	const char *path = NULL, *format = "raw", *device = "virtio";
	int readonly = 0;

	if (json_unpack((json_t *)(uintptr_t)value, "{s:s, s?s, s?s, s?b !}", "path", &path,
			"format", &format, "device", &device, "readonly", &readonly) < 0)
		return false;
	if (strcmp(format, "raw") != 0 || strcmp(device, "virtio") != 0)
		return false;
	disk->path = strdup(path);
	disk->readonly = readonly;
	if (disk->path)
		c->disk_count++;
	return disk->path != NULL;
}

static bool
config_set_disks(struct vm_config *c, const json_t *value)
{
	if (json_array_size(value) > VM_DISKS_MAX)
		return false;
	for (size_t i = 0; i < json_array_size(value); i++) {
		if (!config_set_disk(c, json_array_get(value, i)))
			return false;
	}
	return true;
}

static bool
config_set_net(struct vm_config *c, const json_t *value)
{
	const char *mac = NULL, *device = "virtio";

	if (json_unpack((json_t *)(uintptr_t)value, "{s?s, s?s !}", "device", &device, "mac",
			&mac) < 0)
		return false;
	c->net = true;
	return strcmp(device, "virtio") == 0 && (mac == NULL || vm_mac_parse(mac, c->mac));
}

static bool
config_set_console(struct vm_config *c, const json_t *value)
{
	for (unsigned i = 0; i < ARRAY_LEN(vm_console_names); i++) {
		if (strcmp(json_string_value(value), vm_console_names[i]) == 0) {
			c->console = (enum vm_console)i;
			return true;
		}
	}
	return false;
}

static bool
config_set_debug_exit(struct vm_config *c, const json_t *value)
{
	c->debug_exit = json_is_true(value);
	return true;
}

static bool
config_set_testdev(struct vm_config *c, const json_t *value)
{
	c->testdev = json_is_true(value);
	return true;
}

static bool
config_set_reboot(struct vm_config *c, const json_t *value)
{
	c->reboot = json_is_true(value);
	return true;
}

static const struct config_key {
	const char *name;
	json_type type; /* JSON_TRUE stands for either truth value */
	bool nullable;	/* null leaves the default */
	bool (*set)(struct vm_config *config, const json_t *value);
} config_keys[] = {
	{"name", JSON_STRING, false, config_set_name},
	{"hypervisor", JSON_STRING, false, config_set_hypervisor},
	{"cpu-model", JSON_STRING, false, config_set_cpu_model},
	{"cpus", JSON_INTEGER, false, config_set_cpus},
	{"memory", JSON_INTEGER, false, config_set_memory},
	{"code-cache", JSON_INTEGER, false, config_set_code_cache},
	{"kernel", JSON_STRING, true, config_set_kernel},
	{"initrds", JSON_ARRAY, false, config_set_initrds},
	{"append", JSON_STRING, true, config_set_append},
	{"disks", JSON_ARRAY, false, config_set_disks},
	{"net", JSON_OBJECT, true, config_set_net},
	{"console", JSON_STRING, false, config_set_console},
	{"debug-exit", JSON_TRUE, false, config_set_debug_exit},
	{"testdev", JSON_TRUE, false, config_set_testdev},
	{"reboot", JSON_TRUE, false, config_set_reboot},
};

static const struct config_key *
config_key_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(config_keys); i++) {
		if (strcmp(config_keys[i].name, name) == 0)
			return &config_keys[i];
	}
	return NULL;
}

static bool
config_set(struct vm_config *config, const struct config_key *key, const json_t *value)
{
	json_type type = json_typeof(value);

	if (type == JSON_NULL && key->nullable)
		return true;
	if (type == JSON_FALSE)
		type = JSON_TRUE;
	return type == key->type && key->set(config, value);
}

int
vm_config_from_json(struct vm_config *config, const json_t *json, char *why, size_t why_size)
{
	const struct config_key *key;
	const char *name;
	json_t *value;
	int rc = 0;

	vm_config_init(config);
	if (!json_is_object(json))
		return config_refuse(why, why_size, "the configuration is not a JSON object");
	json_object_foreach((json_t *)(uintptr_t)json, name, value)
	{
		key = config_key_find(name);
		if (key == NULL)
			rc = config_refuse(
				why, why_size,
				"the configuration has an unknown key \"%.64s\"; remove it", name);
		else if (!config_set(config, key, value))
			rc = config_refuse(why, why_size,
					   "the configuration's \"%s\" has an impossible value",
					   name);
		if (rc < 0)
			break;
	}
	if (rc == 0)
		rc = vm_config_check(config, why, why_size);
	if (rc < 0)
		vm_config_clear(config);
	return rc;
}
