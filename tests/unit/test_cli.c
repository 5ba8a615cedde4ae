/*
 * The command line of `biga run`: what each option becomes, and what is refused
 * with which words; and the terminal's keys.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cmd/run_options.h"
#include "cmd/terminal.h"

struct parsed {
	struct run_options o;
	char words[32][160];
	char why[VM_WHY];
	int rc;
};

/* WORDS end with NULL; "run --kernel k" comes first. */
static void
parse(struct parsed *p, const char *const *words)
{
	char *argv[36] = {"run", "--kernel", "k"};
	int argc = 3;

	for (int i = 0; words && words[i]; i++) {
		snprintf(p->words[i], sizeof(p->words[i]), "%s", words[i]);
		argv[argc++] = p->words[i];
	}
	argv[argc] = NULL;
	p->why[0] = '\0';
	p->rc = run_options_parse(&p->o, argc, argv, p->why, sizeof(p->why));
}

#define PARSE(p, ...) parse(&(p), (const char *const[]){__VA_ARGS__, NULL})

static void
test_defaults(void **state)
{
	struct parsed p;

	parse(&p, NULL);
	assert_int_equal(p.rc, 0);
	assert_string_equal(p.o.hypervisor, "auto");
	assert_string_equal(p.o.config.kernel, "k");
	assert_string_equal(p.o.config.append, "console=ttyS0 panic=-1");
	assert_int_equal(p.o.config.cpus, 1);
	assert_int_equal(p.o.config.memory, 512ull << 20);
	assert_true(p.o.config.net);
	assert_true(p.o.config.reboot);
	assert_false(p.o.host_loopback);
	assert_int_equal(p.o.config.console, VM_CONSOLE_SERIAL);
	run_options_clear(&p.o);
}

static void
test_everything(void **state)
{
	struct parsed p;

	PARSE(p, "--name", "web-1", "--hypervisor", "biga", "--cpu-model", "x86-64-v2", "--cpus=4",
	      "--memory", "2G", "--initrd", "a", "--initrd", "b", "--disk",
	      "x,,y.img,readonly,format=raw", "--disk", "z", "--net",
	      "user,forward=tcp::8080-:80,forward=udp:0.0.0.0:53-:53,hostloop=on,mac=02:00:00:00:"
	      "00:09",
	      "--console-device", "virtio", "--debug-exit", "--testdev", "--code-cache", "64M",
	      "--quiet");
	assert_string_equal(p.why, "");
	assert_int_equal(p.rc, 0);
	assert_string_equal(p.o.config.name, "web-1");
	assert_string_equal(p.o.config.cpu_model, "x86-64-v2");
	assert_int_equal(p.o.config.cpus, 4);
	assert_int_equal(p.o.config.memory, 2ull << 30);
	assert_int_equal(p.o.config.initrd_count, 2);
	assert_string_equal(p.o.config.initrds[1], "b");
	assert_int_equal(p.o.config.disk_count, 2);
	assert_string_equal(p.o.config.disks[0].path, "x,y.img");
	assert_true(p.o.config.disks[0].readonly);
	assert_true(p.o.disk_raw[0]);
	assert_false(p.o.config.disks[1].readonly);
	assert_int_equal(p.o.forward_count, 2);
	assert_string_equal(p.o.forwards[0], "tcp::8080-:80");
	assert_true(p.o.host_loopback);
	assert_int_equal(p.o.config.mac[5], 9);
	assert_string_equal(p.o.config.append, "console=hvc0 panic=-1");
	assert_true(p.o.config.debug_exit && p.o.config.testdev && p.o.quiet);
	assert_int_equal(p.o.config.code_cache, 64ull << 20);
	run_options_clear(&p.o);
	PARSE(p, "--disk", "d");
	assert_string_equal(p.o.config.append, "console=ttyS0 panic=-1 root=/dev/vda rw");
	run_options_clear(&p.o);
}

