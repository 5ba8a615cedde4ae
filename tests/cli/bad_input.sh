#!/bin/sh
# What `biga run` refuses: one line with cause and fix, status 2, nothing on
# standard output.
. "$(dirname "$0")/lib.sh"
cd "$TMP" || exit 1

printf 'not a kernel at all' >text
head -c 100000 /dev/zero >zeros
: >empty
mkdir folder
mkfifo fifo
truncate -s 1M disk
truncate -s 1000 odd
printf 'QFI\373' >qcow2 && truncate -s 1M qcow2
kernel=zeros

r() { text=$1; shift; refused 2 "$text" "$BIGA" run --quiet --net none --console none "$@"; }

refused 2 "unknown command 'rum'" "$BIGA" rum
r "--kernel FILE"
r "unknown option '--bogus'" --bogus
r "unexpected word 'disk'" --kernel $kernel disk
r "'missing': No such file" --kernel missing
r "not a regular file" --kernel folder
r "not a regular file" --kernel fifo
r "is empty" --kernel empty
r "not a kernel" --kernel text
r "kernel" --kernel zeros
r "'missing': No such file" --kernel $kernel --initrd missing
r "is empty" --kernel $kernel --initrd empty
r "use 1 to 16" --kernel $kernel --cpus 0
r "is not a size" --kernel $kernel --memory 5x
r "at least" --kernel $kernel --memory 1M
r "more than this host has" --kernel $kernel --memory 250G
r "no CPU model" --kernel $kernel --cpu-model pentium
r "CPU model host is for the hypervisor kvm" --kernel $kernel --hypervisor biga --cpu-model host
r "'missing': No such file" --kernel $kernel --disk missing
r "neither a file nor a block device" --kernel $kernel --disk /dev/null
r "is empty" --kernel $kernel --disk empty
r "no multiple of 512" --kernel $kernel --disk odd
r "is a qcow2 image" --kernel $kernel --disk qcow2
r "not built yet" --kernel $kernel --disk disk,format=qcow2
r "no option 'reed'" --kernel $kernel --disk disk,reed
r "given twice" --kernel $kernel --disk disk --disk disk
r "no network" --kernel $kernel --net bridge
r "console 'no/such/file'" --kernel $kernel --console no/such/file

# Root may write what is not writable; another user may be absent.
if [ "$(id -u)" -eq 0 ]; then
	as_user="setpriv --reuid 65534 --regid 65534 --clear-groups"
	chmod 755 . ; chmod 644 disk zeros
else
	as_user=
	chmod 444 disk
fi
cp "$BIGA" "$TMP/biga-copy" && chmod 755 "$TMP/biga-copy"
# shellcheck disable=SC2086
refused 2 "add ,readonly" $as_user "$TMP/biga-copy" run --quiet --net none --console none \
	--kernel zeros --disk disk

# Somebody else's lock, named where /proc/locks shows it.
chmod 644 disk
flock disk -c 'echo held; sleep 20' >held &
holder=$!
while ! [ -s held ]; do sleep 0.05; done
r "disk 'disk' is locked by another VM" --kernel $kernel --disk disk
r "disk 'disk' is locked by another VM" --kernel $kernel --disk disk,readonly
kill $holder

# A busy host port.
python3 -c '
import socket, time, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
print(s.getsockname()[1], flush=True); time.sleep(20)' >port &
python=$!
while ! [ -s port ]; do sleep 0.05; done
refused 2 "cannot listen on TCP port 127.0.0.1:$(cat port)" "$BIGA" run --quiet --console none \
	--kernel $kernel --net "user,forward=tcp::$(cat port)-:22"
kill $python

refused 2 "no terminal" sh -c "'$BIGA' run --quiet --net none --kernel $kernel <&-"
finish
