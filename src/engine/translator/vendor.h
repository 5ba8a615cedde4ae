/*
 * Where AMD and Intel processors differ in what software can see, the guest
 * gets what its CPUID vendor promises.
 */
#ifndef TRANSLATOR_VENDOR_H
#define TRANSLATOR_VENDOR_H

#include "engine/translator/vcpu.h"

/* Leaf 0 is the first entry of every table, so this is one comparison. */
static inline bool
vendor_is_intel(const struct vcpu *v)
{
	const struct cpu_model *model = v->model;

	for (unsigned i = 0; i < model->count; i++) {
		if (model->entries[i].leaf == 0)
			return model->entries[i].ebx == 0x756e6547; /* "Genu" */
	}
	return false;
}

#endif
