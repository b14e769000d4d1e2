"""An archive that is an object of a store, as a source: it passes once, while it is being fetched.

Knows: what an object begins with. Refuses to know: stores, and archives.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from blockwright.device.file import FileDevice
from blockwright.device.spool import kept_meanwhile
from blockwright.errors import ArchiveRejected, Cancelled, ObjectNotFound, Rejection
from blockwright.oci.choice import Choice
from blockwright.source.archive import HEAD, passing
from blockwright.source.base import Source
from blockwright.store.address import parse_object
from blockwright.store.cloud import open_bucket
from blockwright.store.download import download
from blockwright.store.objects import ObjectInfo, Objects
from blockwright.tree.decompress import DecodedStream, compression_of
from blockwright.tree.readahead import ReadAhead
from blockwright.tree.rules import ArchiveRules
from blockwright.tree.tar import looks_like_tar

_READ_AHEAD: Final = 16
"""Pieces that were fetched and not read, each of 64 KiB or somewhat more."""

_AT_ONCE: Final = 4
"""Objects that are fetched at once."""


def open_object(url: str, rules: ArchiveRules, choice: Choice) -> Source | None:
    """Return the archive at a URL, of the version that is there now; None where there is none, or another format.

    A container image is kept in a file. Raises UsageError, StoreError, and what reading an archive's beginning does.
    """
    address = parse_object(url)
    objects = open_bucket(address.bucket)
    try:
        info = objects.head(address.key)
    except ObjectNotFound:
        return None
    if not info.size:
        return None
    head = bytes(objects.get(address.key, 0, min(HEAD, info.size), match=info.version))
    if compression_of(head) is None and not looks_like_tar(head):
        return None
    pieces = _Pieces(map(bytes, download(objects, info)))
    try:
        stream = DecodedStream(pieces.read, source=url, rules=rules, close=pieces.stop)
    except BaseException:
        pieces.stop()
        raise
    return passing(stream, url, rules, choice, info.size)


def keep_objects(urls: Sequence[str], rules: ArchiveRules, owned: ExitStack) -> dict[str, FileDevice]:
    """Return objects by URL as files without a name, which are gone when ``owned`` is closed; several come at once.

    Raises ArchiveRejected where they are larger together than what may be kept, and what ``download`` raises.
    """
    addresses = {url: parse_object(url) for url in urls}
    buckets = {each.bucket: open_bucket(each.bucket) for each in addresses.values()}
    wanted = [(url, buckets[each.bucket], each.key) for url, each in addresses.items()]
    stopped = threading.Event()
    threads = ThreadPoolExecutor(max(1, min(_AT_ONCE, len(wanted))), "object")
    owned.callback(threads.shutdown, wait=False, cancel_futures=True)
    owned.callback(stopped.set)
    infos = list(threads.map(lambda each: each[1].head(each[2]), wanted))
    if sum(each.size for each in infos) > rules.spool:
        raise ArchiveRejected(
            Rejection.BYTES, f"spool: expected layers of at most {rules.spool} bytes to keep, found more"
        )

    def keep(objects: Objects, info: ObjectInfo) -> FileDevice:
        with kept_meanwhile(objects.name_of(info.key)), tempfile.TemporaryFile() as file:
            for piece in download(objects, info):
                if stopped.is_set():
                    raise Cancelled("layer: is not wanted any more")
                file.write(piece)
            file.flush()
            return FileDevice.adopt(os.dup(file.fileno()), objects.name_of(info.key), writable=False)

    kept: dict[str, FileDevice] = {}
    for device, (url, _, _) in zip(threads.map(keep, (each[1] for each in wanted), infos), wanted, strict=True):
        owned.callback(device.close)
        kept[url] = device
    return kept


class _Pieces:
    """A stream in pieces, read by lengths; they come by a thread, since who waits for a store hears no signal."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._ahead = ReadAhead(pieces, _READ_AHEAD)
        self.stop = self._ahead.stop
        self._left = memoryview(b"")

    def read(self, length: int) -> bytes:
        """Return up to ``length`` bytes, none at the end."""
        if not self._left:
            self._left = memoryview(self._ahead.get())
        data, self._left = self._left[:length], self._left[length:]
        return bytes(data)
