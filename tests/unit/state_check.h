/*
 * What every object that is saved must stand: saved, loaded into a twin and saved
 * again it is the same to the byte; and whatever bytes come from a file, it
 * refuses them or works on.
 */
#ifndef UNIT_STATE_CHECK_H
#define UNIT_STATE_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "state/state.h"

typedef void state_fill_fn(void *opaque, struct state_list *list);

/* All sections of a list, each in a buffer of its own. */
struct state_image {
	unsigned count;
	u8 *data[64];
	size_t len[64];
};

static inline void
state_image_take(struct state_image *image, state_fill_fn *fill, void *opaque, u64 now)
{
	struct state_list list = {0};

	fill(opaque, &list);
	assert_int_equal(list.error, 0);
	assert_true(list.count > 0 && list.count <= 64);
	image->count = list.count;
	for (unsigned i = 0; i < list.count; i++) {
		image->len[i] = state_measure(&list.items[i]);
		image->data[i] = malloc(image->len[i] + 1);
		state_encode(&list.items[i], now, image->data[i]);
	}
	state_list_free(&list);
}

static inline void
state_image_free(struct state_image *image)
{
	for (unsigned i = 0; i < image->count; i++)
		free(image->data[i]);
}

/* 0 if IMAGE was loaded into what FILL lists, else nothing has changed. */
static inline int
state_image_give(const struct state_image *image, state_fill_fn *fill, void *opaque, u64 now,
		 char *why, size_t why_size)
{
	struct state_list list = {0};
	int rc = 0;

	fill(opaque, &list);
	for (unsigned i = 0; i < image->count && !rc; i++)
		rc = state_stage(&list, list.items[i].type->name, list.items[i].instance,
				 list.items[i].type->version, image->data[i], image->len[i], now,
				 why, why_size);
	if (!rc)
		rc = state_complete(&list, why, why_size);
	if (!rc)
		state_commit(&list);
	state_list_free(&list);
	return rc;
}

/* From one object into its twin, and out again. */
static inline void
state_check_twin(state_fill_fn *fill, void *from, void *to)
{
	struct state_image a, b;
	u64 now = loop_now();
	char why[200] = "";

	state_image_take(&a, fill, from, now);
	if (state_image_give(&a, fill, to, now, why, sizeof(why)))
		fail_msg("%s", why);
	state_image_take(&b, fill, to, now);
	assert_int_equal(a.count, b.count);
	for (unsigned i = 0; i < a.count; i++) {
		assert_int_equal(a.len[i], b.len[i]);
		assert_memory_equal(a.data[i], b.data[i], a.len[i]);
	}
	state_image_free(&a);
	state_image_free(&b);
}

/* Bytes of FROM's image, spoilt here and there, into TO; POKE then uses TO as a guest would.
 * How many were taken. */
static inline unsigned
state_check_hostile(state_fill_fn *fill, void *from, void *to, unsigned rounds,
		    void (*poke)(void *to))
{
	struct state_image image;
	u64 now = loop_now();
	unsigned taken = 0;
	char why[200];

	srand(42);
	for (unsigned i = 0; i < rounds; i++) {
		state_image_take(&image, fill, from, now);
		for (unsigned n = 1 + (unsigned)rand() % 3; n > 0; n--) {
			unsigned part = (unsigned)rand() % image.count;

			if (image.len[part])
				image.data[part][(size_t)rand() % image.len[part]] =
					(u8)(rand() % 2 ? 0xff : rand());
		}
		why[0] = '\0';
		if (state_image_give(&image, fill, to, now, why, sizeof(why)) == 0) {
			taken++;
			poke(to);
		} else {
			assert_true(why[0] && !strchr(why, '\n'));
		}
		state_image_free(&image);
	}
	return taken;
}

#endif
