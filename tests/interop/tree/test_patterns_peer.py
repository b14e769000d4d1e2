"""Patterns of names, against git."""

import pytest

from blockwright.tree.changes.patterns import Patterns, exclude
from blockwright.tree.node import Directory, File, walk
from tests.support.tools import run, tool

FILES = ["a", "b.pyc", "d/a", "d/b.pyc", "d/e/a", "d/e/f/a", "x y", "d/[z]", "d/e/c1", "d/e/c2", "#n", "!n"]
FILES.append("build/o")


def tree():
    root = Directory()
    for name in FILES:
        *parents, last = name.split("/")
        here = root
        for part in parents:
            here = here.entries.setdefault(part.encode(), Directory())
        here.entries[last.encode()] = File()
    return root


@pytest.mark.parametrize(
    "patterns",
    [
        ["*.pyc"],
        ["/a"],
        ["a"],
        ["d/a"],
        ["d/*"],
        ["**/a"],
        ["d/**"],
        ["d/**/a"],
        ["**/e/**"],
        ["c[12]"],
        ["c[!1]"],
        ["c[^1]"],
        ["c?"],
        ["d/[[]z]"],
        ["\\[z\\]"],
        ["x y"],
        ["*", "!*/", "!a"],
        ["a", "!d/a"],
        ["d/", "!d/a"],
        ["a/"],
        ["e/"],
        ["\\#n", "\\!n"],
        ["build"],
        ["/d/e/c[0-9]"],
        ["d*/**/c1"],
        ["*a*"],
        ["[a-b]"],
        ["**"],
        ["/**/f"],
        ["d/e/"],
    ],
)
def test_patterns_mean_what_they_mean_to_git(patterns, tmp_path):
    git = tool("git")
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / ".gitignore").write_text("".join(f"{each}\n" for each in patterns))
    env = {"HOME": str(tmp_path)}
    run([git, "init", "-q"], cwd=tmp_path, env=env)
    listed = [git, "ls-files", "-z", "--others", "--exclude-from=.gitignore"]
    expected = set(run(listed, cwd=tmp_path, env=env).stdout.split("\0")) - {"", ".gitignore"}
    made = exclude(tree(), Patterns([each.encode() for each in patterns]))
    assert {path.decode() for path, node in walk(made) if isinstance(node, File)} == expected
