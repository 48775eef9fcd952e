# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the cases inside the KVM host; tests/system/kvm/run takes what it prints from the console."""

import argparse
import sys
import tempfile

from host import KvmFleet
from kvm_cases import CASES
from runner import chosen_cases, run_cases


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", required=True)
    parser.add_argument("case", nargs="*")
    arguments = parser.parse_args()
    chosen = chosen_cases(parser, CASES, arguments.case)
    fleet = KvmFleet(tempfile.mkdtemp(prefix="kvm."))
    passed, failed, skipped = run_cases(fleet, arguments.series.split(","), chosen)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
