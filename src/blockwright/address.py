"""Text becomes an address: where a disk is, and which part of it is meant.

An address is a path, or ``file:PATH``, ``mem:SIZE``, ``null:SIZE``, a volume (``volume:POOL/NAME``, ``volume:NAME``
in the only pool), an export of an NBD server (``nbd://…`` and the other schemes of ``nbd.uri``), an object or disk in
a store (``s3://``, ``gs://``, ``az://``, ``http(s)://``), or ``SCHEME:…`` of a scheme that a plugin adds. On a path
or volume a last ``:N`` selects partition N and ``:START,SIZE`` a range (bytes, or with a unit: ``1M,4GiB``, ``34s``
in sectors of 512 bytes), unless a file of the whole name exists. On a URL, and behind a plugin's scheme, the fragment
does, as in ``#2`` and ``#start=1M,size=4G``. A last ``#snapshot=NAME`` is the image as its internal snapshot has it,
behind what selects a part: ``disk.qcow2:2#snapshot=NAME``, ``s3://bucket/disk.qcow2#2,snapshot=NAME``.

Knows: how addresses are written. Refuses to know: what opens them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from blockwright.errors import ReadOnly, UsageError
from blockwright.plugin import DEVICES, find_plugin
from blockwright.units import parse_size

_SIZE = "[0-9]+(?:s|[kKmMgGtT](?:i?B)?)?"
_SELECTOR = re.compile(rf"(?P<path>.+):(?:(?P<number>[0-9]{{1,4}})|(?P<start>{_SIZE}),(?P<size>{_SIZE}))", re.DOTALL)
_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+]{1,15}):(?P<rest>.*)", re.DOTALL)
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+]*)://[^#]*(?:#(?P<fragment>.*))?", re.DOTALL)
_SNAPSHOT = "#snapshot="
_PATHS = ("file", "mem", "null", "volume")
"""Schemes behind which a part is selected as on a path."""
_FRAGMENT = re.compile(r"(?P<number>[0-9]{1,4})|start=(?P<start>[^,=]+),size=(?P<size>[^,=]+)")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a device is: ``scheme`` and ``rest``, and which part of it: a partition number or a range in bytes.

    ``snapshot`` is the internal snapshot of the image that is meant, None for what the image is now.
    """

    scheme: str
    rest: str
    partition: int | None = None
    start: int | None = None
    length: int | None = None
    snapshot: str | None = None

    @property
    def is_part(self) -> bool:
        """Whether the address selects less than the whole device."""
        return self.partition is not None or self.start is not None

    @property
    def whole(self) -> str:
        """The address of the device that a part is of."""
        return self.rest if self.scheme in ("file", "nbd", "store") else f"{self.scheme}:{self.rest}"

    def check_writable(self) -> None:
        """Raise ReadOnly for a snapshot, which stays what it is."""
        if self.snapshot is not None:
            raise ReadOnly(f"{self}: a snapshot is read only: 'disk snapshot apply' makes the image what it was then")

    def __str__(self) -> str:
        url = self.scheme not in _PATHS
        part = ""
        if self.partition is not None:
            part = str(self.partition)
        elif self.start is not None:
            part = f"start={self.start},size={self.length}" if url else f"{self.start},{self.length}"
        named = [] if self.snapshot is None else [f"snapshot={self.snapshot}"]
        if url:
            return "#".join([self.whole, *filter(None, [",".join(filter(None, [part, *named]))])])
        return "#".join([":".join(filter(None, [self.whole, part])), *named])


def parse_address(text: str, *, partition: int | None = None) -> Address:
    """Return the address that ``text`` means, with ``partition`` (where given) settling every doubt.

    Looks at the file system for one thing only: whether a path that ends like a selector exists as a whole.
    Raises UsageError where both readings name files, and for an unknown scheme.
    """
    if partition is not None and partition < 1:
        raise UsageError(f"partition: expected a number from 1 on, found {partition}")
    match = None if os.path.lexists(text) else _SCHEME.fullmatch(text)
    if match and match["scheme"] in ("mem", "null"):
        return Address(match["scheme"], match["rest"], partition)
    if match and match["scheme"] == "volume":
        return _parse_volume(match["rest"], partition)
    if match and match["scheme"] != "file" and find_plugin(DEVICES, match["scheme"]) is not None:
        rest, _, fragment = match["rest"].partition("#")
        return _parse_fragment(text, match["scheme"], rest, fragment, partition)
    if match is not None and (url := _URL.fullmatch(text)):
        return _parse_url(text, url["scheme"], url["fragment"], partition)
    path = match["rest"] if match and match["scheme"] == "file" else text
    if not path:
        raise UsageError(f"{text!r}: expected a path behind the scheme")
    path, snapshot = _cut_snapshot(path)
    return replace(_parse_path(path, partition), snapshot=snapshot)


