/*
 * Files that take others' places, with each of the system's calls failing in turn; marks of
 * disks, with and without extended attributes.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/replace.h"
#include "cmd/disk_mark.h"

static char folder[] = "/tmp/test-replace-XXXXXX";
static char path[64], disk[64], beside[64];

static unsigned calls, fail_at;

static bool
fails(void)
{
	return ++calls == fail_at;
}

static int
failing_create(const char *name, mode_t mode)
{
	return fails() ? -ENOSPC : replace_system.create(name, mode);
}

/* As on a file system where all files have names. */
static int
no_nameless(const char *name, mode_t mode)
{
	return -EOPNOTSUPP;
}

static int
failing_name(int fd, const char *name)
{
	return fails() ? -ENOSPC : replace_system.name(fd, name);
}

static int
failing_sync(int fd)
{
	return fails() ? -EIO : replace_system.sync(fd);
}

static int
failing_rename(const char *from, const char *to)
{
	return fails() ? -EROFS : replace_system.rename(from, to);
}

static int
failing_sync_folder(const char *name)
{
	return fails() ? -EIO : replace_system.sync_folder(name);
}

static const struct replace_ops failing = {.create = failing_create,
					   .create_nameless = no_nameless,
					   .name = failing_name,
					   .sync = failing_sync,
					   .rename = failing_rename,
					   .sync_folder = failing_sync_folder};

static unsigned
files(void)
{
	DIR *d = opendir(folder);
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void
expect(const char *name, const char *text)
{
	char got[64] = "";
	int fd = open(name, O_RDONLY);

	assert_true(fd >= 0);
	assert_true(read(fd, got, sizeof(got) - 1) >= 0);
	assert_string_equal(got, text);
	close(fd);
}

static int
group_setup(void **state)
{
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/file", folder);
	snprintf(disk, sizeof(disk), "%s/disk", folder);
	snprintf(beside, sizeof(beside), "%s/disk.biga", folder);
	return 0;
}

static int
group_teardown(void **state)
{
	unlink(path);
	unlink(disk);
	unlink(beside);
	return rmdir(folder);
}

static void
test_replace(void **state)
{
	struct replace r;

	assert_int_equal(replace_file(&replace_system, path, 0600, "old", 3), 0);
	assert_int_equal(replace_begin(&r, &replace_system, path, 0600), 0);
	assert_int_equal(write(r.fd, "new", 3), 3);
	expect(path, "old");
	/* Who is killed now leaves nothing, where the file system has files without names. */
	assert_int_equal(files(), r.named ? 2 : 1);
	replace_abort(&r);
	expect(path, "old");
	assert_int_equal(files(), 1);
	assert_int_equal(replace_file(&replace_system, path, 0600, "newer", 5), 0);
	expect(path, "newer");
	assert_int_equal(files(), 1);
	assert_int_equal(replace_remove(&replace_system, path), 0);
	assert_int_equal(replace_remove(&replace_system, path), -ENOENT);
	assert_int_equal(files(), 0);
}

/* Each of the four calls fails in turn. */
static void
fail_each(const struct replace_ops *ops)
{
	for (fail_at = 1; fail_at <= 4; fail_at++) {
		assert_int_equal(replace_file(&replace_system, path, 0600, "old", 3), 0);
		calls = 0;
		assert_true(replace_file(ops, path, 0600, "new", 3) < 0);
		assert_int_equal(calls, fail_at);
		expect(path, fail_at < 4 ? "old" : "new");
		assert_int_equal(files(), 1);
	}
	calls = 0;
	assert_int_equal(replace_file(ops, path, 0600, "new", 3), 0);
	assert_int_equal(calls, 4);
	assert_int_equal(replace_remove(&replace_system, path), 0);
}

/* The old one or the new one, and nothing beside it, whether files need names or not. */
static void
test_failures(void **state)
{
	struct replace_ops ops = failing;

	ops.unlink = replace_system.unlink;
	fail_each(&ops);
	ops.create_nameless = replace_system.create_nameless;
	fail_each(&ops);
	assert_int_equal(replace_file(&replace_system, "/nowhere/at/all", 0600, "x", 1), -ENOENT);
}

static void
mark_of(char mark[DISK_MARK])
{
	int fd = open(disk, O_RDONLY);

	assert_true(fd >= 0);
	disk_mark_get(fd, disk, mark);
	close(fd);
}

static void
test_marks(void **state)
{
	char one[DISK_MARK], two[DISK_MARK], got[DISK_MARK], why[300];

	assert_int_equal(replace_file(&replace_system, disk, 0600, "a disk", 6), 0);
	assert_int_equal(disk_mark_new(one), 0);
	assert_int_equal(disk_mark_new(two), 0);
	assert_string_not_equal(one, two);
	mark_of(got);
	assert_string_equal(got, "");
	assert_int_equal(disk_mark_clear(disk, why, sizeof(why)), 0);
	assert_int_equal(disk_mark_set(disk, one, why, sizeof(why)), 0);
	mark_of(got);
	assert_string_equal(got, one);
	assert_int_equal(disk_mark_set(disk, two, why, sizeof(why)), 0);
	mark_of(got);
	assert_string_equal(got, two);
	assert_int_equal(disk_mark_clear(disk, why, sizeof(why)), 0);
	mark_of(got);
	assert_string_equal(got, "");
	expect(disk, "a disk");
	assert_true(disk_mark_set("/nowhere/disk", one, why, sizeof(why)) < 0);
	assert_true(why[0] && !strchr(why, '\n'));
}

/* As it is where attributes are refused. */
static void
test_mark_beside(void **state)
{
	char mark[DISK_MARK], got[DISK_MARK], why[300], text[80];
	struct stat st;

	assert_int_equal(replace_file(&replace_system, disk, 0600, "a disk", 6), 0);
	assert_int_equal(stat(disk, &st), 0);
	assert_int_equal(disk_mark_new(mark), 0);
	snprintf(text, sizeof(text), "%s %llu\n", mark, (unsigned long long)st.st_ino);
	assert_int_equal(replace_file(&replace_system, beside, 0600, text, strlen(text)), 0);
	mark_of(got);
	assert_string_equal(got, mark);
	/* Of another file that had the name. */
	snprintf(text, sizeof(text), "%s %llu\n", mark, (unsigned long long)st.st_ino + 1);
	assert_int_equal(replace_file(&replace_system, beside, 0600, text, strlen(text)), 0);
	mark_of(got);
	assert_string_equal(got, "");
	assert_int_equal(replace_file(&replace_system, beside, 0600, "rubbish", 7), 0);
	mark_of(got);
	assert_string_equal(got, "");
	assert_int_equal(disk_mark_clear(disk, why, sizeof(why)), 0);
	assert_int_equal(access(beside, F_OK), -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replace),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_mark_beside),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
