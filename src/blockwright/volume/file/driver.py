"""Volumes as files in a folder: sparse, snapshots by shared blocks or by layers.

Where the file system lets files share blocks, a snapshot is such a file. Elsewhere it freezes the layer that the
origin writes to; origin and snapshot both get an image over it, and the journal says so in one transaction. What only
one other layer stands on is merged with that when something is removed.

Knows: which files make a volume. Refuses to know: the order of things (``volume.driver``), bytes (``chain``).
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import ClassVar, Final

from blockwright.device.base import BlockDevice
from blockwright.device.clone import can_clone, clone_file
from blockwright.errors import Corrupt, FormatError, InUse, NoSpace, NotSupported, UsageError
from blockwright.finding import Finding
from blockwright.journal import Lease, Part
from blockwright.volume.driver import Driver, Intend, unintended
from blockwright.volume.engine import Fill
from blockwright.volume.file import chain, checking, export, exposure, survey
from blockwright.volume.file.device import VolumeDevice
from blockwright.volume.file.holder import StandStill, remove_traces
from blockwright.volume.file.layers import (
    MAX_DEPTH,
    PART,
    PARTIAL,
    SHARED,
    FileName,
    Layer,
    Layers,
    parse_file_name,
    put_layer,
    remove_layers,
)
from blockwright.volume.found import Found, PoolStatus
from blockwright.volume.info import Operation, State, VolumeInfo
from blockwright.volume.mounting import settle
from blockwright.volume.spec import PoolSpec
from blockwright.volume.steps import Change, Checkpoint, Plan, Step, unwatched

SNAPSHOTS: Final = ("auto", "reflink", "overlay")
_OPTIONS: Final = {"directory", "snapshots", "expose"}


class FileDriver(Driver):
    """Volumes as files in the folder that the specification names."""

    kind: ClassVar[str] = "file"
    tables: ClassVar[Part | None] = PART

    def __init__(self, spec: PoolSpec, *, checkpoint: Checkpoint = unwatched) -> None:
        super().__init__(spec, checkpoint=checkpoint)
        self._folder = spec.text("directory")
        self._layers = Layers(self._journal)
        self._still = ExitStack()

    # -- the pool --------------------------------------------------------------------------------------------

    @classmethod
    def make(cls, spec: PoolSpec, *, intend: Intend = unintended, checkpoint: Checkpoint = unwatched) -> PoolSpec:
        if unknown := sorted(set(spec.options) - _OPTIONS):
            raise UsageError(f"pool {spec.name}: the driver file has no option {unknown[0]}")
        folder = os.path.abspath(str(spec.options.get("directory") or os.path.join(spec.folder, "volumes")))
        snapshots = spec.options.get("snapshots") or "auto"
        if snapshots not in SNAPSHOTS:
            raise UsageError(f"pool {spec.name}: snapshots: expected {' or '.join(SNAPSHOTS)}, found {snapshots!r}")
        expose = spec.options.get("expose") or "auto"
        if expose not in exposure.EXPOSE:
            raise UsageError(f"pool {spec.name}: expose: expected {' or '.join(exposure.EXPOSE)}, found {expose!r}")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.listdir(folder):
            raise UsageError(f"{folder}: expected an empty directory for the volumes of pool {spec.name}")
        shares = snapshots != "overlay" and can_clone(folder)
        if snapshots == "reflink" and not shares:
            raise NotSupported(f"{folder}: its file system does not let files share blocks: use --snapshots overlay")
        settled = {"directory": folder, "snapshots": "reflink" if shares else "overlay", "expose": expose}
        made = replace(spec, options=settled)
        intend(made)
        checkpoint("pool: laid out")
        return made

    @classmethod
    def unmake(cls, spec: PoolSpec) -> None:
        with suppress(OSError):  # it is gone, or another's by now
            os.rmdir(spec.text("directory"))

    def _damaged(self) -> Mapping[str, str]:
        busy = {name for each in self._journal.intents() for name in self._change_of(each).names}
        there = [each for each in self._records.all() if each.name not in busy and each.state is not State.LOST]
        return checking.damaged(self._folder, there, self._layers)

    def _pool_status(self) -> PoolStatus:
        used = survey.used_bytes(self._folder)
        return PoolStatus(True, used, used + survey.free_bytes(self._folder), detail=dict(self.spec.options))

    def _pool_check(self) -> Sequence[Finding]:
        pending = {name for intent in self._journal.intents() for name in _files_of(self._change_of(intent))}
        return checking.check(self._folder, self._records.all(), self._layers, pending)

    def _pool_destroy(self) -> None:
        self._sweep()
        for lease in self._journal.leases():
            remove_traces(str(lease.fields.get("socket", "")))
        try:
            os.rmdir(self._folder)
        except FileNotFoundError:
            pass
        except OSError:
            raise InUse(f"{self._folder}: holds files that are not of pool {self.spec.name}") from None

    # -- what there is ---------------------------------------------------------------------------------------

    def _observe(self) -> Mapping[int, Found]:
        names = set(survey.files_in(self._folder))
        seen = exposure.Seen()
        leases = {each.name: each for each in self._journal.leases() if each.owner.alive}
        found: dict[int, Found] = {}
        for volume in self._records.all():
            try:
                layers = self._layers.chain(_head(volume))
            except FormatError:
                continue
            if not all(each.file in names for each in layers):
                continue
            path = self._path(layers[0].file)
            found[volume.id] = seen.found(volume, path, leases.get(export.lease_name(volume.id)))
        known = {each.file for each in self._layers.all()}
        known.update(*(_files_of(self._change_of(each)) for each in self._journal.intents()))
        strange = [each for each in map(parse_file_name, names - known) if each is not None]
        if strange:
            # Nothing new is ever called what is there already.
            self._records.saw_number(max(each.volume for each in strange))
            self._layers.saw_number(max(each.layer for each in strange))
            self._find_unrecorded(names, known, found)
        return found

    def _find_unrecorded(self, names: set[str], known: set[str], found: dict[int, Found]) -> None:
        """Add volumes that only the files themselves tell of."""
        seen = survey.look_at(self._folder, sorted(names))
        numbers = {each.file: each.id for each in self._layers.all()}
        taken = set(numbers.values())
        for number, head in survey.heads_of(seen).items():
            if number in found or str(head.name) in known:
                continue
            files = survey.chain_of(head, seen)
            for each in files:
                self._number(each.name, numbers, taken)
            origin = files[1].name.name if len(files) > 1 and files[1].name.volume != number else None
            layers = [[numbers[str(each.name)], str(each.name), each.size] for each in files]
            found[number] = Found(
                number, head.name.name, head.size, origin, extra={"layer": layers[0][0], "layers": layers}
            )

    def _number(self, name: FileName, numbers: dict[str, int], taken: set[int]) -> None:
        """Give a file the number of a layer: its own, unless another file has that, of which it may be a copy."""
        if str(name) not in numbers:
            numbers[str(name)] = self._layers.next_number() if name.layer in taken else name.layer
            taken.add(numbers[str(name)])

    def _adopt(self, found: Found, volume: VolumeInfo) -> VolumeInfo:
        below: int | None = None
        with self._journal.transaction() as db:
            for number, file, size in reversed(found.extra["layers"]):
                put_layer(db, Layer(number, below, file, size))
                below = number
        return replace(volume, extra={"layer": found.extra["layer"]})

    def _sweep(self) -> Sequence[str]:
        done = []
        pending = {name for intent in self._journal.intents() for name in _files_of(self._change_of(intent))}
        for name in survey.files_in(self._folder):
            whole = chain.filling(name)
            if whole is not None and whole not in pending and parse_file_name(whole):
                os.unlink(self._path(name))
                done.append(f"{name} was not whole")
        for lease in self._journal.leases():
            if not lease.owner.alive:
                export.clean(lease)
                self._journal.give_back(lease)
        if not self._journal.intents():
            checking.learn_sizes(self._folder, self._layers)
        for number in self._layers.lone_parents():
            self._merge_later(number)
        return done

    def _merge_later(self, parent: int) -> None:
        """Do now what a removal left undone since somebody had a volume open."""
        if (change := self._merging(parent)) is not None:
            self._follow(change, self._intend(change, owned=False))

    # -- plans -----------------------------------------------------------------------------------------------

    def _prepare(self, change: Change) -> Change:
        prepare = {
            Operation.CREATE: self._prepare_create,
            Operation.SNAPSHOT: self._prepare_snapshot,
            Operation.ACTIVATE: self._prepare_activate,
            Operation.REMOVE: self._prepare_remove,
        }.get(change.operation)
        return self._prepare_other(change) if prepare is None else prepare(change)

    def _prepare_other(self, change: Change) -> Change:
        if change.operation is Operation.GROW:
            self._verified(change.after)
        return replace(change, extra={"file": self._layers.get(_head(change.after)).file})

    def _plan(self, change: Change, fill: Fill | None) -> Plan:
        plans = {
            Operation.SNAPSHOT: self._plan_snapshot,
            Operation.ACTIVATE: self._plan_activate,
            Operation.DEACTIVATE: self._plan_deactivate,
            Operation.GROW: self._plan_grow,
            Operation.REMOVE: self._plan_remove,
            Operation.TIDY: self._plan_tidy,
        }
        if change.operation is Operation.CREATE:
            return self._plan_create(change, fill)
        return plans[change.operation](change)

    def _prepare_create(self, change: Change) -> Change:
        after, file = self._new_layer(change.after, "raw")
        return replace(change, after=after, extra={"files": [file]})

    def _new_layer(self, volume: VolumeInfo, form: str) -> tuple[VolumeInfo, str]:
        number = self._layers.next_number()
        return volume.with_extra(layer=number), str(FileName(volume.name, volume.id, number, form))

    def _plan_create(self, change: Change, fill: Fill | None) -> Plan:
        volume = change.after
        file = _text(change, "files")
        path = self._path(file)

        def content() -> None:
            assert fill is not None, "whoever finds it later takes it back"
            fill(path + PARTIAL, volume.size)

        def whole() -> None:
            if fill is None:
                chain.make_raw(path, volume.size)
                return
            length = os.stat(path + PARTIAL).st_size
            if length > volume.size:
                raise NoSpace(f"{volume.name}: expected content of at most {volume.size} bytes, found {length}")
            os.truncate(path + PARTIAL, volume.size)
            chain.set_writable(path + PARTIAL, writable=True)
            chain.sync_file(path + PARTIAL)
            chain.publish(path)

        steps = (Step("fill", content, unlocked=True), Step("make", whole)) if fill else (Step("make", whole),)
        return Plan(
            steps,
            (
                Step("discard", lambda: chain.discard(path)),
                Step("discard what filled it", lambda: chain.discard_filling(path)),
            ),
            record=lambda db: put_layer(db, Layer(_head(volume), None, file, volume.size)),
        )

    def _prepare_snapshot(self, change: Change) -> Change:
        origin = change.origin
        assert origin is not None, "a snapshot has one"
        layers = self._verified(origin)
        way = self._way(origin, layers)
        if way != "clone" and origin.state is not State.INACTIVE and self._lease_of(origin) is None:
            raise InUse(
                f"{origin.name}: is active as {origin.path}, which cannot change its layers: deactivate it, or have "
                f"it served ('blockwright serve {origin.address}'), which can go on meanwhile"
            )
        form = layers[0].form if way == "clone" else "raw" if way == "copy" else "qcow2"
        after, file = self._new_layer(change.after, form)
        files = [file, self._new_layer(origin, "qcow2")[1]] if way == "overlay" else [file]
        return replace(
            change, after=after, extra={"way": way, "files": files, "chain": [each.file for each in layers]}
        )

    def _way(self, origin: VolumeInfo, layers: Sequence[Layer]) -> str:
        """Return how a snapshot is taken: ``beside`` a layer that has nothing of its own nothing needs to change."""
        if self.spec.text("snapshots") == "reflink":
            return "clone"
        if self._lease_of(origin) is None and chain.is_empty(self._path(layers[0].file)):
            return "beside"
        return "copy" if len(layers) >= MAX_DEPTH else "overlay"

    def _plan_snapshot(self, change: Change) -> Plan:
        origin, way = change.origin, change.extra["way"]
        assert origin is not None, "a snapshot has one"
        below = [self._path(str(each)) for each in change.extra["chain"]]
        made = [str(each) for each in change.extra["files"]]
        paths = [self._path(each) for each in made]
        settled = Step("settle", lambda: settle(origin))  # before nobody answers who would take what is settled
        still = Step("still", lambda: self._stand_still(origin))
        if way == "overlay":
            steps: tuple[Step, ...] = (
                settled,
                still,
                Step("freeze", lambda: chain.set_writable(below[0], writable=False)),
                # In this order the files alone say at any time which of them is the origin's.
                Step("upper", lambda: chain.make_overlay(paths[1], origin.size, below[0])),
                Step("snapshot", lambda: chain.make_overlay(paths[0], origin.size, below[0])),
            )
            undo = (*self._discards(paths), Step("thaw", lambda: chain.set_writable(below[0], writable=True)))
        else:
            make: dict[object, Callable[[], None]] = {
                "clone": lambda: self._clone(below[0], paths[0]),
                "copy": lambda: chain.make_copy(paths[0], below),
                "beside": lambda: chain.make_overlay(paths[0], origin.size, below[1]),
            }
            steps, undo = (settled, still, Step(str(way), make[way])), self._discards(paths)

        def record(db: sqlite3.Connection) -> None:
            head = self._layers.get(_head(origin))
            parent = {"overlay": head.id, "copy": None}.get(way, head.parent)
            put_layer(db, Layer(_head(change.after), parent, made[0], origin.size))
            if way == "overlay":
                upper = parse_file_name(made[1])
                assert upper is not None, "it was made from one"
                put_layer(db, Layer(upper.layer, head.id, made[1], origin.size))
                self._records.put(origin.with_extra(layer=upper.layer))

        return Plan(steps, undo, record=record, release=self._still.close)

    def _clone(self, source: str, path: str) -> None:
        chain.discard(path)
        if not clone_file(source, path + PARTIAL):
            raise NotSupported(f"{path}: its file system does not let files share blocks any more")
        chain.sync_file(path + PARTIAL)
        chain.publish(path)

    def _discards(self, paths: Sequence[str]) -> tuple[Step, ...]:
        return tuple(Step(f"discard {at}", partial(chain.discard, path)) for at, path in enumerate(paths))

    def _stand_still(self, volume: VolumeInfo) -> None:
        """Have the process that writes to the volume stand still until the plan is done or taken back."""
        lease = self._lease_of(volume)
        if lease is not None:
            self._still.enter_context(StandStill(str(lease.fields.get("socket")), volume.name))

    def _lease_of(self, volume: VolumeInfo) -> Lease | None:
        name = _lease_name(volume)
        return next((each for each in self._journal.leases() if each.name == name and each.owner.alive), None)

    def _refuse_open(self, volume: VolumeInfo) -> None:
        lease = self._lease_of(volume)
        if lease is not None:
            raise InUse(f"{volume.name}: is in use: {lease.owner.text} writes to it")

    def _verified(self, volume: VolumeInfo) -> list[Layer]:
        """Return the layers of a volume, which are what the journal says. Raises Damaged, NotFound."""
        layers = self._layers.chain(_head(volume))
        checking.verify(self._folder, volume.name, layers)
        return layers

    def _prepare_activate(self, change: Change) -> Change:
        self._refuse_open(change.after)
        file = self._verified(change.after)[0].file
        way = exposure.way_of(self._path(file), self.spec.text("expose"))
        if way == "device":
            export.check_device(change.after)
        return replace(change, extra={"file": file, "way": way})

    def _plan_activate(self, change: Change) -> Plan:
        path, way = self._path(_text(change, "file")), str(change.extra.get("way", "path"))
        return exposure.activate_plan(self.spec, self._journal, change.after, path, way)

    def _plan_deactivate(self, change: Change) -> Plan:
        path = self._path(_text(change, "file"))
        return exposure.deactivate_plan(self._journal, change.after, path)

    def _plan_grow(self, change: Change) -> Plan:
        path, volume = self._path(_text(change, "file")), change.after
        layers = [self._path(each.file) for each in self._layers.chain(_head(volume))]
        before = volume.size if change.before is None else change.before.size
        refresh = Step("refresh", lambda: self._refresh(volume, path))
        return Plan(
            (
                Step("still", lambda: self._stand_still(volume)),
                Step("grow", lambda: chain.resize(layers, volume.size)),
                refresh,
            ),
            # Nobody has been told of the new size, so nothing has been written there.
            (Step("shrink", lambda: chain.resize(layers, before)), refresh),
            forward=True,
            record=lambda _db: self._layers.learn_size(_head(volume), volume.size),
            release=self._still.close,
        )

    def _refresh(self, volume: VolumeInfo, path: str) -> None:
        """Have what is seen of the volume as large as it is; whoever exports it can go on for that."""
        self._still.close()
        exposure.refresh(path)
        export.resize(volume, chain.size_of(path))

    def _prepare_remove(self, change: Change) -> Change:
        self._refuse_open(change.after)
        gone: list[Layer] = []
        try:
            layers = self._layers.chain(_head(change.after))
        except FormatError:
            layers = []
        for each in layers:
            numbers = {layer.id for layer in gone}
            if any(child.id not in numbers for child in self._layers.children(each.id)):
                break
            gone.append(each)
        extra = {"files": [each.file for each in gone], "layers": [each.id for each in gone]}
        rest = layers[len(gone) :]
        return replace(change, extra={**extra, "below": rest[0].id if rest else None})

    def _plan_remove(self, change: Change) -> Plan:
        paths = [self._path(str(each)) for each in change.extra["files"]]
        numbers = [int(each) for each in change.extra["layers"]]
        below = change.extra["below"]
        return Plan(
            self._discards(paths),
            forward=True,
            record=lambda db: remove_layers(db, numbers),
            then=lambda: None if below is None else self._merging(int(below)),
        )

    # -- layers merged ---------------------------------------------------------------------------------------

    def _merging(self, parent: int) -> Change | None:
        """Return how that layer is merged with the only one that stands on it; None where that cannot be done now."""
        children = self._layers.children(parent)
        if len(children) != 1:
            return None
        upper, lower = children[0], self._layers.get(parent)
        if not checking.may_merge(self._folder, self._layers.chain(upper.id)):
            return None
        volumes = [each for layer in self._above(upper.id) for each in self._records.having("layer", layer)]
        if not volumes or any(self._lease_of(each) or each.state is not State.INACTIVE for each in volumes):
            return None
        owner = next((each for each in volumes if _head(each) == upper.id), None)
        number = self._layers.next_number()
        if owner is None:
            merged, owner = FileName(SHARED, 0, number, lower.form), volumes[0]
        else:
            merged = FileName(owner.name, owner.id, number, lower.form)
        extra = {
            "upper": upper.id,
            "lower": lower.id,
            "number": number,
            "files": [str(merged)],
            "old": [upper.file, lower.file],
            "chain": [each.file for each in self._layers.chain(upper.id)],
            "children": [each.id for each in self._layers.children(upper.id)],
            "names": [each.name for each in volumes],
        }
        return Change(Operation.TIDY, owner, owner, extra=extra)

    def _above(self, number: int) -> Iterator[int]:
        """Yield that layer and all that stand on it."""
        waiting = [number]
        while waiting:
            each = waiting.pop()
            yield each
            waiting += [child.id for child in self._layers.children(each)]

    def _plan_tidy(self, change: Change) -> Plan:
        extra = change.extra
        if "drop" in extra:
            return Plan(self._discards([self._path(str(each)) for each in extra["drop"]]), forward=True)
        upper, lower, number = int(extra["upper"]), int(extra["lower"]), int(extra["number"])
        files = [self._path(str(each)) for each in extra["chain"]]
        merged = self._path(_text(change, "files"))
        children = [int(each) for each in extra["children"]]

        def rebase(below: str) -> None:
            for each in children:
                chain.rebase(self._path(self._layers.get(each).file), below)

        def record(db: sqlite3.Connection) -> None:
            parent, size = self._layers.get(lower).parent, self._layers.get(upper).size
            remove_layers(db, [upper, lower])
            put_layer(db, Layer(number, parent, os.path.basename(merged), size or chain.size_of(merged)))
            for each in children:
                put_layer(db, replace(self._layers.get(each), parent=number))
            for volume in self._records.having("layer", upper):
                self._records.put(volume.with_extra(layer=number))

        return Plan(
            (
                Step("merge", lambda: self._merge(upper, files, merged)),
                Step("link", lambda: chain.link(files[1], merged)),
                Step("rebase", lambda: rebase(merged)),
                Step("protect", lambda: chain.set_writable(merged, writable=not children)),
            ),
            (
                Step("rebase back", lambda: rebase(files[0])),
                Step("unlink", lambda: chain.unlink_other(merged, files[1])),
                Step("size", lambda: self._note_begun(upper, files[1])),
            ),
            forward=True,
            record=record,
            then=lambda: replace(change, extra={"drop": list(extra["old"])}),
        )

    def _merge(self, upper: int, files: Sequence[str], merged: str) -> None:
        """Merge the first two of the files. Raises Damaged, before anything is written, where one of them was cut."""
        if not chain.is_merged(files, merged):
            self._note_begun(upper, files[1])
            checking.verify(self._folder, "merge", self._layers.chain(upper))
            chain.merge(files)

    def _note_begun(self, upper: int, lower: str) -> None:
        """Have the size of the lower of two layers on record where a merge began: it is that of the upper then."""
        first, second = self._layers.chain(upper)[:2]
        if first.size is not None and first.size == chain.size_of(lower):
            self._layers.learn_size(second.id, first.size)

    # -- use -------------------------------------------------------------------------------------------------

    def _open(self, volume: VolumeInfo, *, writable: bool, force_unlocked: bool) -> BlockDevice:
        exported = export.path_of(export.lease_of(self._journal, volume.id))
        if exported is not None and not writable:
            return export.read(exported)
        self._verified(volume)
        first = self._open_layers(volume, writable=writable, force_unlocked=force_unlocked)
        if not writable:
            return first
        try:
            if volume.state is not State.INACTIVE and not force_unlocked:
                raise InUse(f"{volume.name}: is active as {volume.path}: deactivate it first, or read it only")
            if sys.platform == "win32":
                return first
            self._refuse_open(volume)
            return self._hold(volume, first)
        except BaseException:
            first.close()
            raise

    def open_layers(self, volume: VolumeInfo, *, writable: bool) -> BlockDevice:
        """Return the volume as a device of this process, as ``open`` does, while another one has the lock for it."""
        first = self._open_layers(volume, writable=writable, force_unlocked=False)
        if not writable or sys.platform == "win32":
            return first
        try:
            return self._hold(volume, first)
        except BaseException:
            first.close()
            raise

    def _hold(self, volume: VolumeInfo, first: BlockDevice) -> VolumeDevice:
        """Return the device, with a lease that says where it can be asked to stand still."""
        spec, name = self.spec, volume.name
        leases: list[Lease] = []

        def reopen() -> BlockDevice:
            with FileDriver(spec) as driver:
                return driver._open_layers(driver.get(name), writable=True, force_unlocked=False)

        def ended() -> None:
            with FileDriver(spec) as driver:
                for each in leases:
                    driver.journal.give_back(each)

        device = VolumeDevice(first, reopen, ended)
        try:
            leases.append(self._journal.take(_lease_name(volume), {"socket": device.control}))
        except BaseException:
            device.close()
            raise
        return device

    def _open_layers(self, volume: VolumeInfo, *, writable: bool, force_unlocked: bool) -> BlockDevice:
        layers = [self._path(each.file) for each in self._layers.chain(_head(volume))]
        return chain.open_chain(layers, writable=writable, force_unlocked=force_unlocked)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


def _head(volume: VolumeInfo) -> int:
    found = volume.extra.get("layer")
    if type(found) is not int:
        raise Corrupt(f"journal: volume {volume.name}: expected a layer, found {found!r}")
    return found


def _text(change: Change, key: str) -> str:
    """Return the one text of a change's extra."""
    found = change.extra[key]
    return str(found[0] if isinstance(found, list) else found)


def _files_of(change: Change) -> set[str]:
    """Return the files that a change makes or removes."""
    return {str(each) for key in ("files", "drop", "old") for each in change.extra.get(key, ())}


def _lease_name(volume: VolumeInfo) -> str:
    return f"volume/{volume.id}"
