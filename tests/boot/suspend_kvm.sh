#!/bin/sh
# A state crosses hypervisors: saved on one, gone on with on the other, and back, in the lab.
# timeout: 500
# modes: release
cd "$(dirname "$0")/../.." || exit 1
if [ "$1" != inside ]; then
	tmp=$(mktemp -d) || exit 1
	trap 'rm -rf "$tmp"' EXIT
	mkdir "$tmp/tree"
	# A sum that is always the same, and a count.
	cat >"$tmp/tree/rc" <<'END'
n=0
while :; do
	sum=$(dd if=/dev/zero bs=64k count=8 2>/dev/null | md5sum)
	n=$((n + 1))
	echo "tick $n $sum"
	sleep 0.1
done
END
	chmod 755 "$tmp/tree/rc"
	tools/mkinitrd "$tmp/tree" >"$tmp/rc.cpio" || exit 1
	tools/kvm-lab --timeout 480 --file tests/boot/suspend_kvm.sh \
		--file "$(tools/image kernel cloud)/vmlinuz=/linux/vmlinuz" \
		--file "$(tools/image busybox amd64)/initrd.cpio=/linux/initrd.cpio" \
		--file "$tmp/rc.cpio=/linux/rc.cpio" sh tests/boot/suspend_kvm.sh inside
	exit
fi
export XDG_RUNTIME_DIR=/tmp/run XDG_DATA_HOME=/tmp/data
mkdir -p /tmp/run && chmod 700 /tmp/run
biga=$BUILD/biga
guest=$BUILD/guest/forever.elf

# goes_on LINE HYPERVISOR: it runs on that one, and prints such lines three times.
goes_on()
{
	for _ in $(seq 1200); do
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
		how=$to
		[ "$to" = kvm ] && how=kvm,force # the lab may be too slow for KVM's test
		"$biga" run --state /tmp/state --hypervisor "$how" </dev/null >/tmp/out 2>&1 &
		goes_on "$line" "$to"
		grep -q "$never" /tmp/out && { echo "FAIL: it booted"; exit 1; }
		echo "goes on on $to"
	done
}

"$biga" run --name one --kernel "$guest" --memory 64M --net none --cpu-model x86-64-v2 \
	--hypervisor biga </dev/null >/tmp/out 2>&1 &
# The lab's processor has no XSAVE, so its guests are x86-64-v2.
goes_on '^\.' biga
cross '^\.' forever kvm biga kvm kvm biga
kill $!
wait $!

"$biga" run --name one --kernel /linux/vmlinuz --initrd /linux/initrd.cpio --initrd /linux/rc.cpio \
	--memory 192M --net none --cpu-model x86-64-v2 --hypervisor kvm,force \
	--append 'console=ttyS0 panic=-1' </dev/null >/tmp/out 2>&1 &
goes_on '^tick' kvm
sum=$(grep '^tick' /tmp/out | head -n 1 | tr -d '\r' | cut -d' ' -f3)
cross '^tick' 'Linux version' biga kvm biga
tr -d '\r' </tmp/out | grep '^tick' | sed '1d;$d' | grep -v " $sum " &&
	{ echo "FAIL: a sum is wrong"; exit 1; }
grep -E 'BUG|Oops|stall|lockup' /tmp/out && exit 1
echo "Linux goes on, with the same sums"
