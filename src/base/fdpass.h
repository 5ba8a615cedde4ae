/*
 * Descriptors over a Unix socket (SCM_RIGHTS), at most FDPASS_MAX a message.
 */
#ifndef BASE_FDPASS_H
#define BASE_FDPASS_H

#include <sys/types.h>

#include "base/types.h"

enum { FDPASS_MAX = 16 };

/* Sends LEN bytes and N descriptors as one message; bytes sent, or -errno. */
ssize_t fdpass_send(int socket, const void *data, size_t len, const int *fds, size_t n);

/* Receives up to LEN bytes and up to *N descriptors (close-on-exec), sets *N
 * to how many came; surplus ones are closed. Bytes, 0 at the end, or -errno. */
ssize_t fdpass_recv(int socket, void *data, size_t len, int *fds, size_t *n);

#endif
