/*
 * The engine contract (engine/engine.h) for the translator: creation, the memory
 * of a vCPU, interrupts from outside, state.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/log.h"
#include "engine/translator/block.h"
#include "engine/translator/emit.h"
#include "engine/translator/mmu.h"
#include "engine/translator/mode.h"
#include "engine/translator/pages.h"
#include "engine/translator/run.h"
#include "engine/translator/signals.h"
#include "engine/translator/state.h"
#include "engine/translator/stub.h"
#include "engine/translator/system.h"

struct engine_vcpu {
	struct vcpu v;
};

enum { CODE_CACHE_DEFAULT = 128 << 20, CODE_CACHE_LEAST = 1 << 20, CODE_CACHE_MOST = 128 << 20 };

static struct vcpu *
translator_vcpu(struct engine_vcpu *vcpu)
{
	return &vcpu->v;
}

static void
translator_probe(int device, struct engine_probe *result)
{
	(void)device;
	*result = (struct engine_probe){.usable = true};
}

static void *
translator_map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void
translator_unmap(void *p, size_t size)
{
	if (p)
		munmap(p, size);
}

static void
translator_written(void *opaque, u64 gpa, u64 len)
{
	struct engine *e = opaque;
	u64 ram = engine_ram_offset(e, gpa);

	if (len && ram != UINT64_MAX)
		pages_written_by_host(e, ram, len);
}

static void
translator_destroy(struct engine *e)
{
	u64 pages = e->ram_size >> 12;

	memory_remove_listener(e->memory, translator_written, e);
	translator_unmap(e->page_code, pages * sizeof(u16));
	translator_unmap(e->page_writers, pages * sizeof(u16));
	translator_unmap(e->dirty, pages / 8 + 8);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static u32
translator_options(void)
{
	static const char *const names[] = {"nochain", "single", "noleaf", "stats"};
	const char *text = getenv("BIGA_TRANSLATOR");
	u32 options = 0;

	for (unsigned i = 0; text && i < ARRAY_LEN(names); i++)
		if (strstr(text, names[i]))
			options |= BIT(i);
	return options;
}

/* Code of one vCPU, whose share of the cache is SHARE bytes: the rest of it is for the records of
 * blocks (translator_alloc), half as much, and the table of blocks, a sixteenth. */
static size_t
translator_code_size(u64 share)
{
	if (share < CODE_CACHE_LEAST)
		share = CODE_CACHE_LEAST;
	if (share > CODE_CACHE_MOST)
		share = CODE_CACHE_MOST;
	return (size_t)align_down(share * 5 / 8, 4096);
}

static int
translator_create(struct engine **out, const struct engine_config *config)
{
	struct engine *e;
	u64 total = config->code_cache ? config->code_cache : CODE_CACHE_DEFAULT, pages;
	int error;

	if (config->vcpus == 0 || config->vcpus > VCPUS_MAX)
		return -EINVAL;
	error = signals_install();
	if (error)
		return error;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->memory = config->memory;
	e->model = config->model;
	e->config = *config;
	e->vcpus = config->vcpus;
	e->options = translator_options();
	e->ram = memory_ram_host(config->memory);
	e->ram_size = memory_ram_size(config->memory);
	e->low_size = memory_low_size(config->memory);
	e->code_cache = translator_code_size(total / config->vcpus);
	pthread_mutex_init(&e->lock, NULL);
	pages = e->ram_size >> 12;
	e->page_code = translator_map(pages * sizeof(u16));
	e->page_writers = translator_map(pages * sizeof(u16));
	if (!e->page_code || !e->page_writers ||
	    memory_add_listener(e->memory, translator_written, e)) {
		translator_destroy(e);
		return -ENOMEM;
	}
	*out = e;
	return 0;
}

static int
translator_map_ram(struct engine *e, u64 gpa, u64 size, u64 offset, bool writable)
{
	(void)writable;
	return engine_ram_offset(e, gpa) == offset && offset + size <= e->ram_size ? 0 : -EINVAL;
}

