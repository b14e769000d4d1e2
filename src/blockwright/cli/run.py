"""One run of the command: subcommands found when they are called, errors told in one line, signals obeyed.

Knows: exit codes and how errors are shown. Refuses to know: what any subcommand does.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from blockwright._version import __version__
from blockwright.cli import signals
from blockwright.cli.habits import COMPLETING
from blockwright.cli.lazy import LazyGroup, Subcommands
from blockwright.cli.output import show_text
from blockwright.errors import ArchiveRejected, BlockwrightError, FormatError, KernelError

INTERRUPTED = 130
"""Exit code after SIGINT or SIGTERM, as DESIGN and the shell have it."""


def _build() -> click.Command:
    from blockwright.cli.build import build

    return build


def _boot() -> click.Command:
    from blockwright.cli.boot import boot

    return boot


def _inspect() -> click.Command:
    from blockwright.cli.inspect import inspect

    return inspect


def _check() -> click.Command:
    from blockwright.cli.check import check

    return check


def _convert() -> click.Command:
    from blockwright.cli.convert import convert

    return convert


def _compare() -> click.Command:
    from blockwright.cli.compare import compare

    return compare


def _completion() -> click.Command:
    from blockwright.cli.completion import completion

    return completion


def _disk() -> click.Command:
    from blockwright.cli.disk import disk

    return disk


def _dm() -> click.Command:
    from blockwright.cli.dm import dm

    return dm


def _manifest() -> click.Command:
    from blockwright.cli.manifest import manifest

    return manifest


def _doctor() -> click.Command:
    from blockwright.cli.doctor import doctor

    return doctor


def _extract() -> click.Command:
    from blockwright.cli.extract import extract

    return extract


def _fetch() -> click.Command:
    from blockwright.cli.fetch import fetch_and_create

    return fetch_and_create


def _fs() -> click.Command:
    from blockwright.cli.fs import fs

    return fs


def _image() -> click.Command:
    from blockwright.cli.image import image

    return image


def _loop() -> click.Command:
    from blockwright.cli.loop import loop

    return loop


def _loopless() -> click.Command:
    from blockwright.cli.loopless import loopless

    return loopless


def _nbd() -> click.Command:
    from blockwright.cli.nbd import nbd

    return nbd


def _map() -> click.Command:
    from blockwright.cli.map import map_

    return map_


def _pool() -> click.Command:
    from blockwright.cli.pool import pool

    return pool


def _volume() -> click.Command:
    from blockwright.cli.volume import volume

    return volume


def _verity() -> click.Command:
    from blockwright.cli.verity import verity

    return verity


def _scan() -> click.Command:
    from blockwright.cli.scan import scan

    return scan


def _serve() -> click.Command:
    from blockwright.cli.serve import serve

    return serve


def _worker() -> click.Command:
    from blockwright.cli.worker import worker

    return worker


_COMMANDS: Subcommands = {
    "boot": ("Make images start on a BIOS and on UEFI: install.", _boot),
    "build": ("Make a disk image from a directory or tar archive.", _build),
    "check": ("Verify the table and file systems of an image.", _check),
    "compare": ("Tell whether two disks hold the same, whatever their formats.", _compare),
    "completion": ("Print the script by which a shell completes this command: bash, fish, zsh.", _completion),
    "convert": ("Copy a disk, holes and all, between files, devices and NBD servers.", _convert),
    "disk": ("Make disks and change their partition tables: create, table, add, rm, set, resize.", _disk),
    "dm": ("Make, change and show device-mapper's devices: create, load, table, status, remove and more.", _dm),
    "doctor": ("Tell what this machine can do, and what to install for what is missing.", _doctor),
    "extract": ("Make a directory what an archive, a directory or a file system in an image holds.", _extract),
    "fetch-and-create": ("Have a container image or archive in a volume: fetched, verified, scanned.", _fetch),
    "fs": ("Look into a file system, and change it in place: ls, get, put, write, rm and more.", _fs),
    "image": ("Images that became volumes: ls, show, activate, deactivate, rm, gc, retry, cancel.", _image),
    "inspect": ("Tell what an image holds.", _inspect),
    "loop": ("Attach images to loop devices: attach, detach, refresh, list, find, gc.", _loop),
    "loopless": ("Partition, format, fill and boot images by loopless's own verbs.", _loopless),
    "manifest": ("List what a source holds as an mtree manifest, digests and all.", _manifest),
    "map": ("Have the partitions of an image or disk as block devices: add, rm, list.", _map),
    "nbd": ("Ask NBD servers what they offer, verify them, copy from and to them, attach exports.", _nbd),
    "pool": ("Make pools of volumes, and look after them: create, up, down, status, watch, check and more.", _pool),
    "scan": ("Look for vulnerabilities or malware in a source, by a scanner that is installed.", _scan),
    "serve": ("Serve disks as network block devices.", _serve),
    "verity": ("Prove every block of a device by a hash tree: format, verify, open, close.", _verity),
    "volume": (
        "Make volumes and snapshots, activate and mount them: create, snapshot, grow, ls, rm and more.",
        _volume,
    ),
    "worker": ("Do the steps of fetch-and-create that others ask of this host, through Temporal.", _worker),
}


@click.group(
    cls=LazyGroup,
    subcommands=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="blockwright %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def root(debug: bool) -> None:  # noqa: FBT001  # click passes a flag by name
    """Make, look into, verify and copy disks, without root and without calling other programs."""


def run(arguments: Sequence[str], *, last: bool = False) -> int:
    """Run the command and return its exit code; errors are told on standard error in one line.

    ``last`` says that the process is there for it alone: no signal is missed, and they are ignored once it is done.
    """
    arguments = list(arguments)
    debug, as_json = "--debug" in arguments, "--json" in arguments
    _open_streams()
    try:
        if last:
            signals.watch()
        return _dispatch(arguments)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return error.exit_code
    except click.ClickException as error:
        return _tell(_usage_text(error), error, 2, as_json)
    except (KeyboardInterrupt, signals.Interrupted, click.Abort) as error:
        signals.ignore()  # all is undone, and what is left to do is to say so
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # behind the terminal's ^C
        return _tell("interrupted", error, INTERRUPTED, as_json)
    except BrokenPipeError:
        _forget_output()  # whoever read it has gone
        return 1
    except Exception as error:
        if debug:
            raise
        return _tell(*_text_and_code(error), as_json)
    finally:
        if last:
            signals.ignore()  # done or undone, there is nothing left to end


def _dispatch(arguments: list[str]) -> int:
    signals.obey()
    if COMPLETING in os.environ:
        from blockwright.cli.complete import register

        register()
    try:
        result = root.main(arguments, prog_name="blockwright", standalone_mode=False)
    except click.exceptions.Exit as error:
        result = error.exit_code
    try:
        sys.stdout.flush()  # a full disk behind it is an error like any other
    except OSError:
        _forget_output()
        raise
    return result if isinstance(result, int) else 0


def _forget_output() -> None:
    """Keep the interpreter from trying once more, when it ends, to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Open what was closed before we started: no file that is made later must become standard output."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the same
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a label need not fit the terminal's encoding


