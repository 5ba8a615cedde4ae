/*
 * The findings for people: short lines, names in one column.
 */
#include <stdio.h>
#include <string.h>

#include "cmd/doctor.h"

enum { DOCTOR_COLUMN = 16, DOCTOR_VALUE = 640 };

static void
doctor_line(const char *indent, const char *name, const char *value)
{
	printf("%s%-*s%s\n", indent, DOCTOR_COLUMN - (int)strlen(indent), name, value);
}

static void
doctor_line_speed(const char *name, u64 speed)
{
	char text[64];

	if (speed == 0)
		return;
	if (speed >= 1000000000)
		snprintf(text, sizeof(text), "%.1f billion instructions a second",
			 (double)speed / 1e9);
	else
		snprintf(text, sizeof(text), "%.*f million instructions a second",
			 speed < 10000000 ? 2 : 0, (double)speed / 1e6);
	doctor_line("  ", name, text);
}

static void
doctor_finding_text(const struct doctor_finding *f)
{
	const struct host_verdict *v = &f->verdict;
	char text[64];

	if (v->usable) {
		doctor_line("", f->name, "can be used");
	} else {
		doctor_line("", f->name, "cannot be used");
		printf("  %-*s%s: %s\n", DOCTOR_COLUMN - 2, "cause", v->cause, v->summary);
		doctor_line("  ", "evidence", v->evidence);
		doctor_line("  ", "fix", v->fix);
	}
	doctor_line_speed("kernel mode", f->kernel_speed);
	doctor_line_speed("user mode", f->user_speed);
	if (f->ns) {
		snprintf(text, sizeof(text), "%.1f ms", (double)f->ns / 1e6);
		doctor_line("  ", "tried in", text);
	}
}

static const char *
doctor_word(enum host_truth truth)
{
	static const char *const words[] = {
		[HOST_UNKNOWN] = "unknown", [HOST_NO] = "no", [HOST_YES] = "yes"};

	return words[truth];
}

static const char *
doctor_or(const char *text, const char *otherwise)
{
	return text[0] ? text : otherwise;
}

/* Each of these says one fact. */

static void
doctor_say_cpu(char *out, size_t size, const struct host_facts *f)
{
	snprintf(out, size, "%s (%s), %u online", doctor_or(f->cpu.model, "no name"), f->cpu.vendor,
		 f->cpu.cpus);
}

static void
doctor_say_virtualization(char *out, size_t size, const struct host_facts *f)
{
	snprintf(out, size, "%s: in CPUID %s, in /proc/cpuinfo %s, switched off %s", f->cpu.virt,
		 f->cpu.has_virt ? "yes" : "no", doctor_word(f->cpu.flag), doctor_word(f->cpu.off));
}

static void
doctor_say_vm(char *out, size_t size, const struct host_facts *f)
{
	if (f->cpu.in_vm)
		snprintf(out, size, "yes, under %s", doctor_or(f->cpu.hypervisor, "something"));
	else
		snprintf(out, size, "no");
}

static void
doctor_say_container(char *out, size_t size, const struct host_facts *f)
{
	const struct host_place *p = &f->place;

	snprintf(out, size, "%s%s%s%s%s", p->container ? "yes" : "no", p->container ? ", " : "",
		 p->container ? p->kind : "", p->how[0] ? "; seen: " : "", p->how);
}

static void
doctor_say_kernel(char *out, size_t size, const struct host_facts *f)
{
	snprintf(out, size, "%s, driver for /dev/kvm: %s", f->modules.release,
		 doctor_word(f->modules.registered));
}

static void
doctor_say_modules(char *out, size_t size, const struct host_facts *f)
{
	const struct host_modules *m = &f->modules;

	snprintf(out, size, "in the kernel: %s; more can be loaded: %s%s%s",
		 doctor_or(m->loaded, "none of kvm's"),
		 m->loadable && m->disabled != HOST_YES ? "yes" : "no",
		 m->rivals[0] ? "; other hypervisors: " : "", m->rivals);
}

static void
doctor_say_secure_boot(char *out, size_t size, const struct host_facts *f)
{
	const struct host_security *s = &f->security;
	char keys[64] = "";

	if (s->mok_keys > 0 || s->mok_pending == HOST_YES)
		snprintf(keys, sizeof(keys), "; owner's keys: %d%s", s->mok_keys,
			 s->mok_pending == HOST_YES ? ", one waits for a restart" : "");
	snprintf(out, size, "%s; lockdown %s; modules must be signed: %s%s",
		 doctor_word(s->secure_boot), doctor_or(s->lockdown, "unknown"),
		 doctor_word(s->sig_enforce), keys);
}

