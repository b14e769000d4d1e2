"""What installed packages add to us, and whether it can be used: each plugin is imported, as its use would.

It is the one part of the report for which code that is not ours runs. Whatever that raises is told, and what it
prints is not shown: the report's lines are a document's, or a person's.

Knows: groups, and what is expected of each. Refuses to know: what a plugin does.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, Final

from blockwright.format.registry import NAMES as FORMAT_NAMES
from blockwright.format.registry import Format
from blockwright.plugin import DEVICES, FORMATS, GROUPS, SCANNERS, SOURCES
from blockwright.scan.registry import NAMES as SCANNER_NAMES

_GIVES: Final = {
    DEVICES: "{}:… wherever an image is named",
    FORMATS: "--from {0}, --format {0}",
    SOURCES: "{}:… wherever a source is named",
    SCANNERS: "--scanner {}",
}
_OURS: Final = {FORMATS: FORMAT_NAMES, SCANNERS: SCANNER_NAMES}
"""Names for which no package is asked."""
_MAX_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin: its ``group`` and ``name`` there, what that stands for (``value``), whose it is, and its ``problem``.

    ``problem`` is one line, and empty where the plugin can be used. Of a package whose entry points cannot be read
    there is one without a group, since any group may be among them. ``version`` is empty where the package has none.
    """

    group: str
    name: str
    value: str
    package: str
    version: str
    problem: str = ""

    @property
    def gives(self) -> str:
        """What a user can say because of it."""
        return _GIVES[self.group].format(self.name) if self.group else "plugins: none can be looked for"

    @property
    def remedy(self) -> str:
        """What to do where there is a problem."""
        return f"pip install --upgrade {self.package}, or pip uninstall {self.package}" if self.problem else ""


def plugins() -> tuple[Plugin, ...]:
    """Return what installed packages register with us, by group and name; each is imported. Nothing is raised."""
    found: list[tuple[Distribution, EntryPoint]] = []
    unreadable: list[Plugin] = []
    for package in _packages():
        try:
            found += [(package, point) for point in package.entry_points if point.group in GROUPS]
        except Exception as error:  # noqa: BLE001  # whatever is in the file
            name, version = _whose(package)
            problem = f"its entry points cannot be read: {_said(error)}"
            unreadable.append(Plugin("", "", "", name, version, problem))
    values: dict[tuple[str, str], set[str]] = {}
    for _, point in found:
        values.setdefault((point.group, point.name), set()).add(point.value)
    told = [
        Plugin(
            point.group, point.name, point.value, *_whose(package), _problem(point, values[point.group, point.name])
        )
        for package, point in found
    ]
    return (*unreadable, *sorted(told, key=lambda each: (GROUPS.index(each.group), each.name, each.package)))


def _packages() -> Iterator[Distribution]:
    """Yield the installed packages, each once: the first of a name counts, as where plugins are looked for."""
    seen = set()
    for package in distributions():
        name = re.sub(r"[-_.]+", "-", _whose(package)[0]).lower()
        if name not in seen:
            seen.add(name)
            yield package


def _whose(package: Distribution) -> tuple[str, str]:
    """Return a package's name and version, as far as its metadata has them."""
    try:
        return package.metadata["Name"] or "?", package.metadata["Version"] or ""
    except Exception:  # noqa: BLE001  # a package without metadata, or with bytes that are no text
        return "?", ""


def _problem(point: EntryPoint, values: set[str]) -> str:
    """Return why a plugin cannot be used, empty where it can; ``values`` are all that is registered by its name."""
    if point.name in _OURS.get(point.group, ()):
        return f"is never taken: {point.name} is ours"
    if len(values) > 1:
        return f"is never taken: there are several of this name, {' and '.join(sorted(values))}"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            value: Any = point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever its module raises while it is imported
        return f"does not load: {_said(error)}"
    if point.group == FORMATS:
        fits = isinstance(value, Format) and value.name == point.name
        return "" if fits else f"is not the Format of that name: {type(value).__name__}"
    return "" if callable(value) else f"is nothing that can be called: {type(value).__name__}"


def _said(error: BaseException) -> str:
    """Return what an exception says, in one line of some length."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # its own code
        text = ""
    return " ".join(f"{type(error).__name__}: {text}".split()).rstrip(":")[:_MAX_TEXT]
