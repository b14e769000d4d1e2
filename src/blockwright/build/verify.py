"""A disk that exists against what a build would make: made anew over it, and nothing of it kept.

Knows: the order of steps, and what the first byte that differs is a part of. Refuses to know: how disks are made.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from blockwright.build.content import Contents
from blockwright.build.definition import Definition
from blockwright.build.locate import locate
from blockwright.build.plan import DiskPlan
from blockwright.build.run import Progress, for_medium, make
from blockwright.build.trees import Open
from blockwright.device.comparing import ComparingDevice
from blockwright.errors import UsageError
from blockwright.format.policy import REFUSE, Policy
from blockwright.resolve import open_device
from blockwright.source import Source, open_sources


class Verified(NamedTuple):
    """What was found: the disk as it should be, and the first byte that differs with what it is a part of.

    ``offset`` is None where every byte is the same. ``size`` is the disk's, ``found`` that of what is there.
    """

    plan: DiskPlan
    offset: int | None
    where: str
    size: int
    found: int


def check_seed(definition: Definition) -> None:
    """Raise UsageError where a build makes something else each time."""
    if definition.seed == "random":
        raise UsageError("build: --seed random makes another disk each time: there is nothing to verify it by")


def verify(
    source: Source,
    output: str,
    definition: Definition,
    *,
    policy: Policy = REFUSE,
    progress: Progress | None = None,
    opened: Open = open_sources,
) -> Verified:
    """Return whether the disk in ``output``, of any format, is what ``source`` and ``definition`` make.

    Nothing is written. ``opened`` opens what partitions name as sources of their own.
    Raises UsageError for a seed that is another each time, NotFound, and what ``make`` raises.
    """
    definition.check()
    check_seed(definition)
    asked = for_medium(definition, output)
    with (
        Contents(asked, opened) as contents,
        open_device(output, policy=policy) as there,
        ComparingDevice(there) as comparing,
    ):
        plan = make(source, comparing, asked, progress, contents).plan
        found = there.size
        comparing.resize(max(plan.size, found) if not _is_raw_file(output, there.size) else plan.size)
        offset = comparing.first_difference()
    where = "" if offset is None else locate(plan, offset)
    return Verified(plan, offset, where, plan.size, found)


def _is_raw_file(path: str, size: int) -> bool:
    """Whether the disk has just the bytes of a regular file, so that its size counts too.

    Other formats round sizes up, and a device has the size that it has.
    """
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size
