/*
 * A whole machine with a real guest: saved, loaded into a fresh one, and it goes on; states that
 * are damaged or of another machine are refused. And the golden file of each format that ever
 * was has to load for ever.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "machine/machine.h"
#include "machine/save.h"
#include "state/file.h"

#define GUEST TEST_BUILD "/guest/forever.elf"
#define GOLDEN "tests/golden/state-1"

enum { RAM = 6 << 20 };

struct run {
	struct machine *machine;
	struct loop_timer *poll;
	struct cpu_model model;
	int kernel, serial[2];
	unsigned dots, stop_at;
};

static void
run_model(struct cpu_model *model, unsigned vcpus)
{
	const char *missing;

	assert_int_equal(cpu_model_compute(model, "x86-64-v2", vcpus, &missing), 0);
}

static int
run_create_as(struct run *r, u64 memory, unsigned vcpus, bool from_state, bool same_generation)
{
	struct machine_config config = {.engine = &engine_translator,
					.model = &r->model,
					.memory = memory,
					.vcpus = vcpus,
					.code_cache = 8 << 20,
					.from_state = from_state,
					.same_generation = same_generation,
					.console = {-1, -1},
					.virtio_console = true,
					.rng = true,
					.on_reset = MACHINE_RESET_ENDS};
	char why[300];
	int rc;

	r->machine = NULL;
	r->dots = 0;
	r->kernel = config.kernel_fd = open(GUEST, O_RDONLY);
	assert_true(r->kernel >= 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, r->serial), 0);
	config.serial = (struct machine_stream){r->serial[1], r->serial[1]};
	rc = machine_create(&r->machine, &config, why, sizeof(why));
	if (rc)
		print_message("%s\n", why);
	return rc;
}

static int
run_create(struct run *r, u64 memory, unsigned vcpus, bool from_state)
{
	return run_create_as(r, memory, vcpus, from_state, false);
}

static void
run_destroy(struct run *r)
{
	if (r->poll)
		loop_timer_destroy(r->poll);
	r->poll = NULL;
	machine_destroy(r->machine);
	close(r->kernel);
	close(r->serial[0]);
	close(r->serial[1]);
}

static void
run_look(void *opaque)
{
	struct run *r = opaque;
	char bytes[256];
	ssize_t n;

	while ((n = read(r->serial[0], bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; i < n; i++)
			r->dots += bytes[i] == '.';
	if (r->dots >= r->stop_at) {
		machine_pause(r->machine);
		loop_stop(machine_loop(r->machine));
	} else {
		loop_timer_arm(r->poll, loop_now() + 5000000);
	}
}

/* Lets the guest print DOTS, one each 100 ms, and stand still. */
static void
run_dots(struct run *r, unsigned dots)
{
	r->stop_at = r->dots + dots;
	if (!r->poll)
		assert_int_equal(loop_timer_create(machine_loop(r->machine), run_look, r, &r->poll),
				 0);
	if (machine_status(r->machine) == MACHINE_PAUSED)
		machine_resume(r->machine);
	else
		assert_int_equal(machine_start(r->machine), 0);
	loop_timer_arm(r->poll, loop_now());
	loop_run(machine_loop(r->machine));
	assert_int_equal(machine_status(r->machine), MACHINE_PAUSED);
}

