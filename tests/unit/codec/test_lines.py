"""Only a line feed ends a line, in whatever is read line by line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.build.repart import Setting, settings_of
from blockwright.build.toml_read import Lines, parse_toml
from blockwright.codec.lines import lines_of
from blockwright.errors import FormatError
from blockwright.scan.inventory import _assignments
from blockwright.scan.policy_file import read_policy
from blockwright.serve.definition import read_exports

every = pytest.mark.parametrize("other", [*"\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"])
in_toml = pytest.mark.parametrize("other", [*"\x85\u2028\u2029"])  # the others are refused by TOML itself


@given(st.lists(st.text(st.characters(exclude_characters="\r\n")), max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_lines_come_back(lines: list[str], end: str) -> None:
    assert lines_of("".join(line + end for line in lines)) == lines
    assert lines_of(end.join([*lines, "last"])) == [*lines, "last"]


def test_no_text_has_no_line() -> None:
    assert lines_of("") == []
    assert lines_of("\n\n") == ["", ""]


@every
def test_a_setting_goes_on_behind_another_character(other: str) -> None:
    text = f"[Partition]\r\nLabel=a{other}Flags=1{other}\nType=home"
    found = list(settings_of(text, "x"))
    assert found == [
        Setting("Label", f"a{other}Flags=1{other}", 2),
        Setting("Type", "home", 3),
    ]


@in_toml
def test_keys_of_a_definition_stand_where_an_editor_has_them(other: str) -> None:
    assert Lines("x", f'label = "{other}"\n# {other}\nsize = "4G"\n')("size", None) == "x:3"
    with pytest.raises(FormatError) as caught:
        parse_toml(f"# {other}\nsize =", "x")
    assert caught.value.source == "x:2"


@in_toml
@pytest.mark.parametrize("read", [read_policy, read_exports])
def test_keys_of_other_files_stand_where_an_editor_has_them(
    read: Callable[[str], object], other: str, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    path.write_bytes(f"# {other}\n# {other}\nnonsense = 1\n".encode())
    with pytest.raises(FormatError) as caught:
        read(str(path))
    assert caught.value.source == f"{path}:3"


@every
def test_a_release_has_no_name_within_a_value(other: str) -> None:
    assert "ID" not in _assignments(f'NAME="x{other}ID=other{other}"\n')
    assert _assignments(f'NAME="x{other}y"\nID=z\r\n') == {"NAME": f"x{other}y", "ID": "z"}
