"""Plugins as an installed package brings them: the example's own metadata, as its build would write it."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from blockwright import plugin
from blockwright.address import parse_address
from blockwright.errors import ReadOnly, UsageError
from blockwright.resolve import open_device
from blockwright.testing import check_device

pytestmark = pytest.mark.unprivileged

EXAMPLE = Path(__file__).parents[2] / "examples/plugin"


def install(folder: Path, points: dict[str, dict[str, str]], name: str = "example") -> None:
    """Put a package's metadata into a folder of the path, as pip does."""
    metadata = folder / f"{name}-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in points.items()]
    (metadata / "entry_points.txt").write_text("".join(lines))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install the example for this test, and for the programs that it starts."""
    site = tmp_path / "site"
    install(site, tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"])
    (site / "blockwright_example.py").symlink_to(EXAMPLE / "blockwright_example.py")
    monkeypatch.syspath_prepend(str(site))
    plugin.find_plugin.cache_clear()
    yield site
    plugin.find_plugin.cache_clear()
    sys.modules.pop("blockwright_example", None)


def blockwright(*arguments: object, code: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "blockwright", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_every_group_has_an_example(installed):
    assert {group: plugin.plugin_names(group) for group in plugin.GROUPS} == {
        plugin.DEVICES: ("pattern",),
        plugin.FORMATS: ("flipped",),
        plugin.SOURCES: ("words",),
        plugin.SCANNERS: ("keys",),
    }


def test_a_scheme(installed):
    with open_device("pattern:1K,moo") as device:
        assert device.read(1, 5) == b"oomoo"
    with open_device("pattern:4K,ab#start=1,size=3") as device:
        assert device.read(0, device.size) == b"bab"
    check_device(lambda: open_device("pattern:1000,moo"), (b"moo" * 334)[:1000], operations=40)
    with pytest.raises(ReadOnly, match="takes no writes"):
        open_device("pattern:1K,moo", writable=True)
    with pytest.raises(UsageError, match="as in pattern:1M,moo"):
        open_device("pattern:1K")
    for text in ("pattern:1K,moo", "pattern:1K,moo#2", "pattern:1K,moo#start=512,size=8"):
        assert str(parse_address(text)) == text


def test_a_file_of_that_name_is_the_file(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pattern:1K,moo").write_bytes(b"file")
    with open_device("pattern:1K,moo") as device:
        assert device.read(0, device.size) == b"file"


def test_the_commands_of_the_example(installed, tmp_path):
    """What its docstring says, in its order."""
    cow, flipped, words = tmp_path / "cow.img", tmp_path / "cow.flipped", tmp_path / "words.img"
    blockwright("convert", "pattern:1M,moo", cow)
    assert cow.read_bytes() == (b"moo" * 350_000)[: 1 << 20]
    blockwright("convert", cow, flipped, "--format", "flipped")
    assert flipped.read_bytes()[512:518] == bytes(255 - each for each in b"moomoo")
    blockwright("compare", "--from", "flipped", flipped, "pattern:1M,moo")
    blockwright("compare", "--from", "flipped", flipped, "pattern:1M,cow", code=1)
    blockwright("build", "words:hello,world", "-o", words)
    assert blockwright("fs", "cat", f"{words}:1", "/world") == "world\n"
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    assert "clean" in blockwright("scan", rootfs, "--scanner", "keys")
    (rootfs / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert "private-key" in blockwright("scan", rootfs, "--scanner", "keys", code=3)


def test_a_format_is_read_and_written(installed, tmp_path):
    from tests.support.inprocess import blockwright as command

    image = tmp_path / "disk.flipped"
    command("disk", "create", image, "64K", "--format", "flipped")
    content = bytes(64 << 10)

    def make():
        image.write_bytes(b"FLIPPED\n".ljust(512, b"\0") + b"\xff" * len(content))
        return open_device(str(image), writable=True, form="flipped")

    with open_device(str(image), form="flipped") as device:
        assert device.read(0, device.size) == content
    check_device(make, content, operations=60)


def test_a_name_in_an_image_loads_no_plugin(installed, tmp_path):
    """A backing file's format comes from whoever made the image."""
    from tests.support.inprocess import blockwright as command

    (tmp_path / "base").write_bytes(b"FLIPPED\n".ljust(4096, b"\0"))
    top = tmp_path / "top.qcow2"
    command("disk", "create", top, "--backing", tmp_path / "base", "--backing-format", "raw")
    image = bytearray(top.read_bytes())
    assert image.count(b"\xe2\x79\x2a\xca\0\0\0\3raw") == 1
    at = image.index(b"\xe2\x79\x2a\xca\0\0\0\3raw")
    image[at + 4 : at + 16] = b"\0\0\0\7flipped\0"[:12]
    top.write_bytes(image)
    text = blockwright("fs", "ls", top, "/", "--allow-backing", tmp_path, code=1)
    assert "its format 'flipped' is not read" in text
    assert "blockwright_example" not in sys.modules


@pytest.mark.parametrize(
    ("value", "message"),
    [("gone_module:open", "does not load: ModuleNotFoundError"), ("os:gone", "does not load: AttributeError")],
)
def test_one_that_does_not_load_is_one_line(installed, value, message):
    install(installed, {plugin.DEVICES: {"broken": value}, plugin.FORMATS: {"broken": value}}, "broken")
    for arguments in (("inspect", "broken:x"), ("inspect", EXAMPLE / "pyproject.toml", "--from", "broken")):
        text = blockwright(*arguments, code=2)
        assert message in text
        assert text.count("\n") == 1


