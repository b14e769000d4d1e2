"""A plugin of each kind, as small as one can be: a scheme, an image format, a kind of source, a scanner.

pip install ./examples/plugin
blockwright convert pattern:1M,moo cow.img
blockwright convert cow.img cow.flipped --format flipped
blockwright compare --from flipped cow.flipped pattern:1M,moo
blockwright build words:hello,world -o words.img
blockwright scan rootfs --scanner keys
"""

import os
from datetime import UTC, datetime

from blockwright.device.base import BlockDevice, Traits, Waits
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.window import Window
from blockwright.errors import NotThisFormat, ScanFailed, UsageError
from blockwright.format.driver import Driver
from blockwright.format.registry import Format
from blockwright.scan.scanner import Database, Report
from blockwright.scan.verdict import Finding, Severity
from blockwright.source.base import Source
from blockwright.tree import BytesContent, Directory, File
from blockwright.tree.rules import Remarks
from blockwright.units import parse_size

# -- a scheme: `pattern:SIZE,WORD` is a disk of SIZE bytes that says WORD over and over ------------


class Pattern(BlockDevice):
    """One method is enough. Ranges are checked before it is called, and never reach behind the end."""

    def __init__(self, size: int, word: bytes) -> None:
        super().__init__(size, Traits(parallelism=8, waits=Waits.NEVER))
        self._word = word

    def _read_into(self, offset, buffers):
        for buffer in buffers:
            skip = offset % len(self._word)
            text = self._word * ((skip + len(buffer)) // len(self._word) + 1)
            buffer[:] = text[skip : skip + len(buffer)]
            offset += len(buffer)


def open_pattern(rest: str, *, writable: bool) -> Pattern:
    """`rest` is what stands behind the scheme; a part (`#2`) was taken off, and is taken care of."""
    size, _, word = rest.partition(",")
    if not word:
        raise UsageError(f"pattern:{rest}: expected a size and a word, as in pattern:1M,moo")
    return Pattern(parse_size(size), word.encode())


# -- a format: a header of 512 bytes, and behind it the disk with every bit turned over ------------

_MAGIC = b"FLIPPED\n".ljust(512, b"\0")
_TURNED = bytes(range(255, -1, -1))


class Flipped(ForwardingDevice):
    """Another device, seen through a table: a wrapper overrides what it changes, and says what it cannot do."""

    def __init__(self, file: BlockDevice, *, owns: bool = True) -> None:
        inside = Window(file, 512, file.size - 512, owns=owns)
        super().__init__(inside, traits=Traits(writable=file.traits.writable, parallelism=file.traits.parallelism))

    def _read_into(self, offset, buffers):
        super()._read_into(offset, buffers)
        for buffer in buffers:
            buffer[:] = bytes(buffer).translate(_TURNED)

    def _read_ready(self, offset, buffers):
        return False

    def _write(self, offset, buffers, *, durable):
        super()._write(offset, [memoryview(bytes(each).translate(_TURNED)) for each in buffers], durable=durable)

    def _zero(self, offset, length, *, may_unmap, fast_only, durable):
        BlockDevice._zero(self, offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)

    def _discard(self, offset, length, *, durable):
        """Do nothing: what the file below forgets would not read as zeros here."""

    def _extents(self, offset, length):
        return BlockDevice._extents(self, offset, length)

    def _backing(self, offset, length):
        return BlockDevice._backing(self, offset, length)


class FlippedDriver(Driver):
    name = "flipped"

    def open(self, file, files, *, writable):
        if file.size < 512 or file.read(0, 512) != _MAGIC:
            raise NotThisFormat("flipped: expected its header")
        return Flipped(file)

    def create(self, file, size, own, beside):
        file.resize(512 + size)
        file.write(0, _MAGIC)
        disk = Flipped(file, owns=False)
        disk.zero(0, size)
        return disk


FLIPPED = Format("flipped", FlippedDriver, suffixes=(".flipped",))


# -- a kind of source: `words:a,b` is a directory with a file for each word ------------------------


class Words(Source):
    kind = "words"
    addressable = True

    def __init__(self, text: str) -> None:
        self.name = text
        self.remarks = Remarks()
        self._words = [each for each in text.partition(":")[2].split(",") if each]

    def read(self, place=None):
        return Directory(
            entries={each.encode(): File(0o644, content=BytesContent(f"{each}\n".encode())) for each in self._words}
        )

    def close(self):
        pass


def open_words(text: str) -> Words:
    """`text` is the whole name, scheme and all."""
    return Words(text)


# -- a scanner: private keys that somebody left in an image ----------------------------------------


class Keys:
    name = "keys"
    looks_for = "malware"

    def examine(self, subject):
        projected = subject.projected(numbered=True)
        findings = []
        for number, path in projected.names.items():
            with open(os.path.join(projected.path, number), "rb") as file:
                if b"PRIVATE KEY-----" in file.read(4096):
                    findings.append(Finding("private-key", Severity.HIGH, place=os.fsdecode(path)))
        return Report("1.0", Database("1", datetime.now(UTC)), tuple(findings), subject.inventory.system)

    def examine_sbom(self, sbom, place):
        raise ScanFailed("keys: expected files to look into, found a list of packages")


def find_keys(options):
    """Needs no program, so it is always there."""
    return Keys()
