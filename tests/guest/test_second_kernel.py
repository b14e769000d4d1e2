"""The guest tests in a second, independent kernel: Debian's cloud kernel in QEMU, without hardware help."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.guest import harness
from tests.support.tools import tool, under_ci

INNER = Path(__file__).parent / "inner"
SMOKE = (
    "guest_kernel.py::test_devices_the_kernel_side_is_tested_with",
    "guest_dm.py::test_a_linear_device_is_a_window",
    "guest_dm.py::test_thin_devices",
    "guest_map.py::test_an_image_by_each_means",
    "guest_nbd.py::test_a_file_system_over_nbdkit",
    "guest_thin_volumes.py::test_snapshots_are_of_one_instant_while_threads_write",
)
VOLUMES = (
    "guest_thin.py",
    "guest_thin_volumes.py",
    "guest_volume_killed.py",
    "guest_pools.py",
    "guest_volume_model.py",
)


def run_inside(tmp_path, *selected, timeout_s=1500):
    """Run guest tests in that kernel; how many passed."""
    tool("qemu-system-x86_64")
    if os.geteuid() != 0 and not under_ci():
        pytest.skip("virtiofsd needs root")
    report = tmp_path / "report.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *selected]
    done = subprocess.run(
        [*argv, f"--basetemp={tmp_path / 'inner'}"],
        env={**os.environ, harness.KERNEL: "qemu", harness.TIMEOUT: str(timeout_s), "CI": ""},
        capture_output=True,
        text=True,
        timeout=timeout_s + 100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    cases = list(ET.parse(report).iter("testcase"))
    return sum(not list(case) for case in cases)


@pytest.mark.ci
@pytest.mark.timeout(1700)
def test_the_main_paths_in_the_second_kernel(tmp_path):
    assert run_inside(tmp_path, *(str(INNER / name) for name in SMOKE)) == 9


@pytest.mark.soak
@pytest.mark.timeout(2700)
def test_volumes_killed_in_the_second_kernel(tmp_path):
    """With those that are marked `ci`, which the whole suite does without."""
    modules = [str(INNER / name) for name in VOLUMES]
    assert run_inside(tmp_path, "-m", "not soak and (ci or not ci)", *modules, timeout_s=2500) > 80


@pytest.mark.soak
@pytest.mark.timeout(3800)
def test_the_whole_suite_in_the_second_kernel(tmp_path):
    assert run_inside(tmp_path, str(INNER), timeout_s=3600) > 100
