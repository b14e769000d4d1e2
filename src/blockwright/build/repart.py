"""A directory of repart.d's files as a disk's definition.

Sizes come out as systemd-repart's: in steps of 4 KiB from the first MiB on, divided by weight. What a file asks for
that a disk of ours cannot be is refused by file and line; what has no effect on a new disk is told.

Knows: the settings of such files. Refuses to know: what partitions become.

Source: repart.d(5) of systemd 252, and of 253 to 257 for ``Minimize=``, ``MountPoint=`` and others that came later.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final, NamedTuple

from blockwright.build import keys
from blockwright.build.definition import MAX_PARTITIONS, PartitionDefinition
from blockwright.build.toml_read import Asked, read_text
from blockwright.codec.lines import lines_of
from blockwright.errors import BlockwrightError, FormatError, NotFound
from blockwright.table.gpt.names import TYPES, attribute_names, parse_attributes, type_name
from blockwright.table.plan import DEFAULT_WEIGHT
from blockwright.table.shares import MAX_WEIGHT
from blockwright.units import KiB, MiB, align_down, align_up

GRAIN: Final = 4 * KiB
"""What sizes are multiples of."""
DEFAULT_MINIMUM: Final = 10 * MiB
_FLAGS: Final = re.compile(r"0[xX][0-9a-fA-F]{1,64}|0[bB][01]{1,64}|0[oO][0-7]{1,64}|0|[1-9][0-9]{0,63}")
_BLANKS: Final = " \t\r"
_FORMATS: Final = {"ext2": "ext2", "ext3": "ext3", "ext4": "ext4", "vfat": "fat", "swap": "swap"}
_TRUE: Final = ("1", "yes", "y", "true", "t", "on")
_FALSE: Final = ("0", "no", "n", "false", "f", "off")
_MOUNTED: Final = ("home", "srv", "var", "tmp", "xbootldr")
"""Types, beside those of roots and /usr, that all of ``_MARKS`` are for."""
_NAMED: Final = (*_MOUNTED, "esp", "swap", "user-home", "linux-generic")
_MARKS: Final = {"ReadOnly": "read-only", "NoAuto": "no-auto", "GrowFileSystem": "growfs"}
"""Attributes that settings of their own ask for."""
_MACHINES: Final = {
    "x86_64": "x86-64",
    "AMD64": "x86-64",
    "i686": "x86",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv7l": "arm",
    "riscv64": "riscv64",
    "loongarch64": "loongarch64",
    "ppc64le": "ppc64-le",
    "s390x": "s390x",
}
_NO_EFFECT: Final = {
    "FactoryReset": "is of use on a disk that is there already",
    "Priority": "has no effect: what does not fit is refused",
    "SplitName": "has no effect: the disk is one file",
    "MountPoint": "has no effect on the partition: fstab is yours to write",
}
_REFUSED: Final = {
    "EncryptedVolume": "volumes that are encrypted",
    "TPM2PCRs": "volumes that are encrypted",
    "KeyFile": "volumes that are encrypted",
    "Compression": "file systems that are compressed",
    "CompressionLevel": "file systems that are compressed",
    "Subvolumes": "subvolumes",
    "DefaultSubvolume": "subvolumes",
    "ExcludeFiles": "excludes",
    "ExcludeFilesTarget": "excludes",
    "MakeSymlinks": "links that are made",
    "SupplementFor": "definitions that supplement others",
    "VerityDataBlockSizeBytes": "blocks of hashes of another size",
    "VerityHashBlockSizeBytes": "blocks of hashes of another size",
}
_SEVERAL: Final = ("CopyFiles", "MakeDirectories", "ExcludeFiles", "ExcludeFilesTarget", "Subvolumes", "MakeSymlinks")


class Setting(NamedTuple):
    """A line of a file."""

    key: str
    value: str
    line: int


class Settings:
    """What one file says. The last of several lines counts, but for settings that are lists."""

    def __init__(self, path: str, settings: list[Setting], remarks: list[str]) -> None:
        self.path = path
        self.remarks = remarks
        self._left: dict[str, list[Setting]] = {}
        for each in settings:
            if not each.value:
                self._left.pop(each.key, None)
            elif each.key in _SEVERAL:
                self._left.setdefault(each.key, []).append(each)
            else:
                self._left[each.key] = [each]

    def take(self, key: str, read: Callable[[str], Any], default: Any = None) -> Any:
        """Return the value of a setting. Raises FormatError with its place."""
        found = self._left.pop(key, None)
        return default if found is None else self._read(found[0], read)

    def take_all(self, key: str, read: Callable[[str], Any]) -> list[Any]:
        """Return the values of a setting that is a list."""
        return [self._read(each, read) for each in self._left.pop(key, [])]

    def ignore(self, key: str, why: str) -> None:
        """Tell, where there is such a setting, why it has no effect."""
        for each in self._left.pop(key, []):
            self.remarks.append(f"{self.path}:{each.line}: {key}: {why}")

    def finish(self) -> None:
        """Tell of what has no effect. Raises FormatError for what was not taken."""
        for key, found in list(self._left.items()):
            each = found[0]
            if key not in _NO_EFFECT:
                known = {*_KNOWN, *_REFUSED, *_NO_EFFECT}
                what = _REFUSED.get(key)
                message = f"asks for {what}, which cannot be made" if what else "is not known"
                near = "" if what else keys.suggestion(key, dict.fromkeys(known))
                raise self.error(each, f"{message}{near}")
            self.ignore(key, _NO_EFFECT[key])

    def error(self, setting: Setting, message: str) -> FormatError:
        """Return an error with the setting's place."""
        return FormatError(f"{setting.key[:64]}: {message}", source=f"{self.path}:{setting.line}")

    def _read(self, setting: Setting, read: Callable[[str], Any]) -> Any:
        try:
            return read(setting.value)
        except (BlockwrightError, ValueError) as error:
            raise self.error(setting, str(error)) from None


