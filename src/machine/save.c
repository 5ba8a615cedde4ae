/*
 * Saving and loading a machine (see save.h).
 */
#include "machine/save.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu_saved.h"
#include "state/pages.h"

/* What is saved of the machine itself, and room for what comes. */
struct save_parts {
	u32 vcpus, resets;
	u32 made_vcpus; /* of this machine; not in the file */
	struct cpu_model model;
	struct cpu_state *cpus;
	struct state_list list;
};

static const struct state_field save_fields[] = {
	STATE_NUMBER(struct save_parts, vcpus),
	STATE_NUMBER(struct save_parts, resets),
	STATE_END,
};

static bool
save_check(const void *staged)
{
	const struct save_parts *parts = staged;

	return parts->vcpus == parts->made_vcpus;
}

static const struct state_type save_type = {"machine", 1, save_fields, save_check, NULL};

static void
save_close(struct save_parts *parts)
{
	state_list_free(&parts->list);
	free(parts->cpus);
	free(parts);
}

/* The list of everything, in the file's order. */
static struct save_parts *
save_open(const struct save_machine *m)
{
	struct save_parts *parts = calloc(1, sizeof(*parts));
	size_t size = align_up(m->vcpu_count * sizeof(struct cpu_state), 64);

	if (!parts)
		return NULL;
	parts->cpus = aligned_alloc(64, size);
	if (!parts->cpus) {
		free(parts);
		return NULL;
	}
	memset(parts->cpus, 0, size);
	parts->vcpus = parts->made_vcpus = m->vcpu_count;
	parts->resets = *m->resets;
	parts->model = *m->model;
	cpu_saved_model(&parts->model, &parts->list);
	state_list_add(&parts->list, &save_type, 0, parts, sizeof(*parts));
	pc_state(m->pc, &parts->list);
	for (u32 i = 0; i < m->vcpu_count; i++)
		cpu_saved_state(&parts->cpus[i], i, &parts->list);
	return parts;
}

/* ---- saving ---- */

static int
save_fail(int err, const char *what, char *why, size_t why_size)
{
	snprintf(why, why_size, "%s: %s", what, strerror(-err));
	return err;
}

/* The kvm clock of all is the furthest of theirs, so that none goes back. */
static int
save_get_cpus(const struct save_machine *m, struct save_parts *parts)
{
	u64 clock = 0;
	int err = 0;

	for (unsigned i = 0; i < m->vcpu_count && !err; i++) {
		err = vcpus_get_state(m->vcpus, i, &parts->cpus[i]);
		if (parts->cpus[i].kvmclock > clock)
			clock = parts->cpus[i].kvmclock;
	}
	for (unsigned i = 0; i < m->vcpu_count; i++)
		parts->cpus[i].kvmclock = clock;
	return err;
}

int
save_write(const struct save_machine *m, const struct state_io *io, const char *note, u64 now,
	   char *why, size_t why_size)
{
	u64 size = memory_ram_size(m->memory);
	struct save_parts *parts = save_open(m);
	struct state_writer w;
	int err;

	if (!parts)
		return save_fail(-ENOMEM, "the state cannot be gathered", why, why_size);
	err = save_get_cpus(m, parts);
	if (err) {
		save_close(parts);
		return save_fail(err, "the processors do not give their state", why, why_size);
	}
	state_write_begin(&w, io, size);
	state_write_bytes(&w, "note", 0, 1, note, strlen(note));
	state_write_list(&w, &parts->list, now);
	state_write_pages(&w, "ram", memory_ram_host(m->memory), size, memory_ram_fd(m->memory));
	err = state_write_end(&w);
	save_close(parts);
	return err ? save_fail(err, "the state cannot be written", why, why_size) : 0;
}

/* ---- loading ---- */

struct save_load {
	const struct save_machine *m;
	struct save_parts *parts;
	struct state_pages *pages;
	struct state_reader reader;
	u64 now;
	bool noted;
	char *why;
	size_t why_size;
};

static int PRINTF_LIKE(2, 3) save_refuse(struct save_load *l, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(l->why, l->why_size, fmt, args);
	va_end(args);
	return -EINVAL;
}

static int
save_take(struct save_load *l, const struct state_section *s)
{
	if (strcmp(s->name, "ram") == 0)
		return state_pages_take(l->pages, s, l->why, l->why_size);
	if (strcmp(s->name, "note") == 0) {
		if (l->noted)
			return save_refuse(l, "the state has two notes");
		l->noted = true;
		return 0;
	}
	if ((s->flags & STATE_OPTIONAL) && !state_list_has(&l->parts->list, s->name))
		return 0;
	return state_stage(&l->parts->list, s->name, s->instance, s->version, s->data, s->len,
			   l->now, l->why, l->why_size);
}

