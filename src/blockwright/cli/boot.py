"""``blockwright boot``: images that exist are made to start."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import click

from blockwright.address import parse_address
from blockwright.boot.install import Request, install, shelves_for
from blockwright.boot.kernel import Kernel, named_kernel
from blockwright.boot.kinds import parse_ways
from blockwright.boot.uefi import Program
from blockwright.build.run import named_file
from blockwright.cli.options import ImageFormat, force_unlocked_option, image_options, partition_option
from blockwright.cli.output import print_json, print_lines
from blockwright.cli.params import json_option
from blockwright.cli.signing import secure_options
from blockwright.epoch import source_date_epoch
from blockwright.errors import UsageError
from blockwright.resolve import open_device, refuse_container


@click.group()
def boot() -> None:
    """Make images start on a BIOS and on UEFI."""


@boot.command("install")
@click.argument("image")
@click.argument("way", metavar="WAY[,WAY]")
@click.option("--root", type=click.IntRange(min=1), metavar="N", help="The partition that is the root.")
@click.option("--kernel", help="A kernel to put there; without it the newest in the image.")
@click.option("--initrd", help="Its initial RAM disk.")
@click.option("--loader", help="The program or stub for UEFI; without it the one in the image or on this host.")
@click.option("--loader-dir", metavar="DIR", help="Where all loaders' files are, instead of the image and this host.")
@click.option("--cmdline", default="", help="Kernel command line; root=PARTUUID=… is put in front.")
@click.option("--serial", is_flag=True, help="Use the first serial line too: console=ttyS0,115200.")
@click.option("--grub-modules", is_flag=True, help="With grub: all of GRUB's modules beside its configuration.")
@secure_options
@click.option("--directory", metavar="PATH", help="Where in its partition a BIOS's loader lives.")
@click.option("--keep-config", is_flag=True, help="Leave the configuration that is there as it is.")
@partition_option
@force_unlocked_option
@image_options
@json_option
def install_(image: str, way: str, partition: int | None, **options: Any) -> None:
    """Have IMAGE start by WAY: syslinux, grub, systemd-boot, grub-efi, uki or kernel; one for each firmware at most.

    IMAGE:N is the partition a BIOS's loader lives in; without it the marked one, or the root. Programs for UEFI go
    to the EFI system partition. What was written is printed.
    """
    address = parse_address(image, partition=partition)
    refuse_container(image, address)
    if address.start is not None:
        raise UsageError(f"{image}: expected an image or one of its partitions by number, found a range")
    shelves, search_system = shelves_for(options["loader_dir"])
    program = None if options["loader"] is None else named_file(options["loader"])
    request = Request(
        ways=parse_ways(way),
        home=address.partition,
        root=options["root"],
        kernel=_kernel(options["kernel"], options["initrd"]),
        program=None if program is None else Program(program.name, program.content),
        shelves=shelves,
        search_system=search_system,
        cmdline=options["cmdline"],
        serial=options["serial"],
        configure=not options["keep_config"],
        directory=options["directory"],
        grub_modules=options["grub_modules"],
        time_ns=_now_ns(),
        secure=options["secure"],
    )
    whole = str(replace(address, partition=None))
    image_format: ImageFormat = options["image_format"]
    with open_device(
        whole,
        writable=True,
        force_unlocked=options["force_unlocked"],
        alone=True,
        form=image_format.form,
        policy=image_format.policy,
    ) as device:
        written = install(device, whole, request)
    if options["as_json"]:
        print_json("blockwright.boot/1", {"image": whole, "written": written})
    else:
        print_lines(written)


def _kernel(path: str | None, initrd: str | None) -> Kernel | None:
    if path is None:
        if initrd is not None:
            raise UsageError("boot: --initrd is of use with --kernel only")
        return None
    named = named_file(path)
    return named_kernel(named.name, named.content, None if initrd is None else named_file(initrd).content)


def _now_ns() -> int:
    """Return the time of what is put into an image, as SOURCE_DATE_EPOCH or the clock has it."""
    given = source_date_epoch()
    return time.time_ns() if given is None else given * 10**9
