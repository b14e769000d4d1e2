"""A policy from a TOML file.

    severities = ["HIGH", "CRITICAL"]
    fixed-only = true
    max-database-age = "7d"          # or "12h", or "any"

    [[allow]]
    id = "CVE-2024-1234"
    package = "openssl"              # without it, of any package
    until = 2027-01-31               # to the end of that day, UTC
    reason = "not reachable from outside"

Knows: how such a file is written, and where each key stands in it. Refuses to know: what keys mean for a verdict.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Final, TypeVar

from blockwright.codec.lines import lines_of
from blockwright.errors import FormatError, LimitExceeded, NotFound, UsageError
from blockwright.scan.policy import DAY_S, DEFAULT_POLICY, Allowed, Budget, Policy
from blockwright.scan.verdict import Severity
from blockwright.units import MiB, parse_size

MAX_FILE: Final = 4 * MiB
"""Bytes of a policy's file."""

MAX_ALLOWED: Final = 100_000
"""Exceptions in a policy."""

_AGE: Final = re.compile(r"([0-9]{1,6})([hd])")
_HEADER: Final = re.compile(r"\s*\[\[\s*(?:allow|\"allow\"|'allow')\s*\]\]")
_KEY: Final = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*[=.]""")
_Value = TypeVar("_Value")


def parse_age(text: str) -> int | None:
    """Return seconds of an age such as ``7d`` or ``12h``, None for ``any``. Raises UsageError."""
    if text == "any":
        return None
    match = _AGE.fullmatch(text)
    if match is None or not int(match[1]):
        raise UsageError(f"expected an age such as 7d or 12h, or any, found {text[:32]!r}")
    return int(match[1]) * (DAY_S if match[2] == "d" else 3600)


def parse_severities(words: object) -> frozenset[Severity]:
    """Return severities by their names, whatever their case. Raises UsageError for others, or for none."""
    names = [each.value for each in Severity]
    if not isinstance(words, (list, tuple)) or not words:
        raise UsageError(f"expected some of {', '.join(names)}, found {words!r:.64}")
    for word in words:
        if not isinstance(word, str) or word.upper() not in names:
            raise UsageError(f"expected some of {', '.join(names)}, found {word!r:.64}")
    return frozenset(Severity(word.upper()) for word in words)


def read_policy(path: str) -> Policy:
    """Return the policy in the file at ``path``. Raises NotFound, OSError, and as ``parse_policy``."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    return parse_policy(data, path)


def parse_policy(data: bytes, path: str) -> Policy:
    """Return the policy that a text of TOML says, as of a file at ``path``.

    What is not said is as in the default policy. Raises FormatError with the line and the key.
    """
    if len(data) > MAX_FILE:
        raise LimitExceeded(f"policy: expected at most {MAX_FILE} bytes, found more", source=path)
    try:
        text = data.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise FormatError("policy: expected UTF-8", source=path, offset=error.start) from None
    except (ValueError, RecursionError) as error:  # also what an integer of too many digits raises
        message = str(error) or "nested too deeply"
        raise FormatError(f"policy: {message[:1].lower()}{message[1:200]}", source=path) from None
    return _Reader(path, text).policy(document)


class _Reader:
    """Reads one document, whose text tells where keys stand."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines: dict[tuple[int | None, str], int] = {}
        index: int | None = None
        for number, line in enumerate(lines_of(text), 1):
            if _HEADER.match(line):
                index = 0 if index is None else index + 1
                self._lines[index, ""] = number
                continue
            key = _KEY.match(line)
            if key is not None:
                self._lines.setdefault((index, key[1] or key[2] or key[3]), number)

    def policy(self, document: Mapping[str, Any]) -> Policy:
        """Return the policy."""
        take = self._take
        made = DEFAULT_POLICY
        known = ["severities", "fixed-only", "max-database-age", "allow-incomplete", "budget-size", "budget-files"]
        self._refuse_others(document, [*known, "allow"], None)
        if "severities" in document:
            made = replace(made, severities=take(document, "severities", None, parse_severities))
        if "fixed-only" in document:
            made = replace(made, fixed_only=take(document, "fixed-only", None, _flag))
        if "max-database-age" in document:
            age_s = take(document, "max-database-age", None, lambda value: parse_age(_text(value)))
            made = replace(made, max_database_age_s=age_s)
        if "allow-incomplete" in document:
            made = replace(made, allow_incomplete=take(document, "allow-incomplete", None, _flag))
        budget = Budget()
        if "budget-size" in document:
            budget = replace(budget, size=take(document, "budget-size", None, _size))
        if "budget-files" in document:
            budget = replace(budget, files=take(document, "budget-files", None, _count))
        return replace(made, budget=budget, allow=self._allow(document))

    def _allow(self, document: Mapping[str, Any]) -> tuple[Allowed, ...]:
        tables = document.get("allow", [])
        if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
            raise self._error("allow", None, "expected [[allow]] tables, found another value")
        if len(tables) > MAX_ALLOWED:
            raise LimitExceeded(f"policy: expected at most {MAX_ALLOWED} exceptions, found more", source=self._path)
        return tuple(self._allowed(table, index) for index, table in enumerate(tables))

    def _allowed(self, table: Mapping[str, Any], index: int) -> Allowed:
        take = self._take
        self._refuse_others(table, ["id", "package", "until", "reason"], index)
        for key in ("id", "until"):
            if key not in table:
                raise self._error(key, index, "expected it in every exception, found none")
        return Allowed(
            identity=take(table, "id", index, _name),
            until=take(table, "until", index, _day),
            package=take(table, "package", index, _text) if "package" in table else "",
            reason=take(table, "reason", index, _text) if "reason" in table else "",
        )

    def _take(
        self, table: Mapping[str, Any], key: str, index: int | None, parse: Callable[[object], _Value]
    ) -> _Value:
        try:
            return parse(table[key])
        except ValueError as error:
            raise self._error(key, index, str(error)) from None

    def _refuse_others(self, table: Mapping[str, Any], known: list[str], index: int | None) -> None:
        for key in table:
            if key not in known:
                raise self._error(key, index, f"expected one of {', '.join(known)}")

    def _error(self, key: str, index: int | None, message: str) -> FormatError:
        line = self._lines.get((index, key)) or self._lines.get((index, ""))
        place = self._path if line is None else f"{self._path}:{line}"
        return FormatError(f"policy: {key[:64]}: {message}", source=place)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"expected true or false, found {value!r:.64}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"expected a text, found {value!r:.64}")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"expected a name, found {value!r:.64}")
    return value


def _day(value: object) -> date:
    if isinstance(value, datetime) or not isinstance(value, date):
        raise UsageError(f"expected a date such as 2027-01-31, found {value!s:.64}")
    return value


def _size(value: object) -> int:
    size = value if isinstance(value, int) and not isinstance(value, bool) else parse_size(_text(value))
    if size <= 0:
        raise UsageError(f"expected a size above 0, found {size}")
    return size


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise UsageError(f"expected a number above 0, found {value!r:.64}")
    return value
