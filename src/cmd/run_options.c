/*
 * Parsing of `biga run`'s options (see run_options.h).
 */
#include "cmd/run_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/cpuid.h"

const char run_options_help[] =
	"Usage: biga run --kernel FILE [OPTIONS]\n"
	"       biga run --state FILE [OPTIONS]\n"
	"Runs a VM in this terminal until it ends. Ctrl-A x ends it, Ctrl-A h shows the keys.\n"
	"\n"
	"What to boot\n"
	"  --kernel FILE         Linux bzImage, ELF with a PVH note, or multiboot 1 kernel\n"
	"  --initrd FILE         initial RAM disk (repeatable: they are joined)\n"
	"  --append TEXT         the kernel's command line\n"
	"                        (default: console=ttyS0 panic=-1, and root=/dev/vda rw if there\n"
	"                        is a disk and no initrd)\n"
	"  --state FILE          nothing: goes on where `biga suspend` saved a VM, with what that "
	"had;\n"
	"                        only --name, --console, --hypervisor, --code-cache go with it\n"
	"The machine\n"
	"  --name NAME           its name (default: biga-PID)\n"
	"  --cpus N              processors, 1 to 16 (default: 1)\n"
	"  --memory SIZE         RAM, for example 512M or 2G (default: 512M)\n"
	"  --cpu-model MODEL     x86-64-v2, x86-64-v3 (default), or host: all that kvm shows,\n"
	"                        and the VM stays on kvm and on such machines\n"
	"  --disk PATH[,format=raw][,readonly][,device=virtio]\n"
	"                        a disk image or block device (repeatable); a comma in PATH is\n"
	"                        written twice\n"
	"  --net none|user[,OPTION]...\n"
	"                        network (default: user, NAT without privileges), with options\n"
	"                          forward=tcp|udp:HOSTADDR:PORT-:PORT   a port of the host that\n"
	"                              leads to the guest (repeatable; HOSTADDR empty: 127.0.0.1)\n"
	"                          hostloop=on   the guest may reach the host's 127.0.0.1 at\n"
	"                              10.0.2.2 (default: off)\n"
	"                          ipv6=off      IPv4 only\n"
	"                          mac=52:54:00:12:34:56\n"
	"  --console stdio|none|FILE\n"
	"                        where the console leads (default: stdio; FILE: output only)\n"
	"  --console-device serial|virtio\n"
	"                        ttyS0 (default) or hvc0\n"
	"  --debug-exit          a byte v written to port 0xf4 ends the VM with status (v << 1) | "
	"1\n"
	"  --testdev             the pc-testdev ports, for test kernels\n"
	"  --no-reboot           a reset by the guest ends the VM\n"
	"How it runs\n"
	"  --hypervisor auto|biga|kvm   (default: auto; kvm,force: though it fails its tests)\n"
	"  --promote ask|always|never\n"
	"                        if auto had to take biga, and kvm can be used later: say so\n"
	"                        (default), move the running VM there, or neither\n"
	"  --code-cache SIZE     memory for translated code, for example 64M\n"
	"  --dry-run             print the VM as JSON, run nothing\n"
	"  --quiet               errors only\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 the guest powered off; 1 the guest or the hypervisor failed; 2 wrong "
	"usage\n"
	"or a problem of the host; 128 + n ended by signal n; with --debug-exit (v << 1) | 1.\n";

static int PRINTF_LIKE(3, 4) run_refuse(char *why, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, size, fmt, args);
	va_end(args);
	return -EINVAL;
}

bool
run_options_size(const char *text, u64 *bytes)
{
	static const char units[] = "KMGT";
	const char *unit;
	unsigned shift = 0;
	u64 value = 0;

	if (*text < '0' || *text > '9')
		return false;
	for (; *text >= '0' && *text <= '9'; text++) {
		if (value > UINT64_MAX / 10 - 1)
			return false;
		value = value * 10 + (u64)(*text - '0');
	}
	if (*text) {
		unit = strchr(units, *text & ~0x20);
		if (unit == NULL || text[1] != '\0')
			return false;
		shift = (unsigned)(unit - units + 1) * 10;
	}
	if (value > UINT64_MAX >> shift)
		return false;
	*bytes = value << shift;
	return true;
}

