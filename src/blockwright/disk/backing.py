"""Images over others: made, moved onto another file, and brought down into the one below.

At every moment the image reads as it did: what another file below would change is written to the image before it
names that file; what the image holds is in the file below before the image lets go of it.

Knows: which image holds what. Refuses to know: how headers and clusters are written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.copy import copy
from blockwright.device.extent import ZERO
from blockwright.device.file import FileDevice
from blockwright.errors import NoSpace, NotSupported, UsageError
from blockwright.format.mapped import Kind
from blockwright.format.open import Files, format_of, open_image
from blockwright.format.output import ImageOptions, image_output
from blockwright.format.policy import REFUSE, Policy
from blockwright.format.qcow2.create import Options
from blockwright.format.qcow2.device import Qcow2Device
from blockwright.format.qcow2.driver import Making
from blockwright.format.qcow2.open import no_files, open_qcow2
from blockwright.format.qcow2.snapshot import read_snapshots
from blockwright.format.qcow2.write import WritableQcow2
from blockwright.format.registry import NAMES
from blockwright.units import MiB, align_down

Progress = Callable[[int, int], None]


def create_overlay(
    image: str,
    backing: str,
    *,
    form: str | None = None,
    size: int | None = None,
    policy: Policy = REFUSE,
    force: bool = False,
) -> int:
    """Make ``image`` a qcow2 image over the file ``backing``, of its size unless another is given; return the size.

    ``backing`` is stored as it is given; relative, it counts from the image's folder. ``form`` is its format, told by
    its first bytes where None; the image states it in any case, so that nobody has to guess again. ``policy`` says
    which files ``backing`` may name itself. Raises UsageError, FormatError, NotAllowed.
    """
    found, below = _open_named(image, backing, form, policy)
    with below:
        size = below.size if size is None else size
    making = Making(Options(backing_file=backing, backing_format=found))
    making.check()
    with image_output(image, size, ImageOptions("qcow2", making), force=force):
        pass
    return size


def rebase(
    image: str,
    backing: str | None,
    *,
    form: str | None = None,
    unsafe: bool = False,
    policy: Policy = REFUSE,
    progress: Progress | None = None,
) -> int:
    """Put the qcow2 image onto another backing file, or none, and return the bytes that were written to it for that.

    The disk stays as it is. With ``unsafe`` only the name changes, for a file that was moved: nothing is opened, and
    ``form`` is the format that is stated. ``policy`` opens the present backing file. Raises UsageError, NotSupported,
    FormatError, NotAllowed.
    """
    name = None if backing is None else os.fsencode(backing)
    if form is not None and (backing is None or form not in NAMES):
        raise UsageError(f"backing format: expected {' or '.join(NAMES)}, and a backing file, found {form[:40]!r}")

    with ExitStack() as stack:
        if unsafe:
            if backing is not None and form is None:
                raise UsageError("rebase: expected the format of a backing file that is not opened")
            bare = open_qcow2(_writable(stack, image), writable=True, below=no_files, data=no_files, bare=True)
            _writable_qcow2(stack.enter_context(bare), image).put_backing(name, form)
            return 0
        disk = _writable_qcow2(_open(stack, image, policy), image)
        if _snapshots(disk):
            raise UsageError(f"{image}: has snapshots, which would read as something else: rebase -u, or delete them")
        found, below = (None, None) if backing is None else _open_named(image, backing, form, policy)
        if below is not None:
            stack.enter_context(below)
        return move_onto(disk, below, name, found, progress=progress)


def commit(image: str, *, keep: bool = False, policy: Policy = REFUSE, progress: Progress | None = None) -> int:
    """Bring what the qcow2 image holds down into its backing file, which grows if need be; return the bytes of it.

    The image holds nothing then, unless ``keep``. Others that stand on the backing file read something else from then
    on. Raises UsageError where there is no backing file, where its format is not stated, and where snapshots of the
    image would change; NoSpace where it is too small and cannot grow; FormatError, NotAllowed.
    """
    opened: list[BlockDevice] = []
    files = Files(image, policy)

    def below(name: bytes, form: str | None) -> BlockDevice:
        if form is None:
            raise UsageError(f"{image}: does not state the format of its backing file: rebase -u does")
        opened.append(files.below(name, form, writable=True))
        return opened[0]

    with ExitStack() as stack:
        file = stack.enter_context(FileDevice(image, writable=True))
        data = _refuse_data_file(image)
        device = stack.enter_context(open_qcow2(file, writable=True, below=below, data=data, owns=False))
        disk = _writable_qcow2(device, image)
        if not opened:
            raise UsageError(f"{image}: has no backing file to commit to")
        if _snapshots(disk):
            raise UsageError(f"{image}: has snapshots, which would read as something else: delete them")
        return bring_down(disk, opened[0], keep=keep, progress=progress)


def move_onto(
    disk: WritableQcow2,
    below: BlockDevice | None,
    name: bytes | None,
    form: str | None,
    *,
    progress: Progress | None = None,
) -> int:
    """Write to a disk what it would read otherwise over ``below``, then name that, and return the bytes written."""
    cluster = disk.image.geometry.cluster
    written, piece = 0, max(MiB, cluster)
    for start, length in list(_places(disk, held=False)):
        for low, high in _used(disk, below, start, start + length):
            position = low
            while position < high:
                stop = min(high, align_down(position, piece) + piece)
                written += _keep_piece(disk, below, position, stop)
                position = stop
                if progress is not None:
                    progress(position, disk.size)
    disk.flush()
    disk.put_backing(name, form)
    return written


def bring_down(disk: WritableQcow2, base: BlockDevice, *, keep: bool, progress: Progress | None = None) -> int:
    """Copy what a disk holds to ``base``, which is below it; forget it unless ``keep``. Return the bytes."""
    if base.size < disk.size:
        if not isinstance(base, ResizableDevice):
            raise NoSpace(f"commit: expected a backing file of {disk.size} bytes, found {base.size}")
        base.resize(disk.size)
    ranges = list(_places(disk, held=True))
    result = copy(disk, base, ranges=lambda: ranges, progress=progress)
    base.flush()
    if not keep:
        disk.forget()
        disk.flush()
    return result.copied + result.zeroed


def _open_named(image: str, backing: str, form: str | None, policy: Policy) -> tuple[str, BlockDevice]:
    """Return the format of a backing file that the caller names, and the disk in it."""
    path = os.path.join(os.path.dirname(os.path.realpath(image)), backing)
    if os.path.exists(image) and os.path.exists(path) and os.path.samefile(image, path):
        raise UsageError(f"{image}: cannot be its own backing file")
    if not os.path.isfile(path):
        raise UsageError(f"{backing}: expected the name of a file, from the folder of {image} on")
    file = FileDevice(path)
    try:
        found = form or format_of(file)
        return found, open_image(file, path=path, form=found, policy=policy)
    except BaseException:
        file.close()
        raise


def _writable(stack: ExitStack, image: str) -> FileDevice:
    return stack.enter_context(FileDevice(image, writable=True))


def _open(stack: ExitStack, image: str, policy: Policy) -> BlockDevice:
    """Return the qcow2 disk in the image, over what is below it."""
    file = _writable(stack, image)
    files = Files(image, policy)
    device = open_qcow2(file, writable=True, below=files.below, data=_refuse_data_file(image), owns=False)
    return stack.enter_context(device)


def _refuse_data_file(image: str) -> Callable[[bytes], BlockDevice]:
    def data(name: bytes) -> BlockDevice:
        shown = os.fsdecode(name[:200])
        raise NotSupported(f"{image}: has the external data file {shown!r}, and cannot be put over another image")

    return data


def _writable_qcow2(disk: BlockDevice, image: str) -> WritableQcow2:
    if not isinstance(disk, WritableQcow2):
        raise UsageError(f"{image}: expected a qcow2 image")
    return disk


def _snapshots(disk: Qcow2Device) -> bool:
    return bool(read_snapshots(disk.file, disk.image))


def _places(disk: Qcow2Device, *, held: bool) -> Iterator[tuple[int, int]]:
    """Yield the ranges that the image itself holds, data or zeros, or those that it does not."""
    start = offset = 0
    for place in disk.resolve(0, disk.size):
        if (place.kind in (Kind.BACKING, Kind.HOLE)) is held:
            if offset > start:
                yield start, offset - start
            start = offset + place.length
        offset += place.length
    if offset > start:
        yield start, offset - start


def _used(disk: BlockDevice, below: BlockDevice | None, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield ranges, in order, outside of which both read as zeros."""
    position = start
    for offset, length, flags in disk.extents(start, end - start):
        if not flags & ZERO:
            yield offset, offset + length
        elif below is not None and offset < below.size:
            shown = min(offset + length, below.size)
            for each in below.extents(offset, shown - offset):
                if not each.flags & ZERO:
                    yield each.offset, each.end
        position = offset + length
    assert position == end, "extents cover what was asked for"


def _keep_piece(disk: WritableQcow2, below: BlockDevice | None, low: int, high: int) -> int:
    """Write what differs of [low, high), cluster by cluster."""
    now = memoryview(disk.read(low, high - low))
    then = memoryview(bytearray(high - low))
    if below is not None and low < below.size:
        below.read_into(low, then[: min(high, below.size) - low])
    if now == then:
        return 0
    cluster, position, written = disk.image.geometry.cluster, low, 0
    while position < high:
        stop = min(high, align_down(position, cluster) + cluster)
        data = now[position - low : stop - low]
        if data != then[position - low : stop - low]:
            whole = not position % cluster and (not stop % cluster or stop == disk.size)
            if whole and disk.image.record.version >= 3 and not any(data):
                disk.hide(position, stop - position)
            else:
                disk.write(position, data)
            written += stop - position
        position = stop
    return written
