import pytest

from blockwright.errors import UsageError
from blockwright.oci.reference import Reference, is_loopback, meant, meant_as_disk, parse_reference

pytestmark = pytest.mark.unprivileged
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker://host.example/app", Reference("host.example", "app", None, None)),
        ("docker://host.example:5000/team/app:1.0", Reference("host.example:5000", "team/app", "1.0", None)),
        ("docker://localhost/app:x", Reference("localhost", "app", "x", None)),
        (f"docker://[::1]:5000/a/b/c:t@{DIGEST}", Reference("[::1]:5000", "a/b/c", "t", DIGEST)),
        ("docker://h.example/a__b/c-d.e", Reference("h.example", "a__b/c-d.e", None, None)),
    ],
)
def test_references(text, expected):
    found = parse_reference(text)
    assert found == expected
    assert found.version == (expected.digest or expected.tag or "latest")
    assert parse_reference(str(found)).version == found.version


def test_short_names_have_the_registry_that_is_set(monkeypatch):
    monkeypatch.delenv("BLOCKWRIGHT_REGISTRY", raising=False)
    with pytest.raises(UsageError, match="BLOCKWRIGHT_REGISTRY"):
        parse_reference("docker://debian:12")
    monkeypatch.setenv("BLOCKWRIGHT_REGISTRY", "registry.example")
    assert parse_reference("docker://debian:12") == Reference("registry.example", "debian", "12", None)
    assert parse_reference("docker://library/debian").name == "library/debian"


@pytest.mark.parametrize(
    "text",
    [
        "docker://host.example/",
        "docker://host.example/App",
        "docker://host.example/a//b",
        "docker://host.example/../b",
        "docker://host.example/a:",
        "docker://host.example/a@sha256:abc",
        "docker://host.example/a?x=1",
        "docker://user@host.example/a",
        "docker://host.example/" + "a" * 600,
        "docker://host.example:99999999/a",
    ],
)
def test_what_is_no_reference(text):
    with pytest.raises(UsageError):
        parse_reference(text)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_this_machine_is_known_by_its_name(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["localhost.example.org", "127.example.org", "127.0.0.1.example.org", "localhosts", "10.0.0.1", "[::2]", ""],
)
def test_what_only_begins_like_this_machine_is_another(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("debian:12", "docker://HOST/debian:12 for a container image in a registry"),
        ("library/redis:7.2", "docker://HOST/library/redis:7.2 for a container image in a registry"),
        ("host.example/team/app:1", "docker://host.example/team/app:1 for a container image in a registry"),
        ("localhost:5000/app:1.0", "docker://localhost:5000/app:1.0 for a container image in a registry"),
        (f"app@{DIGEST}", f"docker://HOST/app@{DIGEST} for a container image in a registry"),
        ("oci:dir:tag", "dir --image tag for a container image in a layout or archive"),
        ("oci:a/dir", "a/dir for a container image in a layout or archive"),
        ("docker-archive:x.tar:app:1", "x.tar --image app:1 for a container image in a layout or archive"),
    ],
)
def test_what_other_programs_write_is_told_in_our_words(text, written, monkeypatch):
    monkeypatch.delenv("BLOCKWRIGHT_REGISTRY", raising=False)
    assert meant(text) == f": expected {written}"
    if written.startswith("docker://"):
        parse_reference(written.split()[0].replace("HOST", "registry.example"))
    monkeypatch.setenv("BLOCKWRIGHT_REGISTRY", "registry.example")
    assert "HOST" not in meant(text)


@pytest.mark.parametrize(
    "text",
    ["debian", "disk.img:2", "dir/disk.qcow2:1", "/root:2", "./a:1", "A:1", "a:", "a" * 600 + ":1", ""],
)
def test_what_may_be_a_path_as_well_is_left_alone(text):
    assert meant(text) == ""
    assert meant_as_disk(text) == ""


@pytest.mark.parametrize(
    "text",
    ["team/app", "disks.d/root", "host.io/app.img", "host.io/App", "localhost/app", "./host.io/app", "host.io"],
)
def test_without_a_tag_the_host_has_to_look_like_one(text):
    assert meant(text) == ""
    assert meant_as_disk(text) == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("debian:12", "docker://HOST/debian:12 -o disk.img"),
        ("library/debian:bookworm", "docker://HOST/library/debian:bookworm -o disk.img"),
        ("host.io/library/debian", "docker://host.io/library/debian -o disk.img"),
        ("host.example/team/app:1", "docker://host.example/team/app:1 -o disk.img"),
        (f"localhost:5000/app@{DIGEST}", f"docker://localhost:5000/app@{DIGEST} -o disk.img"),
        ("oci:a/dir", "a/dir -o disk.img"),
        ("oci:dir:tag", "dir -o disk.img --image tag"),
        ("docker-archive:x.tar:app:1", "x.tar -o disk.img --image app:1"),
    ],
)
def test_where_a_disk_is_expected_it_is_told_what_makes_one(text, line, monkeypatch):
    monkeypatch.delenv("BLOCKWRIGHT_REGISTRY", raising=False)
    assert meant_as_disk(text) == f": if a container image is meant, 'build {line}' makes a disk of it"
    if line.startswith("docker://"):
        parse_reference(line.split()[0].replace("HOST", "registry.example"))


@pytest.mark.parametrize(
    "text",
    [
        "volume:x",
        "volumes:x",
        "file:debian",
        "nbd:localhost",
        "mem:1m",
        "c:disk",
        "c:/disk:2",
        "C:\\disk.img",
        "nbd://host/disk",
        "s3://bucket/disk:1",
        "host.example/disk.img:2",
        "disks.d/disk.qcow2:1",
        "disk.img#snapshot=a:1",
        "disk:1M,2M",
        "sda:1",
        "dev/vdb1:2",
        "loop0p1:12",
        "nvme0n1p2:1",
        "disk2:1",
        "oci:-x:y",
        "oci:dir:-x",
        "oci:a dir",
        "oci:a\nb",
        "oci:dir:it's",
        "oci:" + "a" * 250,
    ],
)
def test_what_is_likelier_a_disk_or_cannot_be_told_is_left_alone(text):
    assert meant_as_disk(text) == ""


def test_what_is_there_is_what_it_is(tmp_path, monkeypatch):
    """A file of the name, and a file that is missing in a directory that is not."""
    monkeypatch.chdir(tmp_path)
    for text, there in (("debian:12", "debian:12"), ("images/root:2", "images"), ("host.io/root", "host.io")):
        assert meant_as_disk(text)
        (tmp_path / there).mkdir()
        assert meant_as_disk(text) == ""
    assert meant("host.io/root") == ""
    (tmp_path / "images" / "oci-layout").touch()
    assert "'build images -o disk.img --image tag'" in meant_as_disk("images:tag")
