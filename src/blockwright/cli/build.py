"""``blockwright build``."""

from __future__ import annotations

import gc
import sys
from typing import Any

import click

from blockwright.boot.kinds import NAMES, parse_ways
from blockwright.build.definition import BootOptions, Definition, Home, NamedContent, RootOptions, Table
from blockwright.build.run import build as build_disk
from blockwright.build.run import named_file
from blockwright.cli.layout import plan_document, plan_lines
from blockwright.cli.options import (
    Take,
    force_option,
    json_option,
    output_options,
    quiet_option,
    share_value,
    size_value,
    source_date_epoch,
    source_options,
)
from blockwright.cli.output import is_stdout, print_json, print_lines, print_path, progress_bar, tell_remarks
from blockwright.errors import UsageError
from blockwright.units import parse_size


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--output", help="The disk image to make. Required but with --dry-run.")
@click.option("--table", type=click.Choice([each.value for each in Table]), default="gpt", show_default=True)
@click.option(
    "--size", callback=size_value, metavar="SIZE", help="Size of the whole disk; the root takes what remains."
)
@click.option("--root-size", default="auto", show_default=True, metavar="SIZE|auto|rest", help="Size of the root.")
@click.option(
    "--free",
    callback=share_value,
    metavar="SHARE",
    help="Share of the root to leave free, such as 20%.",
)
@click.option("--label", default="root", show_default=True, help="Label of the root file system.")
@click.option("--block-size", type=click.Choice(["1024", "2048", "4096"]), default="4096", show_default=True)
@click.option("--inodes", type=click.IntRange(min=11), help="Inodes of the root file system.")
@click.option("--reserved", callback=share_value, metavar="SHARE", help="Share of the root kept for the superuser.")
@click.option("--journal-size", callback=size_value, metavar="SIZE", help="Size of the journal; 0 for none.")
@click.option("--sector-size", type=click.Choice(["512", "4096"]), default="512", show_default=True)
@click.option(
    "--boot",
    default="none",
    metavar="WAY[,WAY]",
    help=f"What starts the disk: {', '.join(NAMES)}; two for a disk that a BIOS and UEFI start.",
)
@click.option("--bios-home", type=click.Choice([each.value for each in Home]), help="Where a BIOS's loader lives.")
@click.option("--kernel", help="The kernel; without it the newest in SOURCE.")
@click.option("--initrd", help="Its initial RAM disk; without it the one in SOURCE for that kernel.")
@click.option("--loader", help="The program or stub for UEFI; without it the one in SOURCE or on this host.")
@click.option("--loader-dir", metavar="DIR", help="Where all loaders' files are, instead of SOURCE and this host.")
@click.option("--cmdline", default="", help="Kernel command line; root=PARTUUID=… is put in front.")
@click.option("--serial", is_flag=True, help="Use the first serial line too: console=ttyS0,115200.")
@click.option(
    "--grub-modules", is_flag=True, help="With --boot grub: all of GRUB's modules beside its configuration."
)
@click.option("--esp-size", callback=size_value, metavar="SIZE", help="Size of the boot partition.")
@click.option("--verity", is_flag=True, help="Add a hash partition; the root is read-only, proven by roothash=….")
@click.option("--seed", help="Text that every identity follows from, or random. Default: the input.")
@output_options
@click.option("--dry-run", is_flag=True, help="Print the layout and write nothing.")
@force_option
@quiet_option
@json_option
@source_options
def build(take: Take, sources: tuple[str, ...], **options: Any) -> None:
    """Make a disk image from SOURCE: a directory, a tar archive (also compressed), - for standard input, a container
    image (OCI layout, OCI archive, docker-archive), a file system in an image (disk.img:2), or archives as layers.

    Without more it is a GPT disk with one ext4 root partition just large enough. The same input gives the same
    bytes. Paths of what was made go to standard output.

    \b
    Examples:
      blockwright build rootfs/ -o disk.img
      blockwright build rootfs/ -o disk.qcow2 --compress
      blockwright build rootfs.tar.gz -o disk.img --size 4G --boot systemd-boot
      blockwright build rootfs/ -o disk.img --boot systemd-boot --verity
      blockwright build rootfs/ -o disk.img --boot syslinux,uki --serial
      blockwright build rootfs/ -o root.ext4 --table none --free 20%
      blockwright build oci-layout/ -o disk.img --platform linux/arm64
    """  # noqa: D301  # click leaves lines as they are below a real backspace
    output, dry_run = options["output"], options["dry_run"]
    if output is None and not dry_run:
        raise UsageError("build: expected an output: -o disk.img")
    image = options["output_image"](output or "")
    # A build makes millions of objects, none of them in cycles, and ends: collecting would only cost.
    gc.disable()
    # A decoder's thread that has its next piece ready waits that long for the interpreter.
    sys.setswitchinterval(0.0001)
    definition = _definition(options)
    definition.check()
    with (
        take.open(sources) as source,
        progress_bar("build", quiet=options["quiet"]) as progress,
    ):
        built = build_disk(
            source, None if dry_run else output, definition, force=options["force"], progress=progress, image=image
        )
        tell_remarks(source.name, source.remarks)
    if options["as_json"] and not (output and is_stdout(output)):
        print_json("blockwright.build/1", {"output": None if dry_run else output, **plan_document(built.plan)})
    elif dry_run:
        print_lines(plan_lines(built.plan))
    else:
        print_path(output)


def _definition(options: dict[str, Any]) -> Definition:
    size, root_size = options["size"], options["root_size"]
    if root_size == "rest" and size is None:
        raise UsageError("build: --root-size rest needs the --size of the disk")
    given = None if root_size in ("auto", "rest") else parse_size(root_size)
    return Definition(
        table=Table(options["table"]),
        sector_size=int(options["sector_size"]),
        size=size,
        root=RootOptions(
            size=given,
            free=options["free"] or 0.0,
            label=options["label"],
            block_size=int(options["block_size"]),
            inodes=options["inodes"],
            reserved=options["reserved"],
            journal=options["journal_size"],
        ),
        boot=BootOptions(
            ways=parse_ways(options["boot"]),
            kernel=_file(options["kernel"]),
            initrd=_file(options["initrd"]),
            loader=_file(options["loader"]),
            loader_dir=options["loader_dir"],
            cmdline=options["cmdline"],
            serial=options["serial"],
            grub_modules=options["grub_modules"],
            bios_home=None if options["bios_home"] is None else Home(options["bios_home"]),
            esp_size=options["esp_size"],
        ),
        verity=options["verity"],
        seed=options["seed"],
        time_s=source_date_epoch(),
    )


def _file(path: str | None) -> NamedContent | None:
    return None if path is None else named_file(path)
