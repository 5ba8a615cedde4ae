#!/bin/sh
# The checks find what they are for: each is given a wrong tree and must refuse it.
set -eu
fail()
{
	echo "$1"
	exit 1
}
tree=$TMP/tree
fresh()
{
	rm -rf "$tree"
	mkdir -p "$tree/src/base" "$tree/src/device" "$tree/src/engine/translator/leaf" "$tree/o"
	cp -r "$ROOT/tools" "$tree/tools"
	echo '/* base */' >"$tree/src/base/a.h"
	printf '/* device */\n#include "base/a.h"\n' >"$tree/src/device/d.c"
}
# expect STATUS TEXT COMMAND...
expect()
{
	status=$1 text=$2
	shift 2
	code=0
	"$@" >"$TMP/out" 2>&1 || code=$?
	[ "$code" = "$status" ] || fail "$*: exit $code, not $status: $(cat "$TMP/out")"
	grep -q "$text" "$TMP/out" || fail "$*: no '$text' in: $(cat "$TMP/out")"
}

fresh
expect 0 '0 problems' "$tree/tools/check-layers"
printf '/* base */\n#include "device/d.h"\n' >"$tree/src/base/b.c"
echo '/* d */' >"$tree/src/device/d.h"
expect 1 'base may not include device/d.h' "$tree/tools/check-layers"
fresh
printf '/* device */\n#include <linux/kvm.h>\n' >"$tree/src/device/k.c"
expect 1 'belongs to engine/kvm' "$tree/tools/check-layers"
fresh
{ echo '/* long */'; yes '' | head -n 1000; } >"$tree/src/base/long.c"
expect 1 'more than 1000' "$tree/tools/check-layers"

# $1: file under src, $2: its text; built into the tree's release objects
build()
{
	mkdir -p "$tree/build/release/$(dirname "src/$1")"
	echo "$2" >"$tree/src/$1"
	gcc -O2 -fno-tree-loop-distribute-patterns -c -o "$tree/build/release/src/${1%.c}.o" "$tree/src/$1"
}
fresh
build base/a.c 'extern const char *const names[]; const char *const names[] = {"a", "b"};'
expect 0 '0 problems' "$tree/tools/check-globals"
build base/b.c 'int f(void); int f(void) { static int calls; return ++calls; }'
expect 1 'writable global calls' "$tree/tools/check-globals"
fresh
build base/c.c '_Thread_local int mine;'
expect 1 'writable global mine' "$tree/tools/check-globals"

fresh
build engine/translator/leaf/a.c 'int g(int); int g(int x) { return x + 1; }'
expect 0 '0 problems' "$tree/tools/check-leaf"
build engine/translator/leaf/b.c '#include <string.h>
void h(char *p, long n); void h(char *p, long n) { memset(p, 0, n); }'
expect 1 'uses memset' "$tree/tools/check-leaf"
fresh
build engine/translator/leaf/c.c 'double q(double *p); double q(double *p) { return p[0] * p[1]; }'
expect 1 'vector register' "$tree/tools/check-leaf"
echo "the checks check"
