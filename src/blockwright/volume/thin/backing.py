"""What a thin pool lies on: two files with a loop device over each, two block devices, or one that is split.

Every call can be made again, whatever a dead process left of the one before. While the pool is down its metadata can
be opened; a repaired one is written to a new area, which takes the place of the old one in a single write or rename,
and the old one is kept until it is dropped.

Knows: files, loop devices, labels. Refuses to know: the pool in the kernel (``stack``), and what metadata says.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from blockwright.device.base import BlockDevice
from blockwright.device.file import open_path
from blockwright.device.hostblock import HostBlockDevice
from blockwright.device.inplace import LOOKED_AT, check_blank
from blockwright.device.physical import check_meant
from blockwright.device.window import Window
from blockwright.errors import FormatError, InUse, NoSpace, NotFound, UsageError
from blockwright.system.linux import loop
from blockwright.system.linux.dm import Linear, Mapper
from blockwright.system.linux.loop import LoopState
from blockwright.system.linux.thin import Metadata, Superblock, metadata_size
from blockwright.system.linux.thin.layout import BLOCK as METADATA_BLOCK
from blockwright.system.linux.thin.layout import MAGIC
from blockwright.units import MiB, align_down, align_up
from blockwright.volume.spec import PoolSpec
from blockwright.volume.thin.label import Label, parse_label
from blockwright.volume.thin.settings import form_of, metadata_wanted, settled, size_of

_DATA: Final = "data"
_METADATA: Final = "metadata"
_NEW: Final = "metadata.new"
_OLD: Final = "metadata.old"
_ZEROS: Final = bytes(MiB)
_LABEL: Final = 4096
"""Bytes that are read, and written, for a label: its sector, and zeros, for disks with sectors of as many."""


class Backing(ABC):
    """What one pool lies on. ``block`` is the bytes of a block of data."""

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec
        self.block = spec.number("block")
        self.spare: tuple[str | None, bool] = (None, False)
        """A device for repaired metadata where there is no other place, and whether it may hold something."""

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether there is anything to bring up; nothing is left where it was destroyed halfway."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The bytes for data. Raises NotFound where it is gone."""

    @abstractmethod
    def attach(self) -> tuple[str, str]:
        """Return the devices for metadata and for data, attached where they have to be. Raises NotFound."""

    @abstractmethod
    def detach(self) -> None:
        """Have nothing of it in the kernel that ``attach`` put there."""

    @abstractmethod
    def metadata_path(self) -> str:
        """Return where the metadata can be read while the pool is down. Raises NotFound."""

    def metadata(self) -> BlockDevice:
        """Return the metadata, to be read while the pool is down. Raises NotFound."""
        device = open_path(self.metadata_path(), force_unlocked=True)
        if isinstance(device, HostBlockDevice):
            device.forget_cache()  # a pool has written past it
        return device

    def grow(self, data: int, metadata: int) -> None:
        """Have as many bytes of each, where it has less; a device is as large as it is."""

    def check_growth(self, data: int, metadata: int) -> None:
        """Raise UsageError where it cannot ``grow`` so far."""

    @abstractmethod
    def detail(self) -> Mapping[str, Any]:
        """Return where it is, as JSON has it."""

    @abstractmethod
    def destroy(self) -> None:
        """Have nothing of the pool; devices are blank at their ends."""

    def undo(self) -> None:
        """Have nothing of a pool that was not made to its end, nor touch what may be another's by now."""
        self.destroy()

    @abstractmethod
    @contextmanager
    def areas(self, least: int, wanted: int) -> Iterator[tuple[str, str]]:
        """Have paths of the metadata and of a blank area for a new one: ``least`` bytes, ``wanted`` if that can be.

        Raises UsageError where there is no such area, NoSpace where it is too small.
        """

    @abstractmethod
    def swap(self) -> None:
        """Have what is in the new area be the metadata, in one step; the old one is kept."""

    @abstractmethod
    def swap_back(self) -> None:
        """Have the metadata be what it was before ``swap``."""

    @abstractmethod
    def drop(self) -> None:
        """Have neither a new area nor an old one."""


