"""A large blob of a registry that lets each connection have little comes over several, verified as a whole."""

import os
import random
import subprocess
import sys
import time

import pytest

pytest.importorskip("urllib3", reason="urllib3 is not installed")

from blockwright.errors import IntegrityError, NotFound
from blockwright.oci.blobs import BlobStore
from blockwright.oci.choice import Choice
from blockwright.oci.pull import pull
from blockwright.oci.reference import parse_reference
from blockwright.oci.registry import Registry
from blockwright.tree import ranges
from tests.support.registry import Content, digest, layer, serving

pytestmark = pytest.mark.unprivileged
LARGE = layer(b"large", random.Random(7).randbytes(5 << 20))


@pytest.fixture(autouse=True)
def sooner(monkeypatch):
    monkeypatch.setattr(ranges, "WAIT_S", 0.1)
    monkeypatch.setattr(ranges, "LEAST", 1 << 20)
    monkeypatch.setattr(ranges, "_LARGEST", 256 << 10)
    monkeypatch.setattr(ranges, "_PAUSE_S", 0.01)


@pytest.fixture
def registry():
    there = Content()
    there.image(LARGE, tag="1")
    with serving(there) as server:
        server.rate = 1 << 20
        yield server


def fetched(server, folder):
    reference = parse_reference(f"docker://{server.host}/app:1")
    store = BlobStore(str(folder))
    with Registry(reference) as registry:
        pull(registry, reference, store, Choice())
    with open(store.path(digest(LARGE)), "rb") as file:
        assert file.read() == LARGE


def asked(server):
    """The ranges that were asked for of the layer, None for all of it."""
    return [headers.get("Range") for path, headers in server.requests if path.endswith(digest(LARGE))]


def test_several_connections_bring_what_one_would(registry, tmp_path):
    fetched(registry, tmp_path)
    whole, *parts = asked(registry)
    assert whole is None
    assert len(parts) > 10
    assert all(each.rpartition("-")[2] for each in parts), "each has its end"
    assert registry.busiest > 2, "at the same time"


def test_a_registry_without_ranges_is_asked_once_for_one(registry, tmp_path):
    registry.ranges = False
    registry.rate = 4 << 20
    fetched(registry, tmp_path)
    whole, part = asked(registry)
    assert (whole, part.startswith("bytes=")) == (None, True)


def test_a_registry_that_lets_in_two_is_asked_by_no_more(registry, tmp_path):
    registry.most = 2
    fetched(registry, tmp_path)
    assert len(asked(registry)) > 10
    assert asked(registry).count(None) == 1


@pytest.mark.parametrize("told", ["bytes 0-9/10", "", "bytes 0-262143/262144"])
def test_another_range_than_was_asked_for_is_none(registry, tmp_path, told):
    def answer(handler):
        wanted = handler.headers.get("Range")
        if wanted is None or wanted.endswith("-"):
            return False
        registry.send(handler, 206, b"x" * 262144, Content_Range=told)
        return True

    registry.answer, registry.rate = answer, 4 << 20
    fetched(registry, tmp_path)
    assert len(asked(registry)) == 2


def test_a_registry_that_stops_to_answer_ranges_sends_one_stream(registry, tmp_path):
    def answer(handler):
        registry.ranges = len(asked(registry)) < 6
        return False

    registry.answer = answer
    fetched(registry, tmp_path)
    assert len(asked(registry)) > 6


def test_a_range_that_is_too_short_is_asked_for_again(registry, tmp_path):
    short = []

    def answer(handler):
        wanted = handler.headers.get("Range", "")
        if not wanted or wanted.endswith("-") or len(asked(registry)) < 6 or short:
            return False
        low, high = map(int, wanted.removeprefix("bytes=").split("-"))
        short.append(low)
        registry.send(handler, 206, LARGE[low:high], Content_Range=f"bytes {low}-{high}/{len(LARGE)}")
        return True

    registry.answer = answer
    fetched(registry, tmp_path)
    assert len([each for each in asked(registry) if each and each.startswith(f"bytes={short[0]}-")]) == 2


def test_wrong_bytes_in_one_range_make_no_blob(registry, tmp_path):
    def answer(handler):
        wanted = handler.headers.get("Range", "")
        if not wanted or wanted.endswith("-") or len(asked(registry)) < 6:
            return False
        low, high = map(int, wanted.removeprefix("bytes=").split("-"))
        registry.send(handler, 206, bytes(high + 1 - low), Content_Range=f"bytes {low}-{high}/{len(LARGE)}")
        return True

    registry.answer = answer
    with pytest.raises(IntegrityError, match=f"expected {digest(LARGE)}"):
        fetched(registry, tmp_path)
    assert [each for each in os.listdir(tmp_path / "blobs/sha256") if digest(LARGE)[7:] in each] == []


def test_a_blob_that_goes_away_meanwhile_ends_it(registry, tmp_path):
    def answer(handler):
        if not handler.headers.get("Range") or len(asked(registry)) < 6:
            return False
        registry.send(handler, 404)
        return True

    registry.answer = answer
    with pytest.raises(NotFound):
        fetched(registry, tmp_path)


def test_what_a_killed_process_left_is_gone_on_with(registry, tmp_path):
    code = f"""
from blockwright.tree import ranges
ranges.WAIT_S, ranges.LEAST, ranges._LARGEST = 0.1, 1 << 20, 256 << 10
from tests.unit.oci.test_pull_ranges import fetched
class server: host = {registry.host!r}
fetched(server, {str(tmp_path)!r})
"""
    registry.rate = 128 << 10
    part = tmp_path / "blobs/sha256" / f"{digest(LARGE)[7:]}.part"
    path = os.pathsep.join(each for each in sys.path if each)
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}) as process:
        end = time.monotonic() + 60
        while not part.exists() or part.stat().st_size < 300 << 10 or len(asked(registry)) < 4:
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    there = part.read_bytes()
    assert 0 < len(there) < len(LARGE)
    assert LARGE.startswith(there), "whatever came in which order"
    with serving(registry.content) as another:  # of which the dead one asked nothing
        fetched(another, tmp_path)
        first, *others = asked(another)
    assert first == f"bytes={len(there)}-"
    assert all(int(each.removeprefix("bytes=").partition("-")[0]) >= len(there) for each in others)
