/*
 * A whole machine on an engine that only plays back a list of I/O: wiring of the
 * board, life cycle, ends, reset, pause, streams.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "machine/machine.h"

/* Scripts are tables: what a row does not name is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

/* ---- an engine that plays a script ---- */

enum step_kind {
	STEP_OUT,
	STEP_IN,    /* VALUE under MASK is expected */
	STEP_POLL,  /* the same until it comes */
	STEP_WRITE, /* MMIO */
	STEP_READ,
	STEP_EXTINT, /* waits for an ExtINT and takes it: VALUE is its vector */
	STEP_MSI,    /* waits for a message: VALUE is its data */
	STEP_EOI,
	STEP_WAIT, /* for ever, but for kicks */
	STEP_HALT,
	STEP_SHUTDOWN,
};

struct step {
	enum step_kind kind;
	u64 address;
	unsigned size;
	u64 value;
	u64 mask; /* 0: all bits */
};

struct engine {
	struct engine_config config;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool extint;
	u32 msi[64];
	unsigned msi_count;
};

struct engine_vcpu {
	struct engine *engine;
	unsigned index, at;
	bool kicked, answered;
	struct cpu_state state;
};

/* Per boot of vCPU 0, what it plays; the last one again. */
static const struct step *scripts[4];
static unsigned boots, boundary_errors, wrong_reads;

static int
fake_create(struct engine **out, const struct engine_config *config)
{
	struct engine *e = calloc(1, sizeof(*e));

	e->config = *config;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->changed, NULL);
	*out = e;
	return 0;
}

static void
fake_destroy(struct engine *e)
{
	free(e);
}

static int
fake_map(struct engine *e, u64 gpa, u64 size, u64 offset, bool writable)
{
	return memory_ptr(e->config.memory, gpa, size) ? 0 : -EINVAL;
}

static void
fake_send_msi(struct engine *e, u64 address, u32 data)
{
	pthread_mutex_lock(&e->lock);
	if (e->msi_count < 64)
		e->msi[e->msi_count++] = data;
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
}

static void
fake_set_extint(struct engine *e, bool level)
{
	pthread_mutex_lock(&e->lock);
	e->extint = level;
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
}

static int
fake_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **out)
{
	*out = aligned_alloc(64, align_up(sizeof(**out), 64));
	memset(*out, 0, sizeof(**out));
	(*out)->engine = e;
	(*out)->index = index;
	return 0;
}

static void
fake_vcpu_destroy(struct engine_vcpu *v)
{
	free(v);
}

static void
fake_kick(struct engine_vcpu *v)
{
	pthread_mutex_lock(&v->engine->lock);
	v->kicked = true;
	pthread_cond_broadcast(&v->engine->changed);
	pthread_mutex_unlock(&v->engine->lock);
}

static int
fake_get_state(struct engine_vcpu *v, struct cpu_state *state)
{
	if (v->answered)
		boundary_errors++; /* an I/O step was answered but not taken */
	*state = v->state;
	return 0;
}

static int
fake_set_state(struct engine_vcpu *v, const struct cpu_state *state)
{
	v->state = *state;
	v->at = 0;
	v->answered = false;
	if (v->index == 0)
		boots++;
	return 0;
}

static const struct step *
fake_step(const struct engine_vcpu *v)
{
	static const struct step wait = {STEP_WAIT};
	unsigned n = boots ? boots - 1 : 0;

	if (v->index)
		return &wait;
	while (n && !scripts[n])
		n--;
	return &scripts[n][v->at];
}

/* The machine has answered the I/O of S. */
static void
fake_take_answer(struct engine_vcpu *v, const struct step *s, const struct engine_exit *exit)
{
	u64 mask = s->mask ? s->mask : UINT64_MAX;
	u64 got = exit->kind == EXIT_PORT ? exit->port.data : exit->mmio.data;
	bool right = ((got ^ s->value) & mask) == 0;

	v->answered = false;
	if (s->kind == STEP_POLL && !right)
		return;
	if ((s->kind == STEP_IN || s->kind == STEP_READ) && !right) {
		wrong_reads++;
		print_message("step %u: %llx instead of %llx\n", v->at, (unsigned long long)got,
			      (unsigned long long)s->value);
	}
	v->at++;
}

