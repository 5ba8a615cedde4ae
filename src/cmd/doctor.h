/*
 * What `biga doctor` found out, and its two ways to say it.
 */
#ifndef CMD_DOCTOR_H
#define CMD_DOCTOR_H

#include "cmd/host_kvm.h"

enum { DOCTOR_FORMAT = 1, DOCTOR_WARNINGS = 8, DOCTOR_WARNING = 512 };

/* One hypervisor; texts are "" and speeds 0 where there is nothing to say. */
struct doctor_finding {
	const char *name;
	bool asked; /* it is part of what was asked for */
	struct host_verdict verdict;
	u64 kernel_speed, user_speed; /* instructions a second */
	u64 ns;			      /* that trying it took, 0: not tried */
};

enum { DOCTOR_KVM, DOCTOR_BIGA, DOCTOR_HYPERVISORS };

struct doctor {
	struct host_kvm host;
	struct doctor_finding findings[DOCTOR_HYPERVISORS];
	char warnings[DOCTOR_WARNINGS][DOCTOR_WARNING];
	unsigned warning_count;
};

/* To standard output; docs/doctor.md describes it. */
void doctor_print_json(const struct doctor *doctor);
void doctor_print_text(const struct doctor *doctor);

#endif
