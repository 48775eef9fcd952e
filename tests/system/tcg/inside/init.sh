#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
#
# The first process of the guest that is migrated. It starts the program that works and checks itself, and takes
# commands from the console, a line each.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM=dumb

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t debugfs debugfs /sys/kernel/debug
mount -t tmpfs -o size=128m tmp /tmp

# What the firmware and the kernel chose; the tests look for "Hash" or "Radix".
grep '^MMU' /proc/cpuinfo
echo "cpus $(nproc)"
# Panics must be seen on the console at once.
echo 7 >/proc/sys/kernel/printk
echo 1 >/proc/sys/kernel/panic_on_oops

stty -echo </dev/console
/work &
while :; do
	while read -r line; do
		eval "$line"
		echo "done $?: $line"
	done </dev/console
	# Nobody is at the other end just now.
	sleep 1
done