static void
fake_fill(const struct step *s, struct engine_exit *exit)
{
	memset(exit, 0, sizeof(*exit));
	if (s->kind == STEP_READ || s->kind == STEP_WRITE) {
		exit->kind = EXIT_MMIO;
		exit->mmio.gpa = s->address;
		exit->mmio.size = (u8)s->size;
		exit->mmio.write = s->kind == STEP_WRITE;
		exit->mmio.data = s->value;
		return;
	}
	exit->kind = EXIT_PORT;
	exit->port.port = (u16)s->address;
	exit->port.size = (u8)s->size;
	exit->port.write = s->kind == STEP_OUT;
	exit->port.data = (u32)s->value;
}

/* Whether what S waits for is there. With the engine's lock, which it may drop. */
static bool
fake_arrived(struct engine_vcpu *v, const struct step *s)
{
	struct engine *e = v->engine;
	int vector;

	if (s->kind == STEP_MSI && e->msi_count) {
		if (e->msi[0] != (u32)s->value)
			wrong_reads++;
		memmove(e->msi, e->msi + 1, --e->msi_count * sizeof(e->msi[0]));
		return true;
	}
	if (s->kind != STEP_EXTINT || !e->extint)
		return false;
	pthread_mutex_unlock(&e->lock);
	vector = e->config.extint_vector(e->config.opaque);
	pthread_mutex_lock(&e->lock);
	if (vector != (int)s->value)
		wrong_reads++;
	return true;
}

/* Waits for a kick or what S wants: true if it was a kick. */
static bool
fake_wait(struct engine_vcpu *v, const struct step *s)
{
	bool kicked;

	pthread_mutex_lock(&v->engine->lock);
	while (!v->kicked) {
		if (fake_arrived(v, s)) {
			pthread_mutex_unlock(&v->engine->lock);
			v->at++;
			return false;
		}
		pthread_cond_wait(&v->engine->changed, &v->engine->lock);
	}
	kicked = v->kicked;
	v->kicked = false;
	pthread_mutex_unlock(&v->engine->lock);
	return kicked;
}

static bool
fake_take_kick(struct engine_vcpu *v)
{
	bool kicked;

	pthread_mutex_lock(&v->engine->lock);
	kicked = v->kicked;
	v->kicked = false;
	pthread_mutex_unlock(&v->engine->lock);
	return kicked;
}

static int
fake_run(struct engine_vcpu *v, struct engine_exit *exit)
{
	const struct step *s = fake_step(v);

	if (v->answered)
		fake_take_answer(v, s, exit);
	for (;;) {
		s = fake_step(v);
		exit->kind = EXIT_KICKED;
		if (fake_take_kick(v))
			return 0;
		switch (s->kind) {
		case STEP_WAIT:
		case STEP_EXTINT:
		case STEP_MSI:
			if (fake_wait(v, s))
				return 0;
			continue;
		case STEP_HALT:
			v->state.run_state = CPU_HALTED;
			exit->kind = EXIT_HALT;
			return 0;
		case STEP_SHUTDOWN:
			exit->kind = EXIT_SHUTDOWN;
			return 0;
		case STEP_EOI:
			v->at++;
			exit->kind = EXIT_EOI;
			exit->eoi.vector = (u8)s->value;
			return 0;
		default:
			fake_fill(s, exit);
			v->answered = true;
			return 0;
		}
	}
}

static const struct engine_ops fake_engine = {
	.name = "script",
	.create = fake_create,
	.destroy = fake_destroy,
	.map = fake_map,
	.send_msi = fake_send_msi,
	.set_extint = fake_set_extint,
	.vcpu_create = fake_vcpu_create,
	.vcpu_destroy = fake_vcpu_destroy,
	.run = fake_run,
	.kick = fake_kick,
	.get_state = fake_get_state,
	.set_state = fake_set_state,
};

/* ---- the machine around it ---- */

static struct machine *machine;
static int serial[2];
static struct machine_end end;

/* Multiboot 1 with address fields, and nothing behind its header. */
static int
tiny_kernel(void)
{
	u32 words[12] = {0x1badb002, 0x10000, 0, 0x100000, 0x100000, 0x100030, 0x100030, 0x100020};
	int fd = memfd_create("kernel", 0);

	words[2] = -(words[0] + words[1]);
	assert_int_equal(write(fd, words, sizeof(words)), sizeof(words));
	return fd;
}

