# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs inside the KVM host: main.py TASK OPTIONS, the options as JSON. kvm_host.py starts it."""

import json
import os
import sys

import one_migration
import workloads
from failures import status_of
from host import KvmFleet, print_result
from kvm_cases import CASES
from runner import close, run_cases


def cases(fleet, series, names):
    return close(*run_cases(fleet, series, [case for name in names for case in CASES if case.__name__ == name]))


def migrate(fleet, series):
    program = fleet.program(series)
    print_result(one_migration.migrate(fleet, fleet.guest(), program, program))
    return 0


def measure(fleet, seconds, rounds):
    print_result({"host_kernel": os.uname().release} | workloads.run(fleet, seconds, rounds))
    return 0


TASKS = {function.__name__: function for function in (cases, migrate, measure)}


def main():
    with KvmFleet() as fleet:
        return TASKS[sys.argv[1]](fleet, **json.loads(sys.argv[2]))


if __name__ == "__main__":
    sys.exit(status_of(main))
