/*
 * What a state's note says of disks: one that has no mark is not known again by that.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/disk_mark.h"
#include "cmd/state_note.h"
#include "state/file.h"

#define MARK "0123456789abcdef0123456789abcdef"

static char disk[] = "/tmp/test-note-XXXXXX";
static int fd = -1;

static int
group_setup(void **state)
{
	fd = mkstemp(disk);
	return fd < 0 ? -1 : ftruncate(fd, 512);
}

static int
group_teardown(void **state)
{
	char why[300];

	disk_mark_clear(disk, why, sizeof(why));
	close(fd);
	return unlink(disk);
}

/* What state_note_check makes of a note that says MARK, NULL: none. */
static int
check(const char *mark)
{
	struct vm_disk on = {.path = disk};
	struct vm_resources resources;
	struct run_options options = {.state_path = "it"};
	json_t *note = json_pack("{s:s, s:i}", "path", disk, "size", 512);
	char why[300] = "";
	int rc;

	vm_resources_init(&resources);
	resources.disks[0] = fd;
	options.config.disks[0] = on;
	options.config.disk_count = 1;
	if (mark)
		json_object_set_new(note, "mark", json_string(mark));
	options.state_note = json_pack("{s:{s:[o]}}", "host", "disks", note);
	rc = state_note_check(&options, &resources, why, sizeof(why));
	assert_int_equal(rc != 0, why[0] != '\0');
	json_decref(options.state_note);
	return rc;
}

static void
test_check(void **state)
{
	char why[300];

	assert_int_equal(check(MARK), -ESTALE);
	assert_int_equal(check(NULL), -ESTALE);
	assert_int_equal(check(""), -ESTALE);
	assert_int_equal(disk_mark_set(disk, MARK, why, sizeof(why)), 0);
	assert_int_equal(check(MARK), 0);
	assert_int_equal(check(""), -ESTALE);
	assert_int_equal(check("f123456789abcdef0123456789abcdef"), -ESTALE);
	assert_int_equal(disk_mark_clear(disk, why, sizeof(why)), 0);
	assert_int_equal(check(MARK), -ESTALE);
}

/* What state_note_mark makes of a state whose note has DISKS. */
static int
mark_of(const char *disks)
{
	int state = memfd_create("state", MFD_CLOEXEC), rc;
	struct state_io io = state_io_fd(state);
	struct state_writer w;
	char note[600], why[300] = "";

	snprintf(note, sizeof(note), "{\"biga\":1,\"host\":{\"disks\":%s}}", disks);
	assert_int_equal(state_write_begin(&w, &io, 1 << 20), 0);
	assert_int_equal(state_write_bytes(&w, "note", 0, 1, note, strlen(note)), 0);
	assert_int_equal(state_write_end(&w), 0);
	rc = state_note_mark(state, why, sizeof(why));
	assert_int_equal(rc != 0, why[0] != '\0');
	close(state);
	return rc;
}

static void
test_mark(void **state)
{
	char text[300], mark[DISK_MARK];

	assert_int_equal(mark_of("[]"), 0);
	assert_int_equal(mark_of("[{}]"), -EINVAL);
	assert_int_equal(mark_of("[{\"path\":\"/none\",\"inode\":5}]"), 0);
	assert_int_equal(mark_of("[{\"path\":\"/none\"}]"), -EINVAL);
	assert_int_equal(mark_of("[{\"path\":\"/none\",\"mark\":\"\",\"inode\":5}]"), -EINVAL);
	snprintf(text, sizeof(text), "[{\"path\":\"%s\",\"mark\":\"%s\"}]", disk, MARK);
	assert_int_equal(mark_of(text), 0);
	disk_mark_get(fd, disk, mark);
	assert_string_equal(mark, MARK);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_mark),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
