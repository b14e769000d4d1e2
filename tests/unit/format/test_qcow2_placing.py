"""A copy into an image by the kernel: into clusters that the map refers to afterwards, and only then."""

import os
import sys

import pytest

from blockwright.device.copy import copy
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.format.output import ImageOptions, new_image
from blockwright.format.qcow2.check import check
from blockwright.format.qcow2.create import Options
from blockwright.format.qcow2.driver import Making
from blockwright.units import KiB, MiB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copy_file_range is Linux's")
SIZE = 6 * MiB + 512


@pytest.fixture
def source(tmp_path):
    """A disk with data, zeros that are written, a block with one byte at its end, and a hole."""
    with FileDevice(tmp_path / "source", create=True) as device:
        device.resize(SIZE)
        device.write(0, os.urandom(2 * MiB + 100))
        device.write(2 * MiB + 128 * KiB, bytes(MiB))
        device.write(4 * MiB - 1, b"x")
        device.write(5 * MiB, os.urandom(MiB + 512))
        yield device


@pytest.fixture
def file(tmp_path):
    with FileDevice(tmp_path / "image", create=True) as device:
        yield device


def content(device):
    return device.read(0, device.size)


@pytest.mark.parametrize("options", [Options(), Options(cluster_size=4096), Options(version=2)])
def test_data_moves_and_zeros_take_no_room(source, file, options):
    with new_image(file, SIZE, ImageOptions("qcow2", Making(options))) as image:
        result = copy(source, image, target_is_zero=True, detect_zeroes=True)
        image.flush()
        assert content(image) == content(source)
    assert result.by_kernel >= 3 * MiB
    assert result.skipped >= 2 * MiB
    assert file.size < 4 * MiB
    assert check(file) == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_the_kernel_refuses_is_read_and_written(source, file, monkeypatch, at):
    real, calls = os.copy_file_range, []

    def refuse(fd, to, count, offset, place):
        calls.append(count)
        if len(calls) > at:
            raise OSError(18, "no")
        return real(fd, to, min(count, 300 * KiB), offset, place)

    monkeypatch.setattr(os, "copy_file_range", refuse)
    with new_image(file, SIZE, ImageOptions("qcow2")) as image:
        copy(source, image, target_is_zero=True, detect_zeroes=True)
        image.flush()
        assert content(image) == content(source)
    assert len(calls) == at + 1
    assert check(file) == []


def test_whoever_fails_has_changed_nothing(file):
    with new_image(file, SIZE, ImageOptions("qcow2")) as image:
        with pytest.raises(OSError, match=r"negative|argument"), image.placing(0, MiB) as runs:
            os.pwrite(runs[0].fd, b"abc", -runs[0].offset)
        image.flush()
        assert not any(content(image))
    assert check(file) == []


def test_only_whole_new_clusters_are_placed(file):
    with new_image(file, SIZE, ImageOptions("qcow2")) as image:
        image.write(64 * KiB, b"there")
        for offset, length in ((1, MiB), (64 * KiB, MiB), (128 * KiB, 512)):
            with image.placing(offset, length) as runs:
                assert runs is None
        with image.placing(0, MiB) as runs:
            assert [run.length for run in runs] == [64 * KiB]
            os.pwrite(runs[0].fd, b"a" * 64 * KiB, runs[0].offset)
        with image.placing(SIZE - 512, 512) as runs:
            assert [run.length for run in runs] == [512]
            os.pwrite(runs[0].fd, b"z" * 512, runs[0].offset)
        assert image.read(64 * KiB - 1, 6) == b"athere"
        assert image.read(SIZE - 512, 512) == b"z" * 512
        image.flush()
    assert check(file) == []


def test_images_without_plain_clusters_place_nothing(file):
    with new_image(
        file, SIZE, ImageOptions("qcow2", Making(Options(cluster_size=64 * KiB, extended_l2=True)))
    ) as image:
        assert not image.places
        with image.placing(0, MiB) as runs:
            assert runs is None


def test_a_file_that_no_kernel_knows_is_written_through():
    memory = MemoryDevice(16 * MiB)
    with new_image(memory, SIZE, ImageOptions("qcow2")) as image:
        with image.placing(0, MiB) as runs:
            assert runs is None
        image.write(0, b"data")
        image.flush()
    assert check(memory) == []
