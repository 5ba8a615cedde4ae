#!/bin/sh
# Every user-level instruction form, bare and translated, 64- and 32-bit code.
# timeout: 300
# modes: release debug
set -u
status=0
for mode in 64 32; do
	"$BUILD/tests/insn/insn_test" --mode $mode --cases 12 || status=1
done
exit $status