Intend = Callable[[PoolSpec], None]
"""Called with the settled specification when nothing speaks against it, before anything is made."""


def make_backing(spec: PoolSpec, intend: Intend) -> PoolSpec:
    """Make what a pool lies on, and return its specification with all options settled.

    Raises UsageError for options, and where a device or directory holds something; InUse, NoSpace, OSError.
    """
    form = form_of(spec)
    if form == "files":
        return make_files(spec, intend)
    options, force = settled(spec), bool(spec.options.get("force"))
    if form == "devices":
        return _make_devices(spec, options, intend, force=force)
    return _make_split(spec, options, intend, force=force)


def backing_of(spec: PoolSpec, mapper: Mapper) -> Backing:
    """Return what a pool of this specification lies on. Raises Corrupt for one that does not hold."""
    if "device" in spec.options:
        return Split(spec, mapper)
    return Devices(spec) if "data" in spec.options else Files(spec)


# -- files -----------------------------------------------------------------------------------------------------------


def make_files(spec: PoolSpec, intend: Intend) -> PoolSpec:
    """Make the files of a pool, as ``make_backing`` does."""
    form_of(spec)
    options = settled(spec)
    block = options["block"]
    size = align_up(size_of(spec, "size"), block)
    if size > options.get("limit", size):
        raise UsageError(f"pool {spec.name}: limit: expected {size} bytes or more, found {options['limit']}")
    metadata = metadata_wanted(spec, size, block)
    folder = os.path.abspath(str(spec.options.get("directory") or os.path.join(spec.folder, "volumes")))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.listdir(folder):
        raise UsageError(f"{folder}: expected an empty directory for the files of pool {spec.name}")
    made = replace(spec, options={"directory": folder, **options})
    intend(made)
    try:
        for name, length in ((_DATA, size), (_METADATA, metadata)):
            with open(os.path.join(folder, name), "xb") as file:
                file.truncate(length)
    except BaseException:
        remove_files(folder)
        raise
    return made


def remove_files(folder: str) -> None:
    """Have neither the files of a pool nor their folder. Raises InUse where that holds others."""
    for name in (_METADATA, _DATA, _NEW, _OLD):
        try:
            os.unlink(os.path.join(folder, name))
        except FileNotFoundError:
            continue
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        pass
    except OSError:
        raise InUse(f"{folder}: holds files that are no pool's") from None


