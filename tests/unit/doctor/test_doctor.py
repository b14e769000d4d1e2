"""Hosts as trees of files: what is found of them, what is said to do, and for which jobs it is enough."""

import json
import os
import sys
import tomllib
from pathlib import Path

import pytest

from blockwright.doctor import JOBS, Host, Line, Report, State, examine
from blockwright.doctor.extras import EXTRAS
from blockwright.journal import Journal
from blockwright.owner import boot_identity
from tests.support.loaders import debian_loaders

ROOT = Path(__file__).parents[3]
RELEASE = "6.1.0-1-amd64"
ALL_CAPABILITIES = "CapEff:\t000001ffffffffff\n"


def host(top: Path, files: dict[str, str], *, user: int = 0, system: str = "linux", machine: str = "x86_64") -> Host:
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(str(top), system, machine, RELEASE, user, {"PATH": "/usr/bin"})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def by_name(report: Report) -> dict[str, Line]:
    found = {line.name: line for line in report.lines}
    assert len(found) == len(report.lines), "two lines have one name"
    return found


FULL = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "proc/self/status": ALL_CAPABILITIES,
    "proc/misc": "237 loop-control\n236 device-mapper\n",
    "proc/devices": "Block devices:\n  7 loop\n 43 nbd\n",
    "proc/filesystems": "nodev\tproc\n\text4\n",
    f"lib/modules/{RELEASE}/modules.dep": "kernel/drivers/md/dm-thin-pool.ko.xz: kernel/drivers/md/dm-mod.ko\n"
    "kernel/fs/fat/vfat.ko: kernel/fs/fat/fat.ko\n",
    f"lib/modules/{RELEASE}/modules.builtin": "kernel/drivers/md/dm-verity.ko\n",
    "dev/loop-control": "",
    "boot/vmlinuz-6.1": "a kernel",
    "usr/bin/qemu-system-x86_64": "",
}


def test_a_host_that_has_the_kernel_s_part(tmp_path: Path) -> None:
    report = examine(host(tmp_path, FULL))
    found = by_name(report)
    ready = ("root", "owners", "loop", "device-mapper", "dm-verity", "dm-thin-pool", "nbd", "ext4", "vfat", "kernel")
    assert {name: found[name].state for name in ready} == dict.fromkeys(ready, State.READY)
    assert found["dm-thin-pool"].found == "a module, loaded when needed"
    assert "/dev/mapper/control is missing" in found["device-mapper"].found
    assert found["dm-crypt"].state is State.MISSING
    assert found["dm-crypt"].remedy == "apt install linux-image-amd64, and start that kernel"
    assert found["kernel"].found == "/boot/vmlinuz-6.1"
    for name in ("attach", "dm", "mount", "nbd", "thin", "verity"):
        assert report.missing(JOBS[name]) == [], name
    assert [line.name for line in report.missing(JOBS["bios"])] == ["syslinux"]


def test_a_program_counts_where_it_may_be_run(tmp_path: Path) -> None:
    where = host(tmp_path, FULL)
    assert by_name(examine(where))["qemu-system-x86_64"].state is State.MISSING
    (tmp_path / "usr/bin/qemu-system-x86_64").chmod(0o755)
    assert by_name(examine(where))["qemu-system-x86_64"].found == "/usr/bin/qemu-system-x86_64"


def test_an_ordinary_user_is_told_what_root_is_for(tmp_path: Path) -> None:
    files = FULL | {"proc/self/status": "CapEff:\t0000000000000000\n", "proc/sys/user/max_user_namespaces": "9\n"}
    report = examine(host(tmp_path, files, user=1000))
    found = by_name(report)
    assert found["root"].state is found["owners"].state is State.MISSING
    assert "sudo" in found["root"].remedy
    assert found["user namespaces"].state is State.READY
    assert [line.name for line in report.missing(JOBS["attach"])] == ["root"]
    for name in ("build", "convert", "edit", "serve"):
        assert report.missing(JOBS[name]) == []


