# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What scripts/demo shows while it works: a line for each step, which on a terminal counts the seconds that the step has
# taken so far. Sourced by scripts/demo.

screen_text="" screen_since=0 screen_live=no
[[ ! -t 1 || ${TERM:-dumb} == dumb ]] || screen_live=yes

# Shows that a step is still at work.
screen_tick() {
	[[ -z $screen_text || $screen_live == no ]] || printf '\r\e[K%s … %d s' "$screen_text" $((SECONDS - screen_since))
}

# Ends the step's line.
screen_settle() {
	[[ -z $screen_text || $screen_live == no ]] || printf '\r\e[K%s\n' "$screen_text"
	screen_text=""
}

# screen_step TEXT: what begins now.
screen_step() {
	screen_settle
	[[ $screen_live == yes ]] || printf -- '- %s\n' "$1"
	screen_text="- $1" screen_since=$SECONDS
	screen_tick
}

screen_line() {
	screen_settle
	printf '%s\n' "$1"
}
