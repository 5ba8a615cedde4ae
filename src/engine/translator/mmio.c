/* See mmio.h. */
#include "engine/translator/mmio.h"

#include <string.h>
#include <unistd.h>

#include "engine/translator/mmu.h"
#include "engine/translator/pages.h"
#include "engine/translator/translation.h"

static bool
mmio_is_lapic(const struct vcpu *v, u64 gpa)
{
	return v->lapic.enabled && !v->lapic.x2apic &&
	       align_down(gpa, MEMORY_PAGE) == align_down(v->lapic.s.base_msr, MEMORY_PAGE);
}

/* Wakes the device bound to this address; true if there is one. */
static bool
mmio_notify(struct engine *e, u64 gpa, unsigned size)
{
	bool found = false;
	u64 one = 1;

	pthread_mutex_lock(&e->lock);
	for (unsigned i = 0; i < e->notify_count && !found; i++) {
		if (e->notify[i].gpa != gpa || (e->notify[i].size && e->notify[i].size != size))
			continue;
		found = write(e->notify[i].fd, &one, sizeof(one)) == sizeof(one);
	}
	pthread_mutex_unlock(&e->lock);
	return found;
}

static struct replay_entry *
mmio_replayed(struct vcpu *v, u64 address, unsigned size, bool port, bool write)
{
	struct replay *r = &v->replay;
	struct replay_entry *entry = &r->entries[r->next];

	if (r->next >= r->count)
		return NULL;
	if (entry->address != address || entry->size != size || entry->port != port ||
	    entry->write != write) {
		r->count = r->next; /* the instruction took another way: forget the rest */
		return NULL;
	}
	r->next++;
	return entry;
}

static int
mmio_ask(struct vcpu *v, u64 gpa, unsigned size, bool write, u64 data)
{
	v->exit = (struct engine_exit){.kind = EXIT_MMIO};
	v->exit.mmio.gpa = gpa;
	v->exit.mmio.size = (u8)size;
	v->exit.mmio.write = write;
	v->exit.mmio.data = data;
	return HELPER_EXIT;
}

int
mmio_read(struct vcpu *v, u64 gpa, unsigned size, void *buf)
{
	struct replay_entry *entry;
	u32 word;

	if (mmio_is_lapic(v, gpa)) {
		word = lapic_mmio_read(&v->lapic, (u32)gpa & 0xff0) >> (8 * (gpa & 3));
		memset(buf, 0, size);
		memcpy(buf, &word, size < 4 ? size : 4);
		return 0;
	}
	entry = mmio_replayed(v, gpa, size, false, false);
	if (!entry)
		return mmio_ask(v, gpa, size, false, 0);
	memcpy(buf, &entry->data, size);
	return 0;
}

static u64
mmio_value(const void *buf, unsigned size)
{
	u64 value = 0;

	memcpy(&value, buf, size);
	return value;
}

/* What needs no machine: true if done. */
static bool
mmio_write_here(struct vcpu *v, u64 gpa, unsigned size, u64 value)
{
	if (mmio_is_lapic(v, gpa)) {
		if ((gpa & 15) == 0)
			lapic_mmio_write(&v->lapic, (u32)gpa & 0xff0, (u32)value);
		pages_kick(v); /* priorities may have changed, an interrupt ended */
		return true;
	}
	return v->engine->notify_count && mmio_notify(v->engine, gpa, size);
}

int
mmio_write(struct vcpu *v, u64 gpa, unsigned size, const void *buf)
{
	u64 value = mmio_value(buf, size);

	if (mmio_replayed(v, gpa, size, false, true))
		return 0;
	if (mmio_write_here(v, gpa, size, value)) {
		if (v->replay.count < ARRAY_LEN(v->replay.entries)) {
			v->replay.entries[v->replay.count++] =
				(struct replay_entry){gpa, value, (u8)size, false, true};
			v->replay.next++;
		}
		return 0;
	}
	return mmio_ask(v, gpa, size, true, value);
}

void
mmio_write_later(struct vcpu *v, u64 gpa, unsigned size, const void *buf)
{
	struct translation *t = vcpu_translation(v);
	u64 value = mmio_value(buf, size);

	if (mmio_write_here(v, gpa, size, value))
		return;
	if (t->mmio_writes_next == t->mmio_writes_count)
		t->mmio_writes_next = t->mmio_writes_count = 0;
	if (t->mmio_writes_count == ARRAY_LEN(t->mmio_writes))
		return;
	t->mmio_writes[t->mmio_writes_count].gpa = gpa;
	t->mmio_writes[t->mmio_writes_count].data = value;
	t->mmio_writes[t->mmio_writes_count++].size = (u8)size;
}

bool
mmio_next_write(struct vcpu *v)
{
	struct translation *t = vcpu_translation(v);
	u64 i = t->mmio_writes_next;

	if (i == t->mmio_writes_count)
		return false;
	t->mmio_writes_next++;
	t->writing_later = true;
	mmio_ask(v, t->mmio_writes[i].gpa, t->mmio_writes[i].size, true, t->mmio_writes[i].data);
	return true;
}

void
mmio_answer(struct vcpu *v, const struct engine_exit *exit)
{
	struct replay *r = &v->replay;
	struct replay_entry *entry = &r->entries[r->count];

	if (r->count == ARRAY_LEN(r->entries))
		return;
	if (exit->kind == EXIT_PORT)
		*entry = (struct replay_entry){exit->port.port, exit->port.data, exit->port.size,
					       true, exit->port.write};
	else
		*entry = (struct replay_entry){exit->mmio.gpa, exit->mmio.data, exit->mmio.size,
					       false, exit->mmio.write};
	r->count++;
}

static int
mmio_port(struct vcpu *v, u16 port, unsigned size, bool write, u32 data)
{
	v->exit = (struct engine_exit){.kind = EXIT_PORT};
	v->exit.port.port = port;
	v->exit.port.size = (u8)size;
	v->exit.port.write = write;
	v->exit.port.data = data;
	return HELPER_EXIT;
}

int
mmu_port_read(struct vcpu *v, u16 port, unsigned size, u32 *value)
{
	struct replay_entry *entry = mmio_replayed(v, port, size, true, false);

	if (!entry)
		return mmio_port(v, port, size, false, 0);
	*value = (u32)entry->data;
	return 0;
}

int
mmu_port_write(struct vcpu *v, u16 port, unsigned size, u32 value)
{
	if (mmio_replayed(v, port, size, true, true))
		return 0;
	return mmio_port(v, port, size, true, value);
}
