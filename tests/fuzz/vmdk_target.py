"""Fuzz target: any bytes as a VMDK image, a descriptor or an OVA, read, verified, described and changed."""

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError, NoSpace, NotAllowed, NotSupported, UsageError
from blockwright.format.open import Files
from blockwright.format.ova.read import check as check_ova
from blockwright.format.ova.read import open_ova
from blockwright.format.vmdk.check import check
from blockwright.format.vmdk.descriptor import parse, text_of
from blockwright.format.vmdk.open import open_vmdk

MAX_BYTES = 1 << 20
READ = 1 << 16
MAX_EXTENTS = 2000


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError, and what an image may not do, out."""
    data = data[:MAX_BYTES]
    for use in (_read, _change, _check, _ova, _descriptor):
        try:
            use(data)
        except (FormatError, NotAllowed):
            continue


def _read(data: bytes) -> None:
    with open_vmdk(MemoryDevice(content=data), Files()) as disk:
        disk.describe()
        _walk(disk)


def _walk(disk) -> None:
    for offset in {0, disk.size // 2, max(0, disk.size - READ)}:
        try:
            disk.read(offset, min(READ, disk.size - offset))
            for number, _ in enumerate(disk.extents(offset, disk.size - offset)):
                if number > MAX_EXTENTS:
                    break
        except FormatError:
            continue


def _change(data: bytes) -> None:
    try:
        with open_vmdk(MemoryDevice(content=data), Files(), writable=True) as disk:
            length = min(READ, disk.size)
            disk.write(0, b"x" * length)
            disk.zero(0, length)
            disk.write(disk.size - length, b"y" * length)
            disk.flush()
            assert disk.read(disk.size - length, length) == b"y" * length, "what was written is read"
    except (UsageError, NotSupported, NoSpace):
        return


def _check(data: bytes) -> None:
    for _ in check(MemoryDevice(content=data), Files()):
        pass


def _ova(data: bytes) -> None:
    for _ in check_ova(MemoryDevice(content=data)):
        pass
    with open_ova(MemoryDevice(content=data), Files(), writable=False) as disk:
        _walk(disk)


def _descriptor(data: bytes) -> None:
    found = parse(data)
    if all(each.kind != "ZERO" for each in found.extents):
        again = parse(text_of(found))
        assert (again.extents, again.content_id, again.parent) == (found.extents, found.content_id, found.parent)
