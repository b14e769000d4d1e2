"""What is asked for, and what it is known as: a reference and all that decides which volume comes of it.

A run is called by a hash of the source's identity and of what decides the volume's bytes, so whoever asks for the
same again, now or later, means the same run, and its volume has the same name.

Knows: which words decide. Refuses to know: what any of them does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, Final, Literal, Self

from blockwright.errors import Corrupt, UsageError

Mode = Literal["off", "warn", "enforce"]
MODES: Final[tuple[Mode, ...]] = ("off", "warn", "enforce")
"""What a verdict decides; as ``blockwright.scan`` has them."""
RUN_LENGTH: Final = 12
"""Hexadecimal digits of a run's name."""
_ANYTHING_ELSE: Final = re.compile(r"[^A-Za-z0-9_.]+")
_SCAN: Final = ("scan", "scanner", "scanner_options", "policy")
_FREE: Final = ("activate", "activation", "over", "reference", "sbom", *_SCAN)
"""Fields that do not decide which volume it is."""


@dataclass(frozen=True, slots=True)
class Request:
    """A reference that ``source`` takes, how it is read, and what it becomes.

    ``over`` are further ones, each of archives that are layers over all before. They are in no document where there
    are none, as in those of versions that knew of none.

    ``size`` is the volume's in bytes, None by what it holds. ``limits`` are fields of ``tree.rules.ArchiveRules``
    other than its own. ``scan`` is ``off``, ``warn`` or ``enforce``. ``activation`` is the name of the snapshot that
    ``activate`` asks for, None for one by the volume's name. ``policy`` is the text of a policy's file, and
    ``scanner_options`` are fields of ``scan.ScannerOptions``. ``sbom`` asks for a list of what it holds, to be kept.
    """

    reference: str
    pool: str
    size: int | None = None
    label: str = "root"
    seed: str | None = None
    time_s: int | None = None
    platform: str | None = None
    image: str | None = None
    layers: bool = False
    limits: Mapping[str, Any] | None = None
    scan: Mode = "warn"
    scanner: str | None = None
    scanner_options: Mapping[str, Any] | None = None
    policy: str | None = None
    activate: bool = False
    activation: str | None = None
    over: Sequence[str] = ()
    sbom: bool = False

    @property
    def references(self) -> tuple[str, ...]:
        """All that is asked for, the lowest first."""
        return (self.reference, *self.over)

    @property
    def named(self) -> str:
        """What people call it."""
        return " ".join(self.references)

    def document(self) -> dict[str, Any]:
        """Return the request as JSON has it."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        over = found.pop("over")
        return found | ({"over": list(over)} if over else {})

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Return what ``document`` was made of. Raises Corrupt for anything else."""
        document = {**_LATER, **document}
        for name, kinds in _KINDS.items():
            found = document.get(name)
            if type(found) not in kinds and (name in document or name != "over"):
                wanted = " or ".join(each.__name__ for each in kinds)
                raise Corrupt(f"request: {name}: expected {wanted}, found {type(found).__name__}")
        if document.keys() - _KINDS.keys() or document["scan"] not in MODES:
            raise Corrupt("request: expected the fields of one, found others")
        over = document.get("over", [])
        if not all(type(each) is str for each in over):
            raise Corrupt("request: over: expected text, found something else")
        return cls(**{**document, "over": tuple(over)})

    def run_of(self, identity: Mapping[str, Any]) -> str:
        """Return the name of the run: equal for what gives the same volume."""
        decides = {name: value for name, value in self.document().items() if name not in _FREE}
        text = canonical({"identity": dict(identity), "request": decides})
        return hashlib.sha256(text).hexdigest()[:RUN_LENGTH]

    @property
    def asked_scan(self) -> str:
        """The digest of all that is asked of a scan, but for what becomes of its verdict."""
        asked = {name: getattr(self, name) for name in _SCAN if name != "scan"}
        return f"sha256:{hashlib.sha256(canonical(asked)).hexdigest()}"

    def volume_of(self, run: str) -> str:
        """Return the name of the volume that a run makes: its own, and for people the last reference's last word."""
        from blockwright.volume.info import check_name

        last = self.references[-1].rstrip("/").rpartition("/")[2].partition("@")[0]
        word = _ANYTHING_ELSE.sub("-", last).strip("-_.")[:32]
        return check_name(f"{word or 'image'}-{run}")


_TEXT: Final = (str,)
_MAYBE_TEXT: Final = (str, NoneType)
_MAYBE_SIZE: Final = (int, NoneType)
_MAYBE_TABLE: Final = (dict, NoneType)
_FLAG: Final = (bool,)
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "reference": _TEXT,
    "pool": _TEXT,
    "size": _MAYBE_SIZE,
    "label": _TEXT,
    "seed": _MAYBE_TEXT,
    "time_s": _MAYBE_SIZE,
    "platform": _MAYBE_TEXT,
    "image": _MAYBE_TEXT,
    "layers": _FLAG,
    "limits": _MAYBE_TABLE,
    "scan": _TEXT,
    "scanner": _MAYBE_TEXT,
    "scanner_options": _MAYBE_TABLE,
    "policy": _MAYBE_TEXT,
    "activate": _FLAG,
    "activation": _MAYBE_TEXT,
    "over": (list,),
    "sbom": _FLAG,
}
"""Types of the fields, as JSON gives them."""
_LATER: Final[Mapping[str, Any]] = {"sbom": False}
"""Fields that requests on record may not have yet."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return JSON of which equal documents have equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")


def parse_mode(text: str) -> Mode:
    """Return a mode of scanning. Raises UsageError."""
    for each in MODES:
        if text == each:
            return each
    raise UsageError(f"scan: expected off, warn or enforce, found {text[:64]!r}")
