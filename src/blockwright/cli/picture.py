"""What ``inspect`` draws: the terminal it draws on, and files of pictures.

Knows: terminals, locales and outputs. Refuses to know: what a picture shows.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable

from blockwright.check import Place, check_image
from blockwright.cli.output import write_file
from blockwright.draw.picture import Picture
from blockwright.draw.terminal import Style
from blockwright.errors import NotThisFormat
from blockwright.format.policy import Policy


def terminal_style(width: int | None, color: str) -> Style | None:
    """Return how standard output is drawn on: as wide as its terminal, or as asked; None where it is no terminal.

    ``color`` is auto, always or never; with auto, a terminal has colours unless NO_COLOR is set or TERM is dumb.
    """
    terminal = sys.stdout.isatty()
    if width is None and not terminal:
        return None
    colored = color == "always"
    if color == "auto":
        colored = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return Style(width or shutil.get_terminal_size().columns, colored, _is_unicode())


def _is_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").replace("_", "") == "utf8"


def write_picture(path: str, picture: Picture, kind: str, *, force: bool) -> None:
    """Make a picture of a kind, svg or html, appear under its name. Raises as ``write_file`` does."""
    if kind == "svg":
        from blockwright.draw.svg import document
    else:
        from blockwright.draw.html import document
    write_file(path, [document(picture).encode()], "a picture", force=force)


def places_of(
    image: str, *, partition: int | None, force_unlocked: bool, form: str | None, policy: Policy
) -> Iterable[Place]:
    """Yield what a check finds in an image; that nothing in it can be checked is no finding."""
    try:
        yield from check_image(image, partition=partition, force_unlocked=force_unlocked, form=form, policy=policy)
    except NotThisFormat:
        return
