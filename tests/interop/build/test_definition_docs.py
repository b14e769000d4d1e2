"""What docs/definitions.md says: its tables are the code's, its examples run."""

import re
from pathlib import Path

import pytest

from blockwright.build import keys
from tests.support.command import COMMAND, blockwright
from tests.support.tools import run

TEXT = (Path(__file__).parents[3] / "docs" / "definitions.md").read_text()


@pytest.mark.parametrize(
    ("title", "known"), [("Keys of the disk", keys.DISK), ("Keys of a partition", keys.PARTITION)]
)
def test_the_tables_are_the_codes(title: str, known: dict[str, keys.Key]) -> None:
    part = TEXT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    told = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", part, re.MULTILINE))
    assert told == {name: key.help for name, key in known.items()}


def test_the_examples_run(tmp_path: Path) -> None:
    for name in ("etc/hostname", "home/me/notes", "var/lib/x"):
        path = tmp_path / "rootfs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    text = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert text is not None
    (tmp_path / "disk.toml").write_text(text[1])
    (tmp_path / "wrong.toml").write_text("[[partition]]\nmount = '/'\nlable = 'x'\n")
    ran = 0
    for command, told in re.findall(r"^\$ blockwright (.+)\n((?:(?!\$|```).+\n)*)", TEXT, re.MULTILINE):
        (tmp_path / "disk.img").unlink(missing_ok=True)
        done = run([*COMMAND, *command.split()], cwd=tmp_path, ok=(0, 1))
        assert told in ("", done.stdout + done.stderr)
        ran += 1
    assert ran == 4
    blockwright("build", "-f", tmp_path / "disk.toml", "-o", tmp_path / "disk.img")
    blockwright("check", tmp_path / "disk.img")
