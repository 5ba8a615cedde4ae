/*
 * A VM process behind its control socket, over a machine without CPUs: the
 * protocol's order, its refusals, hostile peers, descriptors that are not what
 * they should be; and the channel's own rules.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/fdpass.h"
#include "base/log.h"
#include "unit/fake_machine.h"
#include "vm/channel.h"
#include "vm/client.h"
#include "vm/process.h"
#include "vm/protocol.h"
#include "vm/resources.h"

struct peer {
	pid_t pid;
	struct channel *channel;
};

static void
peer_start(struct peer *p)
{
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	p->pid = fork();
	if (p->pid == 0) {
		close(ends[0]);
		signal(SIGSEGV, SIG_DFL); /* cmocka would go on with the tests in here */
		log_setup(open("/dev/null", O_WRONLY), LOG_ERROR);
		_exit(vm_process_main(ends[1]));
	}
	close(ends[1]);
	assert_int_equal(channel_create(&p->channel, ends[0]), 0);
}

static int
peer_status(struct peer *p)
{
	int status;

	channel_destroy(p->channel);
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void
peer_send(struct peer *p, const char *text, int fd)
{
	json_t *message = json_loads(text, 0, NULL);

	assert_non_null(message);
	assert_int_equal(channel_send(p->channel, message, &fd, fd >= 0 ? 1 : 0), 0);
}

/* The next message must hold KEY with VALUE (a string, or part of one). */
static void
peer_expect(struct peer *p, const char *key, const char *value)
{
	json_t *message, *got;

	assert_int_equal(channel_wait(p->channel, &message, 5000), 1);
	got = json_object_get(message, key);
	if (got == NULL || (json_is_string(got) && strstr(json_string_value(got), value) == NULL))
		fail_msg("no %s of %s in %s", key, value, json_dumps(message, 0));
	json_decref(message);
}

static void
peer_expect_ok(struct peer *p, bool ok)
{
	json_t *message;

	assert_int_equal(channel_wait(p->channel, &message, 5000), 1);
	if (json_is_true(json_object_get(message, "ok")) != ok)
		fail_msg("wanted %s: %s", ok ? "success" : "refusal", json_dumps(message, 0));
	json_decref(message);
}

static void
peer_ask(struct peer *p, const char *text, bool ok)
{
	peer_send(p, text, -1);
	peer_expect_ok(p, ok);
}

static void
peer_refused(struct peer *p, const char *text, int fd, const char *why)
{
	peer_send(p, text, fd);
	peer_expect(p, "error", why);
}

static void
peer_greet(struct peer *p)
{
	peer_start(p);
	peer_expect(p, "hello", "biga");
	peer_send(p, "{\"hello\":\"biga\",\"version\":1}", -1);
}

static int
make_file(const char *text, int flags)
{
	char path[] = "/tmp/test-control-XXXXXX";
	int fd = mkstemp(path), again;

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	again = open(path, flags | O_CLOEXEC);
	assert_true(again >= 0);
	close(fd);
	unlink(path);
	return again;
}

/* Up to `start`, whose reply is the caller's to read. */
static void
peer_run(struct peer *p, const char *script, const char *config)
{
	int fd = make_file(script, O_RDONLY);

	peer_greet(p);
	peer_ask(p, config, true);
	peer_send(p, "{\"do\":\"give\",\"what\":\"kernel\"}", fd);
	peer_expect_ok(p, true);
	peer_send(p, "{\"do\":\"start\"}", -1);
	close(fd);
}

static const char plain[] = "{\"do\":\"configure\",\"config\":{\"kernel\":\"k\",\"cpus\":2}}";

static void
peer_started(struct peer *p)
{
	peer_run(p, "echo", plain);
	peer_expect_ok(p, true);
	peer_expect(p, "event", "started");
}

static void
test_life(void **state)
{
	struct peer p;

	peer_started(&p);
	peer_send(&p, "{\"do\":\"info\",\"id\":\"x\"}", -1);
	peer_expect(&p, "status", "running");
	peer_refused(&p, "{\"do\":\"registers\"}", -1, "while the VM is paused");
	peer_ask(&p, "{\"do\":\"pause\"}", true);
	peer_send(&p, "{\"do\":\"info\",\"id\":7}", -1);
	peer_expect(&p, "status", "paused");
	peer_send(&p, "{\"do\":\"registers\",\"vcpu\":1}", -1);
	peer_expect(&p, "rip", "0xfff0");
	peer_refused(&p, "{\"do\":\"registers\",\"vcpu\":2}", -1, "no such vcpu");
	peer_ask(&p, "{\"do\":\"resume\"}", true);
	peer_refused(&p, "{\"do\":\"configure\",\"config\":{}}", -1, "phase");
	peer_ask(&p, "{\"do\":\"power-button\"}", true);
	peer_expect(&p, "reason", "powered-off");
	assert_int_equal(peer_status(&p), 0);
}

static void
test_quit(void **state)
{
	struct peer p;

	peer_started(&p);
	peer_ask(&p, "{\"do\":\"quit\"}", true);
	peer_expect(&p, "reason", "quit");
	assert_int_equal(peer_status(&p), 0);
}

static void
test_lost_peer_ends_vm(void **state)
{
	struct peer p;

	peer_started(&p);
	assert_int_equal(peer_status(&p), 0);
}

/* Requests sent together with `start` are answered once the VM runs. */
static void
test_requests_in_one_go(void **state)
{
	static const char text[] = "{\"do\":\"start\"}\n{\"do\":\"info\"}\n{\"do\":\"quit\"}\n";
	int fd = make_file("echo", O_RDONLY);
	struct peer p;

	peer_greet(&p);
	peer_ask(&p, plain, true);
	peer_send(&p, "{\"do\":\"give\",\"what\":\"kernel\"}", fd);
	peer_expect_ok(&p, true);
	assert_int_equal(send(channel_fd(p.channel), text, strlen(text), 0), strlen(text));
	peer_expect_ok(&p, true);
	peer_expect(&p, "event", "started");
	peer_expect(&p, "status", "running");
	peer_expect_ok(&p, true);
	peer_expect(&p, "reason", "quit");
	assert_int_equal(peer_status(&p), 0);
	close(fd);
}

static void
test_no_start(void **state)
{
	static const struct {
		const char *script, *config, *why;
	} cases[] = {
		{"no-create", plain, "the kernel is not one"},
		{"echo",
		 "{\"do\":\"configure\",\"config\":{\"kernel\":\"k\",\"hypervisor\":\"kvm\"}}",
		 "missing: kvm"},
		{"echo",
		 "{\"do\":\"configure\",\"config\":{\"kernel\":\"k\",\"hypervisor\":\"xen\"}}",
		 "not built yet"},
		{"echo",
		 "{\"do\":\"configure\",\"config\":{\"kernel\":\"k\",\"cpu-model\":\"z80\"}}",
		 "no CPU model"},
		{"echo", "{\"do\":\"configure\",\"config\":{\"kernel\":\"k\",\"net\":{}}}",
		 "missing: net"},
		{"echo",
		 "{\"do\":\"configure\",\"config\":{\"kernel\":\"k\",\"console\":\"serial\"}}",
		 "missing: console"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct peer p;

		peer_run(&p, cases[i].script, cases[i].config);
		peer_expect(&p, "error", cases[i].why);
		assert_int_equal(peer_status(&p), 2);
	}
}

static void
test_order(void **state)
{
	static const char *const early[] = {"{\"do\":\"start\"}",
					    "{\"do\":\"give\",\"what\":\"kernel\"}",
					    "{\"do\":\"pause\"}",
					    "{\"do\":\"info\"}",
					    "{\"do\":\"power-button\"}",
					    "{\"do\":\"nothing\"}",
					    "{\"what\":1}",
					    "{\"do\":7}"};
	struct peer p;

	peer_greet(&p);
	for (size_t i = 0; i < ARRAY_LEN(early); i++)
		peer_ask(&p, early[i], false);
	peer_refused(&p, "{\"do\":\"configure\",\"config\":{\"kernel\":\"k\",\"cpus\":99}}", -1,
		     "cpus");
	peer_ask(&p, plain, true); /* a refused configuration can be followed by a good one */
	assert_int_equal(peer_status(&p), 2);
}

static void
test_wrong_hello(void **state)
{
	struct peer p;
	json_t *message;

	peer_start(&p);
	peer_expect(&p, "hello", "biga");
	peer_refused(&p, "{\"hello\":\"biga\",\"version\":2}", -1, "version 1");
	assert_int_equal(channel_wait(p.channel, &message, 5000), -EPIPE);
	assert_int_equal(peer_status(&p), 2);
}

static void
test_garbage(void **state)
{
	static const char *const lines[] = {"hello\n", "[1]\n", "{\"a\":1,\"a\":2}\n",
					    "\n",      "{\n",	"\xff\xfe\n"};

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		struct peer p;

		peer_greet(&p);
		assert_true(send(channel_fd(p.channel), lines[i], strlen(lines[i]), MSG_NOSIGNAL) >
			    0);
		assert_int_equal(peer_status(&p), 2);
	}
}

static void
test_garbage_while_running(void **state)
{
	struct peer p;

	peer_started(&p);
	assert_int_equal(send(channel_fd(p.channel), "junk\n", 5, MSG_NOSIGNAL), 5);
	assert_int_equal(peer_status(&p), 0);
}

static void
test_endless_line(void **state)
{
	struct pollfd wait;
	struct peer p;
	char block[4096];
	ssize_t n = 0;

	peer_greet(&p);
	memset(block, ' ', sizeof(block));
	for (int i = 0; i < 1000 && n >= 0; i++) {
		wait = (struct pollfd){channel_fd(p.channel), POLLOUT, 0};
		poll(&wait, 1, 1000);
		n = send(channel_fd(p.channel), block, sizeof(block), MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			n = 0;
	}
	assert_true(n < 0); /* it has gone */
	assert_int_equal(peer_status(&p), 2);
}

static void
test_give_is_checked(void **state)
{
	static const char disks[] =
		"{\"do\":\"configure\",\"config\":{\"kernel\":\"k\",\"disks\":["
		"{\"path\":\"d\"},{\"path\":\"e\",\"readonly\":true}],\"net\":{}}}";
	int readonly = make_file("x", O_RDONLY), writable = make_file("x", O_RDWR);
	int null = open("/dev/null", O_RDWR), stream[2], frames[2];
	struct peer p;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, stream), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, frames), 0);
	peer_greet(&p);
	peer_ask(&p, disks, true);
