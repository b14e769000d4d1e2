"""What keeps programs from waiting for the whole machine really does, and nothing else."""

import sys

import pytest

from tests.support.nosync import AVAILABLE
from tests.support.tools import run

PROBE = """
import ctypes, os
print("no new privileges" if "NoNewPrivs:\\t1" in open("/proc/self/status").read() else "as before")
print("filtered" if "Seccomp:\\t2" in open("/proc/self/status").read() else "not filtered")
ctypes.CDLL(None).sync()
with open("/proc/self/io") as file:
    os.fsync(os.open(".", os.O_RDONLY))
"""


@pytest.mark.skipif(not AVAILABLE, reason="no filter for this machine")
def test_sync_returns_at_once() -> None:
    said = run([sys.executable, "-c", PROBE], timeout=60).stdout.split("\n")
    assert said[:2] == ["no new privileges", "filtered"]
