/*
 * Saved states: field tables and their bounds, framing against every way to damage it, memory in
 * pieces, writes that fail.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "state/file.h"
#include "state/pages.h"
#include "state/state.h"

struct part {
	u8 a;
	u16 b;
};

struct thing {
	u8 small;
	u16 numbers[3];
	u32 ranged;
	u64 wide;
	bool flag;
	u8 bytes[5];
	u64 instant;
	unsigned used;
	struct part parts[4];
	u32 late;
	u32 private; /* not saved */
	unsigned loads;
};

static const struct state_field part_fields[] = {
	STATE_NUMBER(struct part, a),
	STATE_MAX(struct part, b, 1000),
	STATE_END,
};

static const struct state_field thing_fields[] = {
	STATE_NUMBER(struct thing, small),
	STATE_NUMBERS(struct thing, numbers, UINT16_MAX),
	STATE_RANGE(struct thing, ranged, 5, 10),
	STATE_NUMBER(struct thing, wide),
	STATE_FLAG(struct thing, flag),
	STATE_BYTES(struct thing, bytes),
	STATE_INSTANT(struct thing, instant),
	STATE_STRUCTS_OF(struct thing, parts, part_fields, used),
	{STATE_ROW(struct thing, late, STATE_NUMBER_KIND, 4), .max = 100, .since = 2},
	STATE_END,
};

static bool
thing_check(const void *staged)
{
	return ((const struct thing *)staged)->small != 0xee;
}

static void
thing_loaded(void *object)
{
	((struct thing *)object)->loads++;
}

static const struct state_type thing_type = {"thing", 2, thing_fields, thing_check, thing_loaded};

enum { THING_SIZE = 1 + 6 + 4 + 8 + 1 + 5 + 8 + 2 * 3 + 4, NOW = 1000000 };

static struct thing
a_thing(void)
{
	return (struct thing){.small = 1,
			      .numbers = {2, 3, 0x1234},
			      .ranged = 7,
			      .wide = 0x1122334455667788,
			      .flag = true,
			      .bytes = "abcd",
			      .instant = NOW - 400,
			      .used = 2,
			      .parts = {{1, 10}, {2, 20}, {3, 30}},
			      .late = 99,
			      .private = 77};
}

/* Stages DATA over THING: 0 or what state_stage said. */
static int
stage(struct thing *thing, u32 version, const u8 *data, size_t len, u64 now, bool commit)
{
	struct state_list list = {0};
	char why[200] = "";
	int rc;

	state_list_add(&list, &thing_type, 3, thing, sizeof(*thing));
	rc = state_stage(&list, "thing", 3, version, data, len, now, why, sizeof(why));
	assert_true(rc == 0 || why[0]);
	if (rc == 0 && commit) {
		assert_int_equal(state_complete(&list, why, sizeof(why)), 0);
		state_commit(&list);
	}
	state_list_free(&list);
	return rc;
}

static void
encode(struct thing *thing, u8 buf[THING_SIZE])
{
	struct state_list list = {0};

	state_list_add(&list, &thing_type, 3, thing, sizeof(*thing));
	assert_int_equal(state_measure(&list.items[0]), THING_SIZE);
	state_encode(&list.items[0], NOW, buf);
	state_list_free(&list);
}

static void
test_fields(void **state)
{
	struct thing thing = a_thing(), other = {.used = 2, .private = 5};
	u8 buf[THING_SIZE], again[THING_SIZE];

	encode(&thing, buf);
	assert_int_equal(buf[0], 1);
	assert_int_equal(get_le16(buf + 5), 0x1234);
	assert_int_equal(get_le64(buf + 11), 0x1122334455667788);
	assert_int_equal(get_le64(buf + 25), 401); /* the instant's age */
	assert_int_equal(stage(&other, 2, buf, THING_SIZE, NOW, true), 0);
	assert_int_equal(other.private, 5);
	assert_int_equal(other.loads, 1);
	assert_int_equal(other.parts[1].b, 20);
	assert_int_equal(other.parts[2].b, 0); /* beyond USED */
	assert_int_equal(other.instant, NOW - 400);
	encode(&other, again);
	assert_memory_equal(buf, again, THING_SIZE);
	/* Loaded at another time it is as old as it was. */
	assert_int_equal(stage(&other, 2, buf, THING_SIZE, 100, true), 0);
	assert_int_equal(other.instant, (u64)100 - 400);
}

