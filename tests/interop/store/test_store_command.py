"""Disks in a bucket through the command, against a real server of S3's interface (moto)."""

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request

import pytest

from tests.support.command import COMMAND, blockwright, document
from tests.support.ports import free_port
from tests.support.registry import Content, digest, layer
from tests.support.tools import run

pytest.importorskip("moto.server", reason="moto is not installed")


@pytest.fixture(scope="module")
def s3():
    """The environment of a client of a server with the bucket `bucket`, and its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
                break
            except OSError:
                assert server.poll() is None, "the server ended"
                time.sleep(0.1)
        env = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}
        yield {**env, "AWS_ENDPOINT_URL": url}
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def bucket(s3, monkeypatch):
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    return s3["AWS_ENDPOINT_URL"]


_HEADERS = {"Content-Type": "application/octet-stream", "x-amz-acl": "public-read"}


def put(bucket, key, data):
    urllib.request.urlopen(urllib.request.Request(f"{bucket}/bucket/{key}", data, _HEADERS, method="PUT")).close()


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/motd").write_text("hello\n")
    (tmp_path / "tree/blob").write_bytes(random.Random(1).randbytes(3 << 20))
    return tmp_path / "tree"


def test_a_disk_is_built_changed_and_read_in_a_bucket(bucket, tree, tmp_path):
    url = "s3://bucket/disks/built"
    assert blockwright("build", tree, "-o", url, "--free", "20%").stdout == f"{url}\n".encode()
    blockwright("build", tree, "-o", tmp_path / "same.img", "--free", "20%")
    blockwright("compare", tmp_path / "same.img", url)
    assert document("inspect", url)["size"] == (tmp_path / "same.img").stat().st_size
    assert blockwright("fs", "cat", f"{url}#1", "/blob").stdout == (tree / "blob").read_bytes()
    (tmp_path / "new").write_text("new\n")
    blockwright("fs", "put", f"{url}#1", tmp_path / "new", "/etc/new")
    assert blockwright("fs", "cat", f"{url}#1", "/etc/new").stdout == b"new\n"
    assert b"holds a disk already" in blockwright("build", tree, "-o", url, code=2).stderr
    archive = subprocess.run(["tar", "czC", tree, "."], check=True, capture_output=True).stdout
    blockwright("build", "-", "-o", url, "--force", input=archive)
    blockwright("check", url)
    assert blockwright("fs", "cat", f"{url}#1", "/etc/motd").stdout == b"hello\n"
    blockwright("fs", "cat", f"{url}#1", "/etc/new", code=5)


def test_an_archive_in_a_bucket_is_a_source(bucket, tree, tmp_path):
    for option, name in (("c", "tree.tar"), ("cz", "tree.tgz")):
        put(bucket, name, subprocess.run(["tar", option, "-C", tree, "."], check=True, capture_output=True).stdout)
        blockwright("build", f"s3://bucket/{name}", "-o", tmp_path / f"{name}.img")
        assert blockwright("fs", "cat", f"{tmp_path / name}.img:1", "/blob").stdout == (tree / "blob").read_bytes()
        hidden = blockwright("convert", f"{tmp_path / name}.img", f"s3://bucket/{name}", "--force", code=2)
        assert b"is an object" in hidden.stderr
    assert b"no such object" in blockwright("build", "s3://bucket/no.tar", "-o", tmp_path / "no.img", code=5).stderr
    assert not (tmp_path / "no.img").exists()


def test_an_object_is_an_image_of_any_format(bucket, tmp_path):
    chance = random.Random(2)
    (tmp_path / "raw.img").write_bytes(chance.randbytes(5000) + bytes(1 << 20) + chance.randbytes(60536 - 5000))
    run(["qemu-img", "convert", "-O", "qcow2", tmp_path / "raw.img", tmp_path / "disk.qcow2"])
    for name in ("raw.img", "disk.qcow2"):
        put(bucket, f"images/{name}", (tmp_path / name).read_bytes())
        blockwright("compare", tmp_path / "raw.img", f"s3://bucket/images/{name}")
        blockwright("compare", tmp_path / "raw.img", f"{bucket}/bucket/images/{name}")
    assert (
        b"cannot be changed in place"
        in blockwright("disk", "table", "s3://bucket/images/raw.img", "gpt", "--force", code=2).stderr
    )


def test_a_bucket_is_served_and_a_dead_writer_is_taken_over_from(bucket, tmp_path):
    url, path = "s3://bucket/disks/served", tmp_path / "socket"
    (tmp_path / "disk.img").write_bytes(random.Random(3).randbytes(1 << 20) + bytes(3 << 20))
    blockwright("convert", tmp_path / "disk.img", url)
    server = subprocess.Popen([*COMMAND, "serve", url, "--socket", path])
    try:
        for _ in range(600):
            if path.exists():
                break
            time.sleep(0.1)
        uri = f"nbd+unix:///?socket={path}"
        run(["qemu-io", "-f", "raw", "-c", "write -P 7 2M 64k", "-c", "flush", "-c", "write -P 9 0 64k", uri])
        assert b"is open for writing by process" in blockwright("fs", "mkfs", url, "--force", code=1).stderr
        server.send_signal(signal.SIGKILL)
        server.wait()
    finally:
        server.kill()
        server.wait()
    assert b"is open for writing by process" in blockwright("disk", "table", url, "gpt", "--force", code=1).stderr
    blockwright("convert", url, tmp_path / "found.img")
    found, before = (tmp_path / "found.img").read_bytes(), (tmp_path / "disk.img").read_bytes()
    assert found[2 << 20 : (2 << 20) + 65536] == bytes([7]) * 65536, "what was flushed is there"
    assert found[:65536] in (before[:65536], bytes([9]) * 65536)
    blockwright("disk", "table", url, "gpt", "--force", "--force-unlocked")
    assert document("inspect", url)["table"]["kind"] == "gpt"


def test_what_is_not_there_and_who_may_not_is_one_line(bucket, tmp_path, monkeypatch):
    assert b"no such object" in blockwright("inspect", "s3://bucket/none", code=5).stderr
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    refused = blockwright("convert", tmp_path / "disk.img", f"{bucket}/bucket/x", code=2)
    assert b"takes no disk" in refused.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert b"s3://bucket/none" in blockwright("inspect", "s3://bucket/none", code=1).stderr


def layer_of(path, **files):
    """A tar archive of `files`, by gzip where it is called so."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path.read_bytes()


