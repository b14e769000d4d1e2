"""Outputs that are written in place, where other bytes were before, and outputs that are read back."""

import io

import pytest

from blockwright import convert as convert_module
from blockwright.build import run as run_module
from blockwright.build.definition import Definition
from blockwright.check import check
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import IntegrityError, UsageError
from blockwright.source import open_source
from blockwright.units import MiB
from blockwright.verity.check import check as check_tree
from blockwright.verity.format import read_area
from tests.support.tarmaker import archive, member


class Disk:
    """In OutputFile's place: a disk of a fixed size that is full of something else."""

    target_is_zero = False
    before = b"\xff"

    def __init__(self, _path, *, force=False, size=None) -> None:
        content = MemoryDevice(content=self.before * (16 * MiB))
        self.device = Disk.made = ForwardingDevice(content)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return None


class Forgetful(ForwardingDevice):
    """Takes every write and keeps none."""

    def _write(self, offset, buffers, *, durable):
        return None


@pytest.mark.parametrize("streamed", [False, True])
def test_what_was_on_the_disk_before_is_not_taken_for_the_builds(monkeypatch, tmp_path, streamed) -> None:
    data = archive(member(b"a", b"body"), member(b"b", b"x" * 5000))
    (tmp_path / "a.tar").write_bytes(data)
    made = []
    for before in (b"\0", b"\xff"):
        monkeypatch.setattr(Disk, "before", before)
        monkeypatch.setattr(run_module, "OutputFile", Disk)
        with open_source("-", stdin=io.BytesIO(data)) if streamed else open_source(tmp_path / "a.tar") as source:
            run_module.build(source, "disk", Definition(size=16 * MiB))
        made.append(Disk.made.read(0, Disk.made.size))
    assert made[0] == made[1]
    places = list(check(Disk.made, source="disk"))
    assert [(place.kind, place.findings) for place in places] == [("gpt", ()), ("ext4", ())]


@pytest.mark.parametrize("streamed", [False, True])
def test_hashes_are_of_what_the_disk_holds_now(monkeypatch, tmp_path, streamed) -> None:
    elf = b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\x3e\0"
    data = archive(member(b"bin/sh", elf), member(b"b", b"x" * 2_000_000))
    (tmp_path / "a.tar").write_bytes(data)
    made = []
    for before in (b"\0", b"\xff"):
        monkeypatch.setattr(Disk, "before", before)
        monkeypatch.setattr(run_module, "OutputFile", Disk)
        with open_source("-", stdin=io.BytesIO(data)) if streamed else open_source(tmp_path / "a.tar") as source:
            built = run_module.build(source, "disk", Definition(size=16 * MiB, verity=True))
        made.append(Disk.made.read(0, Disk.made.size))
    assert made[0] == made[1]
    area = built.plan.part("verity")
    root = Window(Disk.made, built.plan.part("root").start, owns=False)
    hashes = Window(Disk.made, area.start, owns=False)
    found = read_area(hashes)
    assert check_tree(root, hashes, found.parameters, area.file_system.root_hash, start=found.tree_start).clean
    with pytest.raises(UsageError, match="when it was written"), open_source(tmp_path / "a.tar") as source:
        run_module.plan_source(source, Definition(verity=True)).device()


def test_what_cannot_be_read_back_is_told_when_that_was_asked_for(monkeypatch) -> None:
    class Bad(Disk):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            self.device = Forgetful(self.device)

    monkeypatch.setattr(convert_module, "open_output", lambda text, *, size, force, client: Bad(text, size=size))
    source = MemoryDevice(content=b"data" * 1000)
    convert_module.convert(source, "disk")
    with pytest.raises(IntegrityError, match="differ"):
        convert_module.convert(source, "disk", verify=True)
