"""A private directory of the host, for as long as one scan lasts: what a scanner reads, and where it may write.

It is removed when the context ends, by whatever. What a killed process left is removed by the next one that uses the
same directory: a workplace is locked as long as its process lives.

Knows: how it is made, locked and removed. Refuses to know: what is put into it.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "files cannot be made by descriptor and name there"

import fcntl  # noqa: E402

from blockwright.errors import ScanFailed  # noqa: E402
from blockwright.scan.scanner import Workplace  # noqa: E402
from blockwright.tree.extract_target import DIRECTORY_FLAGS, remove  # noqa: E402

PREFIX: Final = ".blockwright-scan-"


@contextmanager
def workplace(workdir: str) -> Iterator[Workplace]:
    """Have a private directory within ``workdir`` while the context lasts.

    Raises ScanFailed where ``workdir`` is no directory that one can write to.
    """
    try:
        folder_fd = os.open(workdir, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
    except OSError as error:
        raise ScanFailed(f"{workdir}: {str(error.strerror).lower()}") from error
    try:
        _remove_abandoned(folder_fd)
        name = PREFIX + secrets.token_hex(8)
        fd = -1
        try:
            fd = _made(name, folder_fd, workdir)
            yield Workplace(os.path.join(os.path.abspath(workdir), name), fd)
        finally:
            remove(name, folder_fd)
            if fd >= 0:
                os.close(fd)  # and with it the lock
    finally:
        os.close(folder_fd)


def _made(name: str, folder_fd: int, workdir: str) -> int:
    """Return a new directory, open and locked."""
    while True:
        try:
            os.mkdir(name, 0o700, dir_fd=folder_fd)
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=folder_fd)
        except FileNotFoundError:  # between the two calls another process took it for an abandoned one
            continue
        except OSError as error:
            raise ScanFailed(f"{workdir}: {str(error.strerror).lower()}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # removed before it was locked


def _remove_abandoned(folder_fd: int) -> None:
    """Remove directories whose processes have ended."""
    for name in os.listdir(folder_fd):
        if not name.startswith(PREFIX):
            continue
        with suppress(OSError):
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=folder_fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(name, folder_fd)
            finally:
                os.close(fd)