static bool
run_on_off(const char *text, bool *value)
{
	*value = strcmp(text, "on") == 0;
	return *value || strcmp(text, "off") == 0;
}

/* Each of these takes one option's argument: 0 or -EINVAL and WHY. */

static int
run_set_name(struct run_options *o, char *arg, char *why, size_t size)
{
	if (!vm_name_valid(arg))
		return run_refuse(why, size,
				  "--name '%.80s' cannot be a name; use letters, digits and . _ - "
				  "(at most %d)",
				  arg, VM_NAME_MAX - 1);
	strcpy(o->config.name, arg);
	return 0;
}

static int
run_set_hypervisor(struct run_options *o, char *arg, char *why, size_t size)
{
	if (strcmp(arg, "auto") != 0 && strcmp(arg, "biga") != 0 && strcmp(arg, "kvm") != 0 &&
	    strcmp(arg, "kvm,force") != 0)
		return run_refuse(why, size,
				  "there is no hypervisor '%.40s'; use auto, biga or kvm", arg);
	o->hypervisor = arg;
	return 0;
}

static int
run_set_promote(struct run_options *o, char *arg, char *why, size_t size)
{
	static const char *const names[] = {[RUN_PROMOTE_ASK] = "ask",
					    [RUN_PROMOTE_ALWAYS] = "always",
					    [RUN_PROMOTE_NEVER] = "never"};

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		if (strcmp(arg, names[i]) == 0) {
			o->promote = (enum run_promote)i;
			return 0;
		}
	}
	return run_refuse(why, size, "--promote cannot be '%.40s'; use ask, always or never", arg);
}

static int
run_set_cpu_model(struct run_options *o, char *arg, char *why, size_t size)
{
	if (strcmp(arg, "x86-64-v2") != 0 && strcmp(arg, "x86-64-v3") != 0 &&
	    strcmp(arg, CPU_MODEL_HOST) != 0)
		return run_refuse(why, size,
				  "there is no CPU model '%.40s'; use x86-64-v2, x86-64-v3 or host",
				  arg);
	strcpy(o->config.cpu_model, arg);
	return 0;
}

static int
run_set_cpus(struct run_options *o, char *arg, char *why, size_t size)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(arg, &end, 10);
	if (errno || end == arg || *end || n < 1 || n > VM_CPUS_MAX)
		return run_refuse(why, size, "--cpus '%.40s' is not possible; use 1 to %d", arg,
				  VM_CPUS_MAX);
	o->config.cpus = (unsigned)n;
	return 0;
}

static int
run_set_memory(struct run_options *o, char *arg, char *why, size_t size)
{
	if (!run_options_size(arg, &o->config.memory))
		return run_refuse(why, size,
				  "--memory '%.40s' is not a size; use for example 512M or 2G",
				  arg);
	return 0;
}

static int
run_set_code_cache(struct run_options *o, char *arg, char *why, size_t size)
{
	if (!run_options_size(arg, &o->config.code_cache) || o->config.code_cache == 0)
		return run_refuse(why, size,
				  "--code-cache '%.40s' is not a size; use for example 64M", arg);
	return 0;
}

static int
run_set_string(char **to, const char *arg, char *why, size_t size)
{
	free(*to);
	*to = strdup(arg);
	return *to ? 0 : run_refuse(why, size, "out of memory");
}

static int
run_set_kernel(struct run_options *o, char *arg, char *why, size_t size)
{
	if (o->config.kernel)
		return run_refuse(why, size, "--kernel was given twice; give one kernel");
	return run_set_string(&o->config.kernel, arg, why, size);
}

static int
run_set_append(struct run_options *o, char *arg, char *why, size_t size)
{
	if (strlen(arg) >= VM_APPEND_MAX)
		return run_refuse(why, size, "--append is longer than %d bytes; shorten it",
				  VM_APPEND_MAX - 1);
	return run_set_string(&o->config.append, arg, why, size);
}

static int
run_set_state(struct run_options *o, char *arg, char *why, size_t size)
{
	if (*arg == '\0')
		return run_refuse(why, size, "--state needs the path of a saved state");
	o->state_path = arg;
	return 0;
}

