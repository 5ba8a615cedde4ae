# Biga's build. `make` gives build/release/biga and build/release/biga-net.
#
#   make [MODE=release|debug|asan|ubsan|tsan|cov|fuzz]   build
#   make run                     build, make the Debian 12 guest once, boot it
#   make test [MODE=asan]        everything that proves it (tests/run), in about a quarter of an hour
#   make test-long               the same, with the long forms: 75 boots, minutes of stress, 200 MB
#   make unit guests fuzzers     only build those
#   make bench                   measure against the bare machine and QEMU
#   make fuzz-short              each fuzzer for FUZZ_SECONDS
#   make install [DESTDIR= PREFIX=/usr/local]
#
# All of src/**/*.c but the mains goes into one static library, which the
# programs, unit tests and fuzzers link with.

MODE ?= release
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 30

comma := ,
MODES := release debug asan ubsan tsan cov fuzz
ifeq ($(filter $(MODE),$(MODES)),)
$(error MODE=$(MODE) is none of: $(MODES))
endif

B := build/$(MODE)
ifeq ($(origin CC),default)
CC := $(if $(filter fuzz,$(MODE)),clang,gcc)
endif
ifeq ($(origin AR),default)
AR := ar
endif

WARN := -Wall -Wextra -Wshadow -Wconversion -Wimplicit-fallthrough
WERROR := -Werror

OPT_release := -O2 -g
OPT_debug := -O0 -g3
OPT_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address
OPT_ubsan := -O1 -g -fno-omit-frame-pointer -fsanitize=undefined -fno-sanitize-recover=all
OPT_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
OPT_cov := -O0 -g --coverage
OPT_fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined
ifeq ($(MODE),fuzz)
WERROR := # clang has warnings of its own
endif

# libslirp's .pc asks for GLib's headers, which it does not need; Zydis 4.0 has no .pc.
PKGS := libuv jansson liburing libzstd libseccomp liblzma liblz4 zlib libxxhash
LDLIBS := $(shell pkg-config --libs $(PKGS)) -lslirp -lZydis -lpthread
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS)) -I/usr/include/slirp

CPPFLAGS += -Isrc $(PKG_CFLAGS)
CFLAGS ?=
ALL_CFLAGS := -std=gnu11 $(OPT_$(MODE)) $(WARN) $(WERROR) $(CFLAGS)
LINK_FLAGS := $(filter -fsanitize=% --coverage,$(subst fuzzer-no-link$(comma),,$(OPT_$(MODE)))) \
	-Wl,--as-needed -Wl,-z,relro,-z,now $(LDFLAGS)

