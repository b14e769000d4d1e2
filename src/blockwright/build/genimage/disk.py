"""A configuration file of genimage's as a disk's definition: its hdimage, and the images that partitions refer to.

What it asks for that a disk of ours cannot be is refused by file and line; what has no effect is told.

Knows: the options of hdimage, partition, ext2 to ext4, vfat and file. Refuses to know: how they are written
(``parse``).

Source: genimage 16, README.rst; sizes and places compared with its program's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from blockwright.build import keys
from blockwright.build.genimage.parse import Option, Section, parse
from blockwright.build.partition import NamedContent, PartitionDefinition
from blockwright.build.toml_read import Asked, read_text
from blockwright.errors import BlockwrightError, FormatError
from blockwright.units import align_down, align_up, parse_size

SECTOR: Final = 512
GPT_FRONT: Final = 34 * SECTOR
EXTENDED: Final = 4
"""The number of an MBR's extended partition, where it has one."""
_LETTERS: Final = {
    "L": "linux-generic",
    "S": "swap",
    "H": "home",
    "U": "esp",
    "R": "raid",
    "V": "lvm",
    "F": "microsoft-basic-data",
}
_EXT: Final = ("ext2", "ext3", "ext4")
_TYPES: Final = (*_EXT, "vfat", "file", "hdimage")
_IMAGE_OPTIONS: Final = ("name", "size", "mountpoint", "srcpath", "empty", "temporary", "exec-pre", "exec-post")
_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")


class Options:
    """The options of a section, each to be taken once; what is left at the end is refused, or told of."""

    def __init__(self, section: Section, remarks: list[str]) -> None:
        self._section = section
        self._left = dict(section.options)
        self._remarks = remarks

    def take(self, name: str, read: Callable[[str], Any], default: Any = None) -> Any:
        """Return the value of an option. Raises FormatError with its place."""
        option = self._left.pop(name, None)
        if option is None:
            return default
        if len(option.values) != 1:
            raise _error(option, f"expected one value, found {len(option.values)}")
        try:
            return read(option.values[0])
        except (BlockwrightError, ValueError) as error:
            raise _error(option, str(error)) from None

    def take_list(self, name: str) -> list[str]:
        """Return the values of an option that is a list."""
        option = self._left.pop(name, None)
        return [] if option is None else option.values

    def tell(self, names: Mapping[str, str]) -> None:
        """Tell of those options that have no effect, and why."""
        for name, why in names.items():
            option = self._left.pop(name, None)
            if option is not None:
                self._remarks.append(f"{option.place}: {name}: {why}")

    def finish(self, known: tuple[str, ...] = ()) -> None:
        """Raise FormatError for an option that was not taken."""
        for option in self._left.values():
            if option.name in known:
                raise _error(option, "asks for what cannot be made here")
            raise _error(option, f"is not known in {self._section.name}")


def _error(option: Option, message: str) -> FormatError:
    return FormatError(f"{option.name[:64]}: {message}", source=option.place)


def read_genimage(text: str, path: str) -> Asked:
    """Return the disk that a configuration file asks for. Raises FormatError that names file and line; NotFound."""
    root = parse(text, path, read_text)
    return _Reader(root, path).asked()