#define GIVE(what) "{\"do\":\"give\",\"what\":\"" what "\"}"
	peer_refused(&p, GIVE("kernel"), -1, "one descriptor");
	peer_refused(&p, GIVE("kernel"), null, "regular file");
	peer_refused(&p, GIVE("disk0"), readonly, "not open for writing");
	peer_refused(&p, GIVE("disk1"), writable, "reading only");
	peer_refused(&p, GIVE("disk0"), null, "neither");
	peer_refused(&p, GIVE("disk2"), writable, "no place");
	peer_refused(&p, GIVE("disk00000"), writable, "no place");
	peer_refused(&p, GIVE("disk-1"), writable, "no place");
	peer_refused(&p, GIVE("console"), null, "no place");
	peer_refused(&p, GIVE("net"), writable, "not a socket");
	peer_refused(&p, GIVE("net"), stream[0], "keeps frames apart");
	peer_send(&p, GIVE("net"), frames[0]);
	peer_expect_ok(&p, true);
	peer_refused(&p, GIVE("net"), frames[0], "already");
	assert_int_equal(peer_status(&p), 2);
	close(readonly);
	close(writable);
	close(null);
}

/* ---- further connections ---- */

static const struct sockaddr_un abstract = {AF_UNIX, "\0test-vm-control"};

