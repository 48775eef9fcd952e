#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
#
# The one program of the KVM host's machine: what tests/kvm/run wants done there, in Python.

ip link set lo up
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/tests/guest
exec /usr/bin/python3 -S /tests/kvm/inside/run.py "$@"
