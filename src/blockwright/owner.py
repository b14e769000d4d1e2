"""Processes as owners of what outlives them: told apart from any other process, of this boot or another.

A process number is used again, so a process is its number and the time it started; these begin anew with each boot,
so the boot belongs to it. In another PID namespace, such as a container's, the number is nobody's or somebody else's:
there a process is known by the mark it has locked in a file that both can reach.

Knows: where Linux and Darwin tell it. Refuses to know: what is owned.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Self

from blockwright import marks as _marks

UNKNOWN_SPACE: Final = 1
"""A PID namespace of which /proc is not: nothing can be told there by numbers."""
MAX_TEXT: Final = 128
"""Characters of an owner's text that are looked at."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process: its boot, its number, and when it started, in the units of the system.

    ``space`` is the PID namespace of the number, 0 where there are none; ``mark`` what the process has locked in the
    file at ``marks``, 0 where it could not.
    """

    boot: str
    pid: int
    start: int
    space: int = 0
    mark: int = field(default=0, compare=False)
    marks: str = field(default="", compare=False)

    @classmethod
    def current(cls, marks: str = "") -> Self:
        """Return this process, with a mark in the file at ``marks`` if one is named."""
        pid = os.getpid()
        found = _identity_of(pid)
        space = process_space()
        mark = _marks.take(marks) if marks and space else 0
        return cls(boot_identity(), pid, 0 if found is None else found[1], space, mark, marks)

    @classmethod
    def parse(cls, text: str, marks: str = "") -> Self:
        """Return what ``str`` made a text of; of any other text a process that is not alive."""
        boot, _, rest = text[:MAX_TEXT].rpartition("/")
        parts = rest.split(".")
        if boot and len(parts) in (2, 4) and all(each.isascii() and each.isdecimal() for each in parts):
            pid, start, space, mark = map(int, (*parts, "0", "0")[:4])
            return cls(boot, pid, start, space, mark, marks)
        return cls("", 0, 0)

    @property
    def foreign(self) -> bool:
        """Whether the number says nothing here, as it is of another PID namespace."""
        return self.space != 0 and (self.space == UNKNOWN_SPACE or self.space != process_space())

    @property
    def alive(self) -> bool:
        """Whether the process runs now; one of another PID namespace that has no mark may always do so."""
        if self.pid <= 0 or self.boot != boot_identity():
            return False
        if self.foreign:
            return not self.mark or not self.marks or _marks.is_held(self.marks, self.mark)
        return process_identity(self.pid) == (self.pid, self.start)

    @property
    def text(self) -> str:
        """The process as a message names it."""
        return f"process {self.pid}{' of another PID namespace' if self.foreign else ''}"

    def __str__(self) -> str:
        return f"{self.boot}/{self.pid}.{self.start}" + (f".{self.space}.{self.mark}" if self.space else "")


@cache
def _identity_of(pid: int) -> tuple[int, int] | None:
    """Return the identity of this process, which is asked for under each number it has had."""
    return process_identity(pid)


if sys.platform == "darwin":
    import struct

    _PROC_PIDTBSDINFO: Final = 3
    _BSDINFO: Final = struct.Struct("=120xQQ")
    """struct proc_bsdinfo (sys/proc_info.h): pbi_start_tvsec and pbi_start_tvusec are its last fields."""

    @cache
    def boot_identity() -> str:
        """Return what differs from boot to boot: the kernel's own name of this one."""
        import ctypes

        size = ctypes.c_size_t(64)
        buffer = ctypes.create_string_buffer(size.value)
        if ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, 0):
            return "darwin"
        return buffer.value.decode("ascii", "replace")

    def process_space() -> int:
        """Return the PID namespace of this process: there are none."""
        return 0

    def process_identity(pid: int) -> tuple[int, int] | None:
        """Return (pid, start time in microseconds) of a process; None where none runs that we may ask about."""
        import ctypes

        buffer = ctypes.create_string_buffer(_BSDINFO.size)
        size = ctypes.CDLL(None).proc_pidinfo(pid, _PROC_PIDTBSDINFO, ctypes.c_uint64(0), buffer, len(buffer))
        if size != _BSDINFO.size:
            return None
        seconds, micros = _BSDINFO.unpack(buffer.raw)
        return pid, seconds * 1_000_000 + micros

else:

    @cache
    def boot_identity() -> str:
        """Return what differs from boot to boot; empty where the kernel does not tell."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read(64).strip()
        except OSError:
            return ""

    @cache
    def _space_of(pid: int) -> int:
        try:
            of_proc = os.readlink("/proc/self")
            return os.stat("/proc/self/ns/pid").st_ino if of_proc == str(pid) else UNKNOWN_SPACE
        except OSError:
            return 0

    def process_space() -> int:
        """Return the PID namespace of this process; 0 where the kernel does not tell."""
        return _space_of(os.getpid())

    def process_identity(pid: int) -> tuple[int, int] | None:
        """Return (pid, start time in clock ticks), which no other process of this boot has; None where none runs."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The second field is the program's name in parentheses, which may hold anything.
                fields = file.read(4096).rpartition(b")")[2].split()
        except OSError:
            return None
        if len(fields) < 20 or (fields[0] in (b"Z", b"X") and int(fields[17]) <= 1):
            return None  # with more threads, some have not ended: they have its files open, and locked
        return pid, int(fields[19])
