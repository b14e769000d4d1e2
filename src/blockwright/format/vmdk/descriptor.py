"""The descriptor: text that says what a disk is called by, of which extents it is made, and which disk it stands on.

A descriptor comes from anywhere, so it is read strictly: what is said twice, or is no line of the format, is refused.

Knows: lines. Refuses to know: files, and whether names in it are followed.

Source: VMware, Virtual Disk Format 5.0, "The Descriptor" and "Geometry".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat, Unsupported, UsageError
from blockwright.format.vmdk.layout import MAX_DESCRIPTOR, SPEC
from blockwright.units import MAX_SIZE, SECTOR

FIRST_LINE: Final = b"# Disk DescriptorFile"
NO_PARENT: Final = 0xFFFFFFFF
NO_ID: Final = 0xFFFFFFFE
"""What products write where a disk has no id yet."""
MAX_EXTENTS: Final = 1 << 15
"""Extents of one disk: 64 TiB in files of 2 GiB."""

MONOLITHIC_SPARSE: Final = "monolithicSparse"
MONOLITHIC_FLAT: Final = "monolithicFlat"
SPLIT_SPARSE: Final = "twoGbMaxExtentSparse"
SPLIT_FLAT: Final = "twoGbMaxExtentFlat"
STREAM: Final = "streamOptimized"
KINDS: Final = (MONOLITHIC_SPARSE, MONOLITHIC_FLAT, SPLIT_SPARSE, SPLIT_FLAT, STREAM)
"""Types of disks that are read and made; ``custom`` is read too. Any other is refused by name."""

ADAPTERS: Final = ("ide", "lsilogic", "buslogic", "legacyESX")

_EXTENT: Final = re.compile(
    rb"(RW|RDONLY|NOACCESS)[ \t]+([0-9]{1,19})[ \t]+([A-Z]{1,20})"
    rb'(?:[ \t]+"([^"\0]{1,1024})"(?:[ \t]+([0-9]{1,19}))?)?'
)
_PAIR: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_.:-]{0,127})[ \t]*=[ \t]*(.*)", re.DOTALL)
_ID: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")
_ID_LINE: Final = re.compile(rb'(?im)^([ \t]*CID[ \t]*=[ \t]*"?)([0-9a-f]{1,8})(?="?[ \t]*\r?$)')


class Extent(NamedTuple):
    """A run of the disk: ``size`` bytes, from byte ``start`` of the file ``name`` on where the kind is flat."""

    access: str
    size: int
    kind: str
    name: bytes = b""
    start: int = 0


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor that holds. ``parent_id`` is NO_PARENT where ``parent`` is None."""

    content_id: int
    kind: str
    extents: tuple[Extent, ...]
    parent_id: int = NO_PARENT
    parent: bytes | None = None
    others: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The bytes of the disk."""
        return sum(each.size for each in self.extents)


def parse(data: bytes) -> Descriptor:
    """Return what the text says, which ends at the first NUL. Raises NotThisFormat, Corrupt, Unsupported."""
    if len(data) > MAX_DESCRIPTOR:
        raise LimitExceeded(f"vmdk descriptor: expected at most {MAX_DESCRIPTOR} bytes, found {len(data)}", spec=SPEC)
    text, _, rest = data.partition(b"\0")
    if rest.strip(b"\0"):
        raise Corrupt("vmdk descriptor: expected nothing behind its end, found more", offset=len(text), spec=SPEC)
    lines = text.replace(b"\r\n", b"\n").split(b"\n")
    if lines[0].rstrip().lower() != FIRST_LINE.lower():
        raise NotThisFormat(f"vmdk descriptor: expected {FIRST_LINE.decode()!r} first, found {_shown(lines[0])}")
    values: dict[str, bytes] = {}
    extents: list[Extent] = []
    for number, each in enumerate(lines[1:], 2):
        line = each.strip(b" \t")
        if not line or line.startswith(b"#"):
            continue
        if found := _EXTENT.fullmatch(line):
            extents.append(_extent(found, number))
            if len(extents) > MAX_EXTENTS:
                raise LimitExceeded(f"vmdk descriptor: expected at most {MAX_EXTENTS} extents, found more", spec=SPEC)
        elif pair := _PAIR.fullmatch(line):
            _note(values, pair[1].decode(), pair[2], number)
        else:
            raise Corrupt(f"vmdk descriptor: line {number}: expected name=value or an extent, found {_shown(line)}")
    return _checked(values, extents)


def _shown(text: bytes) -> str:
    return repr(text[:60].decode("utf-8", "replace"))


def _extent(found: re.Match[bytes], number: int) -> Extent:
    access, sectors, kind, name, start = found.groups()
    extent = Extent(access.decode(), int(sectors) * SECTOR, kind.decode(), name or b"", int(start or 0) * SECTOR)
    if extent.kind != "ZERO" and not extent.name:
        raise Corrupt(f"vmdk descriptor: line {number}: expected the name of an extent's file, found none", spec=SPEC)
    if not 0 < extent.size <= MAX_SIZE or extent.start > MAX_SIZE - extent.size:
        raise Corrupt(f"vmdk descriptor: line {number}: expected an extent of a possible size, found {sectors!r}")
    return extent


def _note(values: dict[str, bytes], name: str, value: bytes, number: int) -> None:
    key = name.lower()
    if key in values:
        raise Corrupt(f"vmdk descriptor: line {number}: expected {name[:40]} once, found it again", spec=SPEC)
    if len(value) >= 2 and value[:1] == value[-1:] == b'"':
        value = value[1:-1]
    if b'"' in value:
        raise Corrupt(
            f"vmdk descriptor: line {number}: expected quotation marks around a value, found {_shown(value)}"
        )
    values[key] = value


def _checked(values: dict[str, bytes], extents: list[Extent]) -> Descriptor:
    if values.get("version", b"1") not in (b"1", b"2", b"3", b"4"):
        raise Unsupported(f"vmdk descriptor: expected version 1 to 4, found {_shown(values['version'])}", spec=SPEC)
    kind = values.get("createtype", b"").decode("ascii", "replace")
    known = {each.lower(): each for each in (*KINDS, "custom")}
    if not kind:
        raise Corrupt("vmdk descriptor: expected a createType, found none", spec=SPEC)
    if kind.lower() not in known:
        raise Unsupported(
            f"vmdk: expected {', '.join(KINDS)}, found the kind {kind[:40]!r}, which is not read", spec=SPEC
        )
    for extent in extents:
        if extent.kind not in ("FLAT", "SPARSE", "ZERO"):
            raise Unsupported(f"vmdk extent: expected FLAT, SPARSE or ZERO, found {extent.kind}, which is not read")
        if extent.access == "NOACCESS" and extent.kind != "ZERO":
            raise Unsupported("vmdk extent: expected RW or RDONLY, found NOACCESS")
    if not extents:
        raise Corrupt("vmdk descriptor: expected extents, found none", spec=SPEC)
    if sum(each.size for each in extents) > MAX_SIZE:
        raise Corrupt("vmdk descriptor: expected a disk of a possible size, found a larger one", spec=SPEC)
    parent_id = _identity(values, "parentcid") if "parentcid" in values else NO_PARENT
    parent = values.get("parentfilenamehint")
    if parent_id != NO_PARENT and not parent:
        raise Corrupt("vmdk descriptor: has a parentCID and does not name the parent", spec=SPEC)
    others = {key: value.decode("utf-8", "replace") for key, value in values.items()}
    return Descriptor(
        _identity(values, "cid"),
        known[kind.lower()],
        tuple(extents),
        parent_id,
        parent if parent_id != NO_PARENT else None,
        others,
    )


def _identity(values: dict[str, bytes], key: str) -> int:
    text = values.get(key, b"")
    if not _ID.fullmatch(text):
        raise Corrupt(f"vmdk descriptor: expected 8 hexadecimal digits as {key}, found {_shown(text)}", spec=SPEC)
    return int(text, 16)


def with_content_id(text: bytes, content_id: int) -> bytes:
    """Return the descriptor with another id, as long as it was where its id has 8 digits. Raises Corrupt."""
    changed, count = _ID_LINE.subn(lambda line: line[1] + b"%08x" % content_id, text, count=1)
    if not count:
        raise Corrupt("vmdk descriptor: expected a CID to change, found none", spec=SPEC)
    return changed


def next_id(content_id: int, seed: int) -> int:
    """Return the id of a disk's next content: another one, never one that has a meaning."""
    found = (content_id ^ seed) & 0xFFFFFFFF
    while found in (content_id, 0, NO_ID, NO_PARENT):
        found = (found * 3 + 1) & 0xFFFFFFFF
    return found


