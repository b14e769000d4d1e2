"""Builds the documentation as HTML: what the repository's pages say, and what the code says of itself.

docs/site/build.py DIRECTORY
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
TOP: Final = HERE.parents[1]
sys.path.insert(0, str(TOP))

from sphinx.cmd.build import main as sphinx

from blockwright.cli.run import root
from docs.site import commands, library
from docs.site.pages import Pages

_FETCHED: Final = re.compile(r"<(?:link|script|img|iframe|source)\b[^>]*?\b(?:href|src)=\"((?:https?:)?//[^\"]+)\"")
_IN_STYLE: Final = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)")


def stage(top: Path, folder: Path) -> None:
    """Write the pages of ``top`` below ``folder``, and those that are made of the code."""
    Pages(top, folder).write()
    for name, made, suffix in (("commands", commands.pages(root), "md"), ("python", library.pages(), "rst")):
        (folder / name).mkdir()
        for page, text in made:
            (folder / name / f"{page}.{suffix}").write_text(text + "\n", encoding="utf-8")


def make(source: Path, output: Path) -> bool:
    """Have Sphinx make HTML of staged pages, and say whether it had nothing to warn of."""
    words = ["-q", "-W", "--keep-going", "-n", "-b", "html", "-c", str(HERE), "-d", f"{source}.doctrees"]
    try:
        return sphinx([*words, str(source), str(output)]) == 0
    finally:
        shutil.rmtree(f"{source}.doctrees", ignore_errors=True)


def fetched(folder: Path) -> list[str]:
    """Return what the pages below ``folder`` would fetch from elsewhere to be shown."""
    found = []
    for path in sorted(folder.rglob("*")):
        expression = {".html": _FETCHED, ".css": _IN_STYLE}.get(path.suffix)
        if expression is not None:
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(folder)}: {each}" for each in expression.findall(text)]
    return found


def main(directory: str) -> int:
    """Build anew, and say where. What was staged stays behind a failure, since messages name places in it."""
    output = Path(directory).resolve()
    source = output.with_name(f"{output.name}.source")
    for each in (output, source):
        shutil.rmtree(each, ignore_errors=True)
    stage(TOP, source)
    good = make(source, output)
    for stranger in fetched(output):
        print(f"{stranger}: is fetched from elsewhere", file=sys.stderr)
        good = False
    if good:
        shutil.rmtree(source)
        print(output / "index.html")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
