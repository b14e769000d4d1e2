"""Streamed file systems are clean to e2fsck, whatever was dropped on the way and wherever the stream ended."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwright.device.copy import copy
from blockwright.device.memory import MemoryDevice
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.fs.ext4.stream import StreamPlacer
from blockwright.tree.node import Directory, File
from blockwright.units import GiB, KiB, MiB
from tests.support.disks import save
from tests.support.ext4 import dumpe2fs, e2fsck
from tests.support.streaming import place_content, stream_tree
from tests.support.tools import run, tool
from tests.support.trees import PatternContent, trees


def complete(planned: Ext4Plan, device: MemoryDevice, path: Path) -> None:
    """Write what the plan has to the device that holds the bodies, and that to a file; e2fsck is content."""
    copy(open_plan(planned), device, target_is_zero=True)
    save(device, path)
    os.truncate(path, planned.size)
    e2fsck(path)


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize(("count", "most"), [(0, 1), (1000, 20_000), (150, 1_000_000)])
@pytest.mark.parametrize("options", [{}, {"free": 0.4}, {"size": GiB}, {"journal": 0}])
def test_bodies_dropped_and_kept(tmp_path, block_size, count, most, options):
    rng = random.Random(count)
    asked = Ext4Options(block_size=block_size, **options)
    device = MemoryDevice(asked.size or 8 * GiB)
    placer = StreamPlacer(device, asked)
    root = Directory()
    for index in range(count):
        content = place_content(PatternContent(rng.randrange(most), seed=index % 5), placer.place)
        if rng.random() > 0.1:
            folder = root.entries.setdefault(b"d%d" % (index % 30), Directory())
            assert isinstance(folder, Directory)
            folder.entries[b"f%d" % index] = File(content=content)
    runs = [(100, 5000), (10**8, 4096), (10**8 + 5000, 1)]
    root.entries[b"sparse"] = File(content=place_content(PatternContent(10**9, runs), placer.place))
    complete(placer.finish(root, asked), device, tmp_path / "image")


# 8 MiB a group, 513 KiB of it behind each superblock kept free.
@pytest.mark.parametrize("total", [8 * MiB + step * 97 * KiB for step in range(-12, 4)])
def test_streams_that_end_around_a_group(tmp_path, total):
    options, device = Ext4Options(block_size=1024, journal=0), MemoryDevice(GiB)
    tree = Directory(entries={b"f": File(content=PatternContent(total)), b"g": File(content=PatternContent(5))})
    complete(stream_tree(tree, options, device)[1], device, tmp_path / "image")


@pytest.mark.parametrize("size", [None, 64 * MiB])
def test_short_files_that_end_with_a_hole(tmp_path, size):
    holes = {b"%d" % at: File(content=PatternContent(20_000, [(0, 5000 + at)])) for at in range(3)}
    tree = Directory(entries={**holes, b"whole": File(content=PatternContent(20_000))})
    options, device = Ext4Options(size=size), MemoryDevice(GiB)
    complete(stream_tree(tree, options, device)[1], device, tmp_path / "image")


@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree(tmp_path, data):
    block_size = data.draw(st.sampled_from([1024, 2048, 4096]))
    tree = data.draw(trees(block_size=block_size, xattr_budget=block_size - 200))
    if not isinstance(tree.entries.get(b"lost+found"), Directory):
        tree.entries.pop(b"lost+found", None)
    options, device = Ext4Options(block_size=block_size), MemoryDevice(8 * GiB)
    complete(stream_tree(tree, options, device)[1], device, tmp_path / "image")


def test_what_was_streamed_grows(tmp_path):
    options, device, image = Ext4Options(), MemoryDevice(8 * GiB), tmp_path / "image"
    tree = Directory(entries={b"f": File(content=PatternContent(300 * MiB))})
    complete(stream_tree(tree, options, device)[1], device, image)
    os.truncate(image, 20 * GiB)
    run([tool("resize2fs"), image], timeout=120)
    e2fsck(image)
    assert dumpe2fs(image)[0]["Block count"] == str(20 * GiB // 4096)
