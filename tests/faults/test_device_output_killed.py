"""A process that is interrupted or killed while it writes an output leaves what was there before."""

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from blockwright.device.copy import copy
from blockwright.device.memory import MemoryDevice
from blockwright.device.output import OutputFile

MiB = 1 << 20
source = MemoryDevice(64 * MiB)
for position in range(0, 64 * MiB, MiB):
    source.write(position, b"x" * MiB)
calls = 0

def progress(done, total):
    global calls
    calls += 1
    if calls == 5:
        print("half", flush=True)
        sys.stdin.readline()

try:
    with OutputFile(sys.argv[1], force=True, size=64 * MiB) as output:
        copy(source, output.device, target_is_zero=True, progress=progress)
except KeyboardInterrupt:
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    sys.exit(f"threads left: {left}" if left else 130)
"""


@pytest.fixture
def output(tmp_path):
    path = tmp_path / "out.img"
    path.write_bytes(b"before")
    return path


@pytest.fixture
def half_way(output):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "half\n"
    yield process
    process.kill()
    process.communicate()


def test_interrupted_it_leaves_nothing(output, half_way):
    half_way.send_signal(signal.SIGINT)
    assert half_way.wait(60) == 130
    assert os.listdir(output.parent) == ["out.img"]
    assert output.read_bytes() == b"before"


def test_killed_it_leaves_the_final_name_alone(output, half_way):
    half_way.kill()
    half_way.wait(60)
    assert output.read_bytes() == b"before"
    left = set(os.listdir(output.parent)) - {"out.img"}
    assert all(name.startswith(".out.img.") and name.endswith(".partial") for name in left)


def test_let_go_on_it_replaces_the_file(output, half_way):
    half_way.communicate("\n", timeout=60)
    assert half_way.returncode == 0
    assert output.stat().st_size == 64 << 20
    assert os.listdir(output.parent) == ["out.img"]


def test_a_limit_of_the_host_is_one_error_and_no_half_file(output):
    """RLIMIT_FSIZE fails a write in the middle, as a full disk does, and needs no root."""
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))\n"
    program = limited + PROGRAM.replace("size=64 * MiB) as output:", "size=64 * MiB) as output:\n        " + LOWER)
    done = subprocess.run(
        [sys.executable, "-c", program, str(output)], capture_output=True, text=True, input="\n", check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{output}'"
    assert os.listdir(output.parent) == ["out.img"]
    assert output.read_bytes() == b"before"


LOWER = "resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, 1 << 30))"
