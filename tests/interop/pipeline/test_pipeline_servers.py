"""References through the whole pipeline from the servers of others, honest and behind a proxy that is not.

Debian's registry, filled by skopeo with what umoci made; moto's S3, and rclone's where there is one that has it.
"""

import gzip
import os
import random
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from blockwright.errors import BlockwrightError, SourceChanged, StoreError
from blockwright.pipeline import runner
from blockwright.store import cloud
from tests.support.faultproxy import Fault, FaultProxy
from tests.support.pipeline import FILES, LAYERS, POOL, content, fetch, home, left, request, volumes
from tests.support.servers import docker_registry, moto_bucket, rclone_bucket, rclone_of_s3
from tests.support.tarmaker import archive, member
from tests.support.tools import run, tool

__all__ = ["home"]
BIG = random.Random(5).randbytes(1 << 20)
OVER = archive(member(b"big", BIG))
OBJECTS = {
    "base.tar.gz": gzip.compress(LAYERS[0]),
    "layers/1.tar": LAYERS[0],
    "layers/2.tar": LAYERS[1],
    "big.tar": OVER,
}
MADE = {b"/etc/os-release": b"ID=test\n", b"/big": BIG}


FAULTS = {
    "cut": lambda count: Fault(cut=100_000) if count <= 3 else None,
    "cut at once": lambda count: Fault(cut=0) if count <= 2 else None,
    "503": lambda count: Fault(status=503) if count <= 2 else None,
    "whole for a range": lambda count: Fault(cut=300_000) if count <= 1 else Fault(whole=True),
    "slow": lambda count: Fault(slow=0.0005),
    "longer": lambda count: Fault(longer=1000) if count <= 2 else None,
}


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "TRIES", 1)  # whoever fetches is to cope, and not the whole step once more
    monkeypatch.setattr(cloud, "_RETRIES", 1)
    monkeypatch.setattr("blockwright.store.download._BACKOFF_S", 0.01)
    monkeypatch.setattr("blockwright.oci.blobs._BACKOFF_S", 0.01)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory):
    """Debian's registry with what umoci made."""
    pytest.importorskip("urllib3", reason="urllib3 is not installed")
    folder = tmp_path_factory.mktemp("registry")
    (folder / "etc").mkdir()
    (folder / "etc/os-release").write_bytes(MADE[b"/etc/os-release"])
    (folder / "big").write_bytes(BIG)
    (folder / "gone").write_bytes(b"gone")
    layout = f"{folder}/layout"
    run([tool("umoci"), "init", "--layout", layout])
    run([tool("umoci"), "new", "--image", f"{layout}:one"])
    for source, target in (("etc", "/etc"), ("gone", "/gone"), ("big", "/big")):
        run([tool("umoci"), "insert", "--image", f"{layout}:one", folder / source, target])
    run([tool("umoci"), "insert", "--image", f"{layout}:one", "--whiteout", "/gone"])
    with docker_registry(folder) as host:
        target = f"docker://{host}/team/app:1"
        run(
            [
                tool("skopeo"),
                "--insecure-policy",
                "copy",
                "-q",
                "--dest-tls-verify=false",
                f"oci:{layout}:one",
                target,
            ]
        )
        yield f"http://{host}"


