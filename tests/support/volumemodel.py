"""Random operations on a pool against a dictionary of bytes: the machine, for whichever driver a test names."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from blockwright.device.base import BlockDevice
from blockwright.device.file import open_path
from blockwright.errors import InUse, NotFound
from blockwright.volume import Driver, State, VolumeInfo, destroy_pool, open_pool
from tests.support import volumes

SIZE = 128 * 1024
STEP = 4096


def bounded(examples: int, steps: int) -> settings:
    """So many runs, of at most so many operations."""
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


class Model(RuleBasedStateMachine):
    """``expected`` is what each volume must hold, ``active`` what is active and whether read-only, ``held`` the one
    that this process writes to.
    """

    kind: ClassVar[str]
    adopts: ClassVar[bool] = True
    """Whether a lost journal comes back with names and sizes."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="volume-model."))
        self.patch = pytest.MonkeyPatch()
        volumes.make_pool(self.kind, self.home, self.patch)
        self.pool = open_pool("p")
        self.expected: dict[str, bytearray] = {}
        self.active: dict[str, bool] = {}
        self.made = 0
        self.held: tuple[str, BlockDevice] | None = None

    def _name(self) -> str:
        self.made += 1
        return f"v{self.made}"

    @rule(target=names)
    def create(self) -> str:
        name = self._name()
        self.pool.create(name, SIZE)
        self.expected[name] = bytearray(SIZE)
        return name

    @rule(target=names, data=st.binary(min_size=1, max_size=3 * STEP))
    def fill(self, data: bytes) -> str:
        name = self._name()
        self.pool.create(name, SIZE, fill=volumes.fill_with(data))
        self.expected[name] = bytearray(data.ljust(SIZE, b"\0"))
        return name

    @rule(target=names, origin=names)
    def snapshot(self, origin: str) -> str:
        name = self._name()
        try:
            self.pool.snapshot(origin, name)
        except InUse:
            # Layers of what somebody else has as a file cannot change.
            assert self.kind == "overlay"
            assert origin in self.active
            self.pool.deactivate(origin)
            del self.active[origin]
            self.pool.snapshot(origin, name)
        self.expected[name] = bytearray(self.expected[origin])
        return name

    @rule(name=names, at=st.integers(0, SIZE // STEP - 1), value=st.integers(0, 255), count=st.integers(1, 3))
    def write(self, name: str, at: int, value: int, count: int) -> None:
        data = bytes([value]) * min(count * STEP, len(self.expected[name]) - at * STEP)
        if self.held is not None and self.held[0] == name:
            self.held[1].write(at * STEP, data)
        elif name not in self.active:
            volumes.write(self.pool, name, at * STEP, data)
        elif not self._through_its_path(name, at * STEP, data):
            return
        self.expected[name][at * STEP : at * STEP + len(data)] = data

    def _through_its_path(self, name: str, offset: int, data: bytes) -> bool:
        """Write as whoever was told the path; False where that cannot be."""
        path = self.pool.get(name).path
        assert path is not None
        if self.active[name] or (not path.endswith(".raw") and not path.startswith("/dev/")):
            with pytest.raises(InUse):
                self.pool.open(name, writable=True)
            return False
        with open_path(path, writable=True) as device:
            device.write(offset, data, durable=True)
        return True

    @rule(name=names)
    def hold(self, name: str) -> None:
        self._let_go()
        if name not in self.active:
            self.held = (name, self.pool.open(name, writable=True))

    @rule()
    def let_go(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self.held is not None:
            name, device = self.held
            assert device.read(0, device.size) == bytes(self.expected[name][: device.size])
            device.close()
            self.held = None

    @rule(name=names, more=st.integers(1, 8))
    def grow(self, name: str, more: int) -> None:
        if len(self.expected[name]) < 4 * SIZE:
            if self.kind == "thin" and self.held is not None and self.held[0] == name:
                self._let_go()
            self.expected[name] += bytes(more * STEP)
            self.pool.grow(name, len(self.expected[name]))

    @rule(name=names, read_only=st.booleans())
    def activate(self, name: str, read_only: bool) -> None:
        if self.held is not None and self.held[0] == name:
            with pytest.raises(InUse):
                self.pool.activate(name, read_only=read_only)
            return
        if self.active.get(name, read_only) != read_only:
            with pytest.raises(InUse, match="expected a volume that is inactive"):
                self.pool.activate(name, read_only=read_only)
            return
        assert self.pool.activate(name, read_only=read_only).read_only == read_only
        self.active[name] = read_only

    @rule(name=names)
    def deactivate(self, name: str) -> None:
        self.pool.deactivate(name)
        self.active.pop(name, None)

    @rule(name=consumes(names))
    def remove(self, name: str) -> None:
        if self.held is not None and self.held[0] == name:
            with pytest.raises(InUse):
                self.pool.remove(name)
            self._let_go()
        if name in self.active:
            with pytest.raises(InUse):
                self.pool.remove(name)
            self.deactivate(name)
        self.pool.remove(name)
        del self.expected[name]

    @rule(origin=names, at=st.integers(0, SIZE // STEP - 1), value=st.integers(1, 255))
    def a_snapshot_that_is_soon_removed(self, origin: str, at: int, value: int) -> None:
        """What is written meanwhile has to come down where there are layers."""
        name = self.snapshot(origin)
        self.write(origin, at, value, 1)
        self.write(name, (at + 1) % (SIZE // STEP), value, 1)
        self.holds()
        self.pool.remove(name)
        del self.expected[name]

    @rule()
    def another_process(self) -> None:
        self.pool.close()
        self.pool = open_pool("p")
        done = self.pool.reconcile()
        assert not done.adopted
        assert not done.lost

    @rule()
    def down_and_up(self) -> None:
        self._let_go()
        self.pool.down()
        assert all(each.state is State.INACTIVE for each in self.pool.list())
        self.pool.up()

    @rule()
    def lose_the_journal(self) -> None:
        if not self.adopts:
            return
        self._let_go()
        self.pool.close()
        for path in (self.home / "home" / "pools" / "p").glob("journal*"):
            path.unlink()
        self.pool = open_pool("p")
        assert sorted(self.pool.reconcile().adopted) == sorted(self.expected)
        self.active = {}  # a file does not tell that it was active

    @invariant()
    def holds(self) -> None:
        held = None if self.held is None else self.held[0]
        found = {each.name: (each.size, each.state is State.ACTIVE, each.read_only) for each in self.pool.list()}
        assert found == {
            name: (len(data), name in self.active, self.active.get(name, False))
            for name, data in self.expected.items()
        }
        for name, data in self.expected.items():
            if name != held:
                assert volumes.content(self.pool, name) == bytes(data), name

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            with suppress(NotFound):  # where something was wrong it is there still
                self.pool.close()
                if self.held is not None:
                    self.held[1].close()
                destroy_pool("p", force=True)
            self.patch.undo()
            shutil.rmtree(self.home)

    def _settle(self) -> None:
        """Hold the pool to it at the end, and have nothing of it left."""
        self._let_go()
        for name in list(self.active):
            self.deactivate(name)
        volumes.assert_clean(self.pool)
        for name in self.expected:
            self.pool.remove(name)
        volumes.assert_clean(self.pool)
        self.pool.close()
        destroy_pool("p")
        assert os.listdir(self.home / "home" / "pools") == []


def sharing(model: type[Model]) -> type[Model]:
    """Return the model over a driver that was broken: who opens a snapshot has its origin, where nobody else has."""

    class Sharing(model):  # type: ignore[valid-type, misc]  # a class like any other
        def __init__(self) -> None:
            super().__init__()
            kind = type(self.pool)
            whole = kind._open

            def broken(driver: Driver, volume: VolumeInfo, **how: bool) -> BlockDevice:
                origin = None if volume.origin is None else driver._records.find(volume.origin)
                held = None if self.held is None else self.held[0]
                if origin is not None and origin.state is State.INACTIVE and origin.name != held:
                    return broken(driver, origin, **how)
                return whole(driver, volume, **how)

            self.patch.setattr(kind, "_open", broken)

    return Sharing


def assert_found_out(model: type[Model]) -> None:
    """Hold the model to it that it finds a broken driver, in no more runs than a sound one gets in `make soak`."""
    quick = settings(bounded(30, 25), phases=[Phase.generate], database=None, derandomize=True, print_blob=False)
    with pytest.raises(AssertionError, match=r"^v\d+\b"):
        run_state_machine_as_test(model, settings=quick)
