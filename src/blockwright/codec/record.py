"""Fixed binary records as typed classes: each field states its byte offset, as the specification does.

    class Header(Record, size=16, byte_order="<"):
        magic: int = u32(0x0)
        name: bytes = raw(0x4, 8)

``Header.parse(buffer)`` reads one, ``header.pack()`` gives its bytes. Bytes that no field names are zero in
``pack`` and left alone by ``pack_into``, so what a newer version keeps there survives an edit.

Knows: offsets, widths, byte order. Refuses to know: what a field means, and where the bytes come from.
"""

from __future__ import annotations

import struct
from typing import Any, ClassVar, NamedTuple, Self, dataclass_transform

Buffer = bytes | bytearray | memoryview


class Field(NamedTuple):
    """Where a field lies: byte offset in the record, struct code, width in bytes, values (1, or a tuple's length)."""

    offset: int
    code: str
    width: int
    default: Any


def u8(offset: int, default: int = 0) -> Any:
    """Declare an unsigned 8-bit integer."""
    return Field(offset, "B", 1, default)


def u16(offset: int, default: int = 0) -> Any:
    """Declare an unsigned 16-bit integer."""
    return Field(offset, "H", 2, default)


def u32(offset: int, default: int = 0) -> Any:
    """Declare an unsigned 32-bit integer."""
    return Field(offset, "I", 4, default)


def u64(offset: int, default: int = 0) -> Any:
    """Declare an unsigned 64-bit integer."""
    return Field(offset, "Q", 8, default)


def raw(offset: int, width: int) -> Any:
    """Declare ``width`` bytes that are kept as they are, zero-padded when shorter values are packed."""
    return Field(offset, f"{width}s", width, bytes(width))


@dataclass_transform(kw_only_default=True)
class Record:
    """The base of all records. A subclass gives ``size`` in bytes and ``byte_order``.

    That is ``<``, ``>``, or ``=`` for this machine's own.
    """

    SIZE: ClassVar[int]
    FIELDS: ClassVar[dict[str, Field]]
    _struct: ClassVar[struct.Struct]

    def __init_subclass__(cls, *, size: int, byte_order: str = "<", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        fields = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        cls.SIZE = size
        cls.FIELDS = dict(sorted(fields.items(), key=lambda item: item[1].offset))
        codes, position = [], 0
        for name, field in cls.FIELDS.items():
            if field.offset < position:
                raise TypeError(f"{cls.__name__}.{name}: overlaps the field before it at byte {field.offset}")
            codes.append(f"{field.offset - position}x{field.code}")
            position = field.offset + field.width
        if position > size:
            raise TypeError(f"{cls.__name__}: fields end at byte {position}, past its size {size}")
        cls._struct = struct.Struct(f"{byte_order}{''.join(codes)}{size - position}x")
        cls._runs = _runs(cls.FIELDS, byte_order)
        for name, field in cls.FIELDS.items():
            setattr(cls, name, field.default)

    _runs: ClassVar[list[tuple[int, struct.Struct, list[str]]]]

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            if name not in self.FIELDS:
                raise TypeError(f"{type(self).__name__}: has no field {name!r}")
            setattr(self, name, value)

    @classmethod
    def parse(cls, buffer: Buffer, offset: int = 0) -> Self:
        """Return the record at ``offset``; the buffer must hold all ``SIZE`` bytes of it."""
        record = cls.__new__(cls)
        vars(record).update(zip(cls.FIELDS, cls._struct.unpack_from(buffer, offset), strict=True))
        return record

    def pack(self) -> bytes:
        """Return the record's ``SIZE`` bytes; what no field names is zero."""
        return self._struct.pack(*[getattr(self, name) for name in self.FIELDS])

    def pack_into(self, buffer: bytearray | memoryview, offset: int = 0) -> None:
        """Write the fields at ``offset`` and leave the bytes between them as they are."""
        for start, run, names in self._runs:
            run.pack_into(buffer, offset + start, *[getattr(self, name) for name in names])

    def replace(self, **values: Any) -> Self:
        """Return a copy with the named fields changed."""
        copy = type(self)(**{name: getattr(self, name) for name in self.FIELDS})
        for name, value in values.items():
            if name not in self.FIELDS:
                raise TypeError(f"{type(self).__name__}: has no field {name!r}")
            setattr(copy, name, value)
        return copy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.pack() == self.pack()

    __hash__ = None  # type: ignore[assignment]  # fields are mutable

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.FIELDS)
        return f"{type(self).__name__}({fields})"


def _runs(fields: dict[str, Field], byte_order: str) -> list[tuple[int, struct.Struct, list[str]]]:
    """Group adjacent fields so that ``pack_into`` writes each group with one call."""
    groups: list[tuple[int, str, list[str]]] = []
    end = -1
    for name, field in fields.items():
        if field.offset == end:
            start, codes, names = groups[-1]
            groups[-1] = (start, codes + field.code, [*names, name])
        else:
            groups.append((field.offset, field.code, [name]))
        end = field.offset + field.width
    return [(start, struct.Struct(byte_order + codes), names) for start, codes, names in groups]
