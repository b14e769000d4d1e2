"""Copy a disk to a file, holes and all.

Knows: how an output comes to be. Refuses to know: formats, which are devices already.
"""

from __future__ import annotations

from collections.abc import Callable

from blockwright.device.base import BlockDevice
from blockwright.device.copy import CopyResult, copy
from blockwright.device.output import OutputFile


def convert(
    source: BlockDevice,
    output: str,
    *,
    force: bool = False,
    verify: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CopyResult:
    """Make ``output`` a raw file with the bytes of ``source``; what reads as zeros becomes a hole.

    The output appears under its name when it is whole and durable; after a failure what was there before is there.
    ``verify`` reads it back and compares. Raises UsageError where ``output`` exists without ``force``.
    """
    with OutputFile(output, force=force, size=source.size) as out:
        return copy(
            source,
            out.device,
            target_is_zero=out.target_is_zero,
            verify=verify,
            write_back=True,
            progress=progress,
        )
