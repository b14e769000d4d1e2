"""Every image format as one value: its name, how it is told, what it takes, and how to get at its package.

A format's package is imported when an image of it is opened or made, so this module costs nothing to import.

Knows: formats by name. Refuses to know: their bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from blockwright.errors import UsageError
from blockwright.plugin import FORMATS as PLUGINS
from blockwright.plugin import find_plugin

if TYPE_CHECKING:  # a driver imports its format's package
    from blockwright.format.driver import Driver


@dataclass(frozen=True, slots=True)
class Option:
    """How something about a new image is asked for: ``--name``. Formats that share one share the value.

    ``choices`` are what it can be, none for any text; ``flag`` has no value.
    """

    name: str
    help: str
    choices: tuple[str, ...] = ()
    flag: bool = False
    metavar: str | None = None

    @property
    def key(self) -> str:
        """The name under which its value is given to ``Driver.options``."""
        return self.name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Format:
    """One format. ``marks`` are (offset, bytes) in a file's first 512 bytes, any of which tells it; ``tells``
    looks at those bytes itself.

    ``suffixes`` stand for it in the name of an output. ``options`` are what a new image takes (``COMPRESS`` among
    them where its data can be compressed); ``streams`` says that images of some kind go to a pipe too.
    ``made`` is False where none are made, ``read_only`` says that none can be written to. ``load`` gets its driver.
    """

    name: str
    load: Callable[[], Driver]
    marks: tuple[tuple[int, bytes], ...] = ()
    suffixes: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    tells: Callable[[bytes], bool] | None = None
    made: bool = True
    streams: bool = False
    read_only: bool = False


def _raw() -> Driver:
    from blockwright.format.raw.driver import DRIVER

    return DRIVER


def _qcow2() -> Driver:
    from blockwright.format.qcow2.driver import DRIVER

    return DRIVER


def _vmdk() -> Driver:
    from blockwright.format.vmdk.driver import DRIVER

    return DRIVER


def _ova() -> Driver:
    from blockwright.format.ova.driver import DRIVER

    return DRIVER


def _tells_ova(head: bytes) -> bool:
    """Whether a tar archive begins so whose first member is an OVF descriptor, as DSP0243 has it."""
    return head[257:262] == b"ustar" and head[:100].rstrip(b"\0").lower().endswith(b".ovf")


def _vhd() -> Driver:
    from blockwright.format.vhd.driver import DRIVER

    return DRIVER


def _vhdx() -> Driver:
    from blockwright.format.vhdx.driver import DRIVER

    return DRIVER


def _vdi() -> Driver:
    from blockwright.format.vdi.driver import DRIVER

    return DRIVER


COMPRESS: Final = Option("compress", "qcow2, vmdk, raw: compress the data.", flag=True)
COMPRESSION: Final = Option(
    "compression",
    "How the data is compressed; raw as a file of that kind.  [default: zlib; raw: gzip, or by the suffix .gz, .zst]",
    choices=("zlib", "gzip", "zstd"),
)
SUBFORMAT: Final = Option(
    "subformat",
    "vhd, vhdx, vdi: blocks as they are written, or all from the start.  [default: dynamic]",
    choices=("dynamic", "fixed"),
)
BLOCK_SIZE: Final = Option(
    "image-block-size",
    "vhd, vhdx, vdi: bytes of a block.  [default: vhd 2m, vdi 1m, vhdx by size]",
    metavar="SIZE",
)
LEVEL: Final = Option("level", "Level of the compression.", metavar="N")


def _gz() -> Driver:
    from blockwright.format.packed.driver import GZ

    return GZ


def _xz() -> Driver:
    from blockwright.format.packed.driver import XZ

    return XZ


def _zst() -> Driver:
    from blockwright.format.packed.driver import ZST

    return ZST


FORMATS: Final = (
    Format(
        "raw",
        _raw,
        options=(COMPRESS, COMPRESSION, LEVEL),
        streams=True,
    ),
    Format(
        "qcow2",
        _qcow2,
        marks=((0, b"QFI\xfb"),),
        suffixes=(".qcow2", ".qcow"),
        options=(
            COMPRESS,
            COMPRESSION,
            LEVEL,
            Option("cluster-size", "qcow2: bytes of a cluster.  [default: 64k]", metavar="SIZE"),
            Option("qcow2-version", "qcow2: version of the format.  [default: 3]", choices=("2", "3")),
            Option(
                "refcount-bits",
                "qcow2: bits of a refcount.  [default: 16]",
                choices=("1", "2", "4", "8", "16", "32", "64"),
            ),
            Option("extended-l2", "qcow2: allocate 32nds of clusters.", flag=True),
        ),
    ),
    Format(
        "vmdk",
        _vmdk,
        marks=((0, b"KDMV"), (0, b"COWD"), (0, b"# Disk DescriptorFile")),
        suffixes=(".vmdk",),
        options=(
            COMPRESS,
            LEVEL,
            Option(
                "vmdk-type",
                "vmdk: one file or several, sparse, flat or compressed.  [default: monolithicSparse; with --compress "
                "or to standard output: streamOptimized]",
                choices=(
                    "monolithicSparse",
                    "monolithicFlat",
                    "twoGbMaxExtentSparse",
                    "twoGbMaxExtentFlat",
                    "streamOptimized",
                ),
            ),
            Option(
                "vmdk-adapter",
                "vmdk: what the disk hangs on.  [default: ide; streamOptimized: lsilogic]",
                choices=("ide", "lsilogic", "buslogic", "legacyESX"),
            ),
        ),
        streams=True,
    ),
    Format(
        "ova",
        _ova,
        tells=_tells_ova,
        suffixes=(".ova",),
        options=(
            LEVEL,
            Option("ova-cpus", "ova: processors of the machine.  [default: 1]", metavar="N"),
            Option("ova-memory", "ova: its memory.  [default: 1G]", metavar="SIZE"),
            Option("ova-firmware", "ova: what starts it.  [default: bios]", choices=("bios", "efi")),
        ),
    ),
    Format(
        "vhd",
        _vhd,
        marks=((0, b"conectix"),),
        suffixes=(".vhd", ".vpc"),
        options=(SUBFORMAT, BLOCK_SIZE),
    ),
    Format(
        "vhdx",
        _vhdx,
        marks=((0, b"vhdxfile"),),
        suffixes=(".vhdx",),
        options=(
            SUBFORMAT,
            BLOCK_SIZE,
            Option("vhdx-sector-size", "vhdx: bytes of a logical sector.  [default: 512]", choices=("512", "4096")),
        ),
    ),
    Format(
        "vdi",
        _vdi,
        marks=((64, b"\x7f\x10\xda\xbe"),),
        suffixes=(".vdi",),
        options=(SUBFORMAT, BLOCK_SIZE),
    ),
    Format("gz", _gz, marks=((0, b"\x1f\x8b\x08"),), made=False, read_only=True),
    Format("xz", _xz, marks=((0, b"\xfd7zXZ\0"),), made=False, read_only=True),
    Format("zst", _zst, marks=((0, b"\x28\xb5\x2f\xfd"),), made=False, read_only=True),
)
"""In the order in which people are told of them."""

NAMES: Final = tuple(each.name for each in FORMATS)
"""Formats that are read."""

MADE: Final = tuple(each.name for each in FORMATS if each.made)
"""Formats of which new images can be made."""


def find_format(name: str) -> Format | None:
    """Return the format of that name, ours or a plugin's, None where none is known. Raises UsageError."""
    ours = next((each for each in FORMATS if each.name == name), None)
    if ours is not None:
        return ours
    found = find_plugin(PLUGINS, name)
    if found is not None and not (isinstance(found, Format) and found.name == name):
        raise UsageError(f"{name}: expected the plugin to be the Format of that name, found {found!r:.80}")
    return found