static int
run_set_initrd(struct run_options *o, char *arg, char *why, size_t size)
{
	if (o->config.initrd_count == VM_INITRDS_MAX)
		return run_refuse(why, size, "more than %d initrds; join some with cat",
				  VM_INITRDS_MAX);
	return run_set_string(&o->config.initrds[o->config.initrd_count++], arg, why, size);
}

/* Cuts PATH off "PATH,opt,opt", undoing doubled commas in place; returns the options. */
static char *
run_cut_path(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (*text == ',') {
			if (text[1] != ',') {
				*to = '\0';
				return text + 1;
			}
			text++;
		}
		*to++ = *text;
	}
	*to = '\0';
	return text;
}

static int
run_set_disk_option(struct run_options *o, const char *option, char *why, size_t size)
{
	unsigned index = o->config.disk_count - 1;

	if (strcmp(option, "readonly") == 0 || strcmp(option, "readonly=on") == 0)
		o->config.disks[index].readonly = true;
	else if (strcmp(option, "readonly=off") == 0)
		o->config.disks[index].readonly = false;
	else if (strcmp(option, "format=raw") == 0)
		o->disk_raw[index] = true;
	else if (strncmp(option, "format=", 7) == 0)
		return run_refuse(why, size,
				  "--disk: the format '%.40s' is not built yet; convert the image: "
				  "qemu-img convert -O raw IN OUT",
				  option + 7);
	else if (strcmp(option, "device=nvme") == 0)
		return run_refuse(why, size,
				  "--disk: device=nvme is not built yet; use device=virtio");
	else if (strcmp(option, "device=virtio") != 0)
		return run_refuse(why, size,
				  "--disk has no option '%.40s'; it has format=raw, readonly and "
				  "device=virtio",
				  option);
	return 0;
}