static void
test_refused(void **state)
{
	static const char *const cases[][4] = {
		{"--cpus", "0", NULL, "use 1 to 16"},
		{"--cpus", "17", NULL, "use 1 to 16"},
		{"--cpus", "two", NULL, "use 1 to 16"},
		{"--memory", "lots", NULL, "is not a size"},
		{"--memory", "1GB", NULL, "is not a size"},
		{"--memory", "99999999999999999999", NULL, "is not a size"},
		{"--memory", "512", NULL, "use at least 2M"},
		{"--memory", "1500K", NULL, "use at least"},
		{"--memory", "5121K", NULL, "whole MiB"},
		{"--memory", "1000T", NULL, "use less"},
		{"--code-cache", "1M", NULL, "code cache"},
		{"--name", "a/b", NULL, "cannot be a name"},
		{"--name", "", NULL, "cannot be a name"},
		{"--hypervisor", "xen", NULL, "no hypervisor 'xen'"},
		{"--cpu-model", "486", NULL, "no CPU model"},
		{"--disk", "", NULL, "needs a path"},
		{"--disk", "d,format=qcow2", NULL, "not built yet"},
		{"--disk", "d,device=nvme", NULL, "not built yet"},
		{"--disk", "d,reedonly", NULL, "no option 'reedonly'"},
		{"--net", "tap", NULL, "no network 'tap'"},
		{"--net", "none,forward=tcp::1-:1", NULL, "takes no options"},
		{"--net", "user,forward=tcp:1", NULL, "tcp:HOSTADDR:PORT-:PORT"},
		{"--net", "user,hostloop=maybe", NULL, "no option"},
		{"--net", "user,mac=01:00:00:00:00:00", NULL, "not a card's address"},
		{"--console-device", "vga", NULL, "no console device"},
		{"--bogus", NULL, NULL, "unknown option '--bogus'"},
		{"-q", NULL, NULL, "unknown option '-q'"},
		{"--cpus", NULL, NULL, "needs a value"},
		{"--kernel", "again", NULL, "given twice"},
		{"disk.img", NULL, NULL, "unexpected word 'disk.img'"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct parsed p;

		parse(&p, cases[i]);
		assert_int_equal(p.rc, -22);
		if (strstr(p.why, cases[i][3]) == NULL)
			fail_msg("%s %s: %s", cases[i][0], cases[i][1] ? cases[i][1] : "", p.why);
		assert_null(strchr(p.why, '\n'));
		run_options_clear(&p.o);
	}
}

static void
test_no_kernel(void **state)
{
	struct run_options o;
	char why[VM_WHY], *argv[] = {"run", NULL};

	assert_int_equal(run_options_parse(&o, 1, argv, why, sizeof(why)), -22);
	assert_non_null(strstr(why, "--kernel"));
	run_options_clear(&o);
}

static void
test_sizes(void **state)
{
	u64 v;

	assert_true(run_options_size("1", &v) && v == 1);
	assert_true(run_options_size("4k", &v) && v == 4096);
	assert_true(run_options_size("3G", &v) && v == 3ull << 30);
	assert_true(run_options_size("16777215T", &v));
	assert_false(run_options_size("16777216T", &v));
	assert_false(run_options_size("", &v));
	assert_false(run_options_size("-1", &v));
	assert_false(run_options_size("M", &v));
	assert_false(run_options_size("1 M", &v));
}

static void
check_forward(const char *text, bool ok)
{
	struct net_forward f;
	const char *why;

	if ((net_forward_parse(&f, text, &why) == 0) != ok)
		fail_msg("%s: %s", text, why);
}

static void
test_forwards(void **state)
{
	struct net_forward f;
	const char *why;

	assert_int_equal(net_forward_parse(&f, "tcp:127.0.0.2:8080-:80", &why), 0);
	assert_false(f.udp);
	assert_int_equal(net_address_port(&f.host), 8080);
	assert_int_equal(net_address_port(&f.guest), 80);
	assert_int_equal(ntohl(f.host.v4.sin_addr.s_addr), 0x7f000002);
	assert_int_equal(net_forward_parse(&f, "udp::53-10.0.2.20:54", &why), 0);
	assert_true(f.udp);
	assert_int_equal(ntohl(f.host.v4.sin_addr.s_addr), 0x7f000001);
	assert_int_equal(ntohl(f.guest.v4.sin_addr.s_addr), 0x0a000214);
	assert_int_equal(net_forward_parse(&f, "tcp:[::1]:22-:22", &why), 0);
	assert_int_equal(f.guest.any.sa_family, AF_INET6);
	check_forward("tcp:8080-:80", true);
	check_forward("tcp:[::1]:22-10.0.2.15:22", false);
	check_forward("tcp:::1:22-:22", false);
	check_forward("tcp:localhost:22-:22", false);
	check_forward("tcp::0-:22", false);
	check_forward("tcp::22-:65536", false);
	check_forward("tcp::22", false);
	check_forward("sctp::22-:22", false);
	check_forward("", false);
	check_forward("tcp:", false);
	check_forward("tcp:-", false);
	check_forward("tcp:[]:1-:1", false);
}

static void
test_keys(void **state)
{
	struct terminal_keys k = {false};
	unsigned keys;
	char out[16];

	assert_int_equal(terminal_filter(&k, "ab", 2, out, &keys), 2);
	assert_int_equal(keys, 0);
	assert_int_equal(terminal_filter(&k, "\x01", 1, out, &keys), 0);
	assert_int_equal(terminal_filter(&k, "x", 1, out, &keys), 0);
	assert_int_equal(keys, KEY_QUIT);
	assert_int_equal(terminal_filter(&k, "\x01h\x01s\x01p", 6, out, &keys), 0);
	assert_int_equal(keys, KEY_HELP | KEY_SWITCH | KEY_POWER);
	assert_int_equal(terminal_filter(&k, "\x01", 1, out, &keys), 0);
	assert_int_equal(terminal_filter(&k, "zz", 2, out, &keys), 3);
	assert_memory_equal(out, "\x01zz", 3);
	assert_int_equal(terminal_filter(&k, "\x01\x01\x01\x01x", 5, out, &keys), 3);
	assert_memory_equal(out, "\x01\x01x", 3);
	assert_int_equal(keys, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_everything),
		cmocka_unit_test(test_refused),	 cmocka_unit_test(test_no_kernel),
		cmocka_unit_test(test_sizes),	 cmocka_unit_test(test_forwards),
		cmocka_unit_test(test_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
