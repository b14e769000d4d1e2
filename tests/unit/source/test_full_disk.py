"""A disk that is full is named: of all that are written to, people have to know which."""

import errno
import io
import os
import tempfile
from contextlib import ExitStack, contextmanager

import pytest

from blockwright.device.output import OutputFile
from blockwright.device.spool import kept_meanwhile
from blockwright.errors import NoSpace
from blockwright.oci.blobs import BlobStore
from blockwright.oci.choice import ONLY
from blockwright.pipeline import objects
from blockwright.source.archive import open_stdin
from blockwright.source.stored import keep_objects
from blockwright.store.objects import ObjectInfo, Version
from blockwright.tree.extract import Extraction, ExtractOptions
from blockwright.tree.rules import DEFAULT_RULES
from blockwright.tree.spool import KEPT_IN_MEMORY, spooled
from tests.support.objects import MemoryObjects
from tests.support.oci import docker
from tests.support.tarmaker import archive, member

pytestmark = pytest.mark.unprivileged


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def named(path):
    with pytest.raises(OSError, match="No space left") as error:
        yield
    assert error.value.filename == str(path)
    assert str(path) in str(error.value)


@contextmanager
def no_room_for(name):
    with pytest.raises(NoSpace) as error:
        yield
    assert (
        str(error.value) == f"{name}: no space left in {tempfile.gettempdir()} (TMPDIR), where it is kept meanwhile"
    )


def test_where_what_is_made_goes(tmp_path):
    with named(tmp_path / "disk"), OutputFile(str(tmp_path / "disk"), size=4096):
        full()
    with named(tmp_path / "tree"), Extraction(str(tmp_path / "tree"), ExtractOptions()):
        full()
    assert os.listdir(tmp_path) == []


def test_who_names_another_file_is_believed(tmp_path):
    with pytest.raises(OSError, match="elsewhere") as error, OutputFile(str(tmp_path / "disk"), size=4096):
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")
    assert error.value.filename == "elsewhere"
    with pytest.raises(OSError, match="Bad") as error, OutputFile(str(tmp_path / "disk"), size=4096):
        raise OSError(errno.EBADF, "Bad file descriptor")
    assert error.value.filename is None


def test_where_what_is_fetched_goes(tmp_path, monkeypatch):
    store = BlobStore(str(tmp_path / "oci"))
    digest = "sha256:" + "0" * 64
    with named(store.path(digest)):
        store.obtain(digest, 10, full)
    monkeypatch.setattr("blockwright.store.download.download", full)
    part = str(tmp_path / "object.part")
    with named(part):
        objects._download(MemoryObjects(), ObjectInfo("key", 10, Version('"one"', None)), part, lambda *_: None)


@pytest.fixture
def no_room(monkeypatch):
    """Temporary files on a disk that is full."""

    class Full(io.BytesIO):
        def fileno(self):
            raise AssertionError("nothing was written")

        write = full

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)


def test_where_what_passes_once_is_kept(no_room, monkeypatch):
    with no_room_for("standard input"):
        open_stdin(io.BytesIO(docker([archive(member(b"a", b"a"))])), DEFAULT_RULES, ONLY)
    bucket = MemoryObjects()
    bucket.put("key", b"data")
    monkeypatch.setattr("blockwright.source.stored.open_bucket", lambda _name: bucket)
    with ExitStack() as owned, no_room_for(bucket.name_of("key")):
        keep_objects(["s3://memory/key"], DEFAULT_RULES, owned)
    with no_room_for("the stream"), spooled(io.BytesIO(bytes(KEPT_IN_MEMORY))):
        pass
    with no_room_for("input"), kept_meanwhile("input"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "input")
    with pytest.raises(OSError, match="elsewhere"), kept_meanwhile("input"):
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")
    with pytest.raises(OSError, match="Bad"), kept_meanwhile("input"):
        raise OSError(errno.EBADF, "Bad file descriptor")
