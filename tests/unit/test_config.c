/*
 * VM configurations: there and back as JSON, and what must be refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "vm/config.h"

static int
load(struct vm_config *c, const char *text, char *why)
{
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
	int rc;

	assert_non_null(json);
	rc = vm_config_from_json(c, json, why, VM_WHY);
	json_decref(json);
	return rc;
}

static void
test_round_trip(void **state)
{
	static const char text[] =
		"{\"name\":\"a\",\"hypervisor\":\"biga\",\"cpu-model\":\"x86-64-v2\",\"cpus\":3,"
		"\"memory\":1073741824,\"code-cache\":33554432,\"kernel\":\"k\",\"initrds\":[\"i\","
		"\"j\"],"
		"\"append\":\"x "
		"y\",\"disks\":[{\"path\":\"d\",\"format\":\"raw\",\"device\":\"virtio\","
		"\"readonly\":true}],\"net\":{\"device\":\"virtio\",\"mac\":\"02:00:00:00:00:01\"},"
		"\"console\":\"virtio\",\"debug-exit\":true,\"testdev\":false,\"reboot\":false}";
	struct vm_config c;
	char why[VM_WHY], *again;
	json_t *json;

	assert_int_equal(load(&c, text, why), 0);
	assert_int_equal(c.cpus, 3);
	assert_int_equal(c.disk_count, 1);
	assert_true(c.disks[0].readonly && c.net && c.debug_exit && !c.testdev && !c.reboot);
	assert_int_equal(c.console, VM_CONSOLE_VIRTIO);
	json = vm_config_to_json(&c);
	again = json_dumps(json, JSON_COMPACT);
	assert_string_equal(again, text);
	free(again);
	json_decref(json);
	vm_config_clear(&c);
}

static void
test_defaults_fill_in(void **state)
{
	struct vm_config c;
	char why[VM_WHY];

	assert_int_equal(load(&c, "{\"kernel\":\"k\",\"net\":null,\"append\":null}", why), 0);
	assert_int_equal(c.cpus, 1);
	assert_false(c.net);
	assert_null(c.append);
	vm_config_clear(&c);
}

static void
test_refused(void **state)
{
	static const char *const texts[] = {
		"[]",
		"\"x\"",
		"{}",
		"{\"kernel\":1}",
		"{\"kernel\":\"k\",\"colour\":1}",
		"{\"kernel\":\"k\",\"cpus\":0}",
		"{\"kernel\":\"k\",\"cpus\":17}",
		"{\"kernel\":\"k\",\"cpus\":-1}",
		"{\"kernel\":\"k\",\"cpus\":4294967297}",
		"{\"kernel\":\"k\",\"cpus\":1.5}",
		"{\"kernel\":\"k\",\"cpus\":null}",
		"{\"kernel\":\"k\",\"memory\":-1}",
		"{\"kernel\":\"k\",\"memory\":1048577}",
		"{\"kernel\":\"k\",\"memory\":9223372036854775807}",
		"{\"kernel\":\"k\",\"code-cache\":-1}",
		"{\"kernel\":\"k\",\"code-cache\":1}",
		"{\"kernel\":\"k\",\"name\":\"../x\"}",
		"{\"kernel\":\"k\",\"name\":\"\"}",
		"{\"kernel\":\"k\",\"hypervisor\":\"0123456789abcdef0\"}",
		"{\"kernel\":\"k\",\"initrds\":\"i\"}",
		"{\"kernel\":\"k\",\"initrds\":[1]}",
		"{\"kernel\":\"k\",\"initrds\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\","
		"\"9\",\"10\","
		"\"11\",\"12\",\"13\",\"14\",\"15\",\"16\",\"17\"]}",
		"{\"kernel\":\"k\",\"disks\":[{}]}",
		"{\"kernel\":\"k\",\"disks\":[{\"path\":\"d\",\"format\":\"qcow2\"}]}",
		"{\"kernel\":\"k\",\"disks\":[{\"path\":\"d\",\"more\":1}]}",
		"{\"kernel\":\"k\",\"disks\":[{\"path\":\"d\"},7]}",
		"{\"kernel\":\"k\",\"net\":{\"mac\":\"01:00:00:00:00:00\"}}",
		"{\"kernel\":\"k\",\"net\":{\"mac\":\"02:00:00:00:00\"}}",
		"{\"kernel\":\"k\",\"net\":true}",
		"{\"kernel\":\"k\",\"console\":\"vga\"}",
		"{\"kernel\":\"k\",\"debug-exit\":1}",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct vm_config c;
		char why[VM_WHY] = "";

		if (load(&c, texts[i], why) != -22)
			fail_msg("not refused: %s", texts[i]);
		assert_true(strlen(why) > 10);
	}
}

static void
test_append_limit(void **state)
{
	struct vm_config c;
	char why[VM_WHY], text[VM_APPEND_MAX + 1];

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	vm_config_init(&c);
	c.kernel = strdup("k");
	c.append = strdup(text);
	assert_int_equal(vm_config_check(&c, why, sizeof(why)), -22);
	c.append[VM_APPEND_MAX - 1] = '\0';
	assert_int_equal(vm_config_check(&c, why, sizeof(why)), 0);
	vm_config_clear(&c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_defaults_fill_in),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_append_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
