/*
 * User NAT against a guest made of bytes: ARP, DHCP, ping, TCP both ways
 * through forwards and the host's loopback, UDP, large segments with unfinished
 * checksums, and destinations that must not pass. The NAT runs in a child, as
 * biga-net does, sandbox included.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/privileges.h"
#include "net/frame.h"
#include "net/sandbox.h"
#include "net/user.h"

enum { FRAME_ROOM = 65600, IP_AT = 14, L4_AT = 34, UDP_DATA = 42, TCP_DATA = 54 };
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };

struct guest {
	int fd;
	pid_t nat;
	u16 forwarded; /* host port that leads to port 7 of the guest */
	u8 out[FRAME_ROOM], in[FRAME_ROOM];
	size_t in_len;
};

static const u8 guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
static const u8 gateway_ip[4] = {10, 0, 2, 2}, guest_ip[4] = {10, 0, 2, 15};

static void
put_be16(u8 *p, u32 v)
{
	p[0] = (u8)(v >> 8);
	p[1] = (u8)v;
}

static void
put_be32(u8 *p, u32 v)
{
	put_be16(p, v >> 16);
	put_be16(p + 2, v);
}

static u32
be16(const u8 *p)
{
	return (u32)(p[0] << 8 | p[1]);
}

static u32
be32(const u8 *p)
{
	return be16(p) << 16 | be16(p + 2);
}

static u16
free_port(int type)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	getsockname(fd, (struct sockaddr *)&a, &len);
	close(fd);
	return ntohs(a.sin_port);
}

static void
nat_process(int fd, const struct user_net_config *config, int ready)
{
	struct user_net *net;
	char why[256];

	if (user_net_create(&net, fd, config, why, sizeof(why)) < 0) {
		fprintf(stderr, "%s\n", why);
		_exit(1);
	}
	if (privileges_drop() < 0 || net_sandbox() < 0)
		_exit(2);
	/* What the sandbox is there for. */
	if (socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || errno != EAFNOSUPPORT)
		_exit(3);
	if (socket(AF_NETLINK, SOCK_RAW, 0) >= 0 || fork() >= 0 ||
	    execl("/bin/true", "true", NULL) >= 0)
		_exit(4);
	if (write(ready, "r", 1) != 1)
		_exit(5);
	_exit(user_net_run(net) < 0);
}

static void
guest_start(struct guest *g, bool host_loopback)
{
	struct user_net_config config = {
		.host_loopback = host_loopback, .ipv6 = true, .hostname = "g"};
	struct net_forward forwards[2];
	int ends[2], ready[2];
	const char *why;
	char text[64], byte;

	g->forwarded = free_port(SOCK_STREAM);
	snprintf(text, sizeof(text), "tcp:127.0.0.1:%u-:7", g->forwarded);
	assert_int_equal(net_forward_parse(&forwards[0], text, &why), 0);
	config.forwards = forwards;
	config.forward_count = 1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	assert_int_equal(pipe(ready), 0);
	g->nat = fork();
	if (g->nat == 0) {
		close(ends[0]);
		nat_process(ends[1], &config, ready[1]);
	}
	close(ends[1]);
	close(ready[1]);
	g->fd = ends[0];
	if (read(ready[0], &byte, 1) != 1) {
		int status;

		waitpid(g->nat, &status, 0);
		fail_msg("the NAT did not start: %x", status);
	}
	close(ready[0]);
}

/* It ends when the guest's end closes. */
static void
guest_stop(struct guest *g)
{
	int status;

	close(g->fd);
	assert_int_equal(waitpid(g->nat, &status, 0), g->nat);
	assert_int_equal(status, 0);
}

static void
guest_send(struct guest *g, const struct net_header *header, size_t len)
{
	struct net_header none = {0};
	struct iovec iov[2] = {{(void *)(header ? header : &none), sizeof(none)}, {g->out, len}};

	assert_int_equal(writev(g->fd, iov, 2), sizeof(none) + len);
}

