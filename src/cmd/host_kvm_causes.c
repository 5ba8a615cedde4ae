/*
 * The causes (see host_kvm_causes.h). Their order is that of what must be there
 * first: a processor that can, firmware that lets it, a module, a node, permission,
 * and a KVM that passes its test. ENOENT, EACCES and EPERM of an open each have
 * several causes; what tells them apart is state, not the number.
 *
 * In a container the files about modules are the image's and say nothing of the
 * host's kernel: rows that read them do not apply there.
 */
#include "cmd/host_kvm_causes.h"

#include <errno.h>
#include <string.h>

static bool
cause_opened(const struct host_kvm *h)
{
	return !h->facts.node.stat_error && !h->facts.node.open_error && h->facts.node.is_kvm;
}

/* There is no driver behind the node, or would not be one. */
static bool
cause_no_driver(const struct host_kvm *h)
{
	if (cause_opened(h))
		return false;
	if (h->facts.modules.registered != HOST_UNKNOWN)
		return h->facts.modules.registered == HOST_NO;
	return h->facts.node.open_error == ENOENT || h->facts.node.open_error == ENODEV ||
	       h->facts.node.open_error == ENXIO;
}

static bool
cause_no_nesting(const struct host_kvm *h)
{
	return cause_no_driver(h) && !h->facts.cpu.has_virt && h->facts.cpu.in_vm;
}

static bool
cause_no_virtualization(const struct host_kvm *h)
{
	return cause_no_driver(h) && !h->facts.cpu.has_virt;
}

static bool
cause_cleared(const struct host_kvm *h)
{
	return cause_no_driver(h) && h->facts.cpu.cleared;
}

static bool
cause_firmware_off(const struct host_kvm *h)
{
	return cause_no_driver(h) && h->facts.cpu.off == HOST_YES;
}

/* No module is in the kernel, and the rules here are the host's. */
static bool
cause_no_module(const struct host_kvm *h)
{
	return cause_no_driver(h) && !h->facts.modules.vendor && !h->facts.place.container;
}

static bool
cause_kernel_without(const struct host_kvm *h)
{
	return cause_no_driver(h) && !h->facts.modules.core && !h->facts.modules.loadable;
}

static bool
cause_modules_frozen(const struct host_kvm *h)
{
	return cause_no_driver(h) && !h->facts.modules.vendor &&
	       h->facts.modules.disabled == HOST_YES;
}

static bool
cause_kernel_replaced(const struct host_kvm *h)
{
	return cause_no_module(h) && !h->facts.modules.folder;
}

static bool
cause_module_missing(const struct host_kvm *h)
{
	return cause_no_module(h) && h->facts.modules.file[0] == '\0' && !h->facts.modules.builtin;
}

static bool
cause_module_denied(const struct host_kvm *h)
{
	return cause_no_module(h) && h->facts.modules.denial.found;
}

/* The log's line may be about another module, unless it says kvm or ours has no signature. */
static bool
cause_module_refused(const struct host_kvm *h)
{
	const struct host_modules *m = &h->facts.modules;

	return cause_no_module(h) && m->refused[0] &&
	       (m->is_signed == HOST_NO || strstr(m->refused, "kvm"));
}

static bool
cause_module_unsigned(const struct host_kvm *h)
{
	const struct host_security *s = &h->facts.security;
	bool enforced =
		s->sig_enforce == HOST_YES || (s->lockdown[0] && strcmp(s->lockdown, "none") != 0);

	return cause_no_module(h) && h->facts.modules.is_signed == HOST_NO && enforced;
}

/* A node that is there loads its module when it is opened. */
static bool
cause_module_not_loaded(const struct host_kvm *h)
{
	int error = h->facts.node.open_error;

	return cause_no_driver(h) && !h->facts.modules.vendor &&
	       (error == ENOENT || error == ENODEV || error == ENXIO);
}

static bool
cause_module_idle(const struct host_kvm *h)
{
	return cause_no_driver(h) && h->facts.modules.vendor;
}

static bool
cause_not_passed(const struct host_kvm *h)
{
	return h->facts.node.stat_error == ENOENT && h->facts.place.isolated;
}

static bool
cause_node_missing(const struct host_kvm *h)
{
	return h->facts.node.stat_error == ENOENT;
}

static bool
cause_not_kvm(const struct host_kvm *h)
{
	return !h->facts.node.stat_error && !h->facts.node.is_kvm;
}

static bool
cause_user_namespace(const struct host_kvm *h)
{
	const struct host_node *n = &h->facts.node;

	return n->open_error == EACCES && h->facts.place.user_namespace && !n->mode_allows;
}

static bool
cause_nodev(const struct host_kvm *h)
{
	return h->facts.node.open_error == EACCES && h->facts.node.nodev;
}

static bool
cause_no_search(const struct host_kvm *h)
{
	return h->facts.node.stat_error == EACCES;
}

