#!/bin/sh
# A state crosses hypervisors: saved on one, gone on with on the other, and back, in the lab.
# timeout: 300
# modes: release
cd "$(dirname "$0")/../.." || exit 1
if [ "$1" != inside ]; then
	exec tools/kvm-lab --timeout 280 --file tests/boot/suspend_kvm.sh \
		sh tests/boot/suspend_kvm.sh inside
fi
export XDG_RUNTIME_DIR=/tmp/run XDG_DATA_HOME=/tmp/data
mkdir -p /tmp/run && chmod 700 /tmp/run
biga=$BUILD/biga
guest=$BUILD/guest/forever.elf

# goes_on LINE HYPERVISOR: it runs on that one, and prints such lines three times.
goes_on()
{
	for _ in $(seq 600); do
		[ "$(grep -c "$1" /tmp/out)" -ge 3 ] && "$biga" info one | grep -q "^hypervisor  $2" &&
			return 0
		sleep 0.1
	done
	echo "FAIL: not going on on $2"
	tail -n 30 /tmp/out
	exit 1
}

# cross LINE NEVER TO...: from the one that it runs on to the others, in turn.
cross()
{
	line=$1
	never=$2
	shift 2
	for to in "$@"; do
		"$biga" suspend one --to /tmp/state >/dev/null || exit 1
		wait $! || { echo "FAIL: the run ended with $?"; cat /tmp/out; exit 1; }
		"$biga" run --state /tmp/state --hypervisor "$to" </dev/null >/tmp/out 2>&1 &
		goes_on "$line" "$to"
		grep -q "$never" /tmp/out && { echo "FAIL: it booted"; exit 1; }
		echo "goes on on $to"
	done
}

"$biga" run --name one --kernel "$guest" --memory 64M --net none --cpu-model x86-64-v2 \
	--hypervisor biga </dev/null >/tmp/out 2>&1 &
# Bare metal: the lab's processor has no XSAVE, so its guests are x86-64-v2.
goes_on '^\.' biga
cross '^\.' forever kvm biga kvm kvm biga