def test_a_key_is_a_source_wherever_one_is_taken(bucket, tmp_path, monkeypatch):
    """Without credentials, as a public bucket is read; a prefix, and several keys, are layers in order."""
    put(bucket, "images/one.tar", layer_of(tmp_path / "a.tar", f=b"one", g=b"g"))
    put(bucket, "layers/1.tgz", layer_of(tmp_path / "b.tgz", f=b"one", g=b"g"))
    put(bucket, "layers/2.tar", layer_of(tmp_path / "c.tar", f=b"two", **{".wh.g": b""}))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    blockwright("extract", "images/one.tar", tmp_path / "one", "--store", "s3://bucket")
    assert (tmp_path / "one/f").read_bytes() == b"one"
    monkeypatch.setenv("BLOCKWRIGHT_STORE", "s3://bucket")
    assert b"f" in blockwright("manifest", "images/one.tar").stdout
    blockwright("build", "layers/", "-o", tmp_path / "two.img", "--table", "none")
    assert blockwright("fs", "cat", tmp_path / "two.img", "/f").stdout == b"two"
    blockwright("fs", "cat", tmp_path / "two.img", "/g", code=5)
    blockwright("check", tmp_path / "two.img", "--against", "layers/1.tgz", "--against", "layers/2.tar")
    blockwright("build", "layers/1.tgz", tmp_path / "c.tar", "-o", tmp_path / "mixed.img", "--table", "none")
    assert blockwright("fs", "cat", tmp_path / "mixed.img", "/f").stdout == b"two"
    refused = blockwright("build", "layers/", "-o", tmp_path / "x.img", "--limit", "spool=100", code=1)
    assert b"to keep, found more" in refused.stderr
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/one.tar").write_bytes(b"")
    both = blockwright("extract", "images/one.tar", tmp_path / "y", code=2)
    assert b"./images/one.tar" in both.stderr
    assert b"s3://bucket/images/one.tar" in both.stderr
    assert b"no such prefix" in blockwright("build", "none/", "-o", tmp_path / "x.img", code=5).stderr
    assert not (tmp_path / "x.img").exists()


