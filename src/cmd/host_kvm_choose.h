/*
 * Which hypervisor runs a VM, and the words that say so. A choice is never silent:
 * what is not the host's own comes with its cause.
 */
#ifndef CMD_HOST_KVM_CHOOSE_H
#define CMD_HOST_KVM_CHOOSE_H

#include "cmd/host_kvm.h"

enum { HOST_CHOICE_WHY = 256, HOST_CHOICE_LINE = 1024 };

struct host_choice {
	const char *name; /* "kvm", "kvm,force" or "biga" */
	int device;	  /* of kvm, the caller's to close; -1 with biga */
	bool warn;	  /* LINE is a warning */
	char why[HOST_CHOICE_WHY];
	char line[HOST_CHOICE_LINE]; /* for the user, "" if there is nothing to say */
};

/* WANTED: auto, biga, kvm, or "kvm,force": kvm without a test; KVM as of host_kvm_engine(). 0,
 * or -ENOTSUP and LINE. */
int host_choose(struct host_choice *choice, const char *wanted, const struct engine_ops *kvm,
		const char *root);
/* The same for all but biga from a verdict that is there, and its descriptor, which is taken. */
int host_choose_from(struct host_choice *choice, const char *wanted,
		     const struct host_verdict *verdict, int device);

#endif
