"""Where calls tell what they do: any object with the methods of ``logging.Logger``, or nowhere.

Knows: the shape of a logger. Refuses to know: where the lines go.
"""

from __future__ import annotations

from typing import Any, Protocol


class Logger(Protocol):
    """What is used of a logger."""

    def debug(self, msg: str, *args: Any) -> None:
        """Tell what only whoever looks for a fault wants to know."""

    def info(self, msg: str, *args: Any) -> None:
        """Tell what was done."""

    def warning(self, msg: str, *args: Any) -> None:
        """Tell what went wrong and was gone around."""


class _Silent:
    def debug(self, msg: str, *args: Any) -> None:
        pass

    def info(self, msg: str, *args: Any) -> None:
        pass

    def warning(self, msg: str, *args: Any) -> None:
        pass


_SILENT = _Silent()


def told(logger: Logger | None) -> Logger:
    """Return the logger, or one that says nothing for None."""
    return _SILENT if logger is None else logger
