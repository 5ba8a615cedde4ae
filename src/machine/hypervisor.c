/*
 * The engine under a machine, and its successor (see hypervisor.h).
 *
 * `seat` is held for reading by who tells the engine something and for writing
 * while another takes its place: what is sent meanwhile waits, and reaches the
 * new one. What an engine was told and must know for its whole life (bindings,
 * lines, routes) is kept here, and told again.
 */
#define _GNU_SOURCE
#include "machine/hypervisor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HYPERVISOR_BINDINGS = 256, HYPERVISOR_ROUTES = 64 };

/* An engine with all that is in it. */
struct hypervisor_engine {
	const struct engine_ops *ops; /* NULL: none */
	struct engine *engine;
	struct vcpus *vcpus;
};

struct hypervisor_binding {
	u64 gpa;
	unsigned size;
	int eventfd;
};

struct hypervisor {
	struct hypervisor_config config;
	pthread_rwlock_t seat;
	struct hypervisor_engine now;	  /* [seat] */
	struct hypervisor_engine other;	  /* the machine's thread's */
	struct hypervisor_engine leaving; /* LEAVER's, while IS_LEAVING */
	pthread_t leaver;
	bool is_leaving;				      /* the machine's thread's */
	bool extint;					      /* [seat] */
	struct ioapic_route routes[HYPERVISOR_ROUTES];	      /* [m] */
	unsigned route_count;				      /* [m] */
	struct hypervisor_binding bound[HYPERVISOR_BINDINGS]; /* [m] */
	unsigned bound_count;				      /* [m] */
	struct cpu_state *states;			      /* room for all vCPUs' */
};

/* ---- an engine's life ---- */

static void
hypervisor_destroy_engine(struct hypervisor_engine *e)
{
	vcpus_destroy(e->vcpus);
	if (e->engine)
		e->ops->destroy(e->engine);
	*e = (struct hypervisor_engine){0};
}

/* An engine takes its time to go; devices and their timers need not wait for it. */
static void *
hypervisor_leaver(void *leaving)
{
	pthread_setname_np(pthread_self(), "leaver");
	hypervisor_destroy_engine(leaving);
	return NULL;
}

static void
hypervisor_wait_leaver(struct hypervisor *h)
{
	if (h->is_leaving)
		pthread_join(h->leaver, NULL);
	h->is_leaving = false;
}

static int
hypervisor_map(struct hypervisor_engine *e, const struct memory *memory)
{
	u64 low = memory_low_size(memory), high = memory_high_size(memory);
	int err = e->ops->map(e->engine, 0, low, 0, true);

	if (!err && high)
		err = e->ops->map(e->engine, MEMORY_HIGH, high, low, true);
	return err;
}

static int
hypervisor_create_vcpus(struct hypervisor_engine *e, const struct hypervisor_config *c)
{
	struct vcpus_config vcpus = {
		.ops = e->ops,
		.engine = e->engine,
		.memory = c->memory,
		.lock = c->lock,
		.count = c->vcpus,
		.opaque = c->opaque,
		.eoi = c->eoi,
		.failed = c->failed,
		.halted = c->halted,
	};

	return vcpus_create(&e->vcpus, &vcpus);
}

static int
hypervisor_create_engine(struct hypervisor_engine *e, const struct engine_ops *ops, int device,
			 bool unchecked, const struct hypervisor_config *c)
{
	struct engine_config config = {
		.memory = c->memory,
		.model = c->model,
		.vcpus = c->vcpus,
		.code_cache = c->code_cache,
		.device = device,
		.unchecked = unchecked,
		.opaque = c->opaque,
		.extint_vector = c->extint_vector,
	};
	int err;

	*e = (struct hypervisor_engine){.ops = ops};
	err = ops->create(&e->engine, &config);
	if (!err)
		err = hypervisor_map(e, c->memory);
	if (!err)
		err = hypervisor_create_vcpus(e, c);
	if (err)
		hypervisor_destroy_engine(e);
	return err;
}

int
hypervisor_create(struct hypervisor **out, const struct hypervisor_config *config)
{
	struct hypervisor *h = calloc(1, sizeof(*h));
	int err = -ENOMEM;

	if (!h)
		return err;
	h->config = *config;
	pthread_rwlock_init(&h->seat, NULL);
	h->states = aligned_alloc(64, align_up(config->vcpus * sizeof(*h->states), 64));
	if (h->states)
		err = hypervisor_create_engine(&h->now, config->ops, config->device,
					       config->unchecked, config);
	if (err) {
		hypervisor_destroy(h);
		return err;
	}
	*out = h;
	return 0;
}

void
hypervisor_destroy(struct hypervisor *h)
{
	if (!h)
		return;
	hypervisor_wait_leaver(h);
	hypervisor_destroy_engine(&h->other);
	hypervisor_destroy_engine(&h->now);
	pthread_rwlock_destroy(&h->seat);
	free(h->states);
	free(h);
}

const struct engine_ops *
hypervisor_ops(const struct hypervisor *h)
{
	return h->now.ops;
}

struct vcpus *
hypervisor_vcpus(const struct hypervisor *h)
{
	return h->now.vcpus;
}

/* ---- what the engine is told ---- */

