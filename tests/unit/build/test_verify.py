"""A disk held against what a build would make: the first byte that differs, sizes, and what is passed on."""

import os
from pathlib import Path

import pytest

from blockwright.boot.kinds import Uefi, Ways
from blockwright.build import run as run_module
from blockwright.build.definition import BootOptions, Definition, PartitionDefinition, Table
from blockwright.build.run import build
from blockwright.build.verify import Verified, verify
from blockwright.errors import NotAllowed, NotFound, UsageError
from blockwright.format.output import ImageOptions, image_output
from blockwright.format.policy import Policy
from blockwright.source import open_source, open_sources
from blockwright.units import MiB
from tests.support.inprocess import blockwright

PLAIN = Definition(seed="x", partitions=(PartitionDefinition(mount="/", size=2 * MiB),))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "hello").write_text("hello")
    with open_source(tmp_path / "tree") as source:
        build(source, str(tmp_path / "disk.img"), PLAIN)
    return tmp_path / "disk.img"


def held(disk: Path, definition: Definition = PLAIN, **options) -> Verified:
    with open_source(Path(options.pop("tree", disk.parent / "tree"))) as source:
        return verify(source, str(options.pop("output", disk)), definition, **options)


def as_qcow2(disk: Path, size: int, more: bytes = b"") -> Path:
    """The disk as a qcow2 image of another size, with bytes behind it."""
    path = disk.with_suffix(".qcow2")
    with image_output(str(path), size, ImageOptions("qcow2")) as image:
        image.write(0, (disk.read_bytes() + more)[:size])
    return path


def test_the_same_disk(disk: Path) -> None:
    found = held(disk)
    assert found[1:] == (None, "", disk.stat().st_size, disk.stat().st_size)
    assert [part.role for part in found.plan.parts] == ["root"]


@pytest.mark.parametrize("at", [0, 511, 512, MiB + 1024, -1])
def test_each_byte_counts(disk: Path, at: int) -> None:
    with open(disk, "r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        place, byte = file.tell(), file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    found = held(disk)
    assert found.offset == place
    assert found.where


def test_a_file_has_the_size_that_it_has(disk: Path) -> None:
    size = disk.stat().st_size
    for found_size, more in ((size + 512, b""), (size + 512, b"x")):
        with open(disk, "r+b") as file:
            file.truncate(found_size)
            file.seek(found_size - 1)
            file.write(more)
        found = held(disk)
        assert (found.size, found.found, found.where) == (size, size + 512, "behind the end")
        assert found.offset == (size + 511 if more else size)
    os.truncate(disk, size - 512)
    found = held(disk)
    assert (found.offset, found.size, found.found, found.where) == (size - 512, size, size - 512, "partition table")


def test_other_formats_and_devices_may_be_larger(disk: Path) -> None:
    size = disk.stat().st_size
    image = as_qcow2(disk, size + MiB)
    for output in (image, f"file:{image}"):
        found = held(disk, output=output)
        assert (found.offset, found.where, found.size, found.found) == (None, "", size, size + MiB)
    image.unlink()
    found = held(disk, output=as_qcow2(disk, size + MiB, bytes(4096) + b"x"))
    assert (found.offset, found.where) == (size + 4096, "behind the end")
    disk.with_suffix(".qcow2").unlink()
    found = held(disk, output=as_qcow2(disk, size - MiB))
    assert (found.offset, found.size, found.found) == (size - 33 * 512, size, size - MiB)  # what is not zeros there


def test_what_cannot_be_verified(disk: Path) -> None:
    with pytest.raises(UsageError, match="--seed random makes another disk each time"):
        held(disk, Definition(seed="random"))
    with pytest.raises(UsageError, match="cannot be made to boot"):
        held(disk, Definition(table=Table.NONE, boot=BootOptions(ways=Ways(uefi=Uefi.KERNEL))))
    with pytest.raises(NotFound):
        held(disk, output=disk.parent / "nowhere")


def test_a_file_that_an_image_names_is_opened_where_that_is_allowed(disk: Path) -> None:
    image, size = disk.parent / "over.qcow2", str(disk.stat().st_size)
    backing = ["--backing", disk.name, "--backing-format", "raw", "--allow-backing", disk.parent]
    blockwright("disk", "create", image, size, *backing)
    with pytest.raises(NotAllowed):
        held(disk, output=image)
    assert held(disk, output=image, policy=Policy((str(disk.parent),))).offset is None


def test_a_device_says_how_large_its_table_is(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the file were one, since making one takes root."""
    monkeypatch.setattr(run_module, "_medium_size", lambda output: 16 * MiB)
    found = held(disk)
    assert (found.size, found.found, found.offset is None) == (16 * MiB, disk.stat().st_size, False)


def test_progress_and_sources_of_partitions_are_passed_on(disk: Path) -> None:
    told: list[tuple[int, int]] = []
    held(disk, progress=lambda done, total: told.append((done, total)))
    assert told
    opened: list[tuple[str, ...]] = []

    def opening(names: tuple[str, ...]):
        opened.append(names)
        return open_sources((str(disk.parent / "tree"),))

    own = Definition(seed="x", partitions=(PartitionDefinition(sources=("elsewhere",)),))
    image = disk.parent / "own.img"
    with open_source(disk.parent / "tree") as source:
        build(source, str(image), own, opened=opening)
    assert held(disk, own, output=image, opened=opening).offset is None
    assert opened == [("elsewhere",)] * 2
