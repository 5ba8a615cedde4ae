#!/bin/sh
# A state crosses hypervisors: saved on one, gone on with on the other, and back, in the lab.
# timeout: 400
# modes: release
cd "$(dirname "$0")/../.." || exit 1
if [ "$1" != inside ]; then
	exec tools/kvm-lab --timeout 380 --file tests/boot/suspend_kvm.sh \
		sh tests/boot/suspend_kvm.sh inside
fi
export XDG_RUNTIME_DIR=/tmp/run XDG_DATA_HOME=/tmp/data
mkdir -p /tmp/run && chmod 700 /tmp/run
biga=$BUILD/biga
guest=$BUILD/guest/forever.elf

# dots FILE HYPERVISOR: it runs on that one, and prints three more.
dots()
{
	for _ in $(seq 300); do
		[ "$(grep -c '^\.' "$1")" -ge 3 ] && "$biga" info one | grep -q "^hypervisor  $2" &&
			return 0
		sleep 0.1
	done
	echo "FAIL: not going on on $2"
	cat "$1"
	exit 1
}

"$biga" run --name one --kernel "$guest" --memory 64M --net none --cpu-model x86-64-v2 --hypervisor biga \
	</dev/null >/tmp/out 2>&1 &
dots /tmp/out biga
turn=0
for to in kvm biga kvm kvm biga; do
	turn=$((turn + 1))
	"$biga" suspend one --to "/tmp/state$turn" || exit 1
	wait $! || { echo "FAIL: the run ended with $?"; cat /tmp/out; exit 1; }
	"$biga" run --state "/tmp/state$turn" --hypervisor "$to" </dev/null >/tmp/out 2>&1 &
	dots /tmp/out "$to"
	grep -q forever /tmp/out && { echo "FAIL: it booted"; exit 1; }
	echo "turn $turn: goes on on $to"
done