static bool
guest_receive(struct guest *g, int timeout_ms)
{
	struct net_header header;
	struct iovec iov[2] = {{&header, sizeof(header)}, {g->in, sizeof(g->in)}};
	struct pollfd p = {g->fd, POLLIN, 0};
	ssize_t n;

	if (poll(&p, 1, timeout_ms) <= 0)
		return false;
	n = readv(g->fd, iov, 2);
	assert_true(n >= (ssize_t)sizeof(header) + 14);
	assert_int_equal(header.gso_type, 0);
	g->in_len = (size_t)n - sizeof(header);
	return true;
}

static void
ether(struct guest *g, u16 type)
{
	memset(g->out, 0xff, 6);
	memcpy(g->out + 6, guest_mac, 6);
	put_be16(g->out + 12, type);
}

static void
ip4(struct guest *g, u8 protocol, const u8 dst[4], size_t payload)
{
	u8 *ip = g->out + IP_AT;

	ether(g, 0x0800);
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put_be16(ip + 2, (u32)(20 + payload));
	ip[8] = 64;
	ip[9] = protocol;
	memcpy(ip + 12, guest_ip, 4);
	memcpy(ip + 16, dst, 4);
	put_le16(ip + 10, (u16)~frame_sum(ip, 20, 0));
}

/* The pseudo header's sum, as a guest with offload leaves it in the field. */
static u16
pseudo(struct guest *g, u8 protocol, size_t payload)
{
	u8 p[12];

	memcpy(p, g->out + IP_AT + 12, 8);
	p[8] = 0;
	p[9] = protocol;
	put_be16(p + 10, (u32)payload);
	return (u16)frame_sum(p, 12, 0);
}

static void
udp_send(struct guest *g, const u8 dst[4], u16 sport, u16 dport, const void *data, size_t len)
{
	u8 *udp = g->out + L4_AT;

	ip4(g, 17, dst, 8 + len);
	put_be16(udp, sport);
	put_be16(udp + 2, dport);
	put_be16(udp + 4, (u32)(8 + len));
	put_be16(udp + 6, 0);
	memcpy(udp + 8, data, len);
	guest_send(g, NULL, UDP_DATA + len);
}

/* One TCP segment; its checksum is left to the card. */
static void
tcp_send(struct guest *g, const u8 dst[4], u16 sport, u16 dport, u32 seq, u32 ack, u8 flags,
	 const void *data, size_t len)
{
	struct net_header h = {.flags = NET_NEEDS_CSUM, .csum_start = L4_AT, .csum_offset = 16};
	u8 *tcp = g->out + L4_AT;

	ip4(g, 6, dst, 20 + len);
	memset(tcp, 0, 20);
	put_be16(tcp, sport);
	put_be16(tcp + 2, dport);
	put_be32(tcp + 4, seq);
	put_be32(tcp + 8, ack);
	tcp[12] = 5 << 4;
	tcp[13] = flags;
	put_be16(tcp + 14, 65535);
	put_le16(tcp + 16, pseudo(g, 6, 20 + len));
	if (len)
		memcpy(tcp + 20, data, len);
	if (len > 1460) {
		h.gso_type = NET_GSO_TCPV4;
		h.gso_size = 1460;
		h.header_len = TCP_DATA;
	}
	guest_send(g, &h, TCP_DATA + len);
}

static void
answer_arp(struct guest *g)
{
	ether(g, 0x0806);
	memcpy(g->out, g->in + 6, 6);
	memcpy(g->out + 14, "\0\1\x08\0\6\4\0\2", 8);
	memcpy(g->out + 22, guest_mac, 6);
	memcpy(g->out + 28, guest_ip, 4);
	memcpy(g->out + 32, g->in + 22, 10);
	guest_send(g, NULL, 42);
}

/* Waits for an IPv4 packet of PROTOCOL, answering ARP meanwhile. */
static bool
await_ip(struct guest *g, u8 protocol, int timeout_ms)
{
	while (guest_receive(g, timeout_ms)) {
		u32 type = be16(g->in + 12);

		if (type == 0x0806 && g->in[21] == 1 && memcmp(g->in + 38, guest_ip, 4) == 0)
			answer_arp(g);
		if (type == 0x0800 && g->in[IP_AT + 9] == protocol)
			return true;
	}
	return false;
}