def test_a_key_and_a_prefix_become_volumes(bucket, tmp_path, monkeypatch):
    """Made once each; of a prefix whose layers are other ones by then, a new volume is made."""
    put(bucket, "images/one.tar", layer_of(tmp_path / "a.tar", f=b"one", g=b"g"))
    put(bucket, "layers/1.tgz", layer_of(tmp_path / "b.tgz", f=b"one", g=b"g"))
    put(bucket, "layers/2.tar", layer_of(tmp_path / "c.tar", f=b"two", **{".wh.g": b""}))
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BLOCKWRIGHT_STORE", "s3://bucket")

    def made(*line):
        found = blockwright("fetch-and-create", *line, "--scan", "off")
        assert found.stdout.count(b"\n") == 1
        return os.fsdecode(found.stdout.rstrip(b"\n"))

    one = made("images/one.tar")
    assert blockwright("fs", "cat", one, "/f").stdout == b"one"
    assert made("images/one.tar") == one
    monkeypatch.delenv("BLOCKWRIGHT_STORE")
    assert made("images/one.tar", "--store", "s3://bucket") == one
    two = made("layers/", "--store", "s3://bucket")
    assert blockwright("fs", "cat", two, "/f").stdout == b"two"
    blockwright("fs", "cat", two, "/g", code=5)
    assert made("s3://bucket/layers/") == two
    assert made("layers/1.tgz", "s3://bucket/layers/2.tar", "--store", "s3://bucket") == two, "the same layers"
    turned = made("s3://bucket/layers/2.tar", "s3://bucket/layers/1.tgz")
    assert blockwright("fs", "cat", turned, "/f").stdout == b"one"
    put(bucket, "layers/3.tar", layer_of(tmp_path / "d.tar", f=b"three"))
    three = made("s3://bucket/layers/")
    assert three != two
    assert blockwright("fs", "cat", three, "/f").stdout == b"three"
    kept = os.listdir(tmp_path / "home/images/objects")
    assert len(kept) == 4, "each version of each key once"


def test_container_images_in_a_bucket_are_told_by_content(bucket, tmp_path):
    made = Content()
    made.image(layer(b"f", b"of the image"), tag="1")
    folder = tmp_path / "layout"
    (folder / "blobs/sha256").mkdir(parents=True)
    for name, data in {**made.blobs, **{key: value[0] for key, value in made.manifests.items()}}.items():
        if name.startswith("sha256:"):
            (folder / "blobs/sha256" / name[7:]).write_bytes(data)
    data, media_type = made.manifests["1"]
    described = {"mediaType": media_type, "digest": digest(data), "size": len(data)}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    run(["tar", "cf", tmp_path / "oci.tar", "-C", folder, "blobs", "index.json", "oci-layout"])
    run(["skopeo", "copy", "-q", f"oci:{folder}", f"docker-archive:{tmp_path}/docker.tar:a:1"])
    for name in ("oci.tar", "docker.tar"):
        put(bucket, name, (tmp_path / name).read_bytes())
        blockwright("extract", name, tmp_path / f"{name}.files", "--store", "s3://bucket")
        assert (tmp_path / f"{name}.files/f").read_bytes() == b"of the image"


@pytest.mark.parametrize("command", [["inspect"], ["build", "-o", "x.img"], ["convert", "x.img"], ["fs", "ls"]])
def test_who_waits_for_a_store_hears_an_interruption(bucket, tmp_path, monkeypatch, command):
    with socket.socket() as silent:  # takes connections, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        line = [*COMMAND, *command[:1], "s3://bucket/some", *command[1:]]
        if command[0] == "fs":
            line = [*COMMAND, "fs", "ls", "s3://bucket/some", "/"]
        process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE)
        with silent.accept()[0] as asked:
            asked.recv(1)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, b"blockwright: interrupted\n")
    assert os.listdir(tmp_path) == []
