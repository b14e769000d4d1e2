"""Where images come from: registries, objects over a network that breaks off, directories, layouts."""

import gzip
import json
import os
import subprocess
import time

import pytest

from blockwright.errors import ArchiveRejected, BlockwrightError, NotFound, SourceChanged, UsageError
from blockwright.pipeline import manage, runner
from blockwright.pipeline.context import Context
from blockwright.pipeline.images import Images
from blockwright.pipeline.states import STEPS, Event, State
from tests.support.command import COMMAND, blockwright
from tests.support.faultproxy import Fault, faulty
from tests.support.oci import Image, docker
from tests.support.pipeline import (
    FILES,
    LAYERS,
    POOL,
    content,
    docker_archive,
    fetch,
    home,
    left,
    packed,
    proxy,
    request,
    volumes,
)
from tests.support.registry import Content, serving
from tests.support.tarmaker import archive, member
from tests.support.together import run_together

__all__ = ["home", "proxy"]
pytestmark = pytest.mark.unprivileged
MONDAY = "Mon, 19 Oct 2015 07:28:00 GMT"


def of(outcome):
    return content(f"volume:{POOL}/{outcome.run.volume}")


@pytest.fixture
def shelf():
    body = docker([*LAYERS, archive(member(b"big", b"b" * 900_000))])
    return {"/image.tar": (body, '"one"', MONDAY), "/root.tgz": (gzip.compress(LAYERS[0]), '"two"', MONDAY)}


def test_an_image_of_a_registry(home):
    pytest.importorskip("urllib3", reason="urllib3 is not installed")
    there = Content()
    there.image(*LAYERS, tag="1")
    with serving(there) as registry:
        reference = f"docker://{registry.host}/app:1"
        first = fetch(request(reference))
        asked = len(registry.requests)
        assert of(first) == FILES
        assert first.receipt(Event.DOWNLOAD).outputs["bytes"] > sum(map(len, LAYERS))
        assert fetch(request(reference)).fresh == ()
        assert len(registry.requests) == asked + 1  # what the tag means now, and nothing of it
        there.image(LAYERS[0], tag="1")
        second = fetch(request(reference))
        assert second.run.id != first.run.id
    with Images() as images:  # the registry is gone, and the blobs are here
        assert manage.sweep(images, blobs=True) == []
        manage.remove(images, images.find(second.run.id))
        assert manage.sweep(images) == []
        gone = manage.sweep(images, blobs=True)
        assert len(gone) == 2  # manifest and configuration: the layer is the other one's, too
        assert all(each.startswith("blob ") for each in gone)
        again = manage.activate(images, images.find(first.run.id), Context(images.home))
    assert os.path.exists(again.receipt(Event.ACTIVATE).outputs["path"])


@pytest.mark.parametrize("name", ["image.tar", "root.tgz"])
def test_an_object_is_fetched_once_for_all_that_breaks_off(home, proxy, name):
    faults = [Fault(cut=1 << 15)] * 3
    proxy.fault = lambda method, *_: faults.pop() if faults and method == "GET" else None
    first = fetch(request(f"{proxy.url}/{name}"))
    assert of(first).items() >= {b"/bin/tool": FILES[b"/bin/tool"]}.items()
    got = sum(method == "GET" for method, *_ in proxy.requests)
    assert fetch(request(f"{proxy.url}/{name}")).fresh == ()
    assert sum(method == "GET" for method, *_ in proxy.requests) == got
    objects = os.listdir(home / "images/objects")
    assert len(objects) == 1
    with Images() as images:
        manage.remove(images, images.list()[0])
    assert os.listdir(home / "images/objects") == []


