"""What a check found: one value for every verifier of tables, formats and file systems.

Knows: the shape of a finding. Refuses to know: who looks for it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule.

    ``rule`` is a stable short name (``ext4.group.free-blocks``), ``message`` a sentence with both values,
    ``offset`` the byte within the checked device, or None where no single place is wrong.
    ``repairable`` says whether the damage can be mended without loss from what else is on the disk.
    """

    rule: str
    message: str
    offset: int | None = None
    repairable: bool = False

    def __str__(self) -> str:
        where = "" if self.offset is None else f" (byte {self.offset})"
        return f"{self.rule}: {self.message}{where}"
