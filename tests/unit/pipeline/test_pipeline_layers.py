"""Several references are one image: archives and images over one another, each fetched once for all who want it."""

import gzip
import json
import os
import subprocess
import time

import pytest

from blockwright.errors import ArchiveRejected, SourceChanged
from blockwright.pipeline import manage, objects, runner
from blockwright.pipeline.images import Images
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.provenance import statement
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event
from blockwright.source.identity import Identity, Kind
from blockwright.volume import open_pool
from tests.support.command import COMMAND
from tests.support.faultproxy import Fault
from tests.support.oci import Image, docker
from tests.support.pipeline import (
    FILES,
    LAYERS,
    POOL,
    command,
    content,
    fetch,
    home,
    left,
    parsed,
    proxy,
    request,
    volumes,
)
from tests.support.registry import Content, digest, serving
from tests.support.tarmaker import archive, member
from tests.support.together import run_together

__all__ = ["home", "proxy"]
pytestmark = pytest.mark.unprivileged
MONDAY = "Mon, 19 Oct 2015 07:28:00 GMT"
LOWEST = archive(member(b"low", b"l"), member(b"etc/link", b"l"))
BIG = archive(member(b"big", b"b" * 900_000))


@pytest.fixture
def shelf():
    return {
        "/base.tgz": (gzip.compress(LAYERS[0]), '"one"', MONDAY),
        "/app.tar": (LAYERS[1], '"two"', MONDAY),
        "/big.tar": (BIG, '"three"', MONDAY),
    }


def over(proxy, *names, **others):
    first, *more = (each if each.startswith("/") else f"{proxy.url}/{each}" for each in names)
    return request(first, over=tuple(more), **others)


def of(outcome):
    return content(f"volume:{POOL}/{outcome.run.volume}")


def gets(proxy):
    return [path for method, path, _ in proxy.requests if method == "GET"]


def test_one_reference_is_the_run_that_it_was_before_there_were_several():
    """By numbers that were taken down when a request had no more than one reference."""
    wanted = Request("s3://b/key.tar", "images")
    assert "over" not in wanted.document()
    assert wanted.run_of({"kind": "object", "etag": '"x"'}) == "f7d668273c80"
    assert Request.parse(json.loads(json.dumps(wanted.document()))) == wanted
    several = Request("s3://b/key.tar", "images", over=("s3://b/over.tar",))
    assert Request.parse(json.loads(json.dumps(several.document()))) == several
    layers = Identity(Kind.LAYERS, "a b", {"0": "sha256:aa", "1": "sha256:bb"})
    assert layers.digest == "sha256:44068965871e9e1a779e464b7c8906af7146903ad90e91101eae163bb8ba536e"


def test_keys_are_layers_in_order_and_fetched_once(home, proxy):
    wanted = over(proxy, "base.tgz", "app.tar")
    first = fetch(wanted)
    assert of(first) == FILES
    assert sorted(gets(proxy)) == ["/app.tar", "/base.tgz"]
    assert fetch(wanted).fresh == ()
    assert len(gets(proxy)) == 2
    other = fetch(over(proxy, "app.tar", "base.tgz"))
    assert other.run.id != first.run.id
    assert b"/gone" in of(other)
    assert len(gets(proxy)) == 2, "both are here"
    fetched = first.receipt(Event.DOWNLOAD).outputs
    assert fetched["references"] == list(wanted.references)
    assert fetched["bytes"] == len(gzip.compress(LAYERS[0])) + len(LAYERS[1])
    assert fetched["layers"][1]["digest"] == digest(LAYERS[1])
    assert fetched["layers"][1]["etag"] == '"two"'


def test_it_is_shown_and_proven_by_layer(home, proxy):
    wanted = over(proxy, "base.tgz", "app.tar")
    outcome = fetch(wanted)
    with Images() as images:
        found = images.find(wanted.named)
        assert found.id == outcome.run.id
        proven = statement(found)["predicate"]["buildDefinition"]
        assert Inputs.parse(images.runs.get(found.id).inputs(()).document()).request == wanted
    assert proven["externalParameters"] == {"references": list(wanted.references)}
    source, *layers = proven["resolvedDependencies"]
    assert "uri" not in source
    assert [each["uri"] for each in layers] == list(wanted.references)
    assert layers[1]["digest"] == {"sha256": digest(LAYERS[1])[7:]}
    assert outcome.run.volume.startswith("app.tar-")
    assert wanted.named in command("image", "show", outcome.run.id)[0]
    assert parsed("image", "ls")["images"][0]["reference"] == wanted.named