@pytest.fixture(scope="module", params=["moto", "rclone"])
def bucket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A server of S3 with OBJECTS in the bucket ``bucket``."""
    pytest.importorskip("obstore", reason="obstore is not installed")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("ACCESS_KEY_ID", "access-key"),
            ("SECRET_ACCESS_KEY", "secret"),
            ("REGION", "us-east-1"),
        ):
            patch.setenv(f"AWS_{name}", value)
        if request.param == "moto":
            pytest.importorskip("moto.server", reason="moto is not installed")
            yield stack.enter_context(moto_bucket(OBJECTS)), False
            return
        rclone = rclone_of_s3()
        yield stack.enter_context(rclone_bucket(rclone, tmp_path_factory.mktemp("rclone"), OBJECTS)), True


@pytest.fixture
def registry(pushed):
    with FaultProxy(pushed) as proxy:
        yield proxy


@pytest.fixture
def store(bucket, monkeypatch: pytest.MonkeyPatch):
    url, rclone = bucket
    with FaultProxy(url) as proxy:
        proxy.rclone = rclone
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        yield proxy


def bodies(proxy):
    """Requests for what an image is made of."""
    return [path for method, path, _ in proxy.requests if method == "GET" and ("/blobs/" in path or ".tar" in path)]


def failing(proxy, fault):
    """Have the proxy fail requests for large bodies, as ``fault`` says by their number."""
    count = 0

    def answer(method, path, headers):
        nonlocal count
        if method != "GET" or not ("/blobs/" in path or path.endswith(("big.tar", "base.tar.gz"))):
            return None
        count += 1
        return fault(count)

    proxy.fault = answer


def made_and_there(home, proxy, wanted, expected):
    """Have a volume, sound and with what was expected, that a second run finds without fetching anything."""
    outcome = fetch(wanted)
    assert content(f"volume:{POOL}/{outcome.run.volume}") == expected
    (file,) = (home.parent / "volumes").glob(f"{outcome.run.volume}*.raw")
    run([tool("e2fsck"), "-fn", file])
    proxy.requests.clear()
    assert fetch(wanted).fresh == ()
    assert bodies(proxy) == []
    assert left(home) == []
    assert list((home / "images/objects").glob("*.part")) == []
    return outcome


def reference(proxy):
    return f"docker://{proxy.url.removeprefix('http://')}/team/app:1"


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_registry(home, registry, fault):
    if fault is not None:
        failing(registry, FAULTS[fault])
    outcome = made_and_there(home, registry, request(reference(registry)), MADE)
    assert len(outcome.receipts[1].outputs["layers"]) == 4


@pytest.mark.parametrize("fault", [None, *FAULTS])
@pytest.mark.parametrize("keys", [("big.tar",), ("base.tar.gz", "big.tar")])
def test_a_bucket(home, store, keys, fault):
    first, *over = (f"s3://bucket/{each}" for each in keys)
    expected = {b"/big": BIG} if not over else {**content_of(LAYERS[0]), b"/big": BIG}
    if fault is not None:
        failing(store, FAULTS[fault])
    if fault == "whole for a range" and store.rclone:  # which answers so by itself, and signs what it is asked for
        failing(store, lambda count: Fault(cut=300_000) if count <= 1 else None)
    made_and_there(home, store, request(first, over=tuple(over)), expected)


def content_of(_layer: bytes) -> dict[bytes, bytes]:
    return {b"/etc/os-release": b"ID=test\n", b"/bin/tool": FILES[b"/bin/tool"], b"/gone": b"g"}


def test_a_prefix_of_a_bucket(home, store):
    made_and_there(home, store, request("s3://bucket/layers/"), FILES)
    assert len(os.listdir(home / "images/objects")) == 2


def test_a_key_of_a_bucket_over_an_image_in_a_registry(home, registry, store):
    failing(registry, FAULTS["cut"])
    wanted = request(reference(registry), over=("s3://bucket/layers/",))
    outcome = made_and_there(home, store, wanted, {**MADE, **FILES})
    assert [each["reference"] for each in outcome.receipts[1].outputs["layers"]] == [0, 0, 0, 0, 1, 2]
    before = len(bodies(registry))
    assert fetch(wanted).fresh == ()
    assert len(bodies(registry)) == before


@pytest.mark.parametrize("keys", [("big.tar",), ("base.tar.gz", "big.tar")])
def test_another_entity_tag_meanwhile_makes_nothing(home, store, keys):
    first, *over = (f"s3://bucket/{each}" for each in keys)
    failing(store, lambda count: Fault(cut=100_000) if count <= 1 else Fault(etag='"other"', blind=True))
    with pytest.raises((SourceChanged, StoreError)):
        fetch(request(first, over=tuple(over)))
    assert volumes() == []
    assert over or left(home) == [], "of several the others stay for the next attempt"
    store.fault = None
    outcome = fetch(request(first, over=tuple(over)))
    assert content(f"volume:{POOL}/{outcome.run.volume}")[b"/big"] == BIG
    assert left(home) == []


def test_a_registry_that_goes_away_is_one_line_and_a_retry(home, registry):
    failing(registry, lambda count: Fault(status=503) if count > 1 else None)
    with pytest.raises(BlockwrightError, match="503"):
        fetch(request(reference(registry)))
    assert volumes() == []
    registry.fault = None
    made_and_there(home, registry, request(reference(registry)), MADE)


def test_what_skopeo_finds_in_the_volume_is_the_image(home, pushed, tmp_path: Path):
    """Unpacked by umoci and read by debugfs: who makes images and who reads file systems agree on ours."""
    layout = tmp_path / "layout"
    source = f"docker://{pushed.removeprefix('http://')}/team/app:1"
    run([tool("skopeo"), "--insecure-policy", "copy", "-q", "--src-tls-verify=false", source, f"oci:{layout}:one"])
    run([tool("umoci"), "unpack", "--rootless", "--image", f"{layout}:one", tmp_path / "bundle"])
    outcome = fetch(request(source))
    (file,) = (home.parent / "volumes").glob(f"{outcome.run.volume}*.raw")
    rootfs = tmp_path / "bundle/rootfs"
    names = [path.relative_to(rootfs) for path in rootfs.rglob("*") if path.is_file()]
    assert len(names) == len(MADE)
    for name in names:
        out = subprocess.run([tool("debugfs"), "-R", f"cat /{name}", file], capture_output=True, check=True).stdout
        assert out == (rootfs / name).read_bytes()