/* A running VM that listens. */
static void
peer_listening(struct peer *p)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), kernel = make_file("echo", O_RDONLY);

	peer_greet(p);
	peer_ask(p, plain, true);
	peer_refused(p, GIVE("control"), fd, "not a listening");
	assert_int_equal(bind(fd, (const struct sockaddr *)&abstract, sizeof(abstract)), 0);
	assert_int_equal(listen(fd, 20), 0);
	peer_send(p, GIVE("control"), fd);
	peer_expect_ok(p, true);
	peer_send(p, GIVE("kernel"), kernel);
	peer_expect_ok(p, true);
	peer_ask(p, "{\"do\":\"start\",\"why\":\"a test\"}", true);
	peer_expect(p, "event", "started");
	close(kernel);
	close(fd);
}

static int
connect_other(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (const struct sockaddr *)&abstract, sizeof(abstract)), 0);
	return fd;
}

static void
call(struct client *c, const char *request, int rc, const char *key, const char *value)
{
	char why[256] = "";
	json_t *reply = NULL;

	assert_int_equal(client_call(c, json_loads(request, 0, NULL), NULL, 0, &reply, 5000, why,
				     sizeof(why)),
			 rc);
	if (rc == 0 && key)
		assert_string_equal(json_string_value(json_object_get(reply, key)), value);
	else if (rc)
		assert_non_null(strstr(why, value));
	json_decref(reply);
}

