/*
 * Unpacks the payload of a bzImage: gzip, xz, zstd or lz4 (legacy frames), each
 * followed by the unpacked size as 32 bits, little-endian.
 */
#ifndef BOOT_UNPACK_H
#define BOOT_UNPACK_H

#include "base/types.h"

struct unpacked {
	u8 *data;
	u64 size;
};

/* Zeroed memory of SIZE bytes for a moment, in huge pages where the host has them; NULL if there
 * is none. */
u8 *unpack_alloc(u64 size);
void unpack_release(u8 *data, u64 size);

/* 0, -ENOTSUP if the packing is not known, -EFBIG if more than LIMIT bytes come
 * out, -ENOMEM, or -EBADMSG if the data are damaged. */
int unpack(const u8 *packed, u64 size, u64 limit, struct unpacked *out);
void unpack_free(struct unpacked *out);

#endif
