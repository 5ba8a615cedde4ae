/*
 * The walker over field tables. It goes over the rows of a type's table once
 * for each of its purposes; what it does with an element is its mode's affair.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state/state.h"

enum walk_mode {
	WALK_MEASURE,
	WALK_SAVE,
	WALK_LOAD, /* from the file into the object */
	WALK_COPY, /* from another copy of the object */
};

struct walk {
	enum walk_mode mode;
	u8 *root;	/* the object */
	const u8 *from; /* WALK_COPY: the other one */
	u8 *out;
	const u8 *in;
	size_t at, len; /* in the file's bytes */
	u32 version;
	u64 now;
	const char *bad; /* the row that was refused */
};

static u64
walk_get(const u8 *p, u32 width)
{
	u64 value = 0;

	memcpy(&value, p, width);
	return value;
}

static u64
walk_age(const struct walk *w, u64 instant)
{
	if (instant == 0)
		return 0;
	return (i64)(w->now - instant) < 0 ? 1 : w->now - instant + 1;
}

static u64
walk_instant(const struct walk *w, u64 age)
{
	u64 instant = w->now - (age - 1);

	if (age == 0)
		return 0;
	return instant ? instant : 1;
}

static void
walk_save(struct walk *w, const struct state_field *f, const u8 *element)
{
	u64 value;

	if (f->kind == STATE_INSTANT_KIND) {
		value = walk_age(w, walk_get(element, 8));
		memcpy(w->out + w->at, &value, 8);
	} else {
		memcpy(w->out + w->at, element, f->width);
	}
}

static bool
walk_valid(const struct state_field *f, u64 value)
{
	switch (f->kind) {
	case STATE_NUMBER_KIND:
		return value >= f->min && value <= f->max;
	case STATE_FLAG_KIND:
		return value <= 1;
	case STATE_INSTANT_KIND:
		return value <= BIT64(62); /* 146 years */
	default:
		return true;
	}
}

static void
walk_load(struct walk *w, const struct state_field *f, u8 *element)
{
	u64 value;

	if (f->width > w->len - w->at) {
		w->bad = f->name;
		return;
	}
	if (f->kind == STATE_BYTES_KIND) {
		memcpy(element, w->in + w->at, f->width);
		return;
	}
	value = walk_get(w->in + w->at, f->width);
	if (!walk_valid(f, value)) {
		w->bad = f->name;
		return;
	}
	if (f->kind == STATE_INSTANT_KIND)
		value = walk_instant(w, value);
	memcpy(element, &value, f->width);
}

static void
walk_element(struct walk *w, const struct state_field *f, u8 *element)
{
	if (w->mode == WALK_SAVE)
		walk_save(w, f, element);
	else if (w->mode == WALK_LOAD)
		walk_load(w, f, element);
	else if (w->mode == WALK_COPY)
		memcpy(element, w->from + (element - w->root), f->width);
	w->at += f->width;
}

static void
walk_fields(struct walk *w, const struct state_field *fields, u8 *base)
{
	for (const struct state_field *f = fields; f->name && !w->bad; f++) {
		u32 count = f->count;

		if (f->since > w->version)
			continue;
		if (f->counter)
			count = (u32)walk_get(w->root + f->counter, sizeof(unsigned));
		for (u32 i = 0; i < count && !w->bad; i++) {
			u8 *element = base + f->offset + i * f->stride;

			if (f->kind == STATE_GROUP_KIND)
				walk_fields(w, f->group, element);
			else
				walk_element(w, f, element);
		}
	}
}

/* ---- lists ---- */

void
state_list_add(struct state_list *list, const struct state_type *type, u32 instance, void *object,
	       size_t size)
{
	struct state_item *items = list->items;

	if (list->count == list->room) {
		list->room = list->room ? 2 * list->room : 32;
		items = realloc(items, list->room * sizeof(*items));
		if (!items) {
			list->room = list->count;
			list->error = -ENOMEM;
			return;
		}
		list->items = items;
	}
	list->items[list->count++] = (struct state_item){
		.type = type, .instance = instance, .object = object, .size = size};
}

