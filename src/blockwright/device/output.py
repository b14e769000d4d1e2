"""Output files that appear complete or not at all.

A regular file is written beside its final name, synced and renamed over it; whatever ends the work before that
leaves what was there before. A block device is written in place, after it was claimed.

Knows: names, modes, owners, syncing. Refuses to know: what is written.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Final, Self

from blockwright.device import locks
from blockwright.device.descriptor import Path, claim, is_disk, kind_of, name_full, named_error
from blockwright.device.file import FileDevice, HostBlockDevice, open_path
from blockwright.device.inplace import check_blank
from blockwright.device.physical import check_meant
from blockwright.errors import NoSpace, NotFound, UsageError

_MODE_BITS: Final = 0o777
_MAX_LINKS: Final = 40
"""Links that a path may lead through: what Linux follows."""
_DESCRIPTORS: Final = re.compile(r"/proc/(?:[0-9]+/)?(?:task/[0-9]+/)?fd|/dev/fd")
LEFT_S: Final = 3600.0
"""Seconds after which a part of an output that nobody has locked is one that a killed process left."""
_MAX_NAMES: Final = 10_000
"""Names of a folder that are looked at for such parts."""
DEVICES: Final = "/dev"
"""Where devices are; what is mounted below it, such as /dev/shm, holds files."""


class OutputFile:
    """A context manager over the device to write: ``device``, committed where the body ends without an exception.

    ``target_is_zero`` says whether the device reads as zeros: a new file does. ``size`` is set at once where it is
    given; a new file is empty otherwise, and the caller resizes it. An existing regular file needs ``force``, and
    keeps its mode and owner; a symlink is followed. A block device needs ``force`` unless both its ends are blank; a
    disk that is hardware has to be ``physical.confirmed`` instead. Raises UsageError for what needs either, and for
    anything that cannot be written at any offset; NotFound for the name of a device that is not there; InUse where
    somebody holds what would be written; NoSpace where ``size`` is over that of a block device.
    """

    device: FileDevice | HostBlockDevice
    target_is_zero: bool

    def __init__(
        self, path: Path, *, force: bool = False, size: int | None = None, force_unlocked: bool = False
    ) -> None:
        self._temporary: str | None = None
        self.path = os.fsdecode(path)
        if not os.path.basename(self.path):
            raise UsageError(f"{self.path}: expected the name of a file to write, found none")
        if self.path == "-":  # a pipe cannot be written at any offset, and nobody wants a file of that name
            raise UsageError("-: expected a file to write: /dev/stdout where that is one, ./- for one of that name")
        self._final = os.path.realpath(self.path)
        self._force = force
        self._kept: os.stat_result | None = None
        try:
            self._kept = os.stat(self.path)
        except FileNotFoundError:
            self._kept = None
            if _holds_devices(os.path.dirname(self._final)):
                raise NotFound(f"{self.path}: no such device") from None
        in_place = self._kept is not None and self._check_existing(self._kept, force=force)
        meant = in_place and check_meant(self._final)
        if self._kept is not None and not in_place and not force_unlocked:
            self._check_unused(self._kept)
        self.target_is_zero = not in_place
        self.device = self._open_in_place(force_unlocked) if in_place else self._create()
        try:
            if isinstance(self.device, HostBlockDevice) and not force and not meant:
                check_blank(self.device, self.path)
            if size is not None:
                self._set_size(size)
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()
            name_full(error, self.path)

    def commit(self) -> None:
        """Sync the file and put it under its final name; a failure on the way discards it.

        Raises UsageError where the name was given to another file meanwhile, unless ``force`` was given.
        """
        try:
            self.device.flush()
            if self._temporary is None:
                self.device.close()
                return
            if self._kept is not None:
                _keep(self._temporary, self._kept)
            self.device.close()
            if self._force:
                os.replace(self._temporary, self._final)
            else:
                self._take_name(self._temporary)
            self._temporary = None
        except BaseException:
            self.discard()
            raise
        _sync_folder(os.path.dirname(self._final))

    def discard(self) -> None:
        """Close the file and remove it; what had the final name before still has it. Idempotent."""
        temporary = self._temporary
        if temporary is not None:
            # Removed before it is closed where that can be: closing may wait for calls in flight.
            _remove(temporary)
            self._temporary = None
        self.device.close()
        if temporary is not None and sys.platform == "win32":
            _remove(temporary)

    def __del__(self) -> None:
        """Remove the file where a signal came between its creation and the body of ``with``."""
        if self._temporary is not None:
            _remove(self._temporary)

    def _check_existing(self, status: os.stat_result, *, force: bool) -> bool:
        """Return whether what is there is written in place, or raise UsageError."""
        if is_disk(self._final, status.st_mode):
            return True
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(
                f"{self.path}: expected a file or a block device to write to, found a {kind_of(status.st_mode)}"
            )
        if _names_descriptor(self.path):
            return True  # whoever opened the file reads it by that, not by its name
        if not force:
            raise self._exists()
        return False

    def _exists(self) -> UsageError:
        return UsageError(f"{self.path}: exists already; --force replaces it")

    def _take_name(self, temporary: str) -> None:
        """Give the file its final name, which nobody has. Raises UsageError where somebody has taken it since."""
        try:
            os.link(temporary, self._final)
        except FileExistsError:
            raise self._exists() from None
        except OSError:  # a file system without links
            if os.path.lexists(self._final):
                raise self._exists() from None
            os.replace(temporary, self._final)
        else:
            _remove(temporary)

    def _check_unused(self, status: os.stat_result) -> None:
        """Raise InUse where somebody uses the file that would be replaced: he would go on with the old one."""
        try:
            fd = os.open(self._final, os.O_RDONLY)
        except PermissionError:
            return  # replacing it needs the folder's permission, not the file's
        try:
            claim(fd, status, self.path, writable=True)
        finally:
            os.close(fd)

    def _open_in_place(self, force_unlocked: bool) -> FileDevice | HostBlockDevice:  # noqa: FBT001 - private
        if self._kept is not None and is_disk(self._final, self._kept.st_mode):
            return open_path(self.path, writable=True, force_unlocked=force_unlocked)
        device = FileDevice(self.path, writable=True, force_unlocked=force_unlocked)
        try:
            device.resize(0)
        except BaseException:
            device.close()
            raise
        self.target_is_zero = True
        return device

    def _create(self) -> FileDevice:
        folder, name = os.path.split(self._final)
        mode = 0o666 if self._kept is None else stat.S_IMODE(self._kept.st_mode) & _MODE_BITS
        # A name of 255 bytes is the longest that common file systems take.
        stem = os.fsdecode(os.fsencode(name)[:200])
        _sweep(folder, stem)
        while True:
            temporary = os.path.join(folder, f".{stem}.{os.urandom(6).hex()}.partial")
            # Noted before it is there: a signal may end us right behind its creation.
            self._temporary = temporary
            try:
                return FileDevice(temporary, create=True, mode=mode | 0o600, name=self.path)
            except FileExistsError:
                self._temporary = None
            except OSError as error:
                _remove(temporary)
                raise named_error(OSError(error.errno, error.strerror), self.path) from None
            except BaseException:
                _remove(temporary)
                raise

    def _set_size(self, size: int) -> None:
        if isinstance(self.device, FileDevice):
            self.device.resize(size)
        elif size > self.device.size:
            raise NoSpace(f"{self.path}: expected at least {size} bytes, found {self.device.size}")


def _names_descriptor(path: str) -> bool:
    """Whether a path leads to an open descriptor by its name, as /dev/stdout does: to /proc/N/fd, or /dev/fd."""
    for _ in range(_MAX_LINKS):
        folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
        if _DESCRIPTORS.fullmatch(folder):
            return True
        try:
            path = os.path.join(folder, os.readlink(path))
        except OSError:  # no link: a file of its own, also one of /dev/shm
            return False
    return False


def _holds_devices(folder: str) -> bool:
    """Whether the kernel keeps devices there: a file would only take memory, under the name of a disk to come."""
    try:
        return os.path.commonpath([folder, DEVICES]) == DEVICES and os.stat(folder).st_dev == os.stat(DEVICES).st_dev
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _sweep(folder: str, stem: str) -> None:
    """Remove what killed processes left of outputs of this name: nobody has it locked, nor wrote to it lately."""
    if sys.platform != "linux":  # elsewhere nobody can tell
        return
    name = re.compile(rf"\.{re.escape(stem)}\.[0-9a-f]{{12}}\.partial")
    with suppress(OSError), os.scandir(folder or os.curdir) as entries:
        for each in islice(entries, _MAX_NAMES):
            if name.fullmatch(each.name) and each.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _sweep_one(each.path)


def _sweep_one(path: str) -> None:
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        old = time.time() - status.st_mtime > LEFT_S
        if old and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and locks.surely_free(fd):
            os.unlink(path)
    finally:
        os.close(fd)


def _keep(path: str, status: os.stat_result) -> None:
    """Give the file the owner, as far as we may, and the mode of the one it replaces."""
    if sys.platform != "win32":
        with suppress(OSError):  # not permitted, or an owner whom a user namespace has no number for
            os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode) & _MODE_BITS)


def _sync_folder(folder: str) -> None:
    """Make the new name durable. Raises OSError where the medium fails.

    Some file systems refuse to sync a folder, and one that we may write to and not read cannot be opened for it: then
    there is nothing to do.
    """
    if sys.platform == "win32":
        return
    try:
        fd = os.open(folder or ".", os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno == errno.EIO:
            raise named_error(error, folder) from None
    finally:
        os.close(fd)
