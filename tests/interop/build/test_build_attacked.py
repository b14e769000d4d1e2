"""`build` while its source attacks: nothing but the output is ever written, and a refusal leaves nothing.

By class of attack, each archive as it is, a file that is planned from, and by gzip, a stream that passes once.
"""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockwright.errors import ArchiveRejected, Rejection
from blockwright.resolve import open_device, open_file_system
from blockwright.tree.decompress import DecodedStream
from blockwright.tree.node import walk
from blockwright.tree.rules import ArchiveRules
from tests.support.attacks import Attack, attacks, image_attacks
from tests.support.straced import changes
from tests.support.tarmaker import header
from tests.support.tools import missing, tool

TRACED = """
import os, sys
sys.dont_write_bytecode = True
import tempfile
from blockwright.build.definition import Definition, Table
from blockwright.build.run import build
from blockwright.errors import BlockwrightError
from blockwright.source import open_source
from tests.support.attacks import attacks, image_attacks
import blockwright.build.partitioned, blockwright.fs.ext4.stream, blockwright.source.layered
import concurrent.futures.thread
import blockwright.tree.tar.read, blockwright.source.archive, blockwright.device.file, blockwright.source.image
import bz2, lzma, encodings.idna
top = sys.argv[1]
for number, attack in enumerate(attacks() + image_attacks()):
    for form in ("tar", "tar.gz"):
        try:
            os.access("/blockwright-begin", os.F_OK)
            with open_source(f"{top}/{number}.{form}", rules=attack.rules) as source:
                build(source, f"{top}/targets/{number}.{form}.img", Definition(table=Table.NONE))
        except (BlockwrightError, OSError) as error:
            print(number, form, type(error).__name__, error)
        finally:
            os.access("/blockwright-end", os.F_OK)
"""


def paths_in(image: Path) -> set[bytes]:
    with open_file_system(open_device(str(image)), source="image") as files:
        return {path for path, _ in walk(files.tree())} - {b"", b"lost+found"}


@pytest.mark.slow
def test_attacks_on_a_build_write_nowhere_else(tmp_path: Path) -> None:
    corpus: list[Attack] = attacks() + image_attacks()
    (tmp_path / "targets").mkdir()
    for number, attack in enumerate(corpus):
        (tmp_path / f"{number}.tar").write_bytes(attack.data)
        (tmp_path / f"{number}.tar.gz").write_bytes(gzip.compress(attack.data, 1))
    log = tmp_path / "strace.log"
    calls = "trace=open,openat,openat2,creat,%file"
    command = [tool("strace"), "-f", "-y", "-qq", "-s", "4096", "-e", calls, "-o", log, sys.executable, "-c", TRACED]
    path = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path / "targets")}
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=False, env=environment)
    if "PTRACE" in done.stderr:
        missing("strace may not trace here")
    assert not done.returncode, done.stderr
    outside, seen = changes(log.read_text(errors="replace"), f"{tmp_path}/targets")
    assert outside == []
    assert seen > len(corpus)
    left = {each.name for each in (tmp_path / "targets").iterdir()}
    refused = {tuple(line.split()[:2]): line for line in done.stdout.splitlines()}
    for number, attack in enumerate(corpus):
        for form in ("tar", "tar.gz"):
            name, line = f"{number}.{form}.img", refused.get((str(number), form))
            assert (name in left) == (line is None), attack.id
            left.discard(name)
            if isinstance(attack.outcome, Rejection):
                assert line is not None, f"{attack.id} as {form}: expected a refusal"
            elif line is None:
                assert paths_in(tmp_path / "targets" / name) == attack.outcome, f"{attack.id} as {form}"
            else:
                assert "UsageError" in line, f"{attack.id}: only what ext4 cannot hold is refused: {line}"
    assert left == set()


def test_a_bomb_is_refused_when_its_budget_is_reached(tmp_path: Path) -> None:
    """96 MiB of zeros in 100 KiB: no more is decoded than the budget and what is decoded ahead, and none is kept."""
    bomb = tmp_path / "bomb.tar.gz"
    size, budget = 96 << 20, 16 << 20
    with gzip.open(bomb, "wb", 6) as out:
        for number in range(size >> 20):
            out.write(header(b"zeros %d" % number, size=1 << 20) + bytes(1 << 20))
    assert bomb.stat().st_size < size // 500
    taken = 0
    with bomb.open("rb") as file, DecodedStream(file.read, rules=ArchiveRules(size=budget)) as stream:
        refused = None
        try:
            while part := stream.read(1 << 20):
                taken += len(part)
        except ArchiveRejected as error:
            refused = error.reason
        assert refused is Rejection.BYTES
        assert budget - (1 << 20) <= taken <= budget
        assert stream.consumed <= 1 << 20
    peaks = []
    for limit in ("16M", "64M"):
        command = [sys.executable, "-m", "blockwright", "build", bomb, "-o", tmp_path / "out.img", "--table", "none"]
        process = subprocess.Popen([*command, "--limit", f"size={limit}"], stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.read()
        process.stderr.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert (process.returncode, b"size: expected" in said) == (1, True), said
        peaks.append(usage.ru_maxrss)
        assert os.listdir(tmp_path) == ["bomb.tar.gz"]
    assert peaks[1] < peaks[0] + (32 << 10), f"memory follows the budget: {peaks} KiB"
