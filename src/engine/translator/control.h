/*
 * Control registers as other parts of the translator set or judge them.
 */
#ifndef TRANSLATOR_CONTROL_H
#define TRANSLATOR_CONTROL_H

#include "engine/translator/vcpu.h"

/* WRMSR to EFER: 0 or HELPER_FAULT. */
int control_write_efer(struct vcpu *v, u64 value);

/* PAE paging outside long mode: reads the four PDPTEs at CR3 into PDPTE. 0, or -EINVAL if a
 * reserved bit is set in a present one. */
int control_read_pdptes(struct vcpu *v, u64 cr3, u64 pdpte[4]);
/* Whether that kind of paging is on with these registers. */
bool control_pae_paging(u64 cr0, u64 cr4, u64 efer);

#endif