class _Reader:
    """Reads one file's sections."""

    def __init__(self, root: Section, path: str) -> None:
        self._path = path
        self._folder = os.path.dirname(os.path.abspath(path))
        self._root = root
        self._remarks: list[str] = []
        self._images: dict[str, Section] = {}
        self._input, self._tree = self._config()

    def asked(self) -> Asked:
        disks = []
        for section in self._root.sections:
            if section.name == "image":
                if section.title in self._images:
                    raise section.error("expected one image of that name, found two")
                self._images[section.title] = section
                if any(each.name == "hdimage" for each in section.sections):
                    disks.append(section)
            elif section.name == "flash":
                raise section.error("asks for a flash chip's image, which cannot be made")
            elif section.name != "config":
                raise section.error("expected image, flash or config")
        for option in self._root.options.values():
            raise _error(option, "expected options within a section")
        if len(disks) != 1:
            names = ", ".join(each.title for each in disks) or "none"
            raise FormatError(f"genimage: expected one image of type hdimage, found {names[:200]}", source=self._path)
        return self._disk(disks[0])

    def _config(self) -> tuple[str, str]:
        """Return where input files and the root's tree are."""
        found = {"inputpath": "input", "rootpath": "root"}
        for section in self._root.sections:
            if section.name == "config":
                for option in section.options.values():
                    if option.name in found:
                        found[option.name] = option.values[0] if option.values else ""
                    else:
                        self._remarks.append(f"{option.place}: {option.name}: has no effect")
        return os.path.join(self._folder, found["inputpath"]), os.path.join(self._folder, found["rootpath"])

    def _disk(self, image: Section) -> Asked:
        outer = Options(image, self._remarks)
        size = outer.take("size", parse_size) or None
        self._refuse_programs(outer)
        outer.tell({"name": "has no effect", "temporary": "has no effect"})
        outer.finish(_IMAGE_OPTIONS)
        (section,) = [each for each in image.sections if each.name == "hdimage"][:1]
        options = Options(section, self._remarks)
        kind, hybrid = _table_kind(options, section)
        align = options.take("align", parse_size, SECTOR)
        if align <= 0 or align % SECTOR:
            raise section.error(f"expected an align of whole sectors, found {align}")
        disk: dict[str, Any] = {"table": kind, "alignment": align}
        if size is not None:
            disk["size"] = size
        signature = options.take("disk-signature", _signature)
        guid = options.take("disk-uuid", lambda text: str(keys.uuid(text)))
        if kind == "mbr" and signature is not None:
            disk["disk-id"] = f"{signature:08x}"
        elif kind == "gpt" and guid is not None:
            disk["disk-id"] = guid
        location = options.take("gpt-location", parse_size, 2 * SECTOR)
        if location not in (0, 2 * SECTOR) or options.take("gpt-no-backup", _truth, default=False):
            raise section.error("asks for a GPT elsewhere or without its backup, which cannot be made")
        extended = options.take("extended-partition", _integer, 0)
        if extended not in (0, EXTENDED):
            raise section.error("asks for another number of the extended partition, which is 4 here")
        options.tell({"fill": "has no effect: the disk ends where it ends"})
        options.finish()
        asked = Asked(disk=disk, remarks=self._remarks)
        self._partitions(image, asked, kind, align, hybrid=hybrid)
        if extended and kind == "mbr":  # without that only where there are more than four
            _make_logical(asked)
        return asked

    def _partitions(self, image: Section, asked: Asked, kind: str, align: int, *, hybrid: bool) -> None:
        sections = [each for each in image.sections if each.name == "partition"]
        for each in image.sections:
            if each.name not in ("partition", "hdimage"):
                raise each.error("expected hdimage and partitions in the image of a disk")
        for section in sections:
            options = Options(section, self._remarks)
            fields = self._table_fields(section, options, kind, align, hybrid=hybrid)
            name = options.take("image", lambda text: text)
            held = {} if name is None else self._held(section, name)
            self._settle_size(section, fields, held)
            if fields["size"] is not None and fields["in_table"]:
                fields["size"] = align_up(fields["size"], fields["alignment"] or align)
            options.finish(("holes",))
            try:
                part = PartitionDefinition(**{**fields, **held})
                part.check()
            except BlockwrightError as error:
                raise section.error(str(error)) from None
            asked.partitions.append(part)
        self._place_first(asked, kind, align)
        if not any(each.mount == "/" for each in asked.partitions):
            asked.partitions = [self._apart(each) for each in asked.partitions]
        if any(each.mount for each in asked.partitions):
            asked.sources = (self._tree,)

    def _settle_size(self, section: Section, fields: dict[str, Any], held: dict[str, Any]) -> None:
        """Let a partition without a size have its image's. Raises FormatError where it has one that is smaller."""
        size = held.pop("size", None)
        if fields["rest"]:
            fields["minimum"] = max(fields["minimum"], size or 0)
        elif fields["size"] is None:
            fields["size"] = size
            return
        elif size is not None and size > fields["size"]:
            raise section.error(f"expected a size of at least the {size} bytes of its image, found {fields['size']}")
        held.pop("free", None)

    def _table_fields(
        self, section: Section, options: Options, kind: str, align: int, *, hybrid: bool
    ) -> dict[str, Any]:
        """Return what a partition says of its place and of the table."""
        in_table = options.take("in-partition-table", _truth, default=True)
        start = options.take("offset", parse_size, 0)
        own = options.take("align", parse_size, align)
        fields: dict[str, Any] = {
            "in_table": in_table,
            "start": start or (None if in_table else 0),
            "size": options.take("size", parse_size) or None,
            "rest": options.take("autoresize", _truth, default=False),
            "alignment": own if in_table and own != align else None,
        }
        if fields["rest"]:
            fields |= {"minimum": fields["size"] or 0, "size": None}
        os_type = options.take("partition-type", _integer)
        type_of = options.take("partition-type-uuid", _type)
        uuid = options.take("partition-uuid", keys.uuid)
        attributes = []
        if options.take("bootable", _truth, default=False):
            attributes.append("active" if kind == "mbr" else "legacy-boot")
        for name, attribute in (("read-only", "read-only"), ("hidden", "hidden"), ("no-automount", "no-auto")):
            if options.take(name, _truth, default=False):
                attributes.append(attribute)
        if not in_table:
            return fields
        fields["attributes"] = tuple(attributes)
        if kind == "mbr":
            fields["type"] = None if os_type is None else f"0x{os_type:02x}"
        else:
            fields |= {"type": type_of or "linux-generic", "name": section.title, "uuid": uuid}
            if os_type is not None and hybrid:
                fields["hybrid"] = f"0x{os_type:02x}"
            elif os_type is not None:
                raise section.error("partition-type: expected one in a table of kind mbr or hybrid only")
        return fields

    def _place_first(self, asked: Asked, kind: str, align: int) -> None:
        """Begin the first partition where genimage does: at once behind the table."""
        import dataclasses

        for index, part in enumerate(asked.partitions):
            if part.in_table:
                if part.start is None:
                    front = align_up(SECTOR if kind == "mbr" else GPT_FRONT, part.alignment or align)
                    asked.partitions[index] = dataclasses.replace(part, start=front)
                return

    def _apart(self, part: PartitionDefinition) -> PartitionDefinition:
        """Return a partition whose part of the tree is a source of its own, since no partition has the rest."""
        import dataclasses

        if part.mount is None:
            return part
        return dataclasses.replace(part, mount=None, sources=(os.path.join(self._tree, part.mount.lstrip("/")),))

    def _held(self, partition: Section, name: str) -> dict[str, Any]:
        """Return what a partition holds: the image of that name, or a file."""
        image = self._images.get(name)
        if image is None:
            return {"image": self._file(partition, name), "file_system": None}
        kinds = [each for each in image.sections if each.name != "partition"]
        if len(kinds) != 1 or kinds[0].name not in _TYPES or kinds[0].name == "hdimage":
            found = ", ".join(each.name for each in kinds) or "nothing"
            raise image.error(
                f"expected one of ext2, ext3, ext4, vfat and file, found {found[:64]}, which cannot be made"
            )
        options, inner = Options(image, self._remarks), Options(kinds[0], self._remarks)
        self._refuse_programs(options)
        options.tell({"name": "has no effect", "temporary": "has no effect"})
        if kinds[0].name == "file":
            inner.finish(("holes",))
            options.finish(_IMAGE_OPTIONS)
            return {"image": self._file(partition, name), "file_system": None}
        return self._file_system(kinds[0], options, inner)

    def _file_system(self, kind: Section, options: Options, inner: Options) -> dict[str, Any]:
        size, free = options.take("size", _size_or_share, (None, 0.0))
        mount = options.take("mountpoint", lambda text: "/" + text.strip("/"), "/")
        source = options.take("srcpath", lambda text: os.path.join(self._folder, text))
        empty = options.take("empty", _truth, default=False)
        options.finish(_IMAGE_OPTIONS)
        fields: dict[str, Any] = {
            "file_system": "fat" if kind.name == "vfat" else kind.name,
            "size": None if size is None else align_down(size, SECTOR),
            "free": free,
            "label": inner.take("label", keys.text, ""),
        }
        files = [(name, os.path.basename(name)) for name in inner.take_list("files")]
        files += [(self._named(each), each.title) for each in kind.sections if each.name == "file"]
        for each in kind.sections:
            if each.name != "file":
                raise each.error(f"is not known in {kind.name}")
        inner.tell({"use-mke2fs": "has no effect", "usage-type": "has no effect"})
        owner = inner.take("root-owner", lambda text: text, "0:0")
        if owner != "0:0":
            raise kind.error(f"root-owner: asks for {owner[:64]}, which cannot be made here")
        inner.finish(("extraargs", "features", "mke2fs-conf", "fs-timestamp"))
        if files:
            named = [(os.path.join(self._input, name), "/" + inside.lstrip("/")) for name, inside in files]
            return fields | {"files": tuple(named)}
        if source is not None:
            return fields | {"sources": (source,)}
        return fields if empty else fields | {"mount": mount}

    def _named(self, section: Section) -> str:
        options = Options(section, self._remarks)
        name = options.take("image", lambda text: text)
        options.finish()
        if name is None:
            raise section.error("expected the image that it is")
        return str(name)

    def _file(self, section: Section, name: str) -> NamedContent:
        try:
            return keys.named(os.path.join(self._input, name))
        except BlockwrightError as error:
            raise type(error)(f"{section.place}: {error}") from None

    def _refuse_programs(self, options: Options) -> None:
        for name in ("exec-pre", "exec-post"):
            options.take(name, _refuse_program)


