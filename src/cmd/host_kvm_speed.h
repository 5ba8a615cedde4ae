/*
 * How fast a hypervisor runs plain code here, measured through its contract alone:
 * for those whose probe does not measure.
 */
#ifndef CMD_HOST_KVM_SPEED_H
#define CMD_HOST_KVM_SPEED_H

#include "engine/engine.h"

/* Instructions a second of a counting loop at CPL 0 and at CPL 3, within some 10 ms. 0, or
 * -errno: then it does not run here (-EIO: the loop did not end as it must). */
int host_speed_measure(const struct engine_ops *ops, int device, u64 *kernel, u64 *user);

#endif
