"""Container images on disk: told by content, chosen, verified, and refused where two readers could differ."""

import gzip
import hashlib
import json
import sys
from pathlib import Path

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import ArchiveRejected, NotFound, Rejection, SourceChanged, UsageError
from blockwright.oci.choice import Choice
from blockwright.oci.manifest import MAX_DOCUMENT, parse_config, parse_index, parse_manifest
from blockwright.oci.platform import Platform, parse_platform
from blockwright.source import open_source
from blockwright.tree.node import Directory, File, walk
from blockwright.tree.spool import Spool
from tests.support.attacks import image_attacks
from tests.support.oci import CONFIG, INDEX, LAYER, MANIFEST, Image, docker, sha
from tests.support.tarmaker import archive, header, member
from tests.support.trees import content_bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LAYERS = [
    archive(header(b"d", kind=b"5"), member(b"d/a", b"1" * 5000), member(b"d/gone", b"2")),
    archive(member(b"d/a", b"3" * 700), header(b"d/.wh.gone"), member(b"b", b"4")),
]
EXPECTED = {b"": None, b"d": None, b"d/a": b"3" * 700, b"b": b"4"}
FORMS = ["directory", "archive", "docker", "docker-links"]


def bodies(root: Directory) -> dict[bytes, bytes | None]:
    return {path: content_bytes(node.content) if isinstance(node, File) else None for path, node in walk(root)}


def read(path: Path, choice: Choice | None = None) -> Directory:
    with open_source(path, choice=choice or Choice()) as source:
        root = source.read(None if source.addressable else Spool(MemoryDevice(0)).place)
        bodies(root)
        return root


def refused(path: Path, reason: Rejection, message: str | None = None) -> ArchiveRejected:
    with pytest.raises(ArchiveRejected, match=message) as caught:
        read(path)
    assert caught.value.reason is reason, str(caught.value)
    assert caught.value.source is not None
    return caught.value


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "image"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
def test_every_form(tmp_path: Path, form: str, compression: str) -> None:
    compress = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd.compress}[compression]
    image = Image(
        LAYERS, compress=compress, kind=LAYER + ("" if compression == "plain" else f"+{compression}")
    ).seal()
    if form == "directory":
        path = image.directory(tmp_path)
    elif form == "archive":
        path = written(tmp_path, image.archive())
    else:
        path = written(tmp_path, docker(LAYERS, links=form == "docker-links"))
    with open_source(path) as source:
        assert source.kind == "layers"
        assert source.addressable == (compression == "plain" or form.startswith("docker"))
        assert bodies(source.read(None if source.addressable else Spool(MemoryDevice(0)).place)) == EXPECTED


def test_only_what_survives_is_placed(tmp_path: Path) -> None:
    placed = []
    spool = Spool(MemoryDevice(0))

    def place(size, runs, fill):
        placed.append(size)
        return spool.place(size, runs, fill)

    with open_source(Image(LAYERS).seal().directory(tmp_path)) as source:
        source.read(place)
    assert placed == [700, 1]


def test_a_root_that_only_looks_like_one(tmp_path: Path) -> None:
    """A file system may have a manifest.json of its own."""
    data = archive(member(b"manifest.json", b'{"name": "app"}'), member(b"a" * 64, b"x"))
    assert sorted(read(written(tmp_path, data)).entries) == [b"a" * 64, b"manifest.json"]


def test_an_image_in_a_compressed_archive_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(Image(LAYERS).seal().archive()))
    assert bodies(read(path)) == EXPECTED


# -- which -----------------------------------------------------------------------------------------------------------


def test_platforms(tmp_path: Path) -> None:
    image = Image([archive(member(b"amd64"))])
    image.seal(name=None, platform={"os": "linux", "architecture": "amd64"})
    other = Image([archive(member(b"arm64"))])
    other.config["architecture"] = "arm64"
    other.seal()
    image.files |= {name: data for name, data in other.files.items() if name.startswith("blobs/")}
    image.index["manifests"] += [
        {**other.index["manifests"][0], "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        {**other.index["manifests"][0], "platform": {"os": "unknown", "architecture": "unknown"}},
    ]
    image.files["index.json"] = json.dumps(image.index).encode()
    path = image.directory(tmp_path)
    for text, name in (("linux/amd64", b"amd64"), ("linux/arm64", b"arm64"), ("linux/arm64/v8", b"arm64")):
        assert list(read(path, Choice(parse_platform(text))).entries) == [name]
    with pytest.raises(NotFound, match=r"expected linux/s390x, found linux/amd64, .*linux/arm64"):
        read(path, Choice(parse_platform("linux/s390x")))


def test_a_platform_that_only_the_configuration_says(tmp_path: Path) -> None:
    path = Image(LAYERS).seal().directory(tmp_path)
    assert bodies(read(path, Choice(parse_platform("linux/amd64")))) == EXPECTED
    with pytest.raises(NotFound, match="expected linux/arm64, found linux/amd64"):
        read(path, Choice(parse_platform("linux/arm64")))


def test_an_index_of_an_index(tmp_path: Path) -> None:
    image = Image(LAYERS).seal(platform={"os": "linux", "architecture": "riscv64"})
    inner = image.blob(image.files["index.json"], INDEX)
    image.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [inner, inner]}).encode()
    assert bodies(read(image.directory(tmp_path))) == EXPECTED


