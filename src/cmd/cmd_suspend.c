/*
 * `biga suspend`: a running VM into a file. The VM stands still while its state is
 * written; only when that has its name and is durable the VM is told to end. If
 * anything fails before, the VM goes on and no file is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/replace.h"
#include "cmd/commands.h"
#include "cmd/remote.h"
#include "cmd/state_note.h"
#include "state/file.h"

enum { SUSPEND_TIMEOUT_MS = 3600 * 1000, SUSPEND_MODE = 0600 };

static const char suspend_help[] =
	"Usage: biga suspend NAME [--to FILE]\n"
	"Saves all of the running VM NAME in a file, and ends it. `biga run --state FILE` goes on\n"
	"from there, on this host or another. Should anything fail, the VM goes on.\n"
	"\n"
	"  --to FILE    (default: $XDG_DATA_HOME/biga/suspended/NAME.state)\n"
	"\n"
	"Exit status: 0 done; 1 the VM refused, or the state cannot be written; 2 no such VM, or\n"
	"wrong usage.\n";

struct suspend {
	const char *name;
	char path[PATH_MAX];
	struct replace file;
	struct client *client;
};

/* Every folder on the way to PATH. 0 or -errno. */
static int
suspend_make_folders(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		int rc;

		*slash = '\0';
		rc = mkdir(path, 0700);
		*slash = '/';
		if (rc < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

static int
suspend_default_path(struct suspend *s)
{
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	int n;

	if (data && data[0] == '/')
		n = snprintf(s->path, sizeof(s->path), "%s/biga/suspended/%s.state", data, s->name);
	else
		n = snprintf(s->path, sizeof(s->path), "%s/.local/share/biga/suspended/%s.state",
			     home ? home : "", s->name);
	if ((size_t)n >= sizeof(s->path))
		return -ENAMETOOLONG;
	return suspend_make_folders(s->path);
}

/* What stands there already may be replaced only if it is a state. */
static bool
suspend_may_replace(const char *path)
{
	char magic[8] = "";
	struct stat st;
	bool may;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return errno == ENOENT;
	may = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	      (st.st_size == 0 || (read(fd, magic, sizeof(magic)) == sizeof(magic) &&
				   memcmp(magic, STATE_MAGIC, sizeof(magic)) == 0));
	close(fd);
	return may;
}

static int
suspend_begin(struct suspend *s, const char *to)
{
	int rc = 0;

	if (to && strlen(to) < sizeof(s->path))
		strcpy(s->path, to);
	else
		rc = to ? -ENAMETOOLONG : suspend_default_path(s);
	if (rc == 0 && !suspend_may_replace(s->path)) {
		log_error("'%s' is there already and is no saved state; give another --to FILE",
			  s->path);
		return EXIT_USAGE;
	}
	if (rc == 0)
		rc = replace_begin(&s->file, &replace_system, s->path, SUSPEND_MODE);
	if (rc == 0)
		return 0;
	log_error("state '%s' cannot be made: %s; check the path", s->path, strerror(-rc));
	return EXIT_USAGE;
}

static bool
suspend_interrupted(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 &&
	       (sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM) ||
		sigismember(&pending, SIGHUP));
}

/* 0, or -errno and WHY. */
static int
suspend_ask(struct suspend *s, const char *command, int fd, char why[VM_WHY])
{
	json_t *reply = NULL;
	int rc = client_call(s->client, json_pack("{s:s}", "do", command), &fd, fd >= 0, &reply,
			     SUSPEND_TIMEOUT_MS, why, VM_WHY);

	json_decref(reply);
	return rc;
}

static int
suspend_call(struct suspend *s, const char *command, int fd)
{
	char why[VM_WHY];

	if (suspend_ask(s, command, fd, why) == 0)
		return 0;
	log_error("%s is not suspended: %s", s->name, why);
	return REMOTE_REFUSED;
}

/* The file has its name. A VM that is gone by now has stood still since it was saved, so that
 * the state is as good as if it had been told. */
static int
suspend_end(struct suspend *s)
{
	char why[VM_WHY];
	int rc = suspend_ask(s, "suspended", -1, why);

	if (rc == -EPIPE || rc == -ECONNRESET) {
		log_warning("%s ended before it was told to; its state is whole", s->name);
		rc = 0;
	}
	if (rc)
		log_error("%s is not suspended: %s", s->name, why);
	return rc ? REMOTE_REFUSED : 0;
}

/* The state is written and the VM stands: the disks get its marks, the file its name. */
static int
suspend_publish(struct suspend *s)
{
	char why[VM_WHY];
	int rc;

	if (suspend_interrupted()) {
		log_error("%s is not suspended: interrupted", s->name);
		return REMOTE_REFUSED;
	}
	if (state_note_mark(s->file.fd, why, sizeof(why))) {
		log_error("%s is not suspended: %s", s->name, why);
		return REMOTE_REFUSED;
	}
	rc = replace_commit(&s->file);
	if (rc == 0)
		return 0;
	log_error("%s is not suspended: state '%s' cannot be written: %s", s->name, s->path,
		  strerror(-rc));
	return REMOTE_REFUSED;
}

static int
suspend_run(struct suspend *s)
{
	struct stat st = {0};
	int status = suspend_call(s, "suspend", s->file.fd);

	if (status)
		return status;
	if (fstat(s->file.fd, &st) < 0)
		st.st_size = 0;
	status = suspend_publish(s);
	if (status) {
		suspend_call(s, "suspend-undo", -1);
		return status;
	}
	status = suspend_end(s);
	if (status == 0)
		printf("%s is suspended in %s (%llu KiB); go on with: biga run --state %s\n",
		       s->name, s->path, (unsigned long long)st.st_size >> 10, s->path);
	return status;
}

/* An interrupt waits until the VM is in a state of its own again. */
static void
suspend_block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* *TO from the options; the name, or NULL and *STATUS. */
static const char *
suspend_options(int argc, char **argv, const char **to, int *status)
{
	static const struct option table[] = {
		{"to", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {0}};
	int c;

	*status = EXIT_USAGE;
	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (c == 't') {
			*to = optarg;
		} else if (c == 'h') {
			fputs(suspend_help, stdout);
			*status = 0;
			return NULL;
		} else {
			log_error("suspend takes one VM's name and --to FILE; see biga suspend "
				  "--help");
			return NULL;
		}
	}
	if (optind + 1 == argc)
		return argv[optind];
	log_error("suspend takes one VM's name; see biga suspend --help");
	return NULL;
}

int
cmd_suspend(int argc, char **argv)
{
	struct suspend s = {.file = {.fd = -1}};
	const char *to = NULL;
	int status;

	s.name = suspend_options(argc, argv, &to, &status);
	if (!s.name)
		return status;
	suspend_block_signals();
	status = remote_open(&s.client, s.name);
	if (status)
		return status;
	status = suspend_begin(&s, to);
	if (status == 0)
		status = suspend_run(&s);
	replace_abort(&s.file);
	client_destroy(s.client);
	return status;
}
