/*
 * A processor and a CPU model as parts of a saved state (state/state.h).
 */
#ifndef CPU_CPU_SAVED_H
#define CPU_CPU_SAVED_H

#include "cpu/cpu_state.h"
#include "cpu/cpuid.h"
#include "state/state.h"

/* All of STATE as section "cpu" INDEX. Bounds are judged here; what its registers mean, by the
 * engine that is given it. */
void cpu_saved_state(struct cpu_state *state, u32 index, struct state_list *list);
/* The table as section "cpu-model". */
void cpu_saved_model(struct cpu_model *model, struct state_list *list);

/* Whether a host whose own table of the same name is HOST can show MODEL: 0, or -ENOTSUP and one
 * line in WHY that names what it lacks. */
int cpu_saved_fits(const struct cpu_model *model, const struct cpu_model *host, char *why,
		   size_t why_size);

#endif
