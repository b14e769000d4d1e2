"""Raw as one of the formats: the disk as it is, or as a gzip or zstd file of it.

Knows: the registry's options, and suffixes of compressed files. Refuses to know: how bytes are compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.format.driver import Beside, Driver, level_of

if TYPE_CHECKING:  # a cycle by way of the registry
    from blockwright.format.open import Files

_SUFFIXES: Final = ((".gz", "gzip"), (".zst", "zstd"))
_LEVELS: Final = {"gzip": (0, 9), "zstd": (-7, 22)}


@dataclass(frozen=True, slots=True)
class Making:
    """How the disk is compressed: by ``gzip`` or ``zstd``, at which level; None for not at all."""

    compression: str | None = None
    level: int | None = None

    def check(self) -> None:
        """Raise UsageError where the level is none of the compression."""
        if self.level is None:
            return
        if self.compression is None:
            raise UsageError("level: expected --compress, or an output called .gz or .zst")
        low, high = _LEVELS[self.compression]
        if not low <= self.level <= high:
            raise UsageError(f"level: expected {low} to {high} for {self.compression}, found {self.level}")


class RawDriver(Driver):
    """Raw."""

    name = "raw"

    def open(self, file: BlockDevice, files: Files, *, writable: bool) -> BlockDevice:
        return file

    def is_raw(self, own: object) -> bool:
        return not isinstance(own, Making) or own.compression is None

    def streams(self, own: object) -> bool:
        return True

    def options(self, given: Mapping[str, Any], output: str) -> Making:
        suffix = next((name for end, name in _SUFFIXES if output.lower().endswith(end)), None)
        asked = given.get("compression")
        if not (given.get("compress") or suffix):
            if asked is not None:
                raise UsageError("compression: expected --compress, or an output called .gz or .zst")
            compression = None
        else:
            compression = {None: suffix or "gzip", "zlib": "gzip"}.get(asked, asked)
        making = Making(compression, level_of(given))
        making.check()
        return making

    def create(self, file: BlockDevice, size: int, own: object, beside: Beside | None) -> BlockDevice:
        if not isinstance(own, Making) or own.compression is None:
            raise UsageError("raw: has nothing to make")
        from blockwright.format.raw.compressed import CompressedRaw

        own.check()
        return CompressedRaw(file, size, own.compression, level=own.level)


DRIVER: Final = RawDriver()