static int
translator_unmap_ram(struct engine *e, u64 gpa, u64 size)
{
	(void)e, (void)gpa, (void)size;
	return -ENOTSUP;
}

static int
translator_take_dirty(struct engine *e, u64 gpa, u64 size, u64 *bitmap)
{
	(void)e, (void)gpa, (void)size, (void)bitmap;
	return -ENOTSUP;
}

/* Interrupts between CPUs and from devices (AMD64 APM 2, 16.6; 16.13 for messages). */
static void
translator_deliver(struct vcpu *v, enum lapic_delivery delivery, u8 vector, bool level)
{
	switch (delivery) {
	case LAPIC_NMI:
		lapic_post_nmi(&v->lapic);
		break;
	case LAPIC_INIT:
		pages_post_init(v);
		return;
	case LAPIC_STARTUP:
		pages_post_sipi(v, vector);
		return;
	case LAPIC_SMI:
		return;
	default:
		lapic_post(&v->lapic, vector, level);
		break;
	}
	pages_wake(v);
}

static bool
translator_targets(struct engine *e, struct vcpu *from, const struct lapic_ipi *ipi, unsigned i)
{
	struct vcpu *v = e->vcpu[i];

	if (!v)
		return false;
	switch (ipi->shorthand) {
	case 1:
		return v == from;
	case 2:
		return true;
	case 3:
		return v != from;
	default:
		return lapic_matches(&v->lapic, ipi->logical, ipi->destination,
				     from && from->lapic.x2apic);
	}
}

static void
translator_send_ipi(void *opaque, const struct lapic_ipi *ipi)
{
	struct vcpu *from = opaque;
	struct engine *e = from->engine;

	if (ipi->delivery == LAPIC_INIT && ipi->level && !ipi->assert)
		return; /* INIT level de-assert: nothing on anything newer than a Pentium */
	for (unsigned i = 0; i < e->vcpus; i++) {
		if (!translator_targets(e, from, ipi, i))
			continue;
		translator_deliver(e->vcpu[i], ipi->delivery, ipi->vector, false);
		if (ipi->delivery == LAPIC_LOWEST)
			return;
	}
}

static void
translator_send_msi(struct engine *e, u64 address, u32 data)
{
	/* Address: 19-12 destination, 11-5 its upper bits as KVM has them, 2 logical; 63-40
	 * likewise. */
	u32 destination = (u32)(address >> 12) & 0xff;
	bool logical = (address & 4) != 0, level = (data & 0x8000) != 0;
	enum lapic_delivery delivery = (enum lapic_delivery)((data >> 8) & 7);
	bool wide = (address >> 40) != 0;

	if (wide)
		destination |= (u32)(address >> 32) & 0xffffff00u;
	for (unsigned i = 0; i < e->vcpus; i++) {
		struct vcpu *v = e->vcpu[i];

		if (!v || !lapic_matches(&v->lapic, logical, destination, wide))
			continue;
		translator_deliver(v, delivery, (u8)data, level);
		if (delivery == LAPIC_LOWEST)
			return;
	}
}

static void
translator_set_extint(struct engine *e, bool asserted)
{
	__atomic_store_n(&e->extint, asserted, __ATOMIC_RELEASE);
	if (asserted && e->vcpu[0])
		pages_wake(e->vcpu[0]);
}

static void
translator_eoi(void *opaque, u8 vector)
{
	struct vcpu *v = opaque;
	struct translation *t = vcpu_translation(v);

	t->eoi[vector / 32] |= BIT(vector % 32);
	t->eoi_any = true;
}

static void
translator_set_timer(void *opaque, u64 deadline_ns)
{
	signals_timer_arm(opaque, deadline_ns);
}

static u64
translator_now(void *opaque)
{
	(void)opaque;
	return loop_now();
}

static u64
translator_guest_tsc(void *opaque)
{
	struct vcpu *v = opaque;

	return __builtin_ia32_rdtsc() + (u64)v->tsc_offset;
}

