"""docs/machines.md and the files that it names: every command of ours is run as it stands there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.loaders import debian_loaders
from tests.support.serving import serving
from tests.support.smallroot import debian_kernel, small_root
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/machines.md").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what the page's reader has: a system with a kernel and a loader, and some data."""
    rootfs = small_root(tmp_path / "rootfs", "#!/bin/sh\necho started\n")
    shutil.copy(debian_kernel(), rootfs / "boot/vmlinuz-6.1-test")
    loaders = debian_loaders(tmp_path / "loaders", "systemd-bootx64.efi")
    (rootfs / "usr/lib/systemd/boot/efi").mkdir(parents=True)
    shutil.copy(loaders / "systemd-bootx64.efi", rootfs / "usr/lib/systemd/boot/efi")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("data\n")
    return tmp_path


def command(words: list[str], place: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-m", "blockwright", *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def test_the_page_s_commands(place: Path) -> None:
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    ran = 0
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("$ blockwright ") and " serve " not in line:
            said = command(shlex.split(line)[2:], place)
            assert said == f"{following}\n"
            ran += 1
    assert ran == 4
    run([tool("e2fsck"), "-fn", place / "rootfs.ext4"])
    machine = json.loads((TOP / "examples/firecracker/machine.json").read_text())
    for drive in machine["drives"]:
        assert "lost+found" in run([tool("debugfs"), "-R", "ls /", place / drive["path_on_host"]]).stdout
    assert machine["drives"][0]["is_root_device"]
    assert "root=/dev/vda rw init=/sbin/init" in machine["boot-source"]["boot_args"]
    chain = json.loads(run([tool("qemu-img"), "info", "--output=json", place / "machine-1.qcow2"]).stdout)
    assert chain["backing-filename"] == "rootfs.ext4"


# What Firecracker's API defines of each object that its configuration file may have: the type of every field that the
# example might want, and those that must be there.
BOOT = {"kernel_image_path": str, "boot_args": str, "initrd_path": str}
DRIVE = {
    "drive_id": str,
    "path_on_host": str,
    "is_root_device": bool,
    "is_read_only": bool,
    "partuuid": str,
    "cache_type": str,
    "io_engine": str,
}
MACHINE = {"vcpu_count": int, "mem_size_mib": int, "smt": bool, "track_dirty_pages": bool, "huge_pages": str}


def test_firecracker_s_file_has_the_fields_of_its_api() -> None:
    machine = json.loads((TOP / "examples/firecracker/machine.json").read_text())
    assert set(machine) == {"boot-source", "drives", "machine-config"}
    drive_needs = {"drive_id", "path_on_host", "is_root_device", "is_read_only"}
    objects = [
        (machine["boot-source"], BOOT, {"kernel_image_path"}),
        (machine["machine-config"], MACHINE, {"vcpu_count", "mem_size_mib"}),
        *((drive, DRIVE, drive_needs) for drive in machine["drives"]),
    ]
    for each, fields, needed in objects:
        assert needed <= set(each)
        assert {name: type(value) for name, value in each.items()} == {name: fields.get(name) for name in each}
    vcpus = machine["machine-config"]["vcpu_count"]
    assert vcpus == 1 or (vcpus % 2 == 0 and vcpus <= 32)
    names = [drive["drive_id"] for drive in machine["drives"]]
    assert all(re.fullmatch(r"\w+", name) for name in names)
    assert len(set(names)) == len(names)
    assert [drive["is_root_device"] for drive in machine["drives"]].count(True) == 1
    assert machine["drives"][0]["is_root_device"], "it is /dev/vda, as the arguments say"


def test_what_libvirt_s_machine_has(place: Path) -> None:
    """Its disks are what the page makes: a qcow2, and an export of that name on that socket."""
    domain = ET.parse(TOP / "examples/libvirt/domain.xml")
    disk, served = domain.findall("devices/disk")
    assert disk.find("driver").get("type") == "qcow2"
    assert Path(disk.find("source").get("file")).name == "appliance.qcow2"
    assert domain.find("features/acpi") is not None, "libvirt starts no UEFI without"
    assert domain.find("os").get("firmware") == "efi"
    assert domain.find("os/loader") is None, "libvirt finds the loader itself, or is told all of it"
    assert domain.getroot().get("type") == "kvm"
    (line,) = re.findall(r"^\$ blockwright (serve .*) &$", PAGE, re.MULTILINE)
    words = shlex.split(line)[1:]
    at = words.index("--socket") + 1
    assert served.find("source/host").get("socket") == words[at]
    words[at] = os.fspath(place / "data.sock")
    words[0] = os.fspath(place / words[0])
    name = served.find("source").get("name")
    with serving(*words):
        told = json.loads(run([tool("nbdinfo"), "--json", f"nbd+unix:///{name}?socket={words[at]}"]).stdout)
    assert told["exports"][0]["is_read_only"]


def test_the_workflow_s_commands(place: Path) -> None:
    text = (TOP / "examples/github-actions/disk.yml").read_text()
    summary = place / "summary"
    lines = [line.strip().removeprefix("- run: ") for line in text.splitlines()]
    lines = [line for line in lines if line.startswith("blockwright ")]
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line.replace("$GITHUB_REPOSITORY", "owner/name"))
        said = command(words[1 : words.index(">>") if ">>" in words else None], place)
        if ">>" in words:
            summary.write_text(said)
    assert "root" in summary.read_text()
    run([tool("qemu-img"), "check", place / "disk.qcow2"])
