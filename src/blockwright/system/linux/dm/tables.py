"""Tables of device-mapper as values: what each target stands on, with sizes and positions in bytes.

Targets lie one behind the other from byte 0 on, so a table has no gaps. Devices are paths or ``major:minor``.
Parameters as in the kernel's Documentation/admin-guide/device-mapper.

Knows: parameters of each target, both ways. Refuses to know: the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from blockwright.errors import UsageError
from blockwright.system.linux.dm.layout import SECTOR, Line

Number = Callable[[str], str]
"""Turns a device's path into ``major:minor``, as the kernel takes it whatever nodes there are."""


KEYED: Final = ("crypt", "integrity")
"""Types whose parameters may have keys: the kernel wipes what carried them."""


def _as_it_is(device: str) -> str:
    return device


@dataclass(frozen=True, slots=True)
class Target:
    """A part of a device, ``length`` bytes long: a multiple of 512."""

    kind: ClassVar[str] = ""
    length: int

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters as the kernel takes them."""
        return ""


@dataclass(frozen=True, slots=True)
class Linear(Target):
    """Bytes of another device, from ``offset`` on."""

    kind: ClassVar[str] = "linear"
    device: str
    offset: int = 0

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters."""
        return f"{number(self.device)} {sectors(self.offset)}"


@dataclass(frozen=True, slots=True)
class Striped(Target):
    """``chunk`` bytes of each of ``parts`` (device, offset) in turn."""

    kind: ClassVar[str] = "striped"
    chunk: int
    parts: tuple[tuple[str, int], ...]

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters."""
        parts = " ".join(f"{number(device)} {sectors(offset)}" for device, offset in self.parts)
        return f"{len(self.parts)} {sectors(self.chunk)} {parts}"


@dataclass(frozen=True, slots=True)
class Zero(Target):
    """Reads as zeros; what is written is gone."""

    kind: ClassVar[str] = "zero"


@dataclass(frozen=True, slots=True)
class Error(Target):
    """Every read and write fails."""

    kind: ClassVar[str] = "error"


@dataclass(frozen=True, slots=True)
class SnapshotOrigin(Target):
    """A device of which there are snapshots: what is overwritten is copied to them first."""

    kind: ClassVar[str] = "snapshot-origin"
    origin: str

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters."""
        return number(self.origin)


@dataclass(frozen=True, slots=True)
class Snapshot(Target):
    """``origin`` as it was, and what is written here: kept in ``store``, ``chunk`` bytes at a time.

    ``persistent`` keeps the store's index on it; ``overflow`` tells an overflow in the status.
    """

    kind: ClassVar[str] = "snapshot"
    origin: str
    store: str
    chunk: int
    persistent: bool = True
    overflow: bool = False
    options: tuple[str, ...] = ()

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters."""
        how = ("P" if self.persistent else "N") + ("O" if self.overflow else "")
        text = f"{number(self.origin)} {number(self.store)} {how} {sectors(self.chunk)}"
        return " ".join([text, *([str(len(self.options)), *self.options] if self.options else [])])


@dataclass(frozen=True, slots=True)
class SnapshotMerge(Snapshot):
    """A snapshot on its way back into its origin."""

    kind: ClassVar[str] = "snapshot-merge"


@dataclass(frozen=True, slots=True)
class ThinPool(Target):
    """Blocks of ``data`` for thin devices, booked in ``metadata``. ``block`` bytes: 64 KiB to 1 GiB, by 64 KiB.

    An event tells when ``low_water_blocks`` or fewer are left. ``error_if_full`` fails writes then that would wait
    for more; ``zero`` clears blocks that are handed out; ``discard`` and ``passdown`` give blocks back, to the pool
    and to the device under it.
    """

    kind: ClassVar[str] = "thin-pool"
    metadata: str
    data: str
    block: int
    low_water_blocks: int = 0
    zero: bool = True
    discard: bool = True
    passdown: bool = True
    read_only: bool = False
    error_if_full: bool = True

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters."""
        options = [name for name, attribute, value in _POOL_OPTIONS if getattr(self, attribute) is value]
        head = f"{number(self.metadata)} {number(self.data)} {sectors(self.block)} {self.low_water_blocks}"
        return " ".join([head, str(len(options)), *options])


_POOL_OPTIONS: Final = (
    ("skip_block_zeroing", "zero", False),
    ("ignore_discard", "discard", False),
    ("no_discard_passdown", "passdown", False),
    ("read_only", "read_only", True),
    ("error_if_no_space", "error_if_full", True),
)


@dataclass(frozen=True, slots=True)
class Thin(Target):
    """Thin device ``identity`` of ``pool``; what it has not got yet is read from ``external_origin``, else zeros."""

    kind: ClassVar[str] = "thin"
    pool: str
    identity: int
    external_origin: str = ""

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters."""
        text = f"{number(self.pool)} {self.identity}"
        return f"{text} {number(self.external_origin)}" if self.external_origin else text


@dataclass(frozen=True, slots=True)
class Verity(Target):
    """``data`` whose blocks are proven by the hash tree on ``hashes`` from block ``hash_start_blocks`` on.

    ``root`` and ``salt`` are bytes; blocks are ``data_block`` and ``hash_block`` bytes.
    """

    kind: ClassVar[str] = "verity"
    data: str
    hashes: str
    root: bytes
    salt: bytes = b""
    hash_start_blocks: int = 0
    data_block: int = 4096
    hash_block: int = 4096
    algorithm: str = "sha256"
    version: int = 1
    options: tuple[str, ...] = ()

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters."""
        if self.length % self.data_block:
            raise UsageError(f"verity: expected a multiple of {self.data_block} bytes, found {self.length}")
        text = (
            f"{self.version} {number(self.data)} {number(self.hashes)} {self.data_block} {self.hash_block}"
            f" {self.length // self.data_block} {self.hash_start_blocks} {self.algorithm} {self.root.hex()}"
            f" {self.salt.hex() or '-'}"
        )
        return " ".join([text, *([str(len(self.options)), *self.options] if self.options else [])])


