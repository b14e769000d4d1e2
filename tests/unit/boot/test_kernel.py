import pytest

from blockwright.boot.cmdline import with_root, with_serial, with_verity_root
from blockwright.boot.image import efi_suffix, linux_version
from blockwright.boot.kernel import find_kernel, named_kernel, os_release, os_title
from blockwright.boot.uefi import file_name, kernel_as_program, kernel_entry, systemd_boot
from blockwright.errors import NotThisFormat, UsageError
from blockwright.tree import BytesContent, Directory, File, Symlink
from blockwright.tree.lookup import lookup
from blockwright.tree.overlay import with_files


def program(machine: int = 0x8664, version: str = "") -> bytes:
    """A PE header, and the x86 boot protocol's header with a version text where one is asked for."""
    data = bytearray(0x600)
    data[:2] = b"MZ"
    data[0x3C:0x40] = (0x80).to_bytes(4, "little")
    data[0x80:0x84] = b"PE\0\0"
    data[0x84:0x86] = machine.to_bytes(2, "little")
    if version:
        data[0x202:0x206] = b"HdrS"
        data[0x20E:0x210] = (0x300).to_bytes(2, "little")
        text = version.encode() + b" (who@where) #1\0"
        data[0x500 : 0x500 + len(text)] = text
    return bytes(data)


def tree(files: dict[str, bytes | Symlink]) -> Directory:
    root = Directory()
    for path, value in files.items():
        *parents, name = path.encode().split(b"/")
        here = root
        for parent in parents:
            child = here.entries.setdefault(parent, Directory())
            assert isinstance(child, Directory)
            here = child
        here.entries[name] = value if isinstance(value, Symlink) else File(content=BytesContent(value))
    return root


def text(root: Directory, path: str) -> bytes:
    node = lookup(root, path.encode())
    assert isinstance(node, File)
    assert isinstance(node.content, BytesContent)
    return node.content.data


@pytest.mark.parametrize(
    ("machine", "suffix"), [(0x8664, "X64"), (0xAA64, "AA64"), (0x14C, "IA32"), (0x5064, "RISCV64")]
)
def test_the_machine_names_the_file(machine: int, suffix: str) -> None:
    assert efi_suffix(BytesContent(program(machine)), "k") == suffix


@pytest.mark.parametrize("data", [b"", b"MZ", b"\x7fELF" + bytes(100), program(0xBEEF), b"MZ" + b"\xff" * 100])
def test_what_is_no_program_is_refused(data: bytes) -> None:
    with pytest.raises(NotThisFormat):
        efi_suffix(BytesContent(data), "k")


def test_a_kernel_tells_its_version() -> None:
    assert linux_version(BytesContent(program(version="6.1.0-9"))) == "6.1.0-9"
    assert linux_version(BytesContent(program())) is None
    assert linux_version(BytesContent(b"")) is None
    assert named_kernel("k", BytesContent(program())).version == "linux"


def test_the_newest_kernel_is_found_with_its_own_ram_disk() -> None:
    root = tree(
        {
            "boot/vmlinuz-6.9.1": program(),
            "boot/vmlinuz-6.10.1": program(),
            "boot/vmlinuz-6.11.0.old": program(),
            "boot/initrd.img-6.10.1": b"right",
            "boot/initrd.img-6.9.1": b"wrong",
        }
    )
    found = find_kernel(root)
    assert found is not None
    assert found.version == "6.10.1"
    assert found.initrd is not None
    assert found.initrd.size == 5


def test_a_kernel_beside_its_modules_and_through_links() -> None:
    root = tree({"usr/lib/modules/6.2/vmlinuz": program(version="6.2"), "lib": Symlink(b"usr/lib")})
    found = find_kernel(root)
    assert found is not None
    assert found.version == "6.2"
    linked = tree({"vmlinuz": Symlink(b"/boot/vmlinuz-5"), "boot/vmlinuz-5": program()})
    assert find_kernel(linked) is not None
    assert find_kernel(tree({"vmlinuz": Symlink(b"vmlinuz")})) is None
    assert find_kernel(tree({"boot/readme": b"x"})) is None


def test_the_system_names_itself() -> None:
    assert os_title(os_release(tree({"etc/os-release": b"NAME=x\nPRETTY_NAME='Some System'\n"}))) == "Some System"
    assert os_title(os_release(tree({"usr/lib/os-release": b"PRETTY_NAME=Bare\n"}))) == "Bare"
    assert os_title(os_release(tree({"etc/os-release": Symlink(b"etc/os-release")}))) == "Linux"


def test_the_boot_partition_of_systemd_boot() -> None:
    kernel = named_kernel("k", BytesContent(program(version="6.1")), BytesContent(b"initrd"))
    files = systemd_boot(kernel, BytesContent(b"loader"), kernel_entry(kernel, title="T", options="root=x"), "X64")
    root = with_files(Directory(), files, mtime_ns=7)
    assert text(root, "EFI/BOOT/BOOTX64.EFI") == b"loader"
    assert text(root, "6.1/linux") == program(version="6.1")
    assert text(root, "6.1/initrd") == b"initrd"
    entry = text(root, "loader/entries/6.1.conf").decode().splitlines()
    assert entry == ["title T", "version 6.1", "linux /6.1/linux", "initrd /6.1/initrd", "options root=x"]
    assert b"default 6.1.conf" in text(root, "loader/loader.conf")
    assert root.entries[b"6.1"].mtime_ns == 7


def test_hostile_versions_and_command_lines() -> None:
    kernel = named_kernel("k", BytesContent(program(version="../../x")))
    entry = kernel_entry(kernel, title="T", options="")
    assert set(systemd_boot(kernel, BytesContent(b""), entry, "X64")) == {
        ".._.._x/linux",
        "EFI/BOOT/BOOTX64.EFI",
        "loader/loader.conf",
        "loader/entries/.._.._x.conf",
    }
    for version in (".", "..", "..."):
        assert file_name(version) == "linux"
    for options in ("a\nb", "a\0b", "x" * 2048):
        with pytest.raises(UsageError, match="command line"):
            kernel_entry(kernel, title="T", options=options)


def test_the_kernel_as_the_program() -> None:
    kernel = named_kernel("k", BytesContent(program(0xAA64)))
    assert kernel_as_program(kernel) == {"EFI/BOOT/BOOTAA64.EFI": kernel.content}


def test_root_is_named_unless_the_command_line_names_it() -> None:
    assert with_root("", "GUID") == "root=PARTUUID=GUID rw"
    assert with_root(" console=ttyS0 ", "GUID") == "root=PARTUUID=GUID rw console=ttyS0"
    assert with_root("root=/dev/vda ro", "GUID") == "root=/dev/vda ro"
    assert with_verity_root(" quiet ", "abc") == "root=/dev/mapper/root ro roothash=abc quiet"
    assert with_serial("quiet") == "quiet console=tty0 console=ttyS0,115200"
    assert with_serial("") == "console=tty0 console=ttyS0,115200"
    assert with_verity_root("ro root=/dev/mapper/mine", "abc") == "roothash=abc ro root=/dev/mapper/mine"