_KNOWN: Final = (
    "Type",
    "Label",
    "UUID",
    "Weight",
    "PaddingWeight",
    "SizeMinBytes",
    "SizeMaxBytes",
    "PaddingMinBytes",
    "PaddingMaxBytes",
    "CopyBlocks",
    "Format",
    "CopyFiles",
    "MakeDirectories",
    "Encrypt",
    "Verity",
    "VerityMatchKey",
    "Minimize",
    "Flags",
    "ReadOnly",
    "NoAuto",
    "GrowFileSystem",
)


def read_repart(path: str) -> Asked:
    """Return what the ``*.conf`` files of a directory ask for, in the order of their names.

    Raises FormatError that names file and line; NotFound where there is none, OSError.
    """
    names = sorted(each for each in os.listdir(path) if each.endswith(".conf"))
    if not names:
        raise NotFound(f"{path}: no *.conf file of a partition")
    asked = Asked(disk={"table": "gpt", "alignment": GRAIN})
    files = [os.path.join(path, name) for name in names]
    files = [
        each for each in files if os.path.realpath(each) != os.devnull
    ]  # which masks a file of that name elsewhere
    if len(files) > MAX_PARTITIONS:
        raise FormatError(f"repart.d: expected at most {MAX_PARTITIONS} partitions, found {len(files)}", source=path)
    labels: set[str] = set()
    found = [parse_conf(read_text(file), file, asked.remarks, labels) for file in files]
    _join_verity(found, asked)
    asked.partitions = [each.part for each in found]
    return asked


class Found(NamedTuple):
    """A partition of a file, and its part in verity: ``data`` or ``hash`` with a match key, or neither."""

    part: PartitionDefinition
    path: str
    verity: str | None = None
    match: str | None = None


def settings_of(text: str, path: str) -> Iterator[Setting]:
    """Yield the settings of ``[Partition]``, one for each line, as systemd reads such files. Raises FormatError."""
    section, carried, begun = "", "", 0
    for number, line in enumerate(lines_of(text), 1):
        stripped = line.strip(_BLANKS)
        if stripped.startswith(("#", ";")) or (not stripped and not carried):
            continue
        if (len(line) - len(line.rstrip("\\"))) % 2:  # two are one that is meant
            carried, begun = f"{carried}{line[:-1].strip(_BLANKS)} ", begun or number
            continue
        whole, first, carried, begun = f"{carried}{stripped}", begun or number, "", 0
        if whole.startswith("[") and whole.endswith("]"):
            section = whole[1:-1]
            if section != "Partition":
                raise FormatError(f"[{section[:64]}]: expected [Partition]", source=f"{path}:{first}")
            continue
        key, equals, value = whole.partition("=")
        if not equals or not section:
            raise FormatError(
                f"expected Key=Value within [Partition], found {whole[:64]!a}", source=f"{path}:{first}"
            )
        yield Setting(key.strip(_BLANKS), value.strip(_BLANKS), first)
    if carried:
        raise FormatError("expected a line behind the last backslash", source=path)


