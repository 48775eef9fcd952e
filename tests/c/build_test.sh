#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# build_test.sh TEST WORK ARCHIVE: tests of what builds the library, each on a copy of the tree in another folder.
#
#   superproject   as a subproject of another meson project; and what comes out is equal, byte for byte, to ARCHIVE
#   vendor         with vendored crates and without a registry, where that can be had without a network at all
#   cross          for ppc64le through a cross file, and the example and the two libraries run under emulation
#   drift          a version or a header that disagrees, and an export that the list forgot, end the build
#
# Ends with 77 and "SKIPPED: why" where this machine cannot try.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
script_name=build_test
# shellcheck source=scripts/lib/common.sh
. "$root/scripts/lib/common.sh"
[[ $# -eq 3 ]] || exit 64
test=$1 work=$2 archive=$3

# copy_tree DIR: the tree as it is, without what builds leave in it.
copy_tree() {
	rm -rf "$1"
	mkdir -p "$1"
	tar -C "$root" --exclude=./.git --exclude=./target --exclude=./build --exclude=./vendor --exclude=./.cargo -cf - . |
		tar -C "$1" -xf -
}

# must_fail WORDS COMMAND…: the command fails and says the words.
must_fail() {
	local words=$1 said
	shift
	if said=$("$@" 2>&1); then
		die 1 "this should have failed, with \"$words\": $*"
	fi
	grep -qF -- "$words" <<<"$said" || die 1 "this failed, but did not say \"$words\": $*
$said"
	say "fails as it should: $words"
}

test_superproject() {
	local super=$work/super build=$work/build
	rm -rf "$super" "$build"
	mkdir -p "$super/subprojects"
	cp "$here/superproject/meson.build" "$here/example.c" "$super"
	copy_tree "$super/subprojects/spapr-htab"
	meson setup --buildtype=debugoptimized "$build" "$super"
	meson test -C "$build" --print-errorlogs
	cmp "$build/subprojects/spapr-htab/libspapr_htab.a" "$archive" ||
		die 1 "an archive depends on the folder that it is built in"
	# A change of a source is seen, and nothing else leads to work.
	meson compile -C "$build" | grep -q 'no work to do' || die 1 "building again is not without work"
	local sentence=$super/subprojects/spapr-htab/src/error/message.rs
	grep -q 'a bug in spapr-htab' "$sentence" || die 1 "the sentence that is changed here is somewhere else"
	sed -i 's/a bug in spapr-htab/a mistake in spapr-htab/' "$sentence"
	meson compile -C "$build"
	grep -q 'a mistake in spapr-htab' "$build/example" || die 1 "a changed source was not built anew"
}

test_vendor() {
	local tree=$work/tree said
	copy_tree "$tree"
	mkdir "$tree/.cargo"
	said=$(cd "$tree" && "${CARGO:-cargo}" vendor --locked vendor 2>"$work/said") || {
		grep -qE 'could not resolve|failed to (download|get|fetch)|unable to' "$work/said" &&
			skip "there is no registry to vendor the crates from: $(tail -n 1 "$work/said")"
		die 1 "$(cat "$work/said")"
	}
	printf '%s\n' "$said" >"$tree/.cargo/config.toml"
	# No registry, no cache, no network: an empty home, and names that lead nowhere.
	mkdir -p "$work/home"
	export CARGO_HOME=$work/home CARGO_HTTP_PROXY=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9
	local alone=()
	if unshare --net true 2>/dev/null; then
		alone=(unshare --net)
	elif unshare --map-root-user --net true 2>/dev/null; then
		alone=(unshare --map-root-user --net)
	else
		say "no network namespace may be made here; the registry's names lead nowhere, which has to do"
	fi
	(cd "$tree" && "${alone[@]}" "${CARGO:-cargo}" build --release --frozen --offline --no-default-features \
		--target-dir "$work/target")
	rm -rf "$work/build"
	"${alone[@]}" meson setup --buildtype=release "$work/build" "$tree"
	"${alone[@]}" meson compile -C "$work/build"
	grep -q -- --frozen "$work/build/build.ninja" || die 1 "meson did not see that the crates are vendored"
	"$here/exports.sh" archive "$root/include/exports.txt" "$work/build/libspapr_htab.a"
	[[ -z $(find "$work/home" -name '*.crate') ]] || die 1 "a vendored build downloaded crates"
	rm -rf "$tree/vendor"
	must_fail 'needs vendor/' meson setup -Dvendored=enabled "$work/build-without" "$tree"
}

test_cross() {
	local triple=powerpc64le-unknown-linux-gnu gcc=powerpc64le-linux-gnu-gcc run=qemu-ppc64le-static
	local tool order libs
	for tool in "$gcc" "$run"; do
		command -v "$tool" >/dev/null || skip "there is no $tool; scripts/lab prepare gets it"
	done
	[[ -e $(cache_dir)/lab.stamp ]] || skip "the lab is not prepared; scripts/lab prepare does that"
	export CARGO_TARGET_DIR=$work/target
	# shellcheck source=/dev/null
	. <("$root/scripts/lab" cargo-env)
	rm -rf "$work/build" "$work/installed"
	meson setup --cross-file "$here/ppc64le.ini" --buildtype=release --prefix=/usr/local "$work/build" "$root"
	DESTDIR=$work/installed meson install -C "$work/build"
	export PKG_CONFIG_SYSROOT_DIR=$work/installed
	PKG_CONFIG_LIBDIR=$(dirname "$(find "$work/installed" -name spapr-htab.pc)")
	export PKG_CONFIG_LIBDIR
	read -ra libs <<<"$(pkg-config --cflags --libs --static spapr-htab)"
	"$gcc" -std=c11 -Wall -Wextra -Werror -static "$here/example.c" "${libs[@]}" -o "$work/example"
	"$run" "$work/example"
	NM=powerpc64le-linux-gnu-nm "$here/exports.sh" archive "$root/include/exports.txt" \
		"$(find "$work/installed" -name libspapr_htab.a)"

	# Panics on this machine, too, whose unwinding tables are others.
	{
		cat "$root/include/exports.txt"
		echo spapr_htab_test_panic
	} >"$work/exports"
	local flags=CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_RUSTFLAGS
	CC=$gcc env "$flags=${!flags} --cfg spapr_htab_test_panic" "$root/scripts/build-archive" --target-dir "$work/panic" \
		--exports "$work/exports" "$work/panic.a"
	(cd "$root" && "${CARGO:-cargo}" build --manifest-path tests/Cargo.toml --locked --release -p htab-second)
	local second=$CARGO_TARGET_DIR/$triple/release/libhtab_second.a
	read -ra libs <<<"$("$root/scripts/build-archive" --target "$triple" --native-libs)"
	for order in "$work/panic.a $second" "$second $work/panic.a"; do
		# shellcheck disable=SC2086 # two archives
		"$gcc" -std=c11 -static -I"$root/include" "$here/two_libraries.c" $order "${libs[@]}" -o "$work/two"
		"$run" "$work/two"
	done
}

test_drift() {
	local tree=$work/tree
	local build=("$tree/scripts/build-archive" --target-dir "$work/target")
	copy_tree "$tree"
	"${build[@]}" --header-check "$work/out.a"

	sed -i 's/^version = "0\.1\.0"/version = "0.1.7"/' "$tree/Cargo.toml"
	rm -rf "$work/build"
	must_fail 'Cargo.toml 0.1.7' meson setup "$work/build" "$tree"
	cp "$root/Cargo.toml" "$tree"

	sed -i 's/struct_size;/struct_sise;/' "$tree/include/spapr_htab.h"
	must_fail 'is not what the sources say' "${build[@]}" --header-check "$work/out.a"
	must_fail 'is not what the sources say' sh -c "meson setup -Dheader_check=true '$work/build' '$tree' &&
		rm -rf '$work/build/cargo' && ln -s '$work/target' '$work/build/cargo' && meson compile -C '$work/build'"
	# Whoever only builds the library takes the header as it is.
	"${build[@]}" "$work/out.a"

	sed -i '/^spapr_htab_load$/d' "$tree/include/exports.txt"
	must_fail '> spapr_htab_load' "${build[@]}" "$work/out.a"
	echo spapr_htab_nothing >>"$tree/include/exports.txt"
	must_fail '< spapr_htab_nothing' "${build[@]}" "$work/out.a"
}

mkdir -p "$work"
case $test in
superproject | vendor | cross | drift) "test_$test" ;;
*) exit 64 ;;
esac