static u64
translator_tsc_to_ns(void *opaque, u64 guest_tsc)
{
	struct vcpu *v = opaque;
	i64 ahead = (i64)(guest_tsc - translator_guest_tsc(v));
	u64 now = loop_now();

	if (ahead <= 0)
		return now;
	return now + (u64)((unsigned __int128)(u64)ahead * 1000000000u / v->model->tsc_hz);
}

/* struct vcpu, struct translation, TLB sets and jump caches, code: one mapping. */
struct layout {
	size_t translation, sets, jumps, code, total;
};

static struct layout
translator_layout(size_t code_size)
{
	struct layout l;

	l.translation = (size_t)align_up(sizeof(struct engine_vcpu), 64);
	l.sets = (size_t)align_up(l.translation + sizeof(struct translation), 4096);
	l.jumps = (size_t)align_up(l.sets + TLB_SETS * sizeof(struct tlb), 4096);
	l.code = (size_t)align_up(l.jumps + TLB_SETS * sizeof(struct jump_cache), 4096);
	l.total = l.code + code_size;
	return l;
}

static int
translator_map_code(struct translation *t, size_t offset, size_t size)
{
	void *rx, *rw;

	t->code_fd = memfd_create("biga-code", MFD_CLOEXEC);
	if (t->code_fd < 0 || ftruncate(t->code_fd, (off_t)size))
		return -errno;
	rx = mmap(t->region + offset, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED,
		  t->code_fd, 0);
	rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, t->code_fd, 0);
	if (rx == MAP_FAILED || rw == MAP_FAILED)
		return -errno;
	close(t->code_fd);
	t->code_fd = -1;
	t->code_rx = rx;
	t->code_rw = rw;
	t->code_size = size;
	return 0;
}

static void
translator_place_sets(struct translation *t, const struct layout *l)
{
	struct tlb *sets = (struct tlb *)(void *)(t->region + l->sets);
	struct jump_cache *jumps = (struct jump_cache *)(void *)(t->region + l->jumps);

	for (unsigned i = 0; i < TLB_SETS; i++) {
		t->sets[i] = &sets[i];
		t->sets[i]->jumps = &jumps[i <= TLB_KERNEL_USER ? 0 : i];
		t->sets[i]->key = TLB_NONE;
		t->sets[i]->jumps->epoch = i + 1;
	}
	t->user_set = TLB_USER_FIRST;
}

static int
translator_alloc(struct translation *t, const struct engine *e)
{
	t->arena_size = t->code_size / 2;
	t->block_max = t->code_size / 128;
	t->arena = translator_map(t->arena_size);
	t->hash = translator_map(BLOCK_HASH * sizeof(*t->hash));
	t->page_blocks = translator_map((e->ram_size >> 12) * sizeof(*t->page_blocks));
	t->by_address = translator_map(t->block_max * sizeof(*t->by_address));
	return t->arena && t->hash && t->page_blocks && t->by_address ? 0 : -ENOMEM;
}

static void
translator_vcpu_destroy(struct engine_vcpu *vcpu)
{
	struct vcpu *v = translator_vcpu(vcpu);
	struct translation *t = vcpu_translation(v);
	struct engine *e = v->engine;

	/* A VM that loses a vCPU is at its end here: what devices still write is no news to it. */
	memory_remove_listener(e->memory, translator_written, e);
	e->vcpu[v->index] = NULL;
	if (e->options & OPTION_STATS)
		log_warning("vcpu %u: %zu blocks, %llu instructions, %zu KiB code, %llu flushes; "
			    "%llu jumps, %llu links, "
			    "%llu fills, %llu leaves, %llu helpers, %llu accesses",
			    v->index, t->block_count, (unsigned long long)t->count.translated,
			    t->code_used >> 10, (unsigned long long)t->flushes,
			    (unsigned long long)t->count.jumps, (unsigned long long)t->count.links,
			    (unsigned long long)t->count.fills, (unsigned long long)t->count.leaves,
			    (unsigned long long)t->count.helpers,
			    (unsigned long long)t->count.accesses);
	signals_timer_destroy(v);
	signals_free_stack(v);
	translator_unmap(t->arena, t->arena_size);
	translator_unmap(t->hash, BLOCK_HASH * sizeof(*t->hash));
	translator_unmap(t->page_blocks, (e->ram_size >> 12) * sizeof(*t->page_blocks));
	translator_unmap(t->by_address, t->block_max * sizeof(*t->by_address));
	translator_unmap(t->code_rw, t->code_size);
	pthread_cond_destroy(&t->mail.wake);
	pthread_mutex_destroy(&t->mail.lock);
	munmap(t->region, t->region_size);
}

