"""Images out of a registry, by a server that does what registries do, and what they should not."""

import base64
import json
import os
import threading

import pytest

from blockwright.errors import (
    ArchiveRejected,
    ConnectionLost,
    IntegrityError,
    NotFound,
    Refused,
    RemoteProtocolError,
)
from blockwright.oci import blobs
from blockwright.oci.choice import Choice
from blockwright.oci.platform import parse_platform
from blockwright.source import open_source
from tests.support.registry import INDEX, MANIFEST, Content, Registry, cut, digest, layer, serving

pytestmark = pytest.mark.unprivileged
BIG = os.urandom(3_000_000)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(blobs, "_BACKOFF_S", 0)
    return tmp_path / "home/oci/blobs/sha256"


@pytest.fixture
def content():
    made = Content()
    made.image(layer(b"big", BIG), layer(b"small", b"two"), tag="latest")
    return made


def names(registry, text="app", **choice):
    with open_source(f"docker://{registry.host}/{text}", choice=Choice(**choice)) as source:
        return sorted(source.read().entries)


def test_layers_are_fetched_once_and_merged(content, home):
    with serving(content) as registry:
        assert names(registry) == [b"big", b"small"]
        assert len(list(home.iterdir())) == 4
        before = len(registry.requests)
        assert names(registry) == [b"big", b"small"]
        assert [path for path, _ in registry.requests[before:]] == ["/v2/app/manifests/latest"]
        assert names(registry, f"app@{next(iter(content.manifests))}") == [b"big", b"small"]


def test_the_platform_chooses(content):
    images = {arch: content.image(layer(arch.encode(), b"x"), architecture=arch) for arch in ("amd64", "arm64")}
    content.index(images, "many")
    with serving(content) as registry:
        assert names(registry, "app:many", platform=parse_platform("linux/arm64")) == [b"arm64"]
        with pytest.raises(NotFound, match=r"linux/riscv64.*found"):
            names(registry, "app:many", platform=parse_platform("linux/riscv64"))


def test_a_token_is_bought_and_bought_again_when_it_is_too_old(content):
    with serving(content) as registry:
        registry.token = "first"
        expired = threading.Event()

        def expire(handler):
            if "/blobs/" in handler.path and not expired.is_set():
                expired.set()
                registry.token = "second"
            return False

        registry.answer = expire
        assert names(registry) == [b"big", b"small"]
        tokens = [path for path, _ in registry.requests if path.startswith("/token")]
        assert len(tokens) == 2
        assert "scope=repository%3Aapp%3Apull" in tokens[0]
        assert "service=test" in tokens[0]


def test_we_say_who_we_are_to_the_token_service_only(content, tmp_path):
    (tmp_path / "docker").mkdir()
    with serving(content) as registry:
        auth = base64.b64encode(b"me:secret").decode()
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
        registry.token, registry.user = "t", f"Basic {auth}"
        assert names(registry) == [b"big", b"small"]
        told = {path.partition("?")[0] for path, headers in registry.requests if "Basic" in str(headers)}
        assert told == {"/token"}


def test_who_may_not_is_told_so_without_the_secret(content, tmp_path):
    (tmp_path / "docker").mkdir()
    with serving(content) as registry:
        auth = base64.b64encode(b"me:secret").decode()
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
        registry.token, registry.user = "t", "Basic another"
        with pytest.raises(Refused) as error:
            names(registry)
        assert "secret" not in str(error.value)
        assert auth not in str(error.value)
        registry.answer = lambda handler: registry.send(handler, 401, WWW_Authenticate="Basic realm=x") or True
        with pytest.raises(Refused, match=r"401.*log in"):
            names(registry)
        basics = [headers.get("Authorization") for _, headers in registry.requests[-2:]]
        assert basics == [None, f"Basic {auth}"]


def test_a_redirect_to_another_host_is_not_told_who_we_are(content):
    with serving(content) as registry, Registry(content) as other:
        registry.token = "t"

        def away(handler):
            if "/blobs/" not in handler.path:
                return False
            registry.send(handler, 307, Location=f"http://{other.host}{handler.path}")
            return True

        registry.answer = away
        assert names(registry) == [b"big", b"small"]
        assert len(other.requests) == 3
        assert not any("Authorization" in headers for _, headers in other.requests)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://x/", None])
