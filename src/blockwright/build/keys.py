"""The words of a disk's definition: each key, the values that it takes, and the option that it stands for.

A key of the disk has the name of the command's option; ``[[partition]]`` has keys of its own, which ``--partition``
takes too. Both ways lead through ``definition_of``, so the same words are the same value.

Knows: keys and values. Refuses to know: files of definitions (``toml_read``), and the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from blockwright.boot.kinds import parse_ways
from blockwright.build.definition import BootOptions, Definition, Home, PartitionDefinition, RootOptions, Table
from blockwright.build.partition import FILE_SYSTEMS, NamedContent
from blockwright.errors import UsageError
from blockwright.table.gpt.names import parse_type, type_name
from blockwright.units import parse_fraction, parse_new_size, parse_size

MAX_TEXT: Final = 4096
"""Characters in a text, and texts in a list."""


class Key(NamedTuple):
    """A key: the field that it fills, how a value is read, and what the documentation says of it.

    ``path`` marks what names a file or directory of the host.
    """

    field: str
    parse: Callable[[Any], Any]
    help: str
    path: bool = False


def text(value: Any) -> str:
    """Return a text without NUL. Raises UsageError."""
    if not isinstance(value, str) or "\0" in value or len(value) > MAX_TEXT:
        raise UsageError(f"expected a text, found {_shown(value)}")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Return texts, of a list or of one text. Raises UsageError."""
    if isinstance(value, str):
        return (text(value),)
    if not isinstance(value, (list, tuple)) or len(value) > MAX_TEXT:
        raise UsageError(f"expected a text or a list of them, found {_shown(value)}")
    return tuple(text(each) for each in value)


def size(value: Any) -> int:
    """Return bytes, of a number or of a text such as 64M. Raises UsageError."""
    if isinstance(value, str):
        return parse_size(value)
    return number(value)


def some_size(value: Any) -> int:
    """Return bytes, at least one, of what is to be. Raises UsageError."""
    return parse_new_size(value if isinstance(value, str) else str(number(value)))