def _make_logical(asked: Asked) -> None:
    """Have those partitions of the table that come where the extended one is be logical ones."""
    import dataclasses

    listed = [index for index, part in enumerate(asked.partitions) if part.in_table]
    for index in listed[EXTENDED - 1 :]:
        asked.partitions[index] = dataclasses.replace(asked.partitions[index], logical=True)


def _table_kind(options: Options, section: Section) -> tuple[str, bool]:
    """Return the kind of table, and whether its MBR is a hybrid one."""
    kind = options.take("partition-table-type", lambda text: text)
    gpt = options.take("gpt", _truth, default=False)
    if not options.take("partition-table", _truth, default=True):
        kind = "none"
    kind = kind or ("gpt" if gpt else "mbr")
    if kind == "dos":
        kind = "mbr"
    if kind not in ("mbr", "gpt", "hybrid"):
        raise section.error(
            f"asks for a table of kind {kind[:64]}, which cannot be made: expected mbr, gpt or hybrid"
        )
    return ("mbr", False) if kind == "mbr" else ("gpt", kind == "hybrid")


def _truth(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"expected true or false, found {text[:64]!a}")


_INTEGER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,18}")


def _integer(text: str) -> int:
    value = int(text, 0) if _INTEGER.fullmatch(text) else -1
    if not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"expected a number of 32 bits, found {text[:64]!a}")
    return value


def _signature(text: str) -> int | None:
    """Return an MBR's signature; None for a random one, which follows from the seed here."""
    return None if text == "random" else _integer(text)


def _type(text: str) -> str:
    name = _LETTERS.get(text)
    return name or keys.type_of_partition(str(keys.uuid(text)))


def _size_or_share(text: str) -> tuple[int | None, float]:
    """Return bytes; or of ``200%`` no size, and the share of it that stays free."""
    if not text.endswith("%"):
        return parse_size(text), 0.0
    share = int(text[:-1]) if text[:-1].isascii() and text[:-1].isdecimal() and len(text) < 6 else 0
    if share < 100:
        raise ValueError(f"expected at least 100%, found {text[:64]!a}")
    return None, min(1 - 100 / share, 0.95)


def _refuse_program(text: str) -> None:
    raise ValueError(f"asks for a program to run, and none is: {text[:64]!a}")