static void
translator_init_mail(struct translation *t)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->mail.wake, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&t->mail.lock, NULL);
}

/* The host TSC that all states stand for which are taken or set while no vCPU enters or leaves
 * run: so the counters of all vCPUs move together. */
static u64
translator_state_tsc(struct engine *e)
{
	u64 tsc = 0, now = __builtin_ia32_rdtsc();

	if (__atomic_compare_exchange_n(&e->state_tsc, &tsc, now, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return now;
	return tsc;
}

static void
translator_states_over(struct engine *e)
{
	if (__atomic_load_n(&e->state_tsc, __ATOMIC_ACQUIRE))
		__atomic_store_n(&e->state_tsc, 0, __ATOMIC_RELEASE);
}

static void
translator_init_vcpu(struct engine *e, struct vcpu *v, unsigned index)
{
	struct translation *t = vcpu_translation(v);
	struct lapic_host host = {.opaque = v,
				  .send_ipi = translator_send_ipi,
				  .eoi = translator_eoi,
				  .set_timer = translator_set_timer,
				  .now_ns = translator_now,
				  .guest_tsc = translator_guest_tsc,
				  .tsc_to_ns = translator_tsc_to_ns};
	struct emit out = {t->code_rw, t->code_rw + t->code_size, t->code_rx - t->code_rw};
	struct cpu_state *reset;

	v->index = index;
	v->engine = e;
	v->model = e->model;
	t->poll = &t->poll_word;
	stub_make(v, &out);
	t->code_stubs = t->code_used = (size_t)align_up((u64)(out.at - t->code_rw), 64);
	t->cold_start = t->cold_used = (size_t)align_down(t->code_size / 2, 4096);
	lapic_init(&v->lapic, index, &host);
	mmu_flush_all(v);
	reset = aligned_alloc(64, align_up(sizeof(*reset), 64));
	if (reset) {
		cpu_state_reset(reset, index);
		vcpu_set_state(v, reset, translator_state_tsc(e));
	}
	free(reset);
}

static int
translator_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **out)
{
	struct layout l = translator_layout(e->code_cache);
	u8 *region = translator_map(l.total);
	struct translation *t;
	struct vcpu *v;
	int error;

	if (!region)
		return -ENOMEM;
	v = &((struct engine_vcpu *)(void *)region)->v;
	t = (struct translation *)(void *)(region + l.translation);
	v->tr_state = t;
	t->region = region;
	t->region_size = l.total;
	translator_init_mail(t);
	translator_place_sets(t, &l);
	v->engine = e;
	v->index = index;
	error = translator_map_code(t, l.code, e->code_cache);
	if (!error)
		error = translator_alloc(t, e);
	if (error) {
		translator_vcpu_destroy((struct engine_vcpu *)(void *)region);
		return error;
	}
	translator_init_vcpu(e, v, index);
	e->vcpu[index] = v;
	*out = (struct engine_vcpu *)(void *)region;
	return 0;
}

static int
translator_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
	struct vcpu *v = translator_vcpu(vcpu);
	int error;

	translator_states_over(v->engine);
	error = run_vcpu(v, exit);
	translator_states_over(v->engine);
	return error;
}

