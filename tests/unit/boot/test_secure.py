"""What Secure Boot asks for: who gets a signature, what a shim starts, and which loader starts which kernel."""

from pathlib import Path

import pytest

from blockwright.boot import loaders as finders
from blockwright.boot import pe
from blockwright.boot.image import check_machines, efi_suffix
from blockwright.boot.kinds import Secure, Uefi
from blockwright.boot.secure import secured
from blockwright.boot.shelf import of_directory
from blockwright.errors import NotFound, NotThisFormat, Unsupported
from blockwright.tree.content import BytesContent
from tests.support import loaders

PLAIN = loaders.program([(".text", b"code")])
SIGNED = loaders.program([(".text", b"code")], certificate=0x600)
MACHINES = {"IA32": 0x14C, "X64": 0x8664, "ARM": 0x1C2, "AA64": 0xAA64, "RISCV64": 0x5064, "LOONGARCH64": 0x6264}


def sign(program: bytes, name: str) -> bytes:
    """A signature, as far as headers tell."""
    return loaders.program([(".text", name.encode())], certificate=0x600)


def data(content) -> bytes:
    return content.read(0, content.size)


def files(**more: bytes) -> dict:
    given = {"EFI/BOOT/BOOTX64.EFI": PLAIN, "6.1/linux": SIGNED, "6.1/initrd": b"M", "loader.conf": b"MZ"[:1], **more}
    return {path: BytesContent(each) for path, each in given.items()}


def test_what_has_no_signature_gets_one_and_nothing_else_does() -> None:
    made = secured(files(), Secure(sign=sign), (), "X64")
    assert b"EFI/BOOT/BOOTX64.EFI" in data(made["EFI/BOOT/BOOTX64.EFI"])
    assert {path: data(each) for path, each in made.items() if "BOOTX64" not in path} == {
        path: data(each) for path, each in files().items() if "BOOTX64" not in path
    }


@pytest.mark.parametrize("made", [PLAIN, b"", b"no program", loaders.program([], machine=0xAA64, certificate=9)])
def test_what_the_hook_returns_is_looked_at(made: bytes) -> None:
    with pytest.raises(NotThisFormat):
        secured(files(), Secure(sign=lambda *_: made), (), "X64")


def shelf(folder: Path, **more: bytes):
    for name, content in {"shimx64.efi.signed": SIGNED, "mmx64.efi.signed": b"MZ manager", **more}.items():
        if content:
            (folder / name).write_bytes(content)
    return (of_directory(str(folder)),)


def test_a_shim_stands_in_front_and_the_loader_beside_it(tmp_path: Path) -> None:
    made = secured(files(), Secure(shim=True), shelf(tmp_path), "X64")
    assert data(made["EFI/BOOT/BOOTX64.EFI"]) == SIGNED
    assert data(made["EFI/BOOT/grubx64.efi"]) == PLAIN
    assert data(made["EFI/BOOT/mmx64.efi"]) == b"MZ manager"
    assert data(made["6.1/linux"]) == SIGNED


def test_a_loader_is_signed_before_it_goes_behind_the_shim(tmp_path: Path) -> None:
    made = secured(files(), Secure(shim=True, sign=sign), shelf(tmp_path, **{"mmx64.efi.signed": b""}), "X64")
    assert pe.read(data(made["EFI/BOOT/grubx64.efi"]), "x").signed
    assert "EFI/BOOT/mmx64.efi" not in made


@pytest.mark.parametrize(
    ("shim", "error", "text"),
    [
        (b"", NotFound, "Debian package shim-signed"),
        (PLAIN, NotThisFormat, "expected a shim with a signature"),
        (
            loaders.program([], machine=0xAA64, certificate=9),
            NotThisFormat,
            "expected a shim for X64, found one for AA64",
        ),
        (b"text", NotThisFormat, "expected an EFI program"),
    ],
)
def test_other_shims_are_refused(tmp_path: Path, shim: bytes, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        secured(files(), Secure(shim=True), shelf(tmp_path, **{"shimx64.efi.signed": shim}), "X64")


def test_a_signed_grub_comes_first_only_behind_a_shim(tmp_path: Path) -> None:
    (tmp_path / "grubx64.efi").write_bytes(b"plain")
    (tmp_path / "grubx64.efi.signed").write_bytes(b"signed")
    shelves = (of_directory(str(tmp_path)),)
    assert finders.uefi(shelves, Uefi.GRUB, "X64").bytes() == b"plain"
    assert finders.uefi(shelves, Uefi.GRUB, "X64", signed=True).bytes() == b"signed"


@pytest.mark.parametrize(("suffix", "machine"), MACHINES.items())
def test_each_machine_has_its_name(tmp_path: Path, suffix: str, machine: int) -> None:
    assert efi_suffix(BytesContent(loaders.program([], machine=machine)), "x") == suffix
    for way, name in (
        (Uefi.UKI, "linux{}.efi.stub"),
        (Uefi.SYSTEMD_BOOT, "systemd-boot{}.efi"),
        (Uefi.GRUB, "grub{}.efi"),
    ):
        path = tmp_path / name.format(suffix.lower())
        path.write_bytes(b"x")
        assert finders.uefi((of_directory(str(tmp_path)),), way, suffix).path == path.name


def kernel(machine: str, xloadflags: int | None = None) -> BytesContent:
    made = bytearray(loaders.program([], machine=MACHINES[machine]))
    if xloadflags is not None:
        made[0x202:0x206], made[0x236] = b"HdrS", xloadflags
    return BytesContent(bytes(made))


@pytest.mark.parametrize("machine", MACHINES)
def test_a_loader_starts_kernels_of_its_machine(machine: str) -> None:
    loader = BytesContent(loaders.program([], machine=MACHINES[machine]))
    check_machines(loader, "loader", kernel(machine), "kernel")
    check_machines(loader, "loader", BytesContent(b"no program"), "kernel")
    others = [each for each in MACHINES if each != machine]
    for other in others:
        with pytest.raises(Unsupported, match=f"loader for {other}|CONFIG_EFI_MIXED"):
            check_machines(loader, "loader", kernel(other), "kernel")


def test_firmware_of_32_bits_starts_a_mixed_kernel_of_64() -> None:
    loader = BytesContent(loaders.program([], machine=MACHINES["IA32"]))
    check_machines(loader, "loader", kernel("X64", 0b110), "kernel")
    with pytest.raises(Unsupported, match="CONFIG_EFI_MIXED"):
        check_machines(loader, "loader", kernel("X64", 0b010), "kernel")
    with pytest.raises(Unsupported, match="expected a loader for IA32"):
        check_machines(BytesContent(PLAIN), "loader", kernel("IA32", 0b110), "kernel")
