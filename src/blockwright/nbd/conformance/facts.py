"""What a server offers, and so which rules speak of it.

Knows: which need follows from what. Refuses to know: how it is found out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from blockwright.nbd.conformance.model import Need
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.wire import BASE_ALLOCATION, HandshakeFlag, TransmissionFlag
from blockwright.units import MiB

LARGE_READ: Final = 33 * MiB
"""More than the 32 MiB that clients keep to where nothing was advertised ("Block size constraints")."""

_NONE: Final = TransmissionFlag(0)


@dataclass(slots=True)
class Facts:
    """What a look at the server has shown; what it refused to show is as if it were not there.

    ``entered`` says that the export can be used and holds something, ``flags`` are those without structured replies,
    ``structured_flags`` those with them. ``blocks`` is what it told when asked. ``contexts`` are the names that
    LIST_META_CONTEXT gave and SET_META_CONTEXT selects.
    """

    handshake_flags: int = 0
    many: bool = False
    tls_inside: bool = False
    tls_offered: bool = False
    tls_forced: bool = False
    info: bool = False
    strict_names: bool = False
    entered: bool = False
    why_not_entered: str = ""
    size: int = 0
    flags: TransmissionFlag = _NONE
    structured_flags: TransmissionFlag = _NONE
    extended_flags: TransmissionFlag = _NONE
    blocks: BlockSizes | None = None
    structured: bool = False
    extended: bool = False
    contexts: list[str] = field(default_factory=list)

    def missing(self, need: Need) -> str | None:
        """Return why ``need`` is not met, None where it is."""
        if self._has(need):
            return None
        if (
            self.tls_forced
            and not self.tls_inside
            and need not in (Need.TLS, Need.NO_TLS, Need.ZEROES_KEPT, Need.MANY)
        ):
            return f"needs {need.value}: the server insists on TLS, and the address is one without"
        if need is Need.EXPORT and self.why_not_entered:
            return f"needs {need.value}: {self.why_not_entered}"
        return f"needs {need.value}"

    def _has(self, need: Need) -> bool:
        flag = _FLAGS.get(need)
        if flag is not None:
            return self.entered and flag in self.flags
        return {
            Need.EXPORT: self.entered,
            Need.MANY: self.many,
            Need.OFFERS_TLS: self.tls_offered,
            Need.NO_TLS: not self.tls_offered and not self.tls_inside,
            Need.FORCED_TLS: self.tls_forced,
            Need.SELECTIVE_TLS: self.tls_offered and not self.tls_forced,
            Need.TLS: self.tls_inside,
            Need.INFO: self.info,
            Need.STRICT_NAMES: self.strict_names,
            Need.ZEROES_KEPT: not self.handshake_flags & HandshakeFlag.NO_ZEROES,
            Need.STRUCTURED: self.entered and self.structured,
            Need.EXTENDED: self.entered and self.extended,
            Need.CONTEXTS: self.structured and bool(self.contexts),
            Need.ALLOCATION: self.entered and self.structured and BASE_ALLOCATION in self.contexts,
            Need.WRITABLE: self.entered and TransmissionFlag.READ_ONLY not in self.flags,
            Need.NO_FAST_ZERO: self._zeroes_slowly(),
            Need.NO_CACHE: self.entered and TransmissionFlag.SEND_CACHE not in self.flags,
            Need.DF: self.structured and TransmissionFlag.SEND_DF in self.structured_flags,
            Need.NO_DF: self.structured and TransmissionFlag.SEND_DF not in self.structured_flags,
            Need.RESIZE_UNKNOWN: self.entered and TransmissionFlag.SEND_RESIZE not in self.flags,
            Need.PAYLOAD_FILTER: self.extended and TransmissionFlag.BLOCK_STATUS_PAYLOAD in self.extended_flags,
            Need.BLOCK_SIZES: self.blocks is not None,
            Need.COARSE_BLOCKS: self.blocks is not None and self.blocks.minimum > 1,
            Need.SMALL_MAXIMUM: self.blocks is not None and self.blocks.maximum < min(self.size, 1 << 32),
            Need.NO_MAXIMUM: self.entered and self.blocks is None and self.size >= LARGE_READ,
        }[need]

    def _zeroes_slowly(self) -> bool:
        zeroes, fast = TransmissionFlag.SEND_WRITE_ZEROES, TransmissionFlag.SEND_FAST_ZERO
        return self.entered and zeroes in self.flags and fast not in self.flags


_FLAGS = {
    Need.READ_ONLY: TransmissionFlag.READ_ONLY,
    Need.FLUSH: TransmissionFlag.SEND_FLUSH,
    Need.FUA: TransmissionFlag.SEND_FUA,
    Need.TRIM: TransmissionFlag.SEND_TRIM,
    Need.ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
    Need.FAST_ZERO: TransmissionFlag.SEND_FAST_ZERO,
    Need.CACHE: TransmissionFlag.SEND_CACHE,
    Need.MULTI_CONN: TransmissionFlag.CAN_MULTI_CONN,
}
