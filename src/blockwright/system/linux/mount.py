"""File systems mounted and unmounted by mount(2) and umount2(2), which ``os`` lacks.

Knows: the calls, their flags, where the kernel lists mounts. Refuses to know: devices, and what is on them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from blockwright.errors import Unavailable, UsageError
from blockwright.system.linux.ioctl import kernel_error, require_linux

READ_ONLY: Final = 1
NO_SUID: Final = 2
NO_DEVICES: Final = 4
NO_EXEC: Final = 8
NO_ACCESS_TIME: Final = 1024
SAFE: Final = NO_SUID | NO_DEVICES
"""What a file system of unknown making is mounted with: it may name any owner and any device."""
_FLAGS: Final = {
    "ro": READ_ONLY,
    "nosuid": NO_SUID,
    "nodev": NO_DEVICES,
    "noexec": NO_EXEC,
    "noatime": NO_ACCESS_TIME,
}
_DETACH: Final = 2
_NO_FOLLOW: Final = 8
MAX_MOUNTINFO: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount of this namespace: what device number is where, as which file system."""

    device: tuple[int, int]
    point: str
    kind: str
    source: str


def mount(source: str, point: str, kind: str, *, flags: int = SAFE, options: str = "") -> None:
    """Mount the device ``source``, which has a file system of ``kind``, at the directory ``point``.

    Raises UsageError where that is no directory, Unavailable without privilege, KernelError.
    """
    require_linux("mount", source)
    if not os.path.isdir(point):
        raise UsageError(f"{point}: expected a directory to mount at")
    data = os.fsencode(options) if options else None
    number = _call("mount", os.fsencode(source), os.fsencode(point), kind.encode(), flags, data)
    if number:
        remedy = "the kernel's log says why" if number == errno.EINVAL else ""
        raise kernel_error("mount", source, number, remedy=remedy)


def unmount(point: str, *, lazy: bool = False) -> None:
    """Unmount what is mounted last at ``point``; with ``lazy`` it goes when its last user does.

    Raises KernelError (EBUSY) where it is in use, Unavailable without privilege.
    """
    require_linux("unmount", point)
    number = _call("umount2", os.fsencode(point), _NO_FOLLOW | (_DETACH if lazy else 0))
    if number:
        raise kernel_error("unmount", point, number, "is in use" if number == errno.EBUSY else "")


def parse_options(texts: tuple[str, ...]) -> int:
    """Return the flags of options by name, besides those that are always set. Raises UsageError."""
    flags = SAFE
    for text in texts:
        if text in ("suid", "dev"):
            flags &= ~(NO_SUID if text == "suid" else NO_DEVICES)
        elif text in _FLAGS:
            flags |= _FLAGS[text]
        else:
            raise UsageError(f"mount: expected {', '.join(_FLAGS)}, suid or dev, found {text[:64]!r}")
    return flags


def mounts() -> list[Mount]:
    """Return the mounts of this namespace, in the order in which they were made; none where there is no /proc."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            text = os.fsdecode(file.read(MAX_MOUNTINFO))
    except OSError:
        return []
    found = []
    for line in text.split("\n"):  # and not at whatever else Python takes for an end of line: a name may hold it
        left, dash, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 2:
            continue
        major, colon, minor = fields[2].partition(":")
        if colon and major.isdecimal() and minor.isdecimal():
            found.append(Mount((int(major), int(minor)), _plain(fields[4]), _plain(rest[0]), _plain(rest[1])))
    return found


def points_of(path: str) -> list[str]:
    """Return where the block device at ``path`` is mounted; nowhere where that is none."""
    if sys.platform == "win32":
        return []
    try:
        status = os.stat(path)
    except OSError:
        return []
    wanted = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return [each.point for each in mounts() if each.device == wanted] if stat.S_ISBLK(status.st_mode) else []


def _plain(text: str) -> str:
    """Undo the kernel's escapes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8) & 0xFF), text)


def _call(name: str, *arguments: Any) -> int:
    """Return the errno of a call of the C library, 0 where it worked."""
    import ctypes

    function = getattr(_library(), name)
    if name == "mount":
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
    else:
        function.argtypes = [ctypes.c_char_p, ctypes.c_int]
    return 0 if function(*arguments) == 0 else ctypes.get_errno()


@cache
def _library() -> Any:
    import ctypes

    try:
        return ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError) as error:
        raise Unavailable("mount", "libc", errno.ENOSYS, f"the C library cannot be called: {error}") from None
