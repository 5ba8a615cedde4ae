/*
 * Choosing (see host_kvm_choose.h).
 */
#include "cmd/host_kvm_choose.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static void
choose_kvm(struct host_choice *c, int device)
{
	c->name = "kvm";
	c->device = device;
}

/* It opens and makes VMs, only not good ones. */
static bool
choose_runs_badly(const struct host_verdict *v)
{
	return v->cause && (strcmp(v->cause, "unsound") == 0 || strcmp(v->cause, "slow") == 0);
}

static int
choose_for_auto(struct host_choice *c, const struct host_verdict *v, int device)
{
	if (v->usable) {
		choose_kvm(c, device);
		snprintf(c->why, sizeof(c->why), "auto: the host's own one passed its test");
		snprintf(c->line, sizeof(c->line),
			 "hypervisor kvm: the host's own one passed its test");
		return 0;
	}
	if (device >= 0)
		close(device);
	snprintf(c->why, sizeof(c->why), "auto: %s (%.160s)", v->summary, v->evidence);
	snprintf(c->line, sizeof(c->line), "hypervisor biga: %s (%s); %s; `biga doctor` says more",
		 v->summary, v->evidence, v->fix);
	return 0;
}

static int
choose_for_kvm(struct host_choice *c, const struct host_verdict *v, int device)
{
	if (v->usable || choose_runs_badly(v)) {
		choose_kvm(c, device);
		c->warn = !v->usable;
		snprintf(c->why, sizeof(c->why), "asked for by --hypervisor");
		if (c->warn)
			snprintf(c->line, sizeof(c->line),
				 "hypervisor kvm, as asked for: %s (%s); guests may fail, and "
				 "--hypervisor auto would take biga",
				 v->summary, v->evidence);
		return 0;
	}
	if (device >= 0)
		close(device);
	snprintf(c->line, sizeof(c->line),
		 "the hypervisor kvm cannot be used: %s (%s); %s, or use --hypervisor biga",
		 v->summary, v->evidence, v->fix);
	return -ENOTSUP;
}

static void
choose_init(struct host_choice *c)
{
	memset(c, 0, sizeof(*c));
	c->name = "biga";
	c->device = -1;
}

int
host_choose_from(struct host_choice *c, const char *wanted, const struct host_verdict *v,
		 int device)
{
	choose_init(c);
	return strcmp(wanted, "kvm") == 0 ? choose_for_kvm(c, v, device)
					  : choose_for_auto(c, v, device);
}

int
host_choose(struct host_choice *c, const char *wanted, const struct engine_ops *kvm,
	    const char *root)
{
	struct host_kvm host;
	struct host_verdict verdict;
	int device;

	if (strcmp(wanted, "biga") != 0) {
		device = host_kvm_look(&host, &verdict, kvm, false, root);
		return host_choose_from(c, wanted, &verdict, device);
	}
	choose_init(c);
	snprintf(c->why, sizeof(c->why), "asked for by --hypervisor");
	return 0;
}