def test_what_is_of_another_kind_is_refused(installed):
    points = {group: {"odd": "builtins:str"} for group in (plugin.FORMATS, plugin.SOURCES)}
    install(installed, points | {plugin.DEVICES: {"dev": "unittest.mock:Mock"}}, "odd")
    assert "expected the plugin to be the Format" in blockwright("inspect", __file__, "--from", "odd", code=2)
    assert "expected a Source from the plugin, found str" in blockwright("build", "odd:x", "-o", "/x", code=2)
    assert "expected a BlockDevice from the plugin, found Mock" in blockwright("inspect", "dev:x", code=2)


def test_two_of_one_name_are_refused_and_ours_cannot_be_replaced(installed):
    install(installed, {plugin.DEVICES: {"pattern": "os:open", "mem": "os:open"}}, "second")
    install(installed, {plugin.FORMATS: {"qcow2": "os:open"}, plugin.SCANNERS: {"clamav": "os:open"}}, "third")
    assert "expected one plugin in blockwright.devices" in blockwright("inspect", "pattern:1K,x", code=2)
    with open_device("mem:1M") as device:
        assert device.size == 1 << 20
    from blockwright.format.registry import find_format

    assert find_format("qcow2").load().name == "qcow2"


def doctor(*arguments: object, code: int = 0) -> dict[tuple[str, str], dict]:
    """What doctor says of plugins, by group and name."""
    told = json.loads(blockwright("doctor", *arguments, "--json", code=code))["plugins"]
    return {(each["group"], each["name"]): each for each in told}


def test_doctor_lists_plugins(installed):
    told = doctor()
    assert list(told) == [
        (plugin.DEVICES, "pattern"),
        (plugin.FORMATS, "flipped"),
        (plugin.SOURCES, "words"),
        (plugin.SCANNERS, "keys"),
    ]
    assert {(each["package"], each["version"], each["problem"]) for each in told.values()} == {("example", "1", None)}
    assert told[plugin.FORMATS, "flipped"]["value"].startswith("blockwright_example:")
    text = blockwright("doctor")
    assert "plugins\n  ready    pattern  blockwright.devices of example 1\n" in text
    assert "for: --from flipped, --format flipped\n" in text
    assert "plugins" not in blockwright("doctor", "--quiet")


def test_doctor_looks_at_no_plugin_for_a_job(installed):
    (installed / "loud.py").write_text("raise SystemExit('never')")
    install(installed, {plugin.DEVICES: {"loud": "loud:open"}}, "loud")
    assert doctor("build") == {}
    assert "loud" not in blockwright("doctor", "build")


@pytest.mark.parametrize(
    ("group", "code", "problem"),
    [
        (plugin.DEVICES, "import gone_module", "does not load: ModuleNotFoundError: No module named 'gone_module'"),
        (plugin.DEVICES, "raise SystemExit('bye')", "does not load: SystemExit: bye"),
        (plugin.SOURCES, "raise ValueError('one\\ntwo \\x1b[31m')", "does not load: ValueError: one two \x1b[31m"),
        (plugin.SOURCES, "class E(Exception):\n    __str__ = None\nraise E", "does not load: E"),
        (plugin.SCANNERS, "thing = 7", "is nothing that can be called: int"),
        (plugin.SCANNERS, "other = 7", "does not load: AttributeError: module 'hurt' has no attribute 'thing'"),
        (plugin.FORMATS, "thing = 'flipped'", "is not the Format of that name: str"),
    ],
)
def test_doctor_tells_why_a_plugin_cannot_be_used(installed, group, code, problem):
    (installed / "hurt.py").write_text(f"print('chatter')\n{code}\n")
    install(installed, {group: {"hurt": "hurt:thing"}}, "hurt-package")
    told = doctor()
    assert told[group, "hurt"]["problem"] == problem
    assert told[group, "hurt"]["remedy"] == "pip install --upgrade hurt-package, or pip uninstall hurt-package"
    assert [each["problem"] for each in told.values()].count(None) == 4
    text = blockwright("doctor", "--quiet")
    assert f"  broken   hurt  {group} of hurt-package 1\n" in text
    assert problem.replace("\x1b", "").partition("[")[0] in text
    assert "\x1b" not in text
    assert "flipped" not in text.partition("plugins\n")[2]


def test_doctor_tells_of_names_that_are_taken(installed):
    install(installed, {plugin.DEVICES: {"pattern": "os:open"}, plugin.FORMATS: {"qcow2": "os:open"}}, "second")
    told = json.loads(blockwright("doctor", "--json"))["plugins"]
    problems = {(each["package"], each["name"]): each["problem"] for each in told}
    several = "is never taken: there are several of this name, blockwright_example:open_pattern and os:open"
    assert problems["example", "pattern"] == problems["second", "pattern"] == several
    assert problems["second", "qcow2"] == "is never taken: qcow2 is ours"


def test_doctor_tells_of_entry_points_that_cannot_be_read(installed):
    install(installed, {}, "spoiled")
    (installed / "spoiled-1.dist-info/entry_points.txt").write_text("[console_scripts]\nnonsense\n")
    (first, *_), told = doctor().items(), doctor()
    assert first[0] == ("", "")
    assert first[1]["package"] == "spoiled"
    assert first[1]["problem"].startswith("its entry points cannot be read: ")
    assert told[plugin.FORMATS, "flipped"]["problem"] is None
    assert "of spoiled 1\n" in blockwright("doctor", "--quiet")
    text = blockwright("inspect", "pattern:1K,x", code=2)
    assert "a package's entry points cannot be read ('blockwright doctor' says which)" in text
    assert text.count("\n") == 1


def test_without_plugins_names_are_refused_as_before():
    assert "is not one of" in blockwright("inspect", __file__, "--from", "flipped", code=2)
    assert "no such file" in blockwright("inspect", "pattern:1K,moo", code=5)
