"""How full a pool may become: when it grows by itself, and when nothing more is made in it.

The kernel tells of data that is below the pool's low water, and of metadata of which less than a quarter, or 4 MiB,
is free; a pool of files grows then. What is made takes blocks of the metadata at once and of the data soon, so it is
refused where either is below low water.

Knows: numbers. Refuses to know: how a pool grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blockwright.errors import NoSpace
from blockwright.system.linux.dm import ThinPoolStatus
from blockwright.system.linux.thin.layout import BLOCK, MAX_BLOCKS
from blockwright.units import format_size
from blockwright.volume.spec import PoolSpec
from blockwright.volume.thin.settings import low_water

MIN_FREE: Final = 16
"""Blocks of metadata that must be free for a change: it copies what it changes of each tree first."""
_KERNEL_FREE: Final = 1024
"""Blocks of metadata below which the kernel tells, at most; less where that is over a quarter."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What a pool is to have, in bytes, where it is to have more; ``line`` says so."""

    data: int
    metadata: int
    line: str


def growth_of(spec: PoolSpec, status: ThinPoolStatus, block: int) -> Growth | None:
    """Return how the pool is to grow by itself; None where it need not, or may not."""
    if "grow_by" not in spec.options or status.mode not in ("rw", "out_of_data_space"):
        return None
    size = status.data_total_blocks * block
    used, more = status.data_used_blocks * block, size
    limit = spec.number("limit")
    while _below(used, more, low_water(spec)) and more < limit:
        more = min(more + spec.number("grow_by"), limit)
    metadata = status.metadata_total_blocks
    if metadata - status.metadata_used_blocks < min(_KERNEL_FREE, metadata // 4):
        metadata = min(2 * metadata, max(metadata, MAX_BLOCKS))
    said = []
    if more > size:
        said.append(f"data: {format_size(used)} of {format_size(size)} are used: grown to {format_size(more)}")
    if metadata > status.metadata_total_blocks:
        total, now = format_size(status.metadata_total_blocks * BLOCK), format_size(metadata * BLOCK)
        said.append(
            f"metadata: {format_size(status.metadata_used_blocks * BLOCK)} of {total} are used: grown to {now}"
        )
    return Growth(more, metadata * BLOCK, "; ".join(said)) if said else None


def _below(used: int, size: int, percent: int) -> bool:
    return (size - used) * 100 <= size * percent


def check_room(spec: PoolSpec, status: ThinPoolStatus, block: int) -> None:
    """Return where something can be made in the pool. Raises NoSpace."""
    percent = low_water(spec)
    used, total = status.data_used_blocks, status.data_total_blocks
    if _below(used, total, percent):
        raise NoSpace(
            f"pool {spec.name}: data: expected more than {percent}% free to make something, found "
            f"{format_size((total - used) * block)} of {format_size(total * block)}: 'pool grow' it or remove volumes"
        )
    free, total = status.metadata_total_blocks - status.metadata_used_blocks, status.metadata_total_blocks
    least = max(MIN_FREE, total * percent // 100)
    if free < least:
        raise NoSpace(
            f"pool {spec.name}: metadata: expected {least} blocks free to make something, found {free} of {total}: "
            "give it more or remove volumes"
        )
