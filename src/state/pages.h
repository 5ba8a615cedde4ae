/*
 * A large range of memory in a saved state: pieces of 1 MiB, each a section of
 * its own, compressed with zstd on several threads. Pages of zeroes are left
 * out, and so are pieces that have no other.
 *
 *	piece	instance: its number, from 0, rising
 *	payload	0 bitmap(32) of the 4 KiB pages that follow	32 how(4)  36 zero(4)
 *		40 those pages: as they are (how 0) or compressed (how 1)
 */
#ifndef STATE_PAGES_H
#define STATE_PAGES_H

#include "base/types.h"
#include "state/file.h"

enum { STATE_PIECE = 1 << 20 };

/* SIZE is a multiple of 4 KiB. FD, if not -1, is the file of which HOST is a mapping from its
 * start: holes of it are left out unread. 0 or -errno (then the writer's too). */
int state_write_pages(struct state_writer *w, const char *name, const u8 *host, u64 size, int fd);

struct state_pages;

/* Pages that come from a file go to HOST, which holds zeroes. 0 or -errno. */
int state_pages_create(struct state_pages **out, u8 *host, u64 size);
/* Takes a piece; it is unpacked by and by. 0, or -errno and WHY. */
int state_pages_take(struct state_pages *pages, const struct state_section *section, char *why,
		     size_t why_size);
/* Waits until all is unpacked: 0, or -errno and WHY. */
int state_pages_finish(struct state_pages *pages, char *why, size_t why_size);
void state_pages_destroy(struct state_pages *pages);

#endif
