"""Locks on image files that QEMU and this package both see.

Each permission has two bytes far inside the file: whoever uses it holds a shared lock on the first, whoever does
not want others to use it holds a shared lock on the second. Nobody waits: after taking its own locks an opener
asks whether others hold the bytes that contradict them. The locks belong to the open file, not to the process,
and go with it (open file description locks, fcntl(2)).

Source: QEMU 7.2, block/file-posix.c (byte positions) and include/block/block-common.h (permissions).

Knows: the bytes and the rule. Refuses to know: who holds a lock, and what a conflict is called.
"""

from __future__ import annotations

import errno
import struct
import sys
from enum import IntFlag
from typing import Final


class Permission(IntFlag):
    """What a user of an image does with it."""

    CONSISTENT_READ = 1
    WRITE = 2
    WRITE_UNCHANGED = 4
    RESIZE = 8


ALL: Final = Permission(15)
NOTHING: Final = Permission(0)
READING: Final = Permission.CONSISTENT_READ
WRITING: Final = Permission.CONSISTENT_READ | Permission.WRITE | Permission.RESIZE
SHARED_BY_WRITER: Final = Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED
"""What a writer lets others do: read, and no more."""

_USED_BASE: Final = 100
_UNSHARED_BASE: Final = 200
_FLOCK: Final = struct.Struct("@hhqqi4x")
_NO_LOCKS: Final = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""A file system without locks, or a kernel without this kind (before Linux 3.15)."""


def lock(fd: int, uses: Permission, shares: Permission, *, unasked: bool = False) -> Permission | None:
    """Hold the locks of ``uses`` and of all that is not in ``shares``; None says that this agrees with everybody.

    Otherwise nothing is held, and the answer names what another holder uses, or does not share. With ``unasked``
    the locks are held whatever others do, where the caller knows who they are. Where there are no such locks
    (Darwin, Windows, some network file systems) nothing is held and the answer is None.
    """
    if sys.platform != "linux":
        return None
    import fcntl

    # Bare numbers: operators of an enumeration's values cost more than the system calls.
    used, unshared = int(uses), int(ALL) & ~int(shares)
    mine = [_USED_BASE + bit for bit in range(4) if used >> bit & 1]
    mine += [_UNSHARED_BASE + bit for bit in range(4) if unshared >> bit & 1]
    against = [_UNSHARED_BASE + bit for bit in range(4) if used >> bit & 1]
    against += [_USED_BASE + bit for bit in range(4) if unshared >> bit & 1]
    try:
        for byte in mine:
            try:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, byte, 1, 0))
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                unlock(fd)
                return _permission(byte)
        for byte in () if unasked else against:
            reply = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0))
            if _FLOCK.unpack(reply)[0] != fcntl.F_UNLCK:
                unlock(fd)
                return _permission(byte)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return None


def held(fd: int) -> bool:
    """Whether another open file holds any of these locks."""
    return _any_held(fd, ((_USED_BASE, 4), (_UNSHARED_BASE, 4)))


def written(fd: int) -> bool:
    """Whether another open file holds the lock of who writes."""
    return _any_held(fd, ((_USED_BASE + 1, 1),))


def _any_held(fd: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        for base, length in ranges:
            reply = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, base, length, 0))
            if _FLOCK.unpack(reply)[0] != fcntl.F_UNLCK:
                return True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return False


def surely_free(fd: int) -> bool:
    """Whether no other open file holds any of these locks, and that could be told."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        replies = [
            fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, base, 4, 0))
            for base in (_USED_BASE, _UNSHARED_BASE)
        ]
    except OSError:
        return False
    return all(_FLOCK.unpack(reply)[0] == fcntl.F_UNLCK for reply in replies)


def unlock(fd: int) -> None:
    """Let go of every lock that ``lock`` took on this open file."""
    if sys.platform != "linux":
        return
    import fcntl

    for base in (_USED_BASE, _UNSHARED_BASE):
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, base, 4, 0))


def _permission(byte: int) -> Permission:
    return Permission(1 << byte % 100)
