# Programs of the benchmark: static, so that the same bytes run on the bare
# machine and in every guest. Measured code is built as Debian builds: -O2.
BENCH_FLAGS := -std=gnu11 -O2 -g0 -Wall -Wextra -static -ffp-contract=off
BENCH_NAMES := integer floating system driver first requests
BENCH_BIN := $(BENCH_NAMES:%=build/bench/%)

bench-programs: $(BENCH_BIN)

$(BENCH_BIN): build/bench/%: bench/programs/%.c bench/programs/bench.c bench/programs/bench.h
	@mkdir -p $(@D)
	gcc $(BENCH_FLAGS) -o $@ $< bench/programs/bench.c -lm -lpthread

.PHONY: bench-programs
