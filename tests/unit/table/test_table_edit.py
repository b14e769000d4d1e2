"""Random edits of tables of both kinds against a model, and power cut at every write of each of them."""

import copy
import random

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError, UsageError
from blockwright.table import check as checks
from blockwright.table import edit
from blockwright.table import read as tables
from blockwright.table.convert import to_gpt, to_mbr
from blockwright.table.gaps import Wish
from blockwright.table.gpt.plan import plan
from blockwright.table.mbr import change
from blockwright.table.mbr import edit as writer
from blockwright.table.mbr.change import new_table
from blockwright.testing.crash import CrashDevice
from blockwright.units import MiB
from tests.support.tables import edit_once, rows_of

SIZE = 24 * MiB


def empty(kind, sector=512, size=SIZE):
    if kind == "gpt":
        return plan([], seed=b"edits", size=size, sector_size=sector)
    return new_table(size, sector_size=sector, disk_signature=0xB10C0001)


def disk(kind, sector=512):
    device = MemoryDevice(SIZE)
    edit.write(device, empty(kind, sector))
    return device


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
@pytest.mark.parametrize("seed", range(8))
def test_random_edits_are_the_models(kind, seed):
    source = random.Random(f"edits.{kind}.{seed}")
    device, model, done = disk(kind), [], []
    try:
        for _ in range(40):
            done.append(edit_once(device, model, source))
            assert rows_of(tables.read(device)) == model
            if model:
                assert checks.check(device) == []
    except BaseException as error:
        raise AssertionError(f"edits.{kind}.{seed}: {done}") from error


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
@pytest.mark.parametrize("seed", range(3))
def test_power_cut_at_every_write_leaves_the_old_table_or_the_new(kind, seed):
    source = random.Random(f"cuts.{kind}.{seed}")
    device, model = disk(kind), []
    for number in range(25):
        before = copy.deepcopy(model)
        cut = CrashDevice(device, owns=False)
        words = edit_once(cut, model, source)
        for what, after in cut.cuts(source):
            found = rows_of(tables.read(after))
            assert found in (before, model), f"cuts.{kind}.{seed}, edit {number}: {words}: {what}"
        with cut.cut(len(cut.events)) as whole:
            device.write(0, whole.read(0, SIZE))
    assert model


def converted(table):
    """The table in the other kind, None where it cannot be said, which tests of conversion are about."""
    try:
        return to_gpt(table, seed=b"x") if table.kind == "mbr" else to_mbr(table, disk_signature=7)
    except UsageError:
        return None


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
def test_power_cut_while_one_kind_becomes_the_other(kind):
    count = 0
    for seed in range(16):
        source = random.Random(f"convert.{kind}.{seed}")
        device, model = disk(kind), []
        for _ in range(source.randrange(10)):
            edit_once(device, model, source)
        table = tables.read(device)
        made = converted(table)
        if made is None:
            continue
        count += 1
        places = sorted((each.start, each.size) for each in table.partitions)
        with CrashDevice(device) as cut:
            edit.write(cut, made)
            assert tables.read(cut) == made
            for what, after in cut.cuts(source, torn_for_each=4):
                found = tables.read(after)
                assert found in (table, made), f"convert.{kind}.{seed}: {what}: {found}"
                assert sorted((each.start, each.size) for each in found.partitions) == places
    assert count >= 8


def test_a_writer_that_begins_with_the_change_is_found_out(monkeypatch):
    """The oracle can fail: a chain whose new record comes last is broken by a power cut."""
    right = writer._steps
    monkeypatch.setattr(writer, "_steps", lambda *args: writer._Steps(*[right(*args)[index] for index in (1, 0, 2)]))
    table, _ = change.add(empty("mbr"), 0x0F, Wish())
    device = MemoryDevice(SIZE)
    writer.write(device, table)
    table, _ = change.add(table, 0x83, Wish(MiB), logical=True)
    writer.write(device, table)
    with CrashDevice(device) as cut:
        writer.write(cut, change.add(table, 0x83, Wish(MiB), logical=True)[0])
        broken = 0
        for _, after in cut.cuts(random.Random(1)):
            try:
                tables.read(after)
            except FormatError:
                broken += 1
        assert broken
