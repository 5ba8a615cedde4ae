/*
 * Twenty-two loops that live in the kernel: system calls, process and thread
 * switches, fork, exec, page tables, signals, files. And the bulk memory loops,
 * which are here because user space and kernel both spend much time in them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static const char *self; /* path of this program, for exec */

static void
must(int ok, const char *what)
{
	if (!ok)
		bench_fail(what);
}

static void
pin(void)
{
	cpu_set_t set;

	/* Both ends on one CPU: it is the switch that is measured. */
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static uint64_t
getppid_loop(uint64_t rounds)
{
	for (uint64_t i = 0; i < rounds; i++)
		syscall(SYS_getppid);
	return rounds;
}

static uint64_t
gettime(uint64_t rounds)
{
	uint64_t before = bench_now(), backwards = 0;

	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t now = bench_now();

		backwards += now < before;
		before = now;
	}
	return backwards;
}

static uint64_t
read_zero(uint64_t rounds)
{
	int fd = open("/dev/zero", O_RDONLY);
	char c = 1;
	uint64_t sum = 0;

	must(fd >= 0, "/dev/zero");
	while (rounds--)
		sum += (uint64_t)read(fd, &c, 1) + (uint64_t)c;
	close(fd);
	return sum;
}

static uint64_t
write_null(uint64_t rounds)
{
	int fd = open("/dev/null", O_WRONLY);
	uint64_t sum = 0;

	must(fd >= 0, "/dev/null");
	while (rounds--)
		sum += (uint64_t)write(fd, "x", 1);
	close(fd);
	return sum;
}

static uint64_t
stat_loop(uint64_t rounds)
{
	struct stat st;
	uint64_t sum = 0;

	while (rounds--)
		sum += (uint64_t)stat("/dev/null", &st) + S_ISCHR(st.st_mode);
	return sum;
}

static uint64_t
open_close(uint64_t rounds)
{
	uint64_t sum = 0;

	while (rounds--) {
		int fd = open("/dev/null", O_RDONLY);

		sum += fd >= 0;
		close(fd);
	}
	return sum;
}

static uint64_t
pipe_self(uint64_t rounds)
{
	int fds[2];
	char buf[64] = {0};
	uint64_t sum = 0;

	must(!pipe(fds), "pipe");
	while (rounds--) {
		must(write(fds[1], buf, sizeof(buf)) == sizeof(buf), "write");
		sum += (uint64_t)read(fds[0], buf, sizeof(buf));
	}
	close(fds[0]);
	close(fds[1]);
	return sum;
}

/* A token to a child process and back, ROUNDS times. */
static uint64_t
ping_pong(uint64_t rounds, int there[2], int back[2])
{
	char c = 1;
	uint64_t sum = 0;
	pid_t pid;

	pin();
	pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		close(there[1]);
		while (read(there[0], &c, 1) == 1 && write(back[1], &c, 1) == 1)
			;
		_exit(0);
	}
	while (rounds--) {
		must(write(there[1], &c, 1) == 1, "write");
		sum += (uint64_t)read(back[0], &c, 1);
	}
	close(there[1]);
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
	return sum;
}

static uint64_t
pipe_ping_pong(uint64_t rounds)
{
	int there[2], back[2];

	must(!pipe(there) && !pipe(back), "pipe");
	return ping_pong(rounds, there, back);
}

static uint64_t
socket_ping_pong(uint64_t rounds)
{
	int a[2], b[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, a), "socketpair");
	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, b), "socketpair");
	return ping_pong(rounds, a, b);
}

static void *
thread_echo(void *opaque)
{
	int *fds = opaque;
	eventfd_t v;

	while (eventfd_read(fds[0], &v) == 0 && v < 1000)
		eventfd_write(fds[1], 1);
	return NULL;
}

static uint64_t
thread_ping_pong(uint64_t rounds)
{
	int fds[2] = {eventfd(0, 0), eventfd(0, 0)};
	pthread_t thread;
	eventfd_t v;
	uint64_t sum = 0;

	pin();
	must(!pthread_create(&thread, NULL, thread_echo, fds), "thread");
	while (rounds--) {
		eventfd_write(fds[0], 1);
		eventfd_read(fds[1], &v);
		sum += v;
	}
	eventfd_write(fds[0], 1000);
	pthread_join(thread, NULL);
	return sum;
}

