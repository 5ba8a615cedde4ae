/*
 * Why KVM cannot be used: each cause from the files that tell it, in a folder that
 * stands for the host's root; the probe's child, whatever it does; the choice. What
 * root can make real (nodes, namespaces, control groups) is tests/cli/doctor_host.sh.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "cmd/host_kvm_choose.h"
#include "cmd/host_kvm_speed.h"

#define RELEASE "6.1.0-9-amd64"
#define MODULES "/lib/modules/" RELEASE
#define SIGNATURE "~Module signature appended~\n"

struct host {
	char root[64];
	struct host_kvm kvm;
	struct host_verdict verdict;
};

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void
make_folders(char *path)
{
	for (char *at = path + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		mkdir(path, 0755);
		*at = '/';
	}
}

static void
put_bytes(struct host *h, const char *path, const void *bytes, size_t n, off_t offset)
{
	char full[512];
	int fd;

	snprintf(full, sizeof(full), "%s%s", h->root, path);
	make_folders(full);
	fd = open(full, O_RDWR | O_CREAT, 0644);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, n, offset), n);
	close(fd);
}

static void
put(struct host *h, const char *path, const char *text)
{
	put_bytes(h, path, text, strlen(text), 0);
}

static void
put_folder(struct host *h, const char *path)
{
	char full[512];

	snprintf(full, sizeof(full), "%s%s/", h->root, path);
	make_folders(full);
}

static void
put_link(struct host *h, const char *path, const char *to)
{
	char full[512];

	snprintf(full, sizeof(full), "%s%s", h->root, path);
	make_folders(full);
	unlink(full);
	assert_int_equal(symlink(to, full), 0);
}

static void
take(struct host *h, const char *path)
{
	char full[512];

	snprintf(full, sizeof(full), "%s%s", h->root, path);
	assert_int_equal(remove(full), 0);
}

/* A machine with SVM, Debian's kernel, modules on disk, none loaded, no node: as if somebody
 * had said modprobe -r. Each case changes what it is about. */
