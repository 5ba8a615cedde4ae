/*
 * Guest-physical accesses that are not RAM: the local APIC page, bound notifies,
 * and the machine, whose answers are replayed when the instruction runs again.
 */
#ifndef TRANSLATOR_MMIO_H
#define TRANSLATOR_MMIO_H

#include "engine/translator/vcpu.h"

/* SIZE 1 to 8. 0, or HELPER_EXIT with v->exit filled. */
int mmio_read(struct vcpu *v, u64 gpa, unsigned size, void *buf);
int mmio_write(struct vcpu *v, u64 gpa, unsigned size, const void *buf);

/* A store whose instruction has already taken effect: done, or queued for the machine. */
void mmio_write_later(struct vcpu *v, u64 gpa, unsigned size, const void *buf);
/* Fills v->exit with the next queued store; false if there is none. */
bool mmio_next_write(struct vcpu *v);

/* Keeps the machine's answer in EXIT for the instruction's next run. */
void mmio_answer(struct vcpu *v, const struct engine_exit *exit);

#endif