def test_names(tmp_path: Path) -> None:
    image = Image([archive(member(b"1"))]).seal(name="one")
    other = Image([archive(member(b"2"))]).seal(name="two")
    image.files |= {name: data for name, data in other.files.items() if name.startswith("blobs/")}
    image.index["manifests"] += other.index["manifests"]
    image.files["index.json"] = json.dumps(image.index).encode()
    path = image.directory(tmp_path)
    assert list(read(path, Choice(name="two")).entries) == [b"2"]
    for choice in (Choice(), Choice(name="three")):
        with pytest.raises(NotFound, match="expected"):
            read(path, choice)


@pytest.mark.parametrize("text", ["linux", "linux/", "Linux/amd64", "linux/amd64/v1/x", "linux/../x", ""])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UsageError, match="expected os/architecture"):
        parse_platform(text)


def test_variants() -> None:
    assert Platform("linux", "arm64").matches(Platform("linux", "arm64", "v8"))
    assert not Platform("linux", "arm", "v6").matches(Platform("linux", "arm"))


# -- verified --------------------------------------------------------------------------------------------------------


def test_every_blob_is_verified(tmp_path: Path) -> None:
    image = Image(LAYERS).seal()
    for number, (name, data) in enumerate(sorted(image.files.items())):
        if not name.startswith("blobs/"):
            continue
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 1
        path = tmp_path / str(number)
        path.mkdir()
        Image.directory(image, path)
        (path / name).write_bytes(changed)
        with pytest.raises(ArchiveRejected) as caught:
            read(path)
        assert caught.value.reason in (Rejection.DIGEST, Rejection.COMPRESSION, Rejection.MANIFEST)
        (path / name).write_bytes(data + b"x")
        refused(path, Rejection.DIGEST, "size: expected")


@pytest.mark.parametrize("number", [0, 1])
def test_diff_ids_are_verified(tmp_path: Path, number: int) -> None:
    image = Image(LAYERS)
    image.config["rootfs"]["diff_ids"][number] = sha(b"")
    error = refused(image.seal().directory(tmp_path), Rejection.DIGEST, "diff_id: expected sha256:e3b0c4")
    assert error.layer == number


def test_bytes_behind_a_layers_end_are_verified_too(tmp_path: Path) -> None:
    trailed = LAYERS[0] + bytes(100_000) + b"x"
    assert sorted(read(Image([trailed]).seal().directory(tmp_path)).entries) == [b"d"]


def test_docker_archives_are_verified(tmp_path: Path) -> None:
    data = docker(LAYERS)
    refused(written(tmp_path, data.replace(b"3" * 700, b"5" * 700)), Rejection.DIGEST, "diff_id")
    refused(written(tmp_path, data.replace(b'"amd64"', b'"amd46"')), Rejection.DIGEST)


def test_a_layer_that_changes_between_two_readings(tmp_path: Path) -> None:
    path = Image(LAYERS).seal().directory(tmp_path)
    with open_source(path) as source:
        blob = max((path / "blobs" / "sha256").iterdir(), key=lambda each: each.stat().st_size)

        def place(size, runs, fill):
            blob.write_bytes(blob.read_bytes() + b"x")
            raise SourceChanged("seen")

        with pytest.raises(SourceChanged):
            source.read(place)


# -- class 23: documents -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 64 + "\n",
        "md5:" + "a" * 32,
        "sha384:" + "a" * 128,
        "",
        None,
        7,
    ],
)
def test_class_23_digests(digest: object) -> None:
    descriptor = {"mediaType": MANIFEST, "digest": digest, "size": 1}
    with pytest.raises(ArchiveRejected) as caught:
        parse_index(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode())
    assert caught.value.reason is Rejection.DIGEST


