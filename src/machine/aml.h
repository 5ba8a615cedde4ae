/*
 * Writes ACPI machine language (ACPI 6.4, chapter 20) into a buffer. Things
 * that have a body (scope, device, method, package, buffer, if) are begun and
 * ended; their lengths are filled in at the end. Running out of room or nesting
 * too deeply sets AML->failed and is otherwise harmless.
 */
#ifndef MACHINE_AML_H
#define MACHINE_AML_H

#include "base/types.h"

enum { AML_DEPTH = 12 };

struct aml {
	u8 *data;
	size_t len, size;
	struct aml_open {
		size_t length_at; /* where the package length belongs */
		bool resources;	  /* a buffer of resource descriptors */
	} open[AML_DEPTH];
	unsigned depth;
	bool failed;
};

void aml_init(struct aml *aml, void *data, size_t size);

/* Paths as in ASL: "\\_SB.PCI0", names of up to four characters. */
void aml_scope(struct aml *aml, const char *path);
void aml_device(struct aml *aml, const char *name);
void aml_method(struct aml *aml, const char *name, unsigned args);
void aml_if(struct aml *aml); /* the predicate follows, then the body */
void aml_else(struct aml *aml);
void aml_package(struct aml *aml, unsigned elements);
/* A resource template (6.4): descriptors follow. */
void aml_resources(struct aml *aml);
void aml_end(struct aml *aml);

void aml_name(struct aml *aml, const char *name); /* its value follows */
void aml_path(struct aml *aml, const char *path); /* a reference */
void aml_integer(struct aml *aml, u64 value);
void aml_string(struct aml *aml, const char *text);
void aml_eisaid(struct aml *aml, const char *id);	   /* "PNP0A08" as an integer */
void aml_bytes(struct aml *aml, const void *data, u8 len); /* a buffer */
void aml_uuid(struct aml *aml, const char *uuid);
void aml_arg(struct aml *aml, unsigned n);
void aml_return(struct aml *aml);      /* the value follows */
void aml_equal(struct aml *aml);       /* two operands follow */
void aml_store(struct aml *aml);       /* source and target follow */
void aml_notify(struct aml *aml);      /* the object's path and a value follow */
void aml_or(struct aml *aml);	       /* two operands and a target follow */
void aml_dword_field(struct aml *aml); /* source, index, and by aml_path the new name follow */

/* Resource descriptors; ranges by first address and length. */
void aml_io(struct aml *aml, u16 port, u8 count);
void aml_irq(struct aml *aml, unsigned irq);
void aml_memory32(struct aml *aml, u32 base, u32 size);
void aml_bus_range(struct aml *aml, u16 first, u16 count);
void aml_io_range(struct aml *aml, u16 first, u32 count);
void aml_memory_range32(struct aml *aml, u32 base, u32 size);
void aml_memory_range64(struct aml *aml, u64 base, u64 size);

#endif
