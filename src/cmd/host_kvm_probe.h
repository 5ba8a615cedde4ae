/*
 * A hypervisor's probe, run in a child: it runs a guest on a driver that nobody
 * vouches for, and must not be able to hang us or to take us down.
 */
#ifndef CMD_HOST_KVM_PROBE_H
#define CMD_HOST_KVM_PROBE_H

#include "engine/engine.h"

struct host_probe {
	bool done; /* it was tried; CAUSE tells how it went */
	bool usable;
	char cause[32]; /* the engine's, or "no-answer", "died", "" if usable */
	char evidence[256], fix[256];
	u64 kernel_speed, user_speed; /* instructions a second, 0: not measured */
	u64 ns;			      /* that it took */
};

/* The child has DEVICE and nothing else that is open here. Whatever it does, this returns
 * soon after TIMEOUT_MS; a child that cannot be killed is left behind. */
void host_probe_run(struct host_probe *probe, const struct engine_ops *ops, int device,
		    unsigned timeout_ms);

#endif