static int
save_read_all(struct save_load *l, const struct state_io *io)
{
	u64 size = memory_ram_size(l->m->memory);
	struct state_section s;
	int err = state_read_begin(&l->reader, io, l->why, l->why_size);

	if (!err && l->reader.ram_size != size)
		err = save_refuse(l, "the state is of a machine with %lluM of memory, not %lluM",
				  (unsigned long long)(l->reader.ram_size >> 20),
				  (unsigned long long)(size >> 20));
	if (!err)
		err = memory_clear(l->m->memory);
	if (!err)
		err = state_pages_create(&l->pages, memory_ram_host(l->m->memory), size);
	while (!err && (err = state_read_section(&l->reader, &s)) > 0)
		err = save_take(l, &s);
	if (!err)
		err = state_pages_finish(l->pages, l->why, l->why_size);
	if (!err)
		err = state_complete(&l->parts->list, l->why, l->why_size);
	return err;
}

/* The machine was made with the state's own table; if not, its guest would notice. That is
 * the list's first item, and staged. */
static int
save_check_model(struct save_load *l)
{
	struct cpu_model *staged = l->parts->list.items[0].staged, model = *l->m->model;
	struct state_list list = {0};
	u8 *buf[2] = {NULL, NULL};
	size_t len;
	int err = 0;

	cpu_saved_model(&model, &list);
	cpu_saved_model(staged, &list);
	len = list.error ? 0 : state_measure(&list.items[0]);
	for (unsigned i = 0; i < 2 && len; i++)
		buf[i] = malloc(len);
	if (!buf[0] || !buf[1]) {
		err = save_refuse(l, "out of memory");
	} else {
		for (unsigned i = 0; i < 2; i++)
			state_encode(&list.items[i], 0, buf[i]);
		if (memcmp(buf[0], buf[1], len) != 0)
			err = save_refuse(l, "the state is of a machine with another CPU model");
	}
	free(buf[0]);
	free(buf[1]);
	state_list_free(&list);
	return err;
}

static int
save_set_cpus(struct save_load *l)
{
	for (unsigned i = 0; i < l->m->vcpu_count; i++)
		if (vcpus_set_state(l->m->vcpus, i, &l->parts->cpus[i]))
			return save_refuse(l, "the state has an impossible processor, %u", i);
	return 0;
}

int
save_read(const struct save_machine *m, const struct state_io *io, u64 now, char *why,
	  size_t why_size)
{
	struct save_load l = {.m = m, .now = now, .why = why, .why_size = why_size};
	int err;

	why[0] = '\0';
	l.parts = save_open(m);
	if (!l.parts)
		return save_fail(-ENOMEM, "the state cannot be loaded", why, why_size);
	err = save_read_all(&l, io);
	if (!err)
		err = save_check_model(&l);
	if (!err) {
		state_commit(&l.parts->list);
		*m->resets = l.parts->resets;
		err = save_set_cpus(&l);
	}
	if (err && !why[0])
		save_fail(err, "the state cannot be loaded", why, why_size);
	state_pages_destroy(l.pages);
	state_read_close(&l.reader);
	save_close(l.parts);
	return err;
}

/* ---- a first look ---- */

static int
save_peek_note(struct state_reader *r, char **note)
{
	struct state_section s;
	int err = state_read_section(r, &s);

	if (err <= 0)
		return err ? err : -EINVAL;
	if (strcmp(s.name, "note") != 0 || s.version != 1 || s.len > SAVE_NOTE_MAX ||
	    memchr(s.data, 0, s.len)) {
		snprintf(r->why, r->why_size, "the state does not say what it is of");
		return -EINVAL;
	}
	if (!note)
		return 0;
	*note = strndup((const char *)s.data, s.len);
	return *note ? 0 : -ENOMEM;
}

static int
save_peek_model(struct state_reader *r, struct cpu_model *model)
{
	struct state_list list = {0};
	struct state_section s;
	int err = state_read_section(r, &s);

	if (err <= 0)
		return err ? err : -EINVAL;
	memset(model, 0, sizeof(*model));
	cpu_saved_model(model, &list);
	err = state_stage(&list, s.name, s.instance, s.version, s.data, s.len, 0, r->why,
			  r->why_size);
	if (!err)
		state_commit(&list);
	state_list_free(&list);
	return err;
}

int
save_peek(const struct state_io *io, char **note, struct cpu_model *model, u64 *ram_size, char *why,
	  size_t why_size)
{
	struct state_reader r;
	int err = state_read_begin(&r, io, why, why_size);

	if (!err && ram_size)
		*ram_size = r.ram_size;
	if (!err)
		err = save_peek_note(&r, note);
	if (!err && model) {
		err = save_peek_model(&r, model);
		if (err && note) {
			free(*note);
			*note = NULL;
		}
	}
	state_read_close(&r);
	return err;
}
