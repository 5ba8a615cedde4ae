/*
 * See pages.h. The order that makes it safe: a vCPU that wants to translate a
 * page sets its bit in page_code, then reads page_writers; a vCPU that wants a
 * write entry sets its bit in page_writers, then reads page_code (leaf_may_write).
 * So at least one of two that meet sees the other.
 */
#include "engine/translator/pages.h"

#include <sched.h>

#include "engine/translator/block.h"
#include "engine/translator/leaf/leaf_mmu.h"
#include "engine/translator/mmu.h"
#include "engine/translator/system.h"

/* A full barrier. Not __atomic_thread_fence, which ThreadSanitizer refuses. */
static void
pages_fence(void)
{
	__asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
}

u64
pages_fetch(struct vcpu *v, u64 linear)
{
	u64 ram = leaf_code(v, linear);
	struct walk_context ctx;
	struct walk_result r;

	if (ram != UINT64_MAX)
		return ram;
	if (vcpu_long_mode(v) && !vcpu_canonical(linear)) {
		vcpu_raise_code(v, VECTOR_GP, 0);
		return UINT64_MAX;
	}
	leaf_walk_context(v, &ctx);
	if (walk(&ctx, linear, WALK_EXEC | leaf_walk_flags(v, leaf_current_set(v)), &r) != 0) {
		v->cr2 = linear;
		vcpu_raise_code(v, VECTOR_PF, r.error);
	}
	return UINT64_MAX;
}

void
pages_kick(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	__atomic_store_n(&t->poll, NULL, __ATOMIC_SEQ_CST);
}

void
pages_wake(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);

	pages_kick(v);
	pthread_mutex_lock(&t->mail.lock);
	pthread_cond_signal(&t->mail.wake);
	pthread_mutex_unlock(&t->mail.lock);
}

/* Number by which the receiver's `done` tells that it was read. */
static u64
pages_send(struct vcpu *to, enum mail_kind kind, u64 page)
{
	struct translation *t = vcpu_translation(to);
	const struct mail *last;
	u64 number;

	pthread_mutex_lock(&t->mail.lock);
	last = t->mail.count ? &t->mail.queue[t->mail.count - 1] : NULL;
	if (last && last->kind == kind && last->page == page)
		; /* nobody has read it yet: it says this too */
	else if (t->mail.count < MAIL_MAX)
		t->mail.queue[t->mail.count++] = (struct mail){kind, page};
	else
		t->mail.overflow = true;
	number = ++t->mail.posted;
	pthread_mutex_unlock(&t->mail.lock);
	pages_wake(to);
	return number;
}

void
pages_post_init(struct vcpu *to)
{
	struct translation *t = vcpu_translation(to);

	pthread_mutex_lock(&t->mail.lock);
	t->mail.init = true;
	t->mail.sipi = false;
	pthread_mutex_unlock(&t->mail.lock);
	pages_wake(to);
}

void
pages_post_sipi(struct vcpu *to, u8 vector)
{
	struct translation *t = vcpu_translation(to);

	pthread_mutex_lock(&t->mail.lock);
	if (!t->mail.sipi)
		t->mail.sipi_vector = vector;
	t->mail.sipi = true;
	pthread_mutex_unlock(&t->mail.lock);
	pages_wake(to);
}

void
pages_starts(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	bool init, sipi;
	u8 vector;

	pthread_mutex_lock(&t->mail.lock);
	init = t->mail.init;
	sipi = t->mail.sipi;
	vector = t->mail.sipi_vector;
	t->mail.init = t->mail.sipi = false;
	pthread_mutex_unlock(&t->mail.lock);
	if (init)
		system_init(v);
	if (sipi)
		system_sipi(v, vector);
}

/* Takes the write entries to a RAM page out of all TLBs of V. */
static void
pages_drop_writes(struct vcpu *v, u64 page)
{
	struct translation *t = vcpu_translation(v);
	u64 host = (u64)v->engine->ram + (page << 12);

	for (unsigned s = 0; s < TLB_SETS; s++) {
		struct tlb_entry *entry = t->sets[s]->entry;

		for (unsigned i = 0; i < TLB_ALL; i++)
			if (entry[i].write_host == host)
				entry[i].write = TLB_EMPTY(i);
	}
	translation_forget_stack(t);
	__atomic_fetch_and(&v->engine->page_writers[page], (u16)~BIT(v->index), __ATOMIC_SEQ_CST);
}

/* Too much mail to know it all. The block that runs is needed until its end. */
static void
pages_forget_all(struct vcpu *v)
{
	mmu_flush_all(v);
	vcpu_translation(v)->flush_wanted = true;
	pages_kick(v);
}

static void
pages_read_one(struct vcpu *v, const struct mail *m)
{
	switch (m->kind) {
	case MAIL_DROP_CODE:
		block_drop(v, m->page << 12, MEMORY_PAGE);
		break;
	case MAIL_DROP_WRITES:
		pages_drop_writes(v, m->page);
		break;
	}
}

