/*
 * What a VM is made of, validated, as data: the same in memory, in a `configure`
 * message, in `--dry-run`'s output and in a saved VM. Host paths are for people
 * only; the VM process gets descriptors (resources.h).
 */
#ifndef VM_CONFIG_H
#define VM_CONFIG_H

#include <jansson.h>

#include "base/types.h"

enum {
	VM_CPUS_MAX = 16,
	VM_INITRDS_MAX = 16,
	VM_DISKS_MAX = 16,
	VM_NAME_MAX = 64,
	VM_APPEND_MAX = 4096,
	VM_WHY = 320,
};
#define VM_MEMORY_MIN (2ull << 20)
#define VM_MEMORY_MAX (1ull << 38)
#define VM_MEMORY_UNIT (1ull << 20)
#define VM_CODE_CACHE_MIN (4ull << 20)
#define VM_CODE_CACHE_MAX (2ull << 30)

enum vm_console { VM_CONSOLE_NONE, VM_CONSOLE_SERIAL, VM_CONSOLE_VIRTIO };

struct vm_disk {
	bool readonly;
	char *path; /* as the user gave it */
};

struct vm_config {
	char name[VM_NAME_MAX];
	char hypervisor[16]; /* resolved: never "auto"; "kvm,force": though unsound */
	char cpu_model[32];
	unsigned cpus;
	u64 memory;	/* bytes */
	u64 code_cache; /* bytes, 0: the hypervisor's default */
	char *kernel;	/* path */
	char *initrds[VM_INITRDS_MAX];
	unsigned initrd_count;
	char *append;
	struct vm_disk disks[VM_DISKS_MAX];
	unsigned disk_count;
	bool net; /* one card, frames by descriptor */
	u8 mac[6];
	enum vm_console console; /* where the console's descriptor leads */
	bool debug_exit, testdev;
	bool reboot; /* a guest's reset boots it again; else it ends the VM */
};

/* Defaults: all empty but what every VM has. */
void vm_config_init(struct vm_config *config);
void vm_config_clear(struct vm_config *config);

/* Checks every value against its limits. 0, or -EINVAL and one line (cause; fix) in WHY. */
int vm_config_check(const struct vm_config *config, char *why, size_t why_size);

/* A new reference, NULL if out of memory. */
json_t *vm_config_to_json(const struct vm_config *config);
/* CONFIG was not initialised; on success it passed vm_config_check. Unknown keys are errors.
 * 0, or -EINVAL (-ENOMEM) with WHY; then nothing needs to be cleared. */
int vm_config_from_json(struct vm_config *config, const json_t *json, char *why, size_t why_size);

bool vm_name_valid(const char *name);
/* "52:54:00:12:34:56", unicast. */
bool vm_mac_parse(const char *text, u8 mac[6]);

#endif