/* A TCP segment with all of FLAGS; its checksum must be right. */
static void
await_tcp(struct guest *g, u8 flags)
{
	u8 p[12];
	size_t len;

	do {
		if (!await_ip(g, 6, 5000))
			fail_msg("no TCP segment with flags %x", flags);
	} while ((g->in[L4_AT + 13] & flags) != flags);
	len = be16(g->in + IP_AT + 2) - 20;
	memcpy(p, g->in + IP_AT + 12, 8);
	p[8] = 0;
	p[9] = 6;
	put_be16(p + 10, (u32)len);
	assert_int_equal(frame_sum(g->in + L4_AT, len, frame_sum(p, 12, 0)), 0xffff);
}

static void
test_arp_and_ping(void **state)
{
	static struct guest g;

	guest_start(&g, false);
	ether(&g, 0x0806);
	memcpy(g.out + 14, "\0\1\x08\0\6\4\0\1", 8);
	memcpy(g.out + 22, guest_mac, 6);
	memcpy(g.out + 28, guest_ip, 4);
	memset(g.out + 32, 0, 6);
	memcpy(g.out + 38, gateway_ip, 4);
	guest_send(&g, NULL, 42);
	do {
		assert_true(guest_receive(&g, 5000));
	} while (be16(g.in + 12) != 0x0806 || g.in[21] != 2);
	assert_memory_equal(g.in + 28, gateway_ip, 4);
	ip4(&g, 1, gateway_ip, 16);
	memcpy(g.out + L4_AT, "\x08\0\0\0\x12\x34\0\1pingpong", 16);
	put_le16(g.out + L4_AT + 2, (u16)~frame_sum(g.out + L4_AT, 16, 0));
	guest_send(&g, NULL, L4_AT + 16);
	assert_true(await_ip(&g, 1, 5000));
	assert_int_equal(g.in[L4_AT], 0);
	assert_memory_equal(g.in + L4_AT + 8, "pingpong", 8);
	guest_stop(&g);
}

static void
test_dhcp(void **state)
{
	static struct guest g;
	static const u8 any[4] = {255, 255, 255, 255};
	u8 bootp[300] = {1, 1, 6, 0, 0xaa, 0xbb, 0xcc, 0xdd};

	guest_start(&g, false);
	memcpy(bootp + 28, guest_mac, 6);
	memcpy(bootp + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8); /* DISCOVER */
	udp_send(&g, any, 68, 67, bootp, sizeof(bootp));
	assert_true(await_ip(&g, 17, 5000));
	assert_int_equal(be16(g.in + L4_AT + 2), 68);
	assert_memory_equal(g.in + UDP_DATA + 4, "\xaa\xbb\xcc\xdd", 4);
	assert_memory_equal(g.in + UDP_DATA + 16, guest_ip, 4);
	assert_memory_equal(g.in + UDP_DATA + 236, "\x63\x82\x53\x63\x35\x01\x02", 7); /* OFFER */
	guest_stop(&g);
}

static int
host_listen(int type, u16 *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 4), 0);
	getsockname(fd, (struct sockaddr *)&a, &len);
	*port = ntohs(a.sin_port);
	return fd;
}

static bool
host_readable(int fd, int timeout_ms)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, timeout_ms) > 0;
}

static void
read_exactly(int fd, u8 *buf, size_t len)
{
	for (size_t got = 0; got < len;) {
		ssize_t n;

		assert_true(host_readable(fd, 5000));
		n = read(fd, buf + got, len - got);
		assert_true(n > 0);
		got += (size_t)n;
	}
}

static void
test_tcp_out(void **state)
{
	static struct guest g;
	static u8 large[40000], got[40000];
	u16 port;
	int listener = host_listen(SOCK_STREAM, &port), fd;
	u32 ack;

	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = (u8)(i * 7 + (i >> 8));
	guest_start(&g, true);
	tcp_send(&g, gateway_ip, 1000, port, 5000, 0, TCP_SYN, NULL, 0);
	await_tcp(&g, TCP_SYN | TCP_ACK);
	assert_int_equal(be32(g.in + L4_AT + 8), 5001);
	ack = be32(g.in + L4_AT + 4) + 1;
	tcp_send(&g, gateway_ip, 1000, port, 5001, ack, TCP_ACK, NULL, 0);
	/* One segment of 40000 bytes, as segmentation offload sends it. */
	tcp_send(&g, gateway_ip, 1000, port, 5001, ack, TCP_ACK | TCP_PSH, large, sizeof(large));
	assert_true(host_readable(listener, 5000));
	fd = accept(listener, NULL, NULL);
	read_exactly(fd, got, sizeof(got));
	assert_memory_equal(got, large, sizeof(large));
	assert_int_equal(write(fd, "from the host", 13), 13);
	do {
		await_tcp(&g, TCP_ACK);
	} while (g.in_len < TCP_DATA + 13 || memcmp(g.in + TCP_DATA, "from the host", 13) != 0);
	close(fd);
	close(listener);
	guest_stop(&g);
}

