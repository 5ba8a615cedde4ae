/*
 * A port of the host that leads to a port of the guest, as text and as
 * addresses:	tcp:HOSTADDR:PORT-[GUESTADDR]:PORT	or udp:...
 * An empty HOSTADDR is 127.0.0.1, an empty GUESTADDR whatever address the
 * guest was given. IPv6 addresses stand in brackets, at both sides alike.
 */
#ifndef NET_FORWARD_H
#define NET_FORWARD_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/types.h"

enum { NET_FORWARDS_MAX = 64, NET_FORWARD_TEXT = 160 };

union net_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct net_forward {
	bool udp;
	union net_address host;
	union net_address guest;
};

/* 0, or -EINVAL with *WHY (a constant) saying what is wrong. */
int net_forward_parse(struct net_forward *forward, const char *text, const char **why);

socklen_t net_address_length(const union net_address *address);
u16 net_address_port(const union net_address *address);

#endif
