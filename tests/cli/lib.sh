# Shared by the command-line tests: `refused STATUS TEXT COMMAND...` runs a
# command that must end so, with one line on standard error that holds TEXT.
# `finish` says how many checks failed.

BIGA=${BIGA:-build/release/biga}
TMP=${TMP:-$(mktemp -d)}
failed=0

fail()
{
	echo "FAIL: $*"
	failed=$((failed + 1))
}

refused()
{
	want=$1
	text=$2
	shift 2
	timeout 30 "$@" </dev/null >"$TMP/out" 2>"$TMP/err"
	status=$?
	[ "$status" -eq "$want" ] || fail "$* : status $status, not $want: $(cat "$TMP/err")"
	grep -qF -- "$text" "$TMP/err" || fail "$* : no '$text' in: $(cat "$TMP/err")"
	[ "$(wc -l <"$TMP/err")" -eq 1 ] || fail "$* : not one line: $(cat "$TMP/err")"
	[ -s "$TMP/out" ] && fail "$* : wrote to standard output"
	return 0
}

finish()
{
	[ "$failed" -eq 0 ] || { echo "$failed checks failed"; exit 1; }
	exit 0
}