void
hypervisor_send_msi(struct hypervisor *h, u64 address, u32 data)
{
	pthread_rwlock_rdlock(&h->seat);
	h->now.ops->send_msi(h->now.engine, address, data);
	pthread_rwlock_unlock(&h->seat);
}

void
hypervisor_set_extint(struct hypervisor *h, bool level)
{
	pthread_rwlock_rdlock(&h->seat);
	h->extint = level;
	h->now.ops->set_extint(h->now.engine, level);
	pthread_rwlock_unlock(&h->seat);
}

static void
hypervisor_tell_routes(const struct hypervisor *h, const struct hypervisor_engine *e)
{
	if (e->ops->set_ioapic_routes)
		e->ops->set_ioapic_routes(e->engine, h->routes, h->route_count);
}

void
hypervisor_set_routes(struct hypervisor *h, const struct ioapic_route *routes, unsigned count)
{
	if (count > HYPERVISOR_ROUTES)
		count = HYPERVISOR_ROUTES;
	memcpy(h->routes, routes, count * sizeof(*routes));
	h->route_count = count;
	hypervisor_tell_routes(h, &h->now);
}

static int
hypervisor_bind(const struct hypervisor_engine *e, const struct hypervisor_binding *b)
{
	if (!e->ops->bind_notify)
		return -ENOTSUP;
	return e->ops->bind_notify(e->engine, b->gpa, b->size, b->eventfd);
}

static void
hypervisor_unbind(const struct hypervisor_engine *e, const struct hypervisor_binding *b)
{
	if (e->ops->unbind_notify)
		e->ops->unbind_notify(e->engine, b->gpa, b->size, b->eventfd);
}

int
hypervisor_bind_notify(struct hypervisor *h, u64 gpa, unsigned size, int eventfd)
{
	struct hypervisor_binding b = {gpa, size, eventfd};
	int err;

	if (h->bound_count == HYPERVISOR_BINDINGS)
		return -ENOSPC;
	err = hypervisor_bind(&h->now, &b);
	if (!err)
		h->bound[h->bound_count++] = b;
	return err;
}

void
hypervisor_unbind_notify(struct hypervisor *h, u64 gpa, unsigned size, int eventfd)
{
	for (unsigned i = 0; i < h->bound_count; i++) {
		struct hypervisor_binding b = h->bound[i];

		if (b.gpa != gpa || b.size != size || b.eventfd != eventfd)
			continue;
		h->bound[i] = h->bound[--h->bound_count];
		hypervisor_unbind(&h->now, &b);
		return;
	}
}

/* ---- another takes its place ---- */

int
hypervisor_prepare(struct hypervisor *h, const struct engine_ops *ops, int device, bool unchecked)
{
	hypervisor_wait_leaver(h); /* there are never more than two */
	return hypervisor_create_engine(&h->other, ops, device, unchecked, &h->config);
}

/* States of one moment, in which the kvm clock is the same for all: the furthest. */
static int
hypervisor_get_states(struct hypervisor *h)
{
	u64 host_tsc = __builtin_ia32_rdtsc(), clock = 0;
	int err = 0;

	for (unsigned i = 0; i < h->config.vcpus && !err; i++) {
		struct cpu_state *s = &h->states[i];

		err = vcpus_get_state(h->now.vcpus, i, s);
		/* Not told: a moment too early, so that no clock goes back. */
		if (!err && !s->host_tsc)
			s->host_tsc = host_tsc;
		if (!err && s->kvmclock > clock)
			clock = s->kvmclock;
	}
	for (unsigned i = 0; i < h->config.vcpus && !err; i++)
		h->states[i].kvmclock = clock;
	return err;
}

static int
hypervisor_set_states(struct hypervisor *h)
{
	int err = 0;

	for (unsigned i = 0; i < h->config.vcpus && !err; i++)
		err = vcpus_set_state(h->other.vcpus, i, &h->states[i]);
	return err;
}

/* What cannot be bound there comes as an MMIO exit, and does the same. */
static void
hypervisor_move_bindings(struct hypervisor *h)
{
	for (unsigned i = 0; i < h->bound_count; i++) {
		hypervisor_unbind(&h->now, &h->bound[i]);
		hypervisor_bind(&h->other, &h->bound[i]);
	}
}

int
hypervisor_take_over(struct hypervisor *h)
{
	struct hypervisor_engine old = h->now;
	int err;

	pthread_rwlock_wrlock(&h->seat);
	err = hypervisor_get_states(h);
	if (!err)
		err = hypervisor_set_states(h);
	if (!err) {
		hypervisor_move_bindings(h);
		hypervisor_tell_routes(h, &h->other);
		h->other.ops->set_extint(h->other.engine, h->extint);
		h->now = h->other;
		h->other = old;
	}
	pthread_rwlock_unlock(&h->seat);
	return err;
}

void
hypervisor_dismiss(struct hypervisor *h)
{
	hypervisor_wait_leaver(h);
	h->leaving = h->other;
	h->other = (struct hypervisor_engine){0};
	h->is_leaving = pthread_create(&h->leaver, NULL, hypervisor_leaver, &h->leaving) == 0;
	if (!h->is_leaving)
		hypervisor_destroy_engine(&h->leaving);
}
