"""Attaches a file to a loop device, which then is a block device of the kernel.

Knows: the order of steps that is safe against others, and against dying between two of them. Refuses to know: what
the bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from blockwright.device import holders, locks
from blockwright.device.descriptor import kind_of
from blockwright.errors import InUse, KernelError, NotFound, ReadOnly, UsageError
from blockwright.system.linux import blkdev
from blockwright.system.linux.ioctl import is_open_for_writing, lock_node, open_node, require_linux, unlock_node
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.loop import control, layout, state
from blockwright.system.linux.loop.configure import TRIES, Wish, clear, configure, pause
from blockwright.system.linux.loop.detach import LoopDevice
from blockwright.system.linux.loop.ownership import Ownership
from blockwright.units import MAX_SIZE, SECTOR, align_down

Image = str | os.PathLike[str] | int
"""A path, or an open descriptor, which stays the caller's."""


@dataclass(frozen=True, slots=True)
class _File:
    fd: int
    name: str
    status: os.stat_result
    size: int


def attach(  # noqa: PLR0913 - a device's settings, each by name
    image: Image,
    *,
    device: str | int | None = None,
    read_only: bool = False,
    offset: int = 0,
    size_limit: int = 0,
    block_size: int | None = None,
    direct_io: bool = False,
    autoclear: bool = False,
    partition_scan: bool = False,
    force_unlocked: bool = False,
    owned: bool = False,
    logger: Logger | None = None,
) -> LoopDevice:
    """Return a loop device attached to the image; it stays until it is detached, or for the ``with`` it opens.

    It stays when this process ends too, unless it is ``owned`` by it: then ``gc`` detaches it, as it does with one
    whose ``with`` was not left because its process died.
    ``device`` names which, else a free one is taken. ``offset`` and ``size_limit`` select bytes of the image; the
    device ends at the last whole sector. ``block_size`` is the device's sector, a power of two from 512 on.
    ``read_only`` opens the image for reading only. With ``autoclear`` the kernel detaches the device when its last
    user closes it; the result itself is one until it is closed. While it is attached, the image is locked as QEMU
    locks images, and this package and QEMU refuse to write to it.

    Raises NotFound without such an image; InUse where another process holds it, or another loop device covers a
    part of the range and one of the two writes (``force_unlocked`` attaches nevertheless), or where ``device`` is
    taken; ReadOnly, UsageError; Unavailable without privilege or the driver; KernelError.
    """
    require_linux("attach", str(image))
    file = _open(image, read_only=read_only, exclusive=not force_unlocked)
    try:
        wish = _wish(
            file,
            offset=offset,
            size_limit=size_limit,
            block_size=block_size,
            read_only=read_only,
            direct_io=direct_io,
            autoclear=autoclear,
            partition_scan=partition_scan,
        )
        with control.control() as fd:
            if not force_unlocked:
                _claim(file, wish)
            number = None if device is None else state.number_of(device)
            if number is None:
                found = _attach_to_any(fd, file, wish, owned=owned)
            else:
                found = _attach_to(fd, number, file, wish, owned=owned)
    finally:
        if file.fd != image:
            os.close(file.fd)
    told(logger).info("attached %s to %s", file.name, found.path)
    rest = file.size - offset - wish.size
    if rest and not size_limit:
        told(logger).warning("%s: its last %d bytes are no whole sector, and left out", file.name, rest)
    return found


