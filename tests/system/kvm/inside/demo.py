# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of tests/system/kvm/demo that runs inside the KVM host; the last line it prints is the result."""

import json
import sys
import tempfile

from demonstration import migrate
from host import KvmFleet
from machine import TestFailure
from qmp import QmpError


def main():
    fleet = KvmFleet(tempfile.mkdtemp(prefix="demo."))
    try:
        program = fleet.program(sys.argv[1])
        result = migrate(fleet, fleet.guest(), program, program)
    except (TestFailure, QmpError) as error:
        print(f"demo: {error}")
        return 1
    finally:
        fleet.drop_all()
    print("@json " + json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
