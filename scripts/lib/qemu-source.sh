# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Debian's QEMU source of one series, unpacked into the cache and patched. Sourced by scripts/qemu after common.sh and
# private-apt.sh.

: "${repo:?}" "${cache:?}" "${series:?}" "${patched:?}" "${emulator:?}"

QEMU_PACKAGES=(
	bison
	ccache
	dpkg-dev
	flex
	gcc
	libc6-dev
	libfdt-dev
	libglib2.0-dev
	libpixman-1-dev
	ninja-build
	patch
	pkg-config
	python3
	python3-venv
	qemu-system-data
	xz-utils
	zlib1g-dev
)

# The suites that the three series are in. A point release may be in a suite's security or updates part first.
QEMU_SUITES=(bookworm trixie sid)

install_qemu_packages() {
	type -P apt-get dpkg-query >/dev/null ||
		skip "QEMU's source comes from Debian's packages, and this machine has no apt."
	install_host_packages "$cache/apt-install.log" "${QEMU_PACKAGES[@]}"
}

# The machine's own sources with "deb-src" in front and the suites in place of its own.
qemu_apt_sources() {
	local uri release component suite part
	while read -r uri release component; do
		part=${release#"${release%%-*}"}
		for suite in "${QEMU_SUITES[@]}"; do
			# sid is one piece.
			[[ $suite == sid && -n $part ]] || echo "deb-src $uri $suite$part $component"
		done
	done < <(debian_sources) | sort -u
}

qemu_apt() {
	private_apt "$cache/apt" "$@"
}

# qemu_versions: the source versions there are of the series, newest first.
qemu_versions() {
	local newest=0 version
	while read -r version; do
		! dpkg --compare-versions "$version" gt "$newest" || newest=$version
	done < <(qemu_apt apt-cache showsrc --only-source qemu 2>/dev/null |
		sed -n "s/^Version: \(\(.*:\)\?${series//./\\.}[.+].*\)/\1/p")
	[[ $newest == 0 ]] || echo "$newest"
}

# fetch_qemu_source: leaves the source version in $version and its pristine folder in $pristine.
fetch_qemu_source() {
	has_lists "$cache/apt" || qemu_apt_sources | read_lists "$cache/apt" "$(dpkg --print-architecture)"
	version=$(qemu_versions)
	[[ -n $version ]] || skip "QEMU $series was not found among Debian's source packages."
	local name=${version//:/_}
	pristine=$cache/source/$name
	[[ ! -d $pristine ]] || return 0
	say "downloading the source of QEMU $version"
	local temp
	mkdir -p "$cache/source"
	temp=$(mktemp -d "$cache/source/unpacking.XXXXXX")
	# apt has checked the archive's signature and the files' sums when it gets here.
	(cd "$temp" && qemu_apt apt-get -q source --download-only "qemu=$version" &&
		dpkg-source --no-check --extract ./*.dsc tree) >"$cache/source.log" 2>&1 || {
		rm -rf "$temp"
		skip "the source of QEMU $version could not be had (see $cache/source.log)."
	}
	mv -T "$temp/tree" "$pristine"
	rm -rf "$temp"
}

# patch_qemu_source: leaves the folder to build from in $tree. Each content of the series has a folder of its own; ccache
# makes up for that.
patch_qemu_source() {
	rm -rf "$cache/series/$series"
	"$repo/scripts/series" "$series" "$cache/series/$series"
	local patches=() name=${version//:/_}
	if [[ $emulator == yes ]]; then
		patches=("$repo/tests/system/kvm/emulator.patch")
	elif [[ $patched == yes ]]; then
		patches=("$cache/series/$series"/*.patch)
	fi
	if [[ ${#patches[@]} -gt 0 ]]; then
		tree=$cache/tree/$name-$(cat "${patches[@]}" | sha256sum | cut -c -12)
	else
		tree=$cache/tree/$name-unpatched
	fi
	[[ ! -d $tree ]] || return 0
	[[ ${#patches[@]} -eq 0 ]] || say "applying ${patches[0]##*/}${patches[1]:+ and those after it} to QEMU $version"
	local temp patch
	mkdir -p "$cache/tree"
	temp=$(mktemp -d "$cache/tree/patching.XXXXXX")
	cp -a "$pristine/." "$temp"
	for patch in "${patches[@]}"; do
		# A hunk that applies at another line only says that the source has moved; one that needs fuzz might land
		# in the wrong place.
		patch -d "$temp" -p1 --fuzz=0 --forward --no-backup-if-mismatch <"$patch" >"$cache/patch.log" 2>&1 || {
			cat "$cache/patch.log" >&2
			rm -rf "$temp"
			die 65 "${patch##*/} does not apply to QEMU $version without fuzz."
		}
	done
	mv -T "$temp" "$tree"
}
