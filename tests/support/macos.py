"""Runs the `blockwright` command as if on macOS: `python -m tests.support.macos ARGUMENTS`.

What macOS lacks is taken out of Python's modules, the kernel's file systems of information cannot be opened, and
`sys.platform` says darwin, before the package is imported. What macOS has and Linux has not is lent: F_FULLFSYNC, and
the calls of libSystem by which processes are told apart. A call that none of this covers is still Linux's, so this
finds what the package uses of Linux, and not what differs in what both have.
"""

import builtins
import ctypes
import ctypes.util
import errno
import fcntl
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

_BEFORE = (ctypes.util, shutil, sqlite3, ssl, subprocess, sysconfig, tempfile, urllib.request, uuid)
"""Python's own modules that look at the platform as they are imported: they stay those of the real one."""
F_FULLFSYNC = 51
_LACKING = {
    os: (
        "copy_file_range", "posix_fallocate", "posix_fadvise", "fdatasync", "getxattr", "setxattr", "listxattr",
        "removexattr", "memfd_create", "pidfd_open", "eventfd", "splice", "sched_getaffinity", "sched_setaffinity",
        "sched_setscheduler", "sched_param", "sched_getscheduler", "getrandom", "unshare", "setns",
        "getresuid", "getresgid", "setresuid", "setresgid",
    ),
    socket: (
        "AF_VSOCK", "AF_NETLINK", "AF_ALG", "AF_PACKET", "SO_PEERCRED", "SO_PEERSEC", "SOCK_CLOEXEC", "SOCK_NONBLOCK",
    ),
    fcntl: ("F_OFD_GETLK", "F_OFD_SETLK", "F_OFD_SETLKW", "F_ADD_SEALS", "F_GETPIPE_SZ", "F_SETPIPE_SZ"),
}  # fmt: skip
_LACKING_PREFIXES = {
    os: ("O_PATH", "O_TMPFILE", "O_DIRECT", "O_NOATIME", "O_LARGEFILE", "O_RSYNC", "RWF_", "POSIX_FADV_", "SCHED_",
         "MFD_", "EFD_", "SPLICE_", "XATTR_", "P_PIDFD", "CLONE_"),
}  # fmt: skip
_HIDDEN = ("/proc", "/sys", "/dev/mapper", "/dev/loop", "/dev/shm", "/run")


def pretend() -> None:
    """Make this process one of macOS, as far as Python's modules tell."""
    for module, names in _LACKING.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for module, prefixes in _LACKING_PREFIXES.items():
        for name in [each for each in dir(module) if each.startswith(prefixes) and each != "O_DIRECTORY"]:
            delattr(module, name)
    _lend()
    for name in ("open", "stat", "lstat", "listdir", "scandir", "readlink", "access"):
        setattr(os, name, _without_linux(getattr(os, name)))
    builtins.open = _without_linux(builtins.open)
    sys.platform = "darwin"


def _lend() -> None:
    real = fcntl.fcntl

    def control(fd: Any, command: int, argument: Any = 0) -> Any:
        if command == F_FULLFSYNC:
            os.fsync(fd)
            return 0
        return real(fd, command, argument)

    fcntl.F_FULLFSYNC = F_FULLFSYNC  # type: ignore[attr-defined]  # macOS's
    fcntl.fcntl = control  # type: ignore[assignment]  # the same call
    socket.LOCAL_PEERCRED = 1  # type: ignore[attr-defined]  # macOS's
    ctypes.CDLL = _System  # type: ignore[misc,assignment]  # the only library that the package loads by name


class _System:
    """libSystem, as far as processes are told apart by it."""

    def __init__(self, name: str | None, **_: object) -> None:
        assert name is None, f"{name} is not on macOS"

    @property
    def clonefile(self) -> Any:
        """Share blocks between files: not on this file system, which only APFS can."""

        def call(*_: object) -> int:
            ctypes.set_errno(errno.ENOTSUP)
            return -1

        return call

    def sysctlbyname(self, _name: bytes, buffer: Any, _size: Any, _new: Any, _length: int) -> int:
        """Name this boot."""
        buffer.value = b"00000000-0000-0000-0000-000000000000"
        return 0

    def proc_pidinfo(self, pid: int, _flavor: int, _argument: Any, buffer: Any, size: int) -> int:
        """Tell when a process started: the same for all, and nothing of one that is gone."""
        try:
            os.kill(pid, 0)
        except OSError:
            return 0
        buffer.raw = bytes(size - 16) + (1).to_bytes(8, sys.byteorder) + bytes(8)
        return size


def _without_linux(call: Callable[..., Any]) -> Callable[..., Any]:
    def refusing(path: Any = ".", *arguments: Any, **options: Any) -> Any:
        name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        if name.startswith(_HIDDEN):
            if call.__name__ == "access":
                return False
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return call(path, *arguments, **options)

    return refusing


def main() -> None:
    """Run the command."""
    pretend()
    from blockwright.cli import main as run

    run()


if __name__ == "__main__":
    main()
