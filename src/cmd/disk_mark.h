/*
 * How a saved state knows its disks again. When a VM is suspended, each disk that it
 * can write gets a random mark, which the state names; whoever lets a VM run with
 * the disk takes the mark off before the guest's first write. So a state whose
 * disk bears another mark, or none, is older than what is on the disk.
 *
 * The mark is the extended attribute user.biga.generation of the disk's file;
 * where those are refused, a file beside it, PATH.biga: mark and inode number.
 */
#ifndef CMD_DISK_MARK_H
#define CMD_DISK_MARK_H

#include "base/types.h"

enum { DISK_MARK = 33 }; /* 32 hexadecimal digits and a zero */

/* Random. 0 or -errno. */
int disk_mark_new(char mark[DISK_MARK]);
/* Whether MARK, which may be NULL, is one: a disk without a mark has none to compare with. */
bool disk_mark_valid(const char *mark);
/* The disk's mark, FD being its open file; "" if it has none. */
void disk_mark_get(int fd, const char *path, char mark[DISK_MARK]);
/* Marks the disk, and all that was written to it is durable. 0, or -errno and one line (cause;
 * fix) in WHY. */
int disk_mark_set(const char *path, const char mark[DISK_MARK], char *why, size_t why_size);
/* The disk bears no mark when this returns 0, durably; what it had none is quick. Likewise. */
int disk_mark_clear(const char *path, char *why, size_t why_size);

#endif
