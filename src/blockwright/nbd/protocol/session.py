"""What two ends agreed on: the export, and how requests and replies are framed.

Knows: the outcome of a handshake. Refuses to know: how it was reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blockwright.nbd.wire import TransmissionFlag
from blockwright.units import KiB, MiB


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """An export's blocks in bytes: every request is a multiple of ``minimum``, a payload at most ``maximum``."""

    minimum: int = 1
    preferred: int = 4 * KiB
    maximum: int = 32 * MiB


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """What a server tells of an export: ``size`` in bytes, ``flags`` as they are sent.

    ``blocks`` is None where the server did not tell. ``description`` is empty where it has none.
    """

    name: str
    size: int
    flags: TransmissionFlag
    blocks: BlockSizes | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """A finished handshake: the export and the framing of all that follows.

    ``contexts`` maps the ids of block status to the names that were selected. ``extended`` implies ``structured``.
    """

    export: ExportInfo
    structured: bool = False
    extended: bool = False
    contexts: dict[int, str] = field(default_factory=dict)
    tls: bool = False
