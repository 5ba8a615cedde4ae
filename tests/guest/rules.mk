# Bare-metal guests: $(B)/guest/NAME.elf of each tests/guest/NAME.c. The first line that
# says "bits: 32" makes a 32-bit multiboot guest, else it is a 64-bit PVH one.
GUEST_SRC := $(wildcard tests/guest/*.c)
GUEST_NAMES := $(patsubst tests/guest/%.c,%,$(GUEST_SRC))
GUEST_32 := $(patsubst tests/guest/%.c,%,$(shell grep -l '^ \* bits: 32' $(GUEST_SRC) /dev/null))
GUEST_64 := $(filter-out $(GUEST_32),$(GUEST_NAMES))
GUEST_OUT := $(or $(B),$(BUILD),build/release)/guest
GUEST_CC := gcc
GUEST_CFLAGS := -std=gnu11 -O2 -g -Wall -Wextra -Wshadow -Wconversion -Wimplicit-fallthrough -Wno-clobbered -Werror \
	-Itests/guest -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fno-strict-aliasing \
	-fcf-protection=none -fno-asynchronous-unwind-tables -fno-jump-tables -fno-tree-vectorize \
	-fno-tree-loop-distribute-patterns -fno-omit-frame-pointer -mgeneral-regs-only -mno-red-zone -MMD -MP
GUEST_LIB := guest trap paging apic acpi
GUEST_LIB_32 := $(GUEST_LIB:%=$(GUEST_OUT)/lib32/%.o) $(GUEST_OUT)/lib32/start32.o $(GUEST_OUT)/lib32/trap32.o
GUEST_LIB_64 := $(GUEST_LIB:%=$(GUEST_OUT)/lib64/%.o) $(GUEST_OUT)/lib64/start64.o \
	$(GUEST_OUT)/lib64/trap64.o $(GUEST_OUT)/lib64/smp.o $(GUEST_OUT)/lib64/smp16.o

GUESTS += $(GUEST_NAMES:%=$(GUEST_OUT)/%.elf)
.PHONY: guests
guests: $(GUEST_NAMES:%=$(GUEST_OUT)/%.elf)

$(GUEST_OUT)/lib32/%.o: tests/guest/lib/%.c
	@mkdir -p $(@D)
	$(GUEST_CC) -m32 $(GUEST_CFLAGS) -c -o $@ $<
$(GUEST_OUT)/lib64/%.o: tests/guest/lib/%.c
	@mkdir -p $(@D)
	$(GUEST_CC) -m64 $(GUEST_CFLAGS) -c -o $@ $<
$(GUEST_OUT)/lib32/%.o: tests/guest/lib/%.S
	@mkdir -p $(@D)
	$(GUEST_CC) -m32 -Itests/guest -c -o $@ $<
$(GUEST_OUT)/lib64/%.o: tests/guest/lib/%.S
	@mkdir -p $(@D)
	$(GUEST_CC) -m64 -Itests/guest -c -o $@ $<

$(GUEST_32:%=$(GUEST_OUT)/%.elf): $(GUEST_OUT)/%.elf: tests/guest/%.c tests/guest/lib/guest32.ld $(GUEST_LIB_32)
	@mkdir -p $(@D)
	$(GUEST_CC) -m32 $(GUEST_CFLAGS) -DGUEST_NAME='"$*"' -include lib/name.h -c -o $(@:.elf=.o) $<
	ld -m elf_i386 --build-id=none --no-warn-rwx-segments -T tests/guest/lib/guest32.ld -o $@ $(@:.elf=.o) $(GUEST_LIB_32)
$(GUEST_64:%=$(GUEST_OUT)/%.elf): $(GUEST_OUT)/%.elf: tests/guest/%.c tests/guest/lib/guest64.ld $(GUEST_LIB_64)
	@mkdir -p $(@D)
	$(GUEST_CC) -m64 $(GUEST_CFLAGS) -DGUEST_NAME='"$*"' -include lib/name.h -c -o $(@:.elf=.o) $<
	ld -m elf_x86_64 --build-id=none --no-warn-rwx-segments -z max-page-size=4096 -T tests/guest/lib/guest64.ld -o $@ $(@:.elf=.o) $(GUEST_LIB_64)

-include $(wildcard $(GUEST_OUT)/*.d $(GUEST_OUT)/lib32/*.d $(GUEST_OUT)/lib64/*.d)
