"""The pages of the repository as Sphinx wants them: in one folder, with links that lead from page to page there.

Knows: which files are pages, links, and the contents of ``docs/index.md``. Refuses to know: what any page says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LINK: Final = re.compile(r"(\]\()([^()\s]+)(\))|(<img src=\")([^\"]+)(\")")
_FENCE: Final = re.compile(r"^ *```")
_CAPTION: Final = re.compile(r"^\*\*([^*]+)\*\*", re.MULTILINE)
_REFERENCE: Final = ("commands/index", "python/index")
_REFERENCE_LINE: Final = (
    "**Reference**, made of the code: [every command](commands/index.md) · [the library](python/index.rst)"
)


class Pages:
    """The pages below ``top``, written below ``folder``."""

    def __init__(self, top: Path, folder: Path) -> None:
        self.top, self.folder = top.resolve(), folder.resolve()
        found = sorted([*self.top.glob("*.md"), *self.top.glob("docs/*.md"), *self.top.glob("bench/*.md")])
        self.names = {each: self._name(each) for each in found}
        if len({*self.names.values()}) != len(self.names):
            raise ValueError(f"two pages have one name: {sorted(self.names.values())}")

    def _name(self, page: Path) -> str:
        """Return what a page is called in the result: ``docs/disk.md`` is ``disk``, ``bench/README.md`` ``bench``."""
        inside = page.relative_to(self.top)
        if inside.parent.name == "docs":
            return inside.stem
        return (inside.parent.name or inside.stem).lower()

    def write(self, *, reference: bool = True) -> None:
        """Write every page; the index has the contents of all, with ``reference`` the generated pages too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for page, name in self.names.items():
            text = "\n".join(self._linked(page))
            if name == "index":
                text += self._contents(page.read_text(encoding="utf-8"), page, reference=reference)
            (self.folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")

    def _linked(self, page: Path) -> Iterator[str]:
        """Yield a page's lines, in which links lead where their targets are now; lines stay where they are."""
        fenced = False
        for line in page.read_text(encoding="utf-8").splitlines():
            if _FENCE.match(line):
                fenced = not fenced
            yield line if fenced else _LINK.sub(lambda found: self._moved(page, found), line)

    def _moved(self, page: Path, found: re.Match[str]) -> str:
        before, link, after = (each for each in found.groups() if each is not None)
        path, mark, anchor = link.partition("#")
        target = (page.parent / path).resolve()
        if "://" in link or not path or not target.exists():  # a link to nothing stays one, and is told of
            return found.group()
        name = f"{self.names[target]}.md" if target in self.names else os.path.relpath(target, self.folder)
        return f"{before}{name}{mark}{anchor}{after}"

    def _contents(self, text: str, page: Path, *, reference: bool) -> str:
        """Return what Sphinx makes the contents of: a part for each caption of the index, then what is generated."""
        pieces = _CAPTION.split(text)
        parts = [
            (caption, tuple(self._pages_in(piece, page)))
            for caption, piece in zip(pieces[1::2], pieces[2::2], strict=True)
        ]
        lines = []
        if reference:
            parts.append(("Reference", _REFERENCE))
            lines += ["", _REFERENCE_LINE]
        for caption, names in parts:
            lines += ["", "```{toctree}", ":hidden:", ":titlesonly:", f":caption: {caption}", "", *names, "```"]
        return "\n" + "\n".join(lines)

    def _pages_in(self, text: str, page: Path) -> Iterator[str]:
        seen = set()
        for found in _LINK.finditer(text):
            target = (page.parent / (found.group(2) or "").partition("#")[0]).resolve()
            name = self.names.get(target)
            if name and name not in seen:
                seen.add(name)
                yield name
