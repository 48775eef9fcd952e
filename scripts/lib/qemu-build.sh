# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# Builds QEMU, and the library as it installs it. Sourced by scripts/qemu after qemu-source.sh.

: "${repo:?}" "${cache:?}" "${patched:?}" "${kvm:?}" "${emulator:?}" "${sanitizers:?}"

# What QEMU 10.x asks of meson; older series build with it, too.
MESON_WANTED='meson>=1.5,<1.9'

# As the tests under TCG need it: TCG and all machines of ppc64, debugging information for gdb, and nothing of the host's.
QEMU_CONFIGURE=(
	--target-list=ppc64-softmmu
	--without-default-features
	--enable-tcg
	--enable-fdt=system
	--disable-docs
	--disable-install-blobs
	--disable-kvm
	--disable-tools
	--disable-werror
)

# A KVM host's emulator is powernv alone, so that it is there in half the time.
QEMU_CONFIGURE_EMULATOR=(
	--without-default-devices
	--with-devices-ppc64=spapr-htab
	--disable-debug-info
)
EMULATOR_DEVICES=(ACPI I2C POWERNV SMBUS)

# With these the compilers take twice as long, and nobody runs another machine with them.
QEMU_CONFIGURE_SANITIZERS=(
	--without-default-devices
	--with-devices-ppc64=spapr-htab
	--enable-asan
	--enable-ubsan
)

# quietly LOG COMMAND…: shows the log's end if the command fails.
quietly() {
	local log=$1
	shift
	"$@" >"$log" 2>&1 || {
		tail -n 40 "$log" >&2
		die 70 "failed: $* (the whole log is $log)"
	}
}

# A newer meson than Debian 12's, in an environment of its own.
need_meson() {
	venv=$cache/venv
	if [[ ! -x $venv/bin/meson ]]; then
		say "installing $MESON_WANTED from PyPI into $venv"
		rm -rf "$venv"
		/usr/bin/python3 -m venv "$venv" || skip "python3 -m venv does not work on this machine."
		"$venv/bin/pip" --quiet --disable-pip-version-check install "$MESON_WANTED" >"$cache/pip.log" 2>&1 || {
			rm -rf "$venv"
			skip "pip could not install $MESON_WANTED (see $cache/pip.log)."
		}
	fi
}

# build_library: builds and installs the library of this checkout through its own meson.build; leaves the folder that it
# is installed in, as in any system, in $library.
build_library() {
	need_rust
	need_meson
	local work setup=()
	# Cargo and meson cannot share a folder between checkouts.
	work=$cache/library/$(echo "$repo" | sha256sum | cut -c -12)
	[[ $kvm == no ]] || work+=-ppc64le
	mkdir -p "$work"
	take_turns "$work"
	library=$work/installed
	say "building the library$([[ $kvm == no ]] || echo " for ppc64le")"
	# A subshell: the cross compiler's environment is not for what else is built.
	(
		[[ $kvm == no ]] || kvm_library_options
		[[ -e $work/build/build.ninja ]] || quietly "$work/log" "$venv/bin/meson" setup "$work/build" "$repo" \
			--prefix "$library" --libdir lib "${setup[@]}"
		quietly "$work/log" ninja -C "$work/build" install
	) || exit
}

# pseries_devices: leaves what the one machine is made of in $devices.
pseries_devices() {
	: "${series:?}"
	devices=(PSERIES)
	# 7.2's takes USB and NVDIMM for granted.
	[[ $series != 7.2 ]] || devices+=(NVDIMM USB_OHCI_PCI)
}

# qemu_options BUILD: leaves configure's options in the array $options; the devices, unless all are built, in
# $devices; and the folder of the host's packages, if they are not the machine's, in $packages.
qemu_options() {
	: "${tree:?}"
	options=() devices=() packages=""
	# QEMU 8.1 began to make a Python environment of its own; older ones take any meson.
	if [[ -e $tree/python/scripts/mkvenv.py ]]; then
		options+=(--python="$venv/bin/python3")
	else
		options+=(--meson="$venv/bin/meson")
	fi
	[[ $patched == no ]] || options+=(--enable-spapr-htab)
	if [[ $kvm == yes ]]; then
		kvm_options "$1-root"
		return
	fi
	options+=("${QEMU_CONFIGURE[@]}" --cc="ccache gcc")
	if [[ $emulator == yes ]]; then
		options+=("${QEMU_CONFIGURE_EMULATOR[@]}")
		devices=("${EMULATOR_DEVICES[@]}")
	fi
	if [[ $sanitizers == yes ]]; then
		options+=("${QEMU_CONFIGURE_SANITIZERS[@]}")
		pseries_devices
	fi
}

# build_qemu: builds $tree of QEMU $version; leaves the program's path in $program.
build_qemu() {
	: "${tree:?}" "${version:?}"
	need_meson
	local build=$tree/build configured devices key options packages path=$venv/bin:$PATH place prefix
	[[ $kvm == no ]] || build=$tree/build-kvm
	[[ $sanitizers == no ]] || build=$tree/build-sanitizers
	qemu_options "$build"
	configured=$(printf '%s\n' "${options[@]}" "${devices[@]}" "$packages")
	key=$({
		echo "$configured"
		[[ $patched == no ]] || cat "$library/lib/libspapr_htab.a" "$library/include/spapr_htab.h"
	} | sha256sum | cut -c -12)
	program=$tree/programs/$key/qemu-system-ppc64
	[[ ! -x $program ]] || return 0
	take_turns "$build"
	[[ ! -x $program ]] || return 0

	if [[ ! -e $build/build.ninja || $(cat "$build/configured" 2>/dev/null) != "$configured" ]]; then
		rm -rf "$build" "$build-root"
	fi
	# The build tree has the library at a place of its own, so that another checkout's leads to a new link only.
	place=$build-library prefix=$build-library
	export PKG_CONFIG_PATH=$place/lib/pkgconfig
	if [[ $kvm == yes ]]; then
		kvm_root "$build-root" "$packages"
		kvm_environment "$build-root"
		place=$build-root/spapr-htab prefix=/spapr-htab
	fi
	if [[ $patched == yes ]]; then
		mkdir -p "$place"
		cp -r --preserve=timestamps "$library/." "$place"
		# pkg-config's file names the place that it was installed to.
		sed -i "s|^prefix=.*|prefix=$prefix|" "$place/lib/pkgconfig/spapr-htab.pc"
		# Whatever its age: ninja must see that it is another one.
		touch "$place/lib/libspapr_htab.a"
	fi
	# Equal files of different trees are compiled once: the debugging information's folder is then another tree's.
	export CCACHE_DIR=$cache/ccache CCACHE_BASEDIR=$tree CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=10G
	if [[ ! -e $build ]]; then
		say "configuring QEMU $version"
		mkdir -p "$build"
		[[ ${#devices[@]} -eq 0 ]] ||
			printf 'CONFIG_%s=y\n' "${devices[@]}" >"$tree/configs/devices/ppc64-softmmu/spapr-htab.mak"
		(
			cd "$build" || exit
			PATH=$path quietly "$build/configure.log" ../configure "${options[@]}"
		)
		echo "$configured" >"$build/configured"
	fi
	say "building QEMU $version (the first time takes ten minutes or so; $build/build.log)"
	PATH=$path quietly "$build/build.log" \
		nice ninja -C "$build" -j "${SPAPR_HTAB_JOBS:-$(nproc)}" qemu-system-ppc64
	# In one step, so that nobody sees half a program.
	mkdir -p "$(dirname "$program")"
	cp "$build/qemu-system-ppc64" "$program.new"
	mv -f "$program.new" "$program"
}
