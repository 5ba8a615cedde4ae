/*
 * The findings as JSON. Keys and the meanings of values are promised in
 * docs/doctor.md: they are added to, and DOCTOR_FORMAT counts what is not.
 */
#include <jansson.h>
#include <string.h>

#include "base/log.h"
#include "cmd/doctor.h"

static json_t *
doctor_truth(enum host_truth truth)
{
	return truth == HOST_UNKNOWN ? json_null() : json_boolean(truth == HOST_YES);
}

/* null for what there is not. */
static json_t *
doctor_string(const char *text)
{
	return text && text[0] ? json_string(text) : json_null();
}

static json_t *
doctor_number(u64 value)
{
	return value ? json_integer((json_int_t)value) : json_null();
}

static json_t *
doctor_finding_json(const struct doctor_finding *f)
{
	const struct host_verdict *v = &f->verdict;

	return json_pack("{s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name", f->name, "usable",
			 v->usable, "cause", doctor_string(v->cause), "summary",
			 doctor_string(v->summary), "evidence", doctor_string(v->evidence), "fix",
			 doctor_string(v->fix), "kernel-speed", doctor_number(f->kernel_speed),
			 "user-speed", doctor_number(f->user_speed), "probe-ns",
			 doctor_number(f->ns));
}

static json_t *
doctor_cpu_json(const struct host_cpu *c)
{
	return json_pack("{s:o, s:o, s:i, s:s, s:b, s:o, s:o}", "vendor", doctor_string(c->vendor),
			 "model", doctor_string(c->model), "online", (int)c->cpus, "virtualization",
			 c->virt, "in-cpuid", c->has_virt, "in-kernel", doctor_truth(c->flag),
			 "switched-off", doctor_truth(c->off));
}

static json_t *
doctor_kernel_json(const struct host_facts *f)
{
	const struct host_modules *m = &f->modules;
	const struct host_denial *d = &m->denial;

	return json_pack("{s:s, s:o, s:o, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "release",
			 m->release, "kvm-registered", doctor_truth(m->registered), "kvm-loaded",
			 doctor_string(m->loaded), "module", f->cpu.module, "loadable", m->loadable,
			 "modules-disabled", doctor_truth(m->disabled), "module-file",
			 doctor_string(m->file), "module-signed", doctor_truth(m->is_signed),
			 "denied-by",
			 d->found ? json_pack("{s:s, s:i, s:s}", "where", d->where, "line",
					      (int)d->line, "text", d->text)
				  : json_null(),
			 "kernels-without-kvm", doctor_string(m->lacking), "other-hypervisors",
			 doctor_string(m->rivals));
}

static json_t *
doctor_security_json(const struct host_security *s)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "mok-keys",
			 s->mok_keys < 0 ? json_null() : json_integer(s->mok_keys), "mok-pending",
			 doctor_truth(s->mok_pending), "secure-boot", doctor_truth(s->secure_boot),
			 "lockdown", doctor_string(s->lockdown), "sig-enforce",
			 doctor_truth(s->sig_enforce), "lsm", doctor_string(s->lsm), "label",
			 doctor_string(s->label));
}

static json_t *
doctor_place_json(const struct host_facts *f)
{
	const struct host_place *p = &f->place;

	return json_pack("{s:b, s:o, s:b, s:o, s:b, s:o, s:o}", "container", p->container,
			 "container-kind", doctor_string(p->container ? p->kind : ""), "namespaces",
			 p->isolated, "seen-by", doctor_string(p->how), "vm", f->cpu.in_vm,
			 "vm-hypervisor", doctor_string(f->cpu.hypervisor), "device-group",
			 doctor_string(p->cgroup));
}

static json_t *
doctor_node_json(const struct host_node *n)
{
	char mode[8];

	if (n->stat_error)
		return json_pack("{s:b, s:s}", "exists", 0, "error", strerror(n->stat_error));
	snprintf(mode, sizeof(mode), "%03o", n->mode & 0777);
	return json_pack("{s:b, s:b, s:s, s:s, s:s, s:o, s:o}", "exists", 1, "is-kvm", n->is_kvm,
			 "owner", n->owner, "group", n->group, "mode", mode, "members",
			 doctor_string(n->members), "error",
			 doctor_string(n->open_error ? strerror(n->open_error) : ""));
}

static json_t *
doctor_limits_json(const struct host_limits *l)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "memory",
			 doctor_number(l->total), "memory-available", doctor_number(l->available),
			 "memory-group", doctor_number(l->cgroup), "address-space",
			 doctor_number(l->address_space), "mappings", doctor_number(l->mappings),
			 "large-pages", doctor_string(l->large_pages), "io-uring", l->io_uring == 0,
			 "landlock", doctor_number((u64)l->landlock));
}

void
doctor_print_json(const struct doctor *d)
{
	const struct host_facts *f = &d->host.facts;
	json_t *hypervisors = json_array(), *warnings = json_array(), *all;

	for (int i = 0; i < DOCTOR_HYPERVISORS; i++) {
		if (d->findings[i].asked)
			json_array_append_new(hypervisors, doctor_finding_json(&d->findings[i]));
	}
	for (unsigned i = 0; i < d->warning_count; i++)
		json_array_append_new(warnings, json_string(d->warnings[i]));
	all = json_pack("{s:i, s:o, s:s, s:{s:o, s:o, s:o, s:o, s:o, s:o}, s:o}", "doctor",
			DOCTOR_FORMAT, "hypervisors", hypervisors, "auto",
			d->findings[DOCTOR_KVM].verdict.usable ? "kvm" : "biga", "facts", "cpu",
			doctor_cpu_json(&f->cpu), "kernel", doctor_kernel_json(f), "security",
			doctor_security_json(&f->security), "place", doctor_place_json(f), "node",
			doctor_node_json(&f->node), "limits", doctor_limits_json(&f->limits),
			"warnings", warnings);
	if (all == NULL)
		log_error("the findings cannot be put together: out of memory");
	json_dumpf(all, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(all);
}
