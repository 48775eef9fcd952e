# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# `scripts/lab prepare`: the host packages, and the Debian packages that are unpacked into the cache (a ppc64le kernel,
# busybox, and a Rust compiler with its ppc64le standard library). Sourced by scripts/lab after common.sh and
# private-apt.sh.
#
# They are unpacked, not installed: that would need ppc64el among the machine's architectures, and the two Rust standard
# libraries cannot be installed side by side anyway.

: "${repo:?}" "${cache:?}"

# Raised when what is unpacked, or how, changes: an older cache then counts as not prepared.
LAB_FORMAT=1

HOST_PACKAGES=(
	cpio
	gcc-powerpc64le-linux-gnu
	gzip
	libc6-dev-ppc64el-cross
	qemu-system-data
	qemu-system-ppc
	qemu-user-static
)

# The toolchain of the lab is the oldest one the crate supports, so that the real-kernel tests hold up that promise too.
rust_series() {
	sed -n 's/^rust-version = "\([0-9]*\.[0-9]*\).*"$/\1/p' "$repo/Cargo.toml"
}

# lab_part NAME: one value of the stamp, the list of what is unpacked and where.
lab_part() {
	sed -n "s/^$1=//p" "$cache/lab.stamp"
}

lab_ready() {
	[[ -e $cache/lab.stamp ]] || return 1
	[[ $(lab_part format) == "$LAB_FORMAT" && $(lab_part rust_series) == "$(rust_series)" ]] || return 1
	local part
	for part in kernel busybox rust; do
		[[ -d $cache/$(lab_part "$part") ]] || return 1
	done
	[[ -z $(missing_host_packages "${HOST_PACKAGES[@]}") ]]
}

# lab_apt TOOL ARGS…: a tool of apt under the lab's own configuration, or that in $apt_folder.
lab_apt() {
	private_apt "${apt_folder:-$cache/apt}" "$@"
}

# versions PACKAGE:ARCH: newest first.
versions() {
	lab_apt apt-cache madison "$1" 2>/dev/null | awk -F ' *[|] *' '{ print $2 }'
}

dependencies() {
	lab_apt apt-cache depends --no-recommends --no-suggests "$1" | sed -n 's/^ *Depends: \([^<]*\)$/\1/p'
}

# unpack NAME PACKAGE[=VERSION]…: downloads the packages and unpacks them as $cache/NAME. The rename comes last, so a
# folder of that name is always whole.
unpack() {
	local name=$1
	shift
	[[ ! -d $cache/$name ]] || return 0
	say "downloading $*"
	local temp
	temp=$(mktemp -d "$cache/unpacking.XXXXXX")
	mkdir "$temp/debs" "$temp/tree"
	(cd "$temp/debs" && lab_apt apt-get -q download "$@") >"$temp/log" 2>&1 || {
		cat "$temp/log" >&2
		rm -rf "$temp"
		skip "apt could not download $*."
	}
	local deb
	for deb in "$temp"/debs/*.deb; do
		dpkg-deb --extract "$deb" "$temp/tree"
	done
	mv -T "$temp/tree" "$cache/$name"
	rm -rf "$temp"
}

# Debian's rustc finds its libraries in the system's folder, which is not where they are here. The wrapper finds them from
# its own place, so the cache may be moved.
write_rust_wrappers() {
	local root=$1 tool
	mkdir -p "$root/bin"
	for tool in rustc rustdoc; do
		cat >"$root/bin/$tool.new" <<-'EOF'
			#!/bin/sh
			root=$(cd "$(dirname "$0")/.." && pwd)
			LD_LIBRARY_PATH=$(echo "$root"/usr/lib/*-linux-gnu)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
			export LD_LIBRARY_PATH
			exec "$root/usr/bin/${0##*/}" "$@"
		EOF
		chmod +x "$root/bin/$tool.new"
		mv "$root/bin/$tool.new" "$root/bin/$tool"
	done
}

