"""What both scripts share: run every check, report every failure."""

import sys
import traceback


def run(checks):
    failed = 0
    for check in checks:
        try:
            check()
        except Exception:
            failed += 1
            print(f"--- {check.__name__}")
            traceback.print_exc(file=sys.stdout)
    sys.exit(1 if failed else 0)


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def raises(kind, call):
    try:
        call()
    except kind as e:
        equal(type(e), kind)
        return e
    raise AssertionError(f"no {kind.__name__}")
