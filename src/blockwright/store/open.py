"""A URL of a store becomes a device: the object itself, or the disk whose objects lie below it.

Knows: which of the two is there, and the cache that goes in front. Refuses to know: how either works.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.cache import CachedDevice
from blockwright.errors import NotSupported, ObjectNotFound, ReadOnly
from blockwright.store.address import parse_object
from blockwright.store.cloud import open_bucket
from blockwright.store.disk import open_disk
from blockwright.store.objects import Objects
from blockwright.store.output import BucketOutput
from blockwright.store.plain import ObjectDevice
from blockwright.units import KiB, MiB

CACHE: Final = 64 * MiB
"""Bytes of a remote disk in memory."""
_BLOCK: Final = 256 * KiB
"""Bytes fetched of an object at once, for as little as one: a request costs as much as they do."""
_READ_AHEAD: Final = 4 * MiB


def open_remote(url: str, *, writable: bool = False, take_over: bool = False) -> tuple[BlockDevice, bool]:
    """Return what a URL leads to, behind a cache, and whether it is an object: the file of some image.

    Raises ObjectNotFound where nothing is there, ReadOnly for an object that is to be written, and what ``open_disk``
    and ``open_bucket`` raise.
    """
    address = parse_object(url)
    return open_remote_of(open_bucket(address.bucket), address.key, writable=writable, take_over=take_over)


def open_remote_of(
    objects: Objects, key: str, *, writable: bool = False, take_over: bool = False
) -> tuple[BlockDevice, bool]:
    """Do what ``open_remote`` does, in a bucket that is open."""
    try:
        info = objects.head(key)
    except ObjectNotFound:
        with suppress(ObjectNotFound):
            disk = open_disk(objects, key, writable=writable, take_over=take_over)
            chunk = disk.traits.preferred_block
            return CachedDevice(disk, capacity=max(CACHE, 4 * chunk), block=chunk, read_ahead=_READ_AHEAD), False
        raise
    if writable:
        raise ReadOnly(f"{objects.name_of(key)}: an object cannot be changed in place: convert it to another key")
    return CachedDevice(ObjectDevice(objects, info), capacity=CACHE, block=_BLOCK, read_ahead=_READ_AHEAD), True


def create_remote(url: str, *, size: int, force: bool = False) -> BucketOutput:
    """Return the output that makes a disk of ``size`` bytes at a URL.

    Raises NotSupported for a web server, and what ``BucketOutput`` and ``open_bucket`` raise.
    """
    address = parse_object(url)
    if address.readable_only:
        raise NotSupported(f"{url}: a web server takes no disk: expected s3://, gs:// or az://")
    return BucketOutput(open_bucket(address.bucket), address.key, size=size, force=force)
