/*
 * Memory in pieces (see pages.h). Slots are used in turn: when a slot's turn
 * comes again, its last piece is written out (or unpacked) first.
 */
#define _GNU_SOURCE
#include "state/pages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/bytes.h"
#include "state/pool.h"

enum {
	PAGE = 4096,
	PAGES = STATE_PIECE / PAGE,
	PIECE_HOW = PAGES / 8,
	PIECE_HEADER = PIECE_HOW + 8,
	HOW_PLAIN = 0,
	HOW_ZSTD = 1,
	ZSTD_LEVEL = 1,
	SLOTS = 16,
};

struct pages_slot {
	u64 piece;
	size_t len;  /* of the payload; 0: nothing there */
	u8 *payload; /* behind room for a section's header */
	u8 *plain;   /* STATE_PIECE */
	u8 *buf;     /* both of them */
	ZSTD_CCtx *packer;
	ZSTD_DCtx *unpacker;
};

struct state_pages {
	struct pool *pool;
	struct pages_slot slots[SLOTS];
	u8 *host;
	u64 size;
	u64 next; /* piece that comes next, or a later one */
	u64 turn; /* slots used so far */
};

static bool
pages_zero(const u8 *page)
{
	const u64 *words = (const u64 *)(const void *)page;
	u64 any = 0;

	for (unsigned i = 0; i < PAGE / 8; i += 8) {
		for (unsigned j = 0; j < 8; j++)
			any |= words[i + j];
		if (any)
			return false;
	}
	return true;
}

static size_t
pages_in_piece(const struct state_pages *p, u64 piece)
{
	u64 left = p->size - piece * STATE_PIECE;

	return left < STATE_PIECE ? (size_t)left / PAGE : PAGES;
}

static void
pages_free(struct state_pages *p)
{
	pool_destroy(p->pool);
	for (unsigned i = 0; i < SLOTS; i++) {
		free(p->slots[i].buf);
		ZSTD_freeCCtx(p->slots[i].packer);
		ZSTD_freeDCtx(p->slots[i].unpacker);
	}
	free(p);
}

static int
pages_new(struct state_pages **out, u8 *host, u64 size, int (*work)(void *, unsigned))
{
	struct state_pages *p = calloc(1, sizeof(*p));
	size_t room = STATE_SECTION_HEADER + STATE_CHUNK_MAX;
	int rc = 0;

	if (!p)
		return -ENOMEM;
	p->host = host;
	p->size = size;
	for (unsigned i = 0; i < SLOTS && !rc; i++) {
		struct pages_slot *slot = &p->slots[i];

		slot->buf = malloc(room + STATE_PIECE);
		slot->packer = ZSTD_createCCtx();
		slot->unpacker = ZSTD_createDCtx();
		if (!slot->buf || !slot->packer || !slot->unpacker)
			rc = -ENOMEM;
		slot->payload = slot->buf + STATE_SECTION_HEADER;
		slot->plain = slot->buf + room;
	}
	if (!rc)
		rc = pool_create(&p->pool, SLOTS, work, p);
	if (rc) {
		pages_free(p);
		return rc;
	}
	*out = p;
	return 0;
}

/* ---- packing ---- */

/* Gathers the pages that are not zero and sets their bits: bytes. */
static size_t
pages_gather(const struct state_pages *p, struct pages_slot *slot)
{
	const u8 *from = p->host + slot->piece * STATE_PIECE;
	size_t count = pages_in_piece(p, slot->piece), len = 0;

	memset(slot->payload, 0, PIECE_HEADER);
	for (size_t i = 0; i < count; i++) {
		if (pages_zero(from + i * PAGE))
			continue;
		memcpy(slot->plain + len, from + i * PAGE, PAGE);
		slot->payload[i / 8] |= (u8)BIT(i % 8);
		len += PAGE;
	}
	return len;
}

static int
pages_pack(void *opaque, unsigned index)
{
	struct state_pages *p = opaque;
	struct pages_slot *slot = &p->slots[index];
	size_t len = pages_gather(p, slot), packed;

	slot->len = 0;
	if (len == 0)
		return 0;
	packed = ZSTD_compressCCtx(slot->packer, slot->payload + PIECE_HEADER,
				   STATE_CHUNK_MAX - PIECE_HEADER, slot->plain, len, ZSTD_LEVEL);
	if (!ZSTD_isError(packed) && packed < len) {
		put_le32(slot->payload + PIECE_HOW, HOW_ZSTD);
		slot->len = PIECE_HEADER + packed;
		return 0;
	}
	memcpy(slot->payload + PIECE_HEADER, slot->plain, len);
	slot->len = PIECE_HEADER + len;
	return 0;
}

