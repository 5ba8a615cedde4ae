/*
 * What a thing saves, declared: a table of fields says where they lie in its
 * struct and how wide they are in a file; one walker serves saving, loading and
 * committing. In a file every number is little-endian and as wide as its row
 * says, one after the other in the table's order; no struct is ever written.
 *
 *	struct pit { ... u8 mode; ... };
 *	static const struct state_field pit_fields[] = {
 *		STATE_MAX(struct pit, mode, 5), ... STATE_END};
 *	static const struct state_type pit_state_type = {"pit", 1, pit_fields, ...};
 *	state_list_add(list, &pit_state_type, 0, pit, sizeof(*pit));
 *
 * Loading has two steps. state_stage reads one section into a copy of the object
 * and judges it: bounds by the rows, what rows cannot say by type->check. Only
 * when all sections are there and good, state_commit copies the fields into the
 * objects and then calls their loaded hooks in the order of the list. So a file
 * that is refused has changed nothing.
 *
 * To add a field: a row at the end, with .since = the type's version + 1, which
 * becomes the type's version. A section of an older version leaves it as it is.
 */
#ifndef STATE_STATE_H
#define STATE_STATE_H

#include "base/types.h"

enum {
	STATE_NAME = 24,	    /* bytes of a section's name, its zero included */
	STATE_SECTION_MAX = 1 << 20 /* bytes of what one section of fields may have */
};

enum state_kind {
	STATE_NUMBER_KIND = 1, /* of 1, 2, 4 or 8 bytes, unsigned, from MIN to MAX */
	STATE_FLAG_KIND,       /* a bool: one byte, 0 or 1 */
	STATE_BYTES_KIND,      /* as they are */
	STATE_INSTANT_KIND,    /* host monotonic ns, 0: none. In the file: age + 1, or 0 */
	STATE_GROUP_KIND,      /* structs with rows of their own */
};

struct state_field {
	const char *name;
	enum state_kind kind;
	u32 width;	/* bytes of one element in the file */
	size_t offset;	/* of the first element in the object */
	size_t stride;	/* between elements */
	u32 count;	/* elements */
	size_t counter; /* or, if not 0: offset in the whole object of an unsigned that says how
			 * many. It belongs to the machine, not to the file. */
	u64 min, max;
	const struct state_field *group;
	u32 since; /* version of the type that brought it; 0 is 1 */
};

#define STATE_SIZE(type, member) sizeof(((type *)0)->member)
#define STATE_ROW(type, member, kind_, width_)                                                     \
	.name = #member, .kind = (kind_), .width = (u32)(width_),                                  \
	.offset = offsetof(type, member), .stride = STATE_SIZE(type, member), .count = 1

#define STATE_RANGE(type, member, low, high)                                                       \
	{                                                                                          \
		STATE_ROW(type, member, STATE_NUMBER_KIND, STATE_SIZE(type, member)),              \
			.min = (low), .max = (high)                                                \
	}
#define STATE_MAX(type, member, high) STATE_RANGE(type, member, 0, high)
#define STATE_NUMBER(type, member) STATE_RANGE(type, member, 0, UINT64_MAX)
#define STATE_FLAG(type, member)                                                                   \
	{                                                                                          \
		STATE_ROW(type, member, STATE_FLAG_KIND, 1)                                        \
	}
#define STATE_INSTANT(type, member)                                                                \
	{                                                                                          \
		STATE_ROW(type, member, STATE_INSTANT_KIND, 8)                                     \
	}
/* An array of bytes, or of numbers. */
#define STATE_BYTES(type, member)                                                                  \
	{                                                                                          \
		STATE_ROW(type, member, STATE_BYTES_KIND, STATE_SIZE(type, member))                \
	}
#define STATE_NUMBERS(type, member, high)                                                          \
	{                                                                                          \
		.name = #member, .kind = STATE_NUMBER_KIND,                                        \
		.width = (u32)STATE_SIZE(type, member[0]), .offset = offsetof(type, member),       \
		.stride = STATE_SIZE(type, member[0]),                                             \
		.count = (u32)(STATE_SIZE(type, member) / STATE_SIZE(type, member[0])),            \
		.max = (high)                                                                      \
	}
/* One struct, an array of them, an array of which the object's COUNT are in use. */
#define STATE_STRUCT(type, member, rows)                                                           \
	{                                                                                          \
		STATE_ROW(type, member, STATE_GROUP_KIND, 0), .group = (rows)                      \
	}
#define STATE_STRUCTS(type, member, rows)                                                          \
	{                                                                                          \
		.name = #member, .kind = STATE_GROUP_KIND, .offset = offsetof(type, member),       \
		.stride = STATE_SIZE(type, member[0]),                                             \
		.count = (u32)(STATE_SIZE(type, member) / STATE_SIZE(type, member[0])),            \
		.group = (rows)                                                                    \
	}
#define STATE_STRUCTS_OF(type, member, rows, counter_)                                             \
	{                                                                                          \
		.name = #member, .kind = STATE_GROUP_KIND, .offset = offsetof(type, member),       \
		.stride = STATE_SIZE(type, member[0]), .counter = offsetof(type, counter_),        \
		.group = (rows)                                                                    \
	}
#define STATE_END                                                                                  \
	{                                                                                          \
		.name = NULL                                                                       \
	}

struct state_type {
	const char *name; /* lower case, digits and '-' */
	u32 version;
	const struct state_field *fields; /* up to STATE_END */
	/* Whether a staged object makes sense as a whole. It is a byte copy of the live one (with
	 * its pointers) into which the fields were loaded; it may not be changed. May be NULL. */
	bool (*check)(const void *staged);
	/* All objects have their fields: derive the rest, arm timers. May be NULL. */
	void (*loaded)(void *object);
};

/* An object of a machine. */
struct state_item {
	const struct state_type *type;
	u32 instance;
	void *object;
	size_t size;
	void *staged; /* while loading, once its section was good */
};

/* Everything of a machine, in the order in which it is saved. */
struct state_list {
	struct state_item *items;
	unsigned count, room;
	int error; /* the first failure of state_list_add; saving and loading give it back */
};

/* SIZE bytes at OBJECT are what staging copies. */
void state_list_add(struct state_list *list, const struct state_type *type, u32 instance,
		    void *object, size_t size);
void state_list_free(struct state_list *list);

bool state_list_has(const struct state_list *list, const char *name);

/* Bytes of ITEM's section, and those bytes into BUF, which has room for them. NOW is the
 * monotonic time at which everything is saved. */
size_t state_measure(const struct state_item *item);
void state_encode(const struct state_item *item, u64 now, u8 *buf);

/* Judges a section: 0, or -EINVAL, -EEXIST, -ENOMEM, -ENOENT (no such item) and one line in WHY.
 * NOW is the monotonic time of this host at which everything is loaded. */
int state_stage(struct state_list *list, const char *name, u32 instance, u32 version,
		const u8 *data, size_t len, u64 now, char *why, size_t why_size);
/* Whether every item was staged: 0, or -EINVAL and WHY. */
int state_complete(const struct state_list *list, char *why, size_t why_size);
/* Nothing can fail any more. */
void state_commit(struct state_list *list);

#endif
