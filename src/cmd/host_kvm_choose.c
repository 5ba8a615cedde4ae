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
	if (v->usable) {
		choose_kvm(c, device);
		snprintf(c->why, sizeof(c->why), "asked for by --hypervisor");
		return 0;
	}
	snprintf(c->line, sizeof(c->line),
		 "the hypervisor kvm cannot be used: %s (%s); %s; `biga doctor` says more",
		 v->summary, v->evidence, v->fix);
	if (device >= 0)
		close(device);
	return -ENOTSUP;
}

/* Whatever a test would say; the node must open all the same. */
static int
choose_forced(struct host_choice *c, const struct host_verdict *v, int device)
{
	if (device < 0)
		return choose_for_kvm(c, v, device);
	choose_kvm(c, device);
	c->name = "kvm,force";
	c->warn = true;
	snprintf(c->why, sizeof(c->why), "forced by --hypervisor, untested");
	snprintf(c->line, sizeof(c->line),
		 "hypervisor kvm, forced: it was not tested, and guests may fail");
	return 0;
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
	if (strcmp(wanted, "kvm,force") == 0)
		return choose_forced(c, v, device);
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
		if (strcmp(wanted, "kvm,force") == 0)
			kvm = NULL;
		device = host_kvm_look(&host, &verdict, kvm, false, root);
		return host_choose_from(c, wanted, &verdict, device);
	}
	choose_init(c);
	snprintf(c->why, sizeof(c->why), "asked for by --hypervisor");
	return 0;
}