static int
setup(void **state)
{
	struct host *h = calloc(1, sizeof(*h));
	struct host_cpu *cpu = &h->kvm.facts.cpu;

	strcpy(h->root, "/tmp/test_doctor.XXXXXX");
	assert_non_null(mkdtemp(h->root));
	strcpy(cpu->vendor, "AuthenticAMD");
	strcpy(cpu->model, "AMD Test");
	cpu->virt = "svm";
	cpu->module = "kvm_amd";
	cpu->has_virt = true;
	strcpy(h->kvm.facts.modules.release, RELEASE);
	put(h, "/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme svm lm\n\nprocessor\t: 1\n");
	put(h, "/proc/cmdline", "root=/dev/vda quiet\n");
	put(h, "/proc/misc", "237 loop-control\n229 fuse\n");
	put(h, "/proc/modules", "ext4 1 2 - Live 0x0\n");
	put(h, "/proc/sys/kernel/modules_disabled", "0\n");
	put(h, "/proc/1/cgroup", "0::/init.scope\n");
	put(h, "/proc/self/cgroup", "0::/user.slice/user-1000.slice\n");
	put_link(h, "/proc/self/ns/pid", "pid:[4026531836]");
	put_link(h, "/proc/self/ns/user", "user:[4026531837]");
	put(h, "/proc/self/mountinfo",
	    "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / rw - ext4 a rw\n");
	put(h, "/proc/1/mountinfo",
	    "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / rw - ext4 a rw\n");
	put_folder(h, "/sys/module/ext4");
	put_folder(h, "/dev");
	put(h, "/sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
	put(h, "/sys/module/module/parameters/sig_enforce", "N\n");
	put(h, MODULES "/modules.dep",
	    "kernel/fs/ext4.ko:\nkernel/arch/x86/kvm/kvm-amd.ko: kernel/arch/x86/kvm/kvm.ko\n");
	put(h, MODULES "/modules.builtin", "kernel/fs/ext4/ext4.ko\n");
	put(h, MODULES "/kernel/arch/x86/kvm/kvm-amd.ko", "ELF and so on" SIGNATURE);
	*state = h;
	return 0;
}

static int
teardown(void **state)
{
	struct host *h = *state;

	nftw(h->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(h);
	return 0;
}

static const char *
examine(struct host *h)
{
	host_node_open(&h->kvm.facts.node, h->root);
	host_facts_inspect(&h->kvm.facts, h->root);
	host_node_inspect(&h->kvm.facts.node, &h->kvm.facts.place, h->root);
	host_kvm_judge(&h->kvm, &h->verdict);
	return h->verdict.cause ? h->verdict.cause : "usable";
}

#define HAS(text, part)                                                                            \
	do {                                                                                       \
		if (strstr(text, part) == NULL)                                                    \
			fail_msg("no \"%s\" in \"%s\"", part, text);                               \
	} while (0)

/* The cause, parts of its evidence and its fix; other facts of HOST stay. */
static void
expect(struct host *h, const char *cause, const char *evidence, const char *fix)
{
	assert_string_equal(examine(h), cause);
	HAS(h->verdict.evidence, evidence);
	HAS(h->verdict.fix, fix);
	assert_null(strchr(h->verdict.evidence, '{'));
	assert_null(strchr(h->verdict.fix, '{'));
	assert_string_not_equal(h->verdict.summary, "");
}

static void
module_not_loaded(void **state)
{
	expect(*state, "module-not-loaded", "kvm_amd is not in the kernel",
	       "as root: modprobe kvm_amd");
}

static void
no_nesting(void **state)
{
	struct host *h = *state;

	h->kvm.facts.cpu.has_virt = false;
	h->kvm.facts.cpu.in_vm = true;
	strcpy(h->kvm.facts.cpu.hypervisor, "VMwareVMware");
	expect(h, "no-nesting", "VMwareVMware", "nested virtualization");
}

static void
no_virtualization(void **state)
{
	struct host *h = *state;

	h->kvm.facts.cpu.has_virt = false;
	expect(h, "no-virtualization", "AMD Test has no svm", "biga");
}

static void
cleared_by_command_line(void **state)
{
	struct host *h = *state;

	put(h, "/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme lm   \n\n");
	put(h, "/proc/cmdline", "quiet clearcpuid=514,svm \n");
	expect(h, "cleared", "svm", "clearcpuid=");
}

static void
firmware_by_flag(void **state)
{
	struct host *h = *state;

	put(h, "/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme lm   \n\n");
	put(h, "/proc/cmdline", "quiet noclearcpuid=svm     \n");
	expect(h, "firmware-off", "the kernel took svm out", "SVM Mode");
}

static void
firmware_by_vm_cr(void **state)
{
	struct host *h = *state;
	u64 value = 0x18;

	put_bytes(h, "/dev/cpu/0/msr", &value, sizeof(value), 0xc0010114);
	expect(h, "firmware-off", "VM_CR is 0x18", "SVM Mode");
	value = 0x8;
	put_bytes(h, "/dev/cpu/0/msr", &value, sizeof(value), 0xc0010114);
	h->kvm.facts.cpu.off = HOST_UNKNOWN;
	expect(h, "module-not-loaded", "", "");
}

static void
firmware_by_feature_control(void **state)
{
	struct host *h = *state;
	static const struct {
		u64 value;
		const char *cause;
	} cases[] = {{0x1, "firmware-off"}, {0x5, "module-not-loaded"}, {0x0, "module-not-loaded"}};

	h->kvm.facts.cpu.virt = "vmx";
	h->kvm.facts.cpu.module = "kvm_intel";
	put(h, "/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme vmx lm\n\n");
	put(h, MODULES "/modules.dep", "kernel/arch/x86/kvm/kvm-intel.ko.xz: kernel/kvm.ko\n");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		put_bytes(h, "/dev/cpu/0/msr", &cases[i].value, 8, 0x3a);
		h->kvm.facts.cpu.off = HOST_UNKNOWN;
		assert_string_equal(examine(h), cases[i].cause);
	}
}

static void
firmware_by_log(void **state)
{
	struct host *h = *state;

	put(h, "/dev/kmsg", "<6>[ 1.0] x\n<3>[ 2.0] kvm: support for 'kvm_amd' disabled by bios\n");
	expect(h, "firmware-off", "the kernel's log says", "restart");
}

static void
kernel_without_kvm(void **state)
{
	struct host *h = *state;

	take(h, "/proc/modules");
	expect(h, "kernel-without-kvm", RELEASE, "CONFIG_KVM");
}

static void
modules_frozen(void **state)
{
	struct host *h = *state;

	put(h, "/proc/sys/kernel/modules_disabled", "1\n");
	put(h, "/etc/modprobe.d/a.conf", "blacklist kvm-amd\n"); /* is not reached any more */
	expect(h, "modules-frozen", "kernel.modules_disabled is 1", "modules-load.d");
}

static void
kernel_replaced(void **state)
{
	struct host *h = *state;

	strcpy(h->kvm.facts.modules.release, "6.1.0-8-amd64");
	expect(h, "kernel-replaced", "/lib/modules/6.1.0-8-amd64 is missing", "restart");
}

static void
module_missing(void **state)
{
	struct host *h = *state;

	put(h, MODULES "/modules.dep",
	    "kernel/fs/ext4.ko:\nkernel/arch/x86/xxx/not-it.ko: kernel/arch/x86/kvm/kvm-amd.ko\n");
	expect(h, "module-missing", "has no kvm_amd", "install the package");
}

struct denial_case {
	const char *path, *text, *evidence; /* NULL: nothing is denied */
};

static void
module_denied(void **state)
{
	struct host *h = *state;
	static const struct denial_case cases[] = {
		{"/etc/modprobe.d/a.conf", "# x\n\nblacklist kvm-amd\n",
		 "/etc/modprobe.d/a.conf, line 3, says \"blacklist kvm-amd\""},
		{"/lib/modprobe.d/a.conf", "  blacklist\tkvm_amd\n",
		 "/lib/modprobe.d/a.conf, line 1, says"},
		{"/usr/lib/modprobe.d/a.conf", "install kvm_amd /bin/false\n", "/bin/false"},
		{"/run/modprobe.d/a.conf", "install kvm /usr/bin/true # no", "install kvm "},
		{"/etc/modprobe.d/a.conf", "a b\ninstall \\\n kvm-amd \\\n exit 1\n", "line 2,"},
		{"/proc/cmdline", "quiet module_blacklist=x,kvm_amd ro\n", "kernel's command line"},
		{"/proc/cmdline", "modprobe.blacklist=kvm-amd\n", "kernel's command line"},
		{"/proc/cmdline", "module_blacklist=kvm\n", "kernel's command line"},
		{"/etc/modprobe.d/a.conf", "blacklist kvm\n", NULL},
		{"/etc/modprobe.d/a.conf", "blacklist kvm_amd2\nblacklist kvm_am\n", NULL},
		{"/etc/modprobe.d/a.conf", "#blacklist kvm_amd\n# blacklist kvm_amd\n", NULL},
		{"/etc/modprobe.d/a.conf", "options kvm_amd nested=0\nblacklist\n\n \n", NULL},
		{"/etc/modprobe.d/a.conf", "install kvm_amd /sbin/modprobe -i kvm_amd\n", NULL},
		{"/etc/modprobe.d/a.conf", "install kvm_amd\ninstall kvm_intel false", NULL},
		{"/etc/modprobe.d/a.txt", "blacklist kvm-amd\n", NULL},
		{"/proc/cmdline", "modprobe.blacklist=kvm module_blacklist=\n", NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		put(h, cases[i].path, cases[i].text);
		memset(&h->kvm.facts.modules.denial, 0, sizeof(h->kvm.facts.modules.denial));
		if (cases[i].evidence)
			expect(h, "module-denied", cases[i].evidence, "modprobe kvm_amd");
		else if (strcmp(examine(h), "module-not-loaded") != 0)
			fail_msg("%s: %s", cases[i].text, h->verdict.evidence);
		take(h, cases[i].path);
	}
}

/* A file hides those of its name in later folders; of the others, names give the order. */
static void
module_denied_by_the_right_file(void **state)
{
	struct host *h = *state;

	put(h, "/lib/modprobe.d/b.conf", "blacklist kvm_amd\n");
	put(h, "/etc/modprobe.d/b.conf", "# empty on purpose\n");
	expect(h, "module-not-loaded", "", "");
	put(h, "/lib/modprobe.d/c.conf", "blacklist kvm_amd\n");
	put(h, "/etc/modprobe.d/d.conf", "blacklist kvm_amd\n");
	expect(h, "module-denied", "/lib/modprobe.d/c.conf", "/lib/modprobe.d/c.conf");
}

static void
module_refused(void **state)
{
	struct host *h = *state;

	put(h, "/dev/kmsg",
	    "<5>[ 1.0] a\n<5>[ 2.0] Loading of module with unavailable key is rejected\n");
	expect(h, "module-not-loaded", "", ""); /* ours is signed: it was another one */
	take(h, MODULES "/kernel/arch/x86/kvm/kvm-amd.ko");
	put(h, MODULES "/kernel/arch/x86/kvm/kvm-amd.ko", "ELF, and more than a signature's mark");
	put_bytes(h, "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
		  "\6\0\0\0\1", 5, 0);
	expect(h, "module-refused", "(Secure Boot on, lockdown none)", "mokutil");
	HAS(h->verdict.evidence, "[ 2.0] Loading of module");
}

static void
module_refused_by_name(void **state)
{
	struct host *h = *state;

	put(h, "/dev/kmsg", "<5>[ 2.0] kvm_amd: loading of unsigned module is rejected\n");
	expect(h, "module-refused", "kvm_amd: loading", "signed kernel");
}

static void
module_unsigned(void **state)
{
	struct host *h = *state;

	take(h, MODULES "/kernel/arch/x86/kvm/kvm-amd.ko");
	put(h, MODULES "/kernel/arch/x86/kvm/kvm-amd.ko", "ELF, and more than a signature's mark");
	expect(h, "module-not-loaded", "", "");
	put(h, "/sys/module/module/parameters/sig_enforce", "Y\n");
	expect(h, "module-unsigned", "sig_enforce on", "signed kernel");
	put(h, "/sys/module/module/parameters/sig_enforce", "N\n");
	put(h, "/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
	expect(h, "module-unsigned", "lockdown integrity", "signed kernel");
}

static void
module_idle(void **state)
{
	struct host *h = *state;

	put_folder(h, "/sys/module/kvm");
	expect(h, "module-not-loaded", "", ""); /* the half that drives nothing */
	put_folder(h, "/sys/module/kvm_amd");
	h->kvm.facts.modules.loaded[0] = '\0';
	expect(h, "module-idle", "kvm_amd", "dmesg");
}

static void
in_a_container(void **state)
{
	struct host *h = *state;

	put(h, "/.dockerenv", "");
	put_link(h, "/proc/self/ns/pid", "pid:[4026532200]");
	put(h, "/etc/modprobe.d/a.conf", "blacklist kvm-amd\n"); /* the image's own */
	strcpy(h->kvm.facts.modules.release, "6.1.0-8-amd64");
	expect(h, "module-not-loaded", "kvm_amd", "as root on the host: modprobe");
	put(h, "/proc/misc", "232 kvm\n229 fuse\n");
	expect(h, "not-passed", "this container (docker)", "docker run --device /dev/kvm");
	assert_true(h->kvm.facts.place.container);
}

static void
kinds_of_containers(void **state)
{
	static const struct {
		const char *path, *text;
		size_t len;
		const char *kind, *fix;
	} cases[] = {
		{"/run/.containerenv", "x", 1, "podman", "podman run"},
		{"/run/systemd/container", "systemd-nspawn\n", 15, "systemd-nspawn",
		 "--bind=/dev/kvm"},
		{"/proc/1/environ", "A=b\0container=lxc\0C=d", 22, "lxc", "lxc.mount.entry"},
		{"/proc/1/cgroup", "0::/kubepods/burst/pod1\n", 24, "kubernetes", "device plugin"},
	};
	struct host *h = *state;

	put_link(h, "/proc/self/ns/pid", "pid:[4026532200]");
	put(h, "/proc/misc", "232 kvm\n");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		put_bytes(h, cases[i].path, cases[i].text, cases[i].len, 0);
		memset(&h->kvm.facts.place, 0, sizeof(h->kvm.facts.place));
		expect(h, "not-passed", cases[i].kind, cases[i].fix);
		take(h, cases[i].path);
	}
}

/* A disk made from an image of a container: a mark, and the first namespaces. */
static void
a_mark_is_no_container(void **state)
{
	struct host *h = *state;

	put(h, "/.dockerenv", "");
	put(h, "/proc/misc", "232 kvm\n");
	expect(h, "node-missing", "no /dev/kvm", "mknod");
	assert_false(h->kvm.facts.place.container);
	/* A service with mounts of its own is none either, with a root of its own it is. */
	take(h, "/proc/self/mountinfo");
	put(h, "/proc/self/mountinfo", "78 77 254:0 / / rw,relatime - ext4 x rw\n");
	expect(h, "not-passed", "a mount namespace of its own", "");
	assert_false(h->kvm.facts.place.container);
	take(h, "/proc/self/mountinfo");
	put(h, "/proc/self/mountinfo", "78 77 0:51 / / rw,relatime - overlay x rw\n");
	expect(h, "not-passed", "this container (docker)", "docker run");
}

static void
namespaces_without_a_name(void **state)
{
	struct host *h = *state;

	put(h, "/proc/misc", "232 kvm\n");
	put(h, "/proc/self/mountinfo", "78 77 254:0 / / rw,relatime - ext4 x rw\n");
	expect(h, "not-passed", "a mount namespace of its own", "pass /dev/kvm in");
}

static void
not_kvm(void **state)
{
	struct host *h = *state;

	put(h, "/proc/misc", "232 kvm\n");
	put(h, "/dev/kvm", "hello");
	expect(h, "not-kvm", "a regular file, no device", "mknod");
	take(h, "/dev/kvm");
	put_folder(h, "/dev/kvm");
	expect(h, "not-kvm", "a folder, no device", "mknod");
}

/* errno of the open, and what tells its causes apart. */
static void
open_errors(void **state)
{
	static const struct {
		int error;
		const char *cause;
		struct host_node node;
		struct host_place place;
	} cases[] = {
		{EACCES, "no-permission", {.mode = 0600}, {.isolated = false}},
		{EACCES, "not-in-group", {.mode = 0660, .group_opens = true}, {.isolated = false}},
		{EACCES, "new-login", {.group_opens = true, .listed = true}, {.isolated = false}},
		{EACCES, "nodev", {.nodev = true, .mode_allows = true}, {.isolated = false}},
		{EACCES, "user-namespace", {.mode = 0660}, {.user_namespace = true}},
		{EACCES, "refused-by-lsm", {.mode_allows = true}, {.isolated = false}},
		{EPERM, "device-denied", {.mode_allows = true}, {.container = true}},
		{EPERM, "device-denied", {.mode_allows = true}, {.unit = "vm.service"}},
		{EPERM, "device-denied", {.mode_allows = true}, {.cgroup = "/a"}},
		{EMFILE, "no-descriptors", {.mode_allows = true}, {.isolated = false}},
		{EIO, "open-failed", {.mode_allows = true}, {.isolated = false}},
		{ENODEV, "open-failed", {.mode_allows = true}, {.isolated = false}},
		{0, "not-supported", {.mode_allows = true}, {.isolated = false}},
	};
	struct host *h = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		h->kvm.facts.modules.registered = HOST_YES;
		h->kvm.facts.node = cases[i].node;
		h->kvm.facts.node.is_kvm = true;
		h->kvm.facts.node.open_error = cases[i].error;
		h->kvm.facts.place = cases[i].place;
		host_kvm_judge(&h->kvm, &h->verdict);
		assert_string_equal(h->verdict.cause, cases[i].cause);
	}
	h->kvm.facts.node.open_error = EPERM;
	strcpy(h->kvm.facts.place.unit, "vm.service");
	host_kvm_judge(&h->kvm, &h->verdict);
	HAS(h->verdict.fix, "DeviceAllow=/dev/kvm rw to vm.service");
	/* A node that is there and has no driver. */
	h->kvm.facts.modules.registered = HOST_NO;
	h->kvm.facts.node.open_error = ENODEV;
	h->kvm.facts.modules.loadable = h->kvm.facts.modules.folder = true;
	strcpy(h->kvm.facts.modules.file, "/x");
	host_kvm_judge(&h->kvm, &h->verdict);
	assert_string_equal(h->verdict.cause, "module-not-loaded");
	/* Permission is what is missing first: opening it would load the module. */
	h->kvm.facts.node.open_error = EACCES;
	h->kvm.facts.node.mode_allows = false;
	host_kvm_judge(&h->kvm, &h->verdict);
	assert_string_equal(h->verdict.cause, "no-permission");
}

static void
device_lists(void **state)
{
	static const struct {
		const char *list;
		enum host_truth allowed;
	} cases[] = {
		{"c 1:3 rwm\nb 10:232 rwm\nc 10:232 r\n", HOST_NO},
		{"c 1:3 rwm\nc 10:232 rw\n      ", HOST_YES},
		{"a *:* rwm\n", HOST_YES},
		{"c 10:* rwm\n", HOST_YES},
		{"c 10:23 rwm\n", HOST_NO},
	};
	struct host *h = *state;

	put(h, "/proc/self/cgroup", "3:cpu:/x\n5:devices:/a/vm.service\n0::/b/c.scope\n");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct host_place place = {.isolated = false};

		put(h, "/sys/fs/cgroup/devices/a/vm.service/devices.list", cases[i].list);
		host_place_inspect(&place, h->root);
		assert_int_equal(place.device_allowed, cases[i].allowed);
		assert_string_equal(place.unit, "vm.service");
		assert_string_equal(place.cgroup, "/a/vm.service");
		take(h, "/sys/fs/cgroup/devices/a/vm.service/devices.list");
	}
}