def number(value: Any) -> int:
    """Return a number from 0 on. Raises UsageError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise UsageError(f"expected a number from 0 on, found {_shown(value)}")
    return value


def size_rule(value: Any) -> int | str:
    """Return bytes, or ``auto`` or ``rest``. Raises UsageError."""
    return value if value in ("auto", "rest") and isinstance(value, str) else some_size(value)


def share(value: Any) -> float:
    """Return a fraction, of a number or of a text such as 20%. Raises UsageError."""
    if isinstance(value, str):
        return parse_fraction(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 0.95:
        raise UsageError(f"expected a percentage such as 20%, or a fraction from 0 to 0.95, found {_shown(value)}")
    return float(value)


def flag(value: Any) -> bool:
    """Return true or false. Raises UsageError."""
    if not isinstance(value, bool):
        raise UsageError(f"expected true or false, found {_shown(value)}")
    return value


def uuid(value: Any) -> UUID:
    """Return a UUID. Raises UsageError."""
    try:
        return UUID(text(value))
    except ValueError:
        raise UsageError(f"expected a UUID, found {_shown(value)}") from None


def type_of_partition(value: Any) -> str:
    """Return a type by the name that this package has for it, else as it was written, which an MBR may know."""
    try:
        return type_name(parse_type(text(value)))
    except UsageError:
        return text(value).lower()


def placed(value: Any) -> tuple[tuple[str, str], ...]:
    """Return files of ``SOURCE:/TARGET``, each a path of the host and one within. Raises UsageError."""
    found = []
    for each in texts(value):
        source, colon, target = each.rpartition(":")
        if not colon or not source or not target.startswith("/"):
            raise UsageError(f"expected SOURCE:/TARGET, found {each[:64]!a}")
        found.append((source, target.rstrip("/") or "/"))
    return tuple(found)


def one_of(names: Sequence[str]) -> Callable[[Any], str]:
    """Return what reads one of the names."""

    def chosen(value: Any) -> str:
        found = str(number(value)) if isinstance(value, int) and not isinstance(value, bool) else text(value)
        if found not in names:
            raise UsageError(f"expected one of {', '.join(names)}, found {found[:64]!a}")
        return found

    return chosen


def named(value: Any) -> NamedContent:
    """Return a file of the host. Raises NotFound, UsageError."""
    from blockwright.build.run import named_file

    return named_file(text(value))


def _shown(value: object) -> str:
    if isinstance(value, int) and not -(1 << 64) < value < 1 << 64:
        return "a number beyond 64 bits"
    kinds = {bool: "true or false", int: "a number", float: "a fraction", list: "a list", dict: "a table"}
    return repr(value)[:64] if isinstance(value, (str, int, float)) else kinds.get(type(value), type(value).__name__)


DISK: Final[dict[str, Key]] = {
    "table": Key("table", lambda value: Table(one_of([each.value for each in Table])(value)), "gpt, mbr or none"),
    "sector-size": Key("sector_size", lambda value: int(one_of(("512", "4096"))(value)), "512 or 4096"),
    "size": Key("size", some_size, "size of the whole disk; without it as small as its partitions"),
    "alignment": Key("alignment", size, "what partitions begin and end at a multiple of; 1M"),
    "disk-id": Key("disk_id", text, "the GUID of a GPT, the signature of an MBR"),
    "root-size": Key("root.size", size_rule, "size of the root: a size, auto or rest"),
    "free": Key("root.free", share, "share of the root to leave free"),
    "label": Key("root.label", text, "label of the root's file system; root"),
    "block-size": Key("root.block_size", lambda value: int(one_of(("1024", "2048", "4096"))(value)), "the root's"),
    "fs": Key("root.fs", one_of(("ext2", "ext3", "ext4")), "the root's file system; ext4"),
    "inodes": Key("root.inodes", number, "least number of inodes of the root"),
    "inode-size": Key("root.inode_size", lambda value: int(one_of(("128", "256"))(value)), "bytes of an inode"),
    "compat": Key("root.compat", texts, "old kernels and loaders that have to read the root"),
    "reserved": Key("root.reserved", share, "share of the root kept for the superuser"),
    "journal-size": Key("root.journal", size, "size of the root's journal; 0 for none"),
    "boot": Key("boot.ways", lambda value: parse_ways(text(value)), "what starts the disk"),
    "bios-home": Key(
        "boot.bios_home", lambda value: Home(one_of([each.value for each in Home])(value)), "root or boot"
    ),
    "kernel": Key("boot.kernel", named, "the kernel; without it the newest in the tree", path=True),
    "initrd": Key("boot.initrd", named, "its RAM disk", path=True),
    "loader": Key("boot.loader", named, "the program or stub for UEFI", path=True),
    "loader-dir": Key("boot.loader_dir", text, "where all loaders' files are", path=True),
    "cmdline": Key("boot.cmdline", text, "the kernel's command line"),
    "serial": Key("boot.serial", flag, "use the first serial line too"),
    "grub-modules": Key("boot.grub_modules", flag, "all of GRUB's modules beside its configuration"),
    "splash": Key("boot.splash", named, "the picture that the stub of a unified kernel image shows", path=True),
    "devicetree": Key("boot.devicetree", named, "the device tree in a unified kernel image", path=True),
    "esp-size": Key("boot.esp_size", some_size, "size of the boot partition where none is listed"),
    "verity": Key("verity", flag, "add a partition of hashes, which prove the root"),
    "seed": Key("seed", text, "text that every identity follows from, or random"),
    "spool": Key("spool", flag, "keep what passes once in a temporary file first"),
}
"""The keys of the disk itself, in the order in which they are written."""

PARTITION: Final[dict[str, Key]] = {
    "mount": Key("mount", text, "holds what of the disk's tree lies there; / is the rest"),
    "sources": Key("sources", texts, "holds these sources instead, over one another", path=True),
    "files": Key("files", placed, "SOURCE:/TARGET: files and directories put in", path=True),
    "directories": Key("directories", texts, "empty directories put in"),
    "image": Key("image", named, "holds the bytes of a file", path=True),
    "file-system": Key("file_system", one_of(FILE_SYSTEMS), ", ".join(FILE_SYSTEMS)),
    "size": Key("size", size_rule, "a size, auto (what it holds) or rest (a share of what is left)"),
    "minimum": Key("minimum", size, "least size of auto and rest"),
    "maximum": Key("maximum", size, "largest size of auto and rest"),
    "weight": Key("weight", number, "share of what is left, beside the others' weights; 1000"),
    "padding": Key("padding", size, "room that stays free behind it"),
    "padding-maximum": Key("padding_maximum", size, "the most of it"),
    "padding-weight": Key("padding_weight", number, "its share of what is left; 0"),
    "start": Key("start", size, "its first byte"),
    "alignment": Key("alignment", size, "an alignment of its own, coarser than the disk's"),
    "in-table": Key("in_table", flag, "false for bytes that no table tells of"),
    "type": Key("type", type_of_partition, "a name, a UUID; on an MBR also a number such as 0x0c"),
    "name": Key("name", text, "its name in a GPT"),
    "uuid": Key("uuid", uuid, "its UUID in a GPT"),
    "attributes": Key(
        "attributes", texts, "growfs, read-only, no-auto, legacy-boot, active, required, hidden, bit-N"
    ),
    "logical": Key("logical", flag, "on an MBR, in its extended partition"),
    "hybrid": Key("hybrid", text, "its type in the MBR of a GPT, which then tells of it too"),
    "hashes": Key("hashes", flag, "the partition of the root's hashes"),
    "label": Key("label", text, "label of its file system"),
    "file-system-uuid": Key("file_system_uuid", uuid, "UUID of an ext file system or of swap"),
    "free": Key("free", share, "share of the file system to leave free"),
    "block-size": Key("block_size", size, "block of ext, cluster of FAT"),
    "inodes": Key("inodes", number, "least number of inodes"),
    "inode-size": Key("inode_size", lambda value: int(one_of(("128", "256"))(value)), "bytes of an inode"),
    "compat": Key("compat", texts, "old kernels and loaders that have to read it"),
    "reserved": Key("reserved", share, "share kept for the superuser"),
    "journal-size": Key("journal", size, "size of the journal; 0 for none"),
}
"""The keys of a partition, in the order in which they are written."""


class KeyProblem(UsageError):
    """A value of a key that cannot be taken."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


