/*
 * A counting loop in a VM of 1 MiB (see host_kvm_speed.h): flat 32-bit code without
 * paging, ended by an OUT, which IOPL 3 lets CPL 3 do.
 */
#include "cmd/host_kvm_speed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	SPEED_RAM = 1 << 20,
	SPEED_CODE = 0x1000,
	SPEED_ENOUGH_NS = 3000000,
	SPEED_FIRST = 1 << 10,
	SPEED_LAST = 1 << 28,
	SPEED_IOPL3 = 3 << 12,
	SPEED_CODE_TYPE = 11,
	SPEED_DATA_TYPE = 3,
};

/* dec ecx; jnz -3; out dx, al */
static const u8 speed_loop[] = {0x49, 0x75, 0xfd, 0xee};

struct speed {
	const struct engine_ops *ops;
	struct memory *memory;
	struct engine *engine;
	struct engine_vcpu *vcpu;
	struct cpu_model model;
	struct cpu_state state;
};

static int
speed_no_extint(void *opaque)
{
	(void)opaque;
	return -1;
}

/* This thread's own time: what others do on the host does not count. */
static u64
speed_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

static void
speed_set_segment(struct segment *s, u16 type, unsigned cpl)
{
	s->base = 0;
	s->limit = 0xffffffff;
	s->selector = (u16)(8 | cpl);
	s->attr = (u16)(type | SEGMENT_S | SEGMENT_P | SEGMENT_DB | SEGMENT_G |
			cpl << SEGMENT_DPL_SHIFT);
}

static int
speed_start(struct speed *s, u32 count, unsigned cpl)
{
	struct cpu_state *state = &s->state;

	cpu_state_reset(state, 0);
	for (int i = 0; i < CPU_SEGMENTS; i++)
		speed_set_segment(&state->seg[i], SPEED_DATA_TYPE, cpl);
	speed_set_segment(&state->seg[CPU_CS], SPEED_CODE_TYPE, cpl);
	state->cr0 = CR0_PE | CR0_ET;
	state->rflags = RFLAGS_FIXED | SPEED_IOPL3;
	state->rip = SPEED_CODE;
	state->gpr[CPU_RCX] = count;
	return s->ops->set_state(s->vcpu, state);
}

/* The time that COUNT rounds take. */
static int
speed_run(struct speed *s, u32 count, unsigned cpl, u64 *ns)
{
	struct engine_exit exit;
	u64 start;
	int rc = speed_start(s, count, cpl);

	if (rc < 0)
		return rc;
	start = speed_now_ns();
	do
		rc = s->ops->run(s->vcpu, &exit);
	while (rc == 0 && exit.kind == EXIT_KICKED);
	*ns = speed_now_ns() - start;
	return rc == 0 && exit.kind == EXIT_PORT && exit.port.write ? 0 : -EIO;
}

static int
speed_of(struct speed *s, unsigned cpl, u64 *speed)
{
	u64 ns = 0;
	u32 count = SPEED_FIRST;
	int rc = speed_run(s, count, cpl, &ns); /* warms up */

	while (rc == 0 && ns < SPEED_ENOUGH_NS && count < SPEED_LAST) {
		count *= 4;
		rc = speed_run(s, count, cpl, &ns);
	}
	if (rc == 0)
		*speed = (u64)((double)count * 2 * 1e9 / (double)(ns ? ns : 1));
	return rc;
}

static int
speed_create(struct speed *s, int device)
{
	struct engine_config config = {.vcpus = 1,
				       .code_cache = 4 << 20,
				       .device = device,
				       .model = &s->model,
				       .extint_vector = speed_no_extint};
	const char *missing;
	int rc = memory_create(&s->memory, SPEED_RAM);

	if (rc == 0)
		rc = cpu_model_compute(&s->model, "x86-64-v2", 1, &missing);
	if (rc == 0)
		rc = memory_write(s->memory, SPEED_CODE, speed_loop, sizeof(speed_loop));
	config.memory = s->memory;
	if (rc == 0)
		rc = s->ops->create(&s->engine, &config);
	if (rc == 0)
		rc = s->ops->map(s->engine, 0, SPEED_RAM, 0, true);
	if (rc == 0)
		rc = s->ops->vcpu_create(s->engine, 0, &s->vcpu);
	return rc;
}

int
host_speed_measure(const struct engine_ops *ops, int device, u64 *kernel, u64 *user)
{
	struct speed *s = aligned_alloc(64, align_up(sizeof(*s), 64));
	int rc;

	*kernel = *user = 0;
	if (s == NULL)
		return -ENOMEM;
	memset(s, 0, sizeof(*s));
	s->ops = ops;
	rc = speed_create(s, device);
	if (rc == 0)
		rc = speed_of(s, 0, kernel);
	if (rc == 0)
		rc = speed_of(s, 3, user);
	if (s->vcpu)
		ops->vcpu_destroy(s->vcpu);
	if (s->engine)
		ops->destroy(s->engine);
	if (s->memory)
		memory_destroy(s->memory);
	free(s);
	return rc;
}
