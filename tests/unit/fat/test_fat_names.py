import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import UsageError
from blockwright.fs.fat import layout
from blockwright.fs.fat.directory import scan
from blockwright.fs.fat.names import Name, ShortNames, check_name, encode_long, exact_short, fold, long_entries

LOWER = layout.LOWER_BASE | layout.LOWER_EXTENSION


@pytest.mark.parametrize(
    ("name", "short", "case"),
    [
        ("README.TXT", b"README  TXT", 0),
        ("readme.txt", b"README  TXT", LOWER),
        ("README.txt", b"README  TXT", layout.LOWER_EXTENSION),
        ("BOOTX64.EFI", b"BOOTX64 EFI", 0),
        ("a", b"A          ", layout.LOWER_BASE),
        ("8LETTERS.3", b"8LETTERS3  ", 0),
        ("~$%'-_@{}.`!#", b"~$%'-_@{}`!#"[:11], None),
    ],
)
def test_names_of_8_3_need_no_long_name(name, short, case):
    if case is None:
        assert exact_short(name) is None  # nine characters
    else:
        assert exact_short(name) == (short, case)


@pytest.mark.parametrize(
    "name",
    [
        "Readme",
        "read me",
        ".bashrc",
        "a.b.c",
        "toolongname",
        "a.html",
        "a+b",
        "\u00e4",
        "\u00df",
        "a,b",
        "x.",
        "[a]",
        "e\u0301",
    ],
)
def test_other_names_need_one(name):
    assert exact_short(name) is None


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Readme.txt", b"README  TXT"),
        ("long file name.text", b"LONGFI~1TEX"),
        (".bashrc", b"BASHRC~1   "),
        ("a.b.c", b"AB~1    C  "),
        ("\u00e4\u00f6.txt", b"__~1    TXT"),
        ("a+b", b"A_B~1      "),
        ("...", None),
        ("....x", b"X~1        "),
        (" a", b"A~1        "),
        ("+++++++++.+++", b"______~1___"),
    ],
)
def test_aliases(name, short):
    if short is None:
        with pytest.raises(UsageError):
            check_name(name.encode(), b"x")
    else:
        assert ShortNames().alias(name) == short


def test_aliases_avoid_names_of_8_3_and_each_other():
    shorts = ShortNames()
    shorts.add(b"LONGFI~1TXT")
    shorts.add(b"README     ")
    assert shorts.alias("long file.txt") == b"LONGFI~2TXT"
    assert shorts.alias("long filing.txt") == b"LONGFI~3TXT"
    assert shorts.alias("Readme") == b"README~1   "


def test_a_full_directory_of_like_names_has_short_names_of_its_own():
    shorts = ShortNames()
    made = {shorts.alias(f"the same beginning {number}") for number in range(60000)}
    assert len(made) == 60000
    many = ShortNames()
    assert len({many.alias(f"{number:05}x long") for number in range(60000)}) == 60000


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (b"a:b", "no ':' in names"),
        (b"a\x01", "in names"),
        (b"a.", "end in a dot"),
        (b"a ", "end in a dot or a space"),
        (b"\xff", "UTF-8"),
        (b"x" * 256, "255 UTF-16"),
        ("\U0001f427".encode() * 128, "255 UTF-16"),
        (b"con", "device"),
        (b"AUX.txt", "device"),
        (b"lpt1", "device"),
        (b"nul .x", "device"),
    ],
)
def test_names_that_fat_has_not_are_refused_by_path(name, what):
    with pytest.raises(UsageError, match=f"dir/file: .*{what}"):
        check_name(name, b"dir/file")


@pytest.mark.parametrize(
    "name", ["x" * 255, "\U0001f427" * 127, "console", "com0", "com10", "a;b,c=[d]+ e", ".x", "a..b"]
)
def test_names_at_the_limits_are_taken(name):
    assert check_name(name.encode(), b"p") == name