static void *
thread_nothing(void *opaque)
{
	return opaque;
}

static uint64_t
thread_create(uint64_t rounds)
{
	uint64_t sum = 0;

	while (rounds--) {
		pthread_t thread;

		must(!pthread_create(&thread, NULL, thread_nothing, NULL), "thread");
		sum += !pthread_join(thread, NULL);
	}
	return sum;
}

static uint64_t
fork_loop(uint64_t rounds)
{
	uint64_t sum = 0;

	while (rounds--) {
		int status;
		pid_t pid = fork();

		if (pid == 0)
			_exit(3);
		must(pid > 0 && waitpid(pid, &status, 0) == pid, "fork");
		sum += (uint64_t)WEXITSTATUS(status);
	}
	return sum;
}

static uint64_t
fork_exec(uint64_t rounds)
{
	uint64_t sum = 0;

	while (rounds--) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			execl(self, self, "exit", (char *)NULL);
			_exit(9);
		}
		must(pid > 0 && waitpid(pid, &status, 0) == pid, "fork");
		sum += (uint64_t)WEXITSTATUS(status);
	}
	return sum;
}

static uint64_t
mmap_touch(uint64_t rounds)
{
	enum { PAGES = 64 };
	uint64_t sum = 0;

	while (rounds--) {
		volatile char *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		must(p != MAP_FAILED, "mmap");
		for (int i = 0; i < PAGES; i++)
			p[i * 4096] = 1;
		sum += (uint64_t)p[4096 * 5];
		munmap((void *)p, PAGES * 4096);
	}
	return sum;
}

static uint64_t
munmap_loop(uint64_t rounds)
{
	uint64_t sum = 0;

	while (rounds--) {
		char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		must(p != MAP_FAILED, "mmap");
		sum += !munmap(p, 4096);
	}
	return sum;
}

static uint64_t
mprotect_loop(uint64_t rounds)
{
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t sum = 0;

	must(p != MAP_FAILED, "mmap");
	while (rounds--) {
		mprotect(p, 4096, PROT_READ);
		mprotect(p, 4096, PROT_READ | PROT_WRITE);
		*(volatile char *)p = (char)rounds;
		sum += (uint8_t)*p;
	}
	munmap(p, 4096);
	return sum;
}

static volatile sig_atomic_t signals;

static void
on_signal(int number)
{
	(void)number;
	signals++;
}

static uint64_t
signal_loop(uint64_t rounds)
{
	struct sigaction sa = {.sa_handler = on_signal};

	signals = 0;
	sigaction(SIGUSR1, &sa, NULL);
	while (rounds--)
		kill(getpid(), SIGUSR1);
	return (uint64_t)signals;
}

static sigjmp_buf fault_return;

static void
on_fault(int number)
{
	(void)number;
	siglongjmp(fault_return, 1);
}

static uint64_t
fault_loop(uint64_t rounds)
{
	struct sigaction sa = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
	volatile char *p = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile uint64_t left = rounds, sum = 0;

	sigaction(SIGSEGV, &sa, NULL);
	if (sigsetjmp(fault_return, 0))
		sum++;
	if (left) {
		left--;
		*p = 1;
	}
	return sum;
}

static uint64_t
file_create(uint64_t rounds)
{
	char path[64];
	uint64_t sum = 0;

	snprintf(path, sizeof(path), "/tmp/bench-%d", getpid());
	while (rounds--) {
		int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);

		must(fd >= 0, path);
		sum += (uint64_t)write(fd, "hello", 5);
		close(fd);
		unlink(path);
	}
	return sum;
}

static uint64_t
rename_loop(uint64_t rounds)
{
	char a[64], b[64];
	uint64_t sum = 0;

	snprintf(a, sizeof(a), "/tmp/bench-%d.a", getpid());
	snprintf(b, sizeof(b), "/tmp/bench-%d.b", getpid());
	close(open(a, O_CREAT | O_WRONLY, 0600));
	while (rounds--) {
		sum += !rename(a, b);
		sum += !rename(b, a);
	}
	unlink(a);
	return sum;
}

