"""Bytes of an OVA beside its disk: tar headers, the OVF descriptor, and the manifest.

Knows: what stands in each. Refuses to know: files.

Source: DMTF DSP0243, Open Virtualization Format Specification 1.1.0, sections 5 (package), 7 (envelope) and 8
(virtual hardware); POSIX.1-2017 pax, ustar Interchange Format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from blockwright.errors import UsageError
from blockwright.tree.tar.layout import BLOCK
from blockwright.units import GiB, MiB, align_up

ROOM: Final = 8 * 1024
"""Bytes of the OVF member: fixed, so that the disk can be written before it is known what is said of it."""
MAX_STEM: Final = 60
FIRMWARES: Final = ("bios", "efi")
FORMAT_URI: Final = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_OCTAL_LIMIT: Final = 8 * GiB


@dataclass(frozen=True, slots=True)
class Machine:
    """What the virtual machine has beside its disk: processors, bytes of memory, firmware."""

    cpus: int = 1
    memory: int = GiB
    firmware: str = "bios"

    def check(self) -> None:
        """Raise UsageError for what no machine has."""
        if not 1 <= self.cpus <= 4096:
            raise UsageError(f"ova: expected 1 to 4096 processors, found {self.cpus}")
        if self.memory % MiB or not MiB <= self.memory <= 1 << 50:
            raise UsageError(f"ova: expected whole MiB of memory, found {self.memory} bytes")
        if self.firmware not in FIRMWARES:
            raise UsageError(f"ova: expected the firmware {' or '.join(FIRMWARES)}, found {self.firmware[:40]!r}")


def stem_of(name: str) -> str:
    """Return what the members of the archive ``name`` are called by: plain characters, as every importer takes."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", name.removesuffix(".ova")).lstrip(".-")[:MAX_STEM]
    return stem or "disk"


def tar_header(name: str, size: int) -> bytes:
    """Return the ustar header of a regular file; a size that octal digits do not hold is told in base 256."""
    assert len(name) <= 100, "stem_of sees to it"
    length = b"%011o\0" % size if size < _OCTAL_LIMIT else (size | 1 << 95).to_bytes(12, "big")
    parts = (
        name.encode().ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        length,
        b"%011o\0" % 0,
        b" " * 8,
        b"0",
        bytes(100),
        b"ustar\x0000",
        bytes(32),
        bytes(32),
        b"0000000\0",
        b"0000000\0",
    )
    block = b"".join(parts).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def tar_member(name: str, data: bytes) -> bytes:
    """Return a whole member: header, data, and zeros to the end of its last block."""
    return tar_header(name, len(data)) + data.ljust(align_up(len(data), BLOCK), b"\0")


def manifest(digests: list[tuple[str, str]]) -> bytes:
    """Return the manifest of (name, hexadecimal SHA-256) of each member that it covers."""
    return "".join(f"SHA256({name})= {digest}\n" for name, digest in digests).encode()


def envelope(stem: str, disk: str, disk_size: int, capacity: int, machine: Machine) -> bytes:
    """Return the OVF descriptor of a machine with one disk of ``capacity`` bytes, ``ROOM`` bytes long.

    ``disk`` is the member that holds it, of ``disk_size`` bytes.
    """
    config = "" if machine.firmware == "bios" else _CONFIG
    text = _ENVELOPE.format(
        name=escape(stem),
        id=quoteattr(stem),
        href=quoteattr(disk),
        size=disk_size,
        capacity=capacity,
        uri=FORMAT_URI,
        cpus=machine.cpus,
        memory=machine.memory // MiB,
        config=config,
    ).encode()
    assert len(text) < ROOM, "names are short"
    return text + b"\n" * (ROOM - len(text))


_CONFIG: Final = '\n      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>'

_ENVELOPE: Final = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
    xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="file1" ovf:href={href} ovf:size="{size}"/>
  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
    <Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="{capacity}" ovf:capacityAllocationUnits="byte"
        ovf:format="{uri}"/>
  </DiskSection>
  <VirtualSystem ovf:id={id}>
    <Info>A virtual machine</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="1">
      <Info>The operating system in it</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:Description>Virtual CPUs</rasd:Description>
        <rasd:ElementName>CPU</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>{cpus}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:Description>Memory</rasd:Description>
        <rasd:ElementName>Memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>{memory}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:Description>SCSI controller</rasd:Description>
        <rasd:ElementName>SCSI controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Hard disk 1</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>{config}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""
