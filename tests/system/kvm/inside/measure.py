# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of scripts/measure --kvm that runs inside the KVM host; the last line it prints is the result."""

import argparse
import json
import os
import sys
import tempfile

import workloads
from host import KvmFleet
from machine import TestFailure
from qmp import QmpError


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    arguments = parser.parse_args()
    fleet = KvmFleet(tempfile.mkdtemp(prefix="measure."))
    try:
        result = workloads.run(fleet, arguments.seconds, arguments.rounds)
    except (TestFailure, QmpError) as error:
        print(f"measure: {error}")
        return 1
    finally:
        fleet.drop_all()
    print("@json " + json.dumps({"host_kernel": os.uname().release} | result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
