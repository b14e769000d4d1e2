"""Fuzz target: any bytes as the parts of boot loaders, by a first byte that says which."""

from blockwright.boot import grubefi, pe, uki
from blockwright.boot.elf import memory_image
from blockwright.boot.grub import Grub, boot_code, embedded
from blockwright.boot.syslinux import MAGIC, Syslinux, word_sum
from blockwright.boot.syslinux_parts import from_program
from blockwright.errors import FormatError, NotFound, UsageError
from blockwright.fs.reader import Placed
from blockwright.tree.content import BytesContent
from tests.support import loaders

MAX_BYTES = 1 << 18
KINDS = 7


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError, and refusals, out; what is made of accepted parts holds together."""
    if not data:
        return
    kind, body = data[0] % KINDS, data[1:MAX_BYTES]
    try:
        _TARGETS[kind](body)
    except (FormatError, NotFound, UsageError):
        return


def _program(body: bytes) -> None:
    _install(from_program(body, "input"))


def _image(body: bytes) -> None:
    _install(Syslinux.of(loaders.boot_sector(), body, loaders.module(), "input"))


def _install(parts: Syslinux) -> None:
    installed = parts.install([Placed(0, 512 * 100, parts.size)], "/boot")
    if word_sum(installed.image[: len(parts.image)]) != MAGIC:
        raise AssertionError("the sum of the words is wrong")
    if len(installed.image) != parts.size or len(installed.boot_sector) != 512:
        raise AssertionError("the size has changed")


def _stub(body: bytes) -> None:
    made = uki.assemble(body, {".linux": BytesContent(b"kernel"), ".cmdline": BytesContent(b"x\0")}, "input")
    buffer = bytearray(made.size)
    made.read_into(0, memoryview(buffer))
    program = pe.read(bytes(buffer), "output")
    section = program.section(".linux")
    if section is None or buffer[section.offset : section.offset + section.size] != b"kernel":
        raise AssertionError("the kernel is not where its section says")


def _grub_efi(body: bytes) -> None:
    path = grubefi.config_path(body, "input")
    if path.startswith("/") or ".." in path:
        raise AssertionError(f"leads out of the partition: {path!r}")


def _elf(body: bytes) -> None:
    if len(memory_image(body, 0x9000, 0x5F000, "input")) > 0x5F000:
        raise AssertionError("larger than its room")


def _kernel(body: bytes) -> None:
    files = loaders.grub_files() | {"kernel.img": body}
    embedded(Grub(loaders.grub_reader(files), "input").core("(,gpt1)/x", ["ext2"]), 512)


def _dependencies(body: bytes) -> None:
    files = loaders.grub_files() | {"moddep.lst": body}
    grub = Grub(loaders.grub_reader(files), "input")
    order = grub.with_dependencies(["normal"])
    if len(set(order)) != len(order) or order[-1] != "normal":
        raise AssertionError(f"no order: {order}")
    boot_code(body[:512], 512)


_TARGETS = (_program, _image, _stub, _grub_efi, _elf, _kernel, _dependencies)


def seeds() -> list[bytes]:
    """Sound parts of each kind."""
    parts = (
        loaders.extlinux(),
        loaders.ldlinux(),
        loaders.stub(),
        loaders.grub_efi(),
        loaders.grub_files()["kernel.img"],
        loaders.grub_files()["kernel.img"],
        loaders.grub_files()["moddep.lst"],
    )
    return [bytes([kind]) + part for kind, part in enumerate(parts)]
