"""Pools by name: made, opened, destroyed. The only module that knows every driver.

Knows: which driver a pool has, and the order in which one comes and goes. Refuses to know: what drivers do.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.journal import Journal
from blockwright.system.linux.registry import locked_file
from blockwright.volume.driver import Driver
from blockwright.volume.info import VolumeInfo, check_name, parse_volume_name
from blockwright.volume.records import PART, Records
from blockwright.volume.spec import (
    DRIVERS,
    MAKING,
    PoolSpec,
    folder_of,
    load_spec,
    pool_names,
    remove_folder,
    unfinished_pools,
)
from blockwright.volume.steps import Checkpoint, unwatched


def driver_of(kind: str) -> type[Driver]:
    """Return the class of a driver by its name. Raises UsageError."""
    if kind == "file":
        from blockwright.volume.file import FileDriver

        return FileDriver
    if kind == "thin":
        from blockwright.volume.thin import ThinDriver

        return ThinDriver
    raise UsageError(f"driver: expected {' or '.join(DRIVERS)}, found {kind[:64]!r}")


def create_pool(
    name: str, driver: str, options: Mapping[str, Any] | None = None, *, checkpoint: Checkpoint = unwatched
) -> PoolSpec:
    """Make a pool, and return its specification, which is saved. After a failure there is none.

    What a dead process had begun of one of that name is undone first. Raises UsageError where the pool exists, and
    for options that its driver does not know.
    """
    folder = folder_of(name)
    kind = driver_of(driver)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    wanted = PoolSpec(name, driver, folder, dict(options or {}), time.time_ns())

    def intend(spec: PoolSpec) -> None:
        spec.save(MAKING)
        checkpoint("pool: intended")

    try:
        with locked_file(os.path.join(folder, "lock")):
            if os.path.exists(os.path.join(folder, "pool.json")):
                raise UsageError(f"pool {name}: exists: expected a name that no pool has")
            _undo(name)
            made = kind.make(wanted, intend=intend, checkpoint=checkpoint)
            made.save()
            checkpoint("pool: saved")
            os.unlink(os.path.join(folder, MAKING))
    except BaseException:
        if not os.path.exists(os.path.join(folder, "pool.json")):
            with contextlib.suppress(OSError):
                remove_folder(wanted)
        raise
    return made


def _undo(name: str) -> bool:
    """Have nothing of a pool that was not made to its end; called with its lock. Whether there was one."""
    folder = folder_of(name)
    if not os.path.exists(os.path.join(folder, MAKING)):
        return False
    if not os.path.exists(os.path.join(folder, "pool.json")):
        spec = load_spec(name, MAKING)
        driver_of(spec.driver).unmake(spec)
    os.unlink(os.path.join(folder, MAKING))
    return True


def undo_unfinished() -> list[str]:
    """Have nothing of pools that a dead process had begun to make, and return lines that say which.

    Where processes listened that died with their pool nothing is left either.
    """
    from blockwright.volume.file.holder import clear_traces

    clear_traces()
    lines = []
    for name in unfinished_pools():
        folder = folder_of(name)
        with locked_file(os.path.join(folder, "lock")):
            if _undo(name) and not os.path.exists(os.path.join(folder, "pool.json")):
                remove_folder(PoolSpec(name, "", folder, {}))
                lines.append(f"{name}: undone: a pool that was not made to its end")
    return lines


def open_pool(name: str, *, checkpoint: Checkpoint = unwatched) -> Driver:
    """Return the driver of a pool, open. Raises NotFound, Corrupt, and Unavailable where the driver cannot work."""
    spec = load_spec(name)
    return driver_of(spec.driver)(spec, checkpoint=checkpoint)


def look_up(pool: str, name: str) -> VolumeInfo:
    """Return a volume as it is recorded, as ``open_pool(pool).get(name)`` does, and no driver is needed for it.

    Raises NotFound, Corrupt.
    """
    spec = load_spec(pool)
    if os.path.exists(spec.journal):
        with Journal(spec.journal, (PART,)) as journal:
            return Records(journal, pool).get(check_name(name))
    with open_pool(pool) as driver:
        return driver.get(name)


def destroy_pool(name: str, *, force: bool = False) -> None:
    """Have no such pool; with ``force`` its volumes go too. Raises NotFound, InUse."""
    with open_pool(name) as driver:
        driver.destroy(force=force)
        spec = driver.spec
    with spec.locked():
        remove_folder(spec)


def find_volume(text: str, pool: str | None = None, *, expected: str = "POOL/NAME") -> tuple[str, str]:
    """Return the names of the pool and the volume that ``POOL/NAME`` means, or ``NAME`` in ``pool`` or the only pool.

    Whether there is such a volume is not looked at. Raises UsageError where two pools are said, or none and there is
    not exactly one: it says what was ``expected``, and names the pools.
    """
    before, name = parse_volume_name(text.removeprefix("volume:"))
    if before is not None and pool not in (None, before):
        raise UsageError(f"{text}: expected a volume of pool {pool}, found pool {before}")
    said = pool if before is None else before
    if said is None:
        names = pool_names()
        if len(names) != 1:
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise UsageError(f"volume {name}: expected {expected}: there are {shown or 'no pools'}")
        said = names[0]
    return said, name


def open_volume(text: str, *, writable: bool = False, force_unlocked: bool = False) -> BlockDevice:
    """Return the volume that ``POOL/NAME``, or ``NAME`` in the only pool, names as a device of this process.

    Raises as ``find_volume`` and ``Driver.open`` do.
    """
    pool, name = find_volume(text)
    with open_pool(pool) as driver:
        return driver.open(name, writable=writable, force_unlocked=force_unlocked)