def test_files_and_keys_over_one_another_by_the_command(home, proxy, tmp_path, monkeypatch):
    (tmp_path / "base.tar").write_bytes(LAYERS[0])
    monkeypatch.chdir(tmp_path)
    line = ["fetch-and-create", "base.tar", "app.tar", "--store", proxy.url, "--pool", POOL, "--scan", "off"]
    told = parsed(*line)
    assert content(told["volume"]) == FILES
    monkeypatch.chdir("/")
    line[1] = f"{tmp_path}/base.tar"
    assert parsed(*line)["did"] == []
    (tmp_path / "base.tar").write_bytes(archive(member(b"bin/tool", b"new")))
    assert content(parsed(*line)["volume"])[b"/bin/tool"] == b"new"


@pytest.mark.parametrize("step", ["download: begun", "download: here", "verify: read", "create: filling"])
def test_a_file_among_layers_that_changes_meanwhile_is_refused(home, proxy, tmp_path, step):
    (tmp_path / "over.tar").write_bytes(LAYERS[1])

    def change(name):
        if name == step:
            (tmp_path / "over.tar").write_bytes(archive(member(b"other", b"o")))

    with pytest.raises(SourceChanged):
        fetch(over(proxy, "base.tgz", f"{tmp_path}/over.tar"), change)
    assert volumes() == []
    assert left(home) == []


def test_a_layer_on_this_host_that_is_not_what_was_fetched_is_refused(home, proxy):
    first = fetch(over(proxy, "base.tgz", "app.tar"))
    path = first.receipt(Event.DOWNLOAD).outputs["layers"][1]["path"]

    def damage(name):
        if name == "download: here":
            with open(path, "r+b") as file:
                file.seek(LAYERS[1].index(b"m" * 99))
                file.write(b"X")

    with pytest.raises(ArchiveRejected, match="digest: expected sha256"):
        fetch(over(proxy, "app.tar", "base.tgz"), damage)
    assert volumes() == [first.run.volume]


def is_begun(folder):
    """Whether one object is there as a whole, and another one in part."""
    names = os.listdir(folder) if folder.exists() else []
    parts = [each for each in names if each.endswith(objects.PART)]
    try:
        return (len(names), len(parts)) == (2, 1) and (folder / parts[0]).stat().st_size > 0
    except FileNotFoundError:
        return False  # it has become whole meanwhile


def test_layers_of_a_dead_process_are_gone_on_with(home, proxy):
    proxy.fault = lambda _method, path, _: Fault(slow=0.03) if path == "/big.tar" else None
    wanted = over(proxy, "base.tgz", "big.tar")
    arguments = ["fetch-and-create", *wanted.references, "--pool", POOL, "--scan", "off"]
    folder = home / "images/objects"
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while not is_begun(folder):
            assert time.monotonic() < end
            time.sleep(0.02)
        process.kill()
    (part,) = folder.glob("*.part")
    there = part.stat().st_size
    proxy.fault = None
    proxy.requests.clear()
    with Images() as images:
        assert manage.sweep(images, dry_run=True) != []
    assert of(fetch(wanted))[b"/big"] == b"b" * 900_000
    ranges = [(path, headers.get("range")) for method, path, headers in proxy.requests if method == "GET"]
    assert ranges == [("/big.tar", f"bytes={there}-")]


def test_several_at_once_wait_for_one_another_and_gc_knows_what_is_needed(home, proxy):
    proxy.fault = lambda method, *_: Fault(slow=0.001) if method == "GET" else None
    wanted = [
        over(proxy, "base.tgz", "big.tar"),
        over(proxy, "app.tar", "big.tar"),
        over(proxy, "big.tar", "base.tgz", "app.tar"),
        request(f"{proxy.url}/big.tar"),
    ]
    run_together([lambda each=each: fetch(each) for each in wanted])
    assert sorted(gets(proxy)) == ["/app.tar", "/base.tgz", "/big.tar"]
    folder = home / "images/objects"
    with Images() as images:
        assert manage.sweep(images) == []
        by_size = {each.reference: each for each in images.list()}
        manage.remove(images, by_size[wanted[0].named])
        manage.remove(images, by_size[wanted[2].named])
        assert len(os.listdir(folder)) == 2, "base.tgz is nobody's now"
        manage.remove(images, by_size[wanted[1].named])
        assert len(os.listdir(folder)) == 1
        manage.remove(images, by_size[wanted[3].named])
    assert os.listdir(folder) == []
    assert os.listdir(home / "images/locks") == []


