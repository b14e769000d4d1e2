"""repart.d's files, read: what becomes of each setting, and what is refused or told with its place."""

from pathlib import Path

import pytest

from blockwright.build.definition import MAX_PARTITIONS
from blockwright.build.partition import PartitionDefinition
from blockwright.build.repart import Found, parse_conf, read_repart, settings_of
from blockwright.errors import FormatError
from blockwright.table.gpt.names import TYPES
from blockwright.units import MiB


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


@pytest.mark.parametrize(
    ("lines", "least", "most"),
    [
        ([], 10 * MiB, None),
        (["SizeMinBytes=8191"], 4096, None),
        (["SizeMinBytes=8192"], 8192, None),
        (["SizeMinBytes=0"], 4096, None),
        (["SizeMaxBytes=20M"], 10 * MiB, 20 * MiB),
        (["SizeMaxBytes=8193"], 12288, 12288),
        (["SizeMaxBytes=0", "Weight=0"], None, "a maximum of at least 4096 bytes, found 0"),
        (["SizeMinBytes=5000", "SizeMaxBytes=5000"], 4096, 8192),
        (["SizeMinBytes=8192", "SizeMaxBytes=4096"], None, "a maximum of at least 8192 bytes, found 4096"),
        (["CopyBlocks=IMAGE"], 10 * MiB, None),
        (["CopyBlocks=IMAGE", "SizeMinBytes=4K"], 8192, None),
        (["CopyBlocks=IMAGE", "SizeMinBytes=4K", "SizeMaxBytes=4K"], None, "a maximum of at least 8192 bytes"),
        (["CopyBlocks=IMAGE", "SizeMinBytes=12K"], 12288, None),
        (["Format=ext4", "Minimize=guess"], 0, None),
        (["Format=ext4", "Minimize=yes", "SizeMinBytes=9K", "SizeMaxBytes=20M"], 8192, 20 * MiB),
        (["Verity=hash", "VerityMatchKey=a", "SizeMinBytes=9K", "SizeMaxBytes=20M"], 0, None),
    ],
)
def test_least_and_most_sizes(tmp_path: Path, lines: list[str], least: int | None, most: int | str | None) -> None:
    (tmp_path / "image").write_bytes(bytes(4097))
    lines = [each.replace("IMAGE", str(tmp_path / "image")) for each in lines]
    if isinstance(most, str):
        with pytest.raises(FormatError, match=rf"^x\.conf: .*{most}"):
            part(*lines)
        return
    made = part(*lines)
    assert (made.minimum, made.maximum, made.size) == (least, most, None)
    grows = not any(each.startswith(("Minimize", "Verity")) for each in lines)
    assert (made.rest, made.hashes) == (grows, "Verity=hash" in lines)


def test_weights_and_paddings() -> None:
    made = part("Weight=0", "PaddingWeight=1000000", "PaddingMinBytes=8191", "PaddingMaxBytes=8193")
    assert (made.weight, made.padding_weight, made.padding, made.padding_maximum) == (0, 1_000_000, 4096, 12288)
    made = part()
    assert (made.weight, made.padding_weight, made.padding, made.padding_maximum) == (1000, 0, 0, None)
    for text in ("1000001", "10000000", "-1", "x", "\u0661"):
        with pytest.raises(FormatError, match=r"^x\.conf:2: Weight: expected a weight from 0 to 1000000, found"):
            part(f"Weight={text}")


@pytest.mark.parametrize(
    ("value", "small"), [("best", True), ("guess", True), ("yes", True), ("On", True), ("off", False), ("0", False)]
)
def test_what_is_as_small_as_it_can_be(value: str, small: bool) -> None:
    made = part("Format=ext4", f"Minimize={value}")
    assert (made.rest, made.minimum) == (not small, 0 if small else 10 * MiB)


