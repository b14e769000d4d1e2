import pytest

from blockwright.draw.words import cells, clipped, fit, number, plain


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("a\x1b[31mb\r\n", "a\\x1b[31mb\\r\\n"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("a\u2028b\ufffe\ud800", "a\\u2028b\\ufffe\\ud800"),
    ],
)
def test_what_is_shown_is_printable(given, shown):
    assert plain(given) == shown
    assert plain(given).isprintable()


def test_long_names_end_in_an_ellipsis():
    assert plain("x" * 1000) == "x" * 199 + "…"
    assert len(plain(b"\x01" * 1000)) == 200
    assert plain(b"\xc3\xa9" * 10, 5) == "éééé…"


def test_text_takes_exactly_the_cells_it_has():
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    for text in ("", "short", "日本語のラベル", "longer than that", "e\u0301" * 20):
        for width in range(12):
            assert cells(fit(text, width)) == width, (text, width)
    assert fit("abcdef", 4, "~") == "abc~"


def test_numbers_have_their_nouns():
    assert (number(1, "file"), number(0, "file"), number(2, "entry", "entries")) == ("1 file", "0 files", "2 entries")


@pytest.mark.parametrize(
    ("text", "pixels", "shown"),
    [
        ("swap", 40, "swap"),
        ("linux-generic", 60, "linux-…"),
        ("linux-generic", 20, ""),
        ("esp", 20, ""),
        ("BOOTX64.EFI", 66, "BOOTX6…"),
        ("", 0, ""),
    ],
)
def test_text_is_as_short_as_its_box_wants_it(text, pixels, shown):
    assert clipped(text, pixels) == shown


def test_bold_text_is_wider():
    assert len(clipped("linux-generic", 60, bold=True)) < len(clipped("linux-generic", 60))
