/*
 * VM generation identifier (see vmgenid.h).
 */
#include "device/vmgenid.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "state/state.h"

struct vmgenid {
	u8 guid[VMGENID_SIZE];
	struct memory *memory;
	struct acpi_pm *pm;
};

static int
vmgenid_draw(struct vmgenid *id)
{
	return getrandom(id->guid, sizeof(id->guid), 0) == sizeof(id->guid) ? 0 : -EIO;
}

void
vmgenid_reset(struct vmgenid *id)
{
	memory_write(id->memory, VMGENID_GPA, id->guid, sizeof(id->guid));
}

int
vmgenid_renew(struct vmgenid *id)
{
	int err = vmgenid_draw(id);

	if (err)
		return err;
	vmgenid_reset(id);
	acpi_pm_raise(id->pm, VMGENID_GPE);
	return 0;
}

int
vmgenid_create(struct vmgenid **out, const struct device_host *host, struct acpi_pm *pm)
{
	struct vmgenid *id = calloc(1, sizeof(*id));
	int err;

	if (!id)
		return -ENOMEM;
	id->memory = host->memory;
	id->pm = pm;
	err = vmgenid_draw(id);
	if (err) {
		free(id);
		return err;
	}
	*out = id;
	return 0;
}

void
vmgenid_destroy(struct vmgenid *id)
{
	free(id);
}

/* ---- saved state ---- */

static const struct state_field vmgenid_fields[] = {
	STATE_BYTES(struct vmgenid, guid),
	STATE_END,
};

static const struct state_type vmgenid_state_type = {"vmgenid", 1, vmgenid_fields, NULL, NULL};

void
vmgenid_state(struct vmgenid *id, struct state_list *list)
{
	state_list_add(list, &vmgenid_state_type, 0, id, sizeof(*id));
}