static int
run_set_disk(struct run_options *o, char *arg, char *why, size_t size)
{
	char *options, *option;
	int rc;

	if (o->config.disk_count == VM_DISKS_MAX)
		return run_refuse(why, size, "more than %d disks; use fewer", VM_DISKS_MAX);
	options = run_cut_path(arg);
	if (*arg == '\0')
		return run_refuse(why, size,
				  "--disk needs a path, for example --disk disk.img,readonly");
	rc = run_set_string(&o->config.disks[o->config.disk_count].path, arg, why, size);
	if (rc < 0)
		return rc;
	o->config.disk_count++;
	while ((option = strsep(&options, ",")) != NULL) {
		rc = *option ? run_set_disk_option(o, option, why, size) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int
run_add_forward(struct run_options *o, const char *text, char *why, size_t size)
{
	struct net_forward forward;
	const char *cause;

	if (o->forward_count == NET_FORWARDS_MAX)
		return run_refuse(why, size, "more than %d forwards; use fewer", NET_FORWARDS_MAX);
	if (net_forward_parse(&forward, text, &cause) < 0)
		return run_refuse(why, size, "--net forward=%.80s cannot be: %s", text, cause);
	o->forwards[o->forward_count++] = text;
	return 0;
}

static int
run_set_net_option(struct run_options *o, char *option, char *why, size_t size)
{
	bool *flag = NULL;

	if (strncmp(option, "forward=", 8) == 0)
		return run_add_forward(o, option + 8, why, size);
	if (strncmp(option, "mac=", 4) == 0) {
		if (!vm_mac_parse(option + 4, o->config.mac))
			return run_refuse(why, size,
					  "--net %.60s is not a card's address; use for example "
					  "mac=52:54:00:12:34:56",
					  option);
		return 0;
	}
	if (strncmp(option, "hostloop=", 9) == 0)
		flag = &o->host_loopback;
	else if (strncmp(option, "ipv6=", 5) == 0)
		flag = &o->ipv6;
	if (flag == NULL || !run_on_off(strchr(option, '=') + 1, flag))
		return run_refuse(why, size,
				  "--net user has no option '%.60s'; it has forward=, "
				  "hostloop=on|off, ipv6=on|off and mac=",
				  option);
	return 0;
}

static int
run_set_net(struct run_options *o, char *arg, char *why, size_t size)
{
	char *rest, *kind, *option;
	int rc = run_set_string(&o->net_text, arg, why, size);

	if (rc < 0)
		return rc;
	rest = o->net_text;
	o->forward_count = 0;
	kind = strsep(&rest, ",");
	o->config.net = strcmp(kind, "user") == 0;
	if (!o->config.net && strcmp(kind, "none") != 0)
		return run_refuse(why, size,
				  "there is no network '%.40s'; use --net none or --net user",
				  kind);
	while ((option = strsep(&rest, ",")) != NULL) {
		if (!o->config.net)
			return run_refuse(why, size, "--net none takes no options; remove ',%.60s'",
					  option);
		rc = run_set_net_option(o, option, why, size);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int
run_set_console(struct run_options *o, char *arg, char *why, size_t size)
{
	if (*arg == '\0')
		return run_refuse(why, size, "--console needs stdio, none or a file's path");
	o->console_path = NULL;
	if (strcmp(arg, "stdio") == 0) {
		o->console = RUN_CONSOLE_STDIO;
	} else if (strcmp(arg, "none") == 0) {
		o->console = RUN_CONSOLE_NONE;
	} else {
		o->console = RUN_CONSOLE_FILE;
		o->console_path = arg;
	}
	return 0;
}

static int
run_set_console_device(struct run_options *o, char *arg, char *why, size_t size)
{
	o->config.console = VM_CONSOLE_SERIAL;
	if (strcmp(arg, "virtio") == 0)
		o->config.console = VM_CONSOLE_VIRTIO;
	else if (strcmp(arg, "serial") != 0)
		return run_refuse(why, size,
				  "there is no console device '%.40s'; use serial or virtio", arg);
	return 0;
}

static int
run_set_debug_exit(struct run_options *o, char *arg UNUSED, char *why UNUSED, size_t size UNUSED)
{
	o->config.debug_exit = true;
	return 0;
}

static int
run_set_testdev(struct run_options *o, char *arg UNUSED, char *why UNUSED, size_t size UNUSED)
{
	o->config.testdev = true;
	return 0;
}

static int
run_set_no_reboot(struct run_options *o, char *arg UNUSED, char *why UNUSED, size_t size UNUSED)
{
	o->config.reboot = false;
	return 0;
}

static int
run_set_dry_run(struct run_options *o, char *arg UNUSED, char *why UNUSED, size_t size UNUSED)
{
	o->dry_run = true;
	return 0;
}

static int
run_set_quiet(struct run_options *o, char *arg UNUSED, char *why UNUSED, size_t size UNUSED)
{
	o->quiet = true;
	return 0;
}

static int
run_set_help(struct run_options *o, char *arg UNUSED, char *why UNUSED, size_t size UNUSED)
{
	o->help = true;
	return 0;
}

static int
run_set_version(struct run_options *o, char *arg UNUSED, char *why UNUSED, size_t size UNUSED)
{
	o->version = true;
	return 0;
}

static const struct run_option {
	const char *name;
	int has_arg;
	int (*set)(struct run_options *options, char *arg, char *why, size_t size);
	bool with_state; /* goes with --state */
} run_option_table[] = {
	{"state", required_argument, run_set_state, true},
	{"name", required_argument, run_set_name, true},
	{"hypervisor", required_argument, run_set_hypervisor, true},
	{"promote", required_argument, run_set_promote, true},
	{"cpu-model", required_argument, run_set_cpu_model, false},
	{"cpus", required_argument, run_set_cpus, false},
	{"memory", required_argument, run_set_memory, false},
	{"code-cache", required_argument, run_set_code_cache, true},
	{"kernel", required_argument, run_set_kernel, false},
	{"initrd", required_argument, run_set_initrd, false},
	{"append", required_argument, run_set_append, false},
	{"disk", required_argument, run_set_disk, false},
	{"net", required_argument, run_set_net, false},
	{"console", required_argument, run_set_console, true},
	{"console-device", required_argument, run_set_console_device, false},
	{"debug-exit", no_argument, run_set_debug_exit, false},
	{"testdev", no_argument, run_set_testdev, false},
	{"no-reboot", no_argument, run_set_no_reboot, false},
	{"dry-run", no_argument, run_set_dry_run, true},
	{"quiet", no_argument, run_set_quiet, true},
	{"help", no_argument, run_set_help, true},
	{"version", no_argument, run_set_version, true},
};

/* getopt says no more than that something is wrong with an option. */
static int
run_bad_option(int c, char **argv, char *why, size_t size)
{
	const char *word = argv[optind > 1 ? optind - 1 : 1];

	if (c == ':')
		return run_refuse(why, size, "option '%.80s' needs a value; see biga run --help",
				  word);
	if (word[0] != '-' || word[1] != '-')
		return run_refuse(why, size, "unknown option '%.80s'; see biga run --help", word);
	return run_refuse(
		why, size,
		"unknown option '%.80s' (or one that takes no value); see biga run --help", word);
}

static int
run_parse_words(struct run_options *o, int argc, char **argv, char *why, size_t size)
{
	struct option table[ARRAY_LEN(run_option_table) + 1];
	int c, index = 0, rc;

	memset(table, 0, sizeof(table));
	for (size_t i = 0; i < ARRAY_LEN(run_option_table); i++) {
		table[i].name = run_option_table[i].name;
		table[i].has_arg = run_option_table[i].has_arg;
	}
	optind = 0; /* glibc: begin anew */
	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:", table, &index)) != -1) {
		if (c != 0)
			return run_bad_option(c, argv, why, size);
		o->given |= BIT(index);
		rc = run_option_table[index].set(o, optarg, why, size);
		if (rc < 0)
			return rc;
	}
	if (optind < argc)
		return run_refuse(why, size,
				  "unexpected word '%.80s'; a kernel is given with --kernel, a "
				  "disk with --disk",
				  argv[optind]);
	return 0;
}

bool
run_options_given(const struct run_options *o, const char *name)
{
	_Static_assert(ARRAY_LEN(run_option_table) <= 32, "a bit each in GIVEN");

	for (size_t i = 0; i < ARRAY_LEN(run_option_table); i++)
		if (strcmp(run_option_table[i].name, name) == 0)
			return (o->given & BIT(i)) != 0;
	return false;
}

int
run_options_net(struct run_options *o, const char *net, char *why, size_t size)
{
	char *copy = strdup(net);
	int rc = copy ? run_set_net(o, copy, why, size) : run_refuse(why, size, "out of memory");

	free(copy);
	return rc;
}

/* A saved VM has what it was saved with. */
static int
run_check_state(const struct run_options *o, char *why, size_t size)
{
	for (size_t i = 0; i < ARRAY_LEN(run_option_table); i++)
		if ((o->given & BIT(i)) && !run_option_table[i].with_state)
			return run_refuse(why, size,
					  "--%s does not go with --state: the VM has what it was "
					  "saved with; remove it",
					  run_option_table[i].name);
	return 0;
}

static int
run_default_append(struct run_options *o, char *why, size_t size)
{
	const struct vm_config *c = &o->config;
	char text[128];

	if (c->append)
		return 0;
	snprintf(text, sizeof(text), "console=%s panic=-1%s",
		 c->console == VM_CONSOLE_VIRTIO ? "hvc0" : "ttyS0",
		 c->disk_count && !c->initrd_count ? " root=/dev/vda rw" : "");
	return run_set_string(&o->config.append, text, why, size);
}

int
run_options_parse(struct run_options *o, int argc, char **argv, char *why, size_t why_size)
{
	int rc;

	memset(o, 0, sizeof(*o));
	vm_config_init(&o->config);
	snprintf(o->config.name, sizeof(o->config.name), "biga-%d", (int)getpid());
	o->config.net = true;
	o->config.console = VM_CONSOLE_SERIAL;
	o->hypervisor = "auto";
	o->ipv6 = true;
	rc = run_parse_words(o, argc, argv, why, why_size);
	if (rc < 0 || o->help || o->version)
		return rc;
	if (o->state_path)
		return run_check_state(o, why, why_size);
	rc = run_default_append(o, why, why_size);
	if (rc < 0)
		return rc;
	if (o->console == RUN_CONSOLE_NONE)
		o->config.console = VM_CONSOLE_NONE;
	return vm_config_check(&o->config, why, why_size);
}

void
run_options_clear(struct run_options *o)
{
	vm_config_clear(&o->config);
	free(o->net_text);
	o->net_text = NULL;
	json_decref(o->state_note);
	o->state_note = NULL;
}
