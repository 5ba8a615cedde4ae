#!/bin/sh
# Suspend and resume by the command line: what is refused, in one line, leaves VM, files and disks
# as they were; what is saved goes on once.
. "$(dirname "$0")/lib.sh"
guest=$(dirname "$BIGA")/guest/forever.elf
[ -f "$guest" ] || { echo "no guest forever: make guests"; exit 1; }
XDG_RUNTIME_DIR=$TMP
XDG_DATA_HOME=$TMP/data
export XDG_RUNTIME_DIR XDG_DATA_HOME
disk=$TMP/disk.raw
state=$TMP/data/biga/suspended/one.state
truncate -s 1M "$disk"

# started NAME: waits until it answers.
started()
{
	for _ in $(seq 200); do
		"$BIGA" info "$1" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	fail "$1 does not answer: $(cat "$TMP/$1.err")"
}

# start NAME OPTION...: in the background, its process in $vm.
start()
{
	name=$1
	shift
	"$BIGA" run "$@" --name "$name" --hypervisor biga </dev/null \
		>"$TMP/$name.out" 2>"$TMP/$name.err" &
	vm=$!
	started "$name"
}

# dots FILE: waits for three more.
dots()
{
	want=$(($(grep -c '^\.' "$1") + 3))
	for _ in $(seq 200); do
		[ "$(grep -c '^\.' "$1")" -ge "$want" ] && return 0
		sleep 0.1
	done
	fail "no dots in $1"
}

mark()
{
	python3 -c '
import os, sys
try:
	print(os.getxattr(sys.argv[1], "user.biga.generation").decode())
except OSError:
	print(open(sys.argv[1] + ".biga").read().split()[0] if os.path.exists(sys.argv[1] + ".biga") else "none")
' "$disk"
}

refused 2 'no VM named one runs' "$BIGA" suspend one
refused 2 'takes one VM' "$BIGA" suspend
refused 2 'takes one VM' "$BIGA" suspend one two
refused 2 'takes one VM' "$BIGA" suspend one --frob
refused 2 'No such file' "$BIGA" run --state "$TMP/none"
refused 2 'does not go with --state' "$BIGA" run --state "$TMP/none" --cpus 2
refused 2 'does not go with --state' "$BIGA" run --kernel "$guest" --state "$TMP/none"

start one --kernel "$guest" --disk "$disk" --memory 64M --net none
dots "$TMP/one.out"
[ "$(mark)" = none ] || fail "the disk is marked before it is suspended"
echo precious >"$TMP/precious"
refused 2 'is no saved state' "$BIGA" suspend one --to "$TMP/precious"
[ "$(cat "$TMP/precious")" = precious ] || fail "a file was overwritten"
refused 2 'cannot be made' "$BIGA" suspend one --to "$TMP/no/such/folder"
dots "$TMP/one.out"

"$BIGA" suspend one >"$TMP/said" || fail "suspend: $?"
wait "$vm" || fail "the run ended with $?"
grep -q "$state" "$TMP/said" || fail "said: $(cat "$TMP/said")"
[ "$(stat -c %a "$state")" = 600 ] || fail "others may read the state"
[ "$(mark)" != none ] || fail "the disk is not marked"
cp "$state" "$TMP/first"
first=$(mark)

