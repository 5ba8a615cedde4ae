/*
 * Looking at the host's hypervisor (see host_kvm.h).
 */
#include "cmd/host_kvm.h"

#include <string.h>

const struct engine_ops *
host_kvm_engine(void)
{
	return &engine_kvm;
}

void
host_kvm_judge(const struct host_kvm *h, struct host_verdict *v)
{
	const struct host_cause *cause = host_cause_find(h);

	memset(v, 0, sizeof(*v));
	v->summary = "";
	v->usable = cause == NULL;
	if (v->usable)
		return;
	v->cause = cause->name;
	/* One that the table does not know yet has the engine's name for it. */
	if (strcmp(cause->name, "other") == 0 && h->probe.cause[0])
		v->cause = h->probe.cause;
	v->summary = cause->summary;
	host_text_fill(v->evidence, sizeof(v->evidence), cause->evidence, h);
	host_text_fill(v->fix, sizeof(v->fix), cause->fix, h);
}

/* A KVM that was tried speaks for itself, but for who else may hold the processor. */
static bool
host_kvm_needs_facts(const struct host_kvm *h)
{
	return !h->probe.done || strcmp(h->probe.cause, "held") == 0;
}

int
host_kvm_look(struct host_kvm *h, struct host_verdict *v, const struct engine_ops *ops, bool all,
	      const char *root)
{
	int fd;

	memset(h, 0, sizeof(*h));
	fd = host_node_open(&h->facts.node, root);
	if (fd >= 0 && ops)
		host_probe_run(&h->probe, ops, fd, HOST_KVM_PROBE_MS);
	if (all || host_kvm_needs_facts(h)) {
		host_facts_identify(&h->facts);
		host_facts_inspect(&h->facts, root);
		host_node_inspect(&h->facts.node, &h->facts.place, root);
	}
	host_kvm_judge(h, v);
	return fd;
}
