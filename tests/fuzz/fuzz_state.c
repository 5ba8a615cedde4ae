/*
 * Saved states: a file's bytes against a whole machine. The first byte says whether the
 * checksums are made right first, so that what lies behind them is reached. A state that is
 * taken is saved again, its devices are looked at as a guest would, and, if the first byte
 * says so, its guest runs for a moment.
 *
 * Mutations know the framing: most change numbers in the payload of one section and leave
 * the rest whole, since a file with any section out of place is refused before the others matter.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/log.h"
#include "machine/machine.h"
#include "state/file.h"

#define FUZZ_GOLDEN "tests/golden/state-1"
enum { FUZZ_RAM = 6 << 20, FUZZ_MAX = 1 << 20, FUZZ_RUN_NS = 2000000 };

struct fuzz_tape {
	const u8 *data;
	size_t len, at;
};

static ssize_t
fuzz_read(void *opaque, void *data, size_t len)
{
	struct fuzz_tape *t = opaque;

	if (len > t->len - t->at)
		len = t->len - t->at;
	memcpy(data, t->data + t->at, len);
	t->at += len;
	return (ssize_t)len;
}

static ssize_t
fuzz_write(void *opaque, const void *data, size_t len)
{
	(void)opaque;
	(void)data;
	return (ssize_t)len;
}

static int
fuzz_sync(void *opaque)
{
	(void)opaque;
	return 0;
}

static void
fuzz_repair_section(u8 *s, u64 size, u32 sections, u64 *digest)
{
	u8 both[16];
	u64 sum;

	if (memcmp(s, "end", 4) == 0 && size == 16) {
		put_le32(s + 64, sections);
		put_le64(s + 72, *digest);
	}
	sum = XXH64(s + STATE_SECTION_HEADER, size, XXH64(s, 56, 0));
	put_le64(s + 56, sum);
	put_le64(both, *digest);
	put_le64(both + 8, sum);
	*digest = XXH64(both, 16, 1);
}

/* Checksums of the header, of all whole sections, and of the trailer. */
static void
fuzz_repair(u8 *data, size_t len)
{
	size_t at = STATE_HEADER;
	u64 digest = 0, size;

	if (len < STATE_HEADER)
		return;
	memcpy(data, STATE_MAGIC, 8);
	put_le64(data + 16, FUZZ_RAM);
	put_le64(data + 24, XXH64(data, 24, 0));
	for (u32 n = 0; len - at >= STATE_SECTION_HEADER; n++) {
		size = get_le64(data + at + 40);
		if (size > len - at - STATE_SECTION_HEADER)
			return;
		fuzz_repair_section(data + at, size, n, &digest);
		at += STATE_SECTION_HEADER + size;
	}
}

/* The processor that the golden state is of, so that most of it fits. */
static const struct cpu_model *
fuzz_model(void)
{
	static struct cpu_model model;
	const char *missing;
	struct state_io io;
	char why[300];
	int fd;

	if (model.count)
		return &model;
	log_setup(2, LOG_ERROR);
	fd = open(FUZZ_GOLDEN, O_RDONLY);
	io = state_io_fd(fd);
	if (fd < 0 || machine_peek(&io, NULL, &model, NULL, why, sizeof(why)))
		cpu_model_compute(&model, "x86-64-v2", 1, &missing);
	if (fd >= 0)
		close(fd);
	return &model;
}

static struct machine *
fuzz_machine(void)
{
	struct machine_config config = {.engine = &engine_translator,
					.model = fuzz_model(),
					.memory = FUZZ_RAM,
					.vcpus = 1,
					.code_cache = 4 << 20,
					.from_state = true,
					.kernel_fd = -1,
					.serial = {-1, -1},
					.console = {-1, -1},
					.virtio_console = true,
					.rng = true};
	struct machine *machine;
	char why[300];

	return machine_create(&machine, &config, why, sizeof(why)) ? NULL : machine;
}

static void
fuzz_use(struct machine *machine)
{
	struct state_io null = {NULL, NULL, fuzz_write, fuzz_sync};
	struct memory *mem = machine_memory(machine);
	char why[300];

	for (unsigned port = 0x20; port < 0x400; port++)
		memory_port_read(mem, (u16)port, 1);
	for (unsigned i = 0; i < 0x400; i += 8)
		memory_mmio_read(mem, 0xfed00000 + i, 8);
	for (unsigned slot = 0; slot < 32; slot++)
		for (unsigned i = 0; i < 256; i += 4)
			memory_mmio_read(mem, 0xb0000000 + slot * 0x8000 + i, 4);
	machine_save(machine, &null, "", why, sizeof(why));
}

