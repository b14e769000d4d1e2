"""What a registry, and who it leads to, may try: to learn who we are, to break us, to keep us."""

import base64
import json
import os
import threading
import time
from contextlib import contextmanager

import pytest

from blockwright.errors import (
    BlockwrightError,
    ConnectionLost,
    IntegrityError,
    NotFound,
    Refused,
    RemoteProtocolError,
)
from blockwright.oci import blobs
from blockwright.oci.blobs import BlobStore
from blockwright.oci.reference import parse_reference
from blockwright.oci.registry import Registry as Client
from blockwright.oci.registry import _pool
from blockwright.source import open_source
from tests.support.registry import INDEX, MANIFEST, Content, Registry, digest, layer, serving

pytestmark = pytest.mark.unprivileged
SECRET = base64.b64encode(b"me:secret").decode()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "docker").mkdir()
    return tmp_path / "home/oci/blobs/sha256"


@pytest.fixture
def content():
    made = Content()
    made.image(layer(b"one", b"1"), layer(b"two", b"2"), tag="latest")
    return made


def log_in(tmp_path, registry):
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {registry.host: {"auth": SECRET}}}))


def names(registry):
    with open_source(f"docker://{registry.host}/app") as source:
        return sorted(source.read().entries)


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_who_a_redirect_leads_to_may_not_ask_who_we_are(content, tmp_path, scheme):
    with serving(content) as registry, Registry(content) as other:
        log_in(tmp_path, registry)
        registry.answer = lambda handler: (
            "/blobs/" in handler.path
            and (registry.send(handler, 307, Location=f"http://{other.host}{handler.path}") or True)
        )
        challenge = f'{scheme} realm="http://{other.host}/token",service="x"'
        other.token = "t"
        other.answer = lambda handler: (
            not handler.path.startswith("/token") and (other.send(handler, 401, WWW_Authenticate=challenge) or True)
        )
        with pytest.raises(Refused, match="401"):
            names(registry)
        assert other.requests
        assert all("/blobs/" in path and "Authorization" not in headers for path, headers in other.requests)
        assert not any("Authorization" in headers for _, headers in registry.requests)


@pytest.mark.parametrize(
    "url",
    [
        "http://[",
        "http://127.0.0.1:99999/",
        "http://a..b/",
        "http://:1/",
        "//",
        "http://127.0.0.1:1/\x7f",
        "http://\xfc.\xfc:x/",
    ],
)
def test_addresses_that_are_none(content, url):
    with serving(content) as registry:
        registry.answer = lambda handler: registry.send(handler, 302, Location=url) or True
        with pytest.raises(BlockwrightError):
            names(registry)
        challenge = f'Bearer realm="{url}"'
        registry.answer = lambda handler: registry.send(handler, 401, WWW_Authenticate=challenge) or True
        with pytest.raises(BlockwrightError):
            names(registry)


def test_a_token_service_by_name_of_this_machine_is_no_other(content, tmp_path):
    with serving(content) as registry:
        log_in(tmp_path, registry)
        for realm in ("http://localhost.example.org/token", "http://127.example.org/token", "ftp://127.0.0.1/", ""):
            challenge = f'Bearer realm="{realm}"'
            registry.answer = lambda handler, said=challenge: (
                registry.send(handler, 401, WWW_Authenticate=said) or True
            )
            with pytest.raises(Refused, match="expected a token service with TLS"):
                names(registry)


@pytest.mark.parametrize("kind", [["x"], {"a": 1}, 5, [INDEX]])
def test_a_media_type_is_text(content, kind):
    for media_type in (MANIFEST, INDEX):
        document = {"schemaVersion": 2, "mediaType": kind, "manifests": [], "layers": []}
        content.manifests["latest"] = json.dumps(document).encode(), media_type
        with serving(content) as registry, pytest.raises(BlockwrightError):
            names(registry)


