"""Tests that need a kernel of their own: collected here, run in one User-Mode Linux, reported here one by one.

A file `guest_*.py` under this directory holds such tests, written as any others. Outside the guest the hooks are
those of `harness`; inside it pytest has `reporter` as a plugin.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest.harness import directory_name, functions_of
from tests.support.tools import run

if not os.environ.get("BLOCKWRIGHT_IN_GUEST"):
    from tests.guest.harness import (  # noqa: F401 - hooks go by name
        pytest_collect_file,
        pytest_pycollect_makemodule,
        pytest_runtest_protocol,
    )


@pytest.fixture
def share() -> Path:
    """The directory of the host the guest can write to."""
    return Path(os.environ["GUEST_SHARE"])


@pytest.fixture
def prepared(request: pytest.FixtureRequest, share: Path) -> Path:
    """The directory which the test's nearest input function filled on the host, writable."""
    return share / directory_name(functions_of(request.node)[0])


@pytest.fixture
def prepared_disks(request: pytest.FixtureRequest, share: Path) -> list[str]:
    """The block devices of the disk images which the test's nearest input function returned, in its order."""
    disks: dict[str, list[str]] = json.loads((share / "disks.json").read_text())
    return disks[directory_name(functions_of(request.node)[0])]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`mount(source, *, fstype, options="ro")` mounts an image file (through a loop device) or a device.

    Returns the mount point, in the guest's memory. What is still mounted at the end is unmounted then, and a file
    system that does not let go fails the test.
    """
    points: list[Path] = []

    def mount_one(source: str | Path, *, fstype: str, options: str = "ro") -> Path:
        point = tmp_path / f"mnt{len(points)}"
        point.mkdir()
        loop = [] if str(source).startswith("/dev/") else ["loop"]
        run(["mount", "-t", fstype, "-o", ",".join([options, *loop]), source, point])
        points.append(point)
        return point

    yield mount_one
    for point in reversed(points):
        if os.path.ismount(point):
            run(["umount", point])
