"""What a thin pool is asked to be: its options, checked and as values.

Knows: which options there are. Refuses to know: what is made of them.
"""

from __future__ import annotations

from typing import Any, Final

from blockwright.errors import UsageError
from blockwright.system.linux.thin import check_block, metadata_size
from blockwright.system.linux.thin.layout import BLOCK as METADATA_BLOCK
from blockwright.system.linux.thin.layout import MAX_BLOCKS
from blockwright.units import KiB, align_up, parse_size
from blockwright.volume.spec import PoolSpec

BLOCK: Final = 64 * KiB
FORMS: Final = {
    "files": frozenset({"directory", "size"}),
    "devices": frozenset({"data", "metadata", "force"}),
    "split": frozenset({"device", "force"}),
}
"""What a pool can lie on, and the options that are for that alone."""
_COMMON: Final = frozenset({"block", "metadata_size", "full", "low_water"})
_GROWTH: Final = frozenset({"grow_by", "limit"})
MIN_METADATA: Final = 32 * METADATA_BLOCK
"""Bytes of metadata with which a kernel still makes a pool."""
LOW_WATER: Final = 6
"""Percent that are to be free."""
MAX_LOW_WATER: Final = 90


def form_of(spec: PoolSpec) -> str:
    """Return what the pool lies on, by its options. Raises UsageError for options that no such pool has."""
    given = set(spec.options)
    form = "split" if "device" in given else "devices" if given & {"data", "metadata"} else "files"
    growth = _GROWTH if form == "files" else frozenset[str]()
    if unknown := sorted(given - FORMS[form] - _COMMON - growth):
        where = {"files": "files", "devices": "two devices", "split": "one device"}[form]
        raise UsageError(f"pool {spec.name}: the driver thin has no option {unknown[0]} for a pool of {where}")
    if form == "devices" and not {"data", "metadata"} <= given:
        raise UsageError(f"pool {spec.name}: expected a device for data and one for metadata, found one of them")
    return form


def size_of(spec: PoolSpec, option: str, default: int | None = None) -> int:
    """Return an option that is a size, as text or number. Raises UsageError."""
    found = spec.options.get(option, default)
    if isinstance(found, str):
        found = parse_size(found)
    if type(found) is not int or found < 0:
        raise UsageError(f"pool {spec.name}: {option}: expected a size, such as {option}=20G, found {found!r}")
    return found


def settled(spec: PoolSpec) -> dict[str, Any]:
    """Return the options that every pool keeps, in the form that is saved. Raises UsageError."""
    found: dict[str, Any] = {"block": check_block(size_of(spec, "block", BLOCK))}
    full = spec.options.get("full", "error")
    if full not in ("error", "queue"):
        raise UsageError(f"pool {spec.name}: full: expected error or queue, found {full!r}")
    if full != "error":
        found["full"] = full
    if "low_water" in spec.options:
        found["low_water"] = _percent(spec)
    if ("grow_by" in spec.options) != ("limit" in spec.options):
        raise UsageError(f"pool {spec.name}: expected grow_by and limit, found one of them")
    if "grow_by" in spec.options:
        found |= {each: align_up(size_of(spec, each), found["block"]) for each in ("grow_by", "limit")}
        if not found["grow_by"]:
            raise UsageError(f"pool {spec.name}: grow_by: expected more than 0")
    return found


def metadata_wanted(spec: PoolSpec, data: int, block: int) -> int:
    """Return the bytes of metadata, as asked for or by the kernel's formula. Raises UsageError."""
    if "metadata_size" not in spec.options:
        return metadata_size(data, block)
    asked = align_up(size_of(spec, "metadata_size"), METADATA_BLOCK)
    if not MIN_METADATA <= asked <= MAX_BLOCKS * METADATA_BLOCK:
        most = MAX_BLOCKS * METADATA_BLOCK
        raise UsageError(f"pool {spec.name}: metadata_size: expected {MIN_METADATA} to {most}, found {asked}")
    return asked


def low_water(spec: PoolSpec) -> int:
    """Return how many percent of data and metadata are to be free, at least."""
    return _percent(spec) if "low_water" in spec.options else LOW_WATER


def _percent(spec: PoolSpec) -> int:
    found = spec.options["low_water"]
    if isinstance(found, str) and found.removesuffix("%").isdecimal():
        found = int(found.removesuffix("%"))
    if type(found) is not int or not 1 <= found <= MAX_LOW_WATER:
        raise UsageError(f"pool {spec.name}: low_water: expected 1 to {MAX_LOW_WATER} percent, found {found!r}")
    return found