@dataclass(frozen=True, slots=True)
class Crypt(Target):
    """``device`` from ``offset`` on, decrypted. ``key`` is hexadecimal, or names a key of the kernel's keyrings.

    It is not shown by ``repr``, and the kernel wipes what carried it. ``iv_offset`` counts sectors.
    """

    kind: ClassVar[str] = "crypt"
    cipher: str
    key: str = field(repr=False)
    device: str
    offset: int = 0
    iv_offset: int = 0
    options: tuple[str, ...] = ()

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters."""
        text = f"{self.cipher} {self.key} {self.iv_offset} {number(self.device)} {sectors(self.offset)}"
        return " ".join([text, *([str(len(self.options)), *self.options] if self.options else [])])


@dataclass(frozen=True, slots=True)
class Other(Target):
    """A target of any other type, with its parameters as text."""

    type: str
    text: str

    def parameters(self, number: Number = _as_it_is) -> str:
        """Return the parameters."""
        return self.text


def sectors(value: int) -> int:
    """Return bytes as sectors. Raises UsageError for a part of one."""
    if value % SECTOR or value < 0:
        raise UsageError(f"device-mapper: expected a multiple of 512 bytes, found {value}")
    return value // SECTOR


def lines(table: Sequence[Target], number: Number = _as_it_is) -> list[Line]:
    """Return the table as the kernel takes it. Raises UsageError for an empty one, and for parts of sectors."""
    if not table:
        raise UsageError("device-mapper: expected a table of one target or more, found none")
    found, start = [], 0
    for target in table:
        length = sectors(target.length)
        if not length:
            raise UsageError(f"device-mapper: {target.kind}: expected a length of a sector or more, found 0")
        kind = target.type if isinstance(target, Other) else target.kind
        found.append(Line(start, length, kind, target.parameters(number)))
        start += length
    return found


def size_of(table: Sequence[Target]) -> int:
    """Return the size in bytes of a device with that table."""
    return sum(target.length for target in table)


def parse(line: Line) -> Target:
    """Return the target of a table that the kernel told; Other for what is not known, or not as documented."""
    reader = _READERS.get(line.type)
    length = line.length_sectors * SECTOR
    if reader is not None:
        try:
            return reader(length, line.text.split())
        except (ValueError, IndexError):
            pass
    return Other(length, line.type, line.text)


def _linear(length: int, words: list[str]) -> Target:
    device, offset = words
    return Linear(length, device, int(offset) * SECTOR)


def _striped(length: int, words: list[str]) -> Target:
    count, chunk, *rest = words
    if len(rest) != 2 * int(count):
        raise ValueError
    parts = tuple((rest[at], int(rest[at + 1]) * SECTOR) for at in range(0, len(rest), 2))
    return Striped(length, int(chunk) * SECTOR, parts)


def _origin(length: int, words: list[str]) -> Target:
    (origin,) = words
    return SnapshotOrigin(length, origin)


def _snapshot(kind: type[Snapshot]) -> Callable[[int, list[str]], Target]:
    def read(length: int, words: list[str]) -> Target:
        origin, store, how, chunk, *rest = words
        if how not in ("P", "N", "PO", "NO"):
            raise ValueError
        return kind(length, origin, store, int(chunk) * SECTOR, how[0] == "P", how.endswith("O"), _options(rest))

    return read


def _thin_pool(length: int, words: list[str]) -> Target:
    metadata, data, block, low_water, *rest = words
    given = _options(rest)
    values = {attribute: value if name in given else not value for name, attribute, value in _POOL_OPTIONS}
    if not set(given) <= {name for name, _, _ in _POOL_OPTIONS}:
        raise ValueError
    return ThinPool(length, metadata, data, int(block) * SECTOR, int(low_water), **values)


def _thin(length: int, words: list[str]) -> Target:
    pool, identity, *rest = words
    if len(rest) > 1:
        raise ValueError
    return Thin(length, pool, int(identity), *rest)


def _verity(length: int, words: list[str]) -> Target:
    version, data, hashes, data_block, hash_block, _, start, algorithm, root, salt, *rest = words
    if not int(data_block):
        raise ValueError
    return Verity(
        length=length,
        data=data,
        hashes=hashes,
        root=bytes.fromhex(root),
        salt=b"" if salt == "-" else bytes.fromhex(salt),
        hash_start_blocks=int(start),
        data_block=int(data_block),
        hash_block=int(hash_block),
        algorithm=algorithm,
        version=int(version),
        options=_options(rest),
    )


def _crypt(length: int, words: list[str]) -> Target:
    cipher, key, iv_offset, device, offset, *rest = words
    return Crypt(length, cipher, key, device, int(offset) * SECTOR, int(iv_offset), _options(rest))


def _options(words: list[str]) -> tuple[str, ...]:
    """Return the optional parameters, which a count precedes."""
    if not words:
        return ()
    if int(words[0]) != len(words) - 1:
        raise ValueError
    return tuple(words[1:])


_READERS: Final[dict[str, Callable[[int, list[str]], Target]]] = {
    "linear": _linear,
    "striped": _striped,
    "zero": lambda length, _: Zero(length),
    "error": lambda length, _: Error(length),
    "snapshot-origin": _origin,
    "snapshot": _snapshot(Snapshot),
    "snapshot-merge": _snapshot(SnapshotMerge),
    "thin-pool": _thin_pool,
    "thin": _thin,
    "verity": _verity,
    "crypt": _crypt,
}
