"""The host directory that a tree is extracted to: whole under its name, or not there, or plainly unfinished.

A target that does not exist is made beside its name, and gets it when it is whole. An empty directory is filled in
place, and emptied again where that fails. With ``force`` a directory that holds something is added to in place; what
ends that before its end leaves ``.blockwright-incomplete-…`` in it. What is left by a process that was killed has
that name, or ``.NAME.…part``; the latter goes with the next extraction to that name.

Everything is done by descriptors of directories, and no name is followed through a link but the target's own.

Knows: where the tree is made, the stage beside it, and how both end. Refuses to know: nodes.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import time
from contextlib import suppress
from itertools import islice
from typing import Final

from blockwright.device.descriptor import named_error
from blockwright.errors import NotFound, UsageError

assert sys.platform != "win32", "directories cannot be entered by descriptor there"

import fcntl  # noqa: E402 - which is not there either

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
_STAGE: Final = ".blockwright-incomplete-"
LEFT_S: Final = 60.0
"""Seconds after which a directory under way that nobody has locked is one that a killed process left."""
_MAX_NAMES: Final = 10_000
"""Names of a folder that are looked at for such directories."""


class Target:
    """A directory under way. ``root_fd`` is it, ``stage_fd`` a private one within it for what has no name yet.

    ``replaces`` says that what is there already is replaced name by name. Ends by ``commit`` or ``discard``.
    Raises UsageError where ``path`` is no directory, or holds something without ``force``; OSError of the host.
    """

    def __init__(self, path: str, *, force: bool = False) -> None:
        self.path = path
        self.replaces = self._found_empty = False
        self.root_fd = self.stage_fd = self._parent_fd = -1
        self._part = self._stage = ""
        try:
            self._open(force)
            self._stage = _STAGE + secrets.token_hex(8)
            os.mkdir(self._stage, 0o700, dir_fd=self.root_fd)
            self.stage_fd = os.open(self._stage, DIRECTORY_FLAGS, dir_fd=self.root_fd)
        except OSError as error:
            self.discard()
            raise named_error(OSError(error.errno, error.strerror), self.path) from None
        except BaseException:
            self.discard()
            raise

    def _open(self, force: bool) -> None:  # noqa: FBT001  # as given
        try:
            self.root_fd = os.open(self.path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        except FileNotFoundError:
            self._make_beside()
            return
        except NotADirectoryError:
            raise UsageError(f"{self.path}: expected a directory to extract to, found another type") from None
        with os.scandir(self.root_fd) as entries:
            self.replaces = next(entries, None) is not None
        if self.replaces and not force:
            raise UsageError(f"{self.path}: expected an empty directory; --force adds to one that holds something")
        self._found_empty = not self.replaces

    def _make_beside(self) -> None:
        folder, name = os.path.split(self.path.rstrip("/"))
        if name in ("", ".", ".."):
            raise UsageError(f"{self.path!r}: expected the name of a directory to extract to")
        if os.path.islink(self.path.rstrip("/")):
            raise UsageError(f"{self.path}: expected a directory to extract to, found a link to nothing")
        try:
            self._parent_fd = os.open(folder or ".", DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        except FileNotFoundError:
            raise NotFound(f"{folder}: no such directory") from None
        self._final = name
        stem = os.fsdecode(os.fsencode(name)[:200])  # so that what is added fits into a name of 255 bytes
        _sweep(stem, self._parent_fd)
        part = f".{stem}.{secrets.token_hex(8)}.part"
        self._part = part  # before it is made: whatever ends this from here on removes it
        os.mkdir(part, 0o700, dir_fd=self._parent_fd)
        self.root_fd = os.open(part, DIRECTORY_FLAGS, dir_fd=self._parent_fd)
        _lock(self.root_fd)

    def end_stage(self) -> None:
        """Remove the stage and what is left in it: all that has a name is in place."""
        remove(self._stage, self.root_fd)
        self._stage = ""

    def commit(self) -> None:
        """Give what was made beside its name. A failure discards it."""
        try:
            if self._part:
                os.rename(self._part, self._final, src_dir_fd=self._parent_fd, dst_dir_fd=self._parent_fd)
                self._part = ""
        except OSError as error:
            self.discard()
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise UsageError(f"{self.path}: appeared while it was made, and is left as it is") from error
            raise
        self._close()

    def discard(self) -> None:
        """Remove what was made; from a directory that held something only the stage's contents. Idempotent."""
        with suppress(OSError):
            if self._part:
                remove(self._part, self._parent_fd)
                self._part = ""
            else:
                self._empty(self.root_fd if self._found_empty else self.stage_fd)
        self._close()

    def _empty(self, fd: int) -> None:
        if fd >= 0:
            for name in os.listdir(fd):
                remove(name, fd)

    def _close(self) -> None:
        for fd in (self.stage_fd, self.root_fd, self._parent_fd):
            if fd >= 0:
                os.close(fd)
        self.stage_fd = self.root_fd = self._parent_fd = -1


def _lock(fd: int) -> bool:
    """Whether a directory under way is locked by who has it open so; on some file systems none can be."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(stem: str, folder_fd: int) -> None:
    """Remove what killed processes left of directories of that name: nobody has it locked any more."""
    pattern = re.compile(rf"\.{re.escape(stem)}\.[0-9a-f]{{16}}\.part")
    with suppress(OSError), os.scandir(folder_fd) as entries:
        found = [each.name for each in islice(entries, _MAX_NAMES) if pattern.fullmatch(each.name)]
        for name in found:
            with suppress(OSError):
                fd = os.open(name, DIRECTORY_FLAGS, dir_fd=folder_fd)
                try:
                    status = os.fstat(fd)
                    old = time.time() - status.st_ctime > LEFT_S  # who has just made one has not locked it yet
                    if old and status.st_uid == os.geteuid() and _lock(fd):
                        remove(name, folder_fd)
                finally:
                    os.close(fd)


def remove(name: str, folder_fd: int) -> None:
    """Remove a name and all that lies below it, whatever its permissions; no link is followed."""
    try:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=folder_fd).st_mode):
            os.unlink(name, dir_fd=folder_fd)
            return
    except FileNotFoundError:
        return
    fd = _open_closed(name, folder_fd)
    try:
        os.fchmod(fd, 0o700)
        for below in os.listdir(fd):
            remove(below, fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=folder_fd)


def _open_closed(name: str, folder_fd: int) -> int:
    """Open a directory of our own, also where its permissions forbid that."""
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=folder_fd)
    except PermissionError:
        if sys.platform != "linux":
            os.chmod(name, 0o700, dir_fd=folder_fd, follow_symlinks=False)
        else:  # which has no such call, but a name for what a descriptor stands for
            fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
            try:
                os.chmod(f"/proc/self/fd/{fd}", 0o700)
            finally:
                os.close(fd)
        return os.open(name, DIRECTORY_FLAGS, dir_fd=folder_fd)
