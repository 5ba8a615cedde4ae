/*
 * The {names} in texts of causes.
 */
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "cmd/host_kvm_causes.h"

static void
text_string(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text[0] ? text : "unknown");
}

static void
text_truth(char *out, size_t size, enum host_truth truth)
{
	static const char *const words[] = {
		[HOST_UNKNOWN] = "unknown", [HOST_NO] = "off", [HOST_YES] = "on"};

	snprintf(out, size, "%s", words[truth]);
}

static void
text_above(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.cpu.hypervisor);
}

static void
text_virt(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.cpu.virt);
}

static void
text_model(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.cpu.model);
}

static void
text_off(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.cpu.off_how);
}

/* What setups call it. */
static void
text_firmware_name(char *out, size_t size, const struct host_kvm *h)
{
	snprintf(out, size, "%s",
		 strcmp(h->facts.cpu.virt, "vmx") == 0 ? "Intel VT-x, Virtualization Technology"
						       : "AMD-V, SVM Mode");
}

static void
text_release(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.modules.release);
}

static void
text_module(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.cpu.module);
}

static void
text_module_file(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.modules.file);
}

static void
text_loaded(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.modules.loaded);
}

static void
text_denied_where(char *out, size_t size, const struct host_kvm *h)
{
	const struct host_denial *d = &h->facts.modules.denial;

	if (d->line)
		snprintf(out, size, "%s, line %u,", d->where, d->line);
	else
		snprintf(out, size, "%s", d->where);
}

static void
text_denied_file(char *out, size_t size, const struct host_kvm *h)
{
	snprintf(out, size, "%s%s", h->facts.modules.denial.where,
		 h->facts.modules.denial.line ? "" : " and restart");
}

static void
text_denied_text(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.modules.denial.text);
}

static void
text_refused(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.modules.refused);
}

static void
text_secure_boot(char *out, size_t size, const struct host_kvm *h)
{
	text_truth(out, size, h->facts.security.secure_boot);
}

static void
text_lockdown(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.security.lockdown);
}

static void
text_sig_enforce(char *out, size_t size, const struct host_kvm *h)
{
	text_truth(out, size, h->facts.security.sig_enforce);
}

static void
text_lsm(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.security.lsm);
}

static void
text_label(char *out, size_t size, const struct host_kvm *h)
{
	snprintf(out, size, "%s", h->facts.security.label[0] ? h->facts.security.label : "none");
}

/* Where a fix about the kernel must be done. */
static void
text_on_host(char *out, size_t size, const struct host_kvm *h)
{
	snprintf(out, size, "%s", h->facts.place.container ? " on the host" : "");
}

static void
text_place(char *out, size_t size, const struct host_kvm *h)
{
	const struct host_place *p = &h->facts.place;

	if (p->container)
		snprintf(out, size, "this container (%s)", p->kind[0] ? p->kind : p->how);
	else
		snprintf(out, size, "these namespaces (%s)", p->how);
}

/* How each kind of container is given a device. */
static void
text_pass(char *out, size_t size, const struct host_kvm *h)
{
	static const struct {
		const char *kind, *fix;
	} ways[] = {
		{"docker", "start the container with: docker run --device /dev/kvm"},
		{"podman", "start the container with: podman run --device /dev/kvm"},
		{"kubernetes", "give the pod /dev/kvm by a device plugin"},
		{"lxc", "add to the container: lxc.mount.entry = /dev/kvm dev/kvm none "
			"bind,optional,create=file, and lxc.cgroup2.devices.allow = c 10:232 rwm"},
		{"systemd-nspawn", "start it with --bind=/dev/kvm and DeviceAllow=/dev/kvm rw"},
	};

	snprintf(out, size,
		 "pass /dev/kvm in when these namespaces are made, for example: mount "
		 "--bind");
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		if (h->facts.place.container && strcmp(h->facts.place.kind, ways[i].kind) == 0)
			snprintf(out, size, "%s", ways[i].fix);
	}
}

