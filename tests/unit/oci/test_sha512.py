"""SHA-512 stands wherever SHA-256 does: references, descriptors, layouts, the store of blobs, diff_ids, receipts."""

import gzip
import json
import os

import pytest

from blockwright.errors import ArchiveRejected, IntegrityError, UsageError
from blockwright.oci.blobs import BlobStore
from blockwright.oci.reference import parse_reference
from blockwright.pipeline import manage
from blockwright.pipeline.images import Images
from blockwright.pipeline.provenance import statement
from blockwright.pipeline.states import Event
from blockwright.source import open_source
from tests.support.pipeline import FILES, LAYERS, POOL, content, fetch, home, request
from tests.support.registry import CONFIG, LAYER, MANIFEST, Content, digest, digest512, serving

__all__ = ["home"]
pytestmark = pytest.mark.unprivileged


@pytest.fixture
def registry(home):
    pytest.importorskip("urllib3", reason="urllib3 is not installed")
    there = Content(digest512)
    there.image(*LAYERS, tag="1")
    with serving(there) as server:
        yield server


def mixed(there, **wrong):
    """Add an image of which each document and layer is referred to by another algorithm than the one before."""
    packed = gzip.compress(LAYERS[0])
    there.blobs |= {digest512(packed): packed, digest(LAYERS[1]): LAYERS[1]}
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest(LAYERS[0]), digest512(LAYERS[1])]},
    } | wrong
    described = json.dumps(config).encode()
    there.blobs[digest512(described)] = described
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest512(described), "size": len(described)},
        "layers": [
            {"mediaType": f"{LAYER}+gzip", "digest": digest512(packed), "size": len(packed)},
            {"mediaType": LAYER, "digest": digest(LAYERS[1]), "size": len(LAYERS[1])},
        ],
    }


def test_a_reference_by_it(registry):
    by = next(each for each in registry.content.manifests if each.startswith("sha512:"))
    text = f"docker://{registry.host}/app@{by}"
    assert str(parse_reference(text)) == text
    for wrong in (f"{text[:-1]}", f"{text}0", text.replace("sha512", "sha256"), text.replace("sha512", "sha384")):
        with pytest.raises(UsageError):
            parse_reference(wrong)


def test_an_image_becomes_a_volume_and_is_kept_by_it(home, registry):
    by = next(each for each in registry.content.manifests if each.startswith("sha512:"))
    first = fetch(request(f"docker://{registry.host}/app:1"))
    assert content(f"volume:{POOL}/{first.run.volume}") == FILES
    assert first.run.identity["digest"] == by
    blobs = home / "oci/blobs"
    assert sorted(os.listdir(blobs)) == ["sha256", "sha512"]
    assert os.listdir(blobs / "sha256") == []
    assert len(os.listdir(blobs / "sha512")) == 4
    asked = len(registry.requests)
    assert fetch(request(f"docker://{registry.host}/app@{by}")).fresh == ()
    assert len(registry.requests) == asked
    fetched = first.receipt(Event.DOWNLOAD).outputs
    assert all(each.startswith("sha512:") for each, _ in fetched["blobs"])
    with Images() as images:
        source, manifest, *_ = statement(images.find(first.run.id))["predicate"]["buildDefinition"][
            "resolvedDependencies"
        ]
        assert source["digest"] == manifest["digest"] == {"sha512": by[7:]}
        assert manage.sweep(images, blobs=True) == []
        (blobs / "sha512" / ("0" * 128)).write_bytes(b"of nobody")
        assert manage.sweep(images, blobs=True) == [f"blob sha512:{'0' * 128}: 9 bytes"]
        manage.remove(images, images.find(first.run.id))
        assert len(manage.sweep(images, blobs=True)) == 4
    assert os.listdir(blobs / "sha512") == []


def test_both_in_one_image(home, registry):
    document = mixed(registry.content)
    registry.content.manifest(document, tag="mixed")
    outcome = fetch(request(f"docker://{registry.host}/app:mixed"))
    assert content(f"volume:{POOL}/{outcome.run.volume}") == FILES
    assert len(os.listdir(home / "oci/blobs/sha256")) == 1


@pytest.mark.parametrize("which", ["config", 0])
def test_a_blob_that_has_another_one_is_refused(home, registry, which):
    document = mixed(registry.content)
    blob = document["config"] if which == "config" else document["layers"][which]
    data = registry.content.blobs[blob["digest"]]
    registry.content.blobs[blob["digest"]] = data[:-1] + bytes([data[-1] ^ 1])
    registry.content.manifest(document, tag="mixed")
    with pytest.raises(IntegrityError, match=f"expected {blob['digest']}"):
        fetch(request(f"docker://{registry.host}/app:mixed"))
    assert blob["digest"][7:] not in os.listdir(home / "oci/blobs/sha512")


def test_a_manifest_that_has_another_one_is_refused(home, registry):
    by = next(each for each in registry.content.manifests if each.startswith("sha512:"))
    data, kind = registry.content.manifests[by]
    registry.content.manifests[by] = data.replace(b'"schemaVersion": 2', b'"schemaVersion":  2'), kind
    with pytest.raises(IntegrityError, match=f"manifest: expected {by}, found sha512:"):
        fetch(request(f"docker://{registry.host}/app@{by}"))


def test_a_diff_id_that_does_not_hold_is_refused(home, registry):
    rootfs = {"type": "layers", "diff_ids": [digest(LAYERS[0]), digest512(b"another layer")]}
    registry.content.manifest(mixed(registry.content, rootfs=rootfs), tag="mixed")
    with pytest.raises(ArchiveRejected, match="diff_id: expected sha512:"):
        fetch(request(f"docker://{registry.host}/app:mixed"))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_layout_on_disk(tmp_path, damaged):
    there = Content(digest512)
    document = mixed(there)
    described = there.manifest(document)
    there.blobs[described["digest"]] = json.dumps(document).encode()
    if damaged:
        blob = document["layers"][0]["digest"]
        there.blobs[blob] = there.blobs[blob][:-1] + b"x"
    for name, data in there.blobs.items():
        path = tmp_path / "blobs" / name.replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    with open_source(tmp_path) as source:
        if damaged:
            with pytest.raises(ArchiveRejected):
                source.look()
        else:
            assert sorted(source.look().entries) == [b"bin", b"etc"]


@pytest.mark.parametrize("name", ["sha512:../../x", "sha384:" + "0" * 96, "sha512:" + "A" * 128, "0" * 64])
def test_what_is_no_digest_is_no_path(tmp_path, name):
    with pytest.raises(ArchiveRejected):
        BlobStore(str(tmp_path)).path(name)
