"""``blockwright build``."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from typing import Any

import click

from blockwright.boot.kinds import NAMES
from blockwright.build.definition import Definition, Home, Table
from blockwright.build.run import build as build_disk
from blockwright.build.toml_read import Asked
from blockwright.cli.content_options import content_options
from blockwright.cli.definition import asked_for, definition_options, in_file
from blockwright.cli.layout import plan_document, plan_lines
from blockwright.cli.options import (
    check_new_file,
    compat_option,
    force_option,
    inode_size_option,
    output_options,
    quiet_option,
    share_value,
    size_value,
    some_size_value,
)
from blockwright.cli.output import is_stdout, print_json, print_lines, print_path, progress_bar, tell_remarks
from blockwright.cli.params import json_option
from blockwright.cli.really import meaning, really_option
from blockwright.cli.signing import secure_options
from blockwright.cli.source_options import Take, source_options
from blockwright.epoch import source_date_epoch
from blockwright.errors import BlockwrightError, UsageError
from blockwright.source import Source
from blockwright.source.base import NoSource
from blockwright.tree.changes.options import Changes

DIFFERENT = 3


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@definition_options
@click.option("-o", "--output", help="The disk image to make, - for standard output. Required but with --dry-run.")
@click.option(
    "--table",
    type=click.Choice([each.value for each in Table]),
    default="gpt",
    show_default=True,
    help="The partition table; none is a bare file system.",
)
@click.option(
    "--size", callback=some_size_value, metavar="SIZE", help="Size of the whole disk; the root takes what remains."
)
@click.option("--root-size", default="auto", show_default=True, metavar="SIZE|auto|rest", help="Size of the root.")
@click.option(
    "--free",
    callback=share_value,
    metavar="SHARE",
    help="Share of the root to leave free, such as 20%.",
)
@click.option("--label", default="root", show_default=True, help="Label of the root file system.")
@click.option(
    "--block-size",
    type=click.Choice(["1024", "2048", "4096"]),
    default="4096",
    show_default=True,
    help="Bytes of a block of the root file system.",
)
@click.option(
    "--fs", type=click.Choice(["ext2", "ext3", "ext4"]), default="ext4", show_default=True, help="The root's."
)
@click.option("--inodes", type=click.IntRange(min=11), help="Inodes of the root file system.")
@inode_size_option
@compat_option
@click.option("--reserved", callback=share_value, metavar="SHARE", help="Share of the root kept for the superuser.")
@click.option("--journal-size", callback=size_value, metavar="SIZE", help="Size of the journal; 0 for none.")
@click.option(
    "--sector-size",
    type=click.Choice(["512", "4096"]),
    default="512",
    show_default=True,
    help="Bytes of a sector, which the table counts in.",
)
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
@click.option("--splash", metavar="BMP", help="With --boot uki: the picture that its stub shows.")
@click.option("--devicetree", metavar="DTB", help="With --boot uki: the device tree of the machine.")
@secure_options
@click.option("--esp-size", callback=some_size_value, metavar="SIZE", help="Size of the boot partition.")
@click.option("--verity", is_flag=True, help="Add a hash partition; the root is read-only, proven by roothash=….")
@click.option("--seed", help="Text that every identity follows from, or random. Default: the input.")
@click.option(
    "--spool",
    is_flag=True,
    help="Keep what passes once in a temporary file first: the disk of a plain archive, byte for byte.",
)
@output_options
@click.option("--verify", is_flag=True, help="Make the disk once more when it is written, and compare every byte.")
@click.option("--verify-only", is_flag=True, help="Write nothing: compare OUTPUT with the disk that would be made.")
@click.option("--dry-run", is_flag=True, help="Print the layout and write nothing.")
@really_option
@force_option
@quiet_option
@json_option
@content_options(disk=True)
@source_options
def build(*, take: Take, changes: Changes, sources: tuple[str, ...], **options: Any) -> int:
    """Make a disk image from SOURCE: a directory, a tar archive (also compressed), - for standard input, a container
    image (OCI layout, OCI archive, docker-archive), a file system in an image (disk.img:2), or several as layers.

    Without more it is a GPT disk with one ext4 root partition just large enough. The same input gives the same
    bytes. Paths of what was made go to standard output.

    \b
    Examples:
      blockwright build rootfs/ -o disk.img
      blockwright build rootfs/ -o disk.qcow2 --compress
      blockwright build rootfs/ -o - --format vmdk > disk.vmdk
      blockwright build rootfs.tar.gz -o disk.img --size 4G --boot systemd-boot
      blockwright build rootfs/ -o disk.img --boot systemd-boot --verity
      blockwright build rootfs/ -o disk.img --boot syslinux,uki --serial
      blockwright build rootfs/ -o root.ext4 --table none --free 20%
      blockwright build oci-layout/ -o disk.img --platform linux/arm64
      blockwright build rootfs/ -o disk.img --owner root:root --exclude '*.pyc' --hostname box --fstab
      blockwright build rootfs/ -o disk.img --verify-only
      blockwright build rootfs/ -o disk.img --size 8G --partition mount=/,size=2G --partition mount=/home,size=rest
      blockwright build -f disk.toml -o disk.img
    """  # noqa: D301  # click leaves lines as they are below a real backspace
    asked = asked_for(click.get_current_context(), sources)
    definition = asked.definition(source_date_epoch())
    definition = replace(definition, changes=changes, boot=replace(definition.boot, secure=options["secure"]))
    definition.check()
    if options["print_definition"]:
        from blockwright.build.toml_write import write_toml

        sys.stdout.write(write_toml(definition, asked.sources, asked.others))
        return 0
    try:
        return _make(asked, definition, take, options)
    except BlockwrightError as error:
        placed = in_file(error, asked, changes)
        if placed is None:
            raise
        raise placed from None


def _make(asked: Asked, definition: Definition, take: Take, options: dict[str, Any]) -> int:
    """Make the disk, or its plan, tell of it, and return the exit code."""
    output, dry_run, sources = options["output"], options["dry_run"], asked.sources
    if definition.needs_tree != bool(sources):
        raise UsageError(
            "build: expected a SOURCE, found none"
            if definition.needs_tree
            else f"build: {sources[0]}: expected a partition with a mount point for it, found none"
        )
    if output is None and not dry_run:
        raise UsageError("build: expected an output: -o disk.img")
    if output is not None and not dry_run and not options["verify_only"]:
        check_new_file(output)
    image = options["output_image"](output or "")
    # A build makes millions of objects, none of them in cycles, and ends: collecting would only cost.
    gc.disable()
    verifying = options["verify"] or options["verify_only"]
    # A decoder's thread that has its next piece ready waits that long for the interpreter.
    sys.setswitchinterval(0.0001)
    if verifying:
        _check_verifiable(take, sources, definition, output, dry_run=dry_run)
    if options["verify_only"]:
        return _verify(take, sources, output, definition, options, remarks=True)
    with (
        meaning("" if dry_run else output or "", options["yes_really"]),
        _opened(take, sources) as source,
        progress_bar("build", quiet=options["quiet"]) as progress,
    ):
        built = build_disk(
            source,
            None if dry_run else output,
            definition,
            force=options["force"],
            progress=progress,
            image=image,
            opened=take.open,
        )
        tell_remarks(source.name, source.remarks)
    if verifying:
        code = _verify(take, sources, output, definition, options, remarks=False)
        if code:
            return code
    if output == "-" and not dry_run:
        return 0
    if options["as_json"] and not (output and is_stdout(output)):
        print_json("blockwright.build/1", {"output": None if dry_run else output, **plan_document(built.plan)})
    elif dry_run:
        print_lines(plan_lines(built.plan))
    else:
        print_path(output)
    return 0


def _check_verifiable(
    take: Take, sources: tuple[str, ...], definition: Definition, output: str, *, dry_run: bool
) -> None:
    """Raise UsageError for what cannot be made twice, before it is made once."""
    from blockwright.build.verify import check_seed

    check_seed(definition)
    if dry_run:
        raise UsageError("build: expected --dry-run or --verify, found both")
    if output and (output == "-" or is_stdout(output)):
        raise UsageError("build: --verify: standard output cannot be read again: expected a name")
    if not take.repeatable(sources):
        raise UsageError("build: --verify: what passes once cannot be read again: expected SOURCE in files")


def _verify(
    take: Take,
    sources: tuple[str, ...],
    output: str,
    definition: Definition,
    options: dict[str, Any],
    *,
    remarks: bool,
) -> int:
    """Compare what is at ``output`` with what the sources make, tell it, and return the exit code."""
    from blockwright.build.verify import verify
    from blockwright.format.policy import REFUSE

    with _opened(take, sources) as source, progress_bar("verify", quiet=options["quiet"]) as progress:
        found = verify(source, output, definition, policy=REFUSE, progress=progress, opened=take.open)
        if remarks:
            tell_remarks(source.name, source.remarks)
    same = found.offset is None
    if options["as_json"] and (options["verify_only"] or not same):
        document = {"output": output, "same": same, "first_difference": found.offset, "where": found.where or None}
        print_json("blockwright.build.verify/1", {**document, "size": found.size, "found_size": found.found})
    elif not same:
        print_lines([f"{output}: differs from {' '.join(sources)}: byte {found.offset}: {found.where}"])
    elif options["verify_only"]:
        print_lines([f"{output}: the same as {' '.join(sources)}, {found.size} bytes"])
    return 0 if same else DIFFERENT


def _opened(take: Take, sources: tuple[str, ...]) -> Source:
    return take.open(sources) if sources else NoSource()
