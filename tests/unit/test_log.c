/*
 * base/log.c: levels, one line a call, nothing but printable bytes.
 */
#include "unit.h"

#include <stdio.h>
#include <unistd.h>

#include "base/log.h"

static char text[8192];

static const char *
take(int fd)
{
	ssize_t n = read(fd, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void
levels_are_kept(void **state)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	log_setup(fds[1], LOG_INFO);
	log_debug("not this");
	log_info("disk %d", 3);
	assert_string_equal(take(fds[0]), "biga: disk 3\n");
	log_warning("slow");
	assert_string_equal(take(fds[0]), "biga: warning: slow\n");
	log_setup(STDERR_FILENO, LOG_WARNING);
	close(fds[0]);
	close(fds[1]);
}

static void
control_characters_do_not_pass(void **state)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	log_setup(fds[1], LOG_ERROR);
	log_error("a\033[2Jb\nc");
	assert_string_equal(take(fds[0]), "biga: a?[2Jb?c\n");
	log_setup(STDERR_FILENO, LOG_WARNING);
	close(fds[0]);
	close(fds[1]);
}

static void
long_lines_are_cut(void **state)
{
	int fds[2];
	size_t len;

	assert_int_equal(pipe(fds), 0);
	log_setup(fds[1], LOG_ERROR);
	log_error("%05000d", 1);
	len = strlen(take(fds[0]));
	assert_true(len > 900 && len <= 1024);
	assert_int_equal(text[len - 1], '\n');
	log_setup(STDERR_FILENO, LOG_WARNING);
	close(fds[0]);
	close(fds[1]);
}

static void
once_is_once(void **state)
{
	bool said = false;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	log_setup(fds[1], LOG_WARNING);
	for (int i = 0; i < 3; i++)
		log_once(said, LOG_WARNING, "here");
	assert_string_equal(take(fds[0]), "biga: warning: here\n");
	log_setup(STDERR_FILENO, LOG_WARNING);
	close(fds[0]);
	close(fds[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(levels_are_kept),
		cmocka_unit_test(control_characters_do_not_pass),
		cmocka_unit_test(long_lines_are_cut),
		cmocka_unit_test(once_is_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