static void
test_older_version(void **state)
{
	struct thing thing = a_thing(), other = {.used = 2, .late = 42};
	u8 buf[THING_SIZE];

	encode(&thing, buf);
	assert_int_equal(stage(&other, 1, buf, THING_SIZE - 4, NOW, true), 0);
	assert_int_equal(other.late, 42);
	assert_int_equal(other.ranged, 7);
	assert_int_equal(stage(&other, 1, buf, THING_SIZE, NOW, false), -EINVAL);
	assert_int_equal(stage(&other, 3, buf, THING_SIZE, NOW, false), -EINVAL);
	assert_int_equal(stage(&other, 0, buf, THING_SIZE, NOW, false), -EINVAL);
}

static void
test_bounds(void **state)
{
	static const struct {
		unsigned at;
		u8 value;
	} bad[] = {{0, 0xee}, {7, 4}, {7, 11}, {8, 1}, {19, 2}, {32, 0xff}, {35, 4}, {40, 101}};
	struct thing thing = a_thing(), other = a_thing();
	u8 buf[THING_SIZE];

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		encode(&thing, buf);
		buf[bad[i].at] = bad[i].value;
		assert_int_equal(stage(&other, 2, buf, THING_SIZE, NOW, true), -EINVAL);
		assert_memory_equal(&other, &thing, sizeof(thing));
	}
	encode(&thing, buf);
	for (unsigned len = 0; len < THING_SIZE; len++)
		assert_int_equal(stage(&other, 2, buf, len, NOW, true), -EINVAL);
}

static void
test_list(void **state)
{
	struct thing thing = a_thing();
	struct state_list list = {0};
	u8 buf[THING_SIZE];
	char why[200];

	encode(&thing, buf);
	for (u32 i = 0; i < 100; i++)
		state_list_add(&list, &thing_type, i, &thing, sizeof(thing));
	assert_int_equal(list.count, 100);
	assert_int_equal(state_stage(&list, "thong", 1, 2, buf, THING_SIZE, NOW, why, sizeof(why)),
			 -ENOENT);
	assert_int_equal(
		state_stage(&list, "thing", 100, 2, buf, THING_SIZE, NOW, why, sizeof(why)),
		-ENOENT);
	assert_int_equal(state_stage(&list, "thing", 1, 2, buf, THING_SIZE, NOW, why, sizeof(why)),
			 0);
	assert_int_equal(state_stage(&list, "thing", 1, 2, buf, THING_SIZE, NOW, why, sizeof(why)),
			 -EEXIST);
	assert_int_equal(state_complete(&list, why, sizeof(why)), -EINVAL);
	assert_string_equal(why, "the state lacks the part \"thing\" 0 of this machine");
	state_list_free(&list);
}

/* ---- files in memory, that fail when they are told to ---- */

struct tape {
	u8 *data;
	size_t len, room, at;
	unsigned calls, fail_at; /* the call that fails, 0: none */
	int error;
	bool synced;
};

static ssize_t
tape_read(void *opaque, void *data, size_t len)
{
	struct tape *t = opaque;
	size_t n = t->len - t->at;

	if (++t->calls == t->fail_at)
		return t->error;
	if (n > len)
		n = len;
	if (n > 7) /* short reads are usual */
		n = n - n / 3;
	memcpy(data, t->data + t->at, n);
	t->at += n;
	return (ssize_t)n;
}

static ssize_t
tape_write(void *opaque, const void *data, size_t len)
{
	struct tape *t = opaque;

	if (++t->calls == t->fail_at)
		return t->error;
	if (len > 100000)
		len -= len / 3;
	if (t->len + len > t->room) {
		t->room = 2 * (t->len + len);
		t->data = realloc(t->data, t->room);
		assert_non_null(t->data);
	}
	memcpy(t->data + t->len, data, len);
	t->len += len;
	return (ssize_t)len;
}

