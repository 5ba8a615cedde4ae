#!/bin/sh
# What can be asked of a running VM: its name is taken while it runs, others are asked
# and refused in one line, and nothing is left when it ends, however it ends.
. "$(dirname "$0")/lib.sh"
guest=$(dirname "$BIGA")/guest/forever.elf
[ -f "$guest" ] || { echo "no guest forever: make guests"; exit 1; }
XDG_RUNTIME_DIR=$TMP
export XDG_RUNTIME_DIR

# start NAME: in the background, its process in $vm; back when it answers.
start()
{
	"$BIGA" run --net none --kernel "$guest" --name "$1" --hypervisor biga </dev/null \
		>"$TMP/$1.out" 2>"$TMP/$1.err" &
	vm=$!
	for _ in $(seq 100); do
		"$BIGA" info "$1" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	fail "$1 does not answer: $(cat "$TMP/$1.err")"
}

gone()
{
	wait "$vm"
	[ -z "$(ls "$TMP/biga")" ] || fail "$1 left: $(ls "$TMP/biga")"
}

refused 2 'no VM named one runs' "$BIGA" info one
refused 2 "cannot be a VM's name" "$BIGA" info a/b
refused 2 'takes a VM' "$BIGA" info
refused 2 'is not for info' "$BIGA" info one two
refused 2 'one VM' "$BIGA" pause
refused 2 'no arguments' "$BIGA" list one
[ -z "$("$BIGA" list)" ] || fail "list shows something"

start one
grep -q 'this VM is one' "$TMP/one.err" || fail "its name is not said: $(cat "$TMP/one.err")"
[ "$(stat -c %a "$TMP/biga")" = 700 ] || fail "others may enter the folder"
[ "$(stat -c %a "$TMP/biga/one.sock")" = 700 ] || fail "others may connect"
refused 2 'a VM named one runs already' "$BIGA" run --net none --kernel "$guest" --name one --quiet
[ "$("$BIGA" list | wc -l)" -eq 1 ] || fail "list: $("$BIGA" list)"
"$BIGA" list | grep -q '^one .*biga .*running' || fail "list: $("$BIGA" list)"
"$BIGA" info one | grep -q '^hypervisor  biga (asked for by --hypervisor)' ||
	fail "info: $("$BIGA" info one)"
"$BIGA" info one --json | python3 -c '
import json, sys
info = json.load(sys.stdin)
assert info["name"] == "one" and info["status"] == "running" and info["cpus"] == 1, info
assert info["switches"] == info["rescues"] == 0 and info["uptime-ns"] > 0, info
assert info["memory"] == 512 << 20, info' || fail "info --json"

"$BIGA" pause one || fail "pause: $?"
"$BIGA" pause one || fail "pause again: $?"
"$BIGA" info one | grep -q '^status      paused' || fail "not paused"
dots=$(wc -l <"$TMP/one.out")
sleep 0.5
[ "$(wc -l <"$TMP/one.out")" -le $((dots + 1)) ] || fail "it runs while paused"
"$BIGA" unpause one || fail "unpause: $?"
sleep 1
[ "$(wc -l <"$TMP/one.out")" -gt $((dots + 2)) ] || fail "it does not go on"

# Many may look at the same time; one that says nothing disturbs nobody.
for _ in 1 2 3 4 5 6; do "$BIGA" info one >/dev/null & done
for job in $(jobs -p); do [ "$job" = "$vm" ] || wait "$job" || fail "one of many failed"; done
kill -TERM $vm
gone "a VM ended by a signal"

# A front that is killed leaves its socket; the next one of that name takes it.
start two
kill -KILL $vm
wait $vm 2>/dev/null
[ -e "$TMP/biga/two.sock" ] || fail "SIGKILL removed the socket"
for _ in $(seq 100); do "$BIGA" info two >/dev/null 2>&1 || break; sleep 0.1; done
refused 2 'no VM named two runs' "$BIGA" info two
start two
kill -INT $vm
gone "the second of that name"
: >"$TMP/biga/three.sock"
[ -z "$("$BIGA" list)" ] || fail "list shows what is left over"
[ -z "$(ls "$TMP/biga")" ] || fail "list leaves what is left over"

# A name may end like a socket's.
start a.sock
"$BIGA" list | grep -q '^a.sock ' || fail "list does not show a.sock: $("$BIGA" list)"
kill -TERM $vm
gone "a.sock"

chmod 755 "$TMP/biga"
refused 2 'is open to others' "$BIGA" list
finish
