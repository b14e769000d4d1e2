"""Tables of device-mapper as text: lines as people write them, what is refused, keys that are not shown."""

import random

import pytest

from blockwright.errors import UsageError
from blockwright.system.linux import dm
from blockwright.system.linux.dm import tables
from blockwright.system.linux.dm.layout import Line
from blockwright.system.linux.dm.text import format_line, parse_table, without_keys
from blockwright.units import KiB, MiB

KEY = "c0ffee" * 10 + "c0de"
ROOT = "ab" * 32


def test_lines_follow_each_other_and_remarks_say_nothing():
    rows = ["# a disk", "", "0 2048 linear /dev/sdb 8", "\t2048\t 2048  striped  2 128 7:0 0\t7:1 2048 \r", "  # end"]
    assert parse_table("\n".join([*rows, "4096 1 zero"])) == [
        dm.Linear(MiB, "/dev/sdb", 4096),
        dm.Striped(MiB, 64 * KiB, (("7:0", 0), ("7:1", MiB))),
        dm.Zero(512),
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        "linear /dev/sdb 0 more",
        "linear /dev/sdb 0x10",
        "linear /dev/sdb 1_0",
        "linear /dev/sdb 010",
        "linear /dev/sdb \u0661",
        "linear /dev/a\\ b 0",
        "zero nothing",
        "error 7:0 0",
        f"verity 1 7:0 7:1 4096 4096 255 0 sha256 {ROOT} -",
        f"verity 1 7:0 7:1 0 4096 256 0 sha256 {ROOT} -",
        f"verity 1 7:0 7:1 4096 4096 256 0 sha256 {ROOT.upper()} -",
        "thin-pool 7:0 7:1 128 0 2 error_if_no_space skip_block_zeroing",
        "flakey 7:0 0 1 2",
        "nonsense",
    ],
)
def test_what_a_type_would_say_in_other_words_goes_to_the_kernel_as_it_stands(parameters):
    kind, _, text = parameters.partition(" ")
    assert parse_table(f"0 2048 {parameters}") == [dm.Other(MiB, kind, text)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t: expected a table of one target or more, found none"),
        ("# 0 8 zero\n \n", "found none"),
        ("zero", "t: line 1: expected a start in sectors, found 'zero'"),
        ("-1 8 zero", "expected a start in sectors, found '-1'"),
        ("0", "line 1: expected a length in sectors, found ''"),
        ("0 8k zero", "expected a length in sectors, found '8k'"),
        ("0 " + "9" * 5000 + " zero", "expected a length in sectors, found '9999"),
        ("0 0 zero", "expected a length of 1 to 18014398509481983 sectors, found 0"),
        ("0 18014398509481984 zero", "found 18014398509481984"),
        ("0 8", "expected a type of 1 to 15 bytes, found ''"),
        ("0 8 sixteen-letters-", "expected a type of 1 to 15 bytes, found 'sixteen-letters-'"),
        ("0 8 linear /dev/sdb\0 0", "line 1: expected text, found a NUL"),
        ("8 8 zero", "line 1: expected it to start at sector 0, where the line before ends, found 8"),
        ("0 8 zero\n\n9 8 zero", "line 3: expected it to start at sector 8, .*, found 9"),
        ("0 8 zero\n4 8 zero", "line 2: expected it to start at sector 8, .*, found 4"),
    ],
)
def test_what_no_table_can_be_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_table(text, "t")


def test_no_message_has_a_key():
    for place in ("x 8", "0 x", "8 8", "0 0"):
        with pytest.raises(UsageError) as caught:
            parse_table(f"{place} crypt aes-xts-plain64 {KEY} 0 7:0 0")
        assert KEY not in str(caught.value)


def test_any_text_is_a_table_or_refused():
    words = ["0", "8", "16", "linear", "verity", "crypt", "snapshot", "thin-pool", "7:0", "P", "#", "\n", "-1"]
    taken = 0
    for seed in range(4000):
        source = random.Random(seed)
        text = "0 8 " * source.randrange(2) + " ".join(source.choices(words, k=source.randrange(14)))
        try:
            found = parse_table(text)
        except UsageError:
            continue
        taken += 1
        lines = tables.lines(found)
        assert parse_table("\n".join(map(format_line, lines))) == found, seed
        rows = [row.split() for row in text.split("\n") if row.strip() and not row.strip().startswith("#")]
        assert [format_line(line).split() for line in lines] == rows, seed
    assert taken > 200


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("crypt", f"aes-xts-plain64 {KEY} 0 7:0 8 1 allow_discards", "aes-xts-plain64 {} 0 7:0 8 1 allow_discards"),
        ("crypt", f"aes {KEY}", "aes {}"),
        ("crypt", "aes-xts-plain64 :32:logon:name 0 7:0 8", "aes-xts-plain64 :32:logon:name 0 7:0 8"),
        ("crypt", "aes", "aes"),
        ("crypt", "", ""),
        (
            "integrity",
            f"7:0 0 32 J 2 internal_hash:hmac(sha256):{KEY} journal_mac:hmac(sha256):{KEY}",
            "7:0 0 32 J 2 internal_hash:hmac(sha256):{} journal_mac:hmac(sha256):{}",
        ),
        ("integrity", "7:0 0 4 J 1 internal_hash:crc32c", "7:0 0 4 J 1 internal_hash:crc32c"),
        ("linear", "7:0 0", "7:0 0"),
    ],
)
def test_keys_are_zeros(kind, text, shown):
    zeros = "0" * len(KEY)
    assert without_keys(Line(0, 8, kind, text)) == Line(0, 8, kind, shown.format(zeros, zeros))
