"""The colours of every drawing and page, light and dark, as CSS: few, and told by shape or pattern too.

Text has a contrast of at least 4.5 to what is behind it (WCAG 2.2, 1.4.3), shapes at least 3 (1.4.11).

Knows: colours. Refuses to know: what has them.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Theme(NamedTuple):
    """Colours by what they are for; ``on_…`` is text upon one."""

    page: str
    panel: str
    ink: str
    quiet: str
    line: str
    data: str
    on_data: str
    zero: str
    boot: str
    bad: str
    good: str
    part: str
    on_part: str
    folder: str
    inner: str
    file: str


LIGHT: Final = Theme(
    page="#ffffff",
    panel="#f5f7f9",
    ink="#1a2027",
    quiet="#56616c",
    line="#8a949e",
    data="#1763b6",
    on_data="#ffffff",
    zero="#a85400",
    boot="#7a3fb5",
    bad="#b3261e",
    good="#1b6e3c",
    part="#dbe9f8",
    on_part="#12293f",
    folder="#cfe2f5",
    inner="#e6f0fa",
    file="#f3e6d3",
)
DARK: Final = Theme(
    page="#10151b",
    panel="#181f27",
    ink="#e8edf2",
    quiet="#a3adb8",
    line="#6d7883",
    data="#62a8f0",
    on_data="#07121d",
    zero="#e9973f",
    boot="#bf94f0",
    bad="#ff8a80",
    good="#6fcf97",
    part="#1d3550",
    on_part="#e3effb",
    folder="#1f3a57",
    inner="#182b40",
    file="#3b2f20",
)


def css() -> str:
    """Return both themes as custom properties of the root; printed, a page is light."""
    dark = f"@media screen and (prefers-color-scheme: dark){{:root{{{_properties(DARK)}}}}}"
    return f":root{{color-scheme:light dark;{_properties(LIGHT)}}}\n{dark}\n"


def _properties(theme: Theme) -> str:
    return "".join(f"--{name.replace('_', '-')}:{value};" for name, value in theme._asdict().items())
