/*
 * The host's own hypervisor, looked at from outside: whether a VM can run on it
 * here, and if not, the one cause, its evidence and one fix.
 */
#ifndef CMD_HOST_KVM_H
#define CMD_HOST_KVM_H

#include "cmd/host_kvm_causes.h"

enum { HOST_KVM_TEXT = 384, HOST_KVM_PROBE_MS = 2000 };

struct host_verdict {
	bool usable;
	const char *cause;   /* stable name, NULL if usable */
	const char *summary; /* a few words, "" if usable */
	char evidence[HOST_KVM_TEXT], fix[HOST_KVM_TEXT];
};

/* The engine behind the name "kvm"; NULL if this build has none. */
const struct engine_ops *host_kvm_engine(void);

/* Opens /dev/kvm and probes it with OPS (NULL: it is not tried); then says what it found.
 * The descriptor, the caller's; or -1. ALL: read all facts, even if KVM is usable; else only
 * those that the verdict needs. ROOT is "" (host_kvm_file.h). */
int host_kvm_look(struct host_kvm *host, struct host_verdict *verdict, const struct engine_ops *ops,
		  bool all, const char *root);

/* The verdict on facts and a probe that are there already. */
void host_kvm_judge(const struct host_kvm *host, struct host_verdict *verdict);

#endif