# Damaged, cut, foreign: refused, and the state is as good as before.
head -c 5000 "$state" >"$TMP/cut"
refused 2 'cut short' "$BIGA" run --state "$TMP/cut" --quiet
python3 -c '
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[len(data) // 2] ^= 4
open(sys.argv[2], "wb").write(data)' "$state" "$TMP/bad"
refused 2 'damaged' "$BIGA" run --state "$TMP/bad" --quiet
refused 2 'no saved state' "$BIGA" run --state "$guest" --quiet
refused 2 'cut short' "$BIGA" run --state /dev/null --quiet
cp "$disk" "$TMP/other"
mv "$disk" "$disk.away"
refused 2 'No such file' "$BIGA" run --state "$state" --quiet
truncate -s 2M "$disk"
refused 2 'another size' "$BIGA" run --state "$state" --quiet
truncate -s 1M "$disk"
refused 2 'moved on' "$BIGA" run --state "$state" --quiet
mv "$disk.away" "$disk"
[ "$(mark)" = "$first" ] || fail "a refusal has changed the disk's mark"

start two --state "$state"
grep -q forever "$TMP/two.out" && fail "it booted"
dots "$TMP/two.out"
[ "$(mark)" = none ] || fail "the disk is still marked"
refused 2 'locked' "$BIGA" run --state "$state" --quiet
"$BIGA" suspend two --to "$TMP/again" >/dev/null || fail "suspend again: $?"
wait "$vm" || fail "the run ended with $?"
refused 2 'moved on' "$BIGA" run --state "$TMP/first" --quiet
start three --state "$TMP/again"
dots "$TMP/three.out"

"$BIGA" suspend three --to "$TMP/third" >/dev/null || fail "suspend a third time: $?"
wait "$vm" || fail "the run ended with $?"
start four --state "$TMP/third"
kill "$vm"
wait "$vm"
refused 2 'moved on' "$BIGA" run --state "$TMP/third" --quiet

# Whoever asked is gone after the save: all marks go, even if one disk cannot be found any more.
truncate -s 1M "$TMP/lost"
start five --kernel "$guest" --disk "$TMP/lost" --disk "$disk" --memory 64M --net none
mv "$TMP/lost" "$TMP/found"
python3 -c '
import json, os, socket, sys
folder, disk = sys.argv[1:]
try:
	os.setxattr(disk, "user.biga.generation", b"0" * 32)
except OSError:
	open(disk + ".biga", "w").write("%s %d" % ("0" * 32, os.stat(disk).st_ino))
peer = socket.socket(socket.AF_UNIX)
peer.connect(folder + "/biga/five.sock")
lines = peer.makefile("r")
peer.sendall(b"{\"hello\":\"biga\",\"version\":1}\n")
fd = os.open(folder + "/fifth", os.O_RDWR | os.O_CREAT)
socket.send_fds(peer, [b"{\"do\":\"suspend\",\"id\":1}\n"], [fd])
while json.loads(lines.readline()).get("id") != 1:
	pass' "$TMP" "$disk"
dots "$TMP/five.out"
[ "$(mark)" = none ] || fail "a mark is left because another disk is gone"
grep -q 'do not go on from a state saved just now' "$TMP/five.err" || fail "said: $(cat "$TMP/five.err")"
kill "$vm"
wait "$vm"

# fake LAST: a VM that is suspended well, and answers LAST to the last word, or ends if that is empty.
fake()
{
	python3 -c '
import os, shutil, socket, sys
path, state, last = sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(1)
peer = server.accept()[0]
peer.sendall(b"{\"hello\":\"biga\",\"version\":1}\n")
text, fds, seen = b"", [], 0
while text.count(b"\n") < 3:
	data, got, _, _ = socket.recv_fds(peer, 4096, 4)
	text += data
	fds += got
	if fds and not seen:
		seen = os.write(fds[0], open(state, "rb").read())
		peer.sendall(b"{\"ok\":true,\"id\":1}\n")
peer.sendall(last.encode())
os.unlink(path)' "$TMP/biga/fake.sock" "$TMP/third" "$1" &
	for _ in $(seq 100); do
		[ -S "$TMP/biga/fake.sock" ] && return 0
		sleep 0.1
	done
	fail "no fake VM"
}

# Once the state has its name, a VM that is gone is suspended.
fake ""
"$BIGA" suspend fake --to "$TMP/fourth" >"$TMP/said" 2>"$TMP/err" || fail "end before the last word: $?"
grep -q 'fake is suspended' "$TMP/said" || fail "said: $(cat "$TMP/said")"
grep -q 'ended before it was told' "$TMP/err" || fail "warned: $(cat "$TMP/err")"
cmp -s "$TMP/third" "$TMP/fourth" || fail "the state is another"
wait
fake '{"ok":false,"id":2,"error":"no"}
'
refused 1 'fake is not suspended: no' "$BIGA" suspend fake --to "$TMP/fourth"
wait
finish
