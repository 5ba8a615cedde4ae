/*
 * Framing of saved states (see file.h).
 *
 *	header	0 magic(8)  8 format(4)  12 flags(4)  16 ram size(8)  24 xxh64 of 0..23
 *	section	0 name(24)  24 instance(4)  28 version(4)  32 flags(4)  36 zero(4)
 *		40 length(8)  48 zero(8)  56 xxh64 of 0..55 and of the payload
 *	trailer	0 sections before it(4)  4 zero(4)  8 xxh64 over their checksums
 */
#include "state/file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bytes.h"

enum { TRAILER = 16, SEED_DIGEST = 1 };

/* ---- bytes ---- */

static ssize_t
io_fd_read(void *opaque, void *data, size_t len)
{
	ssize_t n = read((int)(intptr_t)opaque, data, len);

	return n < 0 ? -errno : n;
}

static ssize_t
io_fd_write(void *opaque, const void *data, size_t len)
{
	ssize_t n = write((int)(intptr_t)opaque, data, len);

	return n < 0 ? -errno : n;
}

static int
io_fd_sync(void *opaque)
{
	return fsync((int)(intptr_t)opaque) < 0 ? -errno : 0;
}

struct state_io
state_io_fd(int fd)
{
	return (struct state_io){.opaque = (void *)(intptr_t)fd,
				 .read = io_fd_read,
				 .write = io_fd_write,
				 .sync = io_fd_sync};
}

static int
file_write_all(struct state_writer *w, const u8 *data, size_t len)
{
	ssize_t n;

	while (len > 0 && !w->error) {
		n = w->io->write(w->io->opaque, data, len);
		if (n == -EINTR)
			continue;
		if (n <= 0) {
			w->error = n < 0 ? (int)n : -EIO;
			break;
		}
		data += n;
		len -= (size_t)n;
		w->bytes += (u64)n;
	}
	return w->error;
}

/* LEN bytes, or fewer at the end of the file; -errno. */
static ssize_t
file_read_all(struct state_reader *r, u8 *data, size_t len)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = r->io->read(r->io->opaque, data + done, len - done);
		if (n == -EINTR)
			continue;
		if (n < 0)
			return n;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static u64
file_checksum(const u8 *header, const void *data, size_t len)
{
	return XXH64(data, len, XXH64(header, STATE_SECTION_HEADER - 8, 0));
}

static u64
file_digest(u64 digest, u64 checksum)
{
	u8 both[16];

	put_le64(both, digest);
	put_le64(both + 8, checksum);
	return XXH64(both, sizeof(both), SEED_DIGEST);
}

/* ---- writing ---- */

int
state_write_begin(struct state_writer *w, const struct state_io *io, u64 ram_size)
{
	u8 header[STATE_HEADER] = {0};

	*w = (struct state_writer){.io = io};
	memcpy(header, STATE_MAGIC, 8);
	put_le32(header + 8, STATE_FORMAT);
	put_le64(header + 16, ram_size);
	put_le64(header + 24, XXH64(header, 24, 0));
	return file_write_all(w, header, sizeof(header));
}

int
state_write_section(struct state_writer *w, const char *name, u32 instance, u32 version, u32 flags,
		    u8 *buf, size_t len)
{
	u64 checksum;

	if (w->error)
		return w->error;
	if (len > STATE_CHUNK_MAX || strlen(name) >= STATE_NAME ||
	    w->sections == STATE_SECTIONS_MAX)
		return w->error = -EFBIG;
	memset(buf, 0, STATE_SECTION_HEADER);
	memcpy(buf, name, strlen(name));
	put_le32(buf + 24, instance);
	put_le32(buf + 28, version);
	put_le32(buf + 32, flags);
	put_le64(buf + 40, len);
	checksum = file_checksum(buf, buf + STATE_SECTION_HEADER, len);
	put_le64(buf + 56, checksum);
	w->digest = file_digest(w->digest, checksum);
	w->sections++;
	return file_write_all(w, buf, STATE_SECTION_HEADER + len);
}

int
state_write_bytes(struct state_writer *w, const char *name, u32 instance, u32 version,
		  const void *data, size_t len)
{
	u8 *buf = malloc(STATE_SECTION_HEADER + len);
	int rc;

	if (!buf)
		return w->error = w->error ? w->error : -ENOMEM;
	memcpy(buf + STATE_SECTION_HEADER, data, len);
	rc = state_write_section(w, name, instance, version, 0, buf, len);
	free(buf);
	return rc;
}

static int
file_write_item(struct state_writer *w, const struct state_item *item, u64 now)
{
	size_t len = state_measure(item);
	u8 *buf = malloc(STATE_SECTION_HEADER + len);
	int rc;

	if (!buf)
		return w->error = w->error ? w->error : -ENOMEM;
	state_encode(item, now, buf + STATE_SECTION_HEADER);
	rc = state_write_section(w, item->type->name, item->instance, item->type->version, 0, buf,
				 len);
	free(buf);
	return rc;
}

int
state_write_list(struct state_writer *w, const struct state_list *list, u64 now)
{
	if (list->error && !w->error)
		w->error = list->error;
	for (unsigned i = 0; i < list->count && !w->error; i++)
		file_write_item(w, &list->items[i], now);
	return w->error;
}