def fields_of(keys: Mapping[str, Key], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values by field. Raises KeyProblem for a value, and for a key that is not known."""
    fields = {}
    for name, value in given.items():
        key = keys.get(name)
        if key is None:
            raise KeyProblem(name, f"is not known{suggestion(name, keys)}")
        try:
            fields[key.field] = key.parse(value)
        except UsageError as error:
            raise KeyProblem(name, str(error)) from None
    return fields


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """Return what a name that is not known may have been meant as."""
    import difflib

    spelled = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower().replace("_", "-"), spelled, 1)
    return f": did you mean {spelled[close[0]]}?" if close else f": expected one of {', '.join(sorted(known))}"


def partition_of(given: Mapping[str, Any]) -> PartitionDefinition:
    """Return the partition of those keys. Raises KeyProblem, and UsageError for what contradicts itself."""
    fields = fields_of(PARTITION, given)
    asked = fields.pop("size", "auto")
    fields |= {"rest": asked == "rest", "size": asked if isinstance(asked, int) else None}
    made = PartitionDefinition(**fields)
    made.check()
    return made


def definition_of(
    given: Mapping[str, Any], partitions: Sequence[PartitionDefinition] = (), time_s: int | None = None
) -> Definition:
    """Return the disk of those keys. Raises KeyProblem; ``Definition.check`` says what contradicts itself."""
    fields = fields_of(DISK, given)
    parts: dict[str, dict[str, Any]] = {"root": {}, "boot": {}, "": {}}
    for name, value in fields.items():
        place, _, field = name.rpartition(".")
        parts[place][field] = value
    asked = parts["root"].pop("size", "auto")
    if asked == "rest" and parts[""].get("size") is None:
        raise KeyProblem("root-size", "rest needs the size of the disk")
    if isinstance(asked, int):
        parts["root"]["size"] = asked
    return Definition(
        **parts[""],
        root=RootOptions(**parts["root"]),
        boot=BootOptions(**parts["boot"]),
        partitions=tuple(partitions),
        time_s=time_s,
    )
