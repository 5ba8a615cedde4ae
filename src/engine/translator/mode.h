/*
 * From the vCPU's registers to what translated code depends on: the mode key,
 * the TLB set and jump cache in use, segment limits (leaf/leaf_mode.c).
 */
#ifndef TRANSLATOR_MODE_H
#define TRANSLATOR_MODE_H

#include "engine/translator/translation.h"

/* Chooses t->tlb and t->jumps for the current privilege and address space. */
void mode_select(struct vcpu *v);

/* vcpu_mode_changed where only CPL and RFLAGS but for TF did, from 64-bit code to such. */
void mode_changed_64(struct vcpu *v);

/* Empties a jump cache. */
void mode_clear_jumps(struct jump_cache *jumps);

#endif
