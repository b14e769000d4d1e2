"""Virtual machines to import: what is in an archive, and the disk that is read from one."""

import hashlib
import io
import tarfile
from xml.etree import ElementTree as ET

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import Corrupt, FormatError, LimitExceeded, ReadOnly, Unsupported, UsageError
from blockwright.format.open import Files, format_of
from blockwright.format.ova.driver import DRIVER, Making
from blockwright.format.ova.layout import Machine, stem_of, tar_header, tar_member
from blockwright.format.ova.read import MAX_MEMBERS, check, open_ova
from blockwright.format.ova.write import OvaWriter
from blockwright.format.vmdk.layout import Marker
from blockwright.tree.tar.layout import parse_header
from blockwright.units import GiB, MiB
from tests.support.inprocess import blockwright, document
from tests.support.vmdk import content, stream_of

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
SIZE = 3 * MiB + 512


def archive(data: bytes = b"", machine: Machine = Machine(), name: str = "my disk.ova") -> bytes:  # noqa: B008 - a value
    file = MemoryDevice(0)
    with OvaWriter(file, SIZE, machine, name=name) as out:
        out.write(0, data or content(SIZE, "ova"))
        out.finish()
    return file.read(0, file.size)


def test_members_are_in_order_and_the_manifest_holds():
    made = archive()
    assert made == archive()
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        assert tar.getnames() == ["my_disk.ovf", "my_disk.mf", "my_disk-disk1.vmdk"]
        assert all(each.mtime == each.uid == each.gid == 0 and each.mode == 0o644 for each in tar.getmembers())
        members = {each: tar.extractfile(each).read() for each in tar.getnames()}
    lines = members["my_disk.mf"].decode().splitlines()
    for line, name in zip(lines, ("my_disk.ovf", "my_disk-disk1.vmdk"), strict=True):
        assert line == f"SHA256({name})= {hashlib.sha256(members[name]).hexdigest()}"
    assert Marker.parse(members["my_disk-disk1.vmdk"][-512:]).pack() == bytes(512)
    assert made.endswith(bytes(1024))


def test_the_envelope_describes_the_machine():
    made = archive(machine=Machine(4, 2 * GiB, "efi"))
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        root = ET.fromstring(tar.extractfile("my_disk.ovf").read())
        disk = tar.getmember("my_disk-disk1.vmdk")
    assert root.tag == f"{OVF}Envelope"
    (file,) = root.iter(f"{OVF}File")
    assert (file.get(f"{OVF}href"), file.get(f"{OVF}size")) == (disk.name, str(disk.size))
    (told,) = root.iter(f"{OVF}Disk")
    assert told.get(f"{OVF}capacity") == str(SIZE)
    assert told.get(f"{OVF}fileRef") == file.get(f"{OVF}id")
    assert told.get(f"{OVF}format").endswith("#streamOptimized")
    (system,) = root.iter(f"{OVF}VirtualSystem")
    items = {each.findtext(f"{RASD}ResourceType"): each for each in system.iter(f"{OVF}Item")}
    assert items["3"].findtext(f"{RASD}VirtualQuantity") == "4"
    assert items["4"].findtext(f"{RASD}VirtualQuantity") == "2048"
    assert items["17"].findtext(f"{RASD}HostResource") == f"ovf:/disk/{told.get(f'{OVF}diskId')}"
    assert items["17"].findtext(f"{RASD}Parent") == items["6"].findtext(f"{RASD}InstanceID")
    for each in items.values():
        names = [child.tag for child in each]
        assert names == sorted(names), "the schema has them in this order"
    assert b'vmw:value="efi"' in made
    assert b"vmw:key" not in archive()


def test_the_disk_is_read_from_the_archive():
    data = content(SIZE, "read")
    file = MemoryDevice(content=archive(data))
    assert format_of(file) == "ova"
    assert list(check(file)) == []
    with open_ova(Window(file, 0, owns=False), Files(), writable=False) as disk:
        assert disk.read(0, disk.size) == data
        assert disk.describe().name == "ova"
    with pytest.raises(ReadOnly):
        open_ova(file, Files(), writable=True)


def test_damage_is_told():
    made = bytearray(archive())
    at = made.index(b"<Name>")
    made[at + 6] ^= 1
    (found,) = check(MemoryDevice(content=made))
    assert found.rule == "ova.digest"
    assert found.message.startswith("'")
    made = bytearray(archive())
    made[10240 + 128 * 512] ^= 1
    assert [each.rule for each in check(MemoryDevice(content=made))] == ["ova.digest", "vmdk.marker"]
    disk = stream_of(b"x" * 512)
    ovf = tar_member("a.ovf", b"<x/>")
    for text in (b"nonsense\n", b"SHA256(missing)= " + b"0" * 64 + b"\n"):
        file = MemoryDevice(content=ovf + tar_member("a.mf", text) + tar_member("a.vmdk", disk) + bytes(1024))
        assert [each.rule for each in check(file)] == ["ova.manifest"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Corrupt),
        (bytes(2048), Corrupt),
        (tar_member("a.vmdk", b"x"), Corrupt),
        (tar_member("a.ovf", b"x"), Unsupported),
        (tar_member("a.ovf", b"x") + tar_member("a.vmdk", b"x") + tar_member("b.vmdk", b"x"), Unsupported),
        (tar_member("a.ovf", b"x") + tar_member("a.vmdk", b"x"), FormatError),
        (tar_member("a.ovf", b"x") + tar_header("a.vmdk", 1 << 50), Corrupt),
        (tar_member("a.ovf", b"x") + b"x" * 512, Corrupt),
        (tar_member("a.ovf", b"") * (MAX_MEMBERS + 1), LimitExceeded),
    ],
)
def test_archives_that_are_none(data, error):
    with pytest.raises(error):
        open_ova(MemoryDevice(content=data), Files(), writable=False)


def test_headers_and_names():
    assert parse_header(tar_header("x", 5)).size == 5
    assert parse_header(tar_header("x", 9 * GiB)).size == 9 * GiB
    assert stem_of("../a b&c.ova") == "_a_b_c"
    assert stem_of(".ova") == "disk"
    assert len(stem_of("x" * 300)) < 100
    for machine in (Machine(0), Machine(memory=5), Machine(firmware="coreboot")):
        with pytest.raises(UsageError):
            machine.check()
    assert DRIVER.options({"ova_cpus": "2", "ova_memory": "4G"}, "") == Making(Machine(2, 4 * GiB))
    with pytest.raises(UsageError):
        DRIVER.options({"ova_cpus": "two"}, "")
    with pytest.raises(UsageError, match="written last"):
        OvaWriter(Window(MemoryDevice(MiB), 0), MiB, Machine(), name="x")


def test_the_command(tmp_path):
    data = content(MiB, "command")
    (tmp_path / "raw").write_bytes(data)
    blockwright("convert", tmp_path / "raw", tmp_path / "disk.ova", "--verify", "--ova-memory", "512M")
    assert document("check", tmp_path / "disk.ova")["places"][0]["kind"] == "ova"
    blockwright("convert", tmp_path / "disk.ova", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    told = blockwright("convert", tmp_path / "raw", "-", "--format", "ova", code=2).stderr
    assert b"front to back" in told
    told = blockwright("convert", tmp_path / "raw", tmp_path / "x.ova", "--ova-cpus", "0", code=2).stderr
    assert b"processors" in told