void
pages_mail(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	struct mail queue[MAIL_MAX];
	unsigned count;
	bool overflow;
	u64 number;

	pthread_mutex_lock(&t->mail.lock);
	count = t->mail.count;
	for (unsigned i = 0; i < count; i++)
		queue[i] = t->mail.queue[i];
	overflow = t->mail.overflow;
	number = t->mail.posted;
	t->mail.count = 0;
	t->mail.overflow = false;
	pthread_mutex_unlock(&t->mail.lock);
	for (unsigned i = 0; i < count; i++)
		pages_read_one(v, &queue[i]);
	if (overflow)
		pages_forget_all(v);
	__atomic_store_n(&t->mail.done, number, __ATOMIC_SEQ_CST);
}

/* Waits until TO has read letter NUMBER or is outside guest code (it reads before it enters). */
static void
pages_await(struct vcpu *v, struct vcpu *to, u64 number)
{
	struct translation *t = vcpu_translation(to), *own = vcpu_translation(v);

	while (__atomic_load_n(&t->mail.done, __ATOMIC_SEQ_CST) < number &&
	       __atomic_load_n(&t->in_guest, __ATOMIC_SEQ_CST)) {
		if (translation_kicked(own))
			pages_mail(v);
		pages_park(v); /* TO may be waiting for this vCPU to stop */
		sched_yield();
	}
}

bool
pages_protected(const struct vcpu *v, u64 ram)
{
	u16 holders = __atomic_load_n(&v->engine->page_code[ram >> 12], __ATOMIC_SEQ_CST);

	return (holders & BIT(v->index)) != 0;
}

void
pages_protect(struct vcpu *v, u64 ram)
{
	struct engine *e = v->engine;
	u64 page = ram >> 12;
	u16 writers;

	__atomic_fetch_or(&e->page_code[page], (u16)BIT(v->index), __ATOMIC_SEQ_CST);
	writers = __atomic_load_n(&e->page_writers[page], __ATOMIC_SEQ_CST);
	if (!writers)
		return;
	for (unsigned i = 0; i < e->vcpus; i++) {
		if (!(writers & BIT(i)) || !e->vcpu[i])
			continue;
		if (i == v->index)
			pages_drop_writes(v, page);
		else
			pages_await(v, e->vcpu[i], pages_send(e->vcpu[i], MAIL_DROP_WRITES, page));
	}
}

static void
pages_written_others(struct engine *e, struct vcpu *self, u64 page)
{
	u16 holders = __atomic_load_n(&e->page_code[page], __ATOMIC_SEQ_CST);

	for (unsigned i = 0; i < e->vcpus; i++)
		if ((holders & BIT(i)) && e->vcpu[i] && e->vcpu[i] != self)
			pages_send(e->vcpu[i], MAIL_DROP_CODE, page);
}

void
pages_written(struct vcpu *v, u64 ram, u64 len)
{
	struct engine *e = v->engine;
	u64 page = ram >> 12;

	/* The store is visible before the look: else a vCPU that just began to translate this
	 * page could have read the old bytes and not be seen here. */
	pages_fence();
	if (!__atomic_load_n(&e->page_code[page], __ATOMIC_SEQ_CST))
		return;
	block_drop(v, ram, len);
	pages_written_others(e, v, page);
}

void
pages_written_by_host(struct engine *e, u64 ram, u64 len)
{
	pages_fence();
	for (u64 page = ram >> 12; page <= (ram + len - 1) >> 12; page++) {
		if (e->dirty)
			__atomic_fetch_or(&e->dirty[page >> 6], BIT64(page & 63), __ATOMIC_RELAXED);
		if (__atomic_load_n(&e->page_code[page], __ATOMIC_SEQ_CST))
			pages_written_others(e, NULL, page);
	}
}

void
pages_park(struct vcpu *v)
{
	struct engine *e = v->engine;
	struct translation *t = vcpu_translation(v);
	u32 holder = __atomic_load_n(&e->exclusive, __ATOMIC_SEQ_CST);

	if (holder == 0 || holder == v->index + 1)
		return;
	do { /* the next one may have taken it before we are seen to be inside again */
		__atomic_store_n(&t->in_guest, 0, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&e->exclusive, __ATOMIC_SEQ_CST))
			sched_yield();
		__atomic_store_n(&t->in_guest, 1, __ATOMIC_SEQ_CST);
	} while (__atomic_load_n(&e->exclusive, __ATOMIC_SEQ_CST));
	pages_mail(v); /* nobody waited for it to be read */
	pages_kick(v); /* and whoever came meanwhile is looked at soon */
}

void
pages_stop_others(struct vcpu *v)
{
	struct engine *e = v->engine;
	u32 none = 0;

	while (!__atomic_compare_exchange_n(&e->exclusive, &none, v->index + 1, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		pages_park(v);
		none = 0;
	}
	for (unsigned i = 0; i < e->vcpus; i++) {
		if (!e->vcpu[i] || i == v->index)
			continue;
		pages_kick(e->vcpu[i]);
		while (__atomic_load_n(&vcpu_translation(e->vcpu[i])->in_guest, __ATOMIC_SEQ_CST))
			sched_yield();
	}
}

void
pages_release_others(struct vcpu *v)
{
	u32 self = v->index + 1;

	__atomic_compare_exchange_n(&v->engine->exclusive, &self, 0, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
}
