"""Texts of definitions that are read in the time that their length asks for, whatever they hold, and within limits.

Each of the first ones took hours where an expression tried every way to share its blanks out.
"""

import pytest

from blockwright.build import toml_read
from blockwright.build.definition import Definition
from blockwright.build.read import read_definition
from blockwright.build.toml_read import Lines, parse_toml
from blockwright.build.toml_write import write_toml
from blockwright.errors import FormatError, UsageError
from blockwright.tree.changes.cloudinit import META_DATA, NETWORK, check

MANY = 100_000


@pytest.mark.timeout(10)
def test_blanks_in_an_array_of_toml():
    with pytest.raises(FormatError, match="is not known"):
        parse_toml(f"a = [\n[{' ' * MANY}\n1]]\n", "disk.toml")


def test_headers_with_blanks_are_found():
    lines = Lines("f", "[[ partition ]]\nmount = '/'\n[a]\nmount = 1\n[[\t\"partition\"\t]]\nmount = '/home'\n")
    assert [lines("mount", 0), lines("mount", 1)] == ["f:2", "f:6"]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", ["\n" * MANY + "x", "image x {\na = {" + "/*," * (MANY - 1)])
def test_blanks_and_comments_of_a_file_that_may_be_genimages(tmp_path, text):
    path = tmp_path / "disk.cfg"
    path.write_text(text)
    with pytest.raises(FormatError):
        read_definition(str(path))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", [META_DATA, NETWORK])
def test_blank_lines_of_a_seed(name):
    with pytest.raises(UsageError, match="found none"):
        check(name, b"\n" * MANY, "seed")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (META_DATA, b"# a host\n\n  instance-id : i-1\n"),
        (META_DATA, b'"instance-id": x\n'),
        (NETWORK, b"\n\nversion: 2\n"),
        (NETWORK, b'{ "version": 1}\n'),
        (NETWORK, b"{\n  network: {version: 2}\n}\n"),
    ],
)
def test_a_seed_that_is_one(name, text):
    assert check(name, text, "seed") is None


def test_a_file_of_a_definition_is_no_larger_than_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(toml_read, "MAX_FILE", 100)
    path = tmp_path / "disk.toml"
    path.write_bytes(b"#" * 100)
    assert toml_read.read_text(str(path)) == "#" * 100
    path.write_bytes(b"#" * 101)
    with pytest.raises(FormatError, match="expected at most 100 bytes, found more"):
        toml_read.read_text(str(path))


def test_every_character_of_a_text_is_written_as_toml_takes_it():
    text = "".join(map(chr, range(1, 0x100))) + "\u2028\U0001f600"
    written = write_toml(Definition(seed=text))
    assert parse_toml(written, "x").definition().seed == text