static void
test_tcp_forward(void **state)
{
	static struct guest g;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	u8 got[8];
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	u16 sport;
	u32 ack;

	guest_start(&g, false);
	/* The NAT learns the guest's address from its first frame. */
	ip4(&g, 1, gateway_ip, 8);
	memcpy(g.out + L4_AT, "\x08\0\xf7\xff\0\0\0\0", 8);
	guest_send(&g, NULL, L4_AT + 8);
	assert_true(await_ip(&g, 1, 5000));
	a.sin_port = htons(g.forwarded);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	await_tcp(&g, TCP_SYN);
	assert_int_equal(be16(g.in + L4_AT + 2), 7);
	sport = (u16)be16(g.in + L4_AT);
	ack = be32(g.in + L4_AT + 4) + 1;
	tcp_send(&g, gateway_ip, 7, sport, 9000, ack, TCP_SYN | TCP_ACK, NULL, 0);
	await_tcp(&g, TCP_ACK);
	tcp_send(&g, gateway_ip, 7, sport, 9001, ack, TCP_ACK | TCP_PSH, "welcome!", 8);
	read_exactly(fd, got, 8);
	assert_memory_equal(got, "welcome!", 8);
	close(fd);
	guest_stop(&g);
}

/* Flows of a guest that came from another process, as after a resume: reset at once, whatever
 * they led to. */
static void
test_unknown_flow(void **state)
{
	static const u8 far_ip[4] = {192, 0, 2, 7};
	const u8 *const peers[] = {gateway_ip, far_ip};
	struct guest g;

	guest_start(&g, false);
	for (unsigned i = 0; i < 2; i++) {
		tcp_send(&g, peers[i], 1000, 443, 5001, 7000 + i, TCP_ACK | TCP_PSH, "data", 4);
		await_tcp(&g, TCP_RST);
		assert_int_equal(be32(g.in + L4_AT + 4), 7000 + i);
		assert_memory_equal(g.in + IP_AT + 12, peers[i], 4);
	}
	/* A service of the guest, with a client that came by a forward. */
	tcp_send(&g, gateway_ip, 7, 50000, 9001, 300, TCP_ACK, NULL, 0);
	await_tcp(&g, TCP_RST);
	assert_int_equal(be32(g.in + L4_AT + 4), 300);
	guest_stop(&g);
}

static void
test_udp(void **state)
{
	static struct guest g;
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	char got[16];
	u16 port;
	int fd = host_listen(SOCK_DGRAM, &port);

	guest_start(&g, true);
	udp_send(&g, gateway_ip, 1234, port, "question", 8);
	assert_true(host_readable(fd, 5000));
	assert_int_equal(recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&from, &len), 8);
	assert_memory_equal(got, "question", 8);
	assert_int_equal(sendto(fd, "answer", 6, 0, (struct sockaddr *)&from, len), 6);
	assert_true(await_ip(&g, 17, 5000));
	assert_int_equal(be16(g.in + L4_AT + 2), 1234);
	assert_memory_equal(g.in + UDP_DATA, "answer", 6);
	close(fd);
	guest_stop(&g);
}

