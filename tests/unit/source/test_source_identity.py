"""A source is known without reading it: equal as long as nothing changed, different as soon as something did."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from blockwright.errors import NotFound, Unsupported, UsageError
from blockwright.source.identity import Kind, identify, identify_all
from tests.support.faultproxy import Fault, faulty
from tests.support.registry import Content, layer, serving

MODIFIED = "Wed, 21 Oct 2026 07:28:00 GMT"


def rewritten(path):
    """Other bytes of the same size under the old times, as a restored backup has them."""
    before = os.stat(path)
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_is_known_by_what_its_inode_says(tmp_path):
    path = tmp_path / "root.tar"
    path.write_bytes(b"one tar")
    first = identify(path)
    assert first == identify(str(path))
    assert first.digest == identify(path).digest
    assert first.kind is Kind.FILE
    assert not first.weak
    link = tmp_path / "link"
    link.symlink_to(path)
    assert identify(link) == first
    rewritten(path)
    assert identify(path) != first, "the change time tells"
    again = identify(path)
    (tmp_path / "other").write_bytes(path.read_bytes())
    os.replace(tmp_path / "other", path)
    assert identify(path) != again


def test_an_identity_is_a_value(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    first = identify(tmp_path / "x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.uri = ""
    with pytest.raises(TypeError):
        first.facts["size"] = 3
    assert {first: 1}[identify(tmp_path / "x")] == 1
    assert json.loads(json.dumps(first.document()))["size"] == 1
    code = f"from blockwright.source.identity import identify; print(identify({str(tmp_path / 'x')!r}).digest)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.strip() == first.digest, "the same in another process"


def test_a_part_of_an_image_is_the_image_and_the_part(tmp_path):
    (tmp_path / "disk.img").write_bytes(bytes(100))
    assert identify(f"{tmp_path}/disk.img:1") != identify(f"{tmp_path}/disk.img:2")
    assert identify(f"{tmp_path}/disk.img:1").facts["inode"] == os.stat(tmp_path / "disk.img").st_ino


def test_a_layout_is_known_by_its_files_and_a_directory_only_on_request(tmp_path):
    for name in ("oci-layout", "index.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    blob = tmp_path / "blobs/sha256/aa"
    blob.write_bytes(b"blob")
    first = identify(tmp_path)
    assert (first.kind, first) == (Kind.LAYOUT, identify(tmp_path))
    rewritten(blob)
    second = identify(tmp_path)
    assert second != first
    (tmp_path / "blobs/sha256/bb").symlink_to("aa")
    assert identify(tmp_path) != second
    (tmp_path / "index.json").unlink()
    with pytest.raises(UsageError, match="is a directory"):
        identify(tmp_path)
    known = identify(tmp_path, read=True)
    assert known.kind is Kind.DIRECTORY
    os.chmod(blob, 0o600)
    assert identify(tmp_path, read=True) != known


def test_layers_are_known_by_each_of_them_in_their_order(tmp_path):
    names = [str(tmp_path / name) for name in ("a", "b")]
    for name in names:
        with open(name, "wb") as file:
            file.write(b"tar")
    both = identify_all(names)
    assert both.kind is Kind.LAYERS
    assert both == identify_all([str(tmp_path)], layers=True)
    assert both != identify_all(names[::-1])
    assert identify_all(names[:1]) == identify(names[0])


def test_what_is_there_once_or_not_at_all_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("-", str(tmp_path / "pipe"), "nbd://127.0.0.1/x"):
        with pytest.raises(UsageError):
            identify(name)
    with pytest.raises(NotFound):
        identify(tmp_path / "none")


def test_an_image_in_a_registry_is_known_by_one_request_without_a_body():
    content = Content()
    first = content.image(layer(b"a", b"a"), tag="1")
    with serving(content) as registry:
        known = identify(f"docker://{registry.host}/app:1")
        assert known.facts == {"digest": first["digest"]}
        assert len(registry.requests) == 1
        assert identify(f"docker://{registry.host}/app@{first['digest']}") == known
        assert len(registry.requests) == 1, "a digest needs to ask nobody"
        registry.tells = False
        assert identify(f"docker://{registry.host}/app:1") == known
        content.image(layer(b"a", b"b"), tag="1")
        assert identify(f"docker://{registry.host}/app:1") != known
        with pytest.raises(NotFound):
            identify(f"docker://{registry.host}/app:none")


def test_a_web_servers_file_is_known_by_its_tag_or_its_time():
    content = {"/root.tar": (b"tar", '"one"', MODIFIED)}
    with faulty(content) as proxy:
        url = f"{proxy.url}/root.tar"
        known = identify(url)
        assert (known.kind, known, known.weak) == (Kind.OBJECT, identify(url), False)
        assert {method for method, _, _ in proxy.requests} == {"HEAD"}
        content["/root.tar"] = b"rat", '"two"', MODIFIED
        assert identify(url) != known
        content["/root.tar"] = b"rat", 'W/"two"', MODIFIED
        assert identify(url).weak
        content["/root.tar"] = b"rat", None, MODIFIED
        timed = identify(url)
        assert timed.weak
        content["/root.tar"] = b"rat", None, MODIFIED.replace("07", "08")
        assert identify(url) != timed
        content["/root.tar"] = b"rat", None, None
        with pytest.raises(Unsupported, match="neither an entity tag nor a time"):
            identify(url)
        proxy.fault = lambda *_: Fault(status=404)
        with pytest.raises(NotFound):
            identify(url)
