"""A tree becomes a directory of the host.

Who wrote the tree may be an enemy: its names are never joined to a path of the host, its links are made and never
followed, and what only an owner may grant (set-user-ID bits, ACLs, capabilities) is kept only where owners are.
Nothing gets its name in the target before the whole source was found sound, since a tree is complete before it is
written; a source that passes once has its bodies put aside in the target until then.

Knows: what may be asked for. Refuses to know: directories of the host (``extract_target``), and how a node is made
in one (``extract_write``).
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from blockwright.device.descriptor import name_full
from blockwright.errors import NotSupported, UsageError
from blockwright.tree.content import Content, Fill, Place, Runs
from blockwright.tree.node import Directory, Special, walk

if TYPE_CHECKING:
    if sys.platform != "win32":
        from blockwright.tree.extract_target import Target
    else:
        Target = object

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose files are made: those that the tree names (``keep``), one user's and group's, or by default our own."""

    keep: bool = False
    uid: int | None = None
    gid: int | None = None


KEEP: Final = Owner(keep=True)
ME: Final = Owner()


def default_owner() -> Owner:
    """Return the rule of unpackers: the superuser keeps owners, anybody else has his own."""
    return KEEP if getattr(os, "geteuid", lambda: 1)() == 0 else ME


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """How a tree is extracted.

    ``specials`` says that devices, FIFOs and sockets are made; they are left out otherwise. ``strict`` refuses what
    would be left out. ``force`` adds to a directory that holds something, replacing files of the same name.
    """

    owner: Owner = field(default_factory=default_owner)
    specials: bool = False
    strict: bool = False
    force: bool = False


class Extracted(NamedTuple):
    """How many entries were made, and what was left out: counts by ``special files``, ``extended attributes``."""

    entries: int
    left_out: Counter[str]


class Extraction:
    """A context manager over one extraction to ``path``; without an exception the target is whole when it ends.

    Where it ends with one, what was made is removed, but with ``force`` from a directory that held something.
    Raises UsageError for a target that is no directory, or holds something without ``force``; NotSupported where the
    host cannot name files by directory (Windows); OSError of the host.
    """

    _target: Target

    def __init__(self, path: str, options: ExtractOptions) -> None:
        self._options = options
        self._path = path
        if sys.platform == "win32":
            raise NotSupported("extract: needs a host that opens files by directory and name: Linux or macOS")
        else:  # noqa: RET506  # mypy looks at one branch for each platform
            from blockwright.tree.extract_target import Target

            self._target = Target(path, force=options.force)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.platform != "win32":
            if kind is None:
                self._target.commit()
            else:
                self._target.discard()
                name_full(error, self._path)

    @property
    def place(self) -> Place:
        """Where bodies of a source that passes once are put aside until the tree is known."""
        if sys.platform == "win32":
            raise NotSupported("extract: is not to be had here")
        else:  # noqa: RET506  # as above
            from blockwright.tree.extract_write import Stage

            return Stage(self._target).place

    def write(self, tree: Directory, progress: Progress | None = None, *, owner: Owner | None = None) -> Extracted:
        """Make everything in the tree; ``progress`` is told bytes that were written, and how many there are.

        ``owner`` takes the place of the options' rule, where it is known only when the tree is.

        Raises UsageError for what ``strict`` does not let pass, and for two names that are one to the host's file
        system; SourceChanged; OSError of the host, with a name of the tree.
        """
        if self._options.strict and not self._options.specials:
            _refuse_specials(tree)
        if sys.platform == "win32":
            raise NotSupported("extract: is not to be had here")
        else:  # noqa: RET506  # as above
            from blockwright.tree.extract_write import Writer

            options = self._options if owner is None else replace(self._options, owner=owner)
            return Writer(self._target, options, progress).run(tree)


def extract(tree: Directory, path: str, options: ExtractOptions | None = None) -> Extracted:
    """Have the tree in the directory ``path``. Raises as ``Extraction`` does."""
    with Extraction(path, options or ExtractOptions()) as extraction:
        return extraction.write(tree)


def _refuse_specials(tree: Directory) -> None:
    found = [path for path, node in walk(tree) if isinstance(node, Special)]
    if found:
        shown = ascii(found[0].decode("utf-8", "surrogateescape"))[1:-1]
        raise UsageError(
            f"extract: expected no special files with --strict, found {len(found)}, the first at {shown}: "
            "--specials makes them"
        )


class StagedContent(Content):
    """A body that was put aside in the target under the stage's ``name`` for it."""

    __slots__ = ("_runs", "name")

    def __init__(self, size: int, runs: Runs, name: str) -> None:
        super().__init__(size)
        self._runs = runs
        self.name = name

    def runs(self) -> Runs:
        """Return where data lies."""
        return self._runs

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Refuse: the body is moved, and never copied."""
        raise UsageError(
            "extract: a file of what passes once is needed, and is not read again: expected it in a file"
        )


__all__ = ["KEEP", "ME", "ExtractOptions", "Extracted", "Extraction", "Fill", "Owner", "StagedContent", "extract"]
