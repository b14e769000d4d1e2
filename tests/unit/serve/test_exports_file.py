import os
import re
from pathlib import Path

import pytest

from blockwright.errors import FormatError, NotFound
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.serve import definition
from blockwright.serve.definition import read_exports

EVERYTHING = """\
default = "root"

[exports.root]
image = "images/root.img"
description = "the root disk"
read-only = false
overlay = "scratch"
partition = 2
from = "raw"
block-size = "512,4k,1M"
connections = 4
listed = false
resizable = true
track = ["daily=daily.map", "now"]
allow = ["10.0.0.0/8", "unix"]
allow-read = ["cn=monitor"]
force-unlocked = true

[exports."a b"]
image = "mem:1M"
overlay = true
table = "none"
size = "64M"
label = "data"
seed = "x"
"""


def write(tmp_path, text):
    path = tmp_path / "exports.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_everything_can_be_said(tmp_path):
    found = read_exports(write(tmp_path, EVERYTHING))
    assert found.default == "root"
    root, other = found.exports
    assert (root.name, root.description, root.connections) == ("root", "the root disk", 4)
    assert (root.listed, root.resizable, root.blocks) == (False, True, BlockSizes(512, 4096, 1 << 20))
    assert (root.allow, root.allow_read) == (("10.0.0.0/8", "unix"), ("cn=monitor",))
    image = root.image
    assert image.track == (("daily", str(tmp_path / "daily.map")), ("now", None))
    assert image.text == str(tmp_path / "images" / "root.img")
    assert (image.partition, image.form, image.writable, image.force_unlocked) == (2, "raw", True, True)
    assert (image.overlay, image.overlay_file) == (True, str(tmp_path / "scratch"))
    assert (other.name, other.image.text, other.image.overlay_file) == ("a b", "mem:1M", None)
    assert (other.image.disk.table.value, other.image.disk.size, other.image.disk.root.label) == (
        "none",
        64 << 20,
        "data",
    )
    export = root.export()
    assert export.read_only is False
    assert export == read_exports(os.path.join(tmp_path, "exports.toml")).exports[0].export()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("x = 1", 1, "x: expected one of default, exports"),
        ("exports = 3", 1, "exports: expected a table, found a number"),
        ("[exports]\na = 1", 2, "exports.a: expected a table, found a number"),
        ('default = "b"\n[exports.a]\nimage = "mem:1M"', 1, "default: expected the name of an export, found 'b'"),
        ("default = 1", 1, "default: expected a text, found a number"),
        ("[exports.a]", 1, "exports.a.image: expected what to serve, found nothing"),
        ('[exports.a]\nimage = ""', 2, "exports.a.image"),
        ('[exports.a]\nimage = "a\\u0000"', 2, "exports.a.image: expected a text without NUL"),
        ('[exports.a]\nimage = "a"\ntrack = ["\\u0000"]', 3, "exports.a.track: expected a list of texts without NUL"),
        ('[exports.a]\nimage = "a"\noverlay = "\\u0000"', 3, "exports.a.overlay: expected true or a file name"),
        ('[exports.a]\nimage = "a"\noverlay = ""', 3, "exports.a.overlay: expected true or a file name"),
        ('[exports.a]\nimage = "mem:1M"\n\nimmage = 1', 4, "exports.a.immage: expected one of image"),
        ('[exports.a]\nimage = "mem:1M"\n[exports."b c"]\nimage = 5', 4, "exports.b c.image: expected a text"),
        ('[exports.a]\nimage = "mem:1M"\nread-only = 1', 3, "exports.a.read-only: expected true or false"),
        ('[exports.a]\nimage = "mem:1M"\nconnections = true', 3, "exports.a.connections: expected a number"),
        ('[exports.a]\nimage = "mem:1M"\nconnections = 0', 3, "exports.a.connections: expected at least 1"),
        ('[exports.a]\nimage = "mem:1M"\nallow = ["10.0.0.1/8"]', 3, "exports.a.allow: rule '10.0.0.1/8'"),
        ('[exports.a]\nimage = "mem:1M"\nallow = [1]', 3, "exports.a.allow: expected a list of texts"),
        ('[exports.a]\nimage = "mem:1M"\nblock-size = "1,2"', 3, "exports.a.block-size: block size '1,2'"),
        ('[exports.a]\nimage = "mem:1M"\nblock-size = "3,4k,1M"', 1, "exports.a: export 'a': expected a minimum"),
        ('[exports.a]\nimage = "mem:1M"\nfrom = "qed"', 3, "exports.a.from: expected raw or qcow2"),
        ('[exports.a]\nimage = "mem:1M"\noverlay = 1', 3, "exports.a.overlay: expected true or a file name"),
        ('[exports.a]\nimage = "x"\npartition = 0', 3, "exports.a.partition: partition: expected a number from 1"),
        ('[exports.a]\nimage = "x"\ntable = "apm"', 3, "exports.a.table: expected one of gpt, mbr, none"),
        ('[exports.a]\nimage = "x"\nsize = "many"', 3, "exports.a.size: size 'many'"),
        ('[exports.a]\nimage = "x"\nsize = "1M"\nfree = "5%"', 1, "exports.a: build: expected either a size"),
        (f'[exports.{"n" * 4097}]\nimage = "mem:1M"', 1, "expected a name of at most 4096 bytes"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_key(tmp_path, text, line, said):
    path = write(tmp_path, text)
    with pytest.raises(FormatError) as raised:
        read_exports(path)
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["[exports", "a = 1\na = 2", b"\xff", "a = " + "[" * 5000, b"a = \0", "a = " + "9" * 5000]
)
def test_what_is_no_toml_is_told(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(FormatError) as raised:
        read_exports(path)
    assert str(raised.value).startswith(f"{path}: exports: ")


def test_limits(tmp_path, monkeypatch):
    with pytest.raises(NotFound):
        read_exports(str(tmp_path / "missing"))
    monkeypatch.setattr(definition, "MAX_EXPORTS", 1)
    with pytest.raises(FormatError, match="at most 1 exports, found 2"):
        read_exports(write(tmp_path, EVERYTHING))
    monkeypatch.setattr(definition, "MAX_FILE", 10)
    with pytest.raises(FormatError, match="at most 10 bytes"):
        read_exports(write(tmp_path, EVERYTHING))


def test_no_exports_is_a_server_without_any(tmp_path):
    assert read_exports(write(tmp_path, "")).exports == ()


def test_the_example_shows_every_key():
    path = Path(__file__).parents[3] / "examples" / "exports.toml"
    found = read_exports(str(path))
    assert [each.name for each in found.exports] == ["root", "data", "try", "tree", "large", "scratch"]
    shown = set(re.findall(r"^([a-z-]+) =", path.read_text(), re.MULTILINE))
    assert shown == {*definition._KEYS, "default"}