# Code that runs with the guest's vector registers in the host's: it may use
# general registers only and may call nothing else (tools/check-leaf).
LEAF_SRC := $(wildcard src/engine/translator/leaf/*.c) src/cpu/walk.c
LEAF_FLAGS := -mgeneral-regs-only -fno-stack-protector -fno-sanitize=all -fno-tree-loop-distribute-patterns
ifeq ($(MODE),cov)
LEAF_FLAGS += -fno-profile-arcs -fno-test-coverage
endif
ifeq ($(MODE),fuzz)
LEAF_FLAGS := -mgeneral-regs-only -fno-stack-protector -fno-sanitize=all
endif
ifeq ($(MODE),debug)
LEAF_FLAGS += -O1
endif

SRC := $(sort $(shell find src -name '*.c' 2>/dev/null))
MAIN_SRC := $(wildcard src/cmd/biga.c src/cmd/biga_net.c)
LIB_SRC := $(filter-out src/cmd/biga.c src/cmd/biga_net.c,$(SRC))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
MAIN_OBJ := $(MAIN_SRC:%.c=$(B)/%.o)
LIB := $(B)/libbiga.a
PROGRAMS := $(if $(wildcard src/cmd/biga.c),$(B)/biga) $(if $(wildcard src/cmd/biga_net.c),$(B)/biga-net)

UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN := $(UNIT_SRC:%.c=$(B)/%)
UNIT_HELP := $(patsubst %.c,$(B)/%.o,$(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c)))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN := $(FUZZ_SRC:%.c=$(B)/%)

all: $(PROGRAMS) $(LIB)

unit: $(UNIT_BIN)

fuzzers: $(FUZZ_BIN)

$(B)/biga: $(B)/src/cmd/biga.o $(LIB)
	$(CC) $(LINK_FLAGS) -o $@ $^ $(LDLIBS)

$(B)/biga-net: $(B)/src/cmd/biga_net.o $(LIB)
	$(CC) $(LINK_FLAGS) -o $@ $^ $(LDLIBS)

# The list of members is a prerequisite, so that a removed source leaves the archive.
$(LIB): $(LIB_OBJ) $(B)/members
	@rm -f $@
	$(AR) rcs $@ $(LIB_OBJ)

$(B)/members: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_OBJ)' | cmp -s - $@ || echo '$(LIB_OBJ)' > $@

# Objects depend on the flags they were built with.
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LEAF_FLAGS))' | cmp -s - $@ || \
		echo '$(subst ','\'',$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LEAF_FLAGS))' > $@

LEAF_OBJ := $(LEAF_SRC:%.c=$(B)/%.o)
$(LEAF_OBJ): FLAGS_HERE := $(LEAF_FLAGS)

$(B)/src/%.o: src/%.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(FLAGS_HERE) -MMD -MP -c -o $@ $<

# The one object that knows where programs are installed.
$(B)/src/cmd/front_net.o: CPPFLAGS += -DBIGA_LIBEXEC='"$(PREFIX)/libexec/biga"'
$(B)/src/cmd/front_net.o: $(B)/prefix

$(B)/prefix: FORCE
	@mkdir -p $(@D)
	@echo '$(PREFIX)' | cmp -s - $@ || echo '$(PREFIX)' > $@

# cmocka's macros convert integers and pointers freely.
TEST_FLAGS := -Itests -Wno-conversion -Wno-sign-conversion -Wno-unused-parameter -DTEST_BUILD='"$(B)"'

$(B)/tests/%.o: tests/%.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(TEST_FLAGS) -MMD -MP -c -o $@ $<

$(UNIT_BIN): $(B)/%: $(B)/%.o $(UNIT_HELP) $(LIB)
	$(CC) $(LINK_FLAGS) -o $@ $(filter %.o,$^) $(LIB) $(LDLIBS) -lcmocka -ldl

$(FUZZ_BIN): $(B)/%: $(B)/%.o $(LIB)
	$(CC) $(LINK_FLAGS) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) -o $@ $(filter %.o,$^) $(LIB) $(LDLIBS)

# Bare-metal guests: their own rules add to GUESTS, or to the target `guests`.
BUILD := $(B)
GUESTS :=
-include tests/guest/rules.mk

guests: $(GUESTS)

# Programs for `make bench` and the instruction tests bring their own rules too.
-include bench/rules.mk
-include tests/insn/rules.mk

run:
	@tools/bootstrap --build --image
	$(MAKE) --no-print-directory all
	tools/run-debian $(B)/biga $(RUN_ARGS)

# The packages first: what is built, and with which flags, is known only then.
test:
	@tools/bootstrap --build --test --image --fuzz
	+@tests/run --make --mode $(MODE) $(LONG) $(TESTS)

test-long:
	@$(MAKE) --no-print-directory LONG=--long test

test-programs: all unit guests

check:
	tests/run --mode $(MODE) check

bench:
	@tools/bootstrap --build --test --image
	$(MAKE) --no-print-directory all
	bench/run.py --biga $(B)/biga $(BENCH_ARGS)

fuzz-short:
	@tools/bootstrap --build --fuzz
	$(MAKE) --no-print-directory MODE=fuzz fuzzers
	tools/fuzz-short build/fuzz $(FUZZ_SECONDS)

coverage:
	$(MAKE) --no-print-directory MODE=cov test
	tools/coverage build/cov

format:
	tools/check-format --fix

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/biga
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/doc/biga
	install -m 755 $(B)/biga $(DESTDIR)$(PREFIX)/bin/biga
	install -m 755 $(B)/biga-net $(DESTDIR)$(PREFIX)/libexec/biga/biga-net
	install -m 644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 README.md SECURITY.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/biga/

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/biga
	rm -f $(patsubst docs/man/%,$(DESTDIR)$(PREFIX)/share/man/man1/%,$(wildcard docs/man/*.1))
	rm -rf $(DESTDIR)$(PREFIX)/libexec/biga $(DESTDIR)$(PREFIX)/share/doc/biga

clean:
	rm -rf $(addprefix build/,$(MODES)) build/bench

FORCE:
.PHONY: all unit fuzzers guests run test test-long test-programs check bench fuzz-short coverage format install uninstall clean FORCE
.SECONDARY:
.DELETE_ON_ERROR:

-include $(shell find $(B) -name '*.d' 2>/dev/null)
