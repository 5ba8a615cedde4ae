/*
 * What this host is, as far as it decides whether KVM can be used, as data. The
 * causes (host_kvm_causes.h) are told from these facts and nothing else, so that
 * each can be tried without having such a host.
 *
 * Reading changes nothing: no module is loaded, no setting is touched. Texts are
 * printable ASCII.
 */
#ifndef CMD_HOST_KVM_FACTS_H
#define CMD_HOST_KVM_FACTS_H

#include <sys/stat.h>

#include "cmd/host_kvm_file.h"

struct host_cpu {
	char vendor[13], model[49];
	const char *virt;   /* the name of its virtualization: "vmx" or "svm" */
	const char *module; /* the part of KVM that drives it: "kvm_intel" or "kvm_amd" */
	bool in_vm;
	char hypervisor[13];  /* what CPUID calls the one above us, "" if nothing */
	bool has_virt;	      /* CPUID says so */
	enum host_truth flag; /* the kernel says so (/proc/cpuinfo) */
	bool cleared;	      /* the kernel's command line took the flag away */
	enum host_truth off;  /* switched off by the firmware */
	char off_how[160];    /* where that was read */
	unsigned cpus;
};

struct host_denial {
	bool found;
	char where[HOST_PATH]; /* file, or "the kernel's command line" */
	unsigned line;	       /* 0: no file */
	char text[96];
};

struct host_modules {
	char release[65];
	enum host_truth registered; /* the kernel has a driver for /dev/kvm now */
	bool core, vendor;	  /* kvm, and the one for this CPU or another, are in the kernel */
	char loaded[96];	  /* names of all that begin with kvm */
	bool loadable;		  /* the kernel can load modules at all */
	enum host_truth disabled; /* kernel.modules_disabled */
	bool folder;		  /* /lib/modules/RELEASE */
	bool builtin;
	char file[HOST_PATH]; /* of cpu.module, "" if there is none */
	enum host_truth is_signed;
	struct host_denial denial;
	char refused[160]; /* the line of the kernel's log that tells of a refusal, or "" */
	char lacking[128]; /* other installed kernels that have no such module */
	char rivals[96];   /* other hypervisors' modules that are loaded */
};

struct host_security {
	enum host_truth secure_boot;
	char lockdown[24]; /* none, integrity, confidentiality; "" if unknown */
	enum host_truth sig_enforce;
	int mok_keys;		     /* that the owner of the machine enrolled, -1: unknown */
	enum host_truth mok_pending; /* a request that the next start asks about */
	char lsm[128];		     /* the list of active ones, "" if unknown */
	char label[96];		     /* ours under SELinux or AppArmor, "" if there is none */
};

struct host_place {
	bool isolated; /* in namespaces that are not the first process's */
	bool pid_namespace, user_namespace;
	bool own_root; /* another file system at "/" than the first process has */
	bool container;
	char kind[32];			/* docker, podman ..., "" if unknown */
	char how[160];			/* what that was seen by */
	char cgroup[256];		/* the one that says which devices may be opened */
	char unit[96];			/* the service of systemd that we are part of, "" if none */
	enum host_truth device_allowed; /* by a version 1 device list that can be read */
};

struct host_node {
	int stat_error, open_error; /* errno, 0: fine */
	bool is_kvm;		    /* a character device of KVM's number */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	dev_t rdev;
	char owner[33], group[33];
	bool nodev;	   /* its file system is mounted so */
	bool acl;	   /* an access list says more than the mode */
	bool mode_allows;  /* us to read and write */
	bool group_opens;  /* the mode lets its group read and write */
	bool listed;	   /* our user is a member of that group by the user database */
	char members[128]; /* of that group, as listed */
	bool world;	   /* everybody may read and write */
	char user[33];	   /* who we are */
};

struct host_limits {
	u64 total, available; /* bytes of memory, 0: unknown */
	u64 cgroup;	      /* memory limit of our control groups, 0: none */
	u64 address_space;    /* RLIMIT_AS, 0: none */
	u64 mappings;	      /* vm.max_map_count */
	char large_pages[16]; /* whether shared memory gets some: never, advise ..., "": unknown */
	int io_uring;	      /* errno that a ring is refused with, 0: allowed */
	int landlock;	      /* its version, 0: none */
};

struct host_facts {
	struct host_cpu cpu;
	struct host_modules modules;
	struct host_security security;
	struct host_place place;
	struct host_node node;
	struct host_limits limits;
};

/* What is learned without files: CPUID, uname, system calls. */
void host_facts_identify(struct host_facts *facts);
/* The rest, but NODE; IDENTIFY came before (or a test's own values). */
void host_facts_inspect(struct host_facts *facts, const char *root);

/* Opens /dev/kvm if it is one. The descriptor, or -1 and NODE says why. */
int host_node_open(struct host_node *node, const char *root);
/* What decides who may open it: owner, names, group's members. */
void host_node_inspect(struct host_node *node, const struct host_place *place, const char *root);

/* Parts of the above, each in its own file. */
void host_cpu_identify(struct host_cpu *cpu);
void host_cpu_inspect(struct host_cpu *cpu, const char *root);
void host_cpu_log(struct host_cpu *cpu, const char *log);
void host_modules_inspect(struct host_modules *modules, const struct host_cpu *cpu,
			  const char *root);
void host_modules_log(struct host_modules *modules, const char *log);
void host_denial_find(struct host_denial *denial, const char *module, const char *root);
void host_place_inspect(struct host_place *place, const char *root);
/* Our control group for CONTROLLER: of its version 1 hierarchy ("5:devices:/a"; true), or else
 * of version 2 ("0::/a"; false). GROUP is "" if there is none. */
bool host_place_group(const char *root, const char *controller, char *group, size_t size);
void host_limits_identify(struct host_limits *limits);
void host_limits_inspect(struct host_limits *limits, const char *root);

#endif
