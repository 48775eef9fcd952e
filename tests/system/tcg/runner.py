# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases' registry; runs cases one after the other, and reports how each ended."""

import time
import traceback

from failures import SKIP_STATUS, Skipped, TestFailure

CASES = []


def case(function):
    """A case gets the fleet and the series under test, and raises if something is wrong."""
    CASES.append(function)
    return function


def chosen_cases(parser, cases, wanted):
    """The cases of those names, all if there are none."""
    names = {function.__name__: function for function in cases}
    unknown = [name for name in wanted if name not in names]
    if unknown:
        parser.error(f"there is no case {unknown[0]}; there are {', '.join(names)}")
    return [names[name] for name in wanted] or cases


def run_cases(fleet, all_series, chosen):
    """Returns how many passed, failed and were skipped."""
    passed = failed = skipped = 0
    for series in all_series:
        for function in chosen:
            name = fleet.case = f"{series} {function.__name__}"
            begin = time.monotonic()
            try:
                function(fleet, series)
                fleet.keep()
                passed += 1
                print(f"ok {name} ({time.monotonic() - begin:.0f} s)", flush=True)
            except Skipped as why:
                skipped += 1
                print(f"SKIPPED {name}: {why}", flush=True)
            except Exception as error:  # pylint: disable=broad-exception-caught
                # A bug in a case is a failure of the case, too, but its place is of interest.
                if not isinstance(error, TestFailure):
                    traceback.print_exc()
                failed += 1
                print(f"FAILED {name}: {error}", flush=True)
            finally:
                fleet.drop_all()
    return passed, failed, skipped


def close(passed, failed, skipped):
    """Prints the last line; returns the status that a run ends with."""
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    if failed:
        return 1
    return 0 if passed else SKIP_STATUS
