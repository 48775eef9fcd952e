# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What every script of this folder shares: how it talks to a person, where it keeps what it downloads and builds, and
# how it ends when the machine cannot do what is asked. Sourced, never run.

# The status test runners (meson, automake) take as "this could not be tried here".
# shellcheck disable=SC2034 # used by the scripts that source this file
SKIP_STATUS=77

# The name a sentence is signed with; a script may set its own before it sources this file.
: "${script_name:=${0##*/}}"

# Standard output belongs to the program or file a script hands over, so sentences go to standard error.
say() {
	[[ ${quiet:-} == yes ]] || printf '%s: %s\n' "$script_name" "$*" >&2
}

# die STATUS SENTENCE…
die() {
	local status=$1
	shift
	printf '%s: %s\n' "$script_name" "$*" >&2
	exit "$status"
}

# One fixed first word, so that a run's record can separate "not tried" from "tried and failed".
skip() {
	printf 'SKIPPED: %s\n' "$*" >&2
	exit "$SKIP_STATUS"
}

cache_dir() {
	local dir=${SPAPR_HTAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spapr-htab}
	mkdir -p "$dir"
	(cd "$dir" && pwd)
}

as_root() {
	if [[ $EUID -eq 0 ]]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		return 1
	fi
}

# take_turns NAME: one at a time from here on, until it is called again; without a NAME the others' turn begins.
take_turns() {
	[[ -z ${turn:-} ]] || exec {turn}>&-
	turn=""
	[[ $# -gt 0 ]] || return 0
	exec {turn}>"$1.lock"
	flock "$turn"
}
