"""docs/json.md against what commands print: every schema is there, and every document has its shape."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockwright import cli, errors
from tests.support import inprocess
from tests.support.command import COMMAND

ROOT = Path(__file__).parents[3]
_SECTION = re.compile(r"^### `(blockwright\.[a-z.-]+/[0-9]+)`\n.*?```json\n(.*?)```", re.MULTILINE | re.DOTALL)
DOCUMENTED: dict[str, Any] = {
    name: json.loads(text) for name, text in _SECTION.findall((ROOT / "docs/json.md").read_text())
}
_KINDS: dict[str, Callable[[object], bool]] = {
    "text": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "boolean": lambda value: isinstance(value, bool),
    "any": lambda value: True,
}


def mismatch(value: object, shape: object, where: str = "") -> str:
    """Return where a value is not of its shape, empty where it is."""
    if isinstance(shape, str):
        return "" if _KINDS[shape](value) else f"{where}: expected {shape}, found {value!r}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where}: expected a list, found {value!r}"
        return next((found for each in value if (found := mismatch(each, shape[0], f"{where}[]"))), "")
    assert isinstance(shape, dict)
    if not isinstance(value, dict):
        return f"{where}: expected an object, found {value!r}"
    left = dict(value)
    for key, inner in shape.items():
        name = key.partition("|")[0].removesuffix("?")
        if name == "*":
            continue
        if name not in left:
            if "?" not in key:
                return f"{where}.{name}: is missing"
            continue
        each = left.pop(name)
        if each is None and key.endswith("|null"):
            continue
        if found := mismatch(each, inner, f"{where}.{name}"):
            return found
    if "*" not in shape and left:
        return f"{where}: {sorted(left)} are not documented"
    return next((found for key in left if (found := mismatch(left[key], shape["*"], f"{where}.{key}"))), "")


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ({"a": 1, "c": ["x"]}, True),
        ({"a": None, "b": True, "c": []}, True),
        ({"c": []}, False),
        ({"a": 1}, False),
        ({"a": "1", "c": []}, False),
        ({"a": True, "c": []}, False),
        ({"a": 1, "c": [1]}, False),
        ({"a": 1, "c": [], "d": 1}, False),
        ([], False),
    ],
)
def test_shapes_are_told_apart(value: object, right: bool) -> None:
    assert (mismatch(value, {"a|null": "integer", "b?": "boolean", "c": ["text"]}) == "") is right


def test_every_schema_is_documented_and_no_other() -> None:
    used = set()
    for path in Path(cli.__file__).parent.glob("*.py"):
        used |= set(re.findall(r"\"(blockwright\.[a-z.{}-]+/[0-9]+)\"", path.read_text()))
    whole, made = {each for each in used if "{" not in each}, {each for each in used if "{" in each}
    assert whole <= set(DOCUMENTED), "a section in docs/json.md tells what each document holds"
    patterns = [re.sub(r"\\{.*?\\}", "[a-z]+", re.escape(each)) for each in made]
    others = set(DOCUMENTED) - whole
    assert {each for each in others if not any(re.fullmatch(pattern, each) for pattern in patterns)} == set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("json")
    (made / "files").mkdir()
    (made / "files" / "a").write_bytes(b"hello" * 1000)
    (made / "files" / "l").symlink_to("a")
    for arguments in (
        ["build", "files", "-o", "gpt.img", "--size", "16M"],
        ["build", "files", "-o", "mbr.img", "--table", "mbr"],
        ["build", "files", "-o", "bare.ext4", "--table", "none"],
        ["build", "files", "-o", "disk.qcow2"],
        ["build", "files", "-o", "three.img", "--size", "48M", "--partition", "type=esp,size=33M",
         "--partition", "mount=/", "--partition", "type=swap,size=8M"],
        ["disk", "bitmap", "create", "disk.qcow2", "daily"],
        ["disk", "snapshot", "create", "disk.qcow2", "fresh"],
        ["disk", "create", "small.img", "5M", "--table", "gpt"],
        ["fs", "mkfs", "new.ext4", "--size", "4M"],
        ["pool", "create", "main", "--directory", "volumes"],
        ["volume", "create", "root", "--size", "1M"],
    ):  # fmt: skip
        run(made, *arguments)
    return made


def run(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run the command as if in `folder`, and return what it printed on standard output and on standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BLOCKWRIGHT_HOME", str(folder / "home"))
        done = inprocess.blockwright(*arguments, code=code)
    return done.stdout.decode(), done.stderr.decode()


def held(text: str, schema: str) -> None:
    document = json.loads(text)
    assert document.pop("schema") == schema
    assert mismatch(document, DOCUMENTED[schema]) == ""


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ("build", "build files --dry-run"),
        ("build", "build files -o again.img --table none"),
        ("build", "build files -o fat.img --size 64M --partition type=esp,size=33M --partition mount=/"),
        ("build.verify", "build files -o gpt.img --size 16M --verify-only"),
        ("inspect", "inspect gpt.img"),
        ("inspect", "inspect mbr.img"),
        ("inspect", "inspect bare.ext4"),
        ("inspect", "inspect disk.qcow2"),
        ("inspect", "inspect three.img"),
        ("check", "check three.img"),
        ("check", "check disk.qcow2"),
        ("check.against", "check gpt.img --against files"),
        ("compare", "compare gpt.img gpt.img"),
        ("convert", "convert gpt.img copy.vmdk"),
        ("extract", "extract gpt.img:1 out --owner me"),
        ("disk.table", "disk table gpt.img"),
        ("disk.table", "disk table mbr.img"),
        ("disk.add", "disk add small.img --size 1M"),
        ("disk.resize", "disk resize small.img 8M"),
        ("done", "disk rm small.img:1"),
        ("snapshots", "disk snapshot list disk.qcow2"),
        ("bitmaps", "disk bitmap list disk.qcow2"),
        ("fs.ls", "fs ls -R gpt.img:1"),
        ("fs.ls", "fs ls three.img:1"),
        ("fs.stat", "fs stat gpt.img:1 /l"),
        ("fs.stat", "fs stat three.img:1 /"),
        ("fs.df", "fs df three.img:1"),
        ("fs.label", "fs label gpt.img:1"),
        ("fs.mkfs", "fs mkfs more.ext4 --size 4M"),
        ("fs.resize", "fs resize new.ext4 8M"),
        ("fs.resize", "fs resize new.ext4 --minimum"),
        ("nbd.checks", "nbd check --list"),
        ("map", "map list"),
        ("verity.format", "verity format bare.ext4 hashes"),
        ("pool", "pool create other"),
        ("pools", "pool ls"),
        ("pool.status", "pool status"),
        ("pool.up", "pool up"),
        ("pool.check", "pool check main"),
        ("volume", "volume show main/root"),
        ("volume", "volume snapshot main/root before"),
        ("volumes", "volume ls"),
        ("reconcile", "volume reconcile"),
        ("fetched", "fetch-and-create files --scan off"),
        ("images", "image ls"),
        ("image.gc", "image gc --dry-run"),
        ("doctor", "doctor"),
        ("done", "pool down main"),
    ],
    ids=lambda value: value,
)
def test_documents_have_their_shape(folder: Path, schema: str, line: str) -> None:
    held(run(folder, *line.split(), "--json")[0], f"blockwright.{schema}/1")


def test_what_is_damaged_is_documented_too(folder: Path) -> None:
    (folder / "hurt.img").write_bytes((folder / "mbr.img").read_bytes())
    with (folder / "hurt.img").open("r+b") as file:
        file.seek((1 << 20) + 8292)
        file.write(b"damage")
    held(run(folder, "check", "hurt.img", "--json", code=3)[0], "blockwright.check/1")
    (folder / "more").mkdir()
    held(run(folder, "check", "gpt.img", "--against", "more", "--json", code=3)[0], "blockwright.check.against/1")
    run(folder, "verity", "format", "bare.ext4", "tree")
    told = run(folder, "verity", "verify", "bare.ext4", "tree", "00" * 32, "--json", code=3)[0]
    held(told, "blockwright.verity.verify/1")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("inspect none.img", 5),
        ("inspect gpt.img:9", 5),
        ("fs ls gpt.img:1 /none", 5),
        ("fs ls small.img", 1),
        ("volume show main/none", 5),
        ("nonsense", 2),
        ("build files -o gpt.img", 2),
        ("volume create main/x --from none --size 1M", 5),
        ("pool create p --driver thin --option size=1G", 4),
    ],
)
def test_errors_have_their_shape(folder: Path, line: str, code: int) -> None:
    if "thin" in line and Path("/dev/mapper/control").exists():
        pytest.skip("the kernel has what this test wants missing")
    told = json.loads(run(folder, *line.split(), "--json", code=code)[1])
    assert told["error"]["code"] == code
    assert mismatch(told, DOCUMENTED["blockwright.error/1"]) == ""


def test_servers_have_their_shape(folder: Path) -> None:
    address = str(folder / "s.sock")
    with subprocess.Popen(
        [*COMMAND, "serve", folder / "gpt.img", "--socket", address], stdout=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            uri = server.stdout.readline().decode().strip()
            held(run(folder, "nbd", "info", uri, "--json")[0], "blockwright.nbd-info/1")
            held(run(folder, "nbd", "list", uri, "--json")[0], "blockwright.nbd-list/1")
            held(run(folder, "nbd", "check", uri, "--only", "H01", "--json")[0], "blockwright.nbd.check/1")
        finally:
            server.terminate()


def test_an_interrupted_command_says_so(folder: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "mute.sock"))
    listener.listen()
    line = ["nbd", "info", f"nbd+unix:///?socket={folder}/mute.sock", "--json"]
    with subprocess.Popen([sys.executable, "-m", "blockwright", *line], stderr=subprocess.PIPE) as process:
        peer = listener.accept()[0]  # it waits for our greeting now
        process.terminate()
        told = json.loads(process.communicate()[1])
        peer.close()
    listener.close()
    assert process.returncode == told["error"]["code"] == 130
    assert mismatch(told, DOCUMENTED["blockwright.error/1"]) == ""


def test_the_exit_codes_of_the_page_are_those_of_errors() -> None:
    text = (ROOT / "docs/json.md").read_text()
    listed = {int(each) for each in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    classes = [each for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "exit_code")]
    assert {each.exit_code for each in classes} | {0, 3, 130} == listed
