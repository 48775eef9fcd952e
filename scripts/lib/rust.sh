# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Cargo and rustc for this machine, from Debian if there are none or they are too old. Sourced after common.sh.

# The oldest series that the crate builds with, as Cargo.toml says.
rust_minimum() {
	sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../../Cargo.toml"
}

have_rust() {
	local have
	command -v cargo >/dev/null && command -v rustc >/dev/null || return 1
	have=$(rustc --version | cut -d' ' -f2) || return 1
	[[ $(printf '%s\n%s\n' "$(rust_minimum)" "$have" | sort -V | head -n 1) == "$(rust_minimum)" ]]
}

# Build scripts and proc macros are linked for this machine.
need_linker() {
	command -v cc >/dev/null && return 0
	say "installing gcc"
	as_root apt-get update -qq >&2 || true
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends gcc libc6-dev >&2 ||
		skip "a C compiler is needed and could not be installed."
}

# Debian 12 has its newer Rust in packages named after the browser they are for.
need_rust() {
	need_linker
	have_rust && return 0
	command -v apt-get >/dev/null || skip "Rust $(rust_minimum) or newer is needed, and there is no apt-get here."
	as_root apt-get update -qq >&2 || true
	local packages=(cargo-web rustc-web rustfmt-web rust-web-clippy)
	apt-cache show cargo-web >/dev/null 2>&1 || packages=(cargo rustc rustfmt rust-clippy)
	say "installing ${packages[*]}"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >&2 ||
		skip "Rust $(rust_minimum) or newer is needed and could not be installed."
	have_rust || skip "this Debian's Rust is older than $(rust_minimum)."
}
