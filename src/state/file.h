/*
 * The frame of a saved state: sections one after the other, each with a name, an
 * instance, a version, a length and a checksum (XXH64), and a trailer that
 * proves that all are there. docs/state.md describes every byte.
 *
 *	header	magic format flags ram-size checksum
 *	section	name instance version flags length checksum, payload
 *	...
 *	section	"end": how many there were, and a checksum over their checksums
 *
 * A file is written and read front to back. Everything that comes from one is
 * hostile: lengths are bounded before anything is allocated, and a section is
 * given out only if its checksum is right.
 */
#ifndef STATE_FILE_H
#define STATE_FILE_H

#include <sys/types.h>

#include "base/types.h"
#include "state/state.h"

enum {
	STATE_FORMAT = 1,
	STATE_HEADER = 32,
	STATE_SECTION_HEADER = 64,
	STATE_SECTIONS_MAX = 1 << 20,
	STATE_CHUNK_MAX = (1 << 20) + (64 << 10), /* payload of any section */
	STATE_OPTIONAL = 1, /* section flag: who does not know the name may skip it */
};
#define STATE_MAGIC "BIGA\r\n\x1a\x01"

/* Where bytes go to or come from, so that tests can make it fail. Bytes done, or -errno. */
struct state_io {
	void *opaque;
	ssize_t (*read)(void *opaque, void *data, size_t len);
	ssize_t (*write)(void *opaque, const void *data, size_t len);
	int (*sync)(void *opaque); /* 0 or -errno */
};

/* Plain reads, writes and fsync of FD, which stays the caller's. */
struct state_io state_io_fd(int fd);

/* ---- writing: after the first failure all others do nothing and give it back ---- */

struct state_writer {
	const struct state_io *io;
	u64 digest;
	u32 sections;
	int error;
	u64 bytes; /* written so far */
};

int state_write_begin(struct state_writer *w, const struct state_io *io, u64 ram_size);
/* BUF has STATE_SECTION_HEADER bytes of room, which are filled in, and then LEN of payload. */
int state_write_section(struct state_writer *w, const char *name, u32 instance, u32 version,
			u32 flags, u8 *buf, size_t len);
/* The same from anywhere. */
int state_write_bytes(struct state_writer *w, const char *name, u32 instance, u32 version,
		      const void *data, size_t len);
int state_write_list(struct state_writer *w, const struct state_list *list, u64 now);
/* The trailer, and everything onto the disk. */
int state_write_end(struct state_writer *w);

/* ---- reading ---- */

struct state_section {
	char name[STATE_NAME];
	u32 instance, version, flags;
	size_t len;
	const u8 *data; /* holds until the next read */
};

struct state_reader {
	const struct state_io *io;
	u64 ram_size;
	u64 digest;
	u32 sections;
	bool over;
	u8 *buf; /* STATE_CHUNK_MAX */
	char *why;
	size_t why_size;
};

/* Reads the header. WHY, where every refusal leaves one line, is kept. 0, or -errno and WHY; to
 * be closed in either case. */
int state_read_begin(struct state_reader *r, const struct state_io *io, char *why, size_t why_size);
void state_read_close(struct state_reader *r);
/* The next section: 1; 0 after a good trailer, behind which the file ends; -errno and WHY. */
int state_read_section(struct state_reader *r, struct state_section *section);

#endif
