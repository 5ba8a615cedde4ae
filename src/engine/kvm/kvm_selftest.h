/*
 * A guest of a few milliseconds that does what kernels do, to find out whether a KVM is one.
 */
#ifndef ENGINE_KVM_KVM_SELFTEST_H
#define ENGINE_KVM_KVM_SELFTEST_H

#include "engine/engine.h"

/* VM is an empty one of DEVICE's. Measures PROBE's speeds; if the guest does not get through,
 * makes it unusable, with cause ("unsound"), evidence and fix. A second and a half at most. */
void kvm_selftest(int device, int vm, struct engine_probe *probe);

#endif
