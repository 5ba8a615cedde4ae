#!/bin/sh
# The translator's C helpers of user-level instructions alone, against the bare CPU.
# timeout: 300
# modes: release debug
set -u
status=0
for mode in 64 32; do
	"$BUILD/tests/insn/helper_test" --mode $mode --cases 24 || status=1
done
exit $status