def parse_conf(text: str, path: str, remarks: list[str], labels: set[str]) -> Found:
    """Return the partition that a file's text asks for. Raises FormatError.

    ``remarks`` gets what has no effect; ``labels`` are those of the partitions before it, and get its own.
    """
    taken = Settings(path, list(settings_of(text, path)), remarks)
    kind = taken.take("Type", _type, "linux-generic")
    verity = taken.take("Verity", _verity)
    match = taken.take("VerityMatchKey", str)
    taken.take("Encrypt", _not_encrypted)
    files = taken.take_all("CopyFiles", _copy)
    directories = [each for several in taken.take_all("MakeDirectories", _paths) for each in several]
    form = taken.take("Format", _format)
    image = taken.take("CopyBlocks", _image)
    if form is None and (files or directories):
        form = "ext4"
    small = taken.take("Minimize", _minimize, default=False)
    name = taken.take("Label", _label)
    if name is None:
        name = _new_label(kind, labels)
    labels.add(name)
    fields: dict[str, Any] = {
        "type": kind,
        "name": name,
        "uuid": taken.take("UUID", _uuid),
        "attributes": _attributes(taken, kind),
        "files": tuple(files),
        "directories": tuple(directories),
        "image": image,
        "file_system": form,
        "label": _file_system_label(form, name),
        "hashes": verity == "hash",
        "rest": not small and verity != "hash",
        **_sizes(taken, image, small=small, hashes=verity == "hash"),
    }
    taken.finish()
    try:
        part = PartitionDefinition(**fields)
        part.check()
    except BlockwrightError as error:
        raise FormatError(str(error), source=path) from None
    return Found(part, path, verity, match)


def _sizes(taken: Settings, image: Any, *, small: bool, hashes: bool) -> dict[str, Any]:
    """Return the fields that say a partition's size.

    Least sizes are rounded down and most sizes up: that is what the program does, whatever its manual says.
    """
    least = taken.take("SizeMinBytes", _size)
    most = taken.take("SizeMaxBytes", _size)
    low = max(align_down(least, GRAIN) if least is not None else DEFAULT_MINIMUM, GRAIN)
    high = None if most is None else align_up(most, GRAIN)
    if high is not None and least is None:
        low = min(low, max(high, GRAIN))
    if image is not None:
        low = max(low, align_up(image.content.size, GRAIN))
    padding = taken.take("PaddingMinBytes", _size, 0)
    above = taken.take("PaddingMaxBytes", _size)
    fields = {
        "padding": align_down(padding, GRAIN),
        "padding_maximum": None if above is None else align_up(above, GRAIN),
        "padding_weight": taken.take("PaddingWeight", _number, 0),
    }
    weight = taken.take("Weight", _number, DEFAULT_WEIGHT)
    if hashes or (small and least is None):
        low = 0
    return fields | {"minimum": low, "maximum": None if hashes else high, "weight": weight}


def _flags(text: str) -> int:
    if not _FLAGS.fullmatch(text):
        raise ValueError(f"expected a number, found {text[:64]!a}")
    bits = int(text, 0)
    if bits >= 1 << 64:
        raise ValueError(f"expected 64 bits, found {bits:#x}")
    return bits


def _marks_of(kind: str) -> tuple[str, ...]:
    """Return those of ``_MARKS`` that are for partitions of a type."""
    if kind in _MOUNTED or (kind.startswith(("root-", "usr-")) and not kind.endswith(("-verity", "-verity-sig"))):
        return tuple(_MARKS.values())
    if kind.endswith("-verity"):
        return ("read-only", "no-auto")
    return ("no-auto",) if kind == "swap" else ()


def _attributes(taken: Settings, kind: str) -> tuple[str, ...]:
    bits, known = taken.take("Flags", _flags, 0), _marks_of(kind)
    wanted: dict[str, bool] = {}
    for key, mark in _MARKS.items():
        if mark not in known:
            taken.ignore(key, f"has no effect on a partition of type {kind}")
            continue
        implied = kind.endswith("-verity") if mark == "read-only" else None
        if mark == "growfs":
            implied = not wanted.get("read-only")
        asked = taken.take(key, _truth, implied or None)
        if asked is not None:
            wanted[mark] = asked
    for mark, there in wanted.items():
        bit = parse_attributes([mark])
        bits = bits | bit if there else bits & ~bit
    return tuple(attribute_names(bits))