@pytest.mark.slow
def test_a_blob_that_fails_ends_those_that_are_being_fetched(content):
    endless, missing = layer(b"endless", os.urandom(100_000)), layer(b"missing", b"")
    content.image(endless, missing, tag="latest")
    del content.blobs[digest(missing)]
    over, left = threading.Event(), threading.Event()

    def trickle(handler):
        if digest(endless) not in handler.path:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(endless)))
        handler.end_headers()
        sent = 0
        try:
            while sent < len(endless) - 1 and not over.is_set():
                handler.wfile.write(endless[sent : sent + 1000])  # the last byte never comes
                sent = min(sent + 1000, len(endless) - 2000)
                handler.wfile.flush()
                time.sleep(0.001)
        except OSError:
            left.set()
        handler.close_connection = True
        return True

    with serving(content) as registry:
        registry.answer = trickle
        with pytest.raises(NotFound):
            names(registry)
        over.set()


def test_what_gives_a_byte_at_a_time_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(blobs, "_BACKOFF_S", 0)
    data = os.urandom(5000)
    asked = []

    @contextmanager
    def fetch(start):
        asked.append(start)
        yield start, iter([memoryview(data)[start : start + 1]])

    with pytest.raises(ConnectionLost, match="ended at"):
        BlobStore(str(tmp_path)).obtain(digest(data), len(data), fetch)
    assert len(asked) < 100


def test_who_says_to_be_busy_is_asked_later_each_time(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(blobs.time, "sleep", waited.append)

    def fetch(start):
        raise ConnectionLost("503")

    with pytest.raises(ConnectionLost):
        BlobStore(str(tmp_path)).obtain(digest(b"x"), 1, fetch)
    assert len(waited) == 4
    assert waited == sorted(set(waited))


def test_nothing_is_left_of_what_was_not_what_was_said(tmp_path):
    store = BlobStore(str(tmp_path))

    @contextmanager
    def fetch(start):
        yield start, iter([memoryview(b"other")[start:]])

    with pytest.raises(IntegrityError):
        store.obtain(digest(b"bytes"), 5, fetch)
    assert store.files() == {}
    with pytest.raises(KeyboardInterrupt):
        store.obtain(digest(b"bytes"), 5, interrupted)
    assert store.files() == {}


def interrupted(start):
    raise KeyboardInterrupt


def test_a_proxy_is_told_its_name_and_password_and_a_registry_here_is_asked_directly(content, monkeypatch):
    with serving(content) as registry, Registry(content) as proxy:
        monkeypatch.setenv("http_proxy", f"http://my%40self:secret@{proxy.host}")
        assert names(registry) == [b"one", b"two"]
        assert proxy.requests == []
        with Client(parse_reference("docker://registry.example/app"), plain=True) as client, pytest.raises(NotFound):
            client.manifest("latest")
        (path, headers), *_ = proxy.requests
        assert path == "http://registry.example/v2/app/manifests/latest"
        told = {name.lower(): value for name, value in headers.items()}["proxy-authorization"]
        assert base64.b64decode(told.removeprefix("Basic ")) == b"my@self:secret"


@pytest.mark.parametrize("proxy", ["socks5://me:secret@host:1080", "http://[:1", "me:secret@host:99999"])
def test_proxies_that_are_none(monkeypatch, proxy):
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(Refused, match="proxy") as error:
        _pool("https://registry.example", 1)
    assert "secret" not in str(error.value)


def test_the_password_of_an_address_is_in_no_message(content):
    with serving(content) as registry:
        where = "http://me:secret@127.0.0.1:1/x"
        registry.answer = lambda handler: registry.send(handler, 302, Location=where) or True
        with pytest.raises((ConnectionLost, RemoteProtocolError)) as error:
            names(registry)
        assert "secret" not in str(error.value)


def test_who_does_not_answer_is_named_once():
    with Client(parse_reference("docker://127.0.0.1:1/app")) as client, pytest.raises(ConnectionLost) as error:
        client.manifest("latest")
    assert str(error.value).startswith("127.0.0.1:1: Failed to establish a new connection")