class Files(Backing):
    """The files ``data`` and ``metadata`` of a folder, sparse, with a loop device over each."""

    def __init__(self, spec: PoolSpec) -> None:
        super().__init__(spec)
        self._folder = spec.text("directory")

    @property
    def exists(self) -> bool:
        return os.path.exists(self._path(_METADATA))

    @property
    def size(self) -> int:
        return os.stat(self._path(_DATA)).st_size

    def attach(self) -> tuple[str, str]:
        return self._device(_METADATA), self._device(_DATA)

    def _device(self, name: str) -> str:
        there = self._loops(name)
        return there[0].path if there else loop.attach(self._path(name)).path

    def _loops(self, name: str) -> list[LoopState]:
        """Return the loop devices that are over all of a file, to be written to; others are not the pool's."""
        found = loop.find(self._path(name), offset=0)
        return [each for each in found if not each.read_only and not each.size_limit]

    def detach(self) -> None:
        for name in (_DATA, _METADATA):
            with suppress(NotFound):  # the file is gone
                for each in self._loops(name):
                    loop.detach(each.number, sequence=each.sequence)

    def metadata_path(self) -> str:
        return self._path(_METADATA)

    def grow(self, data: int, metadata: int) -> None:
        for name, length in ((_METADATA, metadata), (_DATA, data)):
            if os.stat(self._path(name)).st_size < length:
                os.truncate(self._path(name), length)
            for each in self._loops(name):
                loop.refresh(each.path)

    def detail(self) -> Mapping[str, Any]:
        return {"directory": self._folder}

    def destroy(self) -> None:
        remove_files(self._folder)

    @contextmanager
    def areas(self, least: int, wanted: int) -> Iterator[tuple[str, str]]:
        new = self._path(_NEW)
        with open(new, "wb") as file:
            file.truncate(max(least, wanted, os.stat(self._path(_METADATA)).st_size))
        yield self._path(_METADATA), new

    def swap(self) -> None:
        with suppress(FileExistsError):
            os.link(self._path(_METADATA), self._path(_OLD))
        os.rename(self._path(_NEW), self._path(_METADATA))
        self._sync()

    def swap_back(self) -> None:
        os.replace(self._path(_OLD), self._path(_METADATA))
        self._sync()

    def drop(self) -> None:
        for name in (_NEW, _OLD):
            with suppress(FileNotFoundError):
                os.unlink(self._path(name))

    def _sync(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


# -- devices ---------------------------------------------------------------------------------------------------------


def _claimed(path: str, *, force: bool) -> HostBlockDevice:
    """Return a device that may be written over. Raises UsageError, InUse, as ``pool create`` says."""
    meant = check_meant(os.path.realpath(path))
    device = HostBlockDevice(path, writable=True)
    try:
        if not force and not meant:
            check_blank(device, path)
    except BaseException:
        device.close()
        raise
    return device


def _blank(device: BlockDevice) -> None:
    """Have zeros at both ends, so that nothing takes it for what it was."""
    part = min(LOOKED_AT, device.size)
    device.write(0, _ZEROS[:part])
    tail = align_down(device.size - part, _LABEL)
    device.write(tail, bytes(device.size - tail))
    device.flush()


def _make_devices(spec: PoolSpec, options: dict[str, Any], intend: Intend, *, force: bool) -> PoolSpec:
    paths = {name: os.path.abspath(spec.text(name)) for name in (_DATA, _METADATA)}
    if os.path.realpath(paths[_DATA]) == os.path.realpath(paths[_METADATA]):
        raise UsageError(f"pool {spec.name}: expected two devices, found {paths[_DATA]} twice")
    with _claimed(paths[_DATA], force=force) as data, _claimed(paths[_METADATA], force=force) as metadata:
        wanted = metadata_wanted(spec, data.size, options["block"])
        if metadata.size < wanted:
            raise NoSpace(f"{paths[_METADATA]}: expected {wanted} bytes or more for metadata, found {metadata.size}")
        made = replace(spec, options={**paths, **options})
        intend(made)
        _blank(data)
        _blank(metadata)
    return made


class Devices(Backing):
    """A block device for data, and one for metadata; each is the pool's as a whole."""

    def __init__(self, spec: PoolSpec) -> None:
        super().__init__(spec)
        self._data, self._metadata = spec.text(_DATA), spec.text(_METADATA)
        self._new: str | None = None

    @property
    def exists(self) -> bool:
        return True

    @property
    def size(self) -> int:
        return align_down(_size_of(self._data), self.block)

    def attach(self) -> tuple[str, str]:
        return _there(self._metadata), _there(self._data)

    def detach(self) -> None:
        """There is nothing to detach."""

    def metadata_path(self) -> str:
        return _there(self._metadata)

    def check_growth(self, data: int, metadata: int) -> None:
        if data > self.size:
            raise UsageError(f"{self._data}: expected {data} bytes, found {self.size}: the device has to grow first")
        if metadata > max(_size_of(self._metadata), metadata_size(data, self.block)):
            here = _size_of(self._metadata)
            raise UsageError(
                f"{self._metadata}: expected {metadata} bytes, found {here}: the device has to grow first"
            )

    def undo(self) -> None:
        with suppress(FormatError, OSError, NotFound), HostBlockDevice(self._metadata, writable=True) as device:
            device.forget_cache()
            found = Metadata(device)
            if found.superblock.transaction == 0 and not any(found.devices()):
                _blank(device)

    def detail(self) -> Mapping[str, Any]:
        return {_DATA: self._data, _METADATA: self._metadata}

    def destroy(self) -> None:
        """Have both ends of both blank, unless their names are another's by now, which has no metadata of a pool."""
        with suppress(FileNotFoundError), HostBlockDevice(self._metadata, writable=True) as metadata:
            metadata.forget_cache()
            if Superblock.parse(metadata.read(0, METADATA_BLOCK)).magic != MAGIC:
                return
            with suppress(FileNotFoundError), HostBlockDevice(self._data, writable=True) as data:
                _blank(data)
            _blank(metadata)

    @contextmanager
    def areas(self, least: int, wanted: int) -> Iterator[tuple[str, str]]:
        new, force = self.spare
        if new is None:
            raise UsageError(
                f"pool {self.spec.name}: expected a device for the repaired metadata, since the only copy is never "
                f"written over: --metadata DEVICE, of {least} bytes"
            )
        if os.path.realpath(new) in (os.path.realpath(self._data), os.path.realpath(self._metadata)):
            raise UsageError(f"{new}: is the pool's own: expected another device for the repaired metadata")
        with _claimed(new, force=force) as device:
            if device.size < least:
                raise NoSpace(f"{new}: expected {least} bytes or more for metadata, found {device.size}")
            _blank(device)
        self._new = os.path.abspath(new)
        yield _there(self._metadata), self._new

    def swap(self) -> None:
        assert self._new is not None
        self._metadata, self._new = self._new, self._metadata
        self._save()

    def swap_back(self) -> None:
        self.swap()

    def _save(self) -> None:
        self.spec = replace(self.spec, options={**self.spec.options, _METADATA: self._metadata})
        self.spec.save()

    def drop(self) -> None:
        """The old device stays as it is: it is not the pool's any more."""


def _there(path: str) -> str:
    if not os.path.exists(path):
        raise NotFound(f"{path}: no such device")
    return path


def _size_of(path: str) -> int:
    with HostBlockDevice(_there(path), force_unlocked=True) as device:
        return device.size


# -- one device ------------------------------------------------------------------------------------------------------


def _make_split(spec: PoolSpec, options: dict[str, Any], intend: Intend, *, force: bool) -> PoolSpec:
    path = os.path.abspath(spec.text("device"))
    with _claimed(path, force=force) as device:
        block = options["block"]
        asked = metadata_wanted(spec, max(device.size, block), block)
        label = Label.of(spec.name, spec.created_ns, device.size, block, asked)
        split = {"metadata_bytes": label.metadata, "data_start": label.data_start}
        made = replace(spec, options={"device": path, **options, **split})
        intend(made)
        _blank(device)
        for area in (0, 1):
            device.write(label.start_of(area), _ZEROS)
        device.write(0, label.pack().ljust(_LABEL, b"\0"))
        device.flush()
    return made


class Split(Backing):
    """One device behind a label: two areas for metadata, of which one is in use, and data.

    It is told by its label: where another device has its name, or none, every block device is looked at.
    """

    def __init__(self, spec: PoolSpec, mapper: Mapper) -> None:
        super().__init__(spec)
        self._mapper = mapper
        self._named = spec.text("device")

    def _device(self) -> tuple[str, Label]:
        """Return where the device is now, and its label. Raises NotFound."""
        for path in (self._named, *_block_devices()):
            label = self._label(path)
            if label is not None:
                return path, label
        raise NotFound(f"{self._named}: pool {self.spec.name} is on no device that is here")

    def _label(self, path: str) -> Label | None:
        try:
            with HostBlockDevice(path, force_unlocked=True) as device:
                device.forget_cache()
                label = parse_label(device.read(0, min(_LABEL, device.size)), device.size)
        except (OSError, FormatError, UsageError):
            return None
        return label if label.key == self.spec.created_ns else None

    @property
    def exists(self) -> bool:
        try:
            self._device()
        except NotFound:
            return False
        return True

    @property
    def size(self) -> int:
        path, label = self._device()
        return label.data_size(_size_of(path))

    def _part(self, name: str, path: str, start: int, length: int) -> str:
        """Return a device over a part, as it was asked for last."""
        full, uuid = f"{self.spec.name}++{name}", f"blockwright-{self.spec.created_ns:x}-{name}"
        table = [Linear(length, path, start)]
        try:
            info = self._mapper.info(full)
        except NotFound:
            return self._mapper.create(full, table, uuid=uuid)
        if info.uuid != uuid:
            raise InUse(f"{full}: a device of that name is somebody else's")
        if not info.active:
            self._mapper.remove(full)
            return self._mapper.create(full, table, uuid=uuid)
        if sum(each.length for each in self._mapper.table(full)) != length:
            self._mapper.replace(full, table)
        return info.path

    def attach(self) -> tuple[str, str]:
        path, label = self._device()
        metadata = self._part(_METADATA, path, label.start_of(label.active), label.metadata)
        return metadata, self._part(_DATA, path, label.data_start, label.data_size(_size_of(path)))

    def detach(self) -> None:
        for name in (_DATA, _METADATA, "spare"):
            full = f"{self.spec.name}++{name}"
            with suppress(NotFound):
                if self._mapper.info(full).uuid == f"blockwright-{self.spec.created_ns:x}-{name}":
                    self._mapper.remove(full)

    def metadata(self) -> BlockDevice:
        path, label = self._device()
        device = HostBlockDevice(path, force_unlocked=True)
        device.forget_cache()
        return Window(device, label.start_of(label.active), label.metadata, read_only=True)

    def metadata_path(self) -> str:
        path, label = self._device()
        return self._part(_METADATA, path, label.start_of(label.active), label.metadata)

    def check_growth(self, data: int, metadata: int) -> None:
        _, label = self._device()
        if metadata > max(label.metadata, metadata_size(data, self.block)):
            raise UsageError(
                f"{self._named}: metadata has {label.metadata} bytes and does not grow, since data is behind it: "
                f"found {metadata}: make a pool of two devices, or of one with --option metadata_size={metadata}, "
                "and copy the volumes there"
            )
        if data > self.size:
            raise UsageError(
                f"{self._named}: expected {data} bytes for data, found {self.size}: it has to grow first"
            )

    def detail(self) -> Mapping[str, Any]:
        try:
            path, label = self._device()
        except NotFound:
            return {"device": self._named}
        return {"device": path, "area": label.active}

    def destroy(self) -> None:
        with suppress(NotFound):
            path, _ = self._device()
            with HostBlockDevice(path, writable=True) as device:
                _blank(device)

    @contextmanager
    def areas(self, least: int, wanted: int) -> Iterator[tuple[str, str]]:
        path, label = self._device()
        old = self._part(_METADATA, path, label.start_of(label.active), label.metadata)
        new = self._part("spare", path, label.start_of(1 - label.active), label.metadata)
        with HostBlockDevice(new, writable=True) as device:
            device.write(0, bytes(METADATA_BLOCK))
            device.flush()
        yield old, new

    def swap(self) -> None:
        path, label = self._device()
        self.detach()
        with HostBlockDevice(path, writable=True) as device:
            device.write(0, label.swapped.pack().ljust(_LABEL, b"\0"))
            device.flush()

    def swap_back(self) -> None:
        self.swap()

    def drop(self) -> None:
        """The other area stays as it is until it is needed."""


def _block_devices() -> Iterator[str]:
    try:
        names = sorted(os.listdir("/sys/class/block"))
    except OSError:
        return
    for name in names:
        if not name.startswith("dm-"):
            yield f"/dev/{name.replace('!', '/')}"