static void
translator_kick(struct engine_vcpu *vcpu)
{
	struct translation *t = vcpu_translation(translator_vcpu(vcpu));

	pthread_mutex_lock(&t->mail.lock);
	t->mail.kick = true;
	pthread_mutex_unlock(&t->mail.lock);
	pages_wake(translator_vcpu(vcpu));
}

static int
translator_get_state(struct engine_vcpu *vcpu, struct cpu_state *state)
{
	struct vcpu *v = translator_vcpu(vcpu);

	u64 now = loop_now();

	/* What other processors sent since it came back is part of its state, and so is a timer
	 * that ran out. */
	if (lapic_take_nmi(&v->lapic))
		v->nmi_pending = true;
	if (v->lapic.timer_deadline && now >= v->lapic.timer_deadline)
		lapic_timer_expire(&v->lapic, now);
	if (v->replay.count == 0 && !vcpu_translation(v)->answer_due)
		pages_starts(v);
	vcpu_get_state(v, state, translator_state_tsc(v->engine));
	return 0;
}

static int
translator_set_state(struct engine_vcpu *vcpu, const struct cpu_state *state)
{
	struct vcpu *v = translator_vcpu(vcpu);

	if (!state->host_tsc)
		return vcpu_set_state(v, state, translator_state_tsc(v->engine));
	/* Its clocks never stopped: the next state that is taken is later. */
	translator_states_over(v->engine);
	return vcpu_set_state(v, state, state->host_tsc);
}

static int
translator_bind_notify(struct engine *e, u64 gpa, unsigned size, int eventfd)
{
	int result = -ENOSPC;

	pthread_mutex_lock(&e->lock);
	if (e->notify_count < ARRAY_LEN(e->notify)) {
		e->notify[e->notify_count++] = (struct engine_notify){gpa, size, eventfd};
		result = 0;
	}
	pthread_mutex_unlock(&e->lock);
	return result;
}

static int
translator_unbind_notify(struct engine *e, u64 gpa, unsigned size, int eventfd)
{
	int result = -ENOENT;

	pthread_mutex_lock(&e->lock);
	for (unsigned i = 0; i < e->notify_count; i++) {
		struct engine_notify *n = &e->notify[i];

		if (n->gpa != gpa || n->size != size || n->fd != eventfd)
			continue;
		*n = e->notify[--e->notify_count];
		result = 0;
		break;
	}
	pthread_mutex_unlock(&e->lock);
	return result;
}

static int
translator_bind_irq(struct engine *e, int eventfd, u64 address, u32 data)
{
	(void)e, (void)eventfd, (void)address, (void)data;
	return -ENOTSUP; /* the machine then sends its messages by send_msi */
}

static int
translator_unbind_irq(struct engine *e, int eventfd)
{
	(void)e, (void)eventfd;
	return -ENOTSUP;
}

static int
translator_set_ioapic_routes(struct engine *e, const struct ioapic_route *routes, unsigned count)
{
	(void)e, (void)routes, (void)count;
	return 0; /* a level-triggered vector is known by its TMR bit */
}

const struct engine_ops engine_translator = {
	.name = "biga",
	.probe = translator_probe,
	.create = translator_create,
	.destroy = translator_destroy,
	.map = translator_map_ram,
	.unmap = translator_unmap_ram,
	.take_dirty = translator_take_dirty,
	.send_msi = translator_send_msi,
	.set_extint = translator_set_extint,
	.vcpu_create = translator_vcpu_create,
	.vcpu_destroy = translator_vcpu_destroy,
	.run = translator_run,
	.kick = translator_kick,
	.get_state = translator_get_state,
	.set_state = translator_set_state,
	.bind_notify = translator_bind_notify,
	.unbind_notify = translator_unbind_notify,
	.bind_irq = translator_bind_irq,
	.unbind_irq = translator_unbind_irq,
	.set_ioapic_routes = translator_set_ioapic_routes,
};