def test_redirects_that_lead_nowhere(content, target):
    with serving(content) as registry:
        registry.answer = lambda handler: registry.send(handler, 302, Location=target or handler.path) or True
        with pytest.raises(RemoteProtocolError, match="redirect"):
            names(registry)


def test_a_blob_that_breaks_off_goes_on_where_it_was(content):
    with serving(content) as registry:
        seen = []

        def break_off(handler):
            data = content.blobs.get(handler.path.rpartition("/")[2], b"")
            if len(data) < len(BIG) or len(seen) > 3:
                return False
            start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
            seen.append(start)
            said = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
            return cut(handler, data[start:], 500_000, 206 if start else 200, **said)

        registry.answer = break_off
        assert names(registry) == [b"big", b"small"]
        assert seen[0] == 0
        assert sorted(set(seen)) == seen


def test_a_server_without_ranges_is_read_from_the_start(content):
    with serving(content) as registry:
        registry.ranges = False
        once = []

        def break_off(handler):
            data = content.blobs.get(handler.path.rpartition("/")[2], b"")
            if len(data) < len(BIG) or once:
                return False
            once.append(True)
            return cut(handler, data, 1_000_000)

        registry.answer = break_off
        assert names(registry) == [b"big", b"small"]


def test_a_part_that_a_dead_process_left_is_used_if_it_is_right(content, home):
    name = next(key for key, data in content.blobs.items() if len(data) > len(BIG)).removeprefix("sha256:")
    home.mkdir(parents=True)
    with serving(content) as registry:
        (home / f"{name}.part").write_bytes(content.blobs[f"sha256:{name}"][:2_000_000])
        assert names(registry) == [b"big", b"small"]
        assert [headers.get("Range") for path, headers in registry.requests if name in path] == ["bytes=2000000-"]
        (home / name).unlink()
        (home / f"{name}.part").write_bytes(b"x" * 2_000_000)
        assert names(registry) == [b"big", b"small"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), IntegrityError),
        (lambda data: data + b"more", RemoteProtocolError),
        (lambda data: data[:-1], ConnectionLost),
        (lambda data: b"", ConnectionLost),
    ],
)
def test_a_blob_that_is_not_what_was_said(content, home, change, error):
    with serving(content) as registry:
        for key, data in content.blobs.items():
            content.blobs[key] = change(data) if len(data) > len(BIG) else data
        with pytest.raises(error):
            names(registry)
        name = next(key for key in content.blobs if len(content.blobs[key]) != 0).removeprefix("sha256:")
        assert not any(path.stat().st_size > len(BIG) for path in home.iterdir() if "." not in path.name), name


def test_a_manifest_that_is_not_what_was_said(content):
    wanted = next(iter(content.manifests))
    content.manifests[wanted] = b'{"schemaVersion":2}', MANIFEST
    with serving(content) as registry, pytest.raises(IntegrityError, match="manifest: expected sha256"):
        names(registry, f"app@{wanted}")


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"schemaVersion":2,"manifests":[],"layers":[]}', b"[" * 10_000])
def test_documents_that_do_not_hold(content, data):
    for media_type in (MANIFEST, INDEX):
        content.manifests["latest"] = data, media_type
        with serving(content) as registry, pytest.raises((ArchiveRejected, NotFound)):
            names(registry)


def test_an_index_within_itself_is_followed_so_far(content):
    inner = {"mediaType": INDEX, "digest": digest(b"x"), "size": 1}
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}
    with serving(content) as registry:

        def again(handler):
            # The digest is never right, so the second one is refused already.
            return registry.send(handler, 200, json.dumps(document).encode(), Content_Type=INDEX) or True

        registry.answer = again
        with pytest.raises(IntegrityError):
            names(registry)


@pytest.mark.parametrize(
    ("status", "error"), [(404, NotFound), (403, Refused), (500, ConnectionLost), (418, RemoteProtocolError)]
)
def test_what_a_registry_answers(content, status, error):
    with serving(content) as registry:
        message = b'{"errors":[{"code":"X","message":"as it says"}]}'
        registry.answer = lambda handler: registry.send(handler, status, message) or True
        with pytest.raises(error, match=f"{status}.*as it says"):
            names(registry)


def test_several_at_once_fetch_each_blob_once(content):
    with serving(content) as registry:
        found = []
        threads = [threading.Thread(target=lambda: found.append(names(registry))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [[b"big", b"small"]] * 6
        blobs = [path for path, _ in registry.requests if "/blobs/" in path]
        assert len(blobs) == len(set(blobs))
