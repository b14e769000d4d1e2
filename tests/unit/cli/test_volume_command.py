"""`blockwright pool` and `blockwright volume`, as a shell sees them."""

import json
import os
import urllib.request
from pathlib import Path

import pytest

from blockwright.cli.volume import opened
from blockwright.nbd.client.connect import connect
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.listeners import listen_tcp
from blockwright.serve.image import Image
from blockwright.serve.scrape import ScrapeServer
from blockwright.volume.file import survey
from blockwright.volume.metrics import CONTENT_TYPE, render
from tests.support import command, inprocess
from tests.support.inprocess import blockwright, document
from tests.support.runningserver import running

pytestmark = pytest.mark.unprivileged


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def pool(home: Path) -> Path:
    blockwright("pool", "create", "main", "--expose", "path", "--snapshots", "overlay")
    return home / "pools/main"


def text(*arguments: str, code: int = 0) -> str:
    return blockwright(*arguments, code=code).stdout.decode()


def test_a_pool_is_made_listed_and_destroyed(home):
    assert text("pool", "create", "main").strip() == str(home / "pools/main")
    assert document("pool", "ls")["pools"][0]["name"] == "main"
    assert b"exists" in blockwright("pool", "create", "main", code=2).stderr
    blockwright("volume", "create", "a", "--size", "1M")
    assert b"still has volumes" in blockwright("pool", "destroy", "main", code=1).stderr
    blockwright("pool", "destroy", "main", "--force")
    assert os.listdir(home / "pools") == []
    assert b"no such pool" in blockwright("pool", "status", "main", code=5).stderr


def test_the_life_of_a_volume(pool):
    assert text("volume", "create", "a", "--size", "1M").strip() == "volume:main/a"
    assert text("volume", "snapshot", "a", "b").strip() == "volume:main/b"
    grown = document("volume", "grow", "b", "+1M")
    assert (grown["size"], grown["origin"], grown["schema"]) == (2 << 20, "a", "blockwright.volume/1")
    path = text("volume", "activate", "main/b").strip()
    assert Path(path).parent == pool / "volumes"
    assert "inactive" in blockwright("volume", "rm", "b", code=1).stderr.decode()
    assert text("volume", "ls").splitlines()[2].split()[:4] == ["main/b", "2", "MiB", "active"]
    blockwright("volume", "deactivate", "volume:main/b")
    assert {each["name"] for each in document("volume", "ls", "--pool", "main")["volumes"]} == {"a", "b"}
    blockwright("volume", "rm", "a", "b")
    assert text("volume", "ls") == ""
    assert os.listdir(pool / "volumes") == []


