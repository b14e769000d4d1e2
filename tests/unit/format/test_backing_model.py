"""Images over one another are bytearrays: made, written, put onto others and brought down, in any order.

qemu-img has its word at the end: every image is sound, and reads as the model does.
"""

import os
import random
import shutil
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blockwright.device import hostfile
from blockwright.device.file import FileDevice
from blockwright.disk.backing import commit, rebase
from blockwright.errors import UsageError
from blockwright.format.output import ImageOptions, image_output
from blockwright.format.policy import Policy
from blockwright.format.qcow2.driver import Making
from blockwright.resolve import open_device
from blockwright.snapshot import Images
from blockwright.units import KiB
from tests.support.qcow2 import GEOMETRIES, qemu_check
from tests.support.tools import run, tool

KINDS = ["default", "version 2, small clusters", "clusters of 512", "subclusters"]
SIZES = st.sampled_from([300 * KiB, 300 * KiB + 512, 200 * KiB, 450 * KiB])
MOST = 4
NUMBERS = st.integers(0, MOST - 1)


@dataclass
class Image:
    """What an image reads, which one it stands on, and what its snapshots read; None for one that nobody can tell."""

    name: str
    form: str
    content: bytearray
    below: "Image | None" = None
    snapshots: dict[str, bytes | None] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    """``folder`` is set by the test."""

    folder = None

    @initialize(
        base=st.sampled_from([None, *KINDS]),
        chain=st.lists(st.sampled_from(KINDS), min_size=0, max_size=MOST - 1),
        sizes=st.tuples(*[SIZES] * MOST),
        seed=st.integers(0, 255),
    )
    def start(self, base, chain, sizes, seed):
        """Begin with a chain in which each image holds something of its own."""
        self.work = self.folder / f"run{len(list(self.folder.iterdir()))}"
        self.work.mkdir()
        self.policy = Policy((str(self.work),))
        self.files = Images(policy=self.policy)
        self.images: list[Image] = []
        self.made = 0
        chance = random.Random(seed)
        for kind, size in zip([base, *chain], sizes, strict=False):
            self.add(kind, size, self.images[-1] if self.images else None)
            for _ in range(3):
                self.put(
                    self.images[-1], chance.randrange(size), chance.randbytes(chance.choice([512, 5000, 70_000]))
                )

    def put(self, image, offset, data):
        data = data[: len(image.content) - offset]
        with self.opened(image) as disk:
            disk.write(offset, data) if any(data) else disk.zero(offset, len(data))
            disk.flush()
        image.content[offset : offset + len(data)] = data

    def path(self, image):
        return str(self.work / image.name)

    def opened(self, image):
        return open_device(self.path(image), writable=True, form=image.form, policy=self.policy)

    def add(self, kind, size, below):
        image = Image(f"image{self.made}", "raw" if kind is None else "qcow2", bytearray(size), below)
        self.made += 1
        if kind is None:
            FileDevice(self.path(image), create=True).close()
            os.truncate(self.path(image), size)
        else:
            named = {} if below is None else {"backing_file": below.name, "backing_format": below.form}
            options = ImageOptions("qcow2", Making(replace(GEOMETRIES[kind], **named)))
            with image_output(self.path(image), size, options):
                pass
        if below is not None:
            image.content[:] = below.content[:size].ljust(size, b"\0")
        self.images.append(image)

    def pick(self, number, images=None):
        images = self.images if images is None else images
        return images[number % len(images)]

    def over(self, image):
        return [each for each in self.images if each.below is image]

    def stands_on(self, image, other):
        while image is not None:
            if image is other:
                return True
            image = image.below
        return False

    def overlays(self):
        return [each for each in self.images if each.form == "qcow2"]

    @precondition(lambda self: len(self.images) < MOST)
    @rule(kind=st.sampled_from(KINDS), size=SIZES, number=NUMBERS)
    def overlay(self, kind, size, number):
        self.add(kind, size, self.pick(number))

    @rule(
        number=NUMBERS,
        offset=st.integers(0, 450 * KiB),
        length=st.sampled_from([1, 512, 4096, 5000, 70_000]),
        seed=st.integers(0, 255),
        zeros=st.booleans(),
    )
    def write(self, number, offset, length, seed, zeros):
        image = self.pick(number, [each for each in self.images if not self.over(each)])
        data = bytes(length) if zeros else random.Random(seed).randbytes(length)
        self.put(image, min(offset, len(image.content) - 1), data)

    @precondition(lambda self: self.overlays())
    @rule(number=NUMBERS, onto=st.integers(0, MOST))
    def put_onto(self, number, onto):
        image = self.pick(number, self.overlays())
        allowed = [None, *(each for each in self.images if not self.stands_on(each, image))]
        below = self.pick(onto, allowed)
        name, form = (None, None) if below is None else (below.name, below.form)
        if image.snapshots:
            with pytest.raises(UsageError, match="has snapshots"):
                rebase(self.path(image), name, form=form, policy=self.policy)
            return
        rebase(self.path(image), name, form=form, policy=self.policy)
        image.below = below

    @precondition(lambda self: any(not self.over(each) for each in self.overlays()))
    @rule(number=NUMBERS, onto=st.integers(0, MOST))
    def rename_below(self, number, onto):
        """What it reads then only the layers know: qemu-img does the same to a copy."""
        image = self.pick(number, [each for each in self.overlays() if not self.over(each)])
        below = self.pick(onto, [None, *(each for each in self.images if not self.stands_on(each, image))])
        name, form = (None, None) if below is None else (below.name, below.form)
        copy = self.work / "renamed"
        shutil.copyfile(self.path(image), copy)
        named = ["-b", ""] if below is None else ["-b", name, "-F", form]
        run([tool("qemu-img"), "rebase", "-t", "unsafe", "-q", "-u", "-f", "qcow2", *named, copy])
        run([tool("qemu-img"), "convert", "-t", "unsafe", "-f", "qcow2", "-O", "raw", copy, self.work / "expected"])
        rebase(self.path(image), name, form=form, unsafe=True, policy=self.policy)
        image.below = below
        image.content = bytearray((self.work / "expected").read_bytes())
        image.snapshots = dict.fromkeys(image.snapshots)

    @precondition(lambda self: any(each.below for each in self.images))
    @rule(number=NUMBERS, keep=st.booleans())
    def bring_down(self, number, keep):
        image = self.pick(number, [each for each in self.images if each.below])
        below = image.below
        if image.snapshots:
            with pytest.raises(UsageError, match="has snapshots"):
                commit(self.path(image), keep=keep, policy=self.policy)
            return
        if self.over(below) != [image] or below.snapshots:
            return  # others would read something else
        commit(self.path(image), keep=keep, policy=self.policy)
        size = len(image.content)
        below.content[:size] = image.content

    @precondition(lambda self: self.overlays())
    @rule(number=NUMBERS, name=st.sampled_from("ab"))
    def snapshot(self, number, name):
        image = self.pick(number, self.overlays())
        if name in image.snapshots:
            self.files.delete(self.path(image), name)
            del image.snapshots[name]
        else:
            self.files.create(self.path(image), name)
            image.snapshots[name] = bytes(image.content)

    @precondition(lambda self: any(each.snapshots and not self.over(each) for each in self.images))
    @rule(number=NUMBERS)
    def go_back(self, number):
        image = self.pick(number, [each for each in self.images if each.snapshots and not self.over(each)])
        name, content = min(image.snapshots.items())
        if content is not None:
            self.files.apply(self.path(image), name)
            image.content[:] = content

    @invariant()
    def reads_as_the_model(self):
        for image in getattr(self, "images", ()):
            with open_device(self.path(image), form=image.form, policy=self.policy) as disk:
                assert disk.size == len(image.content)
                assert disk.read(0, disk.size) == image.content, image.name

    def teardown(self):
        for image in getattr(self, "images", ()):
            if image.form == "qcow2":
                qemu_check(self.work / image.name, leaks=False)
            with FileDevice(self.work / "expected.raw", create=True) as file:
                file.resize(len(image.content))
                file.write(0, image.content)
            compared = ["compare", "-f", image.form, "-F", "raw", self.path(image), self.work / "expected.raw"]
            run([tool("qemu-img"), *compared])
            (self.work / "expected.raw").unlink()
        if hasattr(self, "work"):
            shutil.rmtree(self.work)
            self.work.mkdir()  # its number stays taken


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch):
    """Nothing here is about what survives one, and thousands of syncs wait for the machine's other work."""
    monkeypatch.setattr(hostfile, "sync_data", lambda fd: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def _run(folder, *, examples):
    run_state_machine_as_test(
        type("Machine", (Machine,), {"folder": folder}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.soak
def test_any_chain_for_long(tmp_path):
    _run(tmp_path, examples=100)


def test_any_chain(tmp_path):
    _run(tmp_path, examples=20)
