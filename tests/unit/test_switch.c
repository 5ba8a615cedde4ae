/*
 * A machine whose hypervisor is replaced, over engines that only wait: what
 * crosses, what is told again, what happens when something fails on the way, and
 * the rescue of a VM whose hypervisor gave up.
 */
#define _GNU_SOURCE
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "machine/machine.h"

/* ---- two engines ---- */

struct engine {
	struct engine_config config;
	const struct engine_ops *ops;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool extint;
	unsigned msis, routes, notifies;
};

struct engine_vcpu {
	struct engine *engine;
	unsigned index;
	bool kicked;
	unsigned eois; /* to be told before it may stop */
	struct cpu_state state;
};

enum order { RUN, FAIL_SOUND, FAIL, SHUT_DOWN };

/* What the next run of vCPU 1 on an engine of that kind ends with. */
static enum order orders[2];
static unsigned engines, vcpus, told_eois; /* the first two [a] */
static struct engine *latest;
static struct engine_vcpu *latest_vcpu; /* the last one's last */
/* Where it breaks: by name of the function. */
static const char *broken;

static bool
is_broken(const char *name)
{
	return broken && strcmp(broken, name) == 0;
}

static void
fake_probe(int device, struct engine_probe *probe)
{
	memset(probe, 0, sizeof(*probe));
	probe->usable = !is_broken("probe");
	probe->cause = probe->usable ? NULL : "absent";
	strcpy(probe->evidence, "nothing is there");
	strcpy(probe->fix, "buy one");
}

static int
fake_create(struct engine **out, const struct engine_config *config)
{
	struct engine *e = calloc(1, sizeof(*e));

	if (is_broken("create")) {
		free(e);
		return -ENODEV;
	}
	e->config = *config;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->changed, NULL);
	__atomic_add_fetch(&engines, 1, __ATOMIC_SEQ_CST);
	*out = latest = e;
	return 0;
}

static void
fake_destroy(struct engine *e)
{
	__atomic_sub_fetch(&engines, 1, __ATOMIC_SEQ_CST);
	free(e);
}

static int
fake_map(struct engine *e, u64 gpa, u64 size, u64 offset, bool writable)
{
	return is_broken("map") ? -ENOMEM : 0;
}

static void
fake_send_msi(struct engine *e, u64 address, u32 data)
{
	e->msis++;
}

static void
fake_set_extint(struct engine *e, bool level)
{
	e->extint = level;
}

static int
fake_routes(struct engine *e, const struct ioapic_route *routes, unsigned count)
{
	e->routes = count;
	return 0;
}

static int
fake_bind(struct engine *e, u64 gpa, unsigned size, int eventfd)
{
	e->notifies++;
	return 0;
}

