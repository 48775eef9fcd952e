# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What scripts/demo shows while it works, on descriptor 3: on a terminal one line that is written anew until what it
# tells is over, elsewhere a plain line for each thing. Sourced by scripts/demo.

# The last line, while there is more to come of it, and what it is: a step (told when it begins) or a pass (when it ends).
screen_text="" screen_kind="" screen_pass="" screen_since=0
screen_live=no

screen_open() {
	[[ ! -t 3 || ${TERM:-dumb} == dumb ]] || screen_live=yes
}

screen_draw() {
	[[ $screen_live == no ]] || printf '\r\e[K%s' "$1" >&3
}

# Ends the line.
screen_settle() {
	if [[ -n $screen_kind && $screen_live == yes ]]; then
		screen_draw "$screen_text"
		printf '\n' >&3
	elif [[ $screen_kind == pass ]]; then
		printf '%s\n' "$screen_text" >&3
	fi
	screen_kind=""
}

screen_line() {
	screen_settle
	printf '%s\n' "$1" >&3
}

# screen_step TEXT: what begins now.
screen_step() {
	screen_settle
	screen_text="- $1" screen_kind=step screen_since=$SECONDS
	if [[ $screen_live == yes ]]; then
		screen_draw "$screen_text …"
	else
		printf '%s\n' "$screen_text" >&3
	fi
}

# Shows that a step still goes on.
screen_tick() {
	[[ $screen_kind != step ]] || screen_draw "$screen_text … $((SECONDS - screen_since)) s"
}

# screen_bar NAME DONE TOTAL TEXT
screen_bar() {
	local percent=$((100 * $2 / $3)) bar
	printf -v bar '%*s' $((percent * 30 / 100)) ''
	printf -v screen_text '  %-13s [%-30s] %3d %%  %s' "$1" "${bar// /#}" "$percent" "$4"
}

# screen_pass NAME DONE TOTAL TEXT: how far a pass is. The next one's first word ends it.
screen_pass() {
	if [[ $screen_kind == pass && $screen_pass != "$1" ]]; then
		screen_bar "$screen_pass" 1 1 "$screen_pass_text"
	fi
	[[ $screen_kind == pass && $screen_pass == "$1" ]] || screen_settle
	screen_kind=pass screen_pass=$1 screen_pass_text=$4
	screen_bar "$@"
	screen_draw "$screen_text"
}
