"""Names for the numbers of a GUID partition table: partition types and attribute bits.

Types are those of the UAPI Group's Discoverable Partitions Specification (version 1), of UEFI 2.10 table 5.7, and
what GRUB, Microsoft, Apple and Linux document of theirs.

Knows: names. Refuses to know: what anyone does with a partition of a type.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from blockwright.errors import UsageError

_TYPES: Final = {
    "esp": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "xbootldr": "bc13c2ff-59e6-4262-a352-b275fd6f7172",
    "bios-boot": "21686148-6449-6e6f-744e-656564454649",
    "linux-generic": "0fc63daf-8483-4772-8e79-3d69d8477de4",
    "swap": "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
    "home": "933ac7e1-2eb4-4f13-b844-0e14e2aef915",
    "srv": "3b8f8425-20e0-4f3b-907f-1a25a76f98e8",
    "var": "4d21b016-b534-45c2-a9fb-5c16e091fd2d",
    "tmp": "7ec6f557-3bc5-4aca-b293-16ef5df639d1",
    "user-home": "773f91ef-66d4-49b5-bd83-d683bf40ad16",
    "lvm": "e6d6d379-f507-44c2-a23c-238f2a3df928",
    "raid": "a19d880f-05fc-4d3b-a006-743f0f84911e",
    "luks": "ca7d7ccb-63ed-4c53-861c-1742536059cc",
    "dm-crypt": "7ffec5c9-2d00-49b7-8941-3ea10a5586b7",
    "linux-reserved": "8da63339-0007-60c0-c436-083ac8230908",
    "root-arm": "69dad710-2ce4-4e3c-b16c-21a1d49abed3",
    "root-arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
    "root-ia64": "993d8d3d-f80e-4225-855a-9daf8ed7ea97",
    "root-loongarch64": "77055800-792c-4f94-b39a-98c91b762bb6",
    "root-ppc64-le": "c31c45e6-3f39-412e-80fb-4809c4980599",
    "root-riscv32": "60d5a7fe-8e7d-435c-b714-3dd8162144e1",
    "root-riscv64": "72ec70a6-cf74-40e6-bd49-4bda08e8f224",
    "root-s390x": "5eead9a9-fe09-4a1e-a1d7-520d00531306",
    "root-x86": "44479540-f297-41b2-9af7-d131d5f0458a",
    "root-x86-64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "root-arm-verity": "7386cdf2-203c-47a9-a498-f2ecce45a2d6",
    "root-arm64-verity": "df3300ce-d69f-4c92-978c-9bfb0f38d820",
    "root-loongarch64-verity": "f3393b22-e9af-4613-a948-9d3bfbd0c535",
    "root-riscv64-verity": "b6ed5582-440b-4209-b8da-5ff7c419ea3d",
    "root-x86-verity": "d13c5d3b-b5d1-422a-b29f-9454fdc89d76",
    "root-x86-64-verity": "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
    "root-arm64-verity-sig": "6db69de6-29f4-4758-a7a5-962190f00ce3",
    "root-x86-64-verity-sig": "41092b05-9fc8-4523-994f-2def0408b176",
    "usr-arm": "7d0359a3-02b3-4f0a-865c-654403e70625",
    "usr-arm64": "b0e01050-ee5f-4390-949a-9101b17104e9",
    "usr-loongarch64": "e611c702-575c-4cbe-9a46-434fa0bf7e3f",
    "usr-riscv64": "beaec34b-8442-439b-a40b-984381ed097d",
    "usr-x86": "75250d76-8cc6-458e-bd66-bd47cc81a812",
    "usr-x86-64": "8484680c-9521-48c6-9c11-b0720656f69e",
    "usr-arm64-verity": "6e11a4e7-fbca-4ded-b9e9-e1a512bb664e",
    "usr-x86-64-verity": "77ff5f63-e7b6-4633-acf4-1565b864c0e6",
    "usr-arm64-verity-sig": "c23ce4ff-44bd-4b00-b2d4-b41b3419e02a",
    "usr-x86-64-verity-sig": "e7bb33fb-06cf-4e81-8273-e543b413e2e2",
    "microsoft-basic-data": "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
    "microsoft-reserved": "e3c9e316-0b5c-4db8-817d-f92df00215ae",
    "microsoft-recovery": "de94bba4-06d1-4d40-a16a-bfd50179d6ac",
    "apple-apfs": "7c3457ef-0000-11aa-aa11-00306543ecac",
    "apple-hfs": "48465300-0000-11aa-aa11-00306543ecac",
    "chromeos-kernel": "fe3a2a5d-4f32-41a7-b725-accc3285a309",
    "prep": "9e1a2d38-c612-4316-aa26-8b49521e5a8b",
}

TYPES: Final = {name: UUID(text) for name, text in _TYPES.items()}
"""Partition types by name."""

TYPE_NAMES: Final = {guid: name for name, guid in TYPES.items()}
"""Names by partition type."""

_ALIASES: Final = {"linux": "linux-generic", "efi": "esp", "data": "microsoft-basic-data"}

ATTRIBUTES: Final = {
    "required": 0,
    "no-block-io": 1,
    "legacy-boot": 2,
    "growfs": 59,
    "read-only": 60,
    "shadow": 61,
    "hidden": 62,
    "no-auto": 63,
}
"""Attribute bits by name: 0 to 2 are the specification's, the others belong to the type.

59, 60 and 63 are as the Discoverable Partitions Specification has them; 60 to 63 also Microsoft's.
"""


def parse_type(text: str) -> UUID:
    """Return the type that ``text`` names (``esp``, ``root-x86-64``, or any UUID). Raises UsageError otherwise."""
    name = text.lower()
    known = TYPES.get(_ALIASES.get(name, name))
    if known is not None:
        return known
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(f"partition type {text[:64]!r}: expected a UUID or one of {', '.join(TYPES)}") from None


def type_name(guid: UUID) -> str:
    """Return the type's name, or its UUID as text where it has none here."""
    return TYPE_NAMES.get(guid, str(guid))


def parse_attributes(names: list[str]) -> int:
    """Return the attribute bits that the names set; ``bit-N`` names any. Raises UsageError for others."""
    value = 0
    for name in names:
        prefix, _, digits = name.partition("-")
        if name in ATTRIBUTES:
            value |= 1 << ATTRIBUTES[name]
        elif prefix == "bit" and digits.isdecimal() and len(digits) <= 2 and int(digits) < 64:
            value |= 1 << int(digits)
        else:
            raise UsageError(f"attribute {name[:64]!r}: expected bit-0 to bit-63 or one of {', '.join(ATTRIBUTES)}")
    return value


def attribute_names(value: int) -> list[str]:
    """Return the names of the bits that are set, ascending; ``bit-N`` for those without one."""
    names = {bit: name for name, bit in ATTRIBUTES.items()}
    return [names.get(bit, f"bit-{bit}") for bit in range(64) if value >> bit & 1]