static int
tape_sync(void *opaque)
{
	struct tape *t = opaque;

	if (++t->calls == t->fail_at)
		return t->error;
	t->synced = true;
	return 0;
}

static struct state_io
tape_io(struct tape *t)
{
	return (struct state_io){t, tape_read, tape_write, tape_sync};
}

enum { RAM = 5 * (1 << 20) + 3 * 4096 };

/* Some pages of noise, some of text, most of nothing. */
static u8 *
some_ram(void)
{
	u8 *ram = calloc(1, RAM);

	assert_non_null(ram);
	srand(7);
	for (unsigned i = 0; i < 4096 * 3; i++)
		ram[8192 + i] = (u8)rand();
	for (unsigned i = 0; i < 300 * 4096; i++)
		ram[(1 << 20) + i] = (u8)(i / 100);
	for (unsigned i = 0; i < (1 << 20); i++)
		ram[3 * (1 << 20) + i] = (u8)rand();
	ram[RAM - 1] = 9;
	return ram;
}

static int
save(struct tape *t, struct thing *thing, const u8 *ram)
{
	struct state_io io = tape_io(t);
	struct state_list list = {0};
	struct state_writer w;

	state_list_add(&list, &thing_type, 3, thing, sizeof(*thing));
	state_write_begin(&w, &io, RAM);
	state_write_bytes(&w, "note", 0, 1, "{}", 2);
	state_write_list(&w, &list, NOW);
	state_write_pages(&w, "ram", ram, RAM, -1);
	state_write_end(&w);
	state_list_free(&list);
	if (!w.error)
		assert_int_equal(w.bytes, t->len);
	return w.error;
}

/* Loads as a machine does: 0, or -errno and WHY. */
static int
load(struct tape *t, struct thing *thing, u8 *ram, char *why, size_t why_size)
{
	struct state_io io = tape_io(t);
	struct state_pages *pages = NULL;
	struct state_list list = {0};
	struct state_section s;
	struct state_reader r;
	int rc;

	t->at = 0;
	why[0] = '\0';
	state_list_add(&list, &thing_type, 3, thing, sizeof(*thing));
	rc = state_read_begin(&r, &io, why, why_size);
	if (rc == 0 && r.ram_size != RAM)
		rc = -EINVAL;
	if (rc == 0)
		rc = state_pages_create(&pages, ram, RAM);
	while (rc == 0 && (rc = state_read_section(&r, &s)) > 0) {
		if (strcmp(s.name, "ram") == 0)
			rc = state_pages_take(pages, &s, why, why_size);
		else if (strcmp(s.name, "note") != 0)
			rc = state_stage(&list, s.name, s.instance, s.version, s.data, s.len, NOW,
					 why, why_size);
		else
			rc = 0;
	}
	if (rc == 0)
		rc = state_pages_finish(pages, why, why_size);
	if (rc == 0)
		rc = state_complete(&list, why, why_size);
	if (rc == 0)
		state_commit(&list);
	state_pages_destroy(pages);
	state_read_close(&r);
	state_list_free(&list);
	return rc;
}

static void
test_file(void **state)
{
	struct thing thing = a_thing(), other = {.used = 2};
	struct tape t = {0}, again = {0};
	u8 *ram = some_ram(), *copy = calloc(1, RAM);
	char why[200];

	assert_int_equal(save(&t, &thing, ram), 0);
	assert_true(t.synced);
	assert_int_equal(load(&t, &other, copy, why, sizeof(why)), 0);
	assert_memory_equal(ram, copy, RAM);
	assert_int_equal(other.wide, thing.wide);
	assert_int_equal(save(&again, &other, copy), 0);
	assert_int_equal(t.len, again.len);
	assert_memory_equal(t.data, again.data, t.len);
	free(t.data);
	free(again.data);
	free(ram);
	free(copy);
}

