/*
 * Why KVM cannot be used on this host: a table of causes, each with its stable
 * name, how it is told from the others, and texts for evidence and fix. The first
 * row that applies is the cause; what else is amiss shows in the facts.
 */
#ifndef CMD_HOST_KVM_CAUSES_H
#define CMD_HOST_KVM_CAUSES_H

#include "cmd/host_kvm_facts.h"
#include "cmd/host_kvm_probe.h"

struct host_kvm {
	struct host_facts facts;
	struct host_probe probe;
};

struct host_cause {
	const char *name;    /* for scripts: never changes its meaning */
	const char *summary; /* a few words */
	/* NULL: the probe said so, by this very name. */
	bool (*applies)(const struct host_kvm *host);
	/* With {names} of facts: see host_kvm_text.c. One sentence and one thing to do. */
	const char *evidence, *fix;
};

/* Ends with a row without a name. */
extern const struct host_cause host_causes[];

/* NULL if KVM can be used. */
const struct host_cause *host_cause_find(const struct host_kvm *host);

/* TEMPLATE with its {names} filled in, printable ASCII; cut where it does not fit. */
void host_text_fill(char *out, size_t size, const char *template, const struct host_kvm *host);

#endif