/* ---- mutations ---- */

size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max_size, unsigned seed);

/* Section number INDEX of DATA that is no memory: its payload and *LEN; NULL if there are fewer. */
static u8 *
fuzz_payload(u8 *data, size_t len, u32 index, size_t *payload_len)
{
	size_t at = STATE_HEADER;
	u64 size;

	while (len > at && len - at >= STATE_SECTION_HEADER) {
		size = get_le64(data + at + 40);
		if (size > len - at - STATE_SECTION_HEADER)
			return NULL;
		if (memcmp(data + at, "ram", 4) != 0 && index-- == 0) {
			*payload_len = size;
			return data + at + STATE_SECTION_HEADER;
		}
		at += STATE_SECTION_HEADER + size;
	}
	return NULL;
}

static u64
fuzz_number(u64 old, u64 random)
{
	switch (random % 8) {
	case 0:
		return 0;
	case 1:
		return ~0ull;
	case 2:
		return 1ull << random / 8 % 64;
	case 3:
		return (1ull << random / 8 % 64) - 1;
	case 4:
		return old ^ 1ull << random / 8 % 64;
	case 5:
		return old + (random & 8 ? 1 : ~0ull);
	case 6:
		return random >> 32;
	default:
		return random * 0x9e3779b97f4a7c15;
	}
}

static u64
fuzz_random(u64 *seed)
{
	*seed = *seed * 6364136223846793005 + 1442695040888963407;
	return *seed >> 33 | *seed << 31;
}

/* A number of 1, 2, 4 or 8 bytes somewhere in the payload. */
static void
fuzz_change(u8 *payload, size_t len, u64 *seed)
{
	size_t width = 1u << fuzz_random(seed) % 4, at;
	u64 value = 0;

	if (width > len)
		width = 1;
	at = fuzz_random(seed) % (len - width + 1);
	memcpy(&value, payload + at, width);
	value = fuzz_number(value, fuzz_random(seed));
	memcpy(payload + at, &value, width);
}

size_t
LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max_size, unsigned seed_)
{
	u64 seed = seed_, changes;
	size_t len = 0;
	u8 *payload = NULL;

	fuzz_random(&seed);
	if (size > 1 && fuzz_random(&seed) % 16)
		payload = fuzz_payload(data + 1, size - 1, fuzz_random(&seed) % 40, &len);
	if (!payload || !len)
		return LLVMFuzzerMutate(data, size, max_size);
	data[0] |= 1 | (fuzz_random(&seed) & 2);
	changes = 1 + fuzz_random(&seed) % 4;
	while (changes--)
		fuzz_change(payload, len, &seed);
	return size;
}

static void
fuzz_stop(void *opaque)
{
	machine_stop(opaque);
}

static void
fuzz_run(struct machine *machine)
{
	struct loop_timer *timer;
	struct machine_end end;

	if (loop_timer_create(machine_loop(machine), fuzz_stop, machine, &timer))
		abort();
	loop_timer_arm(timer, loop_now() + FUZZ_RUN_NS);
	if (machine_start(machine) == 0)
		machine_run(machine, &end);
	loop_timer_destroy(timer);
}

int
LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct fuzz_tape tape;
	struct state_io io = {&tape, fuzz_read, fuzz_write, fuzz_sync};
	struct machine *machine;
	char why[300] = "";
	u8 *copy;

	if (size < 1 || size > FUZZ_MAX)
		return 0;
	copy = malloc(size);
	machine = fuzz_machine();
	if (!copy || !machine)
		abort();
	memcpy(copy, data + 1, size - 1);
	if (data[0] & 1)
		fuzz_repair(copy, size - 1);
	tape = (struct fuzz_tape){copy, size - 1, 0};
	if (machine_load(machine, &io, why, sizeof(why)) == 0) {
		fuzz_use(machine);
		if (data[0] & 2)
			fuzz_run(machine);
	} else if (!why[0] || strchr(why, '\n')) {
		abort();
	}
	machine_destroy(machine);
	free(copy);
	return 0;
}
