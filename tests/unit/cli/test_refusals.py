"""What commands refuse: one line that says what was expected, and nothing begun."""

import tarfile
from pathlib import Path

import pytest

from blockwright.attach.partitions import table_of
from blockwright.check import repair
from blockwright.errors import NotFound
from blockwright.resolve import locate, open_device
from blockwright.source import open_source
from tests.support.inprocess import blockwright


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("refused")
    (made / "files").mkdir()
    (made / "layout").mkdir()
    (made / "layout" / "oci-layout").write_text("{}")
    for name in ("a", "b"):
        (made / "files" / name).write_text("hi")
    with tarfile.open(made / "a.tgz", "w:gz") as archive:
        archive.add(made / "files" / "a", "a")
    for name, text in {
        "list": 'size = ["1G"]',
        "single": 'exclude = "x"',
        "dict": "label = {}",
        "size": 'size = "wide"',
        "nul": 'label = "a\\u0000b"',
    }.items():
        (made / f"{name}.toml").write_text(text + "\n")
    blockwright("build", made / "files", "-o", made / "disk.img", "--size", "16M")
    blockwright("build", made / "files", "-o", made / "bare.ext4", "--table", "none", "--size", "8M")
    blockwright("disk", "create", made / "top.qcow2", "8M")
    blockwright("disk", "create", made / "mbr.img", "8M", "--table", "mbr")
    return made


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("disk rebase top.qcow2", 2, "rebase: expected --backing FILE or --no-backing"),
        ("disk rebase top.qcow2 --backing x --no-backing", 2, "rebase: expected --backing FILE or --no-backing"),
        ("boot install disk.img uki --initrd x", 2, "boot: --initrd is of use with --kernel only"),
        ("build files", 2, "build: expected an output: -o disk.img"),
        (
            "build debian:12 -o x",
            5,
            "debian:12: no such file or directory: expected docker://HOST/debian:12 for a container image",
        ),
        (
            "build files:12 -o x",
            2,
            "files:12: files is a directory, of which there are no parts: expected docker://HOST/f",
        ),
        ("build files.d:12 -o x", 5, "files.d: no such file\n"),
        (
            "build oci:dir:tag -o x",
            5,
            "oci:dir:tag: no such file or directory: expected dir --image tag for a",
        ),
        (
            "build layout:tag -o x",
            5,
            "layout:tag: no such file or directory: expected layout --image tag for a container image in a layout",
        ),
        (
            "build layout:1 -o x",
            2,
            "layout:1: layout is a directory, of which there are no parts: expected layout --image 1 for a",
        ),
        (
            "build a.tgz debian:12 -o x",
            5,
            "debian:12: no such file: expected docker://HOST/debian:12 for a container",
        ),
        ("build a.tgz disk.img:1 -o x", 2, "disk.img:1: is a part of an image: expected archives and"),
        ("build a.tgz none.img:1 -o x", 2, "none.img:1: is a part of an image: expected archives and"),
        ("build files -o volume:v", 2, "volume:v: expected a file, found a volume: 'volume create' makes one"),
        ("disk create volume:v 1M", 2, "volume:v: expected a file, found a volume: 'volume create' makes one"),
        ("build oci:dir:tag a.tgz -o x", 5, "oci:dir:tag: no such file: expected dir --image tag for a"),
        (
            "build -f debian:12 -o x",
            5,
            "debian:12: no such file: expected a definition, and as SOURCE docker://HOST/debian:12",
        ),
        (
            "build -f oci:dir:tag -o x",
            5,
            "oci:dir:tag: no such file: expected a definition, and as SOURCE dir --image",
        ),
        ("build -f x.toml -o x", 5, "x.toml: no such file\n"),
        (
            "fetch-and-create debian:12",
            5,
            "debian:12: no such file or directory: expected docker://HOST/debian:12",
        ),
        ("extract debian:12 out", 5, "debian:12: no such file or directory: expected docker://HOST/debian:12"),
        ("build files -o x --dry-run --verify", 2, "build: expected --dry-run or --verify, found both"),
        ("build files -o - --verify", 2, "build: --verify: standard output cannot be read again: expected a name"),
        (
            "build - -o x --verify",
            2,
            "build: --verify: what passes once cannot be read again: expected SOURCE in files",
        ),
        (
            "build files -o x --partition colour=red",
            2,
            "--partition: colour: is not known: expected one of alignment,",
        ),
        ("build -f list.toml files -o x", 1, "list.toml:1: size: expected a number from 0 on, found a list"),
        ("build -f single.toml files -o x", 1, "single.toml:1: exclude: expected a list, found one value"),
        ("build -f dict.toml files -o x", 1, "dict.toml:1: label: expected a text, found a table"),
        (
            "build -f size.toml files -o x",
            1,
            "size.toml:1: size: size 'wide': expected a number with an optional unit",
        ),
        ("build -f nul.toml files -o x", 1, "nul.toml:1: label: expected a text, found 'a\\x00b'"),
        ("check disk.img --repair --against files", 2, "check: expected --repair or --against, found both"),
        (
            "check disk.img --ignore mtime",
            2,
            "check: --ignore, --added and what changes a tree are of use with --against only",
        ),
        (
            "convert disk.img y.img --discard",
            2,
            "y.img: expected a block device, which alone is discarded, left or zeroed",
        ),
        ("convert - y.img --partition 1", 2, "--partition: expected an image with a name, found standard input"),
        (
            "convert disk.img y.qcow2 --skip-holes",
            2,
            "--discard, --skip-holes and --zero-rest are for whole raw copies to block devices",
        ),
        ("disk create new.qcow2 1G --backing-format raw", 2, "--backing-format: expected --backing FILE"),
        ("disk create new.img", 2, "size: expected one, such as 20G, or --backing FILE"),
        (
            "disk create new.qcow2 --backing disk.img --table gpt",
            2,
            "--backing: is for qcow2 images, whose table is that of the backing file",
        ),
        ("disk table disk.img --convert", 2, "table: expected the kind of table to make, gpt or mbr"),
        (
            "disk table mbr.img mbr --guid 7c60fa12-c584-8f72-84f4-cb52500e96d2",
            2,
            "table: a GPT has a --guid, and an MBR a --signature",
        ),
        ("disk hybrid disk.img", 2, "hybrid: expected partitions, or --clear"),
        ("disk hybrid disk.img one", 2, "hybrid: expected N or N:TYPE, found 'one'"),
        (
            "disk hybrid disk.img 1:0c --active 3",
            2,
            "hybrid: --active 3: expected one of the partitions that are told of",
        ),
        ("disk set disk.img --name x", 2, "disk.img: expected the number of a partition"),
        ("extract disk.img:1 out --owner nobody", 2, "--owner: expected keep, me or USER:GROUP, found 'nobody'"),
        (
            "fetch-and-create files --scanner-option colour=red",
            2,
            "--scanner-option: expected NAME=VALUE of a known name, found 'colour=red'",
        ),
        (
            "fetch-and-create files --scanner-option timeout=soon",
            2,
            "--scanner-option timeout: expected seconds above 0, found 'soon'",
        ),
        (
            "fetch-and-create files --temporal localhost:1 --on a --verify",
            2,
            "--thin and --verify are of this machine: expected neither with --temporal",
        ),
        ("fs mv bare.ext4 /a /b /c", 2, "/c: expected a directory to move 2 files into"),
        (
            "fs write bare.ext4 /a --append --offset 5",
            2,
            "--append and --offset both say where to write: use one of them",
        ),
        ("fs setxattr bare.ext4 /a user.x", 2, "setxattr: expected a value, or --remove"),
        ("fs setxattr bare.ext4 /a user.x zz --hex", 2, "value: expected hexadecimal digits, found 'zz'"),
        ("fs put bare.ext4 files /x", 2, "files: is a directory; -r copies it with everything below it"),
        ("fs put bare.ext4 files/a files/b /none", 2, "/none: expected a directory to put 2 files into"),
        (
            "fs mkfs new.ext4 --size 4M --source a.tgz",
            2,
            "a.tgz: expected a directory or a plain tar archive: build takes compressed ones",
        ),
        (
            "fs touch bare.ext4 /a -d yesterday",
            2,
            "time: expected 2024-02-29T12:00:00 or @SECONDS, found 'yesterday'",
        ),
        ("fs chmod bare.ext4 999 /a", 2, "mode: expected octal digits such as 644, found '999'"),
        ("fs chown bare.ext4 root /a", 2, "owner: expected numbers, as in 0:0, found 'root'"),
        ("image scan --scanner none", 2, "--scanner none: expected a scanner that looks packages up"),
        (
            "loopless disk.img",
            2,
            "loopless: expected FILE[:PART] and a verb, or version: see 'blockwright loopless --help'",
        ),
        ("loopless disk.img fly", 2, "loopless: expected one of create, create-vmdk, create-gpt, create-part,"),
        (
            "loopless disk.img set-bootable true",
            2,
            "disk.img: expected the number of a partition behind the name, such as disk.img:1",
        ),
        ("loopless disk.img:1 set-bootable maybe", 2, "set-bootable: expected true or false, found 'maybe'"),
        ("loopless disk.img:1 write a rwx", 2, "mode: expected an octal number, found 'rwx'"),
        (
            "loopless disk.img:1 write a b 644",
            2,
            "loopless: expected FILE[:PART] write PATH MODE, found 3 arguments behind write",
        ),
        ("loopless new.img create large", 2, "size 'large': expected a number with an optional unit"),
    ],
)
def test_what_is_refused_is_said_in_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, code: int, message: str
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(folder / "home"))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    done = blockwright(*line.split(), code=code)
    assert done.stderr.decode().startswith(f"blockwright: {message}")
    assert done.stdout == b""
    left = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "home"}
    assert left == {name: time for name, time in before.items() if name != "home"}


