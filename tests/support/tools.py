"""Finds and runs the programs we are compared with; knows nothing of what they print.

A program is looked for on PATH, in the administrators' directories, and in the cache `scripts/test` unpacks
Debian's packages into. A missing one skips the test, and fails it under CI=true.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.nosync import without_sync

PACKAGES = {
    "bash": "bash",
    "bsdtar": "libarchive-tools",
    "busybox": "busybox-static",
    "cc": "gcc",
    "certtool": "gnutls-bin",
    "clamscan": "clamav",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "e2image": "e2fsprogs",
    "extlinux": "extlinux",
    "fusermount3": "fuse3",
    "matchpathcon": "selinux-utils",
    "mtree": "mtree-netbsd",
    "setcap": "libcap2-bin",
    "fsck.fat": "dosfstools",
    "getfacl": "acl",
    "getfattr": "attr",
    "grub-mkimage": "grub-common",
    "linux.uml": "user-mode-linux",
    "losetup": "mount",
    "mcopy": "mtools",
    "mdir": "mtools",
    "minfo": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mmd": "mtools",
    "mtype": "mtools",
    "nbdcopy": "libnbd-bin",
    "nbdfuse": "libnbd-bin",
    "nbdinfo": "libnbd-bin",
    "nbdsh": "python3-libnbd",
    "objcopy": "binutils",
    "postgres": "postgresql",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "resize2fs": "e2fsprogs",
    "setfacl": "acl",
    "setfattr": "attr",
    "sfdisk": "fdisk",
    "sgdisk": "gdisk",
    "thin_check": "thin-provisioning-tools",
    "thin_dump": "thin-provisioning-tools",
    "tune2fs": "e2fsprogs",
    "swaplabel": "util-linux",
    "systemd-repart": "systemd",
    "udevadm": "udev",
    "veritysetup": "cryptsetup-bin",
}
"""The Debian package that brings a program, where it is not the program's own name."""

MAX_SHOWN = 8000
"""Characters of each stream a failure message shows, from the end."""


def under_ci() -> bool:
    """Whether what is missing is a failure."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def cache_directory() -> Path:
    """Where `scripts/test` keeps what it fetched."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("BLOCKWRIGHT_TEST_CACHE") or os.path.join(base, "blockwright"))


def missing(what: str) -> NoReturn:
    """End the test: skipped on a developer's machine, failed under CI=true."""
    if under_ci():
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def find(name: str) -> str | None:
    """The absolute path of program `name`, or None."""
    path = os.environ.get("PATH", os.defpath)
    places = [path, "/usr/local/sbin", "/usr/sbin", "/sbin", str(cache_directory() / "bin")]
    found = shutil.which(name, path=os.pathsep.join(places))
    return None if found is None else os.path.abspath(found)


def tool(name: str, *, package: str | None = None) -> str:
    """The absolute path of program `name`; ends the test where it is missing.

    `package` is the Debian package to name then, where `PACKAGES` does not know it.
    """
    found = find(name)
    if found is None:
        missing(f"{name} is missing: install the package {package or PACKAGES.get(name, name)}, or run scripts/test")
    return found


def package_file(path: str, *, package: str) -> Path:
    """The file that Debian's `package` installs as `path`, from the system or from the cache.

    Ends the test where there is none. The last component may be a pattern (`boot/vmlinuz-*`): the last match in
    order of names is taken.
    """
    relative = path.lstrip("/")
    folder, pattern = os.path.split(relative)
    for root in (Path("/"), cache_directory() / "root"):
        matches = sorted((root / folder).glob(pattern)) if (root / folder).is_dir() else []
        if matches:
            return matches[-1]
    missing(f"/{relative} is missing: install the package {package}, or run scripts/test")


def run(
    argv: Sequence[str | bytes | os.PathLike[str]],
    *,
    ok: Sequence[int] = (0,),
    input: str | bytes | None = None,  # noqa: A002 - subprocess's own name for it
    timeout: float = 120,
    cwd: str | os.PathLike[str] | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output is text, bytes outside UTF-8 as surrogate escapes.

    The program runs in the C locale without a terminal, and its sync(2) does nothing (see `nosync`); `env` adds to
    the environment. A return code outside `ok` and a run of more than `timeout` seconds fail the test with the
    command and all it printed.
    """
    if isinstance(input, str):
        input = input.encode("utf-8", "surrogateescape")  # noqa: A001 - see above
    command = [os.fsdecode(argument) for argument in argv]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    shown = shlex.join(command)
    try:
        done = subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
            cwd=cwd,
            env=environment,
            check=False,
            preexec_fn=without_sync,
        )
    except subprocess.TimeoutExpired as error:
        printed = _streams(error.stdout, error.stderr)
        pytest.fail(f"{shown}\nstill running after {timeout:g} s\n{printed}", pytrace=False)
    out, err = _text(done.stdout), _text(done.stderr)
    if done.returncode not in ok:
        pytest.fail(f"{shown}\nreturned {done.returncode}\n{_streams(done.stdout, done.stderr)}", pytrace=False)
    return subprocess.CompletedProcess(command, done.returncode, out, err)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "surrogateescape")


def _streams(out: bytes | None, err: bytes | None) -> str:
    parts = []
    for name, data in (("stdout", out), ("stderr", err)):
        text = _text(data).encode("utf-8", "backslashreplace").decode()
        if text:
            cut = "…" if len(text) > MAX_SHOWN else ""
            parts.append(f"--- {name}\n{cut}{text[-MAX_SHOWN:].rstrip()}")
    return "\n".join(parts) or "(it printed nothing)"