def test_what_a_run_has_fetched_already_is_not_swept_before_it_has_all(home, proxy):
    swept: list[str] = []

    def look(name):
        if name == "download: fetched":
            with Images() as images:
                swept.extend(manage.sweep(images))

    outcome = fetch(over(proxy, "base.tgz", "app.tar"), look)
    assert of(outcome) == FILES
    assert swept == []


def test_a_layer_that_changes_meanwhile_is_refused_and_the_others_are_kept(home, proxy, shelf):
    folder = home / "images/objects"

    def change(method, path, _headers):
        if method == "GET" and path == "/big.tar":
            end = time.monotonic() + 60
            while not [each for each in os.listdir(folder) if not each.endswith(objects.PART)]:
                assert time.monotonic() < end, "app.tar comes meanwhile"
                time.sleep(0.02)
            shelf["/big.tar"] = (BIG[:-512], '"other"', MONDAY)

    proxy.fault = change
    with pytest.raises(SourceChanged):
        fetch(over(proxy, "big.tar", "app.tar"))
    assert [each for each in os.listdir(folder) if each.endswith(objects.PART)] == []
    assert len(os.listdir(folder)) == 1
    proxy.fault = None
    proxy.requests.clear()
    shelf["/big.tar"] = (BIG, '"again"', MONDAY)
    assert of(fetch(over(proxy, "big.tar", "app.tar")))[b"/big"] == b"b" * 900_000
    assert gets(proxy) == ["/big.tar"]
    with Images() as images:
        (failed,) = (each for each in images.list() if each.state == "failed")
        manage.remove(images, failed)
        assert manage.sweep(images) == []


def test_layers_that_break_off_are_tried_again(home, proxy, monkeypatch):
    monkeypatch.setattr("blockwright.store.download._BACKOFF_S", 0.01)
    monkeypatch.setattr(runner, "TRIES", 1)
    faults = {"/big.tar": [Fault(cut=1 << 15)] * 3, "/app.tar": [Fault(status=503)] * 4}
    proxy.fault = lambda method, path, _: faults[path].pop() if method == "GET" and faults.get(path) else None
    assert of(fetch(over(proxy, "big.tar", "app.tar"))).keys() == {b"/big", b"/bin/more"}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("directory", "is a directory: expected archives"),
        ("disk.img:1", "is a part of an image: expected archives"),
    ],
)
def test_what_is_no_layer_is_refused_before_anything_is_asked(home, tmp_path, monkeypatch, other, told):
    (tmp_path / "base.tar").write_bytes(LAYERS[0])
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    (tmp_path / "directory").mkdir()
    monkeypatch.chdir(tmp_path)
    for names in (["base.tar", other], [other, "base.tar"]):
        _, lines = command("fetch-and-create", *names, "--pool", POOL, code=2)
        assert len(lines) == 1
        assert told in lines[0]
    assert parsed("image", "ls")["images"] == []
    _, lines = command("fetch-and-create", "--layers", "directory", "base.tar", "--pool", POOL, code=2)
    assert "about one directory" in lines[0]


@pytest.fixture
def images(monkeypatch, tmp_path):
    pytest.importorskip("urllib3", reason="urllib3 is not installed")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    content = Content()
    content.image(LOWEST, LAYERS[0], tag="base")
    content.image(archive(member(b"bin/more", b"other"), member(b"opt/app", b"app")), tag="app")
    with serving(content) as registry:
        yield registry


def named(images, tag):
    return f"docker://{images.host}/app:{tag}"


