#!/bin/sh
# --dry-run prints the VM as JSON and runs nothing; --help and --version.
. "$(dirname "$0")/lib.sh"
cd "$TMP" || exit 1
truncate -s 1M disk kernel

"$BIGA" run --dry-run --name web --cpus 4 --memory 1G --kernel kernel --disk disk,readonly \
	--net user,forward=tcp::8080-:80 --debug-exit >out 2>err || fail "status $?"
[ -s err ] && fail "said $(cat err)"
python3 - <<'END' || fail "wrong JSON: $(cat out)"
import json
vm = json.load(open("out"))
assert vm["name"] == "web" and vm["cpus"] == 4 and vm["memory"] == 1 << 30
assert vm["hypervisor"] in ("biga", "kvm") and vm["host"]["hypervisor-why"].startswith("auto: ")
assert vm["disks"] == [{"path": "disk", "format": "raw", "device": "virtio", "readonly": True}]
assert vm["append"] == "console=ttyS0 panic=-1 root=/dev/vda rw"
assert vm["debug-exit"] and vm["console"] == "serial"
assert vm["host"]["network"] == "user" and vm["host"]["forwards"] == ["tcp::8080-:80"]
assert vm["host"]["hostloop"] is False
END
"$BIGA" run --dry-run --kernel kernel >/dev/full 2>err && fail "a full output passed"
[ "$(wc -l <err)" -eq 1 ] || fail "full output: $(cat err)"

for words in "--help" "run --help" "help" "--version" "version" "run --version"; do
	# shellcheck disable=SC2086
	"$BIGA" $words >out 2>err || fail "$words: status $?"
	[ -s out ] && ! [ -s err ] || fail "$words: wrong place"
done
for option in name hypervisor cpus memory kernel initrd append disk net console debug-exit testdev \
	dry-run quiet cpu-model code-cache; do
	"$BIGA" run --help | grep -q -- "--$option" || fail "--help does not name --$option"
done
"$BIGA" >out 2>err
[ $? -eq 2 ] || fail "no command: not status 2"
finish
