#!/bin/sh
# Random blocks of instructions, bare and translated.
# timeout: 300
# modes: release debug
set -u
status=0
for mode in 64 32; do
	"$BUILD/tests/insn/fuzz_blocks" --mode $mode --cases 4000 || status=1
done
exit $status