def test_a_file_system_is_built_straight_into_it(pool, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_bytes(b"hello world")
    blockwright("volume", "create", "root", "--size", "16M", "--from", tree, "--quiet")
    assert text("fs", "cat", "volume:main/root", "/hello") == "hello world"
    assert os.stat(next((pool / "volumes").iterdir())).st_size == 16 << 20
    blockwright("volume", "snapshot", "root", "copy")
    blockwright("fs", "rm", "volume:main/copy", "/hello")
    assert text("fs", "cat", "volume:main/root", "/hello") == "hello world"
    assert b"/hello" in blockwright("fs", "cat", "volume:main/copy", "/hello", code=5).stderr
    blockwright("check", "volume:main/copy")


def test_what_cannot_be_built_leaves_nothing(pool, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(3 << 20))
    blockwright("volume", "create", "root", "--size", "1M", "--from", tree, "--quiet", code=1)
    blockwright("volume", "create", "root", "--size", "1M", "--from", tmp_path / "none", "--quiet", code=5)
    assert text("volume", "ls") == ""
    assert os.listdir(pool / "volumes") == []


def test_a_volume_is_an_image_everywhere(pool, tmp_path):
    source = tmp_path / "disk.img"
    source.write_bytes(os.urandom(1 << 20))
    blockwright("volume", "create", "a", "--size", "1M")
    blockwright("convert", source, "volume:main/a", "--quiet")
    blockwright("compare", source, "volume:main/a")
    out = tmp_path / "out.img"
    blockwright("convert", "volume:main/a", out, "--quiet")
    assert out.read_bytes() == source.read_bytes()
    blockwright("disk", "table", "volume:main/a", "gpt", "--force")
    assert document("inspect", "volume:main/a")
    assert b"no such volume" in blockwright("inspect", "volume:main/none", code=5).stderr


def test_a_snapshot_is_taken_of_what_is_being_served(pool, tmp_path):
    blockwright("volume", "create", "a", "--size", "1M")
    device = Image("volume:main/a")()
    with running([Export("", device)]) as server, connect(server.uri, writable=True) as client:
        client.write(0, b"first")
        blockwright("volume", "snapshot", "a", "s1")
        client.write(0, b"later")
        blockwright("volume", "snapshot", "a", "s2")
        client.write(8192, b"end")
        client.flush()
        assert client.read(0, 5) == b"later"
    device.close()
    for name, start in (("s1", b"first"), ("s2", b"later"), ("a", b"later")):
        blockwright("convert", f"volume:main/{name}", tmp_path / name, "--quiet")
        data = (tmp_path / name).read_bytes()
        assert data[:5] == start
        assert data[8192:8195] == (b"end" if name == "a" else b"\0\0\0")


def test_mounting_without_root_points_to_serve(pool, tmp_path, monkeypatch):
    blockwright("volume", "create", "a", "--size", "1M")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    told = blockwright("volume", "mount", "a", tmp_path, code=4).stderr.decode()
    assert "needs root" in told
    assert "blockwright serve volume:main/a" in told
    assert document("volume", "show", "a")["state"] == "inactive"


def test_what_only_grows_says_so_to_a_smaller_size(pool):
    blockwright("volume", "create", "a", "--size", "2M")
    told = b"a: has 2097152 bytes, and volumes only grow: found 1048576"
    assert told in blockwright("volume", "grow", "a", "-1M", code=2).stderr
    assert b"No such option" not in blockwright("pool", "grow", "main", "-1M", code=2).stderr
    assert b"'-8388608': expected less than the 2097152" in blockwright("volume", "grow", "a", "-8M", code=2).stderr


def test_a_pool_that_is_not_said_is_the_only_one(pool):
    found, name = opened("x", None)
    found.close()
    assert (found.spec.name, name) == ("main", "x")
    blockwright("pool", "create", "other")
    assert b"there are main, other" in blockwright("volume", "create", "a", "--size", "1M", code=2).stderr
    assert b"found pool main" in blockwright("volume", "show", "main/a", "--pool", "other", code=2).stderr
    blockwright("volume", "create", "a", "--size", "1M", "--pool", "other")
    assert b"in pool other" in blockwright("volume", "snapshot", "other/a", "main/b", code=2).stderr
    blockwright("volume", "snapshot", "other/a", "other/b")
    assert document("volume", "show", "other/a")["pool"] == "other"


def test_the_only_pool_need_not_be_said_in_an_address(home, pool, tmp_path):
    blockwright("volume", "create", "a", "--size", "1M")
    blockwright("disk", "table", "volume:a", "mbr")
    blockwright("disk", "add", "volume:a", "--start", "4k", "--size", "64k")
    assert document("inspect", "volume:a")["size"] == 1 << 20
    assert blockwright("convert", "volume:a:1", tmp_path / "copy").returncode == 0
    assert os.stat(tmp_path / "copy").st_size == 64 << 10
    assert b"no such volume" in blockwright("inspect", "volume:b", code=5).stderr
    for number in range(9):
        blockwright("pool", "create", f"p{number}")
    said = blockwright("inspect", "volume:a", code=2).stderr
    assert b"volume a: expected POOL/NAME: there are main, p0, p1, p2, p3, p4, p5, p6 and 2 more\n" in said
    assert document("inspect", "volume:main/a")["size"] == 1 << 20
    for name in ("main", *(f"p{number}" for number in range(9))):
        blockwright("pool", "destroy", name, "--force")
    assert b"volume a: expected POOL/NAME: there are no pools\n" in blockwright("inspect", "volume:a", code=2).stderr


@pytest.mark.parametrize(
    ("line", "alone", "beside"),
    [
        ("volume show ro", ["root"], []),
        ("volume show ", ["main/root"], ["main/root"]),
        ("volume show main/r", ["main/root"], ["main/root"]),
        ("inspect volume:ro", ["volume:root"], []),
        ("inspect volume:", ["volume:main/root"], ["volume:main/root"]),
    ],
)
def test_a_volume_is_completed_by_its_name_where_the_pool_need_not_be_said(pool, line, alone, beside):
    blockwright("volume", "create", "root", "--size", "1M")

    def answers() -> list[str]:
        env = {"COMP_LINE": f"blockwright {line}", "_BLOCKWRIGHT_COMPLETE": "bash_complete"}
        said = command.blockwright(env=env).stdout.decode()
        return [each.split("\t")[1] for each in said.split("\n") if each]

    assert answers() == alone
    blockwright("pool", "create", "other")
    assert answers() == beside


def test_status_check_and_repair(pool):
    blockwright("volume", "create", "a", "--size", "1M")
    (found,) = document("pool", "status")["pools"]
    assert (found["up"], found["volumes"], found["driver"]) == (True, 1, "file")
    assert "nothing is wrong" in text("pool", "check", "main")
    (pool / "volumes" / "strange").write_bytes(b"")
    assert document("pool", "check", "main", code=3)["findings"][0]["rule"] == "volume.file.unknown"
    assert "strange" in text("pool", "repair", "main", code=3)


def test_reconcile_says_what_it_did(pool):
    blockwright("volume", "create", "a", "--size", "1M")
    for each in pool.glob("journal.db*"):
        each.unlink()
    assert text("volume", "reconcile").splitlines() == ["main: adopted: a"]
    assert document("volume", "reconcile")["pools"] == {"main": []}


def test_metrics_by_file_and_by_http(pool, tmp_path, monkeypatch):
    blockwright("volume", "create", "a", "--size", "1M")
    blockwright("volume", "snapshot", "a", "b")
    blockwright("volume", "create", "a", "--size", "1M", code=2)
    target = tmp_path / "metrics.prom"
    blockwright("pool", "metrics", "--textfile", target)
    by_file = target.read_text()
    assert 'blockwright_volumes{pool="main",state="inactive"} 2' in by_file
    assert 'blockwright_snapshots{pool="main"} 1' in by_file
    assert 'blockwright_volume_operations_total{pool="main",operation="create"} 1' in by_file
    assert not list(tmp_path.glob("*.part"))
    monkeypatch.chdir(tmp_path)
    blockwright("pool", "metrics", "--textfile", "here.prom")
    assert _without_space((tmp_path / "here.prom").read_text()) == _without_space(by_file)
    (listener,) = listen_tcp("127.0.0.1", 0)
    with ScrapeServer([listener.socket], lambda: render(["main"]), CONTENT_TYPE):
        port = listener.socket.getsockname()[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            assert _without_space(answer.read().decode()) == _without_space(by_file)


def _without_space(metrics: str) -> list[str]:
    """What does not change with the space that others leave on the disk."""
    return [line for line in metrics.splitlines() if "data_total" not in line]


def test_watch_tells_of_a_pool_that_is_nearly_full(pool, tmp_path, monkeypatch):
    blockwright("volume", "create", "a", "--size", "1M")
    assert "main: is well" in text("pool", "watch", "main", "--once", "--textfile", str(tmp_path / "m"))
    assert (tmp_path / "m").read_text().startswith("# HELP blockwright_pool_up")
    (pool / "volumes" / "ballast").write_bytes(os.urandom(1 << 20))
    monkeypatch.setattr(survey, "free_bytes", lambda _folder: 1 << 17)
    assert "data: 1 MiB of 1.1 MiB are used" in text("pool", "watch", "main", "--once")


@pytest.mark.parametrize(
    "arguments",
    [
        ("volume", "create", "../x", "--size", "1M"),
        ("volume", "create", "a", "--size", "0"),
        ("volume", "create", "a", "--size", "many"),
        ("pool", "create", "a/b"),
        ("pool", "create", "b", "--option", "colour=red"),
        ("pool", "create", "b", "--option", "red"),
        ("pool", "grow", "main", "1T"),
        ("volume", "mount", "a", "/", "-o", "sync"),
    ],
)
def test_wrong_input_is_refused_in_one_line(pool, arguments):
    code = inprocess.run([*arguments])
    assert code in (2, 5)
    assert text("volume", "ls") == ""
    assert json.loads(blockwright("volume", "show", "a", "--json", code=5).stderr)["error"]["code"] == 5