def _open(image: Image, *, read_only: bool, exclusive: bool) -> _File:
    if isinstance(image, int):
        fd, name = image, os.readlink(f"/proc/self/fd/{image}")
        if not read_only and not is_open_for_writing(fd):
            raise ReadOnly(f"{name}: is open for reading only: attach it read-only")
        return _described(fd, name)
    name = os.fspath(image)
    try:
        kind = os.stat(name).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
            raise UsageError(f"{name}: expected a file or a block device, found a {kind_of(kind)}")
        flags = (os.O_RDONLY if read_only else os.O_RDWR) | getattr(os, "O_CLOEXEC", 0)
        if stat.S_ISBLK(kind) and exclusive and not read_only:
            flags |= os.O_EXCL  # the kernel keeps the claim as long as it keeps the file
        fd = os.open(name, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{name}: no such file") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InUse(f"{name}: is in use: {', '.join(blkdev.users(name)[:4]) or 'somebody claims it'}") from None
        if error.errno == errno.EROFS and not read_only:
            raise ReadOnly(f"{name}: lies on a read-only file system: attach it read-only") from None
        raise
    try:
        return _described(fd, os.path.abspath(name))
    except BaseException:
        os.close(fd)
        raise


def _described(fd: int, name: str) -> _File:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        raise UsageError(f"{name}: expected a file or a block device, found a {kind_of(status.st_mode)}")
    size = blkdev.size(fd, name) if stat.S_ISBLK(status.st_mode) else status.st_size
    return _File(fd, name, status, size)


def _wish(file: _File, *, offset: int, size_limit: int, block_size: int | None, **flags: bool) -> Wish:
    """Return the wish, once it can be fulfilled: of a range outside the file the driver makes a device of no size."""
    if not 0 <= offset <= MAX_SIZE or not 0 <= size_limit <= MAX_SIZE:
        raise UsageError(f"{file.name}: expected an offset and a size of 0 or more, found {offset} and {size_limit}")
    if block_size is not None and not (
        layout.MIN_BLOCK_SIZE <= block_size <= layout.MAX_BLOCK_SIZE and block_size.bit_count() == 1
    ):
        raise UsageError(f"block size: expected a power of two from 512 to 65536, found {block_size}")
    rest = file.size - offset
    size = align_down(min(rest, size_limit) if size_limit else rest, SECTOR)
    if size <= 0:
        raise UsageError(
            f"{file.name}: expected a sector of 512 bytes or more from byte {offset} on, found {max(rest, 0)} bytes"
        )
    return Wish(name=file.name, offset=offset, size_limit=size_limit, size=size, block_size=block_size, **flags)


def _claim(file: _File, wish: Wish) -> None:
    """Lock the image for as long as the kernel holds it, and refuse ranges that another loop device covers."""
    shared = False
    for other in state.states():
        if not state.is_backed_by(other, file.status):
            continue
        shared = True
        covered = other.overlaps(wish.offset, wish.size) and not (other.read_only and wish.read_only)
        if covered:
            raise InUse(
                f"{file.name}: is in use: {other.path} covers bytes {other.offset} to {other.offset + other.size - 1}"
            )
    if not stat.S_ISREG(file.status.st_mode):
        return
    # The lock belongs to the open file, which the kernel keeps open. Where other loop devices have other parts of the
    # file, their locks contradict ours, and nobody's else can be told from them.
    uses, shares = (locks.READING, locks.ALL) if wish.read_only else (locks.WRITING, locks.SHARED_BY_WRITER)
    conflict = locks.lock(file.fd, uses, shares, unasked=shared)
    if conflict is not None:
        who = holders.named(holders.processes(file.status)) or "another program"
        raise InUse(f"{file.name}: is in use: {who} holds a lock on it")


def _attach_to_any(fd: int, file: _File, wish: Wish, *, owned: bool) -> LoopDevice:
    """Take free devices until one is still free when it is taken."""
    for attempt in range(TRIES):
        try:
            return _configured(control.free_number(fd), file, wish, owned=owned)
        except KernelError as error:
            if error.errno not in (errno.EBUSY, errno.EAGAIN, errno.ENXIO) or attempt == TRIES - 1:
                raise
        pause(attempt)
    raise AssertionError("unreachable")


def _attach_to(fd: int, number: int, file: _File, wish: Wish, *, owned: bool) -> LoopDevice:
    control.add(fd, number)
    try:
        return _configured(number, file, wish, owned=owned)
    except KernelError as error:
        found = state.state(number) if error.errno == errno.EBUSY else None
        if found is None:
            raise
        raise InUse(f"{found.path}: is in use: attached to {found.backing}") from None


def _configured(number: int, file: _File, wish: Wish, *, owned: bool) -> LoopDevice:
    """Attach to one device. What was intended is on record before the kernel is asked."""
    path = state.node(number)
    fd = open_node(path, os.O_RDONLY if wish.read_only else os.O_RDWR)
    keep = False
    try:
        with _without_udev(fd):
            record = Ownership.intended(number, blkdev.disk_sequence(fd, path), file.status, wish.offset)
            try:
                configure(fd, path, file.fd, wish)
            except BaseException:
                record.forget()
                raise
            try:
                if wish.partition_scan and not blkdev.partitions_in(state.folder_of(number), f"loop{number}"):
                    # The driver's own scan says nothing where it failed, as it does while udevd has a partition open
                    # that an attachment before this one had.
                    blkdev.rescan(fd, path)
                sequence = blkdev.disk_sequence(fd, path)
                record.attached(sequence, owned=owned)
            except BaseException:
                clear(fd, path)
                record.forget()
                raise
        keep = wish.autoclear
        return LoopDevice(number, path, sequence, record, fd if keep else None)
    finally:
        if not keep:
            os.close(fd)


@contextlib.contextmanager
def _without_udev(fd: int) -> Iterator[None]:
    """Keep udevd from opening the device while it is made: it looks at none on which somebody has this lock."""
    lock_node(fd)
    try:
        yield
    finally:
        unlock_node(fd)
