/*
 * The VM generation identifier (Microsoft's "Virtual Machine Generation ID", 2012):
 * 128 random bits in reserved guest memory, which ACPI tells the guest where to find.
 * They change when the VM goes on from a state that others may go on from too, so
 * that the guest does not use keys, random numbers or transactions twice. Under
 * the machine's lock.
 */
#ifndef DEVICE_VMGENID_H
#define DEVICE_VMGENID_H

#include "bus/device.h"
#include "device/acpi_pm.h"

/* A page of the range that the map of memory reserves for tables; the GUID is at its start. */
#define VMGENID_GPA 0xff000ull
enum { VMGENID_SIZE = 16, VMGENID_GPE = 5 };

struct vmgenid;

/* PM raises the event. 0 or -errno. */
int vmgenid_create(struct vmgenid **out, const struct device_host *host, struct acpi_pm *pm);
void vmgenid_destroy(struct vmgenid *id);
/* Puts it into the guest's memory, which may have lost it. */
void vmgenid_reset(struct vmgenid *id);
/* Another one; the guest is told. 0 or -errno. */
int vmgenid_renew(struct vmgenid *id);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void vmgenid_state(struct vmgenid *id, struct state_list *list);

#endif
