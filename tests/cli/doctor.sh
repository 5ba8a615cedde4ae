#!/bin/sh
# biga doctor: what it prints, its exit status, and that `biga run` says the same.
. "$(dirname "$0")/lib.sh"
cd "$TMP" || exit 1
truncate -s 1M kernel

refused 2 "unknown option '--bogus'" "$BIGA" doctor --bogus
refused 2 "unknown option 'kvm'" "$BIGA" doctor kvm
refused 2 "needs kvm or biga" "$BIGA" doctor --hypervisor xen
refused 2 "needs kvm or biga" "$BIGA" doctor --hypervisor
refused 2 "cannot be printed" sh -c "'$BIGA' doctor >/dev/full"
"$BIGA" doctor --help >out 2>err || fail "--help: status $?"
grep -q -- --json out || fail "--help: $(cat out)"

"$BIGA" doctor --json >json 2>err
status=$?
[ -s err ] && fail "--json said $(cat err)"
"$BIGA" doctor --json --hypervisor=biga >biga.json || fail "biga: status $?"
"$BIGA" doctor >text 2>err
[ $? -eq $status ] || fail "text and JSON end differently"
"$BIGA" run --dry-run --kernel kernel >run.json 2>err || fail "run: $(cat err)"
python3 - $status <<'END' || fail "wrong: $(cat json text)"
import json, sys
status = int(sys.argv[1])
found = json.load(open("json"))
assert found["doctor"] == 1
assert set(found) == {"doctor", "hypervisors", "auto", "facts", "warnings"}
kvm, biga = found["hypervisors"]
keys = {"name", "usable", "cause", "summary", "evidence", "fix", "kernel-speed", "user-speed",
        "probe-ns"}
for h in kvm, biga:
    assert set(h) == keys, set(h) ^ keys
    told = [h[k] for k in ("cause", "summary", "evidence", "fix")]
    assert all(told) if not h["usable"] else not any(told), h
assert kvm["name"] == "kvm" and biga["name"] == "biga" and biga["usable"]
assert biga["kernel-speed"] > 1e5 and biga["user-speed"] > 1e5
assert status == (0 if kvm["usable"] else 1)
assert found["auto"] == ("kvm" if kvm["usable"] else "biga")
facts = found["facts"]
assert set(facts) == {"cpu", "kernel", "security", "place", "node", "limits"}
assert facts["cpu"]["virtualization"] in ("vmx", "svm")
assert facts["kernel"]["release"] == open("/proc/sys/kernel/osrelease").read().strip()
assert facts["limits"]["memory"] > 1 << 20
only = json.load(open("biga.json"))
assert [h["name"] for h in only["hypervisors"]] == ["biga"]
text = open("text").read()
assert text.startswith("kvm ") and "\nbiga " in text and "\nauto " in text
if not kvm["usable"]:
    assert "\n  cause         " + kvm["cause"] + ": " + kvm["summary"] in text
    assert "\n  fix " in text
run = json.load(open("run.json"))
assert run["hypervisor"] == found["auto"], run
if not kvm["usable"]:
    assert kvm["summary"] in run["host"]["hypervisor-why"], run
END
(ulimit -n 4; "$BIGA" doctor) >few 2>err
grep -q '^biga  *cannot be used' few && grep -q '^  fix  *allow more open files' few &&
	grep -q '^auto  *takes biga, which cannot' few || fail "without descriptors: $(cat few err)"
awk 'length > 400' text | grep . && fail "a line is too long"
# A running VM does not move to what the doctor does not call usable.
guest=$(dirname "$BIGA")/guest/forever.elf
[ -f "$guest" ] || { echo "no guest forever: make guests"; exit 1; }
XDG_RUNTIME_DIR=$TMP
export XDG_RUNTIME_DIR
"$BIGA" run --net none --quiet --kernel "$guest" --name stays --hypervisor biga </dev/null >vm.out 2>&1 &
vm=$!
for _ in $(seq 100); do
	"$BIGA" info stays >info 2>/dev/null && break
	sleep 0.1
done
if [ $status -eq 1 ]; then
	refused 2 "the hypervisor kvm cannot be used: " "$BIGA" switch stays kvm
	"$BIGA" info stays | grep -q '^hypervisor  biga' || fail "it moved: $("$BIGA" info stays)"
fi
kill $vm
wait $vm
"$BIGA" doctor --hypervisor biga | grep -q '^kvm' && fail "kvm was not asked for"
finish
