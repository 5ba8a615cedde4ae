/*
 * The first process of a guest whose exits are counted. It loads the modules of
 * /modules/order, then, for each line "WHAT COUNT DEPTH" on its console, does
 * COUNT requests with DEPTH of them under way at once, and says "DONE":
 *
 *   disk     reads 4 KiB of /dev/vda past the page cache
 *   net      sends an ICMP echo request to the gateway, 10.0.2.2, and receives the answer
 *   spin     computes for COUNT milliseconds: what the clock costs
 *   end      powers off
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, DEPTH_MAX = 64, DISK_BLOCKS = 4096 };

static void
end(const char *why)
{
	if (why)
		printf("REQUESTS-FAILED %s: %s\n", why, strerror(errno));
	fflush(stdout);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void
load_modules(void)
{
	FILE *order = fopen("/modules/order", "r");
	char name[64], path[80];

	if (!order)
		end("/modules/order");
	while (fscanf(order, "%63s", name) == 1) {
		int fd;

		snprintf(path, sizeof(path), "/modules/%s", name);
		fd = open(path, O_RDONLY);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			end(path);
		close(fd);
	}
	fclose(order);
}

/* eth0 is 10.0.2.15/24. */
static void
set_address(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(0x0a00020f)}};
	struct ifreq request = {.ifr_name = "eth0"};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	memcpy(&request.ifr_addr, &address, sizeof(address));
	if (fd < 0 || ioctl(fd, SIOCSIFADDR, &request))
		end("address");
	address.sin_addr.s_addr = htonl(0xffffff00);
	memcpy(&request.ifr_netmask, &address, sizeof(address));
	if (ioctl(fd, SIOCSIFNETMASK, &request))
		end("netmask");
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		end("eth0 up");
	close(fd);
}

static void
disk(unsigned count, unsigned depth)
{
	static char buffers[DEPTH_MAX][BLOCK] __attribute__((aligned(BLOCK)));
	static unsigned next;
	struct iocb requests[DEPTH_MAX], *list[DEPTH_MAX];
	struct io_event events[DEPTH_MAX];
	aio_context_t context = 0;
	int fd = open("/dev/vda", O_RDONLY | O_DIRECT);

	if (fd < 0 || syscall(SYS_io_setup, DEPTH_MAX, &context))
		end("/dev/vda");
	for (unsigned done = 0; done < count; done += depth) {
		for (unsigned i = 0; i < depth; i++) {
			next = (next + 1021) % DISK_BLOCKS;
			requests[i] = (struct iocb){.aio_lio_opcode = IOCB_CMD_PREAD,
						    .aio_fildes = (unsigned)fd,
						    .aio_buf = (unsigned long)buffers[i],
						    .aio_nbytes = BLOCK,
						    .aio_offset = (long long)next * BLOCK};
			list[i] = &requests[i];
		}
		if (syscall(SYS_io_submit, context, (long)depth, list) != depth ||
		    syscall(SYS_io_getevents, context, (long)depth, (long)depth, events, NULL) !=
			    depth)
			end("request");
		for (unsigned i = 0; i < depth; i++)
			if (events[i].res != BLOCK)
				end("read");
	}
	syscall(SYS_io_destroy, context);
	close(fd);
}

static unsigned short
checksum(const void *data, size_t size)
{
	const unsigned short *words = data;
	unsigned sum = 0;

	for (size_t i = 0; i < size / 2; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return (unsigned short)~(sum + (sum >> 16));
}

static void
ping(int fd, unsigned short sequence)
{
	struct sockaddr_in gateway = {.sin_family = AF_INET, .sin_addr = {htonl(0x0a000202)}};
	struct {
		struct icmphdr header;
		char data[56];
	} packet = {.header = {.type = ICMP_ECHO}};

	packet.header.un.echo.sequence = sequence;
	packet.header.checksum = checksum(&packet, sizeof(packet));
	if (sendto(fd, &packet, sizeof(packet), 0, (struct sockaddr *)&gateway, sizeof(gateway)) !=
	    sizeof(packet))
		end("send");
}

/* Counts are exact: a lost packet ends the run. */
static void
net(unsigned count, unsigned depth)
{
	struct timeval limit = {.tv_sec = 20};
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	char reply[512];

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)))
		end("socket");
	for (unsigned done = 0; done < count; done += depth) {
		for (unsigned i = 0; i < depth; i++)
			ping(fd, (unsigned short)(done + i));
		for (unsigned i = 0; i < depth; i++)
			if (recv(fd, reply, sizeof(reply), 0) < 28 || reply[20] != ICMP_ECHOREPLY)
				end("receive");
	}
	close(fd);
}

static void
spin(unsigned milliseconds)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 <
	       (long)milliseconds);
}

int
main(void)
{
	struct termios terminal;
	char line[64], what[16];
	unsigned count, depth;

	if (mount("dev", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)
		end("/dev");
	load_modules();
	set_address();
	if (tcgetattr(0, &terminal) == 0) {
		terminal.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(0, TCSANOW, &terminal);
	}
	net(1, 1); /* the gateway's hardware address is known then */
	printf("READY\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%15s %u %u", what, &count, &depth) != 3 || depth < 1 ||
		    depth > DEPTH_MAX || strcmp(what, "end") == 0)
			break;
		if (strcmp(what, "disk") == 0)
			disk(count, depth);
		else if (strcmp(what, "net") == 0)
			net(count, depth);
		else if (strcmp(what, "spin") == 0)
			spin(count);
		printf("DONE\n");
		fflush(stdout);
	}
	end(NULL);
}