prepare_rust() {
	local series candidate version="" others
	series=$(rust_series)
	others=$(versions libstd-rust-web-dev:ppc64el)
	while read -r candidate; do
		if [[ $candidate == "$series".* ]] && grep -qxF "$candidate" <<<"$others"; then
			version=$candidate
			break
		fi
	done < <(versions "rustc-web:$host_arch")
	[[ -n $version ]] || skip "Debian's rustc-web $series was not found for both $host_arch and ppc64el."
	local driver="libstd-rust-web-$series:$host_arch" llvm
	llvm=$(dependencies "$driver" | grep '^libllvm') || die 1 "$driver does not say which LLVM it needs."
	# LLVM's own libraries are ordinary ones, shared with much else: the system's packages serve.
	mapfile -t others < <(dependencies "$llvm:$host_arch" | sed 's/:.*//')
	install_host_packages "$cache/apt-install.log" "${others[@]}"
	rust="rust-$version"
	unpack "$rust" "rustc-web:$host_arch=$version" "$driver=$version" "libstd-rust-web-dev:$host_arch=$version" \
		"libstd-rust-web-dev:ppc64el=$version" "$llvm:$host_arch"
	write_rust_wrappers "$cache/$rust"
	"$cache/$rust/bin/rustc" --version >/dev/null || die 1 "the unpacked rustc in $cache/$rust does not run."
}

prepare_kernel() {
	local image package=linux-image-powerpc64le:ppc64el
	# From Debian 13 on that one has pages of 4 KiB, and KVM-HV lets no hash guest have larger ones than the host.
	[[ -z $(versions "${package/:/-64k:}") ]] || package=${package/:/-64k:}
	image=$(dependencies "$package" | grep -m 1 '^linux-image-') ||
		skip "no Debian kernel for ppc64le was found among the machine's package sources."
	image=${image%%:*}
	kernel_release=${image#linux-image-}
	kernel_release=${kernel_release%-unsigned}
	kernel_version=$(versions "$image:ppc64el" | head -n 1)
	kernel="kernel-${kernel_release}_$kernel_version"
	unpack "$kernel" "$image:ppc64el=$kernel_version"
}

prepare_busybox() {
	local version
	version=$(versions busybox-static:ppc64el | head -n 1)
	[[ -n $version ]] || skip "busybox-static for ppc64el was not found among the machine's package sources."
	busybox="busybox-${version//:/_}"
	unpack "$busybox" "busybox-static:ppc64el=$version"
}

# lab_kernel_of SUITE: unpacks the kernel of another of Debian's suites; prints its folder.
lab_kernel_of() {
	local suite=$1 apt_folder=$cache/apt-$1 kernel kernel_release kernel_version
	lab_prepare
	take_turns "$cache/lab"
	# Without the parts for security and updates: the suite itself has a kernel.
	has_lists "$apt_folder" ||
		debian_sources | awk -v suite="$suite" '$2 !~ /-/ { print "deb", $1, suite, $3 }' | sort -u |
		read_lists "$apt_folder" ppc64el
	prepare_kernel
	take_turns
	echo "$cache/$kernel"
}

# lab_packages NAME PACKAGE…: Debian's ppc64el packages, unpacked into one folder, whose path it prints. What they depend
# on has to be named, too: a whole tree of dependencies is seldom what a test needs.
lab_packages() {
	local name=$1 folder status=0
	folder=$name-$(echo "$*" | sha256sum | cut -c -12)
	shift
	lab_prepare
	if [[ ! -d $cache/$folder ]]; then
		take_turns "$cache/lab"
		# The lists may be older than the archive's last point release.
		(unpack "$folder" "${@/%/:ppc64el}") 2>"$cache/$name.log" || status=$?
		if [[ $status -ne 0 ]]; then
			lab_apt apt-get -q update >"$cache/apt/update.log" 2>&1 || true
			unpack "$folder" "${@/%/:ppc64el}"
		fi
		take_turns
	fi
	echo "$cache/$folder"
}

lab_prepare() {
	! lab_ready || return 0
	type -P apt-get dpkg-deb >/dev/null ||
		skip "the lab is made of Debian packages, and this machine has no apt."
	# Two checkouts, or two terminals, may share the cache.
	take_turns "$cache/lab"
	! lab_ready || return 0
	rm -f "$cache/lab.stamp"
	rm -rf "$cache"/unpacking.*

	local host_arch kernel kernel_release kernel_version busybox rust
	host_arch=$(dpkg --print-architecture)
	install_host_packages "$cache/apt-install.log" "${HOST_PACKAGES[@]}"
	debian_sources | sed 's/^/deb /' | read_lists "$cache/apt" "$host_arch" ppc64el
	prepare_kernel
	prepare_busybox
	prepare_rust

	cat >"$cache/lab.stamp.new" <<-EOF
		format=$LAB_FORMAT
		kernel=$kernel
		kernel_release=$kernel_release
		kernel_version=$kernel_version
		busybox=$busybox
		rust=$rust
		rust_series=$(rust_series)
	EOF
	mv "$cache/lab.stamp.new" "$cache/lab.stamp"
	take_turns
	say "ready: Linux $kernel_release ($kernel_version), $rust, in $cache"
}
