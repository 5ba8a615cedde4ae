/*
 * The host resources of a VM, as descriptors that somebody else opened. Each is
 * checked when it arrives: it must be of the kind, and open in the way, that its
 * place in the configuration asks for.
 *
 *	kernel, initrd0.., disk0..	regular files (disks: also block devices)
 *	kvm				/dev/kvm
 *	net				a SOCK_SEQPACKET or SOCK_DGRAM socket, see net/net.h
 *	console				anything that can be written to
 *	state				a regular file: the VM starts from it (suspend.h)
 *	control				a listening Unix stream socket; may be missing
 */
#ifndef VM_RESOURCES_H
#define VM_RESOURCES_H

#include "vm/config.h"

struct vm_resources {
	int kernel; /* -1 where not given */
	int initrds[VM_INITRDS_MAX];
	int disks[VM_DISKS_MAX];
	int net;
	int kvm; /* the host's node, given if the configuration's hypervisor is kvm */
	int console;
	int state;
	int control;
};

void vm_resources_init(struct vm_resources *resources);
void vm_resources_close(struct vm_resources *resources);

/* Takes FD over, failing or not. 0, or -errno and one line in WHY. */
int vm_resources_give(struct vm_resources *resources, const struct vm_config *config,
		      const char *what, int fd, char *why, size_t why_size);
/* Whether all that CONFIG names is there: 0, or -EINVAL and WHY. */
int vm_resources_check(const struct vm_resources *resources, const struct vm_config *config,
		       char *why, size_t why_size);

#endif