def format_named(name: str) -> Format:
    """Return the format of that name. Raises UsageError."""
    found = find_format(name)
    if found is None:
        raise UsageError(f"format: expected {' or '.join(NAMES)}, found {name[:40]!r}")
    return found


PACKED_SUFFIXES: Final = (".gz", ".zst")
"""What a raw disk is called that is written compressed."""
_NEVER_WRITTEN: Final = (
    *(".xz", ".lzma", ".bz2", ".lz4", ".zip", ".7z"),
    *(".tar", ".tgz", ".txz", ".qed", ".dmg", ".squashfs", ".erofs"),
)


def format_by_name(path: str) -> str:
    """Return the format that a file's suffix stands for; raw where it stands for none.

    Raises UsageError for one that stands for what is never written, since nobody would find a raw disk behind it.
    """
    lower = path.lower()
    found = next((each.name for each in FORMATS if lower.endswith(each.suffixes)), None)
    packed = next((each for each in PACKED_SUFFIXES if lower.endswith(each)), "")
    inner = lower.removesuffix(packed)
    others = _NEVER_WRITTEN + (tuple(suffix for each in FORMATS for suffix in each.suffixes) if packed else ())
    wrong = next((each for each in others if inner.endswith(each)), None)
    if wrong is not None:
        raise UsageError(
            f"{path}: no {wrong}{packed} file is written: expected another suffix, or --format to have that name"
        )
    return found or "raw"


def all_options() -> tuple[Option, ...]:
    """Return the options of all formats, each once."""
    return tuple(dict.fromkeys(option for each in FORMATS for option in each.options))


def own_options(form: str, given: dict[str, Any], output: str) -> object:
    """Return what a new image of a format at ``output`` is like; ``given`` has options by key, None where not given.

    Raises UsageError for one that the format does not take, and as ``Driver.options`` does.
    """
    found = format_named(form)
    taken = {option.key for option in found.options}
    for option in all_options():
        if option.key not in taken and given.get(option.key) not in (None, False):
            raise UsageError(f"--{option.name}: is no option of the format {form}")
    return found.load().options({key: value for key, value in given.items() if key in taken}, output)