def _cut_snapshot(path: str) -> tuple[str, str | None]:
    """Return a path and the snapshot behind it, which is no part of a file's name where a file has the whole name."""
    rest, mark, name = path.partition(_SNAPSHOT)
    if not mark or not rest:
        return path, None
    if os.path.lexists(path):
        if os.path.lexists(rest):
            raise UsageError(f"{path}: could be the file {path} or a snapshot of {rest}: rename one")
        return path, None
    if not name:
        raise UsageError(f"{path}: expected the name of a snapshot behind {_SNAPSHOT}")
    return rest, name


def _parse_path(path: str, partition: int | None) -> Address:
    selector = _SELECTOR.fullmatch(path)
    if selector is None or partition is not None:
        return Address("file", path, partition)
    if os.path.lexists(path):
        if os.path.lexists(selector["path"]):
            raise UsageError(
                f"{path}: could be the file {path} or a part of {selector['path']}: rename one, or use --partition N"
            )
        return Address("file", path)
    if selector["number"] is not None:
        number = int(selector["number"])
        if number < 1:
            raise UsageError(f"{path}: expected a partition number from 1 on, found {number}")
        return Address("file", selector["path"], number)
    return Address("file", selector["path"], None, parse_size(selector["start"]), parse_size(selector["size"]))


def _parse_volume(text: str, partition: int | None) -> Address:
    """Return the address of a volume or a part of one; names of volumes have no colon."""
    selector = _SELECTOR.fullmatch(text)
    if selector is None:
        return Address("volume", text, partition)
    if partition is not None:
        raise UsageError(f"volume:{text[:200]}: expected the part once, found it in the address and as --partition")
    if selector["number"] is None:
        start, size = parse_size(selector["start"]), parse_size(selector["size"])
        return Address("volume", selector["path"], None, start, size)
    if int(selector["number"]) < 1:
        raise UsageError(f"volume:{text[:200]}: expected a partition number from 1 on, found {selector['number']}")
    return Address("volume", selector["path"], int(selector["number"]))


def _parse_url(text: str, scheme: str, fragment: str | None, partition: int | None) -> Address:
    from blockwright.nbd.uri import is_nbd_uri
    from blockwright.store.address import is_store_url

    whole = text.partition("#")[0]
    if is_nbd_uri(text):
        kind = "nbd"
    elif is_store_url(text):
        kind = "store"
    else:
        hint = ": 'build' makes a disk of a container image" if scheme == "docker" else ""
        raise UsageError(
            f"{text[:200]}: expected a path, file:, mem:, null:, volume:, nbd://, s3://, gs://, az:// or http(s)://, "
            f"found the scheme {scheme}{hint}"
        )
    if not fragment:
        return Address(kind, whole, partition)
    part, mark, name = f",{fragment}".partition(",snapshot=")
    if mark:
        if kind == "nbd" or not name:
            raise UsageError(f"{text[:200]}: expected the name of a snapshot of an image, which an export is not")
        return replace(_parse_fragment(text, kind, whole, part[1:], partition), snapshot=name)
    return _parse_fragment(text, kind, whole, fragment, partition)


def _parse_fragment(text: str, kind: str, whole: str, fragment: str, partition: int | None) -> Address:
    if not fragment:
        return Address(kind, whole, partition)
    if partition is not None:
        raise UsageError(f"{text[:200]}: expected the part once, found it in the address and as --partition")
    selector = _FRAGMENT.fullmatch(fragment)
    if selector is None:
        raise UsageError(f"{text[:200]}: expected #N or #start=BYTES,size=BYTES, found #{fragment[:80]}")
    if selector["number"] is None:
        return Address(kind, whole, None, parse_size(selector["start"]), parse_size(selector["size"]))
    if int(selector["number"]) < 1:
        raise UsageError(f"{text[:200]}: expected a partition number from 1 on, found {selector['number']}")
    return Address(kind, whole, int(selector["number"]))


def part_name(source: str, number: int) -> str:
    """Return how partition ``number`` of ``source``, which may be a snapshot, is addressed."""
    whole, mark, name = source.partition(_SNAPSHOT)
    if mark and _URL.fullmatch(source):
        return f"{whole}#{number},snapshot={name}"
    if mark and not os.path.lexists(source):
        return f"{whole}:{number}{mark}{name}"
    return f"{source}#{number}" if _URL.fullmatch(source) else f"{source}:{number}"
