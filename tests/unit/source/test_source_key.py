"""What a name without a place means: a path that exists, or a key of the store; both are told apart or refused."""

import pytest

from blockwright.errors import NotFound, UsageError
from blockwright.source.key import locate, locate_all
from blockwright.store import cloud
from tests.support.objects import MemoryObjects

STORE = "s3://memory"


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    objects = MemoryObjects()
    monkeypatch.setattr(cloud, "open_bucket", lambda _: objects)
    monkeypatch.chdir(tmp_path)
    return objects


def test_without_a_store_every_name_is_itself(monkeypatch):
    monkeypatch.delenv("BLOCKWRIGHT_STORE", raising=False)
    assert locate("images/1.tar") == ("images/1.tar",)


def test_a_key_is_what_is_no_path(bucket, monkeypatch, tmp_path):
    assert locate("images/1.tar", STORE) == ("s3://memory/images/1.tar",)
    assert locate("1.tar", f"{STORE}/images/") == ("s3://memory/images/1.tar",)
    assert locate("disk.img:2", STORE) == ("s3://memory/disk.img#2",)
    monkeypatch.setenv("BLOCKWRIGHT_STORE", STORE)
    assert locate("images/1.tar") == ("s3://memory/images/1.tar",)
    assert locate("images/1.tar", "") == ("images/1.tar",), "no store on purpose"
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.tar").touch()
    assert locate("images/1.tar") == ("images/1.tar",)
    assert locate("images/1.tar:2") == ("images/1.tar:2",)


@pytest.mark.parametrize(
    "name",
    [
        "-",
        ".",
        "..",
        "/a",
        "./a",
        "../a",
        "docker://h/a:1",
        "s3://b/k",
        "file:a",
        "mem:4M",
        "volume:p/v",
        "nbd://h/x",
    ],
)
def test_what_has_a_place_is_never_a_key(bucket, name):
    bucket.held["a"] = b"x", None
    assert locate(name, STORE) == (name,)
    assert bucket.calls == []


def test_a_path_that_is_a_key_too_is_refused_naming_both(bucket, tmp_path):
    bucket.put("one.tar", b"x")
    bucket.put("dir/a", b"x")
    (tmp_path / "one.tar").touch()
    (tmp_path / "dir").mkdir()
    for name in ("one.tar", "dir/", "one.tar:1"):
        with pytest.raises(UsageError) as caught:
            locate(name, STORE)
        assert f"./{name}" in str(caught.value)
        assert f"s3://memory/{name.removesuffix(':1')}" in str(caught.value)
        assert locate(f"./{name}", STORE) == (f"./{name}",)
        assert locate(f"{STORE}/{name}", STORE)[0].startswith("s3://")


def test_a_prefix_is_its_keys_in_order(bucket):
    for key in ("layers/2.tar", "layers/10.tar", "layers/1.tar", "layers/", "layersother"):
        bucket.put(key, b"x")
    below = tuple(f"s3://memory/layers/{name}" for name in ("1.tar", "10.tar", "2.tar"))
    assert locate("layers/", STORE) == below
    assert locate("s3://memory/layers/") == below
    assert locate_all(["layers/", "x"], STORE) == ((*below, "s3://memory/x"), True)
    assert locate_all(["y", "x"], STORE) == (("s3://memory/y", "s3://memory/x"), False)
    with pytest.raises(NotFound, match="no such prefix"):
        locate("none/", STORE)
    with pytest.raises(UsageError, match="lists nothing"):
        locate("http://host/layers/")
    with pytest.raises(UsageError, match="expected a store"):
        locate("x", "bucket")