static int
run_save(struct run *r)
{
	int fd = memfd_create("state", MFD_CLOEXEC);
	struct state_io io = state_io_fd(fd);
	char why[300] = "";

	if (machine_save(r->machine, &io, "{\"a\": 1}", why, sizeof(why)))
		fail_msg("%s", why);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static int
run_load(struct run *r, int fd, char *why, size_t why_size)
{
	struct state_io io = state_io_fd(fd);

	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	why[0] = '\0';
	return machine_load(r->machine, &io, why, why_size);
}

static int
a_state(struct run *r)
{
	int fd;

	run_model(&r->model, 1);
	assert_int_equal(run_create(r, RAM, 1, false), 0);
	run_dots(r, 3);
	fd = run_save(r);
	return fd;
}

/* All sections of a file, and what may differ between two that were saved at different times. */
static u64
sections(int fd, bool all)
{
	struct state_io io = state_io_fd(fd);
	static const char *const timed[] = {"cpu", "pit", "hpet", "acpi-pm", "rtc", "end"};
	struct state_section s;
	struct state_reader r;
	u64 sum = 0;
	char why[300];
	int rc;

	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(state_read_begin(&r, &io, why, sizeof(why)), 0);
	while ((rc = state_read_section(&r, &s)) > 0) {
		bool skip = false;

		for (unsigned i = 0; i < ARRAY_LEN(timed); i++)
			skip |= strcmp(s.name, timed[i]) == 0;
		for (size_t i = 0; i < s.len && (all || !skip); i++)
			sum = sum * 31 + s.data[i];
	}
	assert_int_equal(rc, 0);
	state_read_close(&r);
	return sum;
}

static void
test_goes_on(void **state)
{
	struct run a = {0}, b = {0};
	char why[300];
	int fd = a_state(&a), again;

	b.model = a.model;
	assert_int_equal(run_create(&b, RAM, 1, true), 0);
	if (run_load(&b, fd, why, sizeof(why)))
		fail_msg("%s", why);
	/* The one that was saved goes on too. */
	run_dots(&a, 2);
	run_destroy(&a);
	run_dots(&b, 3);
	again = run_save(&b);
	run_destroy(&b);
	assert_int_equal(run_create(&b, RAM, 1, true), 0);
	assert_int_equal(run_load(&b, again, why, sizeof(why)), 0);
	run_dots(&b, 2);
	run_destroy(&b);
	close(fd);
	close(again);
}

/* Loaded, and saved before it has run: the same, but for the clocks. */
static void
test_same_again(void **state)
{
	struct run a = {0}, b = {0};
	char why[300];
	int fd = a_state(&a), again;

	b.model = a.model;
	assert_int_equal(run_create_as(&b, RAM, 1, true, true), 0);
	assert_int_equal(machine_start(b.machine), -EINVAL);
	assert_int_equal(run_load(&b, fd, why, sizeof(why)), 0);
	assert_int_equal(run_load(&b, fd, why, sizeof(why)), -EALREADY);
	again = run_save(&b);
	assert_true(sections(fd, true) != sections(again, true));
	assert_true(sections(fd, false) == sections(again, false));
	run_destroy(&a);
	run_destroy(&b);
	close(fd);
	close(again);
}

static void
test_peek(void **state)
{
	struct run a = {0};
	struct cpu_model model;
	int fd = a_state(&a);
	struct state_io io = state_io_fd(fd);
	char why[300], *note = NULL;
	u64 ram = 0;

	assert_int_equal(save_peek(&io, &note, &model, &ram, why, sizeof(why)), 0);
	assert_string_equal(note, "{\"a\": 1}");
	assert_string_equal(model.name, "x86-64-v2");
	assert_int_equal(ram, RAM);
	free(note);
	run_destroy(&a);
	close(fd);
}

/* Another size, another number of processors, another CPU. */
static void
test_other_machine(void **state)
{
	struct run a = {0}, b = {0};
	char why[300];
	int fd = a_state(&a);

	b.model = a.model;
	assert_int_equal(run_create(&b, 2 * RAM, 1, true), 0);
	assert_true(run_load(&b, fd, why, sizeof(why)) < 0);
	assert_string_equal(why, "the state is of a machine with 6M of memory, not 12M");
	run_destroy(&b);
	run_model(&b.model, 2);
	assert_int_equal(run_create(&b, RAM, 2, true), 0);
	assert_true(run_load(&b, fd, why, sizeof(why)) < 0);
	assert_true(why[0] && !strchr(why, '\n'));
	run_destroy(&b);
	b.model = a.model;
	b.model.tsc_hz++;
	assert_int_equal(run_create(&b, RAM, 1, true), 0);
	assert_true(run_load(&b, fd, why, sizeof(why)) < 0);
	assert_string_equal(why, "the state is of a machine with another CPU model");
	run_destroy(&b);
	b.model = a.model;
	assert_int_equal(run_create(&b, RAM, 1, false), 0);
	assert_int_equal(run_load(&b, fd, why, sizeof(why)), -EALREADY);
	run_destroy(&b);
	run_destroy(&a);
	close(fd);
}

/* Cut at each border of a section and between, and bits turned over. */
static void
test_damaged(void **state)
{
	struct run a = {0}, b = {0};
	char why[300];
	int fd = a_state(&a), bad = memfd_create("bad", 0);
	off_t whole = lseek(fd, 0, SEEK_END);
	u8 *bytes = malloc((size_t)whole);
	size_t at = STATE_HEADER;
	unsigned cuts = 0;

	assert_int_equal(pread(fd, bytes, (size_t)whole, 0), whole);
	b.model = a.model;
	while (at < (size_t)whole) {
		for (int off = -1; off <= 1; off++) {
			if (at + off >= (size_t)whole)
				continue;
			assert_int_equal(ftruncate(bad, 0), 0);
			assert_int_equal(pwrite(bad, bytes, at + off, 0), at + off);
			assert_int_equal(run_create(&b, RAM, 1, true), 0);
			assert_true(run_load(&b, bad, why, sizeof(why)) < 0);
			assert_true(why[0] && !strchr(why, '\n'));
			run_destroy(&b);
			cuts++;
		}
		at += STATE_SECTION_HEADER + get_le64(bytes + at + 40);
	}
	assert_int_equal(at, whole);
	assert_true(cuts > 60);
	srand(3);
	for (unsigned i = 0; i < 60; i++) {
		size_t where = (size_t)rand() % (size_t)whole;

		bytes[where] ^= (u8)(1 << i % 8);
		assert_int_equal(pwrite(bad, bytes, (size_t)whole, 0), whole);
		bytes[where] ^= (u8)(1 << i % 8);
		assert_int_equal(run_create(&b, RAM, 1, true), 0);
		assert_true(run_load(&b, bad, why, sizeof(why)) < 0);
		assert_true(why[0] && !strchr(why, '\n'));
		run_destroy(&b);
	}
	run_dots(&a, 1);
	run_destroy(&a);
	free(bytes);
	close(bad);
	close(fd);
}

/* A copy of FD whose section NAME has version VERSION and, if PATCH is not NULL, begins with those
 * 8 bytes; or that has one more called so, with FLAGS, before its end. */
static int
a_patched_copy(int fd, const char *name, u32 version, u32 flags, const u8 *patch)
{
	int out = memfd_create("copy", MFD_CLOEXEC);
	struct state_io from = state_io_fd(fd), to = state_io_fd(out);
	u8 *buf = malloc(STATE_SECTION_HEADER + STATE_CHUNK_MAX);
	struct state_section s;
	struct state_reader r;
	struct state_writer w;
	bool found = false;
	char why[300];

	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(state_read_begin(&r, &from, why, sizeof(why)), 0);
	state_write_begin(&w, &to, r.ram_size);
	while (state_read_section(&r, &s) > 0) {
		bool same = strcmp(s.name, name) == 0;

		found |= same;
		memcpy(buf + STATE_SECTION_HEADER, s.data, s.len);
		if (same && patch)
			memcpy(buf + STATE_SECTION_HEADER, patch, 8);
		state_write_section(&w, s.name, s.instance, same ? version : s.version, s.flags,
				    buf, s.len);
	}
	if (!found)
		state_write_section(&w, name, 0, version, flags, buf, 10);
	assert_int_equal(state_write_end(&w), 0);
	state_read_close(&r);
	free(buf);
	return out;
}

static int
a_copy(int fd, const char *name, u32 version, u32 flags)
{
	return a_patched_copy(fd, name, version, flags, NULL);
}

/* What shows only when all is there is seen before anything is taken. */
static void
test_refused_whole(void **state)
{
	static const u8 five_cpus[8] = {5, 0, 0, 0, 9, 0, 0, 0}, nine_resets[8] = {1, 0, 0, 0, 9};
	struct run a = {0}, b = {0};
	int fd = a_state(&a), copy = a_patched_copy(fd, "machine", 1, 0, five_cpus);
	char why[300];

	b.model = a.model;
	assert_int_equal(run_create(&b, RAM, 1, true), 0);
	assert_true(run_load(&b, copy, why, sizeof(why)) < 0);
	assert_int_equal(machine_resets(b.machine), 0);
	run_destroy(&b);
	close(copy);
	copy = a_patched_copy(fd, "machine", 1, 0, nine_resets);
	assert_int_equal(run_create(&b, RAM, 1, true), 0);
	assert_int_equal(run_load(&b, copy, why, sizeof(why)), 0);
	assert_int_equal(machine_resets(b.machine), 9);
	run_destroy(&b);
	b.model.tsc_hz++;
	assert_int_equal(run_create(&b, RAM, 1, true), 0);
	assert_true(run_load(&b, copy, why, sizeof(why)) < 0);
	assert_int_equal(machine_resets(b.machine), 0);
	run_destroy(&b);
	close(copy);
	run_destroy(&a);
	close(fd);
}

/* What a later program may have written. */
static void
test_unknown_sections(void **state)
{
	struct run a = {0}, b = {0};
	int fd = a_state(&a), copy;
	char why[300];

	b.model = a.model;
	copy = a_copy(fd, "future", 1, STATE_OPTIONAL);
	assert_int_equal(run_create(&b, RAM, 1, true), 0);
	assert_int_equal(run_load(&b, copy, why, sizeof(why)), 0);
	run_dots(&b, 1);
	run_destroy(&b);
	close(copy);
	copy = a_copy(fd, "future", 1, 0);
	assert_int_equal(run_create(&b, RAM, 1, true), 0);
	assert_true(run_load(&b, copy, why, sizeof(why)) < 0);
	assert_string_equal(why, "this machine has no part \"future\" 0, which the state names");
	run_destroy(&b);
	close(copy);
	copy = a_copy(fd, "pit", 2, 0);
	assert_int_equal(run_create(&b, RAM, 1, true), 0);
	assert_true(run_load(&b, copy, why, sizeof(why)) < 0);
	assert_non_null(strstr(why, "\"pit\" 0 of the state is of version 2, newer"));
	run_destroy(&b);
	close(copy);
	run_destroy(&a);
	close(fd);
}

/* BIGA_GOLDEN=FILE writes one. */
static void
test_golden(void **state)
{
	const char *make = getenv("BIGA_GOLDEN");
	struct run a = {0};
	struct state_io io;
	char why[300], bytes[4096], *note;
	ssize_t n;
	int fd, out;

	if (make) {
		fd = a_state(&a);
		out = open(make, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		while ((n = read(fd, bytes, sizeof(bytes))) > 0)
			assert_int_equal(write(out, bytes, (size_t)n), n);
		run_destroy(&a);
		close(fd);
		close(out);
	}
	fd = open(GOLDEN, O_RDONLY);
	assert_true(fd >= 0);
	io = state_io_fd(fd);
	if (save_peek(&io, &note, &a.model, NULL, why, sizeof(why)))
		fail_msg("%s", why);
	free(note);
	assert_int_equal(run_create(&a, RAM, 1, true), 0);
	if (run_load(&a, fd, why, sizeof(why)))
		fail_msg("%s", why);
	run_dots(&a, 3);
	run_destroy(&a);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_same_again),
		cmocka_unit_test(test_peek),
		cmocka_unit_test(test_other_machine),
		cmocka_unit_test(test_refused_whole),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_unknown_sections),
		cmocka_unit_test(test_golden),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