static void
limits(void **state)
{
	struct host *h = *state;
	struct host_limits l = {.total = 0};

	put(h, "/proc/meminfo", "MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n");
	put(h, "/proc/self/cgroup", "0::/a/b\n");
	put(h, "/sys/fs/cgroup/a/memory.max", "1048576\n");
	put(h, "/sys/fs/cgroup/a/b/memory.max", "max\n");
	put(h, "/proc/sys/vm/max_map_count", "65530\n");
	host_limits_inspect(&l, h->root);
	assert_int_equal(l.total, 2 << 20);
	assert_int_equal(l.available, 1 << 20);
	assert_int_equal(l.cgroup, 1 << 20);
	assert_int_equal(l.mappings, 65530);
	put(h, "/proc/self/cgroup", "4:memory:/m\n0::/a/b\n");
	put(h, "/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "9223372036854771712\n");
	put(h, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	host_limits_inspect(&l, h->root);
	assert_int_equal(l.cgroup, 0);
}

/* EFI variables: four bytes of attributes, then signature lists. */
static void
owners_keys(void **state)
{
	static const char list[] = "/sys/firmware/efi/efivars/"
				   "MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23";
	static const char pending[] = "/sys/firmware/efi/efivars/"
				      "MokNew-605dab50-e046-4300-abb6-3dd810dd8b23";
	u8 lists[4 + (28 + 3 * 48) + (28 + 8 + 20)] = {6};
	struct host *h = *state;

	lists[4 + 16] = 28 + 3 * 48;
	lists[4 + 24] = 48;
	lists[4 + 28 + 3 * 48 + 16] = 28 + 8 + 20;
	lists[4 + 28 + 3 * 48 + 20] = 8;
	lists[4 + 28 + 3 * 48 + 24] = 20;
	put_bytes(h, list, lists, sizeof(lists), 0);
	examine(h);
	assert_int_equal(h->kvm.facts.security.mok_keys, 4);
	assert_int_equal(h->kvm.facts.security.mok_pending, HOST_NO);
	lists[4 + 16] = 255; /* longer than the variable */
	put_bytes(h, list, lists, sizeof(lists), 0);
	put(h, pending, "x");
	examine(h);
	assert_int_equal(h->kvm.facts.security.mok_keys, -1);
	assert_int_equal(h->kvm.facts.security.mok_pending, HOST_YES);
	take(h, list);
	examine(h);
	assert_int_equal(h->kvm.facts.security.mok_keys, 0);
}

static void
kernels_that_lack_it(void **state)
{
	struct host *h = *state;

	put(h, "/lib/modules/6.5.0/modules.dep", "kernel/fs/ext4.ko:\n");
	put(h, "/lib/modules/6.6.0/modules.dep", "kernel/kvm/kvm-amd.ko.xz: kernel/kvm.ko.xz\n");
	put(h, "/lib/modules/6.7.0/modules.dep", "\n");
	put(h, "/lib/modules/6.7.0/modules.builtin", "kernel/arch/x86/kvm/kvm-amd.ko\n");
	put_folder(h, "/lib/modules/6.8.0/leftover");
	examine(h);
	assert_string_equal(h->kvm.facts.modules.lacking, "6.5.0");
}

/* What files say may be anything; terminals and JSON get printable ASCII. */
static void
texts_are_clean(void **state)
{
	struct host *h = *state;

	put(h, "/etc/modprobe.d/\x1b[31m.conf", "blacklist kvm_amd \xff\x01\n");
	expect(h, "module-denied", "/etc/modprobe.d/?[31m.conf", "");
	HAS(h->verdict.evidence, "kvm_amd ??");
}

/* An empty root: nothing can be read, and still one cause comes. */
static void
nothing_to_read(void **state)
{
	struct host *h = *state;

	nftw(h->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	expect(h, "kernel-without-kvm", RELEASE, "");
	assert_int_equal(h->kvm.facts.security.secure_boot, HOST_UNKNOWN);
	assert_int_equal(h->kvm.facts.modules.registered, HOST_UNKNOWN);
}

/* Engines whose probes end in all ways. */

static void
probe_usable(int device, struct engine_probe *result)
{
	*result = (struct engine_probe){.usable = true, .kernel_speed = 3, .user_speed = 4};
}

static void
probe_unsound(int device, struct engine_probe *result)
{
	*result = (struct engine_probe){.cause = "unsound",
					.evidence = "SYSCALL arrives at CPL 3",
					.fix = "use biga",
					.kernel_speed = 5};
}

static void
probe_unknown(int device, struct engine_probe *result)
{
	*result = (struct engine_probe){.cause = "gone-fishing", .evidence = "a sign"};
}

static void
probe_hangs(int device, struct engine_probe *result)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	for (;;)
		pause();
}

static void
probe_crashes(int device, struct engine_probe *result)
{
	signal(SIGSEGV, SIG_DFL);
	raise(SIGSEGV);
}

static void
probe_leaves(int device, struct engine_probe *result)
{
	_exit(0);
}

/* Says which descriptors it has, and whether the device is the one that was given. */
static void
probe_counts(int device, struct engine_probe *result)
{
	unsigned count = 0;
	struct stat st = {.st_rdev = 0};

	for (int fd = 3; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	fstat(device, &st);
	result->cause = "counted";
	snprintf(result->evidence, sizeof(result->evidence), "%u open, zero device: %d", count,
		 st.st_rdev == makedev(1, 5));
}

static u64
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000 + (u64)now.tv_nsec / 1000000;
}

static struct host_probe
run_probe(void (*fn)(int device, struct engine_probe *result), int device, unsigned timeout)
{
	const struct engine_ops ops = {.name = "fake", .probe = fn};
	struct host_probe probe;

	host_probe_run(&probe, &ops, device, timeout);
	assert_true(probe.done);
	return probe;
}

static void
probes_answer(void **state)
{
	struct host_probe p = run_probe(probe_usable, -1, 20000);

	assert_true(p.usable);
	assert_int_equal(p.kernel_speed, 3);
	assert_int_equal(p.user_speed, 4);
	assert_true(p.ns > 0);
	p = run_probe(probe_unsound, -1, 20000);
	assert_false(p.usable);
	assert_string_equal(p.cause, "unsound");
	assert_string_equal(p.evidence, "SYSCALL arrives at CPL 3");
	assert_string_equal(p.fix, "use biga");
}

static void
probes_that_do_not_answer(void **state)
{
	u64 start = now_ms();
	struct host_probe p = run_probe(probe_hangs, -1, 100);

	assert_string_equal(p.cause, "no-answer");
	assert_true(now_ms() - start >= 100 && now_ms() - start < 10000);
	p = run_probe(probe_crashes, -1, 20000);
	assert_string_equal(p.cause, "died");
	HAS(p.evidence, "signal 11");
	p = run_probe(probe_leaves, -1, 20000);
	assert_string_equal(p.cause, "died");
	assert_false(p.usable);
	/* An ignored SIGCHLD reaps behind our back. */
	signal(SIGCHLD, SIG_IGN);
	p = run_probe(probe_unsound, -1, 20000);
	assert_string_equal(p.cause, "unsound");
}

static void
a_probe_has_the_device_alone(void **state)
{
	int zero = open("/dev/zero", O_RDWR), extra = open("/dev/null", O_RDONLY);
	struct host_probe p = run_probe(probe_counts, zero, 20000);

	assert_string_equal(p.evidence, "2 open, zero device: 1");
	p = run_probe(probe_counts, -1, 20000);
	assert_string_equal(p.evidence, "1 open, zero device: 0");
	close(zero);
	close(extra);
}

static void
verdict_of(struct host_kvm *h, struct host_verdict *v, void (*fn)(int, struct engine_probe *))
{
	memset(h, 0, sizeof(*h));
	h->facts.node.is_kvm = true;
	h->facts.cpu.virt = "svm";
	h->facts.modules.registered = HOST_YES;
	h->probe = run_probe(fn, -1, 20000);
	host_kvm_judge(h, v);
}

static void
causes_of_probes(void **state)
{
	struct host_kvm h;
	struct host_verdict v;

	verdict_of(&h, &v, probe_usable);
	assert_true(v.usable && v.cause == NULL);
	verdict_of(&h, &v, probe_unsound);
	assert_string_equal(v.cause, "unsound");
	assert_string_equal(v.summary, "/dev/kvm is there but unsound");
	assert_string_equal(v.evidence, "SYSCALL arrives at CPL 3");
	verdict_of(&h, &v, probe_crashes);
	assert_string_equal(v.cause, "died");
	verdict_of(&h, &v, probe_unknown);
	assert_string_equal(v.cause, "gone-fishing");
	assert_string_equal(v.evidence, "a sign");
	verdict_of(&h, &v, probe_unsound);
	strcpy(h.probe.cause, "held");
	strcpy(h.probe.evidence, "KVM_CREATE_VM: busy");
	strcpy(h.facts.modules.rivals, "vboxdrv (VirtualBox)");
	host_kvm_judge(&h, &v);
	assert_string_equal(v.evidence, "KVM_CREATE_VM: busy; loaded: vboxdrv (VirtualBox)");
}

static void
rivals_are_seen(void **state)
{
	struct host *h = *state;

	put(h, "/proc/modules", "vboxnetadp 1 2\nvboxdrv 3 4 vboxnetadp\nvmmon 5 6\n");
	examine(h);
	assert_string_equal(h->kvm.facts.modules.rivals, "vboxdrv (VirtualBox), vmmon (VMware)");
}

static void
choices(void **state)
{
	static const struct {
		const char *wanted;
		void (*probe)(int device, struct engine_probe *result);
		int rc;
		const char *name, *line;
		bool warn;
	} cases[] = {
		{"auto", probe_usable, 0, "kvm", "hypervisor kvm: ", false},
		{"kvm", probe_usable, 0, "kvm", "", false},
		{"auto", probe_unsound, 0, "biga",
		 "hypervisor biga: /dev/kvm is there but unsound (SYSCALL arrives at CPL 3); use "
		 "biga; "
		 "`biga doctor` says more",
		 false},
		{"kvm", probe_unsound, -ENOTSUP, "biga",
		 "the hypervisor kvm cannot be used: /dev/kvm is there but unsound (SYSCALL",
		 false},
		{"kvm,force", probe_unsound, 0, "kvm,force", "forced", true},
		{"auto", probe_crashes, 0, "biga", "could not be tried", false},
		{"kvm", probe_crashes, -ENOTSUP, "biga", "cannot be used", false},
	};
	struct host_choice c;
	struct host_verdict v;
	struct host_kvm h;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int device = open("/dev/null", O_RDONLY);

		verdict_of(&h, &v, cases[i].probe);
		assert_int_equal(host_choose_from(&c, cases[i].wanted, &v, device), cases[i].rc);
		assert_string_equal(c.name, cases[i].name);
		HAS(c.line, cases[i].line);
		assert_int_equal(c.warn, cases[i].warn);
		/* Who does not need the device has closed it. */
		assert_int_equal(c.device, strncmp(c.name, "kvm", 3) == 0 ? device : -1);
		assert_int_equal(fcntl(device, F_GETFD) >= 0, c.device >= 0);
		if (c.device >= 0)
			close(c.device);
	}
	assert_int_equal(host_choose(&c, "biga", NULL, ""), 0);
	assert_string_equal(c.name, "biga");
	assert_string_equal(c.line, "");
}

/* The table itself: texts are complete, every name of a fact is known, every cause is in the
 * document. */
static void
the_table(void **state)
{
	char text[HOST_KVM_TEXT], document[32768], quoted[64];
	struct host_kvm h = {.facts.cpu = {.virt = "svm", .module = "kvm_amd"}};
	FILE *file = fopen("docs/doctor.md", "r");
	size_t n;

	assert_non_null(file);
	n = fread(document, 1, sizeof(document) - 1, file);
	document[n] = '\0';
	fclose(file);
	for (const struct host_cause *c = host_causes; c->name; c++) {
		host_text_fill(text, sizeof(text), c->evidence, &h);
		assert_true(text[0] && strchr(text, '{') == NULL);
		host_text_fill(text, sizeof(text), c->fix, &h);
		assert_true(text[0] && strchr(text, '{') == NULL);
		snprintf(quoted, sizeof(quoted), "| `%s` |", c->name);
		HAS(document, quoted);
	}
}

static void
speeds(void **state)
{
	u64 kernel, user;

	assert_int_equal(host_speed_measure(&engine_translator, -1, &kernel, &user), 0);
	assert_true(kernel > 100000 && kernel < 1000000000000);
	assert_true(user > 100000 && user < 1000000000000);
}

#define ON_HOST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		ON_HOST(module_not_loaded),
		ON_HOST(no_nesting),
		ON_HOST(no_virtualization),
		ON_HOST(cleared_by_command_line),
		ON_HOST(firmware_by_flag),
		ON_HOST(firmware_by_vm_cr),
		ON_HOST(firmware_by_feature_control),
		ON_HOST(firmware_by_log),
		ON_HOST(kernel_without_kvm),
		ON_HOST(modules_frozen),
		ON_HOST(kernel_replaced),
		ON_HOST(module_missing),
		ON_HOST(module_denied),
		ON_HOST(module_denied_by_the_right_file),
		ON_HOST(module_refused),
		ON_HOST(module_refused_by_name),
		ON_HOST(module_unsigned),
		ON_HOST(module_idle),
		ON_HOST(in_a_container),
		ON_HOST(kinds_of_containers),
		ON_HOST(a_mark_is_no_container),
		ON_HOST(namespaces_without_a_name),
		ON_HOST(not_kvm),
		ON_HOST(open_errors),
		ON_HOST(device_lists),
		ON_HOST(limits),
		ON_HOST(owners_keys),
		ON_HOST(kernels_that_lack_it),
		ON_HOST(texts_are_clean),
		ON_HOST(nothing_to_read),
		ON_HOST(rivals_are_seen),
		cmocka_unit_test(probes_answer),
		cmocka_unit_test(probes_that_do_not_answer),
		cmocka_unit_test(a_probe_has_the_device_alone),
		cmocka_unit_test(causes_of_probes),
		cmocka_unit_test(choices),
		cmocka_unit_test(the_table),
		cmocka_unit_test(speeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