def test_what_is_no_file_and_there_is_not_said_to_be_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block device in the working directory, as those of /dev are there: what lacks is its partition."""
    monkeypatch.chdir(folder)
    (folder / "sda").symlink_to("disk.img")
    monkeypatch.setattr("os.path.isfile", lambda _path: False)
    with pytest.raises(NotFound, match=r"^sda: partition 9: is not in the table"):
        open_source("sda:9")


def test_a_file_may_be_called_as_a_volume_where_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blockwright("disk", "create", "./volume:v", "1M")
    blockwright("disk", "create", "volume:v", "2M", "--force")
    assert (tmp_path / "volume:v").stat().st_size == 2 << 20


SCHEMES = "expected a path, file:, mem:, null:, volume:, nbd://, s3://, gs://, az:// or http(s)://, found the scheme"
TAKE_DISKS = [
    "inspect {}",
    "inspect {} --json",
    "check {}",
    "compare disk.img {}",
    "convert {} out.qcow2",
    "serve {} --socket s",
    "fs ls {}",
    "fs get {} /etc/os-release out",
    "fs resize {} 5G",
    "disk table {}",
    "disk resize {} 10G",
    "disk snapshot list {}",
    "boot install {} grub",
    "verity verify {} x 00",
    "nbd copy {} out",
]


@pytest.mark.parametrize("command", TAKE_DISKS)
@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("debian:12", "build docker://HOST/debian:12 -o disk.img"),
        ("debian:bookworm", "build docker://HOST/debian:bookworm -o disk.img"),
        ("host.io/library/debian", "build docker://host.io/library/debian -o disk.img"),
        ("oci:dir:tag", "build dir -o disk.img --image tag"),
    ],
)
def test_a_container_image_is_no_disk_and_it_is_told_what_makes_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str, made: str
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("BLOCKWRIGHT_REGISTRY", raising=False)
    said = blockwright(*command.format(name).split(), code=5).stderr.decode()
    assert f"{name}: no such file: if a container image is meant, '{made}' makes a disk of it" in said
    assert said.count("\n") == 1


def test_where_it_is_attached_or_repaired_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for ask in (locate, table_of, repair):
        with pytest.raises(NotFound, match=r"^debian:12: no such file.*: if a container image is meant, 'build d"):
            ask("debian:12")
    with pytest.raises(NotFound, match=r"^debian: no such file$"):
        open_device("debian", partition=12)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("none.img", 5, "none.img: no such file\n"),
        ("none.img:2", 5, "none.img: no such file\n"),
        ("none", 5, "none: no such file\n"),
        ("files/none:2", 5, "files/none: no such file\n"),
        ("files.d/none.qcow2:1", 5, "files.d/none.qcow2: no such file\n"),
        ("/none:2", 5, "/none: no such file\n"),
        ("./none:2", 5, "./none: no such file\n"),
        ("file:none:2", 5, "none: no such file\n"),
        ("C:\\none.img", 5, "C:\\none.img: no such file\n"),
        ("c:none", 5, "c:none: no such file\n"),
        ("volume:none", 2, "volume none: expected POOL/NAME: "),
        ("files:2", 2, "files: expected a file or a block device, found a directory\n"),
        ("disk.img:9", 5, "disk.img: partition 9: is not in the table"),
        ("docker://host.io/debian:12", 2, f"docker://host.io/debian:12: {SCHEMES} docker: 'build' makes a disk of"),
        ("ftp://host.io/disk", 2, f"ftp://host.io/disk: {SCHEMES} ftp\n"),
    ],
)
def test_what_is_no_container_image_is_not_said_to_be_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, message: str
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(folder / "home"))
    said = blockwright("fs", "ls", name, code=code).stderr.decode()
    assert said.startswith(f"blockwright: {message}")
    assert said.count("\n") == 1
    assert "docker://HOST" not in said
