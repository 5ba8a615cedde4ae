#!/bin/sh
# Runs in the lab (tests/kvm/lab.py): each PART given, and says how it ended.
model="--cpu-model x86-64-v2" # the lab's CPU has no AVX

linux()
{
	timeout -k 5 240 "$BUILD/biga" run --quiet $model --net none --memory 256M --cpus "$1" \
		--hypervisor kvm --kernel /lab/linux/vmlinuz --initrd /lab/linux/initrd \
		--append "console=ttyS0 panic=-1 quiet" </dev/null >/tmp/linux 2>&1
	code=$?
	cat /tmp/linux
	[ $code -eq 0 ] && grep -q "^BIGA-READY x86_64 cpus=$1 " /tmp/linux &&
		grep -q '^BIGA-DONE 0' /tmp/linux
}

# auto finds it usable, and takes it.
probe()
{
	"$BUILD/biga" doctor >/tmp/doctor
	cat /tmp/doctor
	grep -q '^kvm  *can be used' /tmp/doctor && grep -q '^auto  *takes kvm' /tmp/doctor || return 1
	pages=/sys/kernel/mm/transparent_hugepage/shmem_enabled
	echo never >$pages && "$BUILD/biga" doctor | grep -q '^warning .*no large pages' || return 1
	echo advise >$pages && ! "$BUILD/biga" doctor | grep -q 'no large pages'
}

# A guest that has halted for ever is noticed, though HLT is KVM's own business.
halted()
{
	timeout -k 5 60 "$BUILD/biga" run --quiet $model --net none --hypervisor kvm \
		--kernel "$BUILD/guest/hello.elf" --append "on-kvm halt" </dev/null >/tmp/halt 2>&1
	code=$?
	cat /tmp/halt
	[ $code -eq 1 ] && grep -q 'halted all its processors' /tmp/halt
}

# CPU model host: a VM that stays on kvm, and says so.
host_model()
{
	run="$BUILD/biga run --console none --name pinned"
	timeout -k 5 60 $run --net none --hypervisor kvm --cpu-model host --kernel "$BUILD/guest/forever.elf" \
		</dev/null >/tmp/pinned 2>&1 &
	for i in 1 2 3 4 5 6 7 8 9 10; do
		"$BUILD/biga" info pinned >/tmp/info 2>/dev/null && break
		sleep 1
	done
	cat /tmp/pinned /tmp/info
	grep -q 'stays on kvm' /tmp/pinned && grep -q 'of host$' /tmp/info || return 1
	"$BUILD/biga" switch pinned biga 2>/tmp/switch && return 1
	cat /tmp/switch
	grep -q 'its CPU model is host' /tmp/switch || return 1
	"$BUILD/biga" suspend pinned --to /tmp/pinned.state || return 1
	wait
	timeout -k 5 60 $run --hypervisor biga --state /tmp/pinned.state </dev/null 2>/tmp/refused && return 1
	cat /tmp/refused
	grep -q 'CPU model host is for the hypervisor kvm' /tmp/refused || return 1
	timeout -k 5 60 $run --hypervisor kvm --state /tmp/pinned.state </dev/null >/tmp/again 2>&1 &
	for i in 1 2 3 4 5 6 7 8 9 10; do
		"$BUILD/biga" info pinned >/tmp/info 2>/dev/null && break
		sleep 1
	done
	cat /tmp/again /tmp/info
	grep -q '^status *running' /tmp/info
}

part()
{
	case $1 in
	guest-kvm/*) BIGA_ARGS=$model GUEST_TIMEOUT=120 sh tests/guest/run.sh "${1#*/}" kvm ;;
	kvm/linux-*) linux "${1#*-}" ;;
	kvm/probe) probe ;;
	kvm/halted) halted ;;
	kvm/host-model) host_model; code=$?; kill $! 2>/dev/null; wait; [ $code -eq 0 ] ;;
	kvm/engines) "$BUILD/tests/unit/test_engines" >/tmp/engines 2>&1 && ! grep -q 'no sound KVM' /tmp/engines
		code=$?; cat /tmp/engines; [ $code -eq 0 ] ;;
	*) echo "no such part"; false ;;
	esac
}

failed=0
for name; do
	start=$(cut -d' ' -f1 /proc/uptime)
	if part "$name"; then verdict=ok; else verdict=FAIL failed=1; fi
	echo "PART $name $verdict $(echo "$(cut -d' ' -f1 /proc/uptime) $start" | awk '{ print $1 - $2 }')"
done
exit $failed
