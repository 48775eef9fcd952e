#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
#
# The first process of the lab's guest: loads KVM, runs the one program it was made for between two marker lines, and
# powers off. scripts/lab puts it into the initramfs as /init, with /lab/mark (a word unique to this boot), /lab/run (the
# program's command line) and /lab/modules.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM=dumb

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t debugfs debugfs /sys/kernel/debug
mount -t tmpfs tmp /tmp

while read -r module; do
	insmod "/lab/modules/$module"
done </lab/modules/order

mark=$(cat /lab/mark)
cd /

# From here on the console is the program's: the kernel's errors would land in the middle of its lines. An oops still
# comes through, as it raises the level itself; the rest is in the dmesg below.
echo 1 >/proc/sys/kernel/printk

echo "$mark begin"
/bin/sh /lab/run </dev/null
echo "$mark end $?"

dmesg
echo "$mark done"
poweroff -f
