/*
 * The firmware configuration device: numbered items that a guest selects at
 * port 0x510 and reads byte by byte at 0x511, and named files among them
 * (the interface that SeaBIOS, OVMF and bare-metal test suites use).
 * Under the machine's lock.
 */
#ifndef DEVICE_FW_CFG_H
#define DEVICE_FW_CFG_H

#include "bus/device.h"

struct fw_cfg;

/* Keys of numbered items. */
enum { FW_CFG_RAM_SIZE = 0x03, FW_CFG_CPUS = 0x05, FW_CFG_MAX_CPUS = 0x0f };

/* With the signature, RAM size and number of processors in it. 0 or -ENOMEM. */
int fw_cfg_create(struct fw_cfg **out, const struct device_host *host, unsigned vcpus);
void fw_cfg_destroy(struct fw_cfg *fw);
void fw_cfg_reset(struct fw_cfg *fw);

/* A file of LEN bytes, copied. 0, -ENOMEM, -ENOSPC, -EEXIST or -ENAMETOOLONG. */
int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, u32 len);

struct state_list;
/* Adds what is saved of it (state/state.h). */
void fw_cfg_state(struct fw_cfg *fw, struct state_list *list);

#endif