static void
test_no_host_loopback(void **state)
{
	static const u8 forbidden[][4] = {
		{10, 0, 2, 2}, {127, 0, 0, 1}, {127, 9, 9, 9}, {0, 0, 0, 0}, {255, 255, 255, 255}};
	static struct guest g;
	u16 port, tcp_port;
	int udp = host_listen(SOCK_DGRAM, &port), tcp = host_listen(SOCK_STREAM, &tcp_port);

	guest_start(&g, false);
	for (size_t i = 0; i < ARRAY_LEN(forbidden); i++) {
		udp_send(&g, forbidden[i], 1234, port, "let me in", 9);
		tcp_send(&g, forbidden[i], (u16)(2000 + i), tcp_port, 1, 0, TCP_SYN, NULL, 0);
	}
	assert_false(host_readable(udp, 300));
	assert_false(host_readable(tcp, 100));
	close(udp);
	close(tcp);
	guest_stop(&g);
	/* With hostloop the gateway is the host, 127.0.0.1 still is not. */
	udp = host_listen(SOCK_DGRAM, &port);
	guest_start(&g, true);
	udp_send(&g, forbidden[1], 1234, port, "let me in", 9);
	assert_false(host_readable(udp, 300));
	close(udp);
	guest_stop(&g);
}

/* Random and broken frames: it must live on and answer a ping. */
static void
test_hostile_frames(void **state)
{
	static struct guest g;

	srandom(1);
	guest_start(&g, false);
	for (int i = 0; i < 4000; i++) {
		size_t len = (size_t)random() % 200;
		struct net_header h = {.flags = (u8)random(),
				       .gso_type = (u8)random(),
				       .csum_start = (u16)random(),
				       .csum_offset = (u16)random()};

		for (size_t k = 0; k < len; k++)
			g.out[k] = (u8)random();
		if (len >= 34 && (i & 1)) {
			ip4(&g, (u8)((u8[]){1, 6, 17, 2}[i / 2 % 4]), gateway_ip, len - 34);
			g.out[IP_AT] = (u8)(0x40 | (random() & 15));
		}
		guest_send(&g, (i & 2) ? &h : NULL, len);
		while (guest_receive(&g, 0))
			;
	}
	ip4(&g, 1, gateway_ip, 8);
	memcpy(g.out + L4_AT, "\x08\0\xf7\xff\0\0\0\0", 8);
	guest_send(&g, NULL, L4_AT + 8);
	do {
		assert_true(await_ip(&g, 1, 5000));
	} while (g.in[L4_AT] != 0);
	guest_stop(&g);
}

static void
test_busy_port(void **state)
{
	struct user_net_config config = {.ipv6 = true};
	struct net_forward forward;
	struct user_net *net;
	char why[256], text[64];
	const char *cause;
	int ends[2];
	u16 port;
	int fd = host_listen(SOCK_STREAM, &port);

	snprintf(text, sizeof(text), "tcp::%u-:22", port);
	assert_int_equal(net_forward_parse(&forward, text, &cause), 0);
	config.forwards = &forward;
	config.forward_count = 1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	assert_int_equal(user_net_create(&net, ends[0], &config, why, sizeof(why)), -EADDRINUSE);
	assert_non_null(strstr(why, "cannot listen on TCP port 127.0.0.1:"));
	close(ends[0]);
	close(ends[1]);
	close(fd);
}

static void
test_checksum(void **state)
{
	u8 frame[64] = {0};
	struct net_header h = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};

	/* RFC 1071, 3 */
	assert_int_equal(htons((u16)frame_sum((const u8 *)"\0\1\xf2\3\xf4\xf5\xf6\xf7", 8, 0)),
			 0xddf2);
	assert_int_equal(frame_sum((const u8 *)"\xff", 1, 0), 0xff);
	assert_int_equal(frame_finish(&h, frame, 52), 0);
	assert_int_equal(frame_finish(&h, frame, 51), -EINVAL);
	h.csum_start = 13;
	assert_int_equal(frame_finish(&h, frame, 64), -EINVAL);
	h.csum_start = 0xffff;
	assert_int_equal(frame_finish(&h, frame, 64), -EINVAL);
	h = (struct net_header){.gso_type = 5};
	assert_int_equal(frame_finish(&h, frame, 64), -EINVAL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_checksum),	 cmocka_unit_test(test_busy_port),
		cmocka_unit_test(test_arp_and_ping),	 cmocka_unit_test(test_dhcp),
		cmocka_unit_test(test_tcp_out),		 cmocka_unit_test(test_tcp_forward),
		cmocka_unit_test(test_unknown_flow),	 cmocka_unit_test(test_udp),
		cmocka_unit_test(test_no_host_loopback), cmocka_unit_test(test_hostile_frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