def _tell(text: str, error: BaseException, code: int, as_json: bool) -> int:  # noqa: FBT001  # as `run` has it
    line = show_text(text)
    if as_json:
        import json

        document: dict[str, Any] = {"schema": "blockwright.error/1", "class": type(error).__name__}
        document |= {"message": line, "code": code}
        if isinstance(error, FormatError):
            document |= {"source": error.source, "offset": error.offset, "spec": error.spec}
        if isinstance(error, ArchiveRejected):
            entry = None if error.entry is None else error.entry.decode("utf-8", "surrogateescape")
            document |= {"reason": error.reason.value, "layer": error.layer, "entry": entry}
        if isinstance(error, KernelError):
            document |= {"operation": error.operation, "device": error.device, "remedy": error.remedy}
        line = json.dumps({"error": document})
    else:
        line = f"blockwright: {line}"
    sys.stderr.write(line + "\n")
    return code


def _text_and_code(error: Exception) -> tuple[str, Exception, int]:
    if isinstance(error, BlockwrightError):
        return str(error), error, error.exit_code
    if isinstance(error, OSError):
        return _os_text(error), error, _os_code(error)
    return f"internal error: {type(error).__name__}: {error} ('blockwright --debug …' shows where)", error, 1


def _usage_text(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" (see '{context.command_path} --help')" if context is not None else ""
    return f"{' '.join(error.format_message().split())}{hint}"


def _os_text(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return f"{names[-1] or repr('')}: {reason}" if names else reason


def _os_code(error: OSError) -> int:
    if isinstance(error, FileNotFoundError):
        return 5
    return 4 if isinstance(error, PermissionError) else 1