static void
text_node_kind(char *out, size_t size, const struct host_kvm *h)
{
	const struct host_node *n = &h->facts.node;
	mode_t mode = n->mode;

	if (S_ISCHR(mode) || S_ISBLK(mode))
		snprintf(out, size, "a %s device of number %u:%u, and KVM's is 10:232",
			 S_ISCHR(mode) ? "character" : "block", major(n->rdev), minor(n->rdev));
	else
		snprintf(out, size, "%s, no device",
			 S_ISREG(mode)	 ? "a regular file"
			 : S_ISDIR(mode) ? "a folder"
					 : "a pipe or socket");
}

static void
text_node(char *out, size_t size, const struct host_kvm *h)
{
	const struct host_node *n = &h->facts.node;

	snprintf(out, size, "%s:%s mode %03o%s", n->owner, n->group, n->mode & 0777,
		 n->acl ? " with an access list" : "");
}

static void
text_user(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.node.user);
}

static void
text_group(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.node.group);
}

static void
text_members(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.node.members);
}

static void
text_cgroup(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.place.cgroup);
}

static void
text_unit(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.place.unit);
}

static void
text_open_error(char *out, size_t size, const struct host_kvm *h)
{
	snprintf(out, size, "%s", strerror(h->facts.node.open_error));
}

static void
text_probe(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->probe.evidence[0] ? h->probe.evidence : h->probe.cause);
}

static void
text_probe_fix(char *out, size_t size, const struct host_kvm *h)
{
	snprintf(out, size, "%s", h->probe.fix[0] ? h->probe.fix : "use the hypervisor biga");
}

static void
text_rivals(char *out, size_t size, const struct host_kvm *h)
{
	if (h->facts.modules.rivals[0])
		snprintf(out, size, "; loaded: %s", h->facts.modules.rivals);
}

static void
text_lacking(char *out, size_t size, const struct host_kvm *h)
{
	text_string(out, size, h->facts.modules.lacking);
}

static const struct {
	const char *name;
	void (*fill)(char *out, size_t size, const struct host_kvm *host);
} text_names[] = {
	{"above", text_above},
	{"virt", text_virt},
	{"model", text_model},
	{"off", text_off},
	{"firmware-name", text_firmware_name},
	{"release", text_release},
	{"module", text_module},
	{"module-file", text_module_file},
	{"loaded", text_loaded},
	{"denied-where", text_denied_where},
	{"denied-file", text_denied_file},
	{"denied-text", text_denied_text},
	{"refused", text_refused},
	{"secure-boot", text_secure_boot},
	{"lockdown", text_lockdown},
	{"sig-enforce", text_sig_enforce},
	{"lsm", text_lsm},
	{"label", text_label},
	{"on-host", text_on_host},
	{"place", text_place},
	{"pass", text_pass},
	{"node-kind", text_node_kind},
	{"node", text_node},
	{"user", text_user},
	{"group", text_group},
	{"members", text_members},
	{"cgroup", text_cgroup},
	{"unit", text_unit},
	{"open-error", text_open_error},
	{"probe", text_probe},
	{"probe-fix", text_probe_fix},
	{"rivals", text_rivals},
	{"lacking", text_lacking},
};

/* The length of "{name}" at AT, filled into OUT; 0 if it is no known name. */
static size_t
text_fill_name(char *out, size_t size, const char *at, const struct host_kvm *h)
{
	size_t len = strcspn(at, "}");

	out[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(text_names); i++) {
		if (strlen(text_names[i].name) != len - 1 ||
		    memcmp(text_names[i].name, at + 1, len - 1) != 0)
			continue;
		text_names[i].fill(out, size, h);
		return len + 1;
	}
	return 0;
}

void
host_text_fill(char *out, size_t size, const char *template, const struct host_kvm *h)
{
	char value[HOST_PATH];
	size_t len = 0, used;

	out[0] = '\0';
	while (*template && len + 1 < size) {
		used = *template == '{' ? text_fill_name(value, sizeof(value), template, h) : 0;
		if (used)
			snprintf(out + len, size - len, "%s", value);
		else
			snprintf(out + len, size - len, "%c", *template);
		template += used ? used : 1;
		len += strlen(out + len);
	}
	host_text_clean(out);
}
