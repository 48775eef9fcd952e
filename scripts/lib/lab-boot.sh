# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# `scripts/lab boot`: one program, as the only one, on a real KVM host kernel under an emulated POWER9. Sourced by
# scripts/lab after common.sh and lab-packages.sh.

: "${repo:?}" "${cache:?}"

STATUS_TIMEOUT=124
STATUS_KERNEL=125
STATUS_CANNOT=126

# What the kernel prints, at any console level, when it is beyond help.
OOPS='\[ *[0-9]+\.[0-9]{6}\] (Oops: |Kernel panic - |BUG: |kernel BUG at |Unable to handle )'
# skiboot shares the console; its lines have nanoseconds and a level.
FIRMWARE='^\[ *[0-9]+\.[0-9]{9},[0-9]\] '

# add_module NAME: the module and, before it, those it names as its needs (modules.dep is only made at installation).
add_module() {
	local file name=$1 need
	# Under /lib or /usr/lib, by the age of the package.
	file=$(find "$kernel" -path '*/lib/modules/*' \( -name "$name.ko" -o -name "${name//_/-}.ko" -o -name "$name.ko.xz" \
		-o -name "${name//_/-}.ko.xz" \) -print -quit)
	# Not there: built into this kernel.
	[[ -n $file ]] || return 0
	! grep -qxF "$name.ko" "$image/lab/modules/order" || return 0
	if [[ $file == *.xz ]]; then
		xz -dc "$file" >"$image/lab/modules/$name.ko"
	else
		cp "$file" "$image/lab/modules/$name.ko"
	fi
	while read -r need; do
		add_module "$need"
	done < <(tr '\0' '\n' <"$image/lab/modules/$name.ko" | sed -n 's/^depends=//p' | tr ',' '\n' | sed '/^$/d')
	echo "$name.ko" >>"$image/lab/modules/order"
}

# A dynamically linked program would only say "not found" in there.
check_program() {
	[[ -f $1 && -x $1 ]] || die $STATUS_CANNOT "$1 is not a program."
	local headers
	headers=$(powerpc64le-linux-gnu-readelf --wide --file-header --program-headers "$1" 2>/dev/null) || return 0
	if ! grep -q 'Machine: *PowerPC64' <<<"$headers" || ! grep -q "Data: .*little endian" <<<"$headers"; then
		die $STATUS_CANNOT "$1 is not a ppc64le program."
	elif grep -q '^ *INTERP' <<<"$headers"; then
		die $STATUS_CANNOT "$1 is linked dynamically; the guest has no libraries, so link it with -static."
	fi
}

