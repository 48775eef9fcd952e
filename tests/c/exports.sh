#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Compares the committed list of exports with what else names them.
#
#   exports.sh archive LIST FILE.a    what the archive defines for others
#   exports.sh header LIST FILE.h     what the header declares
#   exports.sh null LIST PROGRAM      what test_null tests

set -eu
[ $# -eq 3 ] || exit 64

named() {
	case $1 in
	archive) ${NM:-nm} --defined-only --extern-only --format=posix "$2" | sed -n 's/^\([^ ]*\) [A-Zu-w] .*/\1/p' ;;
	# Comments mention functions, too, but never with a parenthesis at the line's start.
	header) sed '/^[[:space:]]*\(\/\/\|\*\|\/\*\)/d' "$2" | grep -oE 'spapr_htab_[a-z0-9_]+\(' | tr -d '(' ;;
	null) "$2" --list ;;
	esac
}

work=$(mktemp -d "${TMPDIR:-/tmp}/exports.XXXXXX")
trap 'rm -rf "$work"' EXIT
grep -v '^#' "$2" | LC_ALL=C sort >"$work/list"
named "$1" "$3" | LC_ALL=C sort >"$work/named"
[ -s "$work/named" ] || {
	echo "$3 names nothing" >&2
	exit 1
}
diff -u --label "$2" --label "$3" "$work/list" "$work/named"
echo "$(wc -l <"$work/list") exports agree"
