/*
 * fw_cfg (qemu.readthedocs.io, specs/fw_cfg), without its DMA interface, which
 * the feature item therefore does not show. Numbers are little-endian but in
 * the file directory, which is big-endian.
 */
#include "device/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "state/state.h"

enum { FW_CFG_SELECT_PORT = 0x510 };
enum {
	FW_CFG_SIGNATURE = 0x00,
	FW_CFG_FEATURES = 0x01,
	FW_CFG_DIRECTORY = 0x19,
	FW_CFG_FIRST_FILE = 0x20
};
enum { FW_CFG_ITEMS = 32, FW_CFG_NAME = 56, FW_CFG_ENTRY = 64 };
enum { FW_CFG_TRADITIONAL = BIT(0) };

struct fw_cfg_item {
	u16 key;
	u32 len;
	u8 *data;
};

struct fw_cfg {
	struct fw_cfg_item items[FW_CFG_ITEMS];
	unsigned count, files;
	u16 selected;
	u32 offset;
	struct memory *memory;
	struct io_region *region;
};

static struct fw_cfg_item *
fw_cfg_find(struct fw_cfg *fw, u16 key)
{
	for (unsigned i = 0; i < fw->count; i++)
		if (fw->items[i].key == key)
			return &fw->items[i];
	return NULL;
}

/* Adds an item or replaces its content. */
static int
fw_cfg_set(struct fw_cfg *fw, u16 key, const void *data, u32 len)
{
	struct fw_cfg_item *item = fw_cfg_find(fw, key);
	u8 *copy;

	if (!item && fw->count == FW_CFG_ITEMS)
		return -ENOSPC;
	copy = malloc(len ? len : 1);
	if (!copy)
		return -ENOMEM;
	if (len)
		memcpy(copy, data, len);
	if (!item) {
		item = &fw->items[fw->count++];
		item->data = NULL;
	}
	free(item->data);
	*item = (struct fw_cfg_item){key, len, copy};
	return 0;
}

static void
fw_cfg_put_be32(u8 *p, u32 value)
{
	put_le32(p, __builtin_bswap32(value));
}

/* Entry: size, key, reserved, name; before them the number of entries. */
static int
fw_cfg_grow_directory(struct fw_cfg *fw, const char *name, u16 key, u32 len)
{
	u8 directory[4 + FW_CFG_ITEMS * FW_CFG_ENTRY] = {0};
	struct fw_cfg_item *old = fw_cfg_find(fw, FW_CFG_DIRECTORY);
	u8 *entry = directory + 4 + fw->files * FW_CFG_ENTRY;

	memcpy(directory, old->data, old->len);
	fw_cfg_put_be32(directory, fw->files + 1);
	fw_cfg_put_be32(entry, len);
	put_le16(entry + 4, __builtin_bswap16(key));
	strncpy((char *)entry + 8, name, FW_CFG_NAME - 1);
	return fw_cfg_set(fw, FW_CFG_DIRECTORY, directory, old->len + FW_CFG_ENTRY);
}

static bool
fw_cfg_has_file(struct fw_cfg *fw, const char *name)
{
	const struct fw_cfg_item *directory = fw_cfg_find(fw, FW_CFG_DIRECTORY);

	for (unsigned i = 0; i < fw->files; i++)
		if (!strcmp((const char *)directory->data + 4 + i * FW_CFG_ENTRY + 8, name))
			return true;
	return false;
}

int
fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, u32 len)
{
	u16 key = (u16)(FW_CFG_FIRST_FILE + fw->files);
	int err;

	if (strlen(name) >= FW_CFG_NAME)
		return -ENAMETOOLONG;
	if (fw_cfg_has_file(fw, name))
		return -EEXIST;
	err = fw_cfg_set(fw, key, data, len);
	if (!err)
		err = fw_cfg_grow_directory(fw, name, key, len);
	if (!err)
		fw->files++;
	return err;
}

static u64
fw_cfg_read(void *opaque, u64 offset, unsigned size)
{
	struct fw_cfg *fw = opaque;
	const struct fw_cfg_item *item = fw_cfg_find(fw, fw->selected & 0x3fff);

	if (offset != 1 || size != 1)
		return 0;
	if (!item || fw->offset >= item->len)
		return 0;
	return item->data[fw->offset++];
}

static void
fw_cfg_write(void *opaque, u64 offset, unsigned size, u64 value)
{
	struct fw_cfg *fw = opaque;

	if (offset != 0 || size != 2)
		return; /* items are read-only */
	fw->selected = (u16)value;
	fw->offset = 0;
}

static const struct io_ops fw_cfg_ops = {fw_cfg_read, fw_cfg_write};

void
fw_cfg_reset(struct fw_cfg *fw)
{
	fw->selected = 0;
	fw->offset = 0;
}

static int
fw_cfg_fill(struct fw_cfg *fw, unsigned vcpus)
{
	u8 number[8] = {0};
	int err = fw_cfg_set(fw, FW_CFG_SIGNATURE, "QEMU", 4);

	put_le32(number, FW_CFG_TRADITIONAL);
	err = err ? err : fw_cfg_set(fw, FW_CFG_FEATURES, number, 4);
	put_le64(number, memory_ram_size(fw->memory));
	err = err ? err : fw_cfg_set(fw, FW_CFG_RAM_SIZE, number, 8);
	put_le64(number, vcpus);
	err = err ? err : fw_cfg_set(fw, FW_CFG_CPUS, number, 2);
	err = err ? err : fw_cfg_set(fw, FW_CFG_MAX_CPUS, number, 2);
	put_le64(number, 0);
	return err ? err : fw_cfg_set(fw, FW_CFG_DIRECTORY, number, 4);
}

int
fw_cfg_create(struct fw_cfg **out, const struct device_host *host, unsigned vcpus)
{
	struct fw_cfg *fw = calloc(1, sizeof(*fw));
	int err;

	if (!fw)
		return -ENOMEM;
	fw->memory = host->memory;
	err = fw_cfg_fill(fw, vcpus);
	if (err)
		goto fail;
	err = -ENOMEM;
	fw->region = memory_add_ports(host->memory, FW_CFG_SELECT_PORT, 2, &fw_cfg_ops, fw);
	if (!fw->region)
		goto fail;
	*out = fw;
	return 0;
fail:
	fw_cfg_destroy(fw);
	return err;
}

void
fw_cfg_destroy(struct fw_cfg *fw)
{
	if (!fw)
		return;
	if (fw->region)
		memory_remove_region(fw->memory, fw->region);
	for (unsigned i = 0; i < fw->count; i++)
		free(fw->items[i].data);
	free(fw);
}

/* ---- saved state ---- */

static const struct state_field fw_cfg_fields[] = {
	STATE_NUMBER(struct fw_cfg, selected),
	STATE_NUMBER(struct fw_cfg, offset),
	STATE_END,
};

static const struct state_type fw_cfg_state_type = {"fw-cfg", 1, fw_cfg_fields, NULL, NULL};

void
fw_cfg_state(struct fw_cfg *fw, struct state_list *list)
{
	state_list_add(list, &fw_cfg_state_type, 0, fw, sizeof(*fw));
}
