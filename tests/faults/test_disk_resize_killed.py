"""`disk resize` killed at any moment: the same command finishes it."""

import random
import shutil
import subprocess
import time

import pytest

from blockwright.device.file import FileDevice
from blockwright.units import MiB
from tests.support.command import COMMAND
from tests.support.inprocess import blockwright
from tests.unit.disk.test_disk_resize import fill, verified

KILLED = 12
MAX_TRIES = 60


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["gpt", "logical", "fat"])
def test_killed_at_any_moment_the_same_command_finishes(tmp_path, kind):
    small, path = tmp_path / "small.img", tmp_path / "disk.img"
    with open(small, "wb") as file:
        file.truncate(20 * MiB)
    with FileDevice(small, writable=True) as device:
        number = fill(device, kind)
    size = "60M" if kind == "fat" else "300M"
    command = [*COMMAND, "disk", "resize", str(path), size]
    shutil.copyfile(small, path)
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    took = time.monotonic() - started
    with FileDevice(path) as device:
        expected = verified(device, number)
    source, killed = random.Random(f"killed.{kind}"), 0
    for each in range(MAX_TRIES):
        shutil.copyfile(small, path)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            started = time.monotonic()
            try:
                # What there is to kill lies in the end of the run, behind an interpreter's start.
                running.wait(took * source.uniform(0.5, 1))
            except subprocess.TimeoutExpired:
                running.kill()
            else:
                took = min(took, time.monotonic() - started)  # another time it takes less, as the first one did not
        killed += running.returncode == -9
        blockwright("disk", "resize", path, size)
        with FileDevice(path) as device:
            assert verified(device, number) == expected, f"killed.{kind}: {each}"
        if killed == KILLED:
            break
    assert killed == KILLED
