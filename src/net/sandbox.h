/*
 * What a process that talks to the Internet for a guest cannot do any more:
 * sockets but of IPv4 and IPv6, new programs, tracing others, changing files.
 */
#ifndef NET_SANDBOX_H
#define NET_SANDBOX_H

#include "base/types.h"

/* For this process, all its threads, for ever. Needs no_new_privs. 0 or -errno. */
int net_sandbox(void);

#endif