static uint64_t
file_copy(uint64_t rounds)
{
	static char buf[65536];
	char path[64];
	uint64_t sum = 0;
	int fd;

	snprintf(path, sizeof(path), "/tmp/bench-%d", getpid());
	fd = open(path, O_CREAT | O_RDWR, 0600);
	must(fd >= 0, path);
	while (rounds--) {
		sum += (uint64_t)pwrite(fd, buf, sizeof(buf), 0);
		sum += (uint64_t)pread(fd, buf, sizeof(buf), 0);
	}
	close(fd);
	unlink(path);
	return sum;
}

static uint64_t
yield_loop(uint64_t rounds)
{
	uint64_t sum = 0;

	while (rounds--)
		sum += !sched_yield();
	return sum;
}

static uint64_t
epoll_loop(uint64_t rounds)
{
	int ep = epoll_create1(0), fd = eventfd(1, 0);
	struct epoll_event ev = {.events = EPOLLIN};
	uint64_t sum = 0;

	must(ep >= 0 && fd >= 0 && !epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), "epoll");
	while (rounds--)
		sum += (uint64_t)epoll_wait(ep, &ev, 1, 0);
	close(ep);
	close(fd);
	return sum;
}

enum { BULK = 16 << 20 };

static char *
bulk_buffer(void)
{
	char *p = mmap(NULL, 2 * BULK, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	must(p != MAP_FAILED, "mmap");
	return p;
}

static uint64_t
memset_16m(uint64_t rounds)
{
	char *p = bulk_buffer();

	for (uint64_t i = 0; i < rounds; i++) {
		memset(p, (int)i, BULK);
		__asm__ volatile("" : : "r"(p) : "memory");
	}
	return (uint8_t)p[BULK - 1];
}

static uint64_t
memcpy_16m(uint64_t rounds)
{
	char *p = bulk_buffer();

	for (uint64_t i = 0; i < rounds; i++) {
		p[i] = (char)i;
		memcpy(p + BULK, p, BULK);
		__asm__ volatile("" : : "r"(p) : "memory");
	}
	return (uint8_t)p[BULK + 5];
}

static uint64_t
rep_movsb(uint64_t rounds)
{
	char *p = bulk_buffer();

	for (uint64_t i = 0; i < rounds; i++) {
		char *to = p + BULK, *from = p;
		size_t n = BULK;

		p[i] = (char)i;
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	}
	return (uint8_t)p[BULK + 5];
}

static uint64_t
rep_stosb(uint64_t rounds)
{
	char *p = bulk_buffer();

	for (uint64_t i = 0; i < rounds; i++) {
		char *to = p;
		size_t n = BULK;

		__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"((int)i) : "memory");
	}
	return (uint8_t)p[BULK - 1];
}

static const struct bench table[] = {
	{"getppid", getppid_loop, 1000000},
	{"gettime", gettime, 8000000},
	{"read", read_zero, 700000},
	{"write", write_null, 800000},
	{"stat", stat_loop, 200000},
	{"open-close", open_close, 100000},
	{"pipe-self", pipe_self, 300000},
	{"pipe-ping-pong", pipe_ping_pong, 40000},
	{"socket-ping-pong", socket_ping_pong, 25000},
	{"thread-ping-pong", thread_ping_pong, 40000},
	{"thread-create", thread_create, 5000},
	{"fork", fork_loop, 1800},
	{"fork-exec", fork_exec, 500},
	{"mmap-touch", mmap_touch, 2500},
	{"munmap", munmap_loop, 40000},
	{"mprotect", mprotect_loop, 100000},
	{"signal", signal_loop, 100000},
	{"fault", fault_loop, 150000},
	{"file-create", file_create, 20000},
	{"rename", rename_loop, 20000},
	{"file-copy", file_copy, 40000},
	{"epoll", epoll_loop, 500000},
	/* Bulk memory: a group of its own in the table of results. */
	{"memset-16m", memset_16m, 200},
	{"memcpy-16m", memcpy_16m, 120},
	{"rep-movsb", rep_movsb, 120},
	{"rep-stosb", rep_stosb, 200},
	/* Not counted: depends on what else runs. */
	{"yield", yield_loop, 500000},
};

int
main(int argc, char **argv)
{
	self = argv[0];
	if (argc == 2 && !strcmp(argv[1], "exit"))
		return 5;
	return bench_main(table, sizeof(table) / sizeof(table[0]), argc, argv);
}
