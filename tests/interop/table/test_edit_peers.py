"""Tables edited by us and by sgdisk and sfdisk in turns: after each edit they find no fault and see what we see."""

import json
import random
import re
from uuid import UUID

import pytest

from blockwright.device.file import FileDevice
from blockwright.disk.create import create
from blockwright.disk.edit import DiskEditor
from blockwright.table import read as tables
from blockwright.table.convert import to_gpt, to_mbr
from blockwright.table.partition import MbrTable
from blockwright.units import MiB
from tests.interop.table.test_mbr_peers import made, script_of
from tests.support.tables import edit_once, rows_of
from tests.support.tools import run, tool

SIZE = 64 * MiB


def seen(path):
    """What sfdisk sees, as (number, start, size, type, flags); extended partitions left out."""
    told = json.loads(run([tool("sfdisk"), "--json", path]).stdout)["partitiontable"]
    found = []
    for each in told.get("partitions", []):
        number = int(each["node"].removeprefix(str(path)))
        if told["label"] == "gpt":
            flags = flags_of(each.get("attrs", ""))
            found.append((number, each["start"] * 512, each["size"] * 512, UUID(each["type"]), flags))
        elif each["type"] not in ("5", "f", "85"):
            flags = 0x80 if each.get("bootable") else 0
            found.append((number, each["start"] * 512, each["size"] * 512, int(each["type"], 16), flags))
    return found


def flags_of(text):
    """sfdisk's words for attributes as bits."""
    words = {"RequiredPartition": 0, "NoBlockIOProtocol": 1, "LegacyBIOSBootable": 2}
    bits = []
    for word in text.replace(",", " ").split():
        bits += [words[word]] if word in words else [int(word.removeprefix("GUID:"))]
    return sum(1 << bit for bit in bits)


def ours(model):
    return [(each.number, each.start, each.size, each.kind, each.flags) for each in model]


def verified(path, kind):
    if kind == "gpt":
        # Advice on alignment is no fault: odd places are what these tests ask for.
        text = run([tool("sgdisk"), "-v", path]).stdout
        rest = re.sub(r"Caution: Partition \d+ doesn't (begin|end) on", "", text)
        assert "No problems found" in rest, text
        assert not re.search(r"(?i)caution|warning|invalid|damaged|corrupt|problem:", rest), text
    done = run([tool("sfdisk"), "--verify", path])
    assert "No errors detected" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_peers_agree_after_each_edit(tmp_path, kind, seed):
    agree_after_each_edit(tmp_path, kind, seed)


def agree_after_each_edit(tmp_path, kind, seed):
    path, source, model, done = tmp_path / f"{kind}{seed}.img", random.Random(f"peers.{kind}.{seed}"), [], []
    create(str(path), SIZE, kind=kind, seed=b"peers")
    try:
        for _ in range(16):
            with FileDevice(path, writable=True) as device:
                done.append(edit_once(device, model, source))
            verified(path, kind)
            assert seen(path) == ours(model)
    except BaseException as error:
        raise AssertionError(f"peers.{kind}.{seed}: {done}") from error


def theirs_gpt(path, source, model):
    """One edit by sgdisk."""
    row = source.choice(model) if model else None
    if row is None or source.random() < 0.5:
        run([tool("sgdisk"), "-n", "0:0:+1M", "-t", "0:8300", path], ok=(0, 4))
    elif source.random() < 0.5:
        run([tool("sgdisk"), "-d", str(row.number), path])
    else:
        run([tool("sgdisk"), "-A", f"{row.number}:toggle:2", "-c", f"{row.number}:theirs", path])


def theirs_mbr(path, source, model):
    """One edit by sfdisk."""
    row = source.choice(model) if model else None
    command = [tool("sfdisk"), "--quiet", "--no-reread", "--no-tell-kernel"]
    if row is None or source.random() < 0.5:
        run([*command, "--append", path], input=",1MiB,83\n", ok=(0, 1))
    elif source.random() < 0.5:
        run([*command, "--delete", path, str(row.number)])
    else:
        run([tool("sfdisk"), "--quiet", "--part-type", path, str(row.number), "82"])


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_edits_by_them_and_by_us_in_turns(tmp_path, kind, seed):
    path, source, model = tmp_path / "disk.img", random.Random(f"turns.{kind}.{seed}"), []
    create(str(path), SIZE, kind=kind, seed=b"turns")
    for number in range(10):
        words = "theirs"
        if number % 2:
            (theirs_gpt if kind == "gpt" else theirs_mbr)(path, source, model)
            with FileDevice(path) as device:
                model = rows_of(tables.read(device))
        else:
            with FileDevice(path, writable=True) as device:
                words = edit_once(device, model, source)
        assert seen(path) == ours(model), f"turns.{kind}.{seed}: {number}: {words}"
        verified(path, kind)


@pytest.mark.parametrize("seed", range(4))
def test_chains_that_sfdisk_made_are_edited(tmp_path, seed):
    edit_a_chain(tmp_path, seed)


@pytest.mark.soak
def test_peers_agree_after_thousands_of_edits(tmp_path):
    for seed in range(10, 150):
        for kind in ("gpt", "mbr"):
            agree_after_each_edit(tmp_path, kind, seed)
        edit_a_chain(tmp_path, seed)


def edit_a_chain(tmp_path, seed):
    path, source, done = tmp_path / f"chain{seed}.img", random.Random(f"chains.{seed}"), []
    made(path, SIZE, script_of(source))
    with FileDevice(path) as device:
        model = rows_of(tables.read(device))
    for _ in range(12):
        with FileDevice(path, writable=True) as device:
            done.append(edit_once(device, model, source))
        verified(path, "mbr")
        assert seen(path) == ours(model), f"chains.{seed}: {done}"


def test_a_table_converted_both_ways_is_sound_to_them(tmp_path):
    count = 0
    for seed in range(10):
        path, source, model = tmp_path / f"{seed}.img", random.Random(f"converted.{seed}"), []
        create(str(path), SIZE, kind="gpt", seed=b"both")
        with FileDevice(path, writable=True) as device:
            for _ in range(source.randrange(2, 12)):
                edit_once(device, model, source)
        with DiskEditor(str(path)) as disk:
            table = disk.table()
            try:
                disk.write(to_mbr(table, disk_signature=0x1234))
            except ValueError:
                continue
        count += 1
        verified(path, "mbr")
        places = sorted((each.start, each.size) for each in model)
        assert sorted(each[1:3] for each in seen(path)) == places
        with DiskEditor(str(path)) as disk:
            present = disk.table()
            assert isinstance(present, MbrTable)
            disk.write(to_gpt(present, seed=b"back"))
        verified(path, "gpt")
        assert sorted(each[1:3] for each in seen(path)) == places
    assert count >= 4


def test_the_verdict_can_be_another(tmp_path):
    path = tmp_path / "disk.img"
    create(str(path), SIZE, kind="mbr", seed=b"")
    run([tool("sfdisk"), "--quiet", path], input="label: dos\n2048,2048,83\n8192,2048,83\n")
    with path.open("r+b") as file:
        file.seek(446 + 16 + 8)
        file.write((3000).to_bytes(4, "little"))
    done = run([tool("sfdisk"), "--verify", path], ok=(0, 1))
    assert not re.search("No errors detected", done.stdout)