GOOD = {"mediaType": CONFIG, "digest": sha(b""), "size": 0}


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (parse_manifest, {"schemaVersion": 2, "config": GOOD, "layers": [], "manifests": []}),
        (parse_manifest, {"schemaVersion": 2, "mediaType": INDEX, "config": GOOD, "layers": []}),
        (parse_manifest, {"schemaVersion": 1, "config": GOOD, "layers": []}),
        (parse_manifest, {"schemaVersion": 2, "config": GOOD}),
        (parse_manifest, {"schemaVersion": 2, "config": GOOD, "layers": [{**GOOD, "size": -1}]}),
        (parse_manifest, {"schemaVersion": 2, "config": GOOD, "layers": [{**GOOD, "size": 2**63}]}),
        (parse_manifest, {"schemaVersion": 2, "config": GOOD, "layers": [{**GOOD, "size": True}]}),
        (parse_manifest, {"schemaVersion": 2, "config": GOOD, "layers": [None]}),
        (parse_manifest, {"schemaVersion": 2, "config": GOOD, "layers": [GOOD] * 1025}),
        (parse_index, {"schemaVersion": 2, "manifests": [], "layers": []}),
        (parse_index, {"schemaVersion": 2, "mediaType": MANIFEST, "manifests": []}),
        (parse_index, {"schemaVersion": 2, "mediaType": [], "manifests": []}),
        (parse_index, []),
        (parse_index, None),
        (parse_config, {"rootfs": {"diff_ids": "x"}}),
        (parse_config, {}),
        (parse_index, b"{"),
        (parse_index, b"\xff"),
        (parse_index, b"[" * 100_000),
        (parse_index, b'{"schemaVersion": 2, "manifests": [], "manifests": []}'),
        (parse_index, b'{"schemaVersion": NaN}'),
        (parse_index, b'{"schemaVersion": ' + b"1" * 5000 + b"}"),
        (parse_index, b" " * (MAX_DOCUMENT + 1)),
    ],
)
def test_class_23_documents(parse, data) -> None:
    with pytest.raises(ArchiveRejected) as caught:
        parse(data if isinstance(data, bytes) else json.dumps(data).encode())
    assert caught.value.reason is Rejection.MANIFEST


def test_class_23_layers_of_another_type(tmp_path: Path) -> None:
    for number, kind in enumerate(["application/vnd.oci.image.layer.v1.tar+encrypted", "text/plain", MANIFEST]):
        path = tmp_path / str(number)
        path.mkdir()
        refused(Image(LAYERS, kind=kind).seal().directory(path), Rejection.MANIFEST, "layer: expected a tar archive")
    refused(Image(LAYERS, kind=LAYER).seal().directory(tmp_path), Rejection.MANIFEST, "compression: expected none")


def test_class_23_urls_are_not_looked_at(tmp_path: Path) -> None:
    image = Image(LAYERS)
    for layer in image.layers:
        layer["urls"] = ["file:///etc/passwd", "http://localhost:1/"]
    assert bodies(read(image.seal().directory(tmp_path))) == EXPECTED
    (tmp_path / "blobs" / "sha256" / image.layers[0]["digest"][7:]).unlink()
    refused(tmp_path, Rejection.MANIFEST, "expected a file of the image, found none")


def test_class_23_more_diff_ids_than_layers(tmp_path: Path) -> None:
    image = Image(LAYERS)
    image.config["rootfs"]["diff_ids"].pop()
    refused(image.seal().directory(tmp_path), Rejection.MANIFEST, "expected as many as diff_ids, 1, found 2")


# -- class 24: links in an archive of archives -----------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../../../../../etc/passwd", b"loop", b"gone"])
def test_class_24_links_lead_nowhere_else(tmp_path: Path, target: bytes) -> None:
    link = header(b"loop", kind=b"2", link=b"loop") + header(b"out.tar", kind=b"2", link=target)
    data = docker(LAYERS, patch={"Layers": ["out.tar", "out.tar"]})
    refused(written(tmp_path, link + data), Rejection.MANIFEST, "expected a file of the image, found none")


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../../../../../etc/passwd", "l\ud800"])
def test_class_24_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    refused(written(tmp_path, docker(LAYERS, patch={"Layers": [name, name]})), Rejection.MANIFEST)
    refused(written(tmp_path, docker(LAYERS, patch={"Config": name})), Rejection.MANIFEST)


def test_class_24_links_of_a_layout_lead_nowhere_else(tmp_path: Path) -> None:
    image = Image(LAYERS).seal()
    path = tmp_path / "layout"
    path.mkdir()
    image.directory(path)
    blob = path / "blobs" / "sha256" / image.layers[0]["digest"][7:]
    outside = tmp_path / "outside"
    blob.rename(outside)
    blob.symlink_to(outside)
    refused(path, Rejection.MANIFEST, "expected a file of the image, found none")


ATTACKS = {attack.id: attack for attack in image_attacks()}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(tmp_path: Path, name: str) -> None:
    attack = ATTACKS[name]
    path = written(tmp_path, attack.data)
    if isinstance(attack.outcome, Rejection):
        refused(path, attack.outcome)
    else:
        assert {each for each, _ in walk(read(path)) if each} == attack.outcome


def test_the_maker_makes_what_it_says() -> None:
    image = Image(LAYERS).seal()
    for name, data in image.files.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(data).hexdigest() == name[13:]