static bool
cause_no_permission(const struct host_kvm *h)
{
	return h->facts.node.open_error == EACCES && !h->facts.node.mode_allows;
}

static bool
cause_new_login(const struct host_kvm *h)
{
	return cause_no_permission(h) && h->facts.node.group_opens && h->facts.node.listed;
}

static bool
cause_not_in_group(const struct host_kvm *h)
{
	return cause_no_permission(h) && h->facts.node.group_opens;
}

static bool
cause_refused_by_lsm(const struct host_kvm *h)
{
	return h->facts.node.open_error == EACCES && !h->facts.node.stat_error;
}

static bool
cause_device_group(const struct host_kvm *h)
{
	return h->facts.node.open_error == EPERM;
}

static bool
cause_device_unit(const struct host_kvm *h)
{
	return h->facts.node.open_error == EPERM && h->facts.place.unit[0] &&
	       !h->facts.place.container;
}

static bool
cause_device_container(const struct host_kvm *h)
{
	return h->facts.node.open_error == EPERM && h->facts.place.container;
}

static bool
cause_no_descriptors(const struct host_kvm *h)
{
	return h->facts.node.open_error == EMFILE || h->facts.node.open_error == ENFILE;
}

static bool
cause_open_failed(const struct host_kvm *h)
{
	return h->facts.node.open_error != 0;
}

static bool
cause_not_tried(const struct host_kvm *h)
{
	return !h->probe.done;
}

static bool
cause_probe(const struct host_kvm *h)
{
	return h->probe.done && !h->probe.usable;
}