static void
test_other_connections(void **state)
{
	struct client *one, *two;
	struct peer p;
	char why[256], byte;
	int junk;

	peer_listening(&p);
	assert_int_equal(client_create(&one, connect_other(), why, sizeof(why)), 0);
	assert_int_equal(client_create(&two, connect_other(), why, sizeof(why)), 0);
	call(one, "{\"do\":\"info\"}", 0, "why", "a test");
	call(two, "{\"do\":\"pause\"}", 0, NULL, NULL);
	call(one, "{\"do\":\"info\"}", 0, "status", "paused");
	call(one, "{\"do\":\"start\"}", -EREMOTEIO, NULL, "phase");
	client_destroy(two);
	/* One that breaks the rules goes alone. */
	junk = connect_other();
	assert_int_equal(send(junk, "junk\n", 5, MSG_NOSIGNAL), 5);
	while (read(junk, &byte, 1) > 0)
		;
	close(junk);
	call(one, "{\"do\":\"info\"}", 0, "status", "paused");
	assert_int_equal(peer_status(&p), 0); /* the front's is the VM's */
	call(one, "{\"do\":\"info\"}", -EPIPE, NULL, "ended");
	client_destroy(one);
}

/* More than there is room for, and places that become free again. */
static void
test_many_connections(void **state)
{
	struct client *clients[16], *more;
	struct peer p;
	char why[256];

	peer_listening(&p);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 16; i++)
			assert_int_equal(
				client_create(&clients[i], connect_other(), why, sizeof(why)), 0);
		assert_int_not_equal(client_create(&more, connect_other(), why, sizeof(why)), 0);
		for (int i = 0; i < 16; i++) {
			call(clients[i], "{\"do\":\"info\"}", 0, "status", "running");
			client_destroy(clients[i]);
		}
		usleep(100000);
	}
	/* Events reach all, and disturb no answer. */
	assert_int_equal(client_create(&more, connect_other(), why, sizeof(why)), 0);
	peer_ask(&p, "{\"do\":\"power-button\"}", true);
	peer_expect(&p, "reason", "powered-off");
	assert_int_equal(peer_status(&p), 0);
	client_destroy(more);
}

/* Who asks for a switch has its answer, all others the event. */
static void
test_switch(void **state)
{
	struct client *one;
	struct peer p;
	char why[256];

	peer_listening(&p);
	assert_int_equal(client_create(&one, connect_other(), why, sizeof(why)), 0);
	call(one, "{\"do\":\"switch\"}", -EREMOTEIO, NULL, "no hypervisor");
	call(one, "{\"do\":\"switch\",\"to\":\"xen\"}", -EREMOTEIO, NULL, "no hypervisor \"xen\"");
	call(one, "{\"do\":\"switch\",\"to\":\"biga\"}", -EREMOTEIO, NULL, "already");
	call(one, "{\"do\":\"switch\",\"to\":\"biga\",\"fresh\":true}", 0, "from", "biga");
	peer_expect(&p, "event", "switched");
	call(one, "{\"do\":\"info\"}", 0, "why", "switched by request");
	call(one, "{\"do\":\"give\",\"what\":\"disk0\"}", -EREMOTEIO, NULL, "one descriptor");
	client_destroy(one);
	assert_int_equal(peer_status(&p), 0);
}