static void
create(unsigned vcpus, enum machine_reset_policy policy)
{
	static struct cpu_model model = {.tsc_hz = 1000000000, .phys_bits = 40};
	struct machine_config config = {
		.engine = &fake_engine,
		.model = &model,
		.memory = 64 << 20,
		.vcpus = vcpus,
		.rng = true,
		.virtio_console = true,
		.console = {-1, -1},
		.debug_exit = true,
		.testdev = true,
		.on_reset = policy,
	};
	char why[256];

	boots = boundary_errors = wrong_reads = 0;
	config.kernel_fd = tiny_kernel();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, serial), 0);
	config.serial = (struct machine_stream){serial[1], serial[1]};
	if (machine_create(&machine, &config, why, sizeof(why)))
		fail_msg("%s", why);
	assert_int_equal(machine_start(machine), 0);
}

static void
play(const struct step *script)
{
	memset(scripts, 0, sizeof(scripts));
	scripts[0] = script;
	create(2, MACHINE_RESET_REBOOTS);
	machine_run(machine, &end);
}

static void
finish(void)
{
	assert_int_equal(wrong_reads, 0);
	assert_int_equal(boundary_errors, 0);
	machine_destroy(machine);
	close(serial[0]);
	close(serial[1]);
}

static void
test_serial_and_exit(void **state)
{
	static const struct step script[] = {
		{STEP_OUT, 0x3f8, 1, 'H'},
		{STEP_OUT, 0x3f8, 1, 'i'},
		{STEP_OUT, 0xf4, 1, 0x2a},
		{STEP_WAIT},
	};
	char text[8];

	play(script);
	assert_int_equal(end.kind, MACHINE_DEBUG_EXIT);
	assert_int_equal(end.value, 0x2a);
	assert_int_equal(read(serial[0], text, sizeof(text)), 2);
	assert_memory_equal(text, "Hi", 2);
	finish();
}

static void
test_power_off(void **state)
{
	static const struct step script[] = {
		{STEP_IN, 0x604, 2, 0}, {STEP_OUT, 0xb2, 1, 2}, /* ACPI on */
		{STEP_IN, 0x604, 2, 1}, {STEP_OUT, 0x604, 2, 0x2001}, {STEP_WAIT},
	};

	play(script);
	assert_int_equal(end.kind, MACHINE_POWERED_OFF);
	finish();
}

static void
test_pci(void **state)
{
	static const struct step script[] = {
		{STEP_OUT, 0xcf8, 4, 0x80000000},
		{STEP_IN, 0xcfc, 4, 0x29c08086},
		{STEP_OUT, 0xcf8, 4, 0x8000f800},
		{STEP_IN, 0xcfc, 4, 0x29188086},
		{STEP_READ, 0xb0000000 + (31 << 15), 4, 0x29188086},
		{STEP_READ, 0xb0000000 + (2 << 15), 4, 0x10431af4}, /* virtio console */
		{STEP_READ, 0xb0000000 + (3 << 15), 4, 0x10441af4}, /* and rng */
		{STEP_READ, 0xb0000000 + (9 << 15), 4, 0xffffffff},
		{STEP_READ, 0xb0000000 + (31 << 15) + 0x40, 4, 0x601},
		{STEP_READ, 0xfed00000, 8, 0x8086a201, 0xffffffff},
		{STEP_OUT, 0x510, 2, 5},
		{STEP_IN, 0x511, 1, 2},
		{STEP_OUT, 0xf4, 1, 1},
		{STEP_WAIT},
	};

	play(script);
	assert_int_equal(end.kind, MACHINE_DEBUG_EXIT);
	finish();
}