static int
pages_put(struct state_pages *p, struct state_writer *w, const char *name, unsigned index)
{
	struct pages_slot *slot = &p->slots[index];

	pool_wait(p->pool, index);
	if (!slot->len)
		return 0;
	state_write_section(w, name, (u32)slot->piece, 1, 0, slot->buf, slot->len);
	slot->len = 0;
	return w->error;
}

/* The first piece from PIECE on that may hold anything: reading a hole would fill it. */
static u64
pages_next(int fd, u64 piece, u64 pieces)
{
	off_t data;

	if (fd < 0 || piece >= pieces)
		return piece;
	data = lseek(fd, (off_t)(piece * STATE_PIECE), SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? pieces : piece;
	return (u64)data / STATE_PIECE;
}

int
state_write_pages(struct state_writer *w, const char *name, const u8 *host, u64 size, int fd)
{
	u64 pieces = (size + STATE_PIECE - 1) / STATE_PIECE;
	u64 piece = pages_next(fd, 0, pieces);
	struct state_pages *p;
	int rc;

	if (w->error)
		return w->error;
	rc = pages_new(&p, (u8 *)(uintptr_t)host, size, pages_pack);
	if (rc)
		return w->error = rc;
	for (; piece < pieces && !rc; piece = pages_next(fd, piece + 1, pieces)) {
		unsigned index = (unsigned)(p->turn++ % SLOTS);

		rc = pages_put(p, w, name, index);
		p->slots[index].piece = piece;
		if (!rc)
			pool_start(p->pool, index);
	}
	for (unsigned i = 0; i < SLOTS && !rc; i++)
		rc = pages_put(p, w, name, (unsigned)(p->turn++ % SLOTS));
	pages_free(p);
	return rc;
}

/* ---- unpacking ---- */

static void
pages_scatter(struct state_pages *p, const struct pages_slot *slot, const u8 *plain)
{
	u8 *to = p->host + slot->piece * STATE_PIECE;

	for (unsigned i = 0; i < PAGES; i++) {
		if (!(slot->payload[i / 8] & BIT(i % 8)))
			continue;
		memcpy(to + (size_t)i * PAGE, plain, PAGE);
		plain += PAGE;
	}
}

static int
pages_unpack(void *opaque, unsigned index)
{
	struct state_pages *p = opaque;
	struct pages_slot *slot = &p->slots[index];
	const u8 *data = slot->payload + PIECE_HEADER;
	size_t len = slot->len - PIECE_HEADER, want = 0, got;

	for (unsigned i = 0; i < PIECE_HOW; i++)
		want += (size_t)__builtin_popcount(slot->payload[i]) * PAGE;
	if (get_le32(slot->payload + PIECE_HOW) == HOW_PLAIN) {
		if (len != want)
			return -EINVAL;
		pages_scatter(p, slot, data);
		return 0;
	}
	got = ZSTD_decompressDCtx(slot->unpacker, slot->plain, STATE_PIECE, data, len);
	if (ZSTD_isError(got) || got != want)
		return -EINVAL;
	pages_scatter(p, slot, slot->plain);
	return 0;
}

int
state_pages_create(struct state_pages **out, u8 *host, u64 size)
{
	return pages_new(out, host, size, pages_unpack);
}

void
state_pages_destroy(struct state_pages *pages)
{
	if (pages)
		pages_free(pages);
}

static int
pages_refuse(u64 piece, char *why, size_t why_size)
{
	snprintf(why, why_size, "the state has an impossible piece of memory, %llu",
		 (unsigned long long)piece);
	return -EINVAL;
}

/* Bits only for pages that there are, and a known way of packing. */
static bool
pages_valid(const struct state_pages *p, const struct state_section *s)
{
	u64 piece = s->instance;

	if (s->version != 1 || piece < p->next || s->len < PIECE_HEADER ||
	    piece >= (p->size + STATE_PIECE - 1) / STATE_PIECE)
		return false;
	for (size_t i = pages_in_piece(p, piece); i < PAGES; i++)
		if (s->data[i / 8] & BIT(i % 8))
			return false;
	return get_le32(s->data + PIECE_HOW) <= HOW_ZSTD && get_le32(s->data + PIECE_HOW + 4) == 0;
}

int
state_pages_take(struct state_pages *p, const struct state_section *s, char *why, size_t why_size)
{
	unsigned index = (unsigned)(p->turn++ % SLOTS);
	struct pages_slot *slot = &p->slots[index];

	if (pool_wait(p->pool, index))
		return pages_refuse(slot->piece, why, why_size);
	if (!pages_valid(p, s))
		return pages_refuse(s->instance, why, why_size);
	memcpy(slot->payload, s->data, s->len);
	slot->len = s->len;
	slot->piece = s->instance;
	p->next = slot->piece + 1;
	pool_start(p->pool, index);
	return 0;
}

int
state_pages_finish(struct state_pages *p, char *why, size_t why_size)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (pool_wait(p->pool, i))
			return pages_refuse(p->slots[i].piece, why, why_size);
	return 0;
}
