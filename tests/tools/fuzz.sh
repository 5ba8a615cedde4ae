#!/bin/sh
# A fuzzer that finds something is a failure, which leaves the input and says how to
# repeat it; one that finds nothing passes.
# modes: release
set -eu
fail()
{
	echo "$1"
	cat "$TMP/out"
	exit 1
}
mkdir -p "$TMP/tests/fuzz"
# $1: name, $2: what the input does
build()
{
	echo "#include <stddef.h>
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) { $2 return 0; }" >"$TMP/$1.c"
	clang -g -fsanitize=fuzzer,address -o "$TMP/tests/fuzz/fuzz_$1" "$TMP/$1.c"
}
build sound '(void)data; (void)size;'
"$ROOT/tools/fuzz-short" "$TMP" 1 sound >"$TMP/out" 2>&1 || fail "a sound fuzzer fails"
grep -qx '1 passed, 0 failed' "$TMP/out" || fail "a sound fuzzer does not count"

build broken "if (size > 1 && data[0] == 'B' && data[1] == 'i') return data[size + 1];"
if "$ROOT/tools/fuzz-short" "$TMP" 20 broken >"$TMP/out" 2>&1; then
	fail "a broken fuzzer passes"
fi
repeat=$(sed -n 's/^repeat it with: //p' "$TMP/out")
[ -n "$repeat" ] || fail "it does not say how to repeat it"
[ -s "${repeat##* }" ] || fail "the input ${repeat##* } is not there"
$repeat >"$TMP/again" 2>&1 && fail "'$repeat' repeats nothing"
grep -q AddressSanitizer "$TMP/again" || fail "'$repeat' shows something else"
if "$ROOT/tools/fuzz-short" "$TMP" 1 absent >"$TMP/out" 2>&1; then
	fail "a fuzzer that is not there passes"
fi