static int
ask_suspend(struct peer *p, bool ok)
{
	int fd = make_file("", O_RDWR);

	peer_send(p, "{\"do\":\"suspend\"}", fd);
	peer_expect_ok(p, ok);
	return fd;
}

/* Held before its first instruction, suspended, let go on, suspended for good. */
static void
test_suspend(void **state)
{
	int kernel = make_file("echo", O_RDONLY), fd;
	char note[4096] = "";
	struct peer p;

	peer_greet(&p);
	peer_ask(&p, plain, true);
	peer_send(&p, GIVE("kernel"), kernel);
	peer_expect_ok(&p, true);
	peer_refused(&p, "{\"do\":\"go\"}", -1, "phase");
	peer_ask(&p, "{\"do\":\"start\",\"hold\":true}", true);
	peer_refused(&p, "{\"do\":\"resume\"}", -1, "phase");
	peer_refused(&p, "{\"do\":\"go\",\"host\":7}", -1, "held");
	peer_ask(&p, "{\"do\":\"go\",\"host\":{\"x\":\"kept\"}}", true);
	peer_expect(&p, "event", "started");
	peer_refused(&p, "{\"do\":\"go\"}", -1, "held");
	peer_refused(&p, "{\"do\":\"suspended\"}", -1, "has not suspended");
	fd = ask_suspend(&p, true);
	assert_true(pread(fd, note, sizeof(note) - 1, 0) > 0);
	assert_non_null(strstr(note, "\"host\":{\"x\":\"kept\"}"));
	assert_non_null(strstr(note, "\"biga\":1"));
	close(fd);
	peer_send(&p, "{\"do\":\"info\"}", -1);
	peer_expect(&p, "status", "paused");
	peer_refused(&p, "{\"do\":\"resume\"}", -1, "being suspended");
	close(ask_suspend(&p, false));
	peer_send(&p, "{\"do\":\"suspend-undo\"}", -1);
	peer_expect(&p, "event", "held");
	peer_expect_ok(&p, true);
	peer_refused(&p, "{\"do\":\"resume\"}", -1, "being suspended");
	peer_ask(&p, "{\"do\":\"go\"}", true);
	peer_send(&p, "{\"do\":\"info\"}", -1);
	peer_expect(&p, "status", "running");
	/* Somebody's pause meanwhile holds after it. */
	close(ask_suspend(&p, true));
	peer_ask(&p, "{\"do\":\"pause\"}", true);
	peer_send(&p, "{\"do\":\"suspend-undo\"}", -1);
	peer_expect(&p, "event", "held");
	peer_expect_ok(&p, true);
	peer_ask(&p, "{\"do\":\"go\"}", true);
	peer_send(&p, "{\"do\":\"info\"}", -1);
	peer_expect(&p, "status", "paused");
	peer_ask(&p, "{\"do\":\"resume\"}", true);
	close(ask_suspend(&p, true));
	peer_ask(&p, "{\"do\":\"suspended\"}", true);
	peer_expect(&p, "reason", "suspended");
	assert_int_equal(peer_status(&p), 0);
	close(kernel);
}

static void
suspend_by(struct client *client, int fd)
{
	json_t *reply = NULL;
	char why[256];

	assert_int_equal(client_call(client, json_pack("{s:s}", "do", "suspend"), &fd, 1, &reply,
				     5000, why, sizeof(why)),
			 0);
	json_decref(reply);
}

