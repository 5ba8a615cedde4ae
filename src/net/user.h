/*
 * A private network behind user NAT for one guest, at the other end of a
 * net.h socket. No privilege is needed; the host sees ordinary sockets of this
 * process. The guest finds
 *
 *	10.0.2.0/24, fec0::/64	its network; DHCP gives it 10.0.2.15
 *	10.0.2.2, fec0::2	the gateway; the host's loopback, if allowed
 *	10.0.2.3, fec0::3	a name server that forwards to the host's
 *
 * Single-threaded. The TCP/IP stack is libslirp.
 */
#ifndef NET_USER_H
#define NET_USER_H

#include "net/forward.h"
#include "net/net.h"

struct user_net;

struct user_net_config {
	const struct net_forward *forwards;
	unsigned forward_count;
	bool host_loopback; /* the gateway's address leads to 127.0.0.1 and ::1 */
	bool ipv6;
	const char *hostname; /* that DHCP gives, or NULL */
};

/* FRAMES stays the caller's and becomes non-blocking. Host ports are bound when
 * this returns. 0 or -errno with one line in WHY. */
int user_net_create(struct user_net **out, int frames, const struct user_net_config *config,
		    char *why, size_t why_size);
void user_net_destroy(struct user_net *net);

/* Serves until the other end of FRAMES closes: 0, or -errno. */
int user_net_run(struct user_net *net);

#endif
