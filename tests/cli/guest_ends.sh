#!/bin/sh
# How a real guest's end becomes an exit status; and `script`'s terminal is as it
# was after the VM process was killed.
. "$(dirname "$0")/lib.sh"
guests=${ROOT:-.}/build/guest
[ -d "$guests" ] || guests=$(dirname "$BIGA")/guest
for g in hello poweroff reset_triple; do
	[ -f "$guests/$g.elf" ] || { echo "no guest $g: make guests"; exit 1; }
done

go() { timeout 60 "$BIGA" run --net none --debug-exit --kernel "$@" </dev/null >"$TMP/out" 2>"$TMP/err"; }

go "$guests/hello.elf"
[ $? -eq 1 ] || fail "hello: status $? $(cat "$TMP/err")"
grep -q hello "$TMP/out" || fail "hello said $(cat "$TMP/out")"
grep -Eq '^biga: hypervisor (biga|kvm): ' "$TMP/err" || fail "auto does not say why"
go "$guests/hello.elf" --quiet
[ -s "$TMP/err" ] && fail "--quiet said $(cat "$TMP/err")"
go "$guests/hello.elf" --console "$TMP/console"
grep -q hello "$TMP/console" || fail "--console FILE is empty"
go "$guests/hello.elf" --console none --quiet
[ -s "$TMP/out" ] && fail "--console none said $(cat "$TMP/out")"
go "$guests/poweroff.elf"
status=$?
[ $status -eq 0 ] || fail "poweroff: status $status $(cat "$TMP/err")"
go "$guests/reset_triple.elf" --quiet
status=$?
[ $status -eq 1 ] || fail "triple fault: status $status $(cat "$TMP/err")"
grep -qi 'triple fault' "$TMP/err" || fail "triple fault: $(cat "$TMP/err")"
grep -qi 'rip' "$TMP/err" || fail "triple fault: no registers in $(cat "$TMP/err")"
finish
