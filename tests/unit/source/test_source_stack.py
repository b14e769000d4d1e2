"""Several references over one another: images of every kind with all of their layers, and archives."""

import gzip
import json
import re

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import ArchiveRejected, LimitExceeded, NotFound, UsageError
from blockwright.oci.choice import Choice
from blockwright.oci.platform import Platform
from blockwright.source import open_sources
from blockwright.source.identity import identify_all
from blockwright.tree.node import Directory, File, walk
from blockwright.tree.rules import ArchiveRules
from blockwright.tree.spool import Spool
from tests.support.faultproxy import faulty
from tests.support.inprocess import blockwright
from tests.support.oci import Image, docker
from tests.support.registry import Content, Registry
from tests.support.tarmaker import archive, header, member

pytestmark = pytest.mark.unprivileged

BASE = [
    archive(
        member(b"etc/a", b"a0"), member(b"bin/tool", b"tool" * 3000), member(b"gone", b"g"), member(b"d/x", b"x")
    ),
    archive(member(b"etc/b", b"b0"), header(b"link", kind=b"2", link=b"etc/b")),
]
TOP = archive(member(b".wh.gone"), member(b"d/.wh..wh..opq"), member(b"d/y", b"y"), member(b"etc/b", b"b1"))
OTHER = [archive(member(b"etc/.wh.a"), member(b"opt/app", b"app" * 900))]
OVER = {b"etc/a": b"a0", b"bin/tool": b"tool" * 3000, b"d/y": b"y", b"etc/b": b"b1"}
BELOW = {b"etc/a": b"a0", b"bin/tool": b"tool" * 3000, b"gone": b"g", b"d/x": b"x", b"etc/b": b"b0"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def registry():
    pytest.importorskip("urllib3", reason="urllib3 is not installed")
    content = Content()
    content.image(*BASE, tag="base")
    content.image(*OTHER, tag="other")
    content.image(*OTHER, tag="arm", architecture="arm64")
    with Registry(content) as registry:
        yield registry


def made(folder, kind):
    """Return the base image as a file or layout of that kind."""
    path = folder / kind
    if kind == "layout":
        path.mkdir()
        Image(BASE).seal().directory(path)
    else:
        data = docker(BASE) if kind.startswith("docker") else Image(BASE).seal().archive()
        path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    return kind


def read(*names, rules=None, choice=None, **others):
    given = {**({"rules": rules} if rules else {}), **({"choice": choice} if choice else {}), **others}
    with open_sources(names, **given) as source, MemoryDevice(1 << 22) as kept:
        tree = source.read(None if source.addressable else Spool(kept).place)
        return source, files(tree)


def files(tree: Directory):
    return {path: node.content.read(0, node.content.size) for path, node in walk(tree) if isinstance(node, File)}


@pytest.mark.parametrize("kind", ["layout", "docker.tar", "oci.tar", "docker.tar.gz", "oci.tar.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_archives_go_over_an_image_of_any_kind(tmp_path, kind, packed):
    name = made(tmp_path, kind)
    (tmp_path / "top").write_bytes(gzip.compress(TOP) if packed else TOP)
    source, found = read(name, "top")
    assert found == OVER
    assert list(source.origins) == [0, 0, 1]
    assert [each.number for each in source.layers] == [0, 1, 2]
    assert source.addressable == (kind in ("docker.tar", "docker.tar.gz") and not packed)


def test_an_image_goes_over_archives_and_over_another_image(tmp_path, registry):
    (tmp_path / "top").write_bytes(TOP)
    name = made(tmp_path, "docker.tar")
    assert read("top", name)[1] == {**BELOW, b"d/y": b"y"}
    found = read(f"docker://{registry.host}/app:base", f"docker://{registry.host}/app:other", "top")[1]
    assert found == {each: data for each, data in OVER.items() if each != b"etc/a"} | {b"opt/app": b"app" * 900}


def test_an_object_that_is_an_image_is_one(tmp_path):
    pytest.importorskip("obstore", reason="obstore is not installed")
    when = "Mon, 19 Oct 2015 07:28:00 GMT"
    shelf = {"/base.tar": (docker(BASE), '"one"', when), "/top.tgz": (gzip.compress(TOP), '"two"', when)}
    with faulty(shelf) as server:
        assert read("base.tar", "top.tgz", store=server.url)[1] == OVER
        (tmp_path / "top").write_bytes(TOP)
        assert read(f"{server.url}/base.tar", "top")[1] == OVER


def test_a_directory_of_layers_may_begin_with_an_image(tmp_path):
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers/1.tar").write_bytes(docker(BASE))
    (tmp_path / "layers/2.tar").write_bytes(TOP)
    assert read("layers", layers=True)[1] == OVER


def test_build_and_extract_take_them(tmp_path, registry):
    (tmp_path / "top.tar").write_bytes(TOP)
    base = f"docker://{registry.host}/app:base"
    blockwright("extract", base, "top.tar", "copy")
    assert (tmp_path / "copy/etc/b").read_bytes() == b"b1"
    assert sorted(each.name for each in (tmp_path / "copy").iterdir()) == ["bin", "d", "etc", "link"]
    blockwright("build", base, "top.tar", "-o", "root.ext4", "--table", "none")
    assert blockwright("fs", "cat", "root.ext4", "/d/y").stdout == b"y"
    assert b"gone" not in blockwright("fs", "ls", "root.ext4", "/").stdout


def test_images_for_two_platforms_are_refused_by_name(registry):
    base, arm = (f"docker://{registry.host}/app:{tag}" for tag in ("base", "arm"))
    with pytest.raises(UsageError, match=re.escape(f"{arm}: is for linux/arm64, and {base} for linux/amd64")):
        read(base, arm)
    with pytest.raises(NotFound, match="expected linux/amd64, found linux/arm64"):
        read(base, arm, choice=Choice(Platform("linux", "amd64")))


def test_a_name_says_which_image_of_one_reference(tmp_path, registry):
    made(tmp_path, "layout")
    (tmp_path / "docker.tar").write_bytes(docker(OTHER))
    with pytest.raises(UsageError, match=r"--image one: .* found layout and docker\.tar"):
        read("layout", "docker.tar", choice=Choice(None, "one"))
    with pytest.raises(NotFound, match="layout: expected two, found one: --platform and --image choose"):
        read("layout", f"docker://{registry.host}/app:other", choice=Choice(None, "two"))
    found = read("layout", f"docker://{registry.host}/app:other", choice=Choice(None, "one"))[1]
    assert found[b"opt/app"] == b"app" * 900


def test_what_cannot_be_a_layer_is_refused_before_anything_is_fetched(tmp_path, registry):
    (tmp_path / "directory").mkdir()
    base = f"docker://{registry.host}/app:base"
    for name, told in (
        ("directory", "is a directory: expected archives and"),
        ("disk.img:1", "is a part of an image"),
        ("-", "-: is standard input"),
    ):
        with pytest.raises(UsageError, match=told):
            read(base, name)
    with pytest.raises(NotFound, match="missing: no such file"):
        read(base, "missing")
    assert registry.requests == []


def test_a_damaged_layer_is_told_by_its_number_over_all(tmp_path):
    (tmp_path / "bad").write_bytes(gzip.compress(TOP)[:-20])
    with pytest.raises(ArchiveRejected) as error:
        read(made(tmp_path, "layout"), "bad")
    assert error.value.layer == 2
    image = Image(OTHER)
    image.config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    (tmp_path / "wrong").mkdir()
    image.seal().directory(tmp_path / "wrong")
    with pytest.raises(ArchiveRejected, match="diff_id") as error:
        read("layout", "wrong")
    assert error.value.layer == 2
    assert "wrong: layer 1" in str(error.value)


def test_budgets_are_those_of_all_together(tmp_path):
    (tmp_path / "top").write_bytes(TOP)
    with pytest.raises((ArchiveRejected, LimitExceeded), match="size"):
        read(made(tmp_path, "layout"), "top", rules=ArchiveRules(size=12_000))
    with pytest.raises(ArchiveRejected, match="spool"):
        read(made(tmp_path, "docker.tar.gz"), "top", rules=ArchiveRules(spool=4096))


def test_a_compressed_image_that_begins_like_none_is_told(tmp_path):
    image = Image(BASE).seal()
    data = archive(header(b"./", kind=b"5"), *[member(name.encode(), data) for name, data in image.files.items()])
    (tmp_path / "plain").write_bytes(data)
    (tmp_path / "packed").write_bytes(gzip.compress(data))
    (tmp_path / "top").write_bytes(TOP)
    assert read("plain", "top")[1] == OVER
    with pytest.raises(UsageError, match="packed: is a container image that begins like none"):
        read("packed", "top")


def test_the_identity_is_of_all_in_order(tmp_path, registry):
    (tmp_path / "top").write_bytes(TOP)
    base, layout = f"docker://{registry.host}/app:base", made(tmp_path, "layout")
    first = identify_all((base, layout, "top"))
    assert identify_all((base, layout, "top")) == first
    assert len({identify_all(each) for each in ((base, layout, "top"), (layout, base, "top"), (base, "top"))}) == 3
    with open("layout/index.json", "a") as file:
        file.write(" ")
    changed = identify_all((base, layout, "top"))
    assert changed != first
    registry.content.image(*OTHER, tag="base")
    assert identify_all((base, layout, "top")) != changed
    assert json.dumps(changed.document())
