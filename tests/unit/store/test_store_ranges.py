"""A large object that a server gives slowly comes over several connections, of one version."""

import random

import pytest

from blockwright.errors import SourceChanged
from blockwright.store import cloud
from blockwright.store.cloud import open_bucket
from blockwright.store.download import download
from blockwright.tree import ranges
from tests.support.faultproxy import Fault, faulty

pytest.importorskip("obstore", reason="obstore is not installed")

DATA = random.Random(3).randbytes(3 << 20)


@pytest.fixture
def proxy(monkeypatch):
    monkeypatch.setattr(ranges, "WAIT_S", 0.1)
    monkeypatch.setattr(ranges, "LEAST", 1 << 20)
    monkeypatch.setattr(ranges, "_LARGEST", 256 << 10)
    monkeypatch.setattr(cloud, "_RETRIES", 1)
    with faulty({"/key": (DATA, '"one"', None)}) as proxy:
        proxy.fault = lambda method, *_: Fault(slow=0.001) if method == "GET" else None
        yield proxy


def fetched(proxy, start=0):
    objects = open_bucket(proxy.url)
    return b"".join(map(bytes, download(objects, objects.head("key"), start)))


def asked(proxy):
    return [headers.get("range") for method, _, headers in proxy.requests if method == "GET"]


@pytest.mark.parametrize("start", [0, 1_000_001])
def test_several_connections_bring_what_one_would(proxy, start):
    assert fetched(proxy, start) == DATA[start:]
    whole, *parts = asked(proxy)
    assert whole in (None, f"bytes={start}-")
    assert len(parts) >= 5
    assert all(each.rpartition("-")[2] for each in parts)
    conditions = [headers.get("if-match") for method, _, headers in proxy.requests if method == "GET"]
    assert set(conditions) == {'"one"'}, "each of the version that was there"


@pytest.mark.parametrize("start", [0, 1_000_001])
def test_a_server_that_answers_the_whole_for_a_range_sends_one_stream(proxy, start):
    proxy.fault = lambda method, _path, headers: (
        None if method != "GET" else Fault(whole=True, slow=0.001 if headers.get("Range") is None else 0)
    )
    assert fetched(proxy, start) == DATA[start:]
    assert asked(proxy)[0] == (f"bytes={start}-" if start else None), "all of it is asked for as all of it"
    assert asked(proxy).count(None) == 1, "it goes on, whatever else is asked for beside it"


def test_another_version_in_the_middle_is_refused(proxy):
    def fault(method, _path, _headers):
        if method != "GET":
            return None
        return Fault(slow=0.001, etag='"two"' if len(asked(proxy)) > 4 else None)

    proxy.fault = fault
    with pytest.raises(SourceChanged):
        fetched(proxy)
