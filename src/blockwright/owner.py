"""Processes as owners of what outlives them: told apart from any other process, of this boot or another.

A process number is used again, so a process is its number and the time it started; these begin anew with each boot,
so the boot belongs to it.

Knows: where Linux and Darwin tell it. Refuses to know: what is owned.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

MAX_TEXT: Final = 128
"""Characters of an owner's text that are looked at."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process: its boot, its number, and when it started, in the units of the system."""

    boot: str
    pid: int
    start: int

    @classmethod
    def current(cls) -> Self:
        """Return this process."""
        pid = os.getpid()
        found = _identity_of(pid)
        return cls(boot_identity(), pid, 0 if found is None else found[1])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what ``str`` made a text of; of any other text a process that is not alive."""
        boot, _, rest = text[:MAX_TEXT].rpartition("/")
        pid, _, start = rest.partition(".")
        if boot and pid.isascii() and pid.isdecimal() and start.isascii() and start.isdecimal():
            return cls(boot, int(pid), int(start))
        return cls("", 0, 0)

    @property
    def alive(self) -> bool:
        """Whether the process runs now."""
        return self.pid > 0 and self.boot == boot_identity() and process_identity(self.pid) == (self.pid, self.start)

    def __str__(self) -> str:
        return f"{self.boot}/{self.pid}.{self.start}"


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

    def process_identity(pid: int) -> tuple[int, int] | None:
        """Return (pid, start time in clock ticks), which no other process of this boot has; None where none runs."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The second field is the program's name in parentheses, which may hold anything.
                fields = file.read(4096).rpartition(b")")[2].split()
        except OSError:
            return None
        if len(fields) < 20 or fields[0] in (b"Z", b"X"):
            return None
        return pid, int(fields[19])