/* The timer through the 8259, then through the IOAPIC; a level line and its EOI. */
static void
test_interrupts(void **state)
{
	static const struct step script[] = {
		{STEP_OUT, 0x20, 1, 0x11},
		{STEP_OUT, 0x21, 1, 0x20},
		{STEP_OUT, 0x21, 1, 0x04},
		{STEP_OUT, 0x21, 1, 0x03}, /* automatic EOI */
		{STEP_OUT, 0x21, 1, 0xfe},
		{STEP_OUT, 0x43, 1, 0x34},
		{STEP_OUT, 0x40, 1, 0x00},
		{STEP_OUT, 0x40, 1, 0x10}, /* 3.4 ms */
		{STEP_EXTINT, 0, 0, 0x20},
		{STEP_EXTINT, 0, 0, 0x20},
		{STEP_OUT, 0x21, 1, 0xff},
		{STEP_WRITE, 0xfec00000, 4, 0x14},
		{STEP_WRITE, 0xfec00010, 4, 0x31}, /* pin 2 */
		{STEP_MSI, 0, 0, 0x31},
		{STEP_MSI, 0, 0, 0x31},
		{STEP_WRITE, 0xfec00010, 4, 0x10031},
		{STEP_WRITE, 0xfec00000, 4, 0x10 + 2 * 20},
		{STEP_WRITE, 0xfec00010, 4, 0x8055}, /* pin 20, level */
		{STEP_OUT, 0x2014, 1, 1},
		{STEP_MSI, 0, 0, 0xc055},
		{STEP_EOI, 0, 0, 0x55},
		{STEP_MSI, 0, 0, 0xc055},
		{STEP_OUT, 0x2014, 1, 0},
		{STEP_EOI, 0, 0, 0x55},
		{STEP_OUT, 0xf4, 1, 3},
		{STEP_WAIT},
	};

	play(script);
	assert_int_equal(end.kind, MACHINE_DEBUG_EXIT);
	assert_int_equal(end.value, 3);
	finish();
}

static const struct step reset_script[] = {{STEP_OUT, 0xcf9, 1, 0x06}, {STEP_WAIT}};
static const struct step off_script[] = {{STEP_OUT, 0x604, 2, 0x2000}, {STEP_WAIT}};

static void
test_reboot(void **state)
{
	static const struct step keyboard[] = {{STEP_OUT, 0x64, 1, 0xfe}, {STEP_WAIT}};

	scripts[0] = reset_script;
	scripts[1] = keyboard;
	scripts[2] = off_script;
	create(3, MACHINE_RESET_REBOOTS);
	machine_run(machine, &end);
	assert_int_equal(end.kind, MACHINE_POWERED_OFF);
	assert_int_equal(boots, 3);
	assert_int_equal(machine_resets(machine), 2);
	finish();
}

static void
test_reset_ends(void **state)
{
	memset(scripts, 0, sizeof(scripts));
	scripts[0] = reset_script;
	create(1, MACHINE_RESET_ENDS);
	machine_run(machine, &end);
	assert_int_equal(end.kind, MACHINE_RESET);
	finish();
}

/* A reset while interrupts are in use is what a kernel does after a panic. */
static void
test_panic(void **state)
{
	static const struct step script[] = {
		{STEP_WRITE, 0xfec00000, 4, 0x18},
		{STEP_WRITE, 0xfec00010, 4, 0x31},
		{STEP_OUT, 0xcf9, 1, 0x06},
		{STEP_WAIT},
	};

	play(script);
	assert_int_equal(end.kind, MACHINE_GUEST_FAILED);
	assert_non_null(strstr(end.text, "panic"));
	finish();
}

static void
test_shutdown(void **state)
{
	static const struct step script[] = {{STEP_SHUTDOWN}};

	play(script);
	assert_int_equal(end.kind, MACHINE_GUEST_FAILED);
	assert_non_null(strstr(end.text, "triple fault on processor 0"));
	assert_non_null(strstr(end.text, "RIP"));
	assert_non_null(strstr(end.text, "CR3"));
	finish();
}

static void
test_halted(void **state)
{
	static const struct step script[] = {{STEP_HALT}};

	play(script);
	assert_int_equal(end.kind, MACHINE_GUEST_FAILED);
	assert_non_null(strstr(end.text, "halted"));
	finish();
}

static void *
stopper(void *opaque)
{
	usleep(30000);
	machine_stop(machine);
	return NULL;
}

static void
test_stop(void **state)
{
	static const struct step script[] = {{STEP_WAIT}};
	pthread_t thread;

	memset(scripts, 0, sizeof(scripts));
	scripts[0] = script;
	create(2, MACHINE_RESET_REBOOTS);
	pthread_create(&thread, NULL, stopper, NULL);
	machine_run(machine, &end);
	pthread_join(thread, NULL);
	assert_int_equal(end.kind, MACHINE_STOPPED);
	finish();
}

