/*
 * Pages that hold translated code, across the vCPUs of a VM, and the mail by
 * which vCPUs tell each other what to drop.
 */
#ifndef TRANSLATOR_PAGES_H
#define TRANSLATOR_PAGES_H

#include "engine/translator/translation.h"

/* RAM offset of the code byte at LINEAR, or UINT64_MAX with the fault recorded. */
u64 pages_fetch(struct vcpu *v, u64 linear);

/* Before the page of RAM is read for translation: marks it as this vCPU's code and waits until
 * no vCPU can store to it unseen. */
void pages_protect(struct vcpu *v, u64 ram);

/* Whether the page is still marked as this vCPU's code: mail read while pages_protect waited for
 * another page may have taken the mark. */
bool pages_protected(const struct vcpu *v, u64 ram);

/* [ram, ram + len) of a page was, or is about to be, written: its translations go. */
void pages_written(struct vcpu *v, u64 ram, u64 len);
/* The same from a thread that is no vCPU's. */
void pages_written_by_host(struct engine *e, u64 ram, u64 len);

/* Reads the vCPU's mail. */
void pages_mail(struct vcpu *v);

/* INIT and SIPI: sent from any thread, taken by the vCPU at an instruction boundary. They merge as
 * a processor's do: a SIPI before an INIT is void, of several the first counts. */
void pages_post_init(struct vcpu *to);
void pages_post_sipi(struct vcpu *to, u8 vector);
void pages_starts(struct vcpu *v);

/* Stops all other vCPUs of the VM outside guest code, and lets them go on: for locked accesses that
 * are more than one host access. pages_park is how a vCPU waits for another's end. */
void pages_stop_others(struct vcpu *v);
void pages_release_others(struct vcpu *v);
void pages_park(struct vcpu *v);

/* Asks a vCPU to leave guest code at its next poll. Any thread. */
void pages_kick(struct vcpu *v);
/* The same, and wakes it if it sleeps in HLT. Any thread. */
void pages_wake(struct vcpu *v);

#endif