/* It goes on when nothing can be written, and when the one who asked is gone. */
static void
test_suspend_fails(void **state)
{
	int full = make_file("no longer empty", O_RDWR), readonly = make_file("", O_RDONLY), fd;
	struct client *one;
	struct peer p;
	char why[256];

	peer_run(&p, "echo no-save", plain);
	peer_expect_ok(&p, true);
	peer_expect(&p, "event", "started");
	peer_refused(&p, "{\"do\":\"suspend\"}", -1, "an empty file");
	peer_refused(&p, "{\"do\":\"suspend\"}", full, "an empty file");
	peer_refused(&p, "{\"do\":\"suspend\"}", readonly, "an empty file");
	fd = make_file("", O_RDWR);
	peer_refused(&p, "{\"do\":\"suspend\"}", fd, "No space");
	close(fd);
	peer_send(&p, "{\"do\":\"info\"}", -1);
	peer_expect(&p, "status", "running");
	assert_int_equal(peer_status(&p), 0);

	peer_listening(&p);
	fd = make_file("", O_RDWR);
	assert_int_equal(client_create(&one, connect_other(), why, sizeof(why)), 0);
	suspend_by(one, fd);
	client_destroy(one);
	peer_expect(&p, "event", "held");
	peer_ask(&p, "{\"do\":\"go\"}", true);
	peer_send(&p, "{\"do\":\"info\"}", -1);
	peer_expect(&p, "status", "running");
	close(fd);
	fd = make_file("", O_RDWR);
	assert_int_equal(client_create(&one, connect_other(), why, sizeof(why)), 0);
	suspend_by(one, fd);
	call(one, "{\"do\":\"suspended\"}", 0, NULL, NULL);
	client_destroy(one);
	peer_expect(&p, "reason", "suspended"); /* and no "held" before it */
	assert_int_equal(peer_status(&p), 0);
	close(fd);
	close(full);
	close(readonly);
}

static void
test_channel_fds(void **state)
{
	struct channel *a, *b;
	json_t *message;
	int ends[2], fds[3], taken;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_int_equal(channel_create(&a, ends[0]), 0);
	assert_int_equal(channel_create(&b, ends[1]), 0);
	for (int i = 0; i < 3; i++)
		fds[i] = open("/dev/null", O_RDONLY);
	assert_int_equal(channel_receive(b, &message), 0);
	assert_int_equal(channel_wait(b, &message, 10), -ETIMEDOUT);
	assert_int_equal(channel_send(a, json_pack("{s:i}", "n", 1), NULL, 0), 0);
	assert_int_equal(channel_send(a, json_pack("{s:i}", "n", 2), fds, 3), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(channel_receive(b, &message), 1);
		json_decref(message);
	}
	for (int i = 0; i < 3; i++) {
		taken = channel_take_fd(b);
		assert_true(taken >= 0);
		close(taken);
		close(fds[i]);
	}
	assert_int_equal(channel_take_fd(b), -1);
	channel_destroy(a);
	assert_int_equal(channel_receive(b, &message), -EPIPE);
	channel_destroy(b);
}

/* A peer that asks and never reads cannot make us hold its answers for ever. */
static void
test_channel_output_bounded(void **state)
{
	struct channel *a;
	int ends[2], rc = 0, sent = 0;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_int_equal(channel_create(&a, ends[0]), 0);
	while (rc == 0 && sent++ < 100000)
		rc = channel_send(
			a, json_pack("{s:s}", "k", "a reply of some length, again and again"), NULL,
			0);
	assert_int_equal(rc, -ENOBUFS);
	channel_destroy(a);
	close(ends[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_quit),
		cmocka_unit_test(test_lost_peer_ends_vm),
		cmocka_unit_test(test_requests_in_one_go),
		cmocka_unit_test(test_no_start),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_wrong_hello),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_garbage_while_running),
		cmocka_unit_test(test_endless_line),
		cmocka_unit_test(test_give_is_checked),
		cmocka_unit_test(test_other_connections),
		cmocka_unit_test(test_many_connections),
		cmocka_unit_test(test_switch),
		cmocka_unit_test(test_suspend),
		cmocka_unit_test(test_suspend_fails),
		cmocka_unit_test(test_channel_fds),
		cmocka_unit_test(test_channel_output_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
