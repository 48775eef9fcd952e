# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# An apt configuration of our own inside the cache, made from the machine's own package sources: other architectures,
# other suites and source packages without a change to the machine, whose every later apt run would fetch them too.
# Sourced after common.sh.

# debian_sources: the machine's Debian package sources, a line "URI RELEASE COMPONENT" each. Asked of apt rather than
# read from files: it knows both file formats and all the places.
debian_sources() {
	local sources
	sources=$(apt-get indextargets --format "\$(ORIGIN)|\$(REPO_URI) \$(RELEASE) \$(COMPONENT)" 'Created-By: Packages')
	# Sources of other origins have nothing for us. Before the machine's first "apt-get update" no origin is known.
	if grep -q '^Debian|' <<<"$sources"; then
		sources=$(grep '^Debian|' <<<"$sources")
	fi
	cut -d '|' -f 2- <<<"$sources" | sort -u
}

# write_private_apt DIR ARCH… <LINES: writes the configuration; LINES are "TYPE URI RELEASE COMPONENT", TYPE deb or deb-src.
write_private_apt() {
	local dir=$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	shift
	local options type rest
	options="arch=$(IFS=,; echo "$*")"
	[[ ! -e $keyring ]] || options+=" signed-by=$keyring"
	mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
	: >"$dir/status"
	while read -r type rest; do
		echo "$type [$options] $rest"
	done >"$dir/sources.list"
	[[ -s $dir/sources.list ]] || skip "apt has no package sources configured on this machine."
	cat >"$dir/apt.conf" <<-EOF
		#clear APT::Architectures;
		APT::Architectures { $(printf '"%s"; ' "$@")};
		// The unprivileged download user cannot enter a home directory.
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Dir::Cache "$dir/cache";
		Dir::Etc::sourcelist "$dir/sources.list";
		Dir::Etc::sourceparts "-";
		Dir::State "$dir/state";
		Dir::State::status "$dir/status";
	EOF
}

# private_apt DIR TOOL ARGS…
private_apt() {
	local dir=$1 tool=$2
	shift 2
	"$tool" -c "$dir/apt.conf" "$@"
}

# has_lists DIR: of the last day; what is there serves meanwhile, and without a network.
has_lists() {
	[[ -n $(find "$1/read" -mtime -1 2>/dev/null) ]]
}

# read_lists DIR ARCH… <LINES: writes the configuration and reads its lists.
read_lists() {
	write_private_apt "$@"
	say "reading the package lists for ${*:2}"
	# One suite of several may be out of step on its mirror; what counts is whether the packages are found.
	if private_apt "$1" apt-get -q update >"$1/update.log" 2>&1; then
		touch "$1/read"
	else
		say "apt could not read every list (see $1/update.log); those it could read serve."
	fi
}

# missing_host_packages PACKAGE…: those that the machine has not installed.
missing_host_packages() {
	local package
	for package in "$@"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
	done
}

# install_host_packages LOG PACKAGE…
install_host_packages() {
	local log=$1 missing
	shift
	mapfile -t missing < <(missing_host_packages "$@")
	[[ ${#missing[@]} -gt 0 ]] || return 0
	say "installing with apt: ${missing[*]}"
	local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
	# The lists may be absent (a fresh container) or name versions that the mirror no longer has.
	as_root "${apt[@]}" install --no-install-recommends "${missing[@]}" >"$log" 2>&1 && return 0
	{ as_root "${apt[@]}" update && as_root "${apt[@]}" install --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 ||
		skip "apt could not install ${missing[*]} (see $log)."
}