static int
fake_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **out)
{
	if (is_broken("vcpu_create") && index == 1)
		return -EMFILE;
	*out = aligned_alloc(64, align_up(sizeof(**out), 64));
	memset(*out, 0, sizeof(**out));
	(*out)->engine = e;
	(*out)->index = index;
	latest_vcpu = *out;
	__atomic_add_fetch(&vcpus, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static void
fake_vcpu_destroy(struct engine_vcpu *v)
{
	__atomic_sub_fetch(&vcpus, 1, __ATOMIC_SEQ_CST);
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
fake_end(struct engine_vcpu *v, struct engine_exit *exit, enum order order)
{
	memset(exit, 0, sizeof(*exit));
	exit->kind = order == SHUT_DOWN ? EXIT_SHUTDOWN : EXIT_FAILED;
	if (order != SHUT_DOWN) {
		strcpy(exit->failed.why, "it fell over");
		exit->failed.sound = order == FAIL_SOUND;
	}
	return 0;
}

static int
fake_run_as(struct engine_vcpu *v, struct engine_exit *exit, enum order *order)
{
	pthread_mutex_lock(&v->engine->lock);
	while (!v->kicked && (v->index != 1 || *order == RUN) && !v->eois)
		pthread_cond_wait(&v->engine->changed, &v->engine->lock);
	if (v->index == 1 && *order != RUN) {
		enum order now = *order;

		*order = RUN;
		pthread_mutex_unlock(&v->engine->lock);
		return fake_end(v, exit, now);
	}
	memset(exit, 0, sizeof(*exit));
	exit->kind = v->eois ? EXIT_EOI : EXIT_KICKED;
	if (v->eois) {
		v->eois--;
		told_eois++;
	} else {
		v->kicked = false;
		v->state.gpr[CPU_RBX]++; /* it has run */
	}
	pthread_mutex_unlock(&v->engine->lock);
	return 0;
}

static int
fake_run_one(struct engine_vcpu *v, struct engine_exit *exit)
{
	return fake_run_as(v, exit, &orders[0]);
}

static int
fake_run_two(struct engine_vcpu *v, struct engine_exit *exit)
{
	return fake_run_as(v, exit, &orders[1]);
}

static int
fake_get_state(struct engine_vcpu *v, struct cpu_state *state)
{
	if (is_broken("get_state") && v->index == 1)
		return -EIO;
	*state = v->state;
	state->kvmclock = 1000 + v->index; /* read one after the other */
	return 0;
}

static int
fake_set_state(struct engine_vcpu *v, const struct cpu_state *state)
{
	if (is_broken("set_state") && v->index == 1)
		return -EINVAL;
	v->state = *state;
	return 0;
}

#define OPS(n, function)                                                                           \
	{                                                                                          \
		.name = n, .probe = fake_probe, .create = fake_create, .destroy = fake_destroy,    \
		.map = fake_map, .send_msi = fake_send_msi, .set_extint = fake_set_extint,         \
		.vcpu_create = fake_vcpu_create, .vcpu_destroy = fake_vcpu_destroy,                \
		.run = function, .kick = fake_kick, .get_state = fake_get_state,                   \
		.set_state = fake_set_state, .bind_notify = fake_bind,                             \
		.set_ioapic_routes = fake_routes,                                                  \
	}
static const struct engine_ops one = OPS("one", fake_run_one), two = OPS("two", fake_run_two);

/* ---- a machine ---- */

static struct machine *machine;
static unsigned rescued;

static void
was_rescued(void *opaque, const char *from, const char *to, const char *why)
{
	assert_string_equal(from, "one");
	assert_string_equal(to, "two");
	assert_string_equal(why, "it fell over");
	rescued++;
	machine_stop(machine);
}

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
create(void)
{
	static struct cpu_model model = {.tsc_hz = 1000000000, .phys_bits = 40};
	struct machine_config config = {
		.engine = &one,
		.model = &model,
		.memory = 64 << 20,
		.vcpus = 2,
		.kernel_fd = tiny_kernel(),
		.serial = {-1, -1},
		.console = {-1, -1},
		.rescue = &two,
		.rescued = was_rescued,
	};
	char why[256];

	orders[0] = orders[1] = RUN;
	broken = NULL;
	rescued = told_eois = 0;
	if (machine_create(&machine, &config, why, sizeof(why)))
		fail_msg("%s", why);
	close(config.kernel_fd);
	assert_int_equal(machine_start(machine), 0);
}

static void
destroy(void)
{
	machine_destroy(machine);
	assert_int_equal(engines, 0);
	assert_int_equal(vcpus, 0);
}

/* The engine that is not used goes by itself, soon. */
static void
assert_one_left(void)
{
	for (int tries = 0; tries < 1000 && __atomic_load_n(&engines, __ATOMIC_SEQ_CST) != 1;
	     tries++)
		usleep(5000);
	assert_int_equal(engines, 1);
	assert_int_equal(vcpus, 2);
}

/* What is asked of a machine is asked in its loop's callbacks. */
struct request {
	const struct engine_ops *to; /* NULL: look at a register */
	char *why;
	int result;
	unsigned vcpu;
	enum cpu_gpr gpr;
	u64 value;
};

static void
request_serve(void *opaque)
{
	static struct cpu_state state;
	struct machine_switch_times times;
	struct request *r = opaque;
	bool paused = machine_status(machine) == MACHINE_PAUSED;

	if (r->to) {
		r->result = machine_switch(machine, r->to, -1, false, &times, r->why, 256);
	} else {
		machine_pause(machine);
		r->result = machine_vcpu_state(machine, r->vcpu, &state);
		if (!paused)
			machine_resume(machine);
		r->value = state.gpr[r->gpr];
	}
	loop_stop(machine_loop(machine));
}

static void
request_make(struct request *r)
{
	struct loop_timer *timer;

	assert_int_equal(loop_timer_create(machine_loop(machine), request_serve, r, &timer), 0);
	loop_timer_arm(timer, loop_now());
	loop_run(machine_loop(machine));
	loop_timer_destroy(timer);
}

static int
go(const struct engine_ops *to, char *why)
{
	struct request r = {.to = to, .why = why};

	request_make(&r);
	return r.result;
}

static u64
register_of(unsigned vcpu, enum cpu_gpr gpr)
{
	struct request r = {.vcpu = vcpu, .gpr = gpr};

	request_make(&r);
	assert_int_equal(r.result, 0);
	return r.value;
}

/* vCPU 1 runs again: it needs a moment to leave where it was parked. */
static void
assert_runs(u64 before)
{
	for (int i = 0; i < 5000; i++) {
		if (register_of(1, CPU_RBX) > before)
			return;
		usleep(1000);
	}
	fail_msg("vCPU 1 does not run");
}

static void
states_cross(void **state)
{
	char why[256];
	u64 before;

	create();
	before = register_of(1, CPU_RBX);
	assert_int_equal(go(&two, why), 0);
	assert_string_equal(machine_engine_name(machine), "two");
	assert_int_equal(machine_status(machine), MACHINE_RUNNING);
	assert_runs(before); /* from where it was */
	assert_one_left();
	assert_int_equal(go(&one, why), 0);
	assert_int_equal(machine_switches(machine), 2);
	assert_true(latest_vcpu->state.host_tsc != 0);
	/* All have the same clock, the furthest. */
	assert_int_equal(latest_vcpu->state.kvmclock, 1001);
	for (int i = 0; i < 50; i++)
		assert_int_equal(go(i % 2 ? &one : &two, why), 0);
	assert_int_equal(go(&one, why), 0); /* to another of its kind */
	assert_int_equal(machine_rescues(machine), 0);
	destroy();
}

/* What the engine was told by the board, the next one is told too. */
static void
lines_are_told_again(void **state)
{
	char why[256];

	create();
	assert_int_equal(go(&two, why), 0);
	assert_int_equal(latest->routes, 24);
	assert_false(latest->extint);
	destroy();
}

/* Ends of interrupts that the old one still has to tell come before the switch. */
static void
ends_are_told_first(void **state)
{
	char why[256];

	create();
	pthread_mutex_lock(&latest->lock);
	latest_vcpu->kicked = true; /* wanted already, and it has three to tell */
	latest_vcpu->eois = 3;
	pthread_mutex_unlock(&latest->lock);
	assert_int_equal(go(&two, why), 0);
	assert_int_equal(told_eois, 3);
	destroy();
}

static void
failures_change_nothing(void **state)
{
	static const struct {
		const char *where, *why;
	} cases[] = {
		{"probe", "two cannot run here: absent (nothing is there); buy one"},
		{"create", "two does not start: No such device"},
		{"map", "two does not start: Cannot allocate memory"},
		{"vcpu_create", "two does not start: Too many open files"},
		{"get_state", "cannot move to the hypervisor two: Input/output error"},
		{"set_state", "a state that the other hypervisor does not take"},
	};
	char why[256];
	u64 before;

	create();
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		before = register_of(1, CPU_RBX);
		broken = cases[i].where;
		assert_int_not_equal(go(&two, why), 0);
		broken = NULL;
		if (!strstr(why, cases[i].why))
			fail_msg("%s: %s", cases[i].where, why);
		assert_null(strchr(why, '\n'));
		assert_string_equal(machine_engine_name(machine), "one");
		assert_int_equal(machine_status(machine), MACHINE_RUNNING);
		assert_runs(before);
		assert_one_left();
	}
	assert_int_equal(machine_switches(machine), 0);
	destroy();
}

/* vCPU 1 ends with ORDER; the machine runs to its end. */
static void
give_order(enum order order, struct machine_end *end)
{
	create();
	pthread_mutex_lock(&latest->lock);
	orders[0] = order;
	pthread_cond_broadcast(&latest->changed);
	pthread_mutex_unlock(&latest->lock);
	machine_run(machine, end);
}

static void
rescue(void **state)
{
	struct machine_end end;

	give_order(FAIL_SOUND, &end);
	assert_int_equal(end.kind, MACHINE_STOPPED); /* by was_rescued */
	assert_int_equal(rescued, 1);
	assert_int_equal(machine_rescues(machine), 1);
	assert_int_equal(machine_switches(machine), 0);
	assert_string_equal(machine_engine_name(machine), "two");
	destroy();
}

static void
no_rescue(void **state)
{
	struct machine_end end;

	give_order(FAIL, &end); /* its state is not one to go on from */
	assert_int_equal(end.kind, MACHINE_ENGINE_FAILED);
	assert_non_null(strstr(end.text, "it fell over"));
	assert_non_null(strstr(end.text, "RIP"));
	destroy();
	give_order(SHUT_DOWN, &end);
	assert_int_equal(end.kind, MACHINE_GUEST_FAILED);
	assert_int_equal(rescued, 0);
	destroy();
}

static void *
break_later(void *opaque)
{
	usleep(50000);
	pthread_mutex_lock(&latest->lock);
	broken = opaque;
	orders[0] = FAIL_SOUND;
	pthread_cond_broadcast(&latest->changed);
	pthread_mutex_unlock(&latest->lock);
	return NULL;
}

/* The rescue itself fails: the VM ends as if there had been none. */
static void
rescue_fails(void **state)
{
	static const char *const where[] = {"probe", "create", "set_state"};
	struct machine_end end;
	pthread_t thread;

	for (unsigned i = 0; i < ARRAY_LEN(where); i++) {
		create();
		assert_int_equal(
			pthread_create(&thread, NULL, break_later, (void *)(uintptr_t)where[i]), 0);
		machine_run(machine, &end);
		pthread_join(thread, NULL);
		assert_int_equal(end.kind, MACHINE_ENGINE_FAILED);
		assert_non_null(strstr(end.text, "it fell over"));
		assert_int_equal(rescued, 0);
		assert_int_equal(machine_rescues(machine), 0);
		broken = NULL;
		destroy();
	}
}

/* One that was rescued already, and fails on our own too, ends. */
static void
rescued_once(void **state)
{
	struct machine_end end;
	char why[256];

	create();
	assert_int_equal(go(&two, why), 0);
	pthread_mutex_lock(&latest->lock);
	orders[1] = FAIL_SOUND;
	pthread_cond_broadcast(&latest->changed);
	pthread_mutex_unlock(&latest->lock);
	machine_run(machine, &end);
	assert_int_equal(end.kind, MACHINE_ENGINE_FAILED);
	assert_int_equal(rescued, 0);
	assert_int_not_equal(go(&one, why), 0); /* it has ended */
	destroy();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(states_cross),
		cmocka_unit_test(lines_are_told_again),
		cmocka_unit_test(ends_are_told_first),
		cmocka_unit_test(failures_change_nothing),
		cmocka_unit_test(rescue),
		cmocka_unit_test(no_rescue),
		cmocka_unit_test(rescue_fails),
		cmocka_unit_test(rescued_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
