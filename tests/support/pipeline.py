"""Images to fetch, homes to fetch them to, and what must hold of a volume that was made."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockwright.pipeline import runner
from blockwright.pipeline.context import Context
from blockwright.pipeline.images import Images
from blockwright.pipeline.request import Request
from blockwright.pipeline.runner import Outcome
from blockwright.resolve import open_device, open_file_system
from blockwright.store import cloud
from blockwright.tree.digest import tree_digest
from blockwright.tree.node import Directory, File
from blockwright.volume import create_pool, open_pool
from tests.support.command import COMMAND
from tests.support.faultproxy import FaultProxy, faulty
from tests.support.oci import docker
from tests.support.tarmaker import archive, header, member
from tests.support.volumes import unsync

POOL = "p"
LAYERS = [
    archive(member(b"etc/os-release", b"ID=test\n"), member(b"bin/tool", b"tool" * 5000), member(b"gone", b"g")),
    archive(header(b"etc/link", kind=b"2", link=b"os-release"), member(b".wh.gone"), member(b"bin/more", b"m" * 99)),
]
FILES = {b"/etc/os-release": b"ID=test\n", b"/bin/tool": b"tool" * 5000, b"/bin/more": b"m" * 99}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one pool, where nothing waits for the disk."""
    unsync(monkeypatch)
    folder = tmp_path / "home"
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(folder))
    monkeypatch.delenv("TRACEPARENT", raising=False)
    create_pool(POOL, "file", {"snapshots": "overlay", "expose": "path", "directory": str(tmp_path / "volumes")})
    return folder


@pytest.fixture
def proxy(shelf: dict[str, tuple[bytes, str, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of what a module's ``shelf`` has, asked again soon and seldom where it breaks off."""
    pytest.importorskip("obstore", reason="obstore is not installed")
    monkeypatch.setattr(cloud, "_RETRIES", 1)
    monkeypatch.setattr(runner, "BACKOFF_S", 0.01)
    with faulty(shelf) as server:
        yield server


def docker_archive(folder: Path, name: str = "image.tar", layers: list[bytes] = LAYERS) -> str:
    """A docker-archive with two layers, of which the second one removes a file."""
    path = folder / name
    path.write_bytes(docker(layers))
    return str(path)


def packed(folder: Path) -> str:
    """One layer as a compressed archive, which passes once."""
    path = folder / "root.tar.gz"
    path.write_bytes(gzip.compress(LAYERS[0]))
    return str(path)


def request(reference: str, **others: object) -> Request:
    return Request(reference, POOL, **{"scan": "off", **others})  # type: ignore[arg-type]  # as the test has them


def fetch(wanted: Request, checkpoint: Callable[[str], None] = lambda _name: None) -> Outcome:
    with Images() as images:
        return images.fetch(wanted, Context(images.home, checkpoint=checkpoint))


def content(address: str) -> dict[bytes, bytes]:
    """Every regular file of a volume, by path."""
    found: dict[bytes, bytes] = {}
    with open_device(address) as device, open_file_system(device, source=address) as system:
        stack: list[tuple[bytes, Directory]] = [(b"", system.tree())]
        while stack:
            path, folder = stack.pop()
            for name, node in folder.entries.items():
                if isinstance(node, Directory):
                    stack.append((path + b"/" + name, node))
                elif isinstance(node, File):
                    found[path + b"/" + name] = node.content.read(0, node.content.size)
    return found


def digest(address: str) -> bytes:
    with open_device(address) as device, open_file_system(device, source=address) as system:
        return tree_digest(system.tree())


def volumes() -> list[str]:
    with open_pool(POOL) as driver:
        return [each.name for each in driver.list()]


def left(folder: Path) -> list[str]:
    """Every file of a home and its pool that no image and no database accounts for."""
    found = []
    for top in (folder, folder.parent / "volumes"):
        for at, _, names in os.walk(top):
            found += [os.path.join(at, each) for each in names if each.endswith(".part") or "/work/" in at + "/"]
    return found


def command(*arguments: str, code: int = 0, env: dict[str, str] | None = None) -> tuple[str, list[str]]:
    """Run the command, hold it to its exit code, and return its output and the lines of its error stream."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr.splitlines()


def parsed(*arguments: str, code: int = 0) -> dict:
    found = json.loads(command(*arguments, "--json", code=code)[0])
    assert isinstance(found, dict)
    return found


PYTHON = sys.executable
