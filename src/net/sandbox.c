/*
 * The seccomp filter of the user NAT process (see sandbox.h): what it has no
 * business with is refused; the rest of the kernel stays open to libc.
 */
#define _GNU_SOURCE
#include "net/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/socket.h>

/* socket() of any family but AF_INET (2) and AF_INET6 (10). */
static int
sandbox_limit_families(scmp_filter_ctx filter)
{
	const u32 refuse = SCMP_ACT_ERRNO(EAFNOSUPPORT);
	int rc;

	rc = seccomp_rule_add(filter, refuse, SCMP_SYS(socket), 1,
			      SCMP_A0_32(SCMP_CMP_LT, AF_INET));
	if (rc == 0)
		rc = seccomp_rule_add(filter, refuse, SCMP_SYS(socket), 1,
				      SCMP_A0_32(SCMP_CMP_GT, AF_INET6));
	for (unsigned family = AF_INET + 1; rc == 0 && family < AF_INET6; family++)
		rc = seccomp_rule_add(filter, refuse, SCMP_SYS(socket), 1,
				      SCMP_A0_32(SCMP_CMP_EQ, family));
	if (rc == 0)
		rc = seccomp_rule_add(filter, refuse, SCMP_SYS(socketpair), 0);
	return rc;
}

/* Files may be read (the resolver's configuration), none created or written. */
static int
sandbox_only_reading(scmp_filter_ctx filter)
{
	const u32 refuse = SCMP_ACT_ERRNO(EACCES);
	int rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0);

	for (u32 mode = O_WRONLY; rc == 0 && mode <= O_RDWR; mode++) {
		rc = seccomp_rule_add(filter, refuse, SCMP_SYS(openat), 1,
				      SCMP_A2_32(SCMP_CMP_MASKED_EQ, O_ACCMODE, mode));
		if (rc == 0)
			rc = seccomp_rule_add(filter, refuse, SCMP_SYS(open), 1,
					      SCMP_A1_32(SCMP_CMP_MASKED_EQ, O_ACCMODE, mode));
	}
	return rc;
}

/* Threads yes, processes no; libc falls back to clone, whose flags can be seen. */
static int
sandbox_no_processes(scmp_filter_ctx filter)
{
	int rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

	if (rc == 0)
		rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
				      SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
	return rc;
}

int
net_sandbox(void)
{
	static const int refused[] = {
		SCMP_SYS(execve),
		SCMP_SYS(execveat),
		SCMP_SYS(fork),
		SCMP_SYS(vfork),
		SCMP_SYS(ptrace),
		SCMP_SYS(process_vm_readv),
		SCMP_SYS(process_vm_writev),
		SCMP_SYS(pidfd_getfd),
		SCMP_SYS(bpf),
		SCMP_SYS(perf_event_open),
		SCMP_SYS(io_uring_setup),
		SCMP_SYS(userfaultfd),
		SCMP_SYS(keyctl),
		SCMP_SYS(add_key),
		SCMP_SYS(mount),
		SCMP_SYS(unshare),
		SCMP_SYS(setns),
		SCMP_SYS(unlink),
		SCMP_SYS(unlinkat),
		SCMP_SYS(rename),
		SCMP_SYS(renameat),
		SCMP_SYS(renameat2),
		SCMP_SYS(chmod),
		SCMP_SYS(fchmodat),
		SCMP_SYS(truncate),
	};
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int rc;

	if (filter == NULL)
		return -ENOMEM;
	rc = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (rc == 0)
		rc = sandbox_limit_families(filter);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(refused); i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
	if (rc == 0)
		rc = sandbox_only_reading(filter);
	if (rc == 0)
		rc = sandbox_no_processes(filter);
	if (rc == 0)
		rc = seccomp_load(filter);
	seccomp_release(filter);
	return rc;
}
