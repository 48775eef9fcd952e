#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
#
# The one program of the KVM host's machine: start.sh TASK OPTIONS; see main.py.

mount -t tracefs tracefs /sys/kernel/tracing
ip link set lo up
# Better an end that differs from a failed case than a kernel that hangs on.
echo 1 >/proc/sys/kernel/hardlockup_panic
export PATH=$PATH:/usr/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/tests/system/tcg
cd /tests/system/kvm/inside || exit
exec /usr/bin/python3 -S main.py "$@"