static void
doctor_say_lsm(char *out, size_t size, const struct host_facts *f)
{
	snprintf(out, size, "%s; our label: %s", doctor_or(f->security.lsm, "unknown"),
		 doctor_or(f->security.label, "none"));
}

static void
doctor_say_node(char *out, size_t size, const struct host_facts *f)
{
	const struct host_node *n = &f->node;

	if (n->stat_error)
		snprintf(out, size, "%s", strerror(n->stat_error));
	else
		snprintf(out, size, "%s:%s mode %03o%s%s%s", n->owner, n->group, n->mode & 0777,
			 n->acl ? " with an access list" : "", n->open_error ? "; open: " : "",
			 n->open_error ? strerror(n->open_error) : "");
}

static void
doctor_say_io_uring(char *out, size_t size, const struct host_facts *f)
{
	const struct host_limits *l = &f->limits;

	snprintf(out, size, "%s%s%s", l->io_uring ? "refused (" : "allowed",
		 l->io_uring ? strerror(l->io_uring) : "",
		 l->io_uring ? "): disks use threads" : "");
}

static void
doctor_say_landlock(char *out, size_t size, const struct host_facts *f)
{
	if (f->limits.landlock)
		snprintf(out, size, "version %d", f->limits.landlock);
	else
		snprintf(out, size, "none");
}

static void
doctor_say_memory(char *out, size_t size, const struct host_facts *f)
{
	const struct host_limits *l = &f->limits;
	int n = snprintf(out, size, "%llu MiB, %llu MiB available",
			 (unsigned long long)(l->total >> 20),
			 (unsigned long long)(l->available >> 20));

	if (l->cgroup)
		n += snprintf(out + n, size - (size_t)n, "; control group: at most %llu MiB",
			      (unsigned long long)(l->cgroup >> 20));
	if (l->address_space)
		n += snprintf(out + n, size - (size_t)n, "; address space: at most %llu MiB",
			      (unsigned long long)(l->address_space >> 20));
	if (l->mappings)
		n += snprintf(out + n, size - (size_t)n, "; mappings: %llu",
			      (unsigned long long)l->mappings);
	if (l->large_pages[0])
		snprintf(out + n, size - (size_t)n, "; large pages when shared: %s",
			 l->large_pages);
}

static const struct {
	const char *name;
	void (*say)(char *out, size_t size, const struct host_facts *facts);
} doctor_facts[] = {
	{"cpu", doctor_say_cpu},
	{"virtualization", doctor_say_virtualization},
	{"in a VM", doctor_say_vm},
	{"container", doctor_say_container},
	{"kernel", doctor_say_kernel},
	{"modules", doctor_say_modules},
	{"secure boot", doctor_say_secure_boot},
	{"security", doctor_say_lsm},
	{"/dev/kvm", doctor_say_node},
	{"io_uring", doctor_say_io_uring},
	{"landlock", doctor_say_landlock},
	{"memory", doctor_say_memory},
};

static const char *
doctor_auto(const struct doctor *d)
{
	const struct doctor_finding *biga = &d->findings[DOCTOR_BIGA];

	if (d->findings[DOCTOR_KVM].verdict.usable)
		return "takes kvm";
	return biga->asked && !biga->verdict.usable ? "takes biga, which cannot be used either"
						    : "takes biga";
}

void
doctor_print_text(const struct doctor *d)
{
	char text[DOCTOR_VALUE];

	for (int i = 0; i < DOCTOR_HYPERVISORS; i++) {
		if (d->findings[i].asked)
			doctor_finding_text(&d->findings[i]);
	}
	doctor_line("", "auto", doctor_auto(d));
	printf("\n");
	for (size_t i = 0; i < ARRAY_LEN(doctor_facts); i++) {
		text[0] = '\0';
		doctor_facts[i].say(text, sizeof(text), &d->host.facts);
		doctor_line("", doctor_facts[i].name, text);
	}
	if (d->warning_count)
		printf("\n");
	for (unsigned i = 0; i < d->warning_count; i++)
		doctor_line("", "warning", d->warnings[i]);
}
