"""Keeps a program's sync(2) from waiting for every file system of the machine.

sgdisk ends each write with sync(2), which waits for all that anybody on the machine has yet to write, and for ever
where some other file system is stuck. What a test looks at is read back through the page cache, so it needs none of
that. The kernel answers such a call with success and does nothing (seccomp); fsync and the like are left alone.
"""

import ctypes
import platform
import struct
import sys

_SYSCALL = {"x86_64": (0xC000003E, 162), "aarch64": (0xC00000B7, 81)}
"""AUDIT_ARCH_… and the number of sync(2), by machine."""

_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO_0 = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2


def _program() -> bytes:
    """Allow all but sync(2) of this machine's own architecture."""
    architecture, number = _SYSCALL[platform.machine()]
    instructions = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch
        (_JUMP_EQUAL, 0, 3, architecture),
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
        (_JUMP_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _ERRNO_0),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


AVAILABLE = sys.platform == "linux" and platform.machine() in _SYSCALL

if AVAILABLE:
    _CODE = ctypes.create_string_buffer(_program())
    _FPROG = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 6, ctypes.addressof(_CODE)))
    _PRCTL = ctypes.CDLL(None, use_errno=True).prctl


def without_sync() -> None:
    """Take sync(2) from the calling process and its children; for `preexec_fn`, so nothing is imported here."""
    if AVAILABLE and _PRCTL(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        _PRCTL(_PR_SET_SECCOMP, _FILTER, ctypes.byref(_FPROG), 0, 0)