def test_root_of_a_container_is_not_root(tmp_path: Path) -> None:
    found = by_name(examine(host(tmp_path, FULL | {"proc/self/status": "CapEff:\t00000000a80425fb\n"})))
    assert found["root"].state is State.MISSING
    assert "--privileged" in found["root"].remedy
    assert found["owners"].state is State.READY


def test_modules_to_load_by_hand(tmp_path: Path) -> None:
    files = {f"lib/modules/{RELEASE}/modules.dep": "kernel/drivers/block/nbd.ko:\n"}
    found = by_name(examine(host(tmp_path, files)))
    assert found["nbd"].state is State.MISSING
    assert found["nbd"].remedy == "modprobe nbd"
    assert found["dm-verity"].found == "stands on device-mapper, which is missing"


def test_without_lists_of_modules_nothing_is_claimed(tmp_path: Path) -> None:
    report = examine(host(tmp_path, {"proc/misc": "236 device-mapper\n", "proc/self/status": ALL_CAPABILITIES}))
    assert by_name(report)["dm-verity"].state is State.UNKNOWN
    assert report.missing(JOBS["verity"]) == []


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=debian", "apt install extlinux syslinux-common"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", "apt install extlinux syslinux-common"),
        ("ID=fedora", "dnf install syslinux-extlinux syslinux-nonlinux"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "dnf install syslinux-extlinux syslinux-nonlinux"),
        ("ID=arch", "pacman -S syslinux"),
        ("ID=alpine", "apk add syslinux"),
        ("ID=nixos", "install what Debian calls extlinux syslinux-common"),
        ("\x00=\n=\nID", "install what Debian calls extlinux syslinux-common"),
    ],
)
def test_what_to_install_is_told_in_the_distribution_s_words(tmp_path: Path, release: str, command: str) -> None:
    assert by_name(examine(host(tmp_path, {"etc/os-release": release})))["syslinux"].remedy == command


def test_a_mac_has_no_linux(tmp_path: Path) -> None:
    report = examine(host(tmp_path, {}, user=501, system="darwin", machine="arm64"))
    found = by_name(report)
    assert found["loop"].state is found["root"].state is State.ABSENT
    assert found["loop"].found == "needs Linux, this is darwin"
    assert found["qemu-system-aarch64"].remedy == "brew install qemu"
    assert "--loader-dir" in found["syslinux"].remedy
    assert report.missing(JOBS["build"]) == []
    assert [line.name for line in report.missing(JOBS["attach"])] == ["loop", "root"]


def test_every_line_that_is_missing_has_a_remedy_everywhere(tmp_path: Path) -> None:
    for release in ("debian", "fedora", "arch", "alpine", "unheard-of", "darwin"):
        system = "darwin" if release == "darwin" else "linux"
        report = examine(host(tmp_path / release, {"etc/os-release": f"ID={release}\n"}, user=1000, system=system))
        lacking = [line for line in report.lines if line.state is State.MISSING and not line.remedy]
        assert lacking == []
        assert all(line.gives and line.found for line in report.lines)


def test_loaders_are_found_where_they_are_named(tmp_path: Path) -> None:
    files = debian_loaders(tmp_path / "loaders")
    found = by_name(examine(host(tmp_path / "top", {}), loader_dir=str(files)))
    for name in ("syslinux", "grub", "systemd-boot", "systemd stub", "grub-efi", "shim"):
        assert found[name].state is State.READY, found[name]
    assert found["syslinux"].found == "version 6.04"


def test_a_loader_that_is_none(tmp_path: Path) -> None:
    found = by_name(examine(host(tmp_path, {"usr/bin/extlinux": "#!/bin/sh\n"})))
    assert found["syslinux"].state is State.MISSING
    assert found["syslinux"].found.startswith("not of use: ")


