"""Random edits of tables of both kinds against a model, and power cut at every write of each of them."""

import copy
import random

import pytest
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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


class Edits(RuleBasedStateMachine):
    """A disk and a list of what its table should say, changed alike; of either kind."""

    @initialize(kind=st.sampled_from(["gpt", "mbr"]), sector=st.sampled_from([512, 4096]))
    def begin(self, kind, sector):
        self.sector = sector
        self.device = disk(kind, sector)
        self.model = []

    @rule(source=st.randoms(use_true_random=False))
    def edit(self, source):
        note(edit_once(self.device, self.model, source, sector_size=self.sector))

    @rule()
    def convert(self):
        table = tables.read(self.device, sector_size=self.sector)
        made = converted(table)
        if made is None:
            return
        edit.write(self.device, made)
        places = sorted((each.start, each.size) for each in self.model)
        assert sorted((each.start, each.size) for each in made.partitions) == places
        self.model[:] = rows_of(made)
        note(f"converted to {made.kind}")

    @invariant()
    def agrees(self):
        table = tables.read(self.device, sector_size=self.sector)
        assert rows_of(table) == self.model
        if self.model:
            assert checks.check(self.device, sector_size=self.sector) == []


TestEdits = Edits.TestCase
# Without shrinking: a random source shrinks for minutes, and the steps are printed as they are.
TestEdits.settings = settings(
    max_examples=100, stateful_step_count=25, deadline=None, phases=[Phase.reuse, Phase.generate]
)


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