def test_layers_go_over_an_image_in_a_registry_and_each_is_named(home, proxy, images, tmp_path):
    (tmp_path / "top.tar").write_bytes(archive(member(b"etc/.wh.link"), member(b"srv/x", b"x")))
    wanted = request(named(images, "base"), over=(f"{proxy.url}/app.tar", f"{tmp_path}/top.tar"))
    first = fetch(wanted)
    assert of(first) == {**FILES, b"/low": b"l", b"/srv/x": b"x"}
    asked = len(images.requests)
    assert fetch(wanted).fresh == ()
    assert [path for path, _ in images.requests[asked:]] == ["/v2/app/manifests/base"]
    manifest = images.content.digest(images.content.manifests["base"][0])
    fetched = first.receipt(Event.DOWNLOAD).outputs
    assert [each["kind"] for each in fetched["layers"]] == ["registry", "object", "file"]
    assert fetched["layers"][0]["manifest"]["digest"] == manifest
    with Images() as found:
        proven = statement(found.find(wanted.named))["predicate"]["buildDefinition"]
    assert proven["externalParameters"] == {"references": list(wanted.references)}
    _, about, *layers = proven["resolvedDependencies"]
    uri = f"docker://{images.host}/app"
    assert about == {"name": "manifest 1", "uri": uri, "digest": {"sha256": manifest[7:]}}
    assert [each["uri"] for each in layers] == [uri, uri, f"{proxy.url}/app.tar", f"file:{tmp_path}/top.tar"]
    assert layers[1]["digest"] == {"sha256": digest(LAYERS[0])[7:]}
    assert layers[2]["annotations"]["etag"] == '"two"'
    images.content.image(archive(member(b"bin/tool", b"new")), tag="base")
    assert fetch(wanted).run.id != first.run.id


def test_an_image_over_an_image_goes_on_without_the_registry(home, images):
    wanted = request(named(images, "base"), over=(named(images, "app"),))

    def stop(name):
        if name == "verify: read":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(wanted, stop)
    asked = len(images.requests)
    outcome = fetch(wanted)
    assert of(outcome)[b"/bin/more"] == b"other"
    assert [path for path, _ in images.requests[asked:]] == ["/v2/app/manifests/base", "/v2/app/manifests/app"]
    with Images() as found:
        assert manage.sweep(found, blobs=True) == []
        manage.remove(found, found.find(outcome.run.id))
        assert len(manage.sweep(found, blobs=True)) == 7, "two manifests, two configurations, three layers"


@pytest.mark.parametrize("removed", [0, 1])
def test_a_blob_that_is_gone_is_fetched_again(home, images, removed):
    wanted = request(named(images, "base"), over=(named(images, "app"),))
    outcome = fetch(wanted)
    layer = outcome.receipt(Event.DOWNLOAD).outputs["layers"][removed]["blobs"][-1][0]
    (home / "oci/blobs/sha256" / layer[7:]).unlink()
    with open_pool(POOL) as driver:
        driver.remove(outcome.run.volume)
    images.requests.clear()
    assert "download" in [each.value for each in fetch(wanted).fresh]
    assert f"/v2/app/blobs/{layer}" in [path for path, _ in images.requests]


def test_images_in_files_are_bases_too(home, tmp_path):
    (tmp_path / "top.tar").write_bytes(LAYERS[1])
    (tmp_path / "docker.tar").write_bytes(docker(LAYERS[:1]))
    (tmp_path / "oci.tgz").write_bytes(gzip.compress(Image(LAYERS[:1]).seal().archive()))
    (tmp_path / "layout").mkdir()
    Image(LAYERS[:1]).seal().directory(tmp_path / "layout")
    for name in ("docker.tar", "oci.tgz", "layout"):
        outcome = fetch(request(f"{tmp_path}/{name}", over=(f"{tmp_path}/top.tar",)))
        assert of(outcome) == FILES
    assert len(volumes()) == 3


def test_a_layout_among_several_that_changes_meanwhile_is_refused(home, tmp_path):
    (tmp_path / "top.tar").write_bytes(LAYERS[1])
    (tmp_path / "layout").mkdir()
    Image(LAYERS[:1]).seal().directory(tmp_path / "layout")

    def change(name):
        if name == "create: filling":
            (tmp_path / "layout/more").write_bytes(b"m")

    with pytest.raises(SourceChanged):
        fetch(request(f"{tmp_path}/layout", over=(f"{tmp_path}/top.tar",)), change)
    assert volumes() == []
