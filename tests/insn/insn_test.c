/*
 * insn_test: every user-level instruction form, bare and translated.
 *
 *	insn_test [--mode 64|32] [--cases N] [--seed S] [--form MNEMONIC]
 *	insn_test --case SEED [--mode M]	one case again, with all registers
 *	insn_test --bare			the bare side against itself
 *	insn_test --list			the forms
 *
 * Ends with "N cases, N failed" and status 0 or 1. A seed's upper half is the
 * number of its form.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "case.h"

struct test {
	struct form *forms;
	unsigned form_count, mode, cases;
	unsigned first; /* number of the first case of each form */
	const char *only;
	bool bare_only, list;
	u64 one; /* --case, or 0 */
	struct bare *bare;
	struct guest *guest;
	struct insn_case batch[CASE_BATCH];
	struct insn_result bare_results[CASE_BATCH], guest_results[CASE_BATCH];
	unsigned batched;
	u64 run, failed, unmade, per_vector[256];
	unsigned form_failed; /* of the form under way: the first few are shown */
};

enum { SHOWN_PER_FORM = 3 };

static const char *
test_name(const struct test *t, const struct insn_case *c)
{
	return form_name(&t->forms[c->seed >> 32]);
}

static void
test_judge(struct test *t, unsigned i)
{
	const struct insn_case *c = &t->batch[i];

	if (t->guest_results[i].vector == CASE_SKIPPED)
		return;
	t->run++;
	t->per_vector[t->bare_results[i].vector & 0xff]++;
	if (t->bare_results[i].vector == CASE_HUNG) {
		printf("BARE %s --case 0x%llx ends the bare side\n", test_name(t, c),
		       (unsigned long long)c->seed);
		compare_print_case(c);
		t->failed++;
		return;
	}
	if (!compare_results(c, &t->bare_results[i], &t->guest_results[i], test_name(t, c)))
		t->failed++;
}

static void
test_flush(struct test *t)
{
	bare_run(t->bare, t->batch, t->bare_results, t->batched);
	if (t->bare_only)
		bare_run(t->bare, t->batch, t->guest_results, t->batched);
	else
		guest_run(t->guest, t->batch, t->guest_results, t->batched);
	for (unsigned i = 0; i < t->batched; i++)
		test_judge(t, i);
	t->batched = 0;
	fflush(stdout);
}

static void
test_add(struct test *t, unsigned form, unsigned number)
{
	u64 seed = (u64)form << 32 | number;

	if (!generate_case(&t->batch[t->batched], &t->forms[form], seed)) {
		t->unmade++;
		return;
	}
	if (++t->batched == CASE_BATCH)
		test_flush(t);
}

/* One form's cases, a batch at a time; a form that keeps failing is left early. */
static void
test_form(struct test *t, unsigned form)
{
	u64 failed = t->failed, run = t->run, unmade = t->unmade;

	for (unsigned i = 0; i < t->cases && t->failed - failed < SHOWN_PER_FORM; i++)
		test_add(t, form, t->first + i);
	if (t->batched)
		test_flush(t);
	if (t->run == run && t->unmade - unmade == t->cases)
		printf("NONE %s: no case could be made\n", form_name(&t->forms[form]));
}

static bool
test_selected(const struct test *t, unsigned form)
{
	return !t->only || strcasecmp(t->only, form_name(&t->forms[form])) == 0;
}

static void
test_one(struct test *t)
{
	if (t->one >> 32 >= t->form_count ||
	    !generate_case(t->batch, &t->forms[t->one >> 32], t->one)) {
		fprintf(stderr, "insn-test: no such case\n");
		exit(2);
	}
	t->batched = 1;
	compare_print_case(t->batch);
	test_flush(t);
	compare_print_result("bare", t->bare_results);
	compare_print_result(t->bare_only ? "bare again" : "guest", t->guest_results);
}

static void
test_list(const struct test *t)
{
	for (unsigned i = 0; i < t->form_count; i++)
		printf("%u %s %s map %u opcode %02x%s\n", i, form_name(&t->forms[i]),
		       t->forms[i].vex ? "vex" : "legacy", t->forms[i].map, t->forms[i].opcode,
		       t->forms[i].mem ? " memory" : "");
}

static int
test_usage(void)
{
	fprintf(stderr, "usage: insn_test [--mode 64|32] [--cases N] [--seed S] [--form MNEMONIC] "
			"[--case SEED] [--bare] [--list]\n");
	return 2;
}

static bool
test_options(struct test *t, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--bare") == 0)
			t->bare_only = true;
		else if (strcmp(argv[i], "--list") == 0)
			t->list = true;
		else if (!value)
			return false;
		else if (strcmp(argv[i], "--mode") == 0)
			t->mode = (unsigned)atoi(argv[++i]);
		else if (strcmp(argv[i], "--cases") == 0)
			t->cases = (unsigned)atoi(argv[++i]);
		else if (strcmp(argv[i], "--seed") == 0)
			t->first = (unsigned)strtoul(argv[++i], NULL, 0);
		else if (strcmp(argv[i], "--form") == 0)
			t->only = argv[++i];
		else if (strcmp(argv[i], "--case") == 0)
			t->one = strtoull(argv[++i], NULL, 0);
		else
			return false;
	}
	return t->mode == 64 || t->mode == 32;
}

static void
test_report(const struct test *t)
{
	printf("%u forms in %u-bit mode; ends:", t->form_count, t->mode);
	for (unsigned i = 0; i < 256; i++)
		if (t->per_vector[i])
			printf(" #%u %llu", i, (unsigned long long)t->per_vector[i]);
	printf("; not made %llu\n%llu cases, %llu failed\n", (unsigned long long)t->unmade,
	       (unsigned long long)t->run, (unsigned long long)t->failed);
}

int
main(int argc, char **argv)
{
	struct test *t = calloc(1, sizeof(*t));

	if (!t)
		return 2;
	t->mode = 64;
	t->cases = 12;
	if (!test_options(t, argc, argv))
		return test_usage();
	t->form_count = forms_find(&t->forms, t->mode);
	if (t->list) {
		test_list(t);
		return 0;
	}
	t->bare = bare_start();
	generate_set_fs_base(bare_fs_base(t->bare));
	if (!t->bare_only)
		t->guest = guest_start(bare_fs_base(t->bare));
	if (t->one)
		test_one(t);
	for (unsigned i = 0; !t->one && i < t->form_count; i++)
		if (test_selected(t, i))
			test_form(t, i);
	test_report(t);
	bare_stop(t->bare);
	if (t->guest)
		guest_stop(t->guest);
	return t->failed ? 1 : 0;
}
