/*
 * Parsing of port forwards (see forward.h). The text may come from a file or a
 * control message: every length is checked, nothing is guessed.
 */
#include "net/forward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "net/net.h"

socklen_t
net_address_length(const union net_address *address)
{
	return address->any.sa_family == AF_INET6 ? sizeof(address->v6) : sizeof(address->v4);
}

u16
net_address_port(const union net_address *address)
{
	return ntohs(address->any.sa_family == AF_INET6 ? address->v6.sin6_port
							: address->v4.sin_port);
}

static bool
forward_parse_port(const char *text, u16 *port)
{
	unsigned long value = 0;

	if (*text == '\0' || strlen(text) > 5)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned long)(*text - '0');
	}
	*port = (u16)value;
	return value >= 1 && value <= 65535;
}

static void
forward_set_v4(union net_address *address, struct in_addr ip, u16 port)
{
	memset(address, 0, sizeof(*address));
	address->v4.sin_family = AF_INET;
	address->v4.sin_addr = ip;
	address->v4.sin_port = htons(port);
}

static void
forward_set_v6(union net_address *address, const struct in6_addr *ip, u16 port)
{
	memset(address, 0, sizeof(*address));
	address->v6.sin6_family = AF_INET6;
	address->v6.sin6_addr = *ip;
	address->v6.sin6_port = htons(port);
}

/* "ADDR:PORT", "[ADDR6]:PORT", ":PORT" (*EMPTY is then true) or "PORT"; TEXT is changed. */
static bool
forward_parse_end(char *text, union net_address *address, bool *empty)
{
	struct in6_addr ip6;
	struct in_addr ip;
	char *colon = strrchr(text, ':');
	const char *digits = colon ? colon + 1 : text;
	u16 port;

	if (!forward_parse_port(digits, &port))
		return false;
	*empty = colon == NULL || colon == text;
	if (*empty)
		return forward_set_v4(address, (struct in_addr){0}, port), true;
	*colon = '\0';
	if (text[0] == '[' && colon > text + 1 && colon[-1] == ']') {
		colon[-1] = '\0';
		if (inet_pton(AF_INET6, text + 1, &ip6) != 1)
			return false;
		return forward_set_v6(address, &ip6, port), true;
	}
	if (inet_pton(AF_INET, text, &ip) != 1)
		return false;
	return forward_set_v4(address, ip, port), true;
}

/* What an end without address means, given the other one. */
static int
forward_resolve(struct net_forward *f, bool host_empty, bool guest_empty, const char **why)
{
	if (host_empty)
		f->host.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (guest_empty && f->host.any.sa_family == AF_INET6)
		forward_set_v6(&f->guest, &in6addr_any, net_address_port(&f->guest));
	if (f->host.any.sa_family != f->guest.any.sa_family) {
		*why = "host and guest address must be of one kind (IPv4 or IPv6)";
		return -EINVAL;
	}
	return 0;
}

int
net_forward_parse(struct net_forward *forward, const char *text, const char **why)
{
	char copy[NET_FORWARD_TEXT];
	bool host_empty, guest_empty;
	char *dash;

	memset(forward, 0, sizeof(*forward));
	*why = "it must read tcp:HOSTADDR:PORT-:PORT or udp:HOSTADDR:PORT-:PORT";
	if (strlen(text) >= sizeof(copy))
		return -EINVAL;
	strcpy(copy, text);
	if (strncmp(copy, "tcp:", 4) != 0 && strncmp(copy, "udp:", 4) != 0)
		return -EINVAL;
	forward->udp = copy[0] == 'u';
	dash = strchr(copy + 4, '-');
	if (dash == NULL)
		return -EINVAL;
	*dash = '\0';
	*why = "the host's side must be HOSTADDR:PORT, with a numeric address and a port from 1 to "
	       "65535";
	if (!forward_parse_end(copy + 4, &forward->host, &host_empty))
		return -EINVAL;
	*why = "the guest's side must be :PORT or ADDR:PORT, with a port from 1 to 65535";
	if (!forward_parse_end(dash + 1, &forward->guest, &guest_empty))
		return -EINVAL;
	return forward_resolve(forward, host_empty, guest_empty, why);
}
