"""repart.d's files, read: what becomes of each setting, and what is refused or told with its place."""

from pathlib import Path

import pytest

from blockwright.build.definition import MAX_PARTITIONS
from blockwright.build.partition import PartitionDefinition
from blockwright.build.repart import Found, parse_conf, read_repart, settings_of
from blockwright.errors import FormatError
from blockwright.table.gpt.names import TYPES


def conf(*lines: str, labels: set[str] | None = None, remarks: list[str] | None = None) -> Found:
    text = "\n".join(["[Partition]", *lines])
    return parse_conf(text, "x.conf", [] if remarks is None else remarks, set() if labels is None else labels)


def part(*lines: str) -> PartitionDefinition:
    return conf(*lines).part


def test_a_type_is_the_same_by_its_name_and_by_its_uuid() -> None:
    for name in ("home", "swap", "root-arm64-verity", "linux-generic"):
        assert part(f"Type={TYPES[name]}", "SizeMinBytes=1M") == part(f"Type={name}", "SizeMinBytes=1M")
    unknown = "11111111-2222-3333-4444-5555555555AA"
    assert part(f"Type={unknown}").type == unknown.lower()


def test_labels_that_follow_from_types_are_each_of_a_kind() -> None:
    labels: set[str] = set()
    lines = [
        ("Type=home", "Label=home"),
        ("Type=home",),
        ("Type=home", "Label=home-3"),
        ("Type=home",),
        ("Type=srv",),
        ("Type=11111111-2222-3333-4444-555555555555",),
        ("Type=prep",),
    ]
    made = [conf(*each, labels=labels).part.name for each in lines]
    assert made == ["home", "home-2", "home-3", "home-4", "srv", "linux", "linux-2"]


@pytest.mark.parametrize(
    ("lines", "attributes"),
    [
        (["Type=home"], ["growfs"]),
        (["Type=home", "ReadOnly=yes"], ["read-only"]),
        (["Type=home", "ReadOnly=yes", "GrowFileSystem=yes"], ["growfs", "read-only"]),
        (["Type=home", "ReadOnly=no"], ["growfs"]),
        (["Type=home", "GrowFileSystem=no"], []),
        (["Type=home", "Flags=0x8000000000000001", "NoAuto=no"], ["required", "growfs"]),
        (["Type=home", "Flags=0xffffffffffffffff", "NoAuto=no"], None),
        (["Type=root-arm64-verity"], ["read-only"]),
        (["Type=root-arm64-verity", "ReadOnly=no", "GrowFileSystem=yes"], []),
        (["Type=root-arm64-verity-sig"], []),
        (["Type=swap", "NoAuto=yes"], ["no-auto"]),
        (["Type=esp", "NoAuto=yes", "ReadOnly=yes", "GrowFileSystem=yes"], []),
        (["Type=esp", "Flags=0x8000000000000000", "NoAuto=no"], ["no-auto"]),
    ],
)
def test_marks_are_those_that_a_type_has(lines: list[str], attributes: list[str] | None) -> None:
    found = part(*lines, "SizeMinBytes=1M").attributes
    if attributes is None:
        assert len(found) == 63
        assert "no-auto" not in found
    else:
        assert list(found) == attributes


def test_a_mark_that_a_type_has_not_is_told() -> None:
    remarks: list[str] = []
    conf("Type=swap", "ReadOnly=yes", "NoAuto=yes", "GrowFileSystem=no", "Priority=1", remarks=remarks)
    assert remarks == [
        "x.conf:3: ReadOnly: has no effect on a partition of type swap",
        "x.conf:5: GrowFileSystem: has no effect on a partition of type swap",
        "x.conf:6: Priority: has no effect: what does not fit is refused",
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Label=a\\\nb\n", [("a b", 2)]),
        ("Label=a\\\n# told\n; too\n  b\\\n\nUUID=c\n", [("a b", 2), ("c", 7)]),
        ("Label=a\\\\\nUUID=b\n", [("a\\\\", 2), ("b", 3)]),
        ("Label=a\\\\\\\nb\n", [("a\\\\ b", 2)]),
        (" Label =\ta \r\n", [("a", 2)]),
    ],
)
def test_lines_that_go_on(text: str, values: list[tuple[str, int]]) -> None:
    found = list(settings_of(f"[Partition]\n{text}", "x.conf"))
    assert [(each.value, each.line) for each in found] == values


def test_as_many_files_as_a_table_has_entries(tmp_path: Path) -> None:
    for number in range(MAX_PARTITIONS):
        (tmp_path / f"{number:03}.conf").write_text("[Partition]\nSizeMinBytes=4K\n")
    (tmp_path / "masked.conf").symlink_to("/dev/null")
    assert len(read_repart(str(tmp_path)).partitions) == MAX_PARTITIONS
    (tmp_path / "more.conf").write_text("not one line of it is looked at")
    with pytest.raises(FormatError, match=r"repart\.d: expected at most 128 partitions, found 129"):
        read_repart(str(tmp_path))
