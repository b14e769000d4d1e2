"""Going on in the background: what the command returns, and what the process that stays has for streams."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

PROGRAM = """
import os, sys
from blockwright.serve.background import in_background

def is_null(stream):
    try:
        return os.path.samestat(os.fstat(stream), os.stat(os.devnull))
    except OSError:
        return False

def work(ready):
    print("told", flush=True)
    if sys.argv[1] == "fail":
        return 7
    ready()
    streams = [is_null(each) for each in (0, 1, 2)]
    with open(sys.argv[1], "w") as file:
        file.write(f"{streams} {os.getsid(0) == os.getpid()}")
    os._exit(0)

for stream in sys.argv[2:]:
    os.close(int(stream))
sys.exit(in_background(work))
"""


@pytest.mark.parametrize("closed", [(), ("0",)], ids=["open", "stdin closed"])
def test_it_returns_when_the_work_is_ready_which_has_no_stream_of_ours(tmp_path, closed):
    found = tmp_path / "found"
    os.mkfifo(found)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, found, *closed], stdout=subprocess.PIPE, text=True)
    printed, _ = process.communicate(timeout=60)  # though the other process goes on
    assert (process.returncode, printed) == (0, "told\n")
    assert found.read_text() == "[True, True, True] True"


def test_work_that_fails_before_it_is_ready_is_the_code():
    argv = [sys.executable, "-c", PROGRAM, "fail"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (7, "told\n")
