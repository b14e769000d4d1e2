"""`fetch-and-create` while what it fetches attacks: nothing outside of its own folders is written, scans or no scans.

By class of attack, every other archive plain, every other by gzip. A scanner that takes every file stands by, so that
the projection is made too; what is refused leaves no volume.
"""

import gzip
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from blockwright.errors import Rejection
from blockwright.pipeline.images import Images
from blockwright.tree.rules import DEFAULT_RULES
from blockwright.volume import open_pool
from tests.support.attacks import Attack, attacks, image_attacks
from tests.support.straced import changes
from tests.support.tools import missing, tool

TRACED = """
import json, os, sys
sys.dont_write_bytecode = True
import tempfile
from datetime import UTC, datetime
from blockwright import journal
from blockwright.errors import BlockwrightError
from blockwright.pipeline.context import Context
from blockwright.pipeline.images import Images
from blockwright.pipeline.request import Request
from blockwright.scan import registry
from blockwright.scan.scanner import Database, Report
from blockwright.volume import create_pool
import blockwright.pipeline.filling, blockwright.pipeline.runner, blockwright.fs.ext4.stream, blockwright.scan.examine
import blockwright.scan.policy_file, blockwright.source.layered, blockwright.source.archive, blockwright.source.image
import concurrent.futures.thread
import blockwright.tree.tar.read, blockwright.volume.file, bz2, lzma, encodings.idna

class Looker:
    name, looks_for = "looker", "malware"

    def examine(self, subject):
        subject.projected(numbered=False)
        return Report("1", Database("1", datetime.now(UTC)), ())

top = sys.argv[1]
journal.SYNCHRONOUS = "OFF"
os.fsync = os.fdatasync = lambda _fd: None
registry.find_scanner = lambda *_: Looker()
create_pool("p", "file", {"expose": "path"})
with open(f"{top}/limits.json") as file:
    limits = json.load(file)
for number, each in enumerate(limits):
    os.access("/blockwright-begin", os.F_OK)
    try:
        with Images() as images:
            images.fetch(Request(f"{top}/{number}.tar", "p", limits=each), Context(images.home))
    except (BlockwrightError, OSError) as error:
        print(number, type(error).__name__, error)
    finally:
        os.access("/blockwright-end", os.F_OK)
"""


def limits_of(attack: Attack) -> dict[str, object]:
    """What of its rules is not as usual."""
    usual = asdict(DEFAULT_RULES)
    return {name: value for name, value in asdict(attack.rules).items() if value != usual[name] and name != "xattrs"}


@pytest.mark.ci
@pytest.mark.slow
def test_attacks_write_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = attacks() + image_attacks()
    home = tmp_path / "own"
    home.mkdir()
    (tmp_path / "limits.json").write_text(json.dumps([limits_of(each) for each in corpus]))
    for number, attack in enumerate(corpus):
        data = gzip.compress(attack.data, 1) if number % 2 else attack.data
        (tmp_path / f"{number}.tar").write_bytes(data)
    log = tmp_path / "strace.log"
    calls = "trace=open,openat,openat2,creat,%file"
    command = [tool("strace"), "-f", "-y", "-qq", "-s", "4096", "-e", calls, "-o", log, sys.executable, "-c", TRACED]
    path = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(home), "BLOCKWRIGHT_HOME": str(home)}
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=False, env=environment)
    if "PTRACE" in done.stderr:
        missing("strace may not trace here")
    assert not done.returncode, done.stderr
    outside, seen = changes(log.read_text(errors="replace"), str(home))
    # What has no name is told by its number.
    assert [line for line in outside if f"<{home}/#" not in line] == []
    assert seen > len(corpus)
    refused = {line.split()[0]: line for line in done.stdout.splitlines()}
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(home))
    with Images() as images, open_pool("p") as driver:
        states = {os.path.basename(each.reference): each for each in images.list()}
        volumes = {each.name for each in driver.list()}
    for number, attack in enumerate(corpus):
        found, line = states[f"{number}.tar"], refused.get(str(number))
        assert (found.state == "ready") == (line is None), f"{attack.id}: {line}"
        assert (found.volume in volumes) == (line is None), attack.id
        if isinstance(attack.outcome, Rejection):
            assert line is not None, f"{attack.id}: expected a refusal"
    assert len(volumes) + len(refused) == len(corpus)
