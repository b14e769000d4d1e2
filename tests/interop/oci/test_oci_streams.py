"""Container images that pass once, or are compressed as a whole: kept in a file, and then the same as from one."""

import gzip
import os
from pathlib import Path

import pytest

from tests.support.command import blockwright
from tests.support.inprocess import blockwright as quick
from tests.support.oci import Image, docker
from tests.support.tarmaker import archive, header, member
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged
LAYERS = [
    archive(header(b"d/", kind=b"5", mode=0o755), member(b"d/below", b"below" * 999), member(b"d/gone", b"x")),
    archive(member(b"d/.wh.gone", b""), member(b"d/above", b"above" * 5000)),
]


def layout(folder: Path) -> Path:
    folder.mkdir()
    image = Image(LAYERS)
    image.config |= {"created": "2024-01-01T00:00:00Z", "config": {}, "history": [{} for _ in LAYERS]}
    return image.seal().directory(folder)


def made_by_skopeo(folder: Path, form: str) -> bytes:
    copy = [tool("skopeo"), "--insecure-policy", "copy", "-q", f"oci:{layout(folder / 'layout')}:one"]
    run([*copy, f"{form}:{folder / 'made.tar'}:one:latest"])
    return (folder / "made.tar").read_bytes()


def by_gnu_tar(layout: Path, made: Path) -> bytes:
    run([tool("tar"), "-C", layout, "-cf", made, "blobs", "index.json", "oci-layout"])
    return made.read_bytes()


FORMS = {
    "OCI archive": lambda folder: Image(LAYERS).seal().archive(),
    "docker-archive": lambda folder: docker(LAYERS),
    "docker-archive with links": lambda folder: docker(LAYERS, links=True),
    "skopeo's OCI archive": lambda folder: made_by_skopeo(folder, "oci-archive"),
    "skopeo's docker-archive": lambda folder: made_by_skopeo(folder, "docker-archive"),
    "GNU tar of a layout": lambda folder: by_gnu_tar(layout(folder / "layout"), folder / "made.tar"),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_that_passes_once_is_taken(tmp_path: Path, form: str) -> None:
    data = FORMS[form](tmp_path)
    plain, packed = tmp_path / "image.tar", tmp_path / "image.tar.gz"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    for number, (source, stdin) in enumerate(((plain, None), (packed, None), ("-", data))):
        made = tmp_path / f"{number}.img"
        (quick if stdin is None else blockwright)("build", source, "-o", made, "--table", "none", input=stdin)
        if number:
            assert made.read_bytes() == (tmp_path / "0.img").read_bytes(), (source, stdin is None)
    assert quick("fs", "ls", "-R", tmp_path / "0.img").stdout.split() >= [b"d", b"d/above", b"d/below"]
    quick("check", tmp_path / "0.img", "--against", packed)
    quick("build", packed, "-o", tmp_path / "0.img", "--table", "none", "--verify-only")


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    packed = tmp_path / "image.tar.gz"
    packed.write_bytes(gzip.compress(docker(LAYERS)))
    done = quick("build", packed, "-o", tmp_path / "out.img", "--limit", "spool=8K", code=1)
    assert b"spool: expected a container image of at most 8192 bytes to keep" in done.stderr
    assert os.listdir(tmp_path) == ["image.tar.gz"]


def test_one_that_begins_like_none_is_refused_with_what_helps(tmp_path: Path) -> None:
    packed = tmp_path / "image.tar.gz"
    data = archive(
        member(b"README", b"hello"), *[member(k.encode(), v) for k, v in Image(LAYERS).seal().files.items()]
    )
    packed.write_bytes(gzip.compress(data))
    done = quick("build", packed, "-o", tmp_path / "out.img", code=2)
    assert b"begins like none: expected it in a file, and decompressed" in done.stderr


def test_a_stream_that_begins_like_an_image_and_is_none_is_a_tree(tmp_path: Path) -> None:
    packed = tmp_path / "tree.tar.gz"
    packed.write_bytes(gzip.compress(archive(member(b"blobs/a", b"a"), member(b"b", b"b"))))
    quick("build", packed, "-o", tmp_path / "out.img", "--table", "none")
    assert b"blobs/a" in quick("fs", "ls", "-R", tmp_path / "out.img").stdout.split()


def test_a_broken_stream_is_told_as_before(tmp_path: Path) -> None:
    packed = tmp_path / "image.tar.gz"
    packed.write_bytes(gzip.compress(docker(LAYERS), 1)[:-30])
    done = quick("build", packed, "-o", tmp_path / "out.img", code=1)
    assert b"gzip: " in done.stderr
    packed.write_bytes(gzip.compress(archive(member(b"f", b"f")))[:40])
    done = quick("build", packed, "-o", tmp_path / "out.img", code=1)
    assert b"gzip: " in done.stderr