def test_a_fetch_goes_on_where_a_dead_process_left_it(home, proxy, shelf):
    proxy.fault = lambda method, *_: Fault(slow=0.03) if method == "GET" else None
    wanted = request(f"{proxy.url}/image.tar")
    objects = home / "images/objects"
    arguments = ["fetch-and-create", wanted.reference, "--pool", POOL, "--scan", "off"]
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while not any(each.stat().st_size for each in objects.glob("*.part")):
            assert time.monotonic() < end
            time.sleep(0.02)
        process.kill()
    (part,) = objects.glob("*.part")
    there = part.stat().st_size
    assert there < len(shelf["/image.tar"][0])
    proxy.fault = None
    proxy.requests.clear()
    assert of(fetch(wanted)).items() >= FILES.items()
    ranges = [headers.get("range") for method, _, headers in proxy.requests if method == "GET"]
    assert ranges == [f"bytes={there}-"]


def test_an_object_that_changes_meanwhile_is_refused(home, proxy, shelf):
    def change(method, path, headers):
        if method == "GET":
            shelf["/image.tar"] = (docker(LAYERS[:1]), '"other"', MONDAY)

    proxy.fault = change
    with pytest.raises(SourceChanged):
        fetch(request(f"{proxy.url}/image.tar"))
    assert os.listdir(home / "images/objects") == []
    assert volumes() == []


def test_a_partition_of_a_disk_in_a_store(home, proxy, shelf, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(b"in a store")
    blockwright("build", tmp_path / "root", "-o", tmp_path / "disk.img")
    shelf["/disk.img"] = ((tmp_path / "disk.img").read_bytes(), '"disk"', MONDAY)
    wanted = request(f"{proxy.url}/disk.img#1")
    assert of(fetch(wanted))[b"/file"] == b"in a store"
    assert fetch(wanted).fresh == ()
    with Images() as images:
        manage.remove(images, images.list()[0])
    assert os.listdir(home / "images/objects") == []


def test_two_runs_fetch_the_same_object_once(home, proxy, shelf):
    proxy.fault = lambda method, *_: Fault(slow=0.001) if method == "GET" else None
    wanted = [request(f"{proxy.url}/image.tar", label=label) for label in ("one", "two", "three")]
    run_together([lambda each=each: fetch(each) for each in wanted])
    assert sum(method == "GET" for method, *_ in proxy.requests) == 1
    assert len(volumes()) == 3
    with Images() as images:
        first, *others = images.list()
        manage.remove(images, first)
        assert len(os.listdir(home / "images/objects")) == 1  # the others need it
        for each in others:
            manage.remove(images, each)
    assert os.listdir(home / "images/objects") == []
    assert os.listdir(home / "images/locks") == []


def test_what_passes_is_tried_again_and_counted(home, proxy, monkeypatch):
    monkeypatch.setattr("blockwright.store.download._TRIES", 1)
    faults = [Fault(status=503)] * 2
    proxy.fault = lambda method, *_: faults.pop() if faults and method == "GET" else None
    lines: list[str] = []
    with Images() as images:
        outcome = images.fetch(request(f"{proxy.url}/image.tar"), Context(images.home, tell=lines.append))
        tallies = {(each.operation, each.outcome): each.count for each in images.runs.journal.tallies()}
    assert of(outcome).items() >= FILES.items()
    assert len(lines) >= 1
    assert tallies["download", "retried"] == len(lines)


def test_a_store_that_never_answers_ends(home, proxy, monkeypatch):
    monkeypatch.setattr("blockwright.store.download._TRIES", 1)
    proxy.fault = lambda method, *_: Fault(status=503) if method == "GET" else None
    with pytest.raises(BlockwrightError):
        fetch(request(f"{proxy.url}/image.tar"))
    with Images() as images:
        (found,) = images.list()
        assert (found.state, found.failed) == ("failed", "download")
        tallies = {(each.operation, each.outcome): each.count for each in images.runs.journal.tallies()}
        assert tallies["download", "retried"] == runner.TRIES - 1
        proxy.fault = None
        assert tuple(manage.retry(images, found, Context(images.home)).fresh) == STEPS


@pytest.mark.parametrize("form", ["directory", "layout", "layers"])
def test_what_lies_here(home, tmp_path, form):
    folder = tmp_path / form
    if form == "directory":
        for path, data in FILES.items():
            (folder / os.fsdecode(path[1:])).parent.mkdir(parents=True, exist_ok=True)
            (folder / os.fsdecode(path[1:])).write_bytes(data)
    elif form == "layout":
        Image(LAYERS).seal().directory(folder)
    else:
        folder.mkdir()
        for number, each in enumerate(LAYERS):
            (folder / f"{number}.tar").write_bytes(each)
    wanted = request(str(folder), layers=form == "layers")
    first = fetch(wanted)
    assert of(first) == FILES
    assert fetch(wanted).fresh == ()
    if form == "directory":
        (folder / "more").write_bytes(b"more")
        assert of(fetch(wanted)) == FILES | {b"/more": b"more"}


@pytest.mark.parametrize("step", ["verify: read", "scan: done", "create: filling"])
@pytest.mark.parametrize("passes", [False, True])
def test_an_archive_that_is_written_to_meanwhile_is_refused(home, tmp_path, step, passes):
    """In place, so that whoever has it open reads the new bytes, which are as sound as the old ones."""
    path = packed(tmp_path) if passes else docker_archive(tmp_path)
    other = gzip.compress(LAYERS[1]) if passes else docker(LAYERS[:1])

    def write(name):
        if name == step:
            with open(path, "r+b") as file:
                file.write(other)
                file.truncate()

    with pytest.raises(BlockwrightError):
        fetch(request(path), write)
    assert volumes() == []
    assert left(home) == []


def test_a_file_system_in_a_partition(home, tmp_path, monkeypatch):
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "file").write_bytes(b"in a partition")
    monkeypatch.chdir(tmp_path)
    blockwright("build", "root", "-o", "disk.img")
    told = json.loads(blockwright("fetch-and-create", "disk.img:1", "--pool", POOL, "--json").stdout)
    monkeypatch.chdir("/")
    assert content(told["volume"])[b"/file"] == b"in a partition"
    again = blockwright("fetch-and-create", f"{tmp_path}/disk.img:1", "--pool", POOL, "--json")
    assert json.loads(again.stdout)["did"] == []


