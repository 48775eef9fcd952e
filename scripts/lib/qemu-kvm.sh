# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What is otherwise when QEMU is built for a ppc64le host with KVM: the cross compiler, Debian's ppc64el libraries in a
# folder that stands for the root, a static program with KVM alone and the one machine. Sourced by scripts/qemu after
# qemu-build.sh.

: "${repo:?}" "${cache:?}" "${series:?}"

KVM_TRIPLET=powerpc64le-linux-gnu
KVM_PACKAGES=(
	libfdt-dev
	libfdt1
	libffi-dev
	libglib2.0-0
	libglib2.0-dev
	libpcre2-8-0
	libpcre2-dev
	libseccomp-dev
	libseccomp2
	zlib1g
	zlib1g-dev
)

QEMU_CONFIGURE_KVM=(
	--target-list=ppc64-softmmu
	--without-default-devices
	--without-default-features
	--with-devices-ppc64=spapr-htab
	--cpu=ppc64le
	--cross-prefix="$KVM_TRIPLET-"
	--host-cc=gcc
	--enable-fdt=system
	--enable-kvm
	--enable-seccomp
	--static
	--disable-debug-info
	--disable-docs
	--disable-install-blobs
	--disable-tcg
	--disable-tools
	--disable-werror
)

# kvm_library_options: leaves what makes meson cross-build the library in the array $setup, and in the environment the
# lab's Rust.
kvm_library_options() {
	local environment
	environment=$("$repo/scripts/lab" cargo-env) || exit
	eval "$environment"
	setup+=(--cross-file "$repo/scripts/lib/ppc64le.cross")
}

# kvm_root FOLDER PACKAGES: a root with Debian's libraries, in which the library has a place, too.
kvm_root() {
	[[ ! -d $1 ]] || return 0
	rm -rf "$1.new"
	cp -al "$2" "$1.new"
	mv -T "$1.new" "$1"
}

# kvm_environment FOLDER: pkg-config finds what is in that root and nothing of this machine's.
kvm_environment() {
	export PKG_CONFIG=pkg-config PKG_CONFIG_SYSROOT_DIR=$1
	export PKG_CONFIG_LIBDIR=$1/usr/lib/$KVM_TRIPLET/pkgconfig:$1/usr/share/pkgconfig:$1/spapr-htab/lib/pkgconfig
}

# kvm_options FOLDER: leaves what makes a program with the libraries of that root in $options, $devices and $packages.
# -B, because meson asks the compiler where it looks for static libraries; libfdt has no file for pkg-config.
kvm_options() {
	local wanted=("${KVM_PACKAGES[@]}")
	pseries_devices
	# Newer ones do without.
	[[ $series != 7.2 ]] || wanted+=(libpixman-1-0 libpixman-1-dev)
	# shellcheck disable=SC2034 # qemu-build.sh makes the root from it
	packages=$("$repo/scripts/lab" packages sysroot "${wanted[@]}") || exit
	options+=("${QEMU_CONFIGURE_KVM[@]}")
	options+=(--cc="ccache $KVM_TRIPLET-gcc -B$1/usr/lib/$KVM_TRIPLET/ -idirafter $1/usr/include")
}
