#!/bin/sh
# Runs bare-metal guests and checks how they end.
#
#	tests/guest/run.sh GUEST|all [biga|kvm|qemu]
#
# tests/guest/list says, a line a guest: name, numbers of CPUs to try, how the machine
# must end: "exit" (byte 0 to the debug-exit port), "poweroff", or "triple" (a
# triple fault: biga fails with 1; QEMU resets, so its run is stopped there).
# BUILD names the build folder, BIGA_ARGS more arguments. 0 if all ended as they must.
here=$(dirname "$0")
build=${BUILD:-build/release}
guest=${1:?usage: run.sh GUEST|all [biga|kvm|qemu]}
engine=${2:-biga}
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT

# run_machine NAME CPUS QEMU-OPTION: output in $log, returns the machine's exit code.
run_machine()
{
	elf=$build/guest/$1.elf
	if [ "$engine" = qemu ]; then
		# shellcheck disable=SC2086
		timeout -k 5 "${GUEST_TIMEOUT:-60}" qemu-system-x86_64 -accel tcg -machine q35 -cpu max \
			-smp "$2" -kernel "$elf" -device isa-debug-exit,iobase=0xf4,iosize=4 \
			-serial stdio -display none $3 -net none </dev/null >"$log" 2>&1
	else
		# shellcheck disable=SC2086
		timeout -k 5 "${GUEST_TIMEOUT:-60}" "$build/biga" run --kernel "$elf" --debug-exit \
			--net none --cpus "$2" --hypervisor "$engine" --append "on-${engine%,*}" \
			$BIGA_ARGS </dev/null >"$log" 2>&1
	fi
}

ended_clean()
{
	grep -q 'ending now' "$log" && ! grep -q 'FAIL' "$log"
}

# ended_well HOW CODE
ended_well()
{
	case $1 in
	exit) [ "$2" -eq 1 ] && grep -q ': ok, ' "$log" ;;
	poweroff) [ "$2" -eq 0 ] && ended_clean ;;
	triple) [ "$2" -eq "$([ "$engine" = qemu ] && echo 0 || echo 1)" ] && ended_clean ;;
	*) false ;;
	esac
}

# try NAME CPUS HOW
try()
{
	run_machine "$1" "$2" "$([ "$3" = triple ] && echo -no-reboot)"
	code=$?
	if ended_well "$3" "$code"; then
		echo "ok   $1 ($2 CPUs)"
		grep '^skip:' "$log" | sed 's/^/     /'
		return 0
	fi
	echo "FAIL $1 ($2 CPUs): exit $code, $3 expected"
	tail -n "${GUEST_LINES:-25}" "$log" | sed 's/^/     /'
	return 1
}

failed=0
found=0
while read -r name cpus how rest; do
	case $name in '' | '#'*) continue ;; esac
	[ "$guest" = all ] || [ "$guest" = "$name" ] || continue
	for n in $(echo "$cpus" | tr , ' '); do
		found=$((found + 1))
		try "$name" "$n" "$how" || failed=$((failed + 1))
	done
done <"$here/list"
[ "$found" -gt 0 ] || { echo "no such guest in $here/list: $guest" >&2; exit 2; }
[ "$guest" != all ] || echo "$found guests, $failed failed"
[ "$failed" -eq 0 ]
