"""A loader's files are put into a file system of an image, and what names their places is written.

In this order: files, as one change of their file system; ``ldlinux.sys`` where it has come to lie; boot sectors,
which lead to it. So a power cut leaves the loader that was there, or the new one.

Knows: that order, for one file system. Refuses to know: what a loader consists of (``bios``), tables, first sectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from blockwright.boot import bios, fixed
from blockwright.boot.survey import Volume
from blockwright.boot.uefi import Files
from blockwright.device.base import BlockDevice
from blockwright.errors import Unsupported
from blockwright.fs.editor import Editor
from blockwright.fs.fat.boot import with_code
from blockwright.fs.fat.layout import BootSector32
from blockwright.fs.reader import Placed
from blockwright.resolve import open_editor, open_file_system
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import Directory, File

SECTOR: Final = 512
_NOTHING: Final[Mapping[str, Content]] = {}


@dataclass(frozen=True, slots=True)
class Target:
    """A volume of the image ``name`` on a writable device, and the time of what is put there.

    The device may be a part of a disk; then ``before`` are the bytes of the disk in front of it.
    """

    device: BlockDevice
    volume: Volume
    name: str
    time_ns: int
    before: int = 0

    def check(self, starter: bios.Starter) -> None:
        """Raise Unsupported, with the reason, where the loader cannot work from the volume."""
        with open_file_system(self.volume.open(self.device), source=self.name) as files:
            bios.check_features(starter, files.features)
        size = self.device.traits.minimum_block
        if self.volume.fat:
            with self.volume.open(self.device) as part:
                size = max(size, BootSector32.parse(part.read(0, max(SECTOR, size))).bpb_byts_per_sec)
        if size > SECTOR:
            raise Unsupported(
                f"{self.name}: loaders for a BIOS count in sectors of {SECTOR} bytes, found some of {size}"
            )

    def install(
        self,
        starter: bios.Starter,
        home: bios.Home,
        files: Files,
        core: tuple[int, int] = (0, 0),
        sparse: Mapping[str, Content] = _NOTHING,
    ) -> bios.Code:
        """Have the loader with ``files`` in the volume; return what is still to be written outside of it.

        ``core`` is where a core image may go, and how many bytes it may have. Raises as ``put`` and ``Starter.code``.
        """
        volume, image = self.volume, starter.image(home)
        site = bios.Site(self.before + volume.start, volume.size, volume.number, (), *core)
        if image is None:
            code = starter.code(home, site)  # may refuse, before anything is written
            self.put(files, sparse=sparse)
            return code
        self.put(files, image, sparse)
        runs = self._runs(image)
        code = starter.code(home, site._replace(runs=runs))
        with volume.open(self.device) as part:
            fixed.fill(part, runs, code.image)
            if code.boot_sector:
                _write_fat_sector(part, code.boot_sector)
        for position, data in code.others:
            self.device.write(position - self.before, data)
        self.device.flush()
        return code

    def put(self, files: Files, image: bios.Image | None = None, sparse: Mapping[str, Content] = _NOTHING) -> None:
        """Have the files in the volume, and those that are ``sparse`` there without their holes, by one commit.

        Raises NoSpace, and what else the editor refuses; then nothing was changed.
        """
        with open_editor(self.volume.open(self.device), source=self.name) as editor:
            stay = () if image is None else (image.path, *image.beside)
            every = files if image is None else {**files, image.path: BytesContent(image.blank)}
            for path, content in every.items():
                raw, stays = path.encode(), path in stay
                if stays:
                    fixed.release(editor, raw, fat=self.volume.fat)
                permissions = fixed.PERMISSIONS if stays else 0o644
                self._put_one(editor, raw, File(permissions, mtime_ns=self.time_ns, content=content))
                if stays:
                    fixed.fix(editor, raw, fat=self.volume.fat)
            for path, content in sparse.items():
                editor.write(path.encode(), content)

    def _put_one(self, editor: Editor, path: bytes, file: File) -> None:
        if b"/" in path:
            editor.mkdir(path.rpartition(b"/")[0], Directory(mtime_ns=self.time_ns), parents=True)
        editor.put(path, file)

    def _runs(self, image: bios.Image) -> Sequence[Placed]:
        """Return where the image's file has come to lie. Raises Corrupt where it is not what was put there."""
        with open_file_system(self.volume.open(self.device), source=self.name) as files:
            return fixed.placed(files, image.path.encode(), image.blank)


def _write_fat_sector(part: BlockDevice, loader: bytes) -> None:
    """Give a FAT volume's boot sector a loader's code, its backup first."""
    existing = part.read(0, SECTOR)
    record = BootSector32.parse(existing)
    sector = with_code(existing, loader)
    if existing[22:24] == b"\0\0" and 0 < record.bpb_bk_boot_sec < record.bpb_rsvd_sec_cnt:
        at = record.bpb_bk_boot_sec * record.bpb_byts_per_sec
        part.write(at, with_code(part.read(at, SECTOR), loader))
        part.flush()
    part.write(0, sector)
    part.flush()