/* A file with holes: what was never written is not read, which would fill it. */
static void
test_holes(void **state)
{
	int fd = memfd_create("ram", 0);
	struct tape t = {0};
	struct state_io io = tape_io(&t);
	struct state_writer w;
	struct state_section s;
	struct state_reader r;
	char why[200];
	u8 *ram;

	assert_true(fd >= 0 && ftruncate(fd, 1ll << 36) == 0);
	ram = mmap(NULL, 1ull << 36, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	assert_ptr_not_equal(ram, MAP_FAILED);
	ram[(5ull << 30) + 17] = 1;
	state_write_begin(&w, &io, 1ull << 36);
	assert_int_equal(state_write_pages(&w, "ram", ram, 1ull << 36, fd), 0);
	assert_int_equal(state_write_end(&w), 0);
	assert_true(t.len < 1000);
	assert_int_equal(state_read_begin(&r, &io, why, sizeof(why)), 0);
	assert_int_equal(state_read_section(&r, &s), 1);
	assert_int_equal(s.instance, 5 << 10);
	assert_int_equal(state_read_section(&r, &s), 0);
	state_read_close(&r);
	munmap(ram, 1ull << 36);
	close(fd);
	free(t.data);
}

/* Every length but the whole, at all borders and many other places. */
static void
test_cut_short(void **state)
{
	struct thing thing = a_thing(), other = a_thing();
	struct tape t = {0};
	u8 *ram = some_ram(), *copy = calloc(1, RAM);
	char why[200];
	size_t whole;

	assert_int_equal(save(&t, &thing, ram), 0);
	whole = t.len;
	for (size_t len = 0; len < whole; len += len < 600 || len > whole - 300 ? 1 : 7919) {
		t.len = len;
		assert_true(load(&t, &other, copy, why, sizeof(why)) < 0);
		assert_true(why[0] && !strchr(why, '\n'));
	}
	assert_int_equal(other.loads, 0);
	t.len = whole;
	t.data = realloc(t.data, whole + 1);
	t.data[t.len++] = 0;
	assert_true(load(&t, &other, copy, why, sizeof(why)) < 0);
	assert_string_equal(why, "something follows the end of the state");
	free(t.data);
	free(ram);
	free(copy);
}

static void
test_flipped(void **state)
{
	struct thing thing = a_thing(), other = a_thing();
	struct tape t = {0};
	u8 *ram = some_ram(), *copy = calloc(1, RAM);
	char why[200];

	assert_int_equal(save(&t, &thing, ram), 0);
	for (size_t at = 0; at < t.len; at += at < 600 ? 1 : 3989) {
		t.data[at] ^= (u8)(1 << at % 8);
		assert_true(load(&t, &other, copy, why, sizeof(why)) < 0);
		assert_true(why[0] && !strchr(why, '\n'));
		t.data[at] ^= (u8)(1 << at % 8);
	}
	assert_int_equal(other.loads, 0);
	free(t.data);
	free(ram);
	free(copy);
}

/* Two sections change places: each is whole, but the trailer knows their order. */
static void
test_order(void **state)
{
	struct thing thing = a_thing(), other = a_thing();
	struct tape t = {0};
	u8 *ram = calloc(1, RAM);
	u8 swapped[400];
	size_t note = STATE_SECTION_HEADER + 2, part = STATE_SECTION_HEADER + THING_SIZE;
	char why[200];

	assert_int_equal(save(&t, &thing, ram), 0);
	memcpy(swapped, t.data + STATE_HEADER + note, part);
	memcpy(swapped + part, t.data + STATE_HEADER, note);
	memcpy(t.data + STATE_HEADER, swapped, note + part);
	assert_true(load(&t, &other, ram, why, sizeof(why)) < 0);
	assert_string_equal(why, "the state is not complete; it is of no use");
	free(t.data);
	free(ram);
}

static void
test_foreign(void **state)
{
	struct thing other = a_thing();
	u8 *copy = calloc(1, RAM);
	struct tape t = {.data = (u8 *)"\x7f\x45LF this is an executable, no state at all",
			 .len = 40};
	char why[200];

	assert_true(load(&t, &other, copy, why, sizeof(why)) < 0);
	assert_string_equal(why, "this is no saved state of a VM");
	free(copy);
}

static void
test_newer(void **state)
{
	struct thing thing = a_thing();
	struct tape t = {0};
	u8 *ram = calloc(1, RAM);
	char why[200];

	assert_int_equal(save(&t, &thing, ram), 0);
	t.data[8] = 2;
	assert_true(load(&t, &thing, ram, why, sizeof(why)) < 0);
	assert_non_null(strstr(why, "newer than this program"));
	free(t.data);
	free(ram);
}

/* Each write, and the last sync, fails once: always an error, never another one. */
static void
test_writes_fail(void **state)
{
	struct thing thing = a_thing();
	u8 *ram = some_ram();
	struct tape t = {0};
	unsigned calls;

	assert_int_equal(save(&t, &thing, ram), 0);
	calls = t.calls;
	assert_true(calls > 8);
	free(t.data);
	for (unsigned i = 1; i <= calls; i++) {
		t = (struct tape){.fail_at = i, .error = i % 2 ? -ENOSPC : -EIO};
		assert_int_equal(save(&t, &thing, ram), t.error);
		assert_false(t.synced);
		assert_int_equal(t.calls, i); /* nothing was tried after it */
		free(t.data);
	}
	free(ram);
}

static void
test_reads_fail(void **state)
{
	struct thing thing = a_thing(), other = a_thing();
	u8 *ram = some_ram(), *copy = calloc(1, RAM);
	struct tape t = {0};
	unsigned calls;
	char why[200];

	assert_int_equal(save(&t, &thing, ram), 0);
	t.calls = 0;
	assert_int_equal(load(&t, &other, copy, why, sizeof(why)), 0);
	calls = t.calls;
	for (unsigned i = 1; i <= calls; i++) {
		t.calls = 0;
		t.fail_at = i;
		t.error = -EIO;
		assert_int_equal(load(&t, &other, copy, why, sizeof(why)), -EIO);
	}
	assert_int_equal(other.loads, 1);
	free(t.data);
	free(ram);
	free(copy);
}

/* A piece as a section, to be spoilt in one way. */
static int
take(struct state_pages *pages, u32 instance, u8 bitmap, u32 how, const u8 *data, size_t len)
{
	struct state_section s = {.name = "ram", .instance = instance, .version = 1};
	u8 payload[40 + 8192] = {bitmap};
	char why[200];
	int rc;

	put_le32(payload + 32, how);
	memcpy(payload + 40, data, len);
	s.data = payload;
	s.len = 40 + len;
	rc = state_pages_take(pages, &s, why, sizeof(why));
	return rc ? rc : state_pages_finish(pages, why, sizeof(why));
}

static void
test_pieces(void **state)
{
	struct state_pages *pages;
	u8 ram[8192] = {0}, data[8192];

	memset(data, 5, sizeof(data));
	assert_int_equal(state_pages_create(&pages, ram, sizeof(ram)), 0);
	assert_int_equal(take(pages, 1, 1, 0, data, 4096), -EINVAL); /* no such piece */
	assert_int_equal(take(pages, 0, 4, 0, data, 4096), -EINVAL); /* no such page */
	assert_int_equal(take(pages, 0, 1, 2, data, 4096), -EINVAL); /* packed how? */
	assert_int_equal(take(pages, 0, 2, 0, data, 4096), 0);
	assert_int_equal(ram[0], 0);
	assert_int_equal(ram[4096], 5);
	assert_int_equal(take(pages, 0, 1, 0, data, 4096), -EINVAL); /* came already */
	state_pages_destroy(pages);
	assert_int_equal(state_pages_create(&pages, ram, sizeof(ram)), 0);
	assert_int_equal(take(pages, 0, 3, 0, data, 4096), -EINVAL); /* too few */
	state_pages_destroy(pages);
	assert_int_equal(state_pages_create(&pages, ram, sizeof(ram)), 0);
	assert_int_equal(take(pages, 0, 1, 1, data, 4096), -EINVAL); /* not packed at all */
	state_pages_destroy(pages);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),	   cmocka_unit_test(test_older_version),
		cmocka_unit_test(test_bounds),	   cmocka_unit_test(test_list),
		cmocka_unit_test(test_file),	   cmocka_unit_test(test_holes),
		cmocka_unit_test(test_cut_short),  cmocka_unit_test(test_flipped),
		cmocka_unit_test(test_order),	   cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_newer),	   cmocka_unit_test(test_writes_fail),
		cmocka_unit_test(test_reads_fail), cmocka_unit_test(test_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