/* A callback of the loop pauses, looks and resumes while the guest works. */
static struct loop_timer *pauser;
static unsigned pauses;

static void
pause_now(void *opaque)
{
	struct cpu_state cpu;

	machine_pause(machine);
	assert_int_equal(machine_status(machine), MACHINE_PAUSED);
	assert_int_equal(machine_vcpu_state(machine, 0, &cpu), 0);
	assert_int_equal(machine_vcpu_state(machine, 1, &cpu), 0);
	assert_int_equal(cpu.run_state, CPU_WAIT_SIPI);
	assert_int_equal(machine_vcpu_state(machine, 2, &cpu), -EINVAL);
	machine_resume(machine);
	if (++pauses < 200)
		loop_timer_arm(pauser, loop_now() + 100000);
	else
		machine_power_button(machine);
}

static void
test_pause(void **state)
{
	static const struct step script[] = {
		{STEP_OUT, 0xb2, 1, 2},
		{STEP_OUT, 0x602, 2, 0x100}, /* power button enabled */
		{STEP_POLL, 0x600, 2, 0x100, 0x100},
		{STEP_OUT, 0x600, 2, 0x100},
		{STEP_IN, 0x600, 2, 0, 0x100},
		{STEP_OUT, 0x604, 2, 0x2000},
		{STEP_WAIT},
	};

	memset(scripts, 0, sizeof(scripts));
	scripts[0] = script;
	create(2, MACHINE_RESET_REBOOTS);
	pauses = 0;
	assert_int_equal(loop_timer_create(machine_loop(machine), pause_now, NULL, &pauser), 0);
	loop_timer_arm(pauser, loop_now());
	machine_run(machine, &end);
	assert_int_equal(end.kind, MACHINE_POWERED_OFF);
	assert_int_equal(pauses, 200);
	loop_timer_destroy(pauser);
	finish();
}

static void
test_serial_input(void **state)
{
	static const struct step script[] = {
		{STEP_POLL, 0x3fd, 1, 1, 1}, {STEP_IN, 0x3f8, 1, 'o'}, {STEP_POLL, 0x3fd, 1, 1, 1},
		{STEP_IN, 0x3f8, 1, 'k'},    {STEP_OUT, 0xf4, 1, 0},   {STEP_WAIT},
	};

	memset(scripts, 0, sizeof(scripts));
	scripts[0] = script;
	create(1, MACHINE_RESET_REBOOTS);
	assert_int_equal(write(serial[0], "ok", 2), 2);
	machine_run(machine, &end);
	assert_int_equal(end.kind, MACHINE_DEBUG_EXIT);
	finish();
}

static void
test_bad_config(void **state)
{
	static struct cpu_model model = {.tsc_hz = 1000000000, .phys_bits = 40};
	struct machine_config config = {.engine = &fake_engine,
					.model = &model,
					.memory = 64 << 20,
					.vcpus = 0,
					.serial = {-1, -1},
					.console = {-1, -1}};
	char why[256] = "";

	assert_int_equal(machine_create(&machine, &config, why, sizeof(why)), -EINVAL);
	assert_true(strlen(why) > 0);
	config.vcpus = 1;
	config.memory = 12345;
	assert_int_equal(machine_create(&machine, &config, why, sizeof(why)), -EINVAL);
	config.memory = 64 << 20;
	config.kernel_fd = memfd_create("empty", 0);
	config.nets[0].fd = -1;
	config.disk_count = 1;
	config.disks[0].fd = open("/dev/null", O_RDONLY);
	why[0] = 0;
	assert_true(machine_create(&machine, &config, why, sizeof(why)) < 0);
	assert_true(strlen(why) > 0);
	assert_int_equal(fcntl(config.disks[0].fd, F_GETFD), -1); /* taken over */
	close(config.kernel_fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_serial_and_exit),
		cmocka_unit_test(test_power_off),
		cmocka_unit_test(test_pci),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_reboot),
		cmocka_unit_test(test_reset_ends),
		cmocka_unit_test(test_panic),
		cmocka_unit_test(test_shutdown),
		cmocka_unit_test(test_halted),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_serial_input),
		cmocka_unit_test(test_bad_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
