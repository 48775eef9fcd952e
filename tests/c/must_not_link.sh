#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# must_not_link.sh CC ARGUMENTS…: fine if linking fails because Rust's own symbols are there twice.

set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/must_not_link.XXXXXX")
trap 'rm -rf "$work"' EXIT
if "$@" -D_DEFAULT_SOURCE '-DPC_VERSION=""' -o "$work/program" 2>"$work/said"; then
	echo "it links; two Rust libraries no longer collide" >&2
	exit 1
fi
grep -q 'multiple definition of .*rust' "$work/said" || {
	cat "$work/said" >&2
	exit 1
}
grep -o 'multiple definition of [^;]*' "$work/said" | head -n 3