class Geometry(NamedTuple):
    """Cylinders, heads and sectors of a track, as an adapter of old counts them."""

    cylinders: int
    heads: int
    sectors: int


def geometry_of(size: int, adapter: str) -> Geometry:
    """Return what a disk of ``size`` bytes has: 16 by 63 at IDE, up to 255 by 63 at SCSI adapters."""
    sectors = size // SECTOR
    if adapter == "ide":
        return Geometry(max(1, min(sectors // (16 * 63), 16383)), 16, 63)
    heads, track = (64, 32) if size < 1 << 30 else (128, 32) if size < 1 << 31 else (255, 63)
    return Geometry(max(1, min(sectors // (heads * track), 65535)), heads, track)


def text_of(descriptor: Descriptor, adapter: str = "ide", hardware_version: int = 4) -> bytes:
    """Return the text of a descriptor. Raises UsageError for the name of a file that it cannot say."""
    lines = [
        FIRST_LINE.decode(),
        "version=1",
        'encoding="UTF-8"',
        f"CID={descriptor.content_id:08x}",
        f"parentCID={descriptor.parent_id:08x}",
        f'createType="{descriptor.kind}"',
    ]
    if descriptor.parent is not None:
        lines.append(f'parentFileNameHint="{_said(descriptor.parent)}"')
    lines += ["", "# Extent description"]
    for each in descriptor.extents:
        start = f" {each.start // SECTOR}" if each.kind == "FLAT" else ""
        lines.append(f'{each.access} {each.size // SECTOR} {each.kind} "{_said(each.name)}"{start}')
    geometry = geometry_of(descriptor.size, adapter)
    lines += [
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        f'ddb.virtualHWVersion = "{hardware_version}"',
        f'ddb.adapterType = "{adapter}"',
        f'ddb.geometry.cylinders = "{geometry.cylinders}"',
        f'ddb.geometry.heads = "{geometry.heads}"',
        f'ddb.geometry.sectors = "{geometry.sectors}"',
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def _said(name: bytes) -> str:
    if any(each in name for each in b'"\n\r\0'):
        raise UsageError(f"{name!r}: expected a path without quotation marks and line breaks")
    return name.decode("utf-8", "surrogateescape")
