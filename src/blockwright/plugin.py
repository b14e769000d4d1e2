"""What installed packages add: schemes of devices, image formats, kinds of sources, scanners.

A package registers under one of the groups below, by the entry points of its metadata. It is looked for only when a
user names what is not ours, is imported only then, and cannot take the place of anything of ours. No name that comes
out of an image or archive is looked up.

Knows: how plugins are found. Refuses to know: what they do.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from blockwright.errors import UsageError

DEVICES: Final = "blockwright.devices"
"""A scheme, and a function ``open(rest, *, writable) -> BlockDevice`` of what stands behind ``SCHEME:``."""

FORMATS: Final = "blockwright.formats"
"""A name, and the ``format.registry.Format`` of that name. It is read and made where the user names it."""

SOURCES: Final = "blockwright.sources"
"""A scheme, and a function ``open(text) -> source.Source`` of the whole name, scheme and all."""

SCANNERS: Final = "blockwright.scanners"
"""A name, and a function ``find(options) -> scan.scanner.Scanner | None``, None where its program is missing."""

GROUPS: Final = (DEVICES, FORMATS, SOURCES, SCANNERS)
"""All groups of entry points that are looked into."""


@cache
def find_plugin(group: str, name: str) -> Any | None:
    """Return what an installed package registers in ``group`` as ``name``, imported; None where none does.

    Raises UsageError where two packages do, where what they name cannot be imported, and where the entry points of
    any package cannot be read.
    """
    from importlib.metadata import entry_points

    try:
        found = {each.value: each for each in entry_points(group=group, name=name)}
    except Exception as error:  # whatever a package's metadata is
        raise UsageError(
            f"{name}: a package's entry points cannot be read ('blockwright doctor' says which)"
        ) from error
    if not found:
        return None
    if len(found) > 1:
        raise UsageError(f"{name}: expected one plugin in {group}, found {' and '.join(sorted(found))}")
    ((value, point),) = found.items()
    try:
        return point.load()
    except Exception as error:  # whatever its module raises while it is imported
        raise UsageError(f"{name}: the plugin {value} does not load: {type(error).__name__}: {error}") from error


def plugin_names(group: str) -> tuple[str, ...]:
    """Return the names that installed packages register in ``group``, sorted; nothing is imported."""
    from importlib.metadata import entry_points

    return tuple(sorted({each.name for each in entry_points(group=group)}))
