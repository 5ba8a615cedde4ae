/*
 * `biga run`: a one-shot VM in this terminal.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "cmd/front.h"
#include "cmd/host_kvm_choose.h"
#include "cmd/run_open.h"
#include "cmd/run_options.h"
#include "cmd/state_note.h"
#include "cmd/terminal.h"
#include "engine/engine.h"

/* Our own one must be able to run here. */
static int
run_check_biga(char *why, size_t size)
{
	struct engine_probe probe;

	memset(&probe, 0, sizeof(probe));
	engine_translator.probe(-1, &probe);
	if (probe.usable)
		return 0;
	snprintf(why, size, "the hypervisor biga cannot run here: %s (%.100s); %.140s",
		 probe.cause ? probe.cause : "unknown cause", probe.evidence, probe.fix);
	return -ENOTSUP;
}

/* CPU model host is kvm's: the user reads what it costs. */
static int
run_check_model(const struct run_options *o, const char *hypervisor, char *why, size_t size)
{
	if (strcmp(o->config.cpu_model, CPU_MODEL_HOST) != 0)
		return 0;
	if (strcmp(hypervisor, engine_translator.name) == 0) {
		snprintf(why, size,
			 "CPU model host is for the hypervisor kvm, and this VM would run on %s; "
			 "use "
			 "--cpu-model x86-64-v3",
			 hypervisor);
		return -ENOTSUP;
	}
	log_info("CPU model host: the VM stays on kvm, and on machines with this CPU");
	return 0;
}

/* The hypervisor that runs the VM, and one line that says why. 0, or -errno and WHY. */
static int
run_choose_hypervisor(struct run_options *o, struct vm_resources *r, char *why, size_t size)
{
	struct host_choice choice;
	int rc = host_choose(&choice, o->hypervisor, host_kvm_engine(), "");

	if (rc < 0) {
		snprintf(why, size, "%s", choice.line);
		return rc;
	}
	r->kvm = choice.device;
	if (strcmp(choice.name, engine_translator.name) == 0)
		rc = run_check_biga(why, size);
	if (rc == 0)
		rc = run_check_model(o, choice.name, why, size);
	if (rc < 0)
		return rc;
	snprintf(o->config.hypervisor, sizeof(o->config.hypervisor), "%s", choice.name);
	snprintf(o->hypervisor_why, sizeof(o->hypervisor_why), "%s", choice.why);
	if (choice.line[0] && !o->dry_run)
		log_line(choice.warn ? LOG_WARNING : LOG_INFO, "%s", choice.line);
	return 0;
}

static json_t *
run_backend_json(const struct run_options *o)
{
	json_t *forwards = json_array();

	for (unsigned i = 0; i < o->forward_count; i++)
		json_array_append_new(forwards, json_string(o->forwards[i]));
	return json_pack("{s:s, s:s, s:o, s:b, s:b}", "hypervisor-why", o->hypervisor_why,
			 "network", o->config.net ? "user" : "none", "forwards", forwards,
			 "hostloop", o->host_loopback, "ipv6", o->ipv6);
}

static int
run_print(const struct run_options *o)
{
	static const char *const consoles[] = {[RUN_CONSOLE_STDIO] = "stdio",
					       [RUN_CONSOLE_NONE] = "none",
					       [RUN_CONSOLE_FILE] = "file"};
	json_t *all = vm_config_to_json(&o->config);
	json_t *host = run_backend_json(o);
	int rc;

	json_object_set_new(host, "console", json_string(consoles[o->console]));
	if (o->console_path)
		json_object_set_new(host, "console-file", json_string(o->console_path));
	json_object_set_new(all, "host", host);
	rc = json_dumpf(all, stdout, JSON_INDENT(2));
	json_decref(all);
	if (rc < 0 || fputc('\n', stdout) == EOF || fflush(stdout) != 0) {
		log_error("the VM cannot be printed: %s", strerror(errno));
		return EXIT_USAGE;
	}
	return 0;
}

static int
run_open_and_go(struct run_options *o)
{
	struct vm_resources resources;
	char why[HOST_CHOICE_LINE];
	int status = 0, state = -1;

	vm_resources_init(&resources);
	if (o->state_path)
		status = state = state_note_open(o, why, sizeof(why));
	if (status >= 0)
		status = run_open(&resources, o, why, sizeof(why));
	resources.state = state;
	if (status == 0 && o->state_path)
		status = state_note_check(o, &resources, why, sizeof(why));
	if (status == 0)
		status = run_choose_hypervisor(o, &resources, why, sizeof(why));
	if (status < 0) {
		log_error("%s", why);
		vm_resources_close(&resources);
		return EXIT_USAGE;
	}
	if (!o->dry_run)
		return front_run(o, &resources);
	vm_resources_close(&resources);
	return run_print(o);
}

int
cmd_run(int argc, char **argv)
{
	struct run_options options;
	char why[VM_WHY];
	int status = 0;

	if (terminal_fill_standard() < 0)
		return EXIT_USAGE;
	if (run_options_parse(&options, argc, argv, why, sizeof(why)) < 0) {
		log_error("%s", why);
		status = EXIT_USAGE;
	} else if (options.help) {
		fputs(run_options_help, stdout);
	} else if (options.version) {
		status = cmd_version(argc, argv);
	} else {
		log_setup(2, options.quiet ? LOG_ERROR : LOG_INFO);
		status = run_open_and_go(&options);
	}
	run_options_clear(&options);
	return status;
}