def test_the_last_line_counts_but_for_lists() -> None:
    made = part(
        "Label=a", "Label=b", "CopyFiles=/a", "CopyFiles=/b:/", "MakeDirectories=/c/ / /d", "MakeDirectories=/e"
    )
    assert (made.name, made.files, made.directories) == ("b", (("/a", "/a"), ("/b", "/")), ("/c", "/d", "/e"))
    made = part("Label=a", "CopyFiles=/a", "CopyFiles=", "Label=", "CopyFiles=/x%%y:/z//", "Encrypt=Off", "Verity=NO")
    assert (made.name, made.files) == ("linux-generic", (("/x%y", "/z"),))
    for lines in (["CopyFiles=/a"], ["MakeDirectories=/a"]):
        assert part(*lines).file_system == "ext4"
        assert part(*lines, "Format=vfat").file_system == "fat"
    assert part("Format=").file_system is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["CopyFiles=/a:/b:/c"],
            "2: CopyFiles: expected SOURCE:TARGET, both absolute, and no flags, found '/a:/b:/c'",
        ),
        (["CopyFiles=/a:b"], "2: CopyFiles: expected SOURCE:TARGET"),
        (["CopyFiles=a:/b"], "2: CopyFiles: expected SOURCE:TARGET"),
        (["Minimize=maybe"], "2: Minimize: expected yes or no, found 'maybe'"),
        (["Label=a\\"], " expected a line behind the last backslash"),
        (["[Other]"], "2: [Other]: expected [Partition]"),
        ([f"Type={'x' * 30}"], f"2: Type: expected a type that is known, or a UUID, found '{'x' * 30}'"),
        ([f"Type={'x' * 36}"], f"2: Type: expected a UUID, found '{'x' * 36}'"),
        (["SupplementFor=x"], "2: SupplementFor: asks for definitions that supplement others, which cannot be made"),
    ],
)
def test_what_is_refused_has_its_line(lines: list[str], said: str) -> None:
    with pytest.raises(FormatError) as caught:
        part(*lines)
    assert str(caught.value).startswith(f"x.conf:{said}")


def test_what_stands_before_a_section_is_refused() -> None:
    with pytest.raises(FormatError, match=r"^x\.conf:1: expected Key=Value within \[Partition\], found 'Label=a'"):
        list(settings_of("Label=a\n[Partition]\n", "x.conf"))


def test_labels_of_file_systems_are_what_of_the_name_they_can_have() -> None:
    fat, ext = ("Format=vfat", "Format=ext4")
    assert part(fat, "Label=my. label+\u00e9").label == "my_ label__"
    assert part(fat, "Label=0123456789ab").label == "0123456789a"
    assert part(fat, "Label=a-b_c d").label == "a-b_c d"
    assert part(ext, "Label=0123456789abcdefg").label == "0123456789abcdef"
    assert part(ext, "Label=" + "\u00e9" * 9).label == "\u00e9" * 8
    assert part("Label=x").label == ""


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "pdp11"])
def test_types_of_this_machine(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    name = {"x86_64": "x86-64", "aarch64": "arm64"}.get(machine)
    for text in ("root", "usr", "root-verity", "usr-verity", "root-verity-sig", "usr-verity-sig"):
        first, _, rest = text.partition("-")
        if name is None:
            with pytest.raises(FormatError, match=f"expected a type with its machine, such as {first}-x86-64"):
                part(f"Type={text}")
        else:
            assert part(f"Type={text}").type == f"{first}-{name}{'-' + rest if rest else ''}"


def test_data_and_hashes_are_joined(tmp_path: Path) -> None:
    def read(data: str, hashes: str = "Verity=hash\nVerityMatchKey=a\n", more: str = ""):
        for name, text in (("1", data), ("2", hashes), ("3", more)):
            (tmp_path / f"{name}.conf").write_text(f"[Partition]\n{text}")
        return read_repart(str(tmp_path))

    copied = "CopyFiles=/x:/y\nCopyFiles=/tree:/\nCopyFiles=/z\n"
    data = f"Type=root-arm64\nVerity=data\nVerityMatchKey=a\nReadOnly=yes\nNoAuto=yes\nGrowFileSystem=yes\n{copied}"
    asked = read(data)
    root, hashes, _ = asked.partitions
    assert (asked.sources, asked.disk) == (("/tree",), {"table": "gpt", "alignment": 4096, "verity": True})
    assert (root.mount, root.files, root.attributes) == ("/", (("/x", "/y"), ("/z", "/z")), ("no-auto",))
    assert hashes.hashes
    asked.definition()
    wrong = "^.*/1.conf: Verity: expected one data and one hash of the same VerityMatchKey"
    for given in (
        (data, "Verity=hash\nVerityMatchKey=b\n"),
        (data, "Verity=data\nVerityMatchKey=a\n"),
        (data, "Verity=off\n"),
        ("Verity=hash\n", "Verity=hash\n"),
        (data, "Verity=hash\nVerityMatchKey=a\n", "Verity=hash\nVerityMatchKey=a\n"),
    ):
        with pytest.raises(FormatError, match=wrong):
            read(*given)
    with pytest.raises(
        FormatError, match=r"^.*/1\.conf: Verity: expected CopyFiles=SOURCE:/ for its data, found none"
    ):
        read(data.replace(":/\n", ":/t\n"))