int
state_write_end(struct state_writer *w)
{
	u8 trailer[TRAILER] = {0};

	put_le32(trailer, w->sections);
	put_le64(trailer + 8, w->digest);
	state_write_bytes(w, "end", 0, 1, trailer, sizeof(trailer));
	if (!w->error)
		w->error = w->io->sync(w->io->opaque);
	return w->error;
}

/* ---- reading ---- */

static int PRINTF_LIKE(3, 4) file_refuse(struct state_reader *r, int error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(r->why, r->why_size, fmt, args);
	va_end(args);
	r->over = true;
	return error;
}

/* Exactly LEN bytes: 0, or -errno and why. */
static int
file_read_exactly(struct state_reader *r, u8 *data, size_t len)
{
	ssize_t n = file_read_all(r, data, len);

	if (n < 0)
		return file_refuse(r, (int)n, "the state cannot be read: %s", strerror((int)-n));
	if ((size_t)n < len)
		return file_refuse(r, -EINVAL, "the state is cut short; it is of no use");
	return 0;
}

int
state_read_begin(struct state_reader *r, const struct state_io *io, char *why, size_t why_size)
{
	u8 header[STATE_HEADER];
	int rc;

	*r = (struct state_reader){.io = io, .why = why, .why_size = why_size};
	rc = file_read_exactly(r, header, sizeof(header));
	if (rc)
		return rc;
	if (memcmp(header, STATE_MAGIC, 8) != 0)
		return file_refuse(r, -EINVAL, "this is no saved state of a VM");
	if (get_le32(header + 8) > STATE_FORMAT)
		return file_refuse(r, -EINVAL,
				   "the state is of format %u, newer than this program knows (%u); "
				   "use the program that saved it",
				   get_le32(header + 8), STATE_FORMAT);
	if (get_le64(header + 24) != XXH64(header, 24, 0) || get_le32(header + 8) == 0)
		return file_refuse(r, -EINVAL, "the state is damaged: its header");
	if (get_le32(header + 12) != 0)
		return file_refuse(r, -EINVAL,
				   "the state needs what this program does not know (flags %#x)",
				   get_le32(header + 12));
	r->ram_size = get_le64(header + 16);
	r->buf = malloc(STATE_CHUNK_MAX);
	return r->buf ? 0 : file_refuse(r, -ENOMEM, "out of memory");
}

void
state_read_close(struct state_reader *r)
{
	free(r->buf);
	r->buf = NULL;
	r->over = true;
}

static bool
file_name_valid(const u8 *name)
{
	size_t len = strnlen((const char *)name, STATE_NAME);

	if (len == 0 || len == STATE_NAME)
		return false;
	for (size_t i = 0; i < STATE_NAME; i++) {
		bool letter = (name[i] >= 'a' && name[i] <= 'z') ||
			      (name[i] >= '0' && name[i] <= '9') || name[i] == '-';

		if (i < len ? !letter : name[i] != 0)
			return false;
	}
	return true;
}

static int
file_read_trailer(struct state_reader *r, const struct state_section *s, u64 digest)
{
	u8 more;
	ssize_t n;

	if (s->len != TRAILER || get_le32(s->data) != r->sections - 1 ||
	    get_le64(s->data + 8) != digest)
		return file_refuse(r, -EINVAL, "the state is not complete; it is of no use");
	n = file_read_all(r, &more, 1);
	if (n < 0)
		return file_refuse(r, (int)n, "the state cannot be read: %s", strerror((int)-n));
	if (n > 0)
		return file_refuse(r, -EINVAL, "something follows the end of the state");
	r->over = true;
	return 0;
}

static int
file_read_frame(struct state_reader *r, struct state_section *s, u64 *checksum)
{
	u8 header[STATE_SECTION_HEADER];
	int rc = file_read_exactly(r, header, sizeof(header));

	if (rc)
		return rc;
	if (!file_name_valid(header) || get_le64(header + 40) > STATE_CHUNK_MAX)
		return file_refuse(r, -EINVAL, "the state is damaged after %u parts", r->sections);
	memcpy(s->name, header, STATE_NAME);
	s->instance = get_le32(header + 24);
	s->version = get_le32(header + 28);
	s->flags = get_le32(header + 32);
	s->len = get_le64(header + 40);
	s->data = r->buf;
	rc = file_read_exactly(r, r->buf, s->len);
	if (rc)
		return rc;
	*checksum = get_le64(header + 56);
	if (file_checksum(header, r->buf, s->len) != *checksum)
		return file_refuse(r, -EINVAL, "the state is damaged in its part \"%s\" %u",
				   s->name, s->instance);
	if (get_le32(header + 36) || get_le64(header + 48) || (s->flags & ~(u32)STATE_OPTIONAL))
		return file_refuse(r, -EINVAL,
				   "the part \"%s\" of the state needs what this program does not "
				   "know",
				   s->name);
	return 0;
}

int
state_read_section(struct state_reader *r, struct state_section *s)
{
	u64 checksum = 0, digest = r->digest;
	int rc;

	if (r->over)
		return -EINVAL;
	if (r->sections >= STATE_SECTIONS_MAX + 1)
		return file_refuse(r, -EINVAL, "the state has too many parts");
	rc = file_read_frame(r, s, &checksum);
	if (rc)
		return rc;
	r->sections++;
	r->digest = file_digest(r->digest, checksum);
	if (strcmp(s->name, "end") == 0)
		return file_read_trailer(r, s, digest);
	return 1;
}
