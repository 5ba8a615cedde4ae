/*
 * biga-net: user NAT for one VM, in a process of its own. Started by `biga run`
 * with two descriptors; it gives up all privileges before the first frame.
 *
 * It writes one line to the status descriptor, "ok" or what is wrong, and then
 * serves until the VM's end of the frame socket closes.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/privileges.h"
#include "net/sandbox.h"
#include "net/user.h"

#ifdef __SANITIZE_ADDRESS__
/* Leaks are looked for by a process that the sandbox does not let start. */
int __lsan_is_turned_off(void);

int
__lsan_is_turned_off(void)
{
	return 1;
}
#endif

struct biga_net_options {
	int frames, status;
	struct net_forward forwards[NET_FORWARDS_MAX];
	struct user_net_config config;
};

static const char biga_net_usage[] =
	"Usage: biga-net --frames FD [--status FD] [--forward tcp|udp:HOSTADDR:PORT-:PORT]...\n"
	"                [--hostloop] [--no-ipv6] [--hostname NAME]\n"
	"User-mode network of one VM; `biga run --net user` starts it.\n"
	"  --frames FD    SOCK_SEQPACKET socket that carries the guest's frames\n"
	"  --status FD    where to write one line once the network is up, or why it is not\n"
	"  --forward SPEC a port of the host that leads to the guest (repeatable)\n"
	"  --hostloop     the guest may reach the host's loopback at 10.0.2.2\n"
	"  --no-ipv6      IPv4 only\n"
	"  --hostname N   the name that DHCP gives the guest\n";

static int
biga_net_descriptor(const char *text)
{
	char *end;
	long value = strtol(text, &end, 10);

	return *text && *end == '\0' && value >= 0 && value < 65536 ? (int)value : -1;
}

static int
biga_net_add_forward(struct biga_net_options *o, const char *text)
{
	const char *why;

	if (o->config.forward_count == NET_FORWARDS_MAX) {
		log_error("more than %d forwards; use fewer", NET_FORWARDS_MAX);
		return -EINVAL;
	}
	if (net_forward_parse(&o->forwards[o->config.forward_count], text, &why) < 0) {
		log_error("forward '%s' cannot be: %s", text, why);
		return -EINVAL;
	}
	o->config.forward_count++;
	return 0;
}

/* 0 go on, 1 done, or -EINVAL. */
static int
biga_net_parse(struct biga_net_options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{"frames", required_argument, NULL, 'f'},
		{"status", required_argument, NULL, 's'},
		{"forward", required_argument, NULL, 'w'},
		{"hostloop", no_argument, NULL, 'l'},
		{"no-ipv6", no_argument, NULL, '4'},
		{"hostname", required_argument, NULL, 'n'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->frames = biga_net_descriptor(optarg);
			break;
		case 's':
			o->status = biga_net_descriptor(optarg);
			break;
		case 'w':
			if (biga_net_add_forward(o, optarg) < 0)
				return -EINVAL;
			break;
		case 'l':
			o->config.host_loopback = true;
			break;
		case '4':
			o->config.ipv6 = false;
			break;
		case 'n':
			o->config.hostname = optarg;
			break;
		case 'h':
			fputs(biga_net_usage, stdout);
			return 1;
		default:
			fputs(biga_net_usage, stderr);
			return -EINVAL;
		}
	}
	return optind == argc ? 0 : -EINVAL;
}

static int
biga_net_check_socket(int fd)
{
	socklen_t len = sizeof(int);
	int type = 0;

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return -ENOTSOCK;
	return type == SOCK_SEQPACKET || type == SOCK_DGRAM ? 0 : -EPROTOTYPE;
}

static void
biga_net_report(int status, const char *line)
{
	if (status < 0) {
		if (strcmp(line, "ok") != 0)
			log_error("%s", line);
		return;
	}
	dprintf(status, "%s\n", line);
	close(status);
}

static int
biga_net_serve(struct biga_net_options *o)
{
	struct user_net *net;
	char why[256];
	int rc;

	/* Ports are bound first: one below 1024 may need a capability. */
	rc = user_net_create(&net, o->frames, &o->config, why, sizeof(why));
	if (rc < 0) {
		biga_net_report(o->status, why);
		return 2;
	}
	rc = privileges_drop();
	if (rc == 0)
		rc = net_sandbox();
	if (rc < 0) {
		snprintf(why, sizeof(why), "the network process cannot drop its privileges: %s",
			 strerror(-rc));
		biga_net_report(o->status, why);
		user_net_destroy(net);
		return 2;
	}
	biga_net_report(o->status, "ok");
	rc = user_net_run(net);
	user_net_destroy(net);
	if (rc < 0)
		log_error("the network process ends: %s", strerror(-rc));
	return rc < 0 ? 1 : 0;
}

int
main(int argc, char **argv)
{
	struct biga_net_options o = {.frames = -1, .status = -1, .config.ipv6 = true};
	int rc;

	o.config.forwards = o.forwards;
	rc = biga_net_parse(&o, argc, argv);
	if (rc != 0)
		return rc < 0 ? 2 : 0;
	if (biga_net_check_socket(o.frames) < 0) {
		log_error("--frames needs a SOCK_SEQPACKET socket's descriptor; `biga run --net "
			  "user` "
			  "passes one");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	/* The terminal's Ctrl-C is for the VM; this process ends when the VM does. */
	signal(SIGINT, SIG_IGN);
	prctl(PR_SET_NAME, "biga-net");
	return biga_net_serve(&o);
}
