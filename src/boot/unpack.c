/*
 * The libraries' one-shot decoders, into one mapping of the size that the
 * payload promises; what does not keep the promise is refused.
 */
#define _GNU_SOURCE
#include "boot/unpack.h"

#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>

#include "base/bytes.h"

enum { UNPACK_TRAILER = 4, LZ4_LEGACY_MAGIC = 0x184c2102 };

#define UNPACK_XZ_MEMORY (256ull << 20)

struct unpack_method {
	u8 magic[6];
	u8 magic_size;
	int (*decode)(const u8 *packed, u64 size, struct unpacked *out);
};

static int
unpack_gzip(const u8 *packed, u64 size, struct unpacked *out)
{
	z_stream z = {.next_in = (u8 *)(uintptr_t)packed,
		      .avail_in = (uInt)size,
		      .next_out = out->data,
		      .avail_out = (uInt)out->size};
	int rc;

	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return -ENOMEM;
	rc = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return rc == Z_STREAM_END && z.total_out == out->size ? 0 : -EBADMSG;
}

static int
unpack_xz(const u8 *packed, u64 size, struct unpacked *out)
{
	u64 memory = UNPACK_XZ_MEMORY;
	size_t from = 0, to = 0;
	lzma_ret rc = lzma_stream_buffer_decode(&memory, 0, NULL, packed, &from, size, out->data,
						&to, out->size);

	if (rc == LZMA_MEM_ERROR || rc == LZMA_MEMLIMIT_ERROR)
		return -ENOMEM;
	return rc == LZMA_OK && to == out->size ? 0 : -EBADMSG;
}

static int
unpack_zstd(const u8 *packed, u64 size, struct unpacked *out)
{
	size_t frame = ZSTD_findFrameCompressedSize(packed, size), n;

	if (ZSTD_isError(frame))
		return -EBADMSG;
	n = ZSTD_decompress(out->data, out->size, packed, frame);
	return !ZSTD_isError(n) && n == out->size ? 0 : -EBADMSG;
}

/* The magic, then blocks: 32 bits of packed size, data of at most 8 MiB unpacked. */
static int
unpack_lz4(const u8 *packed, u64 size, struct unpacked *out)
{
	u64 at = 4, done = 0, block, room;
	int n;

	while (done < out->size && size - at >= 4) {
		block = get_le32(packed + at);
		at += 4;
		if (block == LZ4_LEGACY_MAGIC)
			continue;
		if (block > size - at || block > INT32_MAX)
			return -EBADMSG;
		room = out->size - done < INT32_MAX ? out->size - done : INT32_MAX;
		n = LZ4_decompress_safe((const char *)packed + at, (char *)out->data + done,
					(int)block, (int)room);
		if (n < 0)
			return -EBADMSG;
		at += block;
		done += (u64)n;
	}
	return done == out->size ? 0 : -EBADMSG;
}

static const struct unpack_method unpack_methods[] = {
	{{0x1f, 0x8b}, 2, unpack_gzip},
	{{0xfd, '7', 'z', 'X', 'Z', 0}, 6, unpack_xz},
	{{0x28, 0xb5, 0x2f, 0xfd}, 4, unpack_zstd},
	{{0x02, 0x21, 0x4c, 0x18}, 4, unpack_lz4},
};

static const struct unpack_method *
unpack_find(const u8 *packed, u64 size)
{
	for (size_t i = 0; i < ARRAY_LEN(unpack_methods); i++) {
		const struct unpack_method *m = &unpack_methods[i];

		if (size > (u64)m->magic_size + UNPACK_TRAILER &&
		    memcmp(packed, m->magic, m->magic_size) == 0)
			return m;
	}
	return NULL;
}

u8 *
unpack_alloc(u64 size)
{
	void *data = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (data == MAP_FAILED)
		return NULL;
	madvise(data, size, MADV_HUGEPAGE);
	return data;
}

void
unpack_release(u8 *data, u64 size)
{
	munmap(data, size);
}

int
unpack(const u8 *packed, u64 size, u64 limit, struct unpacked *out)
{
	const struct unpack_method *method = unpack_find(packed, size);
	int rc;

	if (!method || size > UINT32_MAX)
		return -ENOTSUP;
	out->size = get_le32(packed + size - UNPACK_TRAILER);
	if (out->size == 0)
		return -EBADMSG;
	if (out->size > limit)
		return -EFBIG;
	out->data = unpack_alloc(out->size);
	if (!out->data)
		return -ENOMEM;
	/* gzip's own trailer is the size, so it stays part of the stream. */
	rc = method->decode(packed, method->decode == unpack_gzip ? size : size - UNPACK_TRAILER,
			    out);
	if (rc < 0)
		unpack_free(out);
	return rc;
}

void
unpack_free(struct unpacked *out)
{
	unpack_release(out->data, out->size);
	out->data = NULL;
}