def test_files_of_the_host_may_hold_anything(tmp_path: Path) -> None:
    names = [*FULL, "proc/sys/user/max_user_namespaces", "etc/os-release", "proc/modules"]
    top = host(tmp_path, dict.fromkeys(names, ""))
    for junk in (b"", b"\n", b"\0" * 100, b"CapEff:\n", b"CapEff: zz\n", bytes(range(256)) * 8, b"ID=" + b"x" * 5000):
        for name in names:
            (tmp_path / name).write_bytes(junk)
        assert examine(top).lines


def test_records_of_dead_processes_are_told(tmp_path: Path, home: Path) -> None:
    folder = home / "run" / "loop"
    folder.mkdir(parents=True)
    mine = {"boot": boot_identity(), "owner": [1 << 22, 5], "image": "disk.img"}
    (folder / "0.json").write_text(json.dumps(mine) + "\n")
    (folder / "1.json").write_text(json.dumps(mine | {"owner": None}) + "\n")
    (folder / "2.json").write_text(json.dumps(mine | {"boot": "another"}) + "\n")
    for number, text in enumerate(("", "[", '{"owner": 1}\n', '{"boot": 1, "owner": "x"}\n', "[" * 5000 + "\n"), 3):
        (folder / f"{number}.json").write_text(text)
    line = by_name(examine(host(tmp_path / "top", {})))["stale records"]
    assert (line.state, line.found, line.remedy) == (State.MISSING, "1 of loop", "blockwright loop gc")
    assert len(list(folder.iterdir())) == 8, "doctor changes nothing"


def pool(home: Path) -> Path:
    folder = home / "pools" / "main"
    folder.mkdir(parents=True)
    (folder / "pool.json").write_text("{}")
    return folder


def test_operations_of_dead_processes_are_told(tmp_path: Path, home: Path) -> None:
    folder = pool(home)
    with Journal(str(folder / "journal.db")) as journal:
        intent = journal.intend("create", "root", {})
        top = host(tmp_path / "top", {})
        assert by_name(examine(top))["pool journals"].state is State.READY, "this process is at it"
        journal.abandon(intent, "out of luck")
        line = by_name(examine(top))["pool journals"]
        assert line.remedy == "blockwright volume reconcile --pool main"
    assert by_name(examine(top))["pool journals"].state is State.MISSING, "the log is gone, and the journal closed"
    assert sorted(each.name for each in folder.iterdir()) == ["journal.db", "journal.db-owners", "pool.json"]


def test_a_journal_that_is_none(tmp_path: Path, home: Path) -> None:
    (pool(home) / "journal.db").write_bytes(b"no database" * 100)
    line = by_name(examine(host(tmp_path / "top", {})))["pool journals"]
    assert line.state is State.UNKNOWN
    assert "main" in line.found


def test_a_state_directory_that_is_a_file(tmp_path: Path, home: Path) -> None:
    home.write_text("a file")
    found = by_name(examine(host(tmp_path / "top", {})))
    assert found["pools"].state is State.MISSING
    assert "BLOCKWRIGHT_HOME" in found["pools"].remedy


def test_a_state_directory_that_everybody_may_change(tmp_path: Path, home: Path) -> None:
    (home / "pools").mkdir(parents=True)
    (home / "pools").chmod(0o777)
    assert by_name(examine(host(tmp_path / "top", {})))["pools"].remedy == f"chmod o-w {home}/pools"


def test_jobs_name_lines_there_are() -> None:
    found = by_name(examine())
    for name, job in JOBS.items():
        for alternatives in job.needs:
            assert set(alternatives) <= set(found), name


def test_extras_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(declared) - {"all", "dev", "docs", "fuzz"}


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "store", EXTRAS["store"]._replace(module="no.such.module"))
    report = examine(host(tmp_path, {}))
    assert [line.name for line in report.missing(JOBS["store"])] == ["store"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at a Linux host")
def test_this_host_is_looked_at_without_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("doctor starts programs")

    for name in ("posix_spawn", "posix_spawnp", "fork", "execv", "execve", "system"):
        monkeypatch.setattr(os, name, refuse)
    assert by_name(examine())["python"].state is State.READY