const struct host_cause host_causes[] = {
	/* The processor and its firmware */
	{"no-nesting", "this machine is a VM without nested virtualization", cause_no_nesting,
	 "CPUID shows a hypervisor ({above}) and no {virt}",
	 "switch nested virtualization on for this VM, where it is configured"},
	{"no-virtualization", "this CPU has no virtualization", cause_no_virtualization,
	 "CPUID of {model} has no {virt}", "use the hypervisor biga: it needs none"},
	{"cleared", "the kernel was told to leave virtualization alone", cause_cleared,
	 "clearcpuid= on the kernel's command line takes {virt} away",
	 "remove {virt} from clearcpuid= in the boot loader's configuration and restart"},
	{"firmware-off", "virtualization is switched off in the firmware", cause_firmware_off,
	 "{off}", "switch it on in the firmware's setup ({firmware-name}) and restart"},
	/* Modules */
	{"kernel-without-kvm", "this kernel has no KVM", cause_kernel_without,
	 "kernel {release} has no kvm and cannot load modules",
	 "start a kernel that has KVM (CONFIG_KVM)"},
	{"modules-frozen", "no module can be loaded any more", cause_modules_frozen,
	 "kernel.modules_disabled is 1, and {module} is not loaded",
	 "restart{on-host}, and load {module} before modules are frozen: a line \"{module}\" in "
	 "/etc/modules-load.d/kvm.conf"},
	{"kernel-replaced", "the running kernel's modules are gone", cause_kernel_replaced,
	 "/lib/modules/{release} is missing: the kernel was updated since the start",
	 "restart, so that the installed kernel runs"},
	{"module-missing", "this kernel's KVM module is not installed", cause_module_missing,
	 "/lib/modules/{release} has no {module}",
	 "install the package with all modules of kernel {release}, or start a kernel that has "
	 "KVM"},
	{"module-denied", "the KVM module may not be loaded", cause_module_denied,
	 "{denied-where} says \"{denied-text}\"",
	 "remove that from {denied-file}, then as root: modprobe {module}"},
	{"module-refused", "the kernel refused the KVM module", cause_module_refused,
	 "the kernel's log says \"{refused}\" (Secure Boot {secure-boot}, lockdown {lockdown})",
	 "install the distribution's signed kernel with its modules, or enroll the key that signed "
	 "{module} (mokutil --import KEY)"},
	{"module-unsigned", "the kernel will refuse the KVM module", cause_module_unsigned,
	 "{module-file} has no signature, and the kernel demands one (sig_enforce {sig-enforce}, "
	 "lockdown {lockdown})",
	 "install the distribution's signed kernel with its modules"},
	{"module-idle", "the KVM module is loaded and does not serve", cause_module_idle,
	 "{loaded} in the kernel, but no driver for /dev/kvm",
	 "read what it says{on-host}: dmesg | grep -i kvm"},
	{"module-not-loaded", "the KVM module is not loaded", cause_module_not_loaded,
	 "{module} is not in the kernel", "as root{on-host}: modprobe {module}"},
	/* The node */
	{"not-passed", "/dev/kvm is not passed in here", cause_not_passed,
	 "the kernel has KVM, but there is no /dev/kvm in {place}", "{pass}"},
	{"node-missing", "/dev/kvm is missing", cause_node_missing,
	 "the kernel has KVM, but there is no /dev/kvm",
	 "as root: udevadm trigger /sys/class/misc/kvm, or mknod -m 660 /dev/kvm c 10 232"},
	{"not-kvm", "/dev/kvm is something else", cause_not_kvm, "/dev/kvm is {node-kind}",
	 "as root: rm /dev/kvm && mknod -m 660 /dev/kvm c 10 232"},
	/* Permission */
	{"no-search", "no permission for the folder /dev", cause_no_search,
	 "/dev cannot be searched by {user}", "as root: chmod 755 /dev"},
	{"user-namespace", "/dev/kvm is not ours in this user namespace", cause_user_namespace,
	 "/dev/kvm is {node}; {user} here is nobody special outside",
	 "outside, give the user who started this access to /dev/kvm"},
	{"nodev", "/dev/kvm is on a file system without devices", cause_nodev,
	 "the file system of /dev/kvm is mounted nodev",
	 "as root: mount -o remount,dev /dev, or pass the host's /dev/kvm in"},
	{"new-login", "this session does not know its group yet", cause_new_login,
	 "/dev/kvm is {node}; {user} is a member of {group}, but this session began before",
	 "log out and in again, or: newgrp {group}"},
	{"not-in-group", "no permission for /dev/kvm", cause_not_in_group,
	 "/dev/kvm is {node}, and {user} is not in group {group}",
	 "as root: usermod -aG {group} {user}, then log in again"},
	{"no-permission", "no permission for /dev/kvm", cause_no_permission,
	 "/dev/kvm is {node}, and this runs as {user}",
	 "as root: chgrp kvm /dev/kvm && chmod 660 /dev/kvm && usermod -aG kvm {user}, then log in "
	 "again"},
	{"refused-by-lsm", "a security policy refuses /dev/kvm", cause_refused_by_lsm,
	 "the mode of /dev/kvm ({node}) allows it, and open says \"permission denied\" (security "
	 "modules: {lsm}; label: {label})",
	 "allow it in the policy of that module; the kernel's audit log names the rule"},
	{"device-denied", "this container may not open /dev/kvm", cause_device_container,
	 "the mode of /dev/kvm ({node}) does not matter: control group {cgroup} forbids the device",
	 "{pass}"},
	{"device-denied", "this service may not open /dev/kvm", cause_device_unit,
	 "the mode of /dev/kvm ({node}) does not matter: control group {cgroup} forbids the device",
	 "add DeviceAllow=/dev/kvm rw to {unit} and restart it"},
	{"device-denied", "a control group forbids /dev/kvm", cause_device_group,
	 "the mode of /dev/kvm ({node}) does not matter: control group {cgroup} forbids the device",
	 "allow the device 10:232 in that control group"},
	{"no-descriptors", "no more files can be opened", cause_no_descriptors,
	 "open: {open-error}", "close some programs, or raise the limit: ulimit -n"},
	{"open-failed", "/dev/kvm cannot be opened", cause_open_failed, "open: {open-error}",
	 "read what the kernel says: dmesg | grep -i kvm"},
	{"not-supported", "this version of Biga cannot use KVM", cause_not_tried,
	 "/dev/kvm can be opened, and is not tried", "use the hypervisor biga"},
	/* What the probe found behind a node that opens; the engine gives the texts. */
	{"not-kvm", "/dev/kvm is something else", NULL, "{probe}", "{probe-fix}"},
	{"api", "/dev/kvm has another interface", NULL, "{probe}", "{probe-fix}"},
	{"capability", "KVM lacks something that is needed", NULL, "{probe}", "{probe-fix}"},
	{"held", "another hypervisor holds the CPU's virtualization", NULL, "{probe}{rivals}",
	 "end the VMs of the other hypervisor, or remove its module"},
	{"no-memory", "KVM has no memory", NULL, "{probe}", "{probe-fix}"},
	{"unsound", "/dev/kvm is there but unsound", NULL, "{probe}", "{probe-fix}"},
	{"slow", "/dev/kvm is there but slow", NULL, "{probe}", "{probe-fix}"},
	{"no-answer", "/dev/kvm is there but does not answer", NULL, "{probe}",
	 "use the hypervisor biga, and read what the kernel says: dmesg | grep -i kvm"},
	{"died", "/dev/kvm is there but could not be tried", NULL, "{probe}",
	 "use the hypervisor biga, and report this as an error of Biga"},
	{"other", "KVM cannot be used", cause_probe, "{probe}", "{probe-fix}"},
	{NULL, NULL, NULL, NULL, NULL},
};

const struct host_cause *
host_cause_find(const struct host_kvm *h)
{
	if (h->probe.done && h->probe.usable)
		return NULL;
	for (const struct host_cause *c = host_causes; c->name; c++) {
		if (c->applies ? c->applies(h)
			       : h->probe.done && strcmp(c->name, h->probe.cause) == 0)
			return c;
	}
	return NULL;
}
