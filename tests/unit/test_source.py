"""What a user names, told apart by content, as a tree."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import ArchiveRejected, Closed, NotFound, NotThisFormat, SourceChanged, UsageError
from blockwright.source import DirectorySource, open_source
from blockwright.source.archive import StreamedTarSource, TarSource
from blockwright.tree.node import Directory, File
from blockwright.tree.spool import Spool
from tests.support.tarmaker import archive, member
from tests.support.trees import content_bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ARCHIVE = archive(member(b"d/f", b"body" * 1000), member(b"g", b"x"))
ENCODERS = {"gzip": gzip.compress, "zstd": zstd.compress, "xz": lzma.compress, "bzip2": bz2.compress}


def body(root: Directory) -> bytes:
    below = root.entries[b"d"]
    assert isinstance(below, Directory)
    node = below.entries[b"f"]
    assert isinstance(node, File)
    return content_bytes(node.content)


def spool() -> Spool:
    return Spool(MemoryDevice(0))


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"body")
    with open_source(tmp_path) as source:
        assert isinstance(source, DirectorySource)
        assert (source.kind, source.addressable, source.name) == ("directory", True, str(tmp_path))
        assert body(source.read()) == b"body"
        assert body(source.read()) == b"body"


def test_a_plain_archive(tmp_path: Path) -> None:
    path = tmp_path / "misnamed.gz"
    path.write_bytes(ARCHIVE)
    with open_source(str(path)) as source:
        assert isinstance(source, TarSource)
        assert (source.kind, source.addressable) == ("tar", True)
        assert body(source.read()) == b"body" * 1000
        root = source.read()
    with pytest.raises(Closed):
        body(root)


def test_a_plain_archive_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(ARCHIVE)
    with open_source(path) as source:
        root = source.read()
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceChanged, match=r"a\.tar: changed since"):
            body(root)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_compressed_archive(tmp_path: Path, name: str) -> None:
    path = tmp_path / "misnamed.tar"
    path.write_bytes(ENCODERS[name](ARCHIVE))
    with open_source(path) as source:
        assert isinstance(source, StreamedTarSource)
        assert (source.kind, source.addressable, source.compression) == ("tar", False, name)
        assert body(source.read(spool().place)) == b"body" * 1000
        assert source.progress == (path.stat().st_size, path.stat().st_size)


@pytest.mark.parametrize("name", [None, *ENCODERS])
def test_standard_input(name: str | None) -> None:
    data = ENCODERS[name](ARCHIVE) if name else ARCHIVE
    with open_source("-", stdin=io.BytesIO(data)) as source:
        assert not source.addressable
        assert body(source.read(spool().place)) == b"body" * 1000


READ_STDIN = """
from blockwright.device.memory import MemoryDevice
from blockwright.source import open_source
from blockwright.tree.spool import Spool
with open_source("-") as source:
    print(sorted(source.read(Spool(MemoryDevice(0)).place).entries))
"""


@pytest.mark.parametrize("name", [None, "gzip"])
def test_the_process_own_standard_input(name: str | None) -> None:
    data = ENCODERS[name](ARCHIVE) if name else ARCHIVE
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", READ_STDIN], input=data, capture_output=True, env=environment, check=False
    )
    assert (done.stdout.decode().strip(), done.stderr) == ("[b'd', b'g']", b"")


def test_a_pipe_with_a_name(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(ARCHIVE,))
    writer.start()
    with open_source(path) as source:
        assert not source.addressable
        assert body(source.read(spool().place)) == b"body" * 1000
    writer.join()


def test_a_stream_is_read_once() -> None:
    with open_source("-", stdin=io.BytesIO(ARCHIVE)) as source:
        with pytest.raises(UsageError, match="expected a place"):
            source.read()
        source.read(spool().place)
        with pytest.raises(UsageError, match="has been read"):
            source.read(spool().place)


@pytest.mark.parametrize("missing", ["gone", "gone/below", "."])
def test_nothing_of_that_name(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "directory" / missing
    with pytest.raises(NotFound, match="no such file or directory") as caught:
        open_source(path)
    assert caught.value.exit_code == 5
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"text\n", b"\x7fELF" + bytes(2000), b"PK\3\4" + b"z" * 600])
def test_neither_directory_nor_archive(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "f.tar.gz"
    path.write_bytes(data)
    with pytest.raises(NotThisFormat, match="expected a directory or a tar archive"):
        open_source(path)


@pytest.mark.parametrize("name", ENCODERS)
def test_something_else_compressed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(ENCODERS[name](b"text\n" * 500))
    with open_source(path) as source, pytest.raises(NotThisFormat, match="f: expected a tar header"):
        source.read(spool().place)


def test_a_cut_compressed_archive_names_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "f"
    data = gzip.compress(ARCHIVE)
    path.write_bytes(data[:-5])
    with open_source(path) as source, pytest.raises(ArchiveRejected, match="f: gzip: expected more") as caught:
        source.read(spool().place)
    assert caught.value.offset == len(data) - 5


def test_damage_behind_the_archive_is_seen_too(tmp_path: Path) -> None:
    """The checksum of a compressed stream lies behind everything that an archive's reader needs."""
    path = tmp_path / "f"
    data = bytearray(gzip.compress(ARCHIVE))
    data[-6] ^= 1
    path.write_bytes(data)
    with open_source(path) as source, pytest.raises(ArchiveRejected, match="gzip"):
        source.read(spool().place)


def test_files_are_closed(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open files cannot be listed here")
    for data in (ARCHIVE, gzip.compress(ARCHIVE), b"junk", gzip.compress(bytes(50 << 20))):
        path = tmp_path / "f"
        path.write_bytes(data)
        try:
            with open_source(path):
                pass
        except NotThisFormat:
            assert data == b"junk"
        assert str(path) not in open_files()
    with open_source(path):
        assert str(path) in open_files()


def open_files() -> set[str]:
    """Return what this process has open; what other threads close meanwhile may be in it or not."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return found