# build_initramfs FILE PROGRAM ARGS…
build_initramfs() {
	local file=$1 program=$2
	shift 2
	local image=$work/image name=${program##*/} argument
	mkdir -p "$image"/{bin,dev,lab/bin,lab/modules,proc,sys,tmp}
	[[ -z $root ]] || cp -a "$root/." "$image"
	cp "$cache/$(lab_part busybox)/bin/busybox" "$image/bin/busybox"
	cp "$repo/scripts/lib/lab-guest-init.sh" "$image/init"
	cp "$program" "$image/lab/bin/$name"
	chmod +x "$image/init" "$image/lab/bin/$name"
	echo "$mark" >"$image/lab/mark"
	: >"$image/lab/modules/order"
	add_module kvm-hv
	for argument in "/lab/bin/$name" "$@"; do
		printf "'%s' " "${argument//\'/\'\\\'\'}"
	done >"$image/lab/run"
	# Not compressed: unpacking takes the emulated processor longer than reading.
	(cd "$image" && find . | cpio --quiet -o -H newc) >"$file"
	# The machine loads 128 MiB at most, and says so only by a kernel without an init.
	[[ $(stat -c %s "$file") -le $((128 << 20)) ]] ||
		die $STATUS_CANNOT "what the machine is to have in its memory takes more than 128 MiB."
}

# follow DESCRIPTOR: hands the program's lines on as they come, and leaves in $reached how far the boot got (nothing,
# begin, end, finished), in $status the program's exit status and in $oops whether the kernel fell over.
follow() {
	local line rest newline eof="" remaining ended
	while [[ -z $eof && $reached != finished ]]; do
		remaining=$((deadline - SECONDS))
		# A timeout of 0 means something else to read.
		[[ $remaining -gt 0 ]] || return 0
		newline=$'\n'
		ended=0
		IFS= read -r -t "$remaining" -u "$1" line || ended=$?
		if [[ $ended -gt 128 ]]; then
			# Out of time, perhaps in the middle of a line: a sentence follows, so end it. The next round returns.
			[[ -n $line ]] || return 0
		elif [[ $ended -ne 0 ]]; then
			# The last piece before the emulator's end.
			newline=""
			eof=yes
		fi
		line=${line%$'\r'}
		printf '%s%s' "$line" "$newline" >&"$log_fd"
		if [[ $line =~ $OOPS ]]; then
			oops=yes
		fi
		if [[ $oops == yes ]]; then
			printf '%s\n' "$line" >&2
		elif [[ $line == "$mark begin" ]]; then
			reached=begin
		elif [[ $line == *"$mark end "* && $reached == begin ]]; then
			reached=end
			status=${line##*"$mark end "}
			# The program's last line, when it did not end it.
			rest=${line%%"$mark end "*}
			printf '%s' "$rest"
		elif [[ $line == "$mark done" ]]; then
			reached=finished
		elif [[ $reached == begin && ! $line =~ $FIRMWARE ]]; then
			printf '%s%s' "$line" "$newline"
		elif [[ $reached == end && $line =~ WARNING:\ CPU ]]; then
			say "the kernel warned: $line"
		fi
	done
}

end_boot() {
	# The process is ours and not yet waited for, so its number cannot have gone to another one.
	if [[ -n ${emulator_pid:-} ]]; then
		kill -KILL "$emulator_pid" 2>/dev/null || true
		wait "$emulator_pid" 2>/dev/null || true
	fi
	rm -rf "$work"
}

# A terminal or timeout(1) may signal both the script and its group: the second signal must not cut end_boot short.
leave() {
	trap '' HUP INT PIPE TERM
	exit "$1"
}

# choose_emulator: leaves the command in the array $emulator.
choose_emulator() {
	if [[ -n ${SPAPR_HTAB_EMULATOR:-} ]]; then
		[[ -x $SPAPR_HTAB_EMULATOR ]] || die $STATUS_CANNOT "SPAPR_HTAB_EMULATOR=$SPAPR_HTAB_EMULATOR is not a program."
		# A QEMU run from its build folder has no firmware of its own; Debian's fits.
		emulator=("$SPAPR_HTAB_EMULATOR" -L /usr/share/qemu)
	else
		emulator=(qemu-system-ppc64)
	fi
	[[ $icount == yes ]] || return 0
	local version
	version=$("${emulator[0]}" --version | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
	[[ -n ${SPAPR_HTAB_EMULATOR:-} && ${version:-0} -ge 10 ]] ||
		die $STATUS_CANNOT "--icount needs a QEMU 10.0 or newer as the emulator: put its qemu-system-ppc64 into" \
			"SPAPR_HTAB_EMULATOR (Debian's 7.2 does not boot with it)."
	[[ $smp -eq 1 ]] || die $STATUS_CANNOT "--icount counts the instructions of one processor; leave --smp at 1."
}

lab_boot() {
	local time=120 smp=1 mem=2G root="" kernel="" icount=no
	while [[ ${1:-} == -* ]]; do
		case $1 in
		--time | --smp | --mem | --root | --kernel)
			[[ $# -ge 2 ]] || usage
			printf -v "${1#--}" %s "$2"
			shift
			;;
		# say reads the second one.
		--icount | --quiet) printf -v "${1#--}" yes ;;
		--)
			shift
			break
			;;
		*) usage ;;
		esac
		shift
	done
	[[ $# -ge 1 && $time =~ ^[1-9][0-9]*$ && $smp =~ ^[1-9][0-9]*$ && $mem =~ ^[1-9][0-9]*[MG]?$ ]] || usage

	lab_prepare
	check_program "$1"
	local emulator
	choose_emulator
	local accel=(-accel "tcg,thread=multi")
	[[ $icount == no ]] || accel=(-accel "tcg,thread=single" -icount "shift=1,align=off,sleep=off")

	local vmlinux mark log log_fd
	: "${kernel:=$cache/$(lab_part kernel)}"
	vmlinux=("$kernel"/boot/vmlinux-*)
	mark="spapr-htab-lab-$$-$RANDOM"
	# Not local: the traps run after this function has gone.
	work=$(mktemp -d)
	emulator_pid=""
	trap end_boot EXIT
	trap 'leave 129' HUP
	trap 'leave 130' INT
	trap 'leave 141' PIPE
	trap 'leave 143' TERM
	build_initramfs "$work/initramfs" "$@"

	mkdir -p "$cache/log"
	log=$cache/log/boot-$(date +%Y%m%d-%H%M%S)-$$.log
	exec {log_fd}>"$log"
	# Even a script ended by SIGKILL, which no trap sees, must not leave an emulator behind.
	local command=(setpriv --pdeathsig KILL "${emulator[@]}" -M powernv9 "${accel[@]}" -smp "$smp" -m "$mem" -nographic
		-kernel "${vmlinux[0]}" -initrd "$work/initramfs"
		-append "console=hvc0 quiet oops=panic panic=-1" -no-reboot)
	local console reached="" status="" oops=no deadline=$((SECONDS + time))
	exec {console}< <(exec "${command[@]}" </dev/null 2>&1)
	emulator_pid=$!
	follow "$console"
	exec {log_fd}>&-

	if [[ $oops == yes ]]; then
		die $STATUS_KERNEL "the kernel fell over; the console is in $log"
	elif [[ $reached == end || $reached == finished ]]; then
		[[ $status -ne 0 ]] || {
			rm -f "$log"
			exit 0
		}
		say "the program ended with status $status; the console is in $log"
		exit "$status"
	elif [[ $reached == begin && $SECONDS -ge $deadline ]]; then
		die $STATUS_TIMEOUT "the program had not ended $time s after the boot began; the console is in $log"
	elif [[ $reached == begin ]]; then
		die $STATUS_KERNEL "the machine went down under the program; the console is in $log"
	elif [[ $SECONDS -ge $deadline ]]; then
		die $STATUS_KERNEL "the boot had not reached the program after $time s; the console is in $log"
	else
		die $STATUS_KERNEL "the emulator ended before the program was reached; the console is in $log"
	fi
}