@pytest.mark.parametrize(
    ("reference", "error"),
    [("-", UsageError), ("/no/such/file", NotFound), ("mem:4M", UsageError), ("ftp://host/x", BlockwrightError)],
)
def test_what_cannot_be_meant(home, reference, error):
    with pytest.raises(error):
        fetch(request(reference))
    with Images() as images:
        assert images.list() == []


@pytest.mark.parametrize("cut", [700, 20_000])
def test_what_is_no_sound_archive_is_refused_before_anything_is_made(home, tmp_path, cut):
    (tmp_path / "cut.tar").write_bytes(docker(LAYERS)[:cut])
    with pytest.raises(BlockwrightError):
        fetch(request(str(tmp_path / "cut.tar")))
    assert volumes() == []
    assert left(home) == []
    with Images() as images:
        (found,) = images.list()
        assert (found.state, found.failed) == (State.FAILED.value, "verify")


def test_an_object_that_breaks_off_is_called_by_its_name(home):
    """And not by the file that it was fetched to."""
    pytest.importorskip("obstore", reason="obstore is not installed")
    when = "Mon, 19 Oct 2015 07:28:00 GMT"
    shelf = {
        "/cut.tar": (LAYERS[0][:9000], '"one"', when),
        "/cut.tgz": (gzip.compress(LAYERS[0])[:90], '"two"', when),
    }
    with faulty(shelf) as server:
        for name in ("cut.tar", "cut.tgz"):
            with pytest.raises(ArchiveRejected) as error:
                fetch(request(f"{server.url}/{name}"))
            assert str(error.value).startswith(f"{server.url}/{name}: ")
            assert str(home) not in str(error.value)
