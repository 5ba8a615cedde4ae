/*
 * Little-endian access to unaligned bytes.  Every format and every device
 * register of a PC is little-endian; so is every host that Biga runs on.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <string.h>

#include "base/types.h"

static inline u16
get_le16(const void *p)
{
	u16 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline u32
get_le32(const void *p)
{
	u32 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline u64
get_le64(const void *p)
{
	u64 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void
put_le16(void *p, u16 v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void
put_le32(void *p, u32 v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void
put_le64(void *p, u64 v)
{
	memcpy(p, &v, sizeof(v));
}

#endif
