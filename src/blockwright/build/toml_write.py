"""A disk's definition as TOML, which reads back as the same.

Knows: how values are written. Refuses to know: how they are read.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from enum import Enum
from typing import Any
from uuid import UUID

from blockwright.boot.kinds import Ways
from blockwright.build import keys
from blockwright.build.definition import BootOptions, Definition, PartitionDefinition, RootOptions
from blockwright.build.partition import NamedContent
from blockwright.errors import UsageError
from blockwright.units import GiB, KiB, MiB, parse_fraction

_SHARES = ("free", "reserved")
_SIZES = ("size",)


def write_toml(definition: Definition, sources: tuple[str, ...] = (), others: Mapping[str, Any] | None = None) -> str:
    """Return the text of a file that asks for the disk, and for what else the caller has by key.

    What has its default is left out; paths are absolute. Raises UsageError for text that no file of TOML can hold.
    """
    lines = []
    if sources:
        lines.append(f"sources = {_value(tuple(_absolute(each) for each in sources))}")
    plain = {"": Definition(), "root": RootOptions(), "boot": BootOptions()}
    owners: dict[str, Any] = {"": definition, "root": definition.root, "boot": definition.boot}
    for name, key in keys.DISK.items():
        place, _, field = key.field.rpartition(".")
        value = getattr(owners[place], field)
        if value != getattr(plain[place], field):
            lines.append(f"{name} = {_written(key, value)}")
    lines += [f"{name} = {_value(value)}" for name, value in (others or {}).items()]
    for part in definition.partitions:
        lines += ["", "[[partition]]", *_partition(part)]
    return "".join(f"{line}\n" for line in lines)


def _partition(part: PartitionDefinition) -> list[str]:
    default = {each.name: each.default for each in dataclasses.fields(PartitionDefinition)}
    lines = []
    for name, key in keys.PARTITION.items():
        value = getattr(part, key.field)
        if name == "size" and part.rest:
            lines.append('size = "rest"')
        elif name == "files" and value:
            lines.append(f"files = {_value([f'{_absolute(source)}:{target}' for source, target in value])}")
        elif value != default[key.field]:
            lines.append(f"{name} = {_written(key, value)}")
    return lines


def _written(key: keys.Key, value: Any) -> str:
    if key.path and isinstance(value, (str, tuple)):
        value = _absolute(value) if isinstance(value, str) else tuple(_absolute(each) for each in value)
    if key.field.rpartition(".")[2] in _SHARES:
        return _share(value)
    if (isinstance(value, int) and key.field.rpartition(".")[2] in _SIZES) or key.parse is keys.size:
        return _size(value)
    return _value(value)


def _share(value: float) -> str:
    text = f"{value * 100:.6f}".rstrip("0").rstrip(".") + "%"
    return _value(text) if parse_fraction(text) == value else repr(value)


def _size(value: int) -> str:
    for unit, letter in ((GiB, "G"), (MiB, "M"), (KiB, "k")):
        if value and value % unit == 0:
            return f'"{value // unit}{letter}"'
    return f'"{value}"'


def _value(value: Any) -> str:
    if isinstance(value, Ways):
        return _value(",".join(each.value for each in value if each is not None))
    if isinstance(value, NamedContent):
        return _value(os.path.abspath(value.name))
    if isinstance(value, Enum):
        return _value(value.value)
    if isinstance(value, UUID):
        return _value(str(value))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(each) for each in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return _text(str(value))


def _text(value: str) -> str:
    if any("\ud800" <= each <= "\udfff" for each in value):
        raise UsageError(f"definition: expected text in UTF-8, which is all that TOML holds, found {value[:64]!a}")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _absolute(text: str) -> str:
    if text == "-" or "://" in text or text.startswith(("mem:", "null:")):
        return text
    return os.path.abspath(text)
