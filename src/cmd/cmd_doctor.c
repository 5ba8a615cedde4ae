/*
 * `biga doctor`: which hypervisors can be used on this host, and if the host's own
 * one cannot, why and what to do.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "cmd/doctor.h"
#include "cmd/host_kvm_speed.h"

static const char doctor_help[] =
	"Usage: biga doctor [--json] [--hypervisor kvm|biga]\n"
	"Says which hypervisors can be used on this host. Where one cannot: the cause, the\n"
	"evidence, and one thing to do. Then what else is known of the host. Nothing is changed.\n"
	"\n"
	"  --json                the same as one JSON object\n"
	"  --hypervisor NAME     only that one: kvm or biga\n"
	"  --help\n"
	"\n"
	"Exit status: 0 kvm (or the one that was named) can be used; 1 it cannot; 2 wrong usage.\n";

struct doctor_options {
	bool json, help;
	const char *hypervisor; /* NULL: both */
};

static int
doctor_parse(struct doctor_options *o, int argc, char **argv)
{
	memset(o, 0, sizeof(*o));
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *value = NULL;

		if (strcmp(word, "--json") == 0) {
			o->json = true;
		} else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
			o->help = true;
		} else if (strcmp(word, "--hypervisor") == 0 ||
			   strncmp(word, "--hypervisor=", 13) == 0) {
			value = word[12] ? word + 13 : argv[++i];
			if (value == NULL ||
			    (strcmp(value, "kvm") != 0 && strcmp(value, "biga") != 0)) {
				log_error("--hypervisor needs kvm or biga; see biga doctor --help");
				return -EINVAL;
			}
			o->hypervisor = value;
		} else {
			log_error("unknown option '%.80s'; see biga doctor --help", word);
			return -EINVAL;
		}
	}
	return 0;
}

static void
doctor_warn(struct doctor *d, const char *template)
{
	if (d->warning_count < DOCTOR_WARNINGS)
		host_text_fill(d->warnings[d->warning_count++], DOCTOR_WARNING, template, &d->host);
}

/* Guests' memory is shared memory to the host. */
static bool
doctor_small_pages(const struct doctor *d)
{
	const char *large = d->host.facts.limits.large_pages;

	return d->findings[DOCTOR_KVM].verdict.usable &&
	       (strcmp(large, "never") == 0 || strcmp(large, "deny") == 0);
}

static void
doctor_find_warnings(struct doctor *d)
{
	const struct host_node *n = &d->host.facts.node;
	const struct host_modules *m = &d->host.facts.modules;

	if (n->is_kvm && n->world)
		doctor_warn(d, "/dev/kvm is {node}: every program of every user may open it, "
			       "without approval");
	else if (n->is_kvm && n->group_opens && n->members[0])
		doctor_warn(d, "members of group {group} ({members}) may open /dev/kvm: their "
			       "programs need no approval");
	if (m->rivals[0])
		doctor_warn(d, "another hypervisor's module is loaded{rivals}: KVM is refused "
			       "while it runs a VM");
	if (m->lacking[0] && !d->host.facts.place.container)
		doctor_warn(d, "installed kernels without {module}: {lacking}; after a restart "
			       "into one of them KVM is gone");
	if (m->registered == HOST_YES && !m->folder && m->loadable &&
	    !d->host.facts.place.container)
		doctor_warn(d, "/lib/modules/{release} is missing: no further module can be loaded "
			       "until a restart");
	if (doctor_small_pages(d))
		doctor_warn(d,
			    "VMs on kvm get no large pages from this kernel and start slower; as "
			    "root{on-host}: echo advise >/sys/kernel/mm/"
			    "transparent_hugepage/shmem_enabled");
}

static void
doctor_examine_kvm(struct doctor *d)
{
	struct doctor_finding *f = &d->findings[DOCTOR_KVM];
	int fd = host_kvm_look(&d->host, &f->verdict, host_kvm_engine(), true, "");

	f->kernel_speed = d->host.probe.kernel_speed;
	f->user_speed = d->host.probe.user_speed;
	f->ns = d->host.probe.ns;
	if (fd >= 0)
		close(fd);
}

/* What to do about a guest that did not run for want of something. */
static const char *
doctor_biga_fix(int error)
{
	switch (error) {
	case -ENOMEM:
		return "free some memory, or raise the limits below";
	case -EMFILE:
		return "allow more open files: ulimit -n 1024";
	case -ENFILE:
		return "as root: raise the sysctl fs.file-max";
	case -EAGAIN:
		return "allow more processes and threads: ulimit -u, or the control group's "
		       "pids.max";
	default:
		return "report this as an error of Biga";
	}
}

/* Our own one has no causes of the host's to tell apart: its probe says it all. */
static void
doctor_examine_biga(struct doctor *d)
{
	struct doctor_finding *f = &d->findings[DOCTOR_BIGA];
	struct host_verdict *v = &f->verdict;
	struct engine_probe probe;
	int rc;

	memset(&probe, 0, sizeof(probe));
	engine_translator.probe(-1, &probe);
	v->usable = probe.usable;
	v->summary = v->usable ? "" : "our own hypervisor cannot run here";
	v->cause = v->usable ? NULL : probe.cause ? probe.cause : "unknown";
	host_text_copy(v->evidence, sizeof(v->evidence), probe.evidence);
	host_text_copy(v->fix, sizeof(v->fix), probe.fix);
	f->kernel_speed = probe.kernel_speed;
	f->user_speed = probe.user_speed;
	if (!v->usable || f->kernel_speed)
		return;
	rc = host_speed_measure(&engine_translator, -1, &f->kernel_speed, &f->user_speed);
	if (rc == 0)
		return;
	v->usable = false;
	v->cause = "not-running";
	v->summary = "our own hypervisor cannot run here";
	snprintf(v->evidence, sizeof(v->evidence), "a guest of a few instructions: %s",
		 strerror(-rc));
	snprintf(v->fix, sizeof(v->fix), "%s", doctor_biga_fix(rc));
}

static int
doctor_status(const struct doctor *d, const char *hypervisor)
{
	const struct doctor_finding *f =
		&d->findings[hypervisor && strcmp(hypervisor, "biga") == 0 ? DOCTOR_BIGA
									   : DOCTOR_KVM];

	return f->verdict.usable ? 0 : 1;
}

int
cmd_doctor(int argc, char **argv)
{
	struct doctor doctor = {.findings = {{.name = "kvm"}, {.name = "biga"}}};
	struct doctor_options o;

	if (doctor_parse(&o, argc, argv) < 0)
		return EXIT_USAGE;
	if (o.help) {
		fputs(doctor_help, stdout);
		return fflush(stdout) == 0 ? 0 : EXIT_USAGE;
	}
	for (int i = 0; i < DOCTOR_HYPERVISORS; i++)
		doctor.findings[i].asked =
			!o.hypervisor || strcmp(o.hypervisor, doctor.findings[i].name) == 0;
	doctor_examine_kvm(&doctor);
	if (doctor.findings[DOCTOR_BIGA].asked)
		doctor_examine_biga(&doctor);
	doctor_find_warnings(&doctor);
	(o.json ? doctor_print_json : doctor_print_text)(&doctor);
	if (fflush(stdout) != 0) {
		log_error("the findings cannot be printed: %s", strerror(errno));
		return EXIT_USAGE;
	}
	return doctor_status(&doctor, o.hypervisor);
}
