"""The client of stores against a server behind a proxy that answers wrongly."""

import os

import pytest

from blockwright.errors import IntegrityError, ObjectNotFound, PreconditionFailed, SourceChanged, StoreError
from blockwright.store import cloud
from blockwright.store.cloud import CloudObjects, open_bucket
from blockwright.store.download import download
from blockwright.store.objects import ObjectInfo, Version
from blockwright.store.plain import ObjectDevice
from tests.support.faultproxy import Fault, faulty
from tests.support.objects import MemoryObjects

pytest.importorskip("obstore", reason="obstore is not installed")
pytestmark = pytest.mark.unprivileged
DATA = os.urandom(700_000)
MONDAY, TUESDAY = "Mon, 19 Oct 2015 07:28:00 GMT", "Tue, 20 Oct 2015 07:28:00 GMT"


@pytest.fixture
def content():
    return {"/x": (DATA, '"one"', MONDAY)}


@pytest.fixture
def proxy(content, monkeypatch):
    monkeypatch.setattr(cloud, "_RETRIES", 1)
    with faulty(content) as proxy:
        yield proxy


def bodies(proxy):
    return [headers.get("range") for method, _, headers in proxy.requests if method == "GET"]


def every(fault):
    return lambda method, path, headers: fault if method == "GET" else None


def first(*faults):
    left = list(faults)
    return lambda method, path, headers: left.pop(0) if left and method == "GET" else None


def fetch(proxy, start=0):
    objects = open_bucket(proxy.url)
    return b"".join(download(objects, objects.head("x"), start, sleep=lambda _: None))


def test_a_download_is_whole_or_a_part(proxy):
    assert fetch(proxy) == DATA
    assert fetch(proxy, 600_000) == DATA[600_000:]
    assert fetch(proxy, len(DATA)) == b""


def test_a_download_that_breaks_off_goes_on_where_it_was(proxy):
    proxy.fault = first(*[Fault(cut=100_000)] * 4)
    assert fetch(proxy) == DATA
    starts = [int((each or "bytes=0-")[6:].split("-")[0]) for each in bodies(proxy)]
    assert starts == sorted(starts)
    assert len(set(starts)) >= 4, "each began behind what came before"


def test_what_became_another_version_meanwhile_is_not_spliced(proxy, content):
    other = os.urandom(len(DATA))

    def change(method, path, headers):
        if method == "GET":
            content["/x"] = content["/x"] if len(bodies(proxy)) == 1 else (other, '"two"', TUESDAY)
            return Fault(cut=100_000)
        return None

    proxy.fault = change
    with pytest.raises((SourceChanged, StoreError)):
        fetch(proxy)


@pytest.mark.parametrize("fault", [Fault(etag='"other"'), Fault(etag='"other"', blind=True)])
def test_a_server_that_does_not_look_at_conditions(proxy, fault):
    objects = open_bucket(proxy.url)
    info = objects.head("x")
    proxy.fault = every(fault)
    with pytest.raises(PreconditionFailed):
        objects.get("x", 0, 10, match=info.version)
    with pytest.raises(PreconditionFailed):
        next(objects.stream("x", 0, match=info.version))
    with ObjectDevice(objects, info) as device, pytest.raises(SourceChanged):
        device.read(0, 10)
    with pytest.raises(SourceChanged):
        list(download(objects, info))


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_an_object_without_a_strong_tag_is_pinned_by_what_there_is(proxy, content, tag):
    content["/x"] = DATA, tag, MONDAY
    objects = open_bucket(proxy.url)
    info = objects.head("x")
    with ObjectDevice(objects, info) as device:
        assert device.read(5, 10) == DATA[5:15]
        content["/x"] = DATA[::-1], tag and 'W/"other"', TUESDAY
        with pytest.raises(SourceChanged, match="is not what it was"):
            device.read(5, 10)


def test_the_whole_for_a_range_is_no_range(proxy):
    proxy.fault = every(Fault(whole=True))
    objects = open_bucket(proxy.url)
    with pytest.raises(StoreError):
        objects.get("x", 1000, 2000)
    assert b"".join(objects.stream("x", 1000)) == DATA[1000:], "a stream passes over what it did not ask for"


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault(cut=10), Fault(longer=5), Fault(status=503), Fault(status=500)])
def test_a_part_is_whole_or_an_error(proxy, fault, monkeypatch):
    monkeypatch.setattr(cloud, "_SILENCE_S", 1)
    objects = open_bucket(proxy.url)
    proxy.fault = first(fault)
    assert objects.get("x", 0, 1000) == DATA[:1000], "once is no reason to give up"
    proxy.fault = every(fault)
    with pytest.raises(StoreError) as error:
        objects.get("x", 0, 1000)
    assert not error.value.permanent
    assert "\n" not in str(error.value)


def test_a_slow_body_is_waited_for(proxy):
    proxy.fault = first(Fault(slow=0.01))
    assert open_bucket(proxy.url).get("x", 0, 20_000) == DATA[:20_000]


def test_what_is_not_there(proxy):
    with pytest.raises(ObjectNotFound):
        open_bucket(proxy.url).head("none")


def test_all_of_several_are_deleted_though_one_was_not_there(tmp_path):
    from obstore.store import LocalStore

    objects = CloudObjects(LocalStore(tmp_path), "file://store")
    for number in range(40):
        objects.put(f"k/{number}", b"x", only_new=True)
    objects.delete(["k/none", *(f"k/{number}" for number in range(40))])
    assert list((tmp_path / "k").iterdir()) == []
    objects.delete(["k/none"])


class Broken(MemoryObjects):
    """Objects whose streams give ``each`` bytes, and then break off or end."""

    def __init__(self, each, *, ends=False):
        super().__init__()
        self.each, self.ends = each, ends

    def stream(self, key, start, *, match=None):
        for piece in super().stream(key, start, match=match):
            yield piece[: self.each]
            break
        if not self.ends:
            raise StoreError("broke off", permanent=False)


@pytest.mark.parametrize(("each", "ends", "most"), [(0, False, 10), (0, True, 10), (1, False, 100), (1, True, 100)])
def test_what_brings_little_each_time_is_given_up(each, ends, most):
    objects = Broken(each, ends=ends)
    objects.put("x", bytes(10_000))
    waited = []
    with pytest.raises(StoreError):
        list(download(objects, objects.head("x"), sleep=waited.append))
    assert len(objects.calls) < most
    assert waited == sorted(waited)


@pytest.mark.parametrize("ends", [False, True])
def test_pieces_of_many_streams_are_one_object(ends):
    objects = Broken(900, ends=ends)
    objects.put("x", DATA[:50_000])
    assert b"".join(download(objects, objects.head("x"), 3)) == DATA[3:50_000]


def test_more_than_was_said_is_refused():
    objects = MemoryObjects()
    version = objects.put("x", bytes(5000))
    with pytest.raises(IntegrityError, match="found more"):
        list(download(objects, ObjectInfo("x", 4500, version)))
    with pytest.raises(SourceChanged):
        list(download(objects, ObjectInfo("x", 4500, Version('"none"'))))