def test_case_is_ignored_without_changing_what_a_name_is():
    assert fold("Stra\u00dfe \u00e9") == "STRA\u00dfE \u00c9"
    assert fold("\u0131") != fold("i")
    assert fold("\u017f") != fold("s")
    assert fold("\u03c3") == fold("\u03a3")


@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters='"*/:<>?\\|\x7f', min_codepoint=32), min_size=1, max_size=120
    )
)
def test_long_names_come_back(text):
    name = Name(b"SHORT~1 TXT", 0, encode_long(text))
    data = long_entries(name) + name.short + bytes(21)
    assert len(data) == 32 * name.entries
    (listed,) = scan(data)
    assert listed.name.decode() == (text if text not in (".", "..") else "SHORT~1.TXT")
    assert listed.offset == 32 * (name.entries - 1)


def test_bytes_of_a_long_name_are_the_specifications():
    data = long_entries(Name(b"THEQUI~1FOX", 0, encode_long("The quick brown.fox")))
    assert data[:32].hex(" ") == (
        "42 77 00 6e 00 2e 00 66 00 6f 00 0f 00 07 78 00 00 00 ff ff ff ff ff ff ff ff 00 00 ff ff ff ff"
    )
    assert data[32:64].hex(" ") == (
        "01 54 00 68 00 65 00 20 00 71 00 0f 00 07 75 00 69 00 63 00 6b 00 20 00 62 00 00 00 72 00 6f 00"
    )


def entry(name, **changes):
    return layout.DirEntry(dir_name=name, **changes).pack()


def test_damaged_long_names_leave_the_short_one():
    good = long_entries(Name(b"AB~1       ", 0, encode_long("a long name of two parts")))
    end = entry(b"AB~1       ")
    assert [each.name for each in scan(good + end)] == [b"a long name of two parts"]
    other = entry(b"AB~2       ")
    for bad in (good + other, good[32:] + end, good[:32] + end, good[32:] + good[:32] + end, good + good[32:] + end):
        assert next(scan(bad)).name.startswith(b"AB~")
    deleted = b"\xe5" + good[1:]
    assert [each.name for each in scan(deleted + end)] == [b"AB~1"]


def test_scan_stops_at_the_end_mark():
    assert [each.name for each in scan(entry(b"A          ") + bytes(32) + entry(b"B          "))] == [b"A"]


def test_short_names_in_any_byte():
    (listed,) = scan(entry(b"\x05\xe1/\0    T T"))
    assert listed.name == "\u03c3\u00df__.T T".encode()
    (listed,) = scan(entry(b"ABC     DEF", dir_ntres=layout.LOWER_BASE))
    assert listed.name == b"abc.DEF"


class Counting(set):
    """A set that counts how often it is asked, and ends what asks too often."""

    asked = 0

    def __contains__(self, each):
        Counting.asked += 1
        assert Counting.asked < 100_000
        return super().__contains__(each)


def alias_cost(count):
    """How often the names in use are looked at for so many long names with one beginning."""
    shorts = ShortNames(taken=Counting())
    Counting.asked = 0
    assert len({shorts.alias(f"one common beginning {number}.text") for number in range(count)}) == count
    return Counting.asked


def test_aliases_of_like_names_are_found_without_a_search():
    small, large = alias_cost(1000), alias_cost(10_000)
    assert large <= 11 * small
    assert large < 3 * 10_000


def test_names_that_look_like_aliases_are_passed_once():
    shorts = ShortNames(taken=Counting())
    for number in range(1, 5000):
        shorts.add(
            f"ONECOM~{number}"[:8].encode().ljust(8) + b"TXT"
            if number < 10
            else b"%-8sTXT" % f"{'ONECOM'[: 7 - len(str(number))]}~{number}".encode()
        )
    Counting.asked = 0
    for number in range(1000):
        shorts.alias(f"one common beginning {number}.txt")
    assert Counting.asked < 5000 + 3 * 1000
