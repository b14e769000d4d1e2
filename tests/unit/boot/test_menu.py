"""Configuration files of loaders: what each says, and what none can."""

from collections.abc import Callable

import pytest

from blockwright.boot import menu
from blockwright.boot.menu import Entry
from blockwright.errors import UsageError

ENTRY = Entry("A System 1", "/boot/vmlinuz-6.1", "/boot/initrd.img-6.1", "root=PARTUUID=1 quiet", serial=True)


def test_syslinux() -> None:
    assert menu.syslinux(ENTRY).splitlines() == [
        "SERIAL 0 115200",
        "DEFAULT linux",
        "PROMPT 0",
        "TIMEOUT 0",
        "",
        "LABEL linux",
        "  MENU LABEL A System 1",
        "  LINUX /boot/vmlinuz-6.1",
        "  INITRD /boot/initrd.img-6.1",
        "  APPEND root=PARTUUID=1 quiet",
    ]
    assert "SERIAL" not in menu.syslinux(Entry("x", "/a", None, ""))
    assert "INITRD" not in menu.syslinux(Entry("x", "/a", None, ""))


def test_grub() -> None:
    assert menu.grub(ENTRY).splitlines() == [
        "serial --unit=0 --speed=115200",
        "terminal_input console serial",
        "terminal_output console serial",
        "set default=0",
        "set timeout=0",
        "menuentry 'A System 1' {",
        "  linux /boot/vmlinuz-6.1 'root=PARTUUID=1' 'quiet'",
        "  initrd /boot/initrd.img-6.1",
        "}",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("a b", ["a", "b"]),
        ('dyndbg="file x +p" ro', ["dyndbg=file x +p", "ro"]),
        ("x=$y;z", ["x=$y;z"]),
        ('open="never closed', ["open=never closed"]),
        ("  ", []),
    ],
)
def test_words_are_those_that_linux_sees(options: str, words: list[str]) -> None:
    assert menu.kernel_words(options) == words


def test_grub_takes_every_character_for_itself() -> None:
    text = menu.grub(Entry("It's {me}", "/k", None, "x='$(reboot)'"))
    assert "menuentry 'It'\\''s {me}' {" in text
    assert "linux /k 'x='\\''$(reboot)'\\'''" in text


HOSTILE = "Evil\r\n\x0b\x0c\x1a\x1b[2J\x85\u2028\u202e\udcffLABEL x\n  APPEND init=/evil\toptions init=/evil"
"""What an os-release, or the name of a directory of modules, can hold."""


@pytest.mark.parametrize("spell", [menu.syslinux, menu.grub, lambda entry: menu.systemd(entry, "6.1" + HOSTILE)])
def test_a_hostile_title_is_one_printable_line(spell: Callable[[Entry], str]) -> None:
    kind = Entry("Evil", "/k", None, "quiet")
    text, sound = spell(Entry(HOSTILE, "/k", None, "quiet")), spell(kind)
    assert len(text.splitlines()) == len(sound.splitlines())
    assert all(line.isprintable() for line in text.splitlines())
    assert text.endswith("\n")
    for ours, theirs in zip(text.splitlines(), sound.splitlines(), strict=True):
        assert ours == theirs or ours.lstrip().startswith(("MENU LABEL", "menuentry '", "title ", "version "))
    text.encode()


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x0b", "\x1a", "\x1b", "\x7f", "\udcff"])
def test_command_lines_that_loaders_cannot_pass_on_are_refused(character: str) -> None:
    with pytest.raises(UsageError, match="kernel command line: expected"):
        Entry("x", "/k", None, f"quiet{character}init=/evil")
    assert "a\tb" in menu.syslinux(Entry("x", "/k", None, "a\tb"))


def test_titles_are_one_line() -> None:
    assert "MENU LABEL a LABEL b" in menu.syslinux(Entry("a\nLABEL b", "/k", None, ""))
    assert "MENU LABEL Linux\n" in menu.syslinux(Entry(" \n", "/k", None, ""))


@pytest.mark.parametrize("path", ["", "relative", "/a b", "/a,b", "/a\nb", "/ü", "//", "/a/"])
def test_paths_that_loaders_cannot_spell_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match="spell"):
        Entry("x", path, None, "")
    with pytest.raises(UsageError, match="spell"):
        Entry("x", "/k", path, "")
