"""Calls of ioctl(2), with the kernel's refusals as errors that say which operation on which device.

Knows: request numbers, what an errno means everywhere. Refuses to know: any one driver.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from blockwright.errors import KernelError, Unavailable

_OLD_DIRECTIONS: Final = ("mips", "ppc", "sparc", "alpha", "parisc")
"""Machines whose ioctl numbers have 3 bits of direction over 13 of size; all others have 2 over 14."""

_NO_PRIVILEGE: Final = {errno.EPERM, errno.EACCES}
NEEDS_ROOT: Final = "needs root (CAP_SYS_ADMIN)"


def number_in(kind: int, number: int, size: int) -> int:
    """Return the request that reads ``size`` bytes from the kernel (_IOR of asm-generic/ioctl.h)."""
    return _number(kind, number, size, read=True, write=False)


def number_inout(kind: int, number: int, size: int) -> int:
    """Return the request that gives the kernel ``size`` bytes and gets them back changed (_IOWR)."""
    return _number(kind, number, size, read=True, write=True)


def _number(kind: int, number: int, size: int, *, read: bool, write: bool) -> int:
    old = sys.platform != "win32" and os.uname().machine.startswith(_OLD_DIRECTIONS)
    direction = (4 * write | 2 * read) << 29 if old else (write | 2 * read) << 30
    return direction | size << 16 | kind << 8 | number


def join_device(major: int, minor: int) -> int:
    """Return a device's number as Linux has it in 64 bits (os.makedev, on every platform)."""
    return minor & 0xFF | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


def split_device(number: int) -> tuple[int, int]:
    """Return (major, minor) of a device's number as Linux has it in 64 bits."""
    return number >> 8 & 0xFFF | number >> 32 & ~0xFFF, number & 0xFF | number >> 12 & 0xFFFFFF00


def require_linux(operation: str, device: str) -> None:
    """Return on Linux. Raises Unavailable elsewhere."""
    if sys.platform != "linux":
        raise Unavailable(operation, device, errno.ENOSYS, f"needs Linux, this is {sys.platform}")


def call(fd: int, request: int, argument: int | bytes | bytearray = 0, *, operation: str, device: str) -> int:
    """Return the kernel's answer; a bytearray holds afterwards what the kernel wrote into it.

    Raises KernelError with the errno; Unavailable without privilege, and elsewhere than on Linux.
    """
    if sys.platform != "linux":
        raise Unavailable(operation, device, errno.ENOSYS, f"needs Linux, this is {sys.platform}")
    import fcntl

    while True:
        try:
            if isinstance(argument, bytearray) and len(argument) > HELD_ABOVE:
                return _call_unheld(fd, request, argument)
            answer = fcntl.ioctl(fd, request, argument)
            return answer if isinstance(answer, int) else 0
        except InterruptedError:
            continue
        except OSError as error:
            raise kernel_error(operation, device, error.errno or errno.EIO) from None


HELD_ABOVE: Final = 1024
"""Bytes of a buffer up to which ``fcntl.ioctl`` lets other threads run while the kernel works.

Above it holds the interpreter: a thread that waits for an event would stop all others, and one that suspends a
device those that serve it.
"""


def _call_unheld(fd: int, request: int, buffer: bytearray) -> int:
    import ctypes

    argument = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    answer = _library_ioctl()(fd, request, argument)
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


@cache
def _library_ioctl() -> Callable[[int, int, object], int]:
    """Return the C library's ioctl, which ctypes calls without holding the interpreter."""
    import ctypes

    function = ctypes.CDLL(None, use_errno=True).ioctl
    function.restype = ctypes.c_int
    function.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]

    def call(fd: int, request: int, argument: object) -> int:
        return int(function(fd, request, argument))

    return call


def kernel_error(operation: str, device: str, number: int, message: str = "", *, remedy: str = "") -> KernelError:
    """Return the error for an errno; Unavailable where it says that privilege is missing.

    Whoever has no privilege is not told more: ``message`` explains what the errno means otherwise.
    """
    if number in _NO_PRIVILEGE:
        return Unavailable(operation, device, number, os.strerror(number).lower(), remedy=remedy or NEEDS_ROOT)
    return KernelError(operation, device, number, message or os.strerror(number).lower(), remedy=remedy)


def lock_node(fd: int) -> bool:
    """Whether flock(2) gave this open node the lock that nobody else has now; it goes with the node, or `unlock`."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock_node(fd: int) -> None:
    """Let go of the lock of ``lock_node``, where it was given."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)


def is_open_for_writing(fd: int) -> bool:
    """Whether an open descriptor can be written to."""
    if sys.platform == "win32":
        return True
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def open_node(path: str, flags: int, *, operation: str = "open") -> int:
    """Return an open descriptor of a node. Raises as ``call`` does, with the node's name."""
    require_linux(operation, path)
    try:
        return os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise kernel_error(operation, path, error.errno or errno.EIO) from None


def open_control(path: str, *, misc: str, module: str) -> int:
    """Return an open descriptor of a driver's control node, which is made where only the node is missing.

    ``misc`` is the driver's name in /proc/misc, ``module`` the module that brings it. Raises Unavailable where the
    kernel lacks the driver, and without privilege.
    """
    require_linux("open", path)
    try:
        return open_node(path, os.O_RDWR)
    except KernelError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise
        number = error.errno
    minor = _misc_minor(misc)
    if minor is None:
        raise Unavailable("open", path, number, "the kernel lacks the driver", remedy=f"modprobe {module}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    make_node(path, stat.S_IFCHR, _MISC_MAJOR, minor, mode=0o600)
    return open_node(path, os.O_RDWR)


_MISC_MAJOR: Final = 10


def _misc_minor(name: str) -> int | None:
    """Return the minor number of a misc device, None where the kernel has no such driver."""
    try:
        with open("/proc/misc", encoding="ascii", errors="replace") as file:
            for line in file:
                minor, _, found = line.strip().partition(" ")
                if found == name and minor.isdigit():
                    return int(minor)
    except OSError:
        pass
    return None


def make_node(path: str, kind: int, major: int, minor: int, *, mode: int = 0o660) -> None:
    """Make the node, or leave one that is right already.

    Raises Unavailable where that is not allowed, KernelError where the name is taken by something else, which stays.
    """
    if sys.platform == "win32":
        raise Unavailable("mknod", path, errno.ENOSYS, f"needs Linux, this is {sys.platform}")
    wanted = os.makedev(major, minor)
    if is_node(path, kind, wanted):
        return
    try:
        os.mknod(path, kind | mode, wanted)
    except FileExistsError:  # somebody else was there first: udevd, or another of us
        if not is_node(path, kind, wanted):
            raise KernelError(
                "mknod", path, errno.EEXIST, f"expected device {major}:{minor}, found something else"
            ) from None
    except OSError as error:
        what = "block" if kind == stat.S_IFBLK else "character"
        text = f"the node is missing and cannot be made: {(error.strerror or '').lower()}"
        remedy = f"mknod {path} {what[0]} {major} {minor}"
        raise Unavailable("mknod", path, error.errno or errno.EIO, text, remedy=remedy) from None


def is_node(path: str, kind: int, number: int) -> bool:
    """Whether the path itself is the node of that kind (stat.S_IFBLK, S_IFCHR) and number."""
    if sys.platform == "win32":
        return False
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_IFMT(found.st_mode) == kind and found.st_rdev == number


@contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    """Give an open descriptor of a node and close it afterwards. Raises as ``open_node`` does."""
    fd = open_node(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)
