#!/bin/sh
# make install puts the programs and pages where PREFIX and DESTDIR say, and what is
# installed runs from there; uninstall takes all of it away.
# modes: release
# exclusive
# (It links the programs anew, for another prefix: no other test may run them meanwhile.)
set -eu
make -s -C "$ROOT" install DESTDIR="$TMP/dest" PREFIX=/opt/biga >"$TMP/log" 2>&1 || {
	cat "$TMP/log"
	exit 1
}
dest=$TMP/dest/opt/biga
for file in bin/biga libexec/biga/biga-net share/man/man1/biga.1 share/doc/biga/LICENSE; do
	[ -s "$dest/$file" ] || { echo "$file is not there"; exit 1; }
done
"$dest/bin/biga" --version
make -s -C "$ROOT" uninstall DESTDIR="$TMP/dest" PREFIX=/opt/biga
left=$(find "$TMP/dest" -type f)
[ -z "$left" ] || { echo "left behind: $left"; exit 1; }