void
state_list_free(struct state_list *list)
{
	for (unsigned i = 0; i < list->count; i++)
		free(list->items[i].staged);
	free(list->items);
	*list = (struct state_list){0};
}

bool
state_list_has(const struct state_list *list, const char *name)
{
	for (unsigned i = 0; i < list->count; i++)
		if (strcmp(list->items[i].type->name, name) == 0)
			return true;
	return false;
}

/* ---- saving ---- */

size_t
state_measure(const struct state_item *item)
{
	struct walk w = {
		.mode = WALK_MEASURE, .root = item->object, .version = item->type->version};

	walk_fields(&w, item->type->fields, w.root);
	return w.at;
}

void
state_encode(const struct state_item *item, u64 now, u8 *buf)
{
	struct walk w = {.mode = WALK_SAVE,
			 .root = item->object,
			 .out = buf,
			 .version = item->type->version,
			 .now = now};

	walk_fields(&w, item->type->fields, w.root);
}

/* ---- loading ---- */

static struct state_item *
state_find(struct state_list *list, const char *name, u32 instance)
{
	for (unsigned i = 0; i < list->count; i++) {
		struct state_item *item = &list->items[i];

		if (item->instance == instance && strcmp(item->type->name, name) == 0)
			return item;
	}
	return NULL;
}

/* Loads into STAGED. What is wrong, or NULL. */
static const char *
state_decode(const struct state_item *item, void *staged, u32 version, const u8 *data, size_t len,
	     u64 now)
{
	struct walk w = {.mode = WALK_LOAD,
			 .root = staged,
			 .in = data,
			 .len = len,
			 .version = version,
			 .now = now};

	walk_fields(&w, item->type->fields, w.root);
	if (w.bad)
		return w.bad;
	if (w.at != len)
		return "length";
	if (item->type->check && !item->type->check(staged))
		return "combination of values";
	return NULL;
}

int
state_stage(struct state_list *list, const char *name, u32 instance, u32 version, const u8 *data,
	    size_t len, u64 now, char *why, size_t why_size)
{
	struct state_item *item = state_find(list, name, instance);
	const char *bad;
	void *staged;

	if (!item) {
		snprintf(why, why_size, "this machine has no part \"%s\" %u, which the state names",
			 name, instance);
		return -ENOENT;
	}
	if (item->staged) {
		snprintf(why, why_size, "the state names the part \"%s\" %u twice", name, instance);
		return -EEXIST;
	}
	if (version == 0 || version > item->type->version) {
		snprintf(
			why, why_size,
			"the part \"%s\" %u of the state is of version %u, newer than this program "
			"knows (%u)",
			name, instance, version, item->type->version);
		return -EINVAL;
	}
	staged = malloc(item->size);
	if (!staged) {
		snprintf(why, why_size, "out of memory");
		return -ENOMEM;
	}
	memcpy(staged, item->object, item->size);
	bad = state_decode(item, staged, version, data, len, now);
	if (bad) {
		snprintf(why, why_size, "the part \"%s\" %u of the state has an impossible %s",
			 name, instance, bad);
		free(staged);
		return -EINVAL;
	}
	item->staged = staged;
	return 0;
}

int
state_complete(const struct state_list *list, char *why, size_t why_size)
{
	if (list->error) {
		snprintf(why, why_size, "out of memory");
		return list->error;
	}
	for (unsigned i = 0; i < list->count; i++) {
		const struct state_item *item = &list->items[i];

		if (item->staged)
			continue;
		snprintf(why, why_size, "the state lacks the part \"%s\" %u of this machine",
			 item->type->name, item->instance);
		return -EINVAL;
	}
	return 0;
}

static void
state_commit_item(struct state_item *item)
{
	struct walk w = {.mode = WALK_COPY,
			 .root = item->object,
			 .from = item->staged,
			 .version = item->type->version};

	walk_fields(&w, item->type->fields, w.root);
}

void
state_commit(struct state_list *list)
{
	for (unsigned i = 0; i < list->count; i++)
		state_commit_item(&list->items[i]);
	for (unsigned i = 0; i < list->count; i++)
		if (list->items[i].type->loaded)
			list->items[i].type->loaded(list->items[i].object);
}