def _join_verity(found: list[Found], asked: Asked) -> None:
    """Make data and hashes of the same key the disk's root and its hashes. Raises FormatError for any others."""
    marked = [index for index, each in enumerate(found) if each.verity is not None]
    if not marked:
        return
    by_role = {found[index].verity: index for index in marked}
    first = found[marked[0]]
    if len(marked) != 2 or set(by_role) != {"data", "hash"} or len({found[index].match for index in marked}) != 1:
        raise FormatError("Verity: expected one data and one hash of the same VerityMatchKey", source=first.path)
    at = by_role["data"]
    data = found[at]
    sources = [source for source, inside in data.part.files if inside == "/"]
    if not sources:
        raise FormatError("Verity: expected CopyFiles=SOURCE:/ for its data, found none", source=data.path)
    import dataclasses

    kept = tuple(each for each in data.part.files if each != (sources[0], "/"))
    asked.disk["verity"] = True
    asked.sources = (sources[0],)
    part = dataclasses.replace(
        data.part,
        mount="/",
        files=kept,
        attributes=tuple(each for each in data.part.attributes if each not in ("growfs", "read-only")),
    )
    found[at] = data._replace(part=part)
    asked.remarks.append(f"{data.path}: Verity: UUIDs follow from the root hash")


def _truth(value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError(f"expected yes or no, found {value[:64]!a}")


def _type(value: str) -> str:
    name = value.lower()
    for prefix in ("root", "usr"):
        base, _, rest = name.partition("-")
        if base == prefix and rest in ("", "verity", "verity-sig"):
            machine = _MACHINES.get(platform.machine())
            if machine is None:
                raise ValueError(f"expected a type with its machine, such as {prefix}-x86-64, found {value}")
            name = "-".join(each for each in (prefix, machine, rest) if each)
    if name in TYPES:
        return name
    if len(name) <= 30:
        raise ValueError(f"expected a type that is known, or a UUID, found {value[:64]!a}")
    return type_name(keys.uuid(name))


def _plain(value: str) -> str:
    """Return a value with its specifiers expanded: %% only."""
    plain = value.replace("%%", "\0")
    if "%" in plain:
        raise ValueError(f"expected no specifier but %%, found {value[:64]!a}")
    return plain.replace("\0", "%")


def _label(value: str) -> str:
    return keys.text(_plain(value))


def _new_label(kind: str, taken: set[str]) -> str:
    """Return what a partition without a label is called: after its type, with a number where that is taken."""
    name = kind if kind in _NAMED or kind.startswith(("root-", "usr-")) else "linux"
    return next(each for number in count(1) if (each := name if number == 1 else f"{name}-{number}") not in taken)


def _file_system_label(form: str | None, name: str) -> str:
    """Return the partition's name as far as its file system can have it, as systemd-repart has it."""
    if form == "fat":
        return "".join(each if each.isascii() and (each.isalnum() or each in "-_ ") else "_" for each in name)[
            :11
        ].strip()
    if form is None:
        return ""
    return name.encode()[:16].decode("utf-8", "ignore")


def _uuid(value: str) -> Any:
    if value == "null":
        raise ValueError("expected a UUID, found null, which a GPT takes for none")
    return keys.uuid(value)


def _size(value: str) -> int:
    return keys.size(value.strip())


def _number(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 7 or int(value) > MAX_WEIGHT:
        raise ValueError(f"expected a weight from 0 to {MAX_WEIGHT}, found {value[:64]!a}")
    return int(value)


def _format(value: str) -> str:
    if value not in _FORMATS:
        raise ValueError(f"expected one of {', '.join(_FORMATS)}, found {value[:64]!a}, which cannot be made")
    return _FORMATS[value]


def _copy(value: str) -> tuple[str, str]:
    parts = _plain(value).split(":")
    if len(parts) > 2 or not all(each.startswith("/") for each in parts):
        raise ValueError(f"expected SOURCE:TARGET, both absolute, and no flags, found {value[:64]!a}")
    return parts[0], parts[-1].rstrip("/") or "/"


def _paths(value: str) -> list[str]:
    return [each.rstrip("/") for each in _plain(value).split() if each != "/"]


def _image(value: str) -> Any:
    if value == "auto":
        raise ValueError("expected a file, found auto, which copies from the running system")
    return keys.named(_plain(value))


def _not_encrypted(value: str) -> None:
    if value.lower() not in _FALSE:
        raise ValueError(f"asks for a volume that is encrypted, which cannot be made: {value[:64]!a}")


def _verity(value: str) -> str | None:
    if value.lower() in _FALSE:
        return None
    if value not in ("data", "hash"):
        raise ValueError(f"expected off, data or hash, found {value[:64]!a}, which cannot be made")
    return value


def _minimize(value: str) -> bool:
    return value in ("best", "guess") or _truth(value)
